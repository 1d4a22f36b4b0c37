//! A server process that cannot outlive the test's process.

use std::{
    ffi::OsString,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    time::{Duration, Instant},
};

/// Starts the server and ends it when its own input ends, which the kernel sees to even if the
/// test's process is killed. A stopped process gets CONT first, or it would not see the signal.
const KEEPER: &str = r#"
signal=$1; log=$2; shift 2
"$@" </dev/null >>"$log" 2>&1 &
server=$!
echo $server
read -r _
kill -CONT $server; kill -$signal $server; wait $server
"#;

/// A running server.
#[derive(Debug)]
pub(crate) struct Process {
    keeper: Child,
    input: Option<ChildStdin>,
    id: u32,
}

impl Process {
    /// Starts `command`, which `signal` ends.
    pub(crate) fn start(command: &[OsString], signal: &str, log: &Path) -> Self {
        let mut keeper = Command::new("sh");
        keeper.args(["-c", KEEPER, "keeper", signal]).arg(log);
        let mut keeper = keeper
            .args(command)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut id = String::new();
        let output = keeper.stdout.take().unwrap();
        BufReader::new(output).read_line(&mut id).unwrap();
        Self {
            input: keeper.stdin.take(),
            id: id.trim().parse().unwrap(),
            keeper,
        }
    }

    /// Ends it and waits until it is gone.
    pub(crate) fn stop(&mut self) {
        if self.input.take().is_some() {
            // What it started may be stopped too.
            self.signal("CONT");
            self.keeper.wait().unwrap();
        }
    }

    /// Sends a signal to it, and then to what it started: once it is stopped it starts no more.
    pub(crate) fn signal(&self, signal: &str) {
        kill(signal, &[self.id]);
        kill(signal, &children(self.id));
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
    }
}

fn kill(signal: &str, ids: &[u32]) {
    let mut kill = Command::new("sh");
    kill.args(["-c", "kill -\"$@\" 2>/dev/null", "kill", signal]);
    kill.args(ids.iter().map(u32::to_string));
    // Some may have ended meanwhile.
    let _ = kill.status().unwrap();
}

/// The processes that `parent` started. PostgreSQL's leave its process group.
fn children(parent: u32) -> Vec<u32> {
    let Ok(all) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    let is_child = |id: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        // The name before the parenthesis may hold anything.
        let mut fields = stat.rsplit(')').next().unwrap_or("").split_whitespace();
        fields.nth(1) == Some(parent.to_string().as_str())
    };
    all.flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(is_child)
        .collect()
}

/// Waits until `ready` says so.
pub(crate) fn wait_until(what: &str, log: &Path, ready: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !ready() {
        if Instant::now() > deadline {
            let log = std::fs::read_to_string(log).unwrap_or_default();
            panic!("{what} does not come up:\n{log}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The first folder of `PATH` that holds `name`.
pub(crate) fn on_path(name: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}
