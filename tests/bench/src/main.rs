//! The same work in Farebox and in the crate `mpp`, in one process.
//!
//! Rounds alternate between the two, so that whatever else the machine does falls on both; the
//! ratio is that of the medians. Run it with `cargo run --release`, optionally with the number of
//! rounds and a part of the names of the comparisons to run; with `ours` or `theirs` behind them
//! it runs that side alone, for a profiler.

mod codec;
mod served;
mod vouchers;

use std::time::Duration;

/// One side of a comparison: does the work so many times and says how long it took, without what
/// it had to prepare.
type Work = Box<dyn FnMut(usize) -> Duration>;

struct Comparison {
    name: &'static str,
    ours: Work,
    theirs: Work,
    /// The ratio this project wants, where it has set one.
    target: Option<f64>,
}

/// Shorter than the scheduler's slice, so that most rounds run undisturbed.
const ROUND: Duration = Duration::from_millis(1);

fn main() {
    let mut args = std::env::args().skip(1);
    let rounds = args.next().map_or(Ok(301), |text| text.parse());
    let rounds: usize = rounds.expect("the number of rounds");
    let part = args.next().unwrap_or_default();
    let alone = args.next().map(|side| usize::from(side == "theirs"));
    println!(
        "{:<26}{:>14}{:>14}{:>9}{:>9}",
        "", "farebox", "mpp", "ratio", "target"
    );
    let mut missed = 0;
    let all = codec::all()
        .into_iter()
        .chain(served::all())
        .chain(vouchers::all());
    for comparison in all.filter(|comparison| comparison.name.contains(&part)) {
        let Comparison {
            name,
            mut ours,
            mut theirs,
            target,
        } = comparison;
        if let Some(side) = alone {
            let work = if side == 0 { &mut ours } else { &mut theirs };
            println!("{name:<26}{:>11.0} ns", median_of_one(rounds, work));
            continue;
        }
        let [ours, theirs] = medians(rounds, &mut ours, &mut theirs);
        let ratio = theirs / ours;
        let wanted = target.map_or(String::new(), |target| format!("{target:.1}"));
        missed += usize::from(target.is_some_and(|target| ratio < target));
        println!(
            "{name:<26}{:>11.0} ns{:>11.0} ns{ratio:>8.2}x{wanted:>8}",
            ours, theirs
        );
    }
    println!("\nmedians of {rounds} rounds; {missed} below target");
}

/// Nanoseconds a piece of work.
fn medians(rounds: usize, ours: &mut Work, theirs: &mut Work) -> [f64; 2] {
    let counts = [calibrate(ours), calibrate(theirs)];
    let mut times = [Vec::new(), Vec::new()];
    for round in 0..rounds {
        // Whoever comes second finds warmer or cooler caches, so they take turns.
        for side in [round % 2, 1 - round % 2] {
            let work = if side == 0 { &mut *ours } else { &mut *theirs };
            times[side].push(once(work, counts[side]));
        }
    }
    times.map(median)
}

fn median_of_one(rounds: usize, work: &mut Work) -> f64 {
    let count = calibrate(work);
    median((0..rounds).map(|_| once(work, count)).collect())
}

fn once(work: &mut Work, count: usize) -> f64 {
    work(count).as_nanos() as f64 / count as f64
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// How often the work fits into a round.
fn calibrate(work: &mut Work) -> usize {
    let mut count = 1;
    loop {
        let took = work(count);
        if took >= ROUND {
            return count;
        }
        count *= 2;
    }
}
