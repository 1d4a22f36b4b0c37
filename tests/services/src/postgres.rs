//! A PostgreSQL server.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use tempfile::TempDir;

use crate::{
    port::Port,
    process::{Process, on_path, wait_until},
};

/// The folder of `initdb`, `postgres` and `psql`.
pub(crate) fn programs() -> Result<PathBuf, String> {
    if let Some(named) = std::env::var_os("FAREBOX_POSTGRES_BIN") {
        return Ok(named.into());
    }
    let complete = |folder: &PathBuf| {
        let programs = ["initdb", "postgres", "psql"];
        programs.iter().all(|name| folder.join(name).is_file())
    };
    let debian = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten();
    let mut versions: Vec<PathBuf> = debian.flatten().map(|v| v.path().join("bin")).collect();
    versions.sort();
    versions.extend(on_path("initdb").and_then(|file| file.parent().map(Path::to_owned)));
    versions
        .into_iter()
        .rev()
        .find(complete)
        .ok_or_else(|| "postgres is missing; FAREBOX_POSTGRES_BIN may name its programs".to_owned())
}

/// A PostgreSQL server, with its disk in order: every commit is there after a power loss.
#[derive(Debug)]
pub struct Postgres {
    process: Option<Process>,
    folder: TempDir,
    port: Port,
    options: Vec<String>,
    databases: AtomicU32,
}

impl Postgres {
    /// Starts one.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts one with settings such as `max_connections=5`.
    pub fn start_with(settings: &[&str]) -> Self {
        let folder = TempDir::new().unwrap();
        if is_root() {
            // It refuses to run as root, and must reach its folder.
            run(Command::new("chown").arg("postgres").arg(folder.path()));
        }
        let mut initdb = command(&programs().unwrap().join("initdb"));
        let fixed = [
            "-U",
            "postgres",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C.UTF-8",
            "-N",
        ];
        initdb.extend(fixed.map(OsString::from));
        initdb.extend(["-D".into(), folder.path().join("data").into()]);
        let mut arguments = initdb.iter();
        run(Command::new(arguments.next().unwrap())
            .args(arguments)
            .current_dir("/"));
        let mut postgres = Self {
            process: None,
            folder,
            port: Port::reserve(),
            options: settings.iter().map(|&setting| setting.to_owned()).collect(),
            databases: AtomicU32::new(0),
        };
        postgres.run();
        postgres
    }

    /// The URL of a new, empty database.
    pub fn database(&self) -> String {
        let name = format!("farebox_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.sql(&format!("CREATE DATABASE {name}"));
        format!("postgres://postgres@127.0.0.1:{}/{name}", self.port())
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// Ends it, as a machine that goes away does.
    pub fn stop(&mut self) {
        self.process = None;
    }

    /// Starts it again, on the same port with what is on its disk.
    pub fn restart(&mut self) {
        self.stop();
        self.run();
    }

    /// Starts it again as the standby of a primary that never answers.
    pub fn restart_as_standby(&mut self) {
        self.stop();
        let signal = self.folder.path().join("data/standby.signal");
        std::fs::write(signal, "").unwrap();
        self.run();
    }

    /// Makes it silent: connections stay and nothing is answered.
    pub fn pause(&self) {
        self.process.as_ref().unwrap().signal("STOP");
    }

    /// Lets it answer again.
    pub fn resume(&self) {
        self.process.as_ref().unwrap().signal("CONT");
    }

    /// Makes new transactions refuse writes, or take them again.
    pub fn set_read_only(&self, read_only: bool) {
        let value = if read_only { "on" } else { "off" };
        self.sql(&format!(
            "ALTER SYSTEM SET default_transaction_read_only = {value}"
        ));
        self.sql("SELECT pg_reload_conf()");
        let log = self.log();
        wait_until("the new setting", &log, || {
            self.sql("SHOW default_transaction_read_only") == value
        });
    }

    /// Runs one statement as the superuser in the database `postgres`, and gives back what it says.
    pub fn sql(&self, statement: &str) -> String {
        self.sql_in("postgres", statement)
    }

    /// Runs one statement as the superuser in this database.
    pub fn sql_in(&self, database: &str, statement: &str) -> String {
        let output = self.psql(database, statement).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{statement}: {said}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    fn psql(&self, database: &str, statement: &str) -> Command {
        let mut psql = Command::new(programs().unwrap().join("psql"));
        psql.args(["-X", "-q", "-A", "-t", "-h", "127.0.0.1", "-U", "postgres"]);
        psql.args([
            "-p",
            &self.port().to_string(),
            "-d",
            database,
            "-c",
            statement,
        ]);
        // A read-only default must not keep its own setting from being changed.
        psql.env("PGOPTIONS", "-c default_transaction_read_only=off");
        if statement.starts_with("SHOW") {
            psql.env_remove("PGOPTIONS");
        }
        psql
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    fn run(&mut self) {
        let (folder, log) = (self.folder.path(), self.log());
        let mut postgres = command(&programs().unwrap().join("postgres"));
        postgres.extend(["-D".into(), folder.join("data").into()]);
        postgres.extend(["-k".into(), folder.into()]);
        let port = self.port().to_string();
        postgres.extend(["-h", "127.0.0.1", "-p", &port].map(OsString::from));
        for setting in &self.options {
            postgres.extend(["-c".into(), setting.into()]);
        }
        // QUIT: no checkpoint and no farewell to clients, but no shared memory left behind either.
        self.process = Some(Process::start(&postgres, "QUIT", &log));
        wait_until("postgres", &log, || {
            let output = self.psql("postgres", "SELECT 1").output();
            output.is_ok_and(|output| output.status.success())
        });
    }
}

/// The start of a command line that is not root's.
fn command(program: &Path) -> Vec<OsString> {
    let mut command: Vec<OsString> = Vec::new();
    if is_root() {
        let other = [
            "setpriv",
            "--reuid=postgres",
            "--regid=postgres",
            "--clear-groups",
        ];
        command.extend(other.map(OsString::from));
    }
    command.push(program.into());
    command
}

fn is_root() -> bool {
    let output = Command::new("id").arg("-u").output().unwrap();
    output.stdout.trim_ascii() == b"0"
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
}
