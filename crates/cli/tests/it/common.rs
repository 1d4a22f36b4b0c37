//! Running the command, and a market to run it in.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Output, Stdio},
};

use serde_json::Value;

pub(crate) fn farebox(args: &[&str]) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("farebox"));
    command.args(args).stdin(Stdio::null());
    command
}

pub(crate) fn run(args: &[&str]) -> Output {
    farebox(args).output().unwrap()
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

pub(crate) const RAILS: [&str; 4] = [
    "lightning/charge",
    "proof/charge",
    "stripe/charge",
    "tempo/charge",
];

/// A child that ends with its handle.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    /// Starts `farebox` and reads its output up to the first line that `wanted` accepts.
    pub(crate) fn start<T>(args: &[&str], wanted: impl Fn(&str) -> Option<T>) -> (Self, T) {
        Self::begin(&mut farebox(args), wanted)
    }

    /// The same with a command that was made before.
    pub(crate) fn begin<T>(command: &mut Command, wanted: impl Fn(&str) -> Option<T>) -> (Self, T) {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let running = Self(child);
        let found = lines
            .map(|line| line.unwrap())
            .find_map(|line| wanted(&line));
        (running, found.expect("it said what was waited for"))
    }
}

/// Where a server says that it listens.
pub(crate) fn listening(line: &str) -> Option<String> {
    let rest = line.strip_prefix("listening on ")?;
    Some(rest.split(',').next()?.to_owned())
}

/// A seller on the sandboxes, and a payer's wallets.
pub(crate) struct Market {
    _sandbox: Running,
    _serve: Running,
    pub(crate) wallet: String,
    pub(crate) url: String,
    pub(crate) base: String,
    pub(crate) dir: tempfile::TempDir,
}

impl Market {
    pub(crate) fn open() -> Self {
        Self::of(|_| {})
    }

    /// One whose seller has its configuration changed.
    pub(crate) fn of(change: impl FnOnce(&mut Value)) -> Self {
        let (sandbox, printed) = Running::start(&["sandbox", "--json"], |line| {
            serde_json::from_str::<Value>(line).ok()
        });
        let dir = tempfile::tempdir().unwrap();
        let mut config = printed["config"].clone();
        // Any free port.
        config["listen"] = "127.0.0.1:0".into();
        change(&mut config);
        let path = dir.path().join("farebox.toml");
        std::fs::write(&path, toml::to_string(&config).unwrap()).unwrap();
        let wallet = dir.path().join("wallet.toml");
        std::fs::write(&wallet, toml::to_string(&printed["wallet"]).unwrap()).unwrap();
        let (serve, base) =
            Running::start(&["serve", "--config", path.to_str().unwrap()], listening);
        let wallet = wallet.to_str().unwrap().to_owned();
        Self {
            _sandbox: sandbox,
            _serve: serve,
            wallet,
            url: format!("{base}/joke"),
            base,
            dir,
        }
    }

    pub(crate) fn pay(&self, more: &[&str]) -> Output {
        let mut args = vec!["pay", "--wallet", &self.wallet, &self.url];
        args.extend(more);
        run(&args)
    }
}
