//! The farebox command, built so that it can be made to die at any effect.
//!
//! At which, the variable `FAILPOINTS` says; or, while it runs, a line on its standard input, `settle.after 2`
//! for the second time from then on, and `none 0`. It answers `armed`, and from then on logs the points
//! that it reaches.

use std::{
    io::{self, Write as _},
    process::{ExitCode, abort},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
};

use farebox::engine::EFFECTS;

/// Where to die, and how many times from now on to get there.
static DEATH: Mutex<Option<(String, usize)>> = Mutex::new(None);

fn main() -> ExitCode {
    thread::spawn(obey);
    farebox_cli::main()
}

fn death() -> MutexGuard<'static, Option<(String, usize)>> {
    DEATH.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads its orders, to the end of the standard input.
fn obey() {
    for order in io::stdin().lines().map_while(Result::ok) {
        let order = order.split_once(' ');
        let Some((point, Ok(count))) = order.map(|(point, count)| (point, count.parse())) else {
            continue;
        };
        *death() = Some((point.to_owned(), count));
        // Each time, since the command itself clears all points when it starts.
        for point in EFFECTS
            .iter()
            .flat_map(|effect| ["before", "after"].map(|when| format!("{effect}.{when}")))
        {
            let name = point.clone();
            if fail::cfg_callback(point, move || reach(&name)).is_err() {
                abort();
            }
        }
        let mut out = io::stdout().lock();
        if writeln!(out, "armed").and_then(|()| out.flush()).is_err() {
            return;
        }
    }
}

fn reach(point: &str) {
    let mut death = death();
    // Each in one write, before other threads get any further.
    let log = |what: &str| io::stderr().write_all(format!("{what} {point}\n").as_bytes());
    let _ = log("reached");
    if let Some((at, left)) = &mut *death
        && at == point
    {
        *left = left.saturating_sub(1);
        if *left == 0 {
            let _ = log("died at");
            abort();
        }
    }
}
