//! A Redis server.

use std::{
    ffi::OsString,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::PathBuf,
    time::Duration,
};

use tempfile::TempDir;

use crate::{
    port::Port,
    process::{Process, on_path, wait_until},
};

/// How long an answer may take, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn program() -> Result<PathBuf, String> {
    if let Some(named) = std::env::var_os("FAREBOX_REDIS_SERVER") {
        return Ok(named.into());
    }
    on_path("redis-server")
        .or_else(|| on_path("valkey-server"))
        .ok_or_else(|| "redis-server is missing; FAREBOX_REDIS_SERVER may name it".to_owned())
}

/// A Redis server that writes every command to its disk before it answers.
#[derive(Debug)]
pub struct Redis {
    process: Option<Process>,
    folder: TempDir,
    port: Port,
    options: Vec<String>,
}

impl Redis {
    /// Starts one.
    pub fn start() -> Self {
        Self::start_with(&["--appendonly", "yes", "--appendfsync", "always"])
    }

    /// Starts one with these options, and without any durability that they do not ask for.
    pub fn start_with(options: &[&str]) -> Self {
        let mut redis = Self {
            process: None,
            folder: TempDir::new().unwrap(),
            port: Port::reserve(),
            options: options.iter().map(|&option| option.to_owned()).collect(),
        };
        redis.run();
        redis
    }

    /// Its URL, without a database or a prefix.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port.number())
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

    /// Makes it silent: connections stay and nothing is answered.
    pub fn pause(&self) {
        self.signal("STOP");
    }

    /// Lets it answer again.
    pub fn resume(&self) {
        self.signal("CONT");
    }

    /// Makes it refuse writes, as a replica does, or take them again.
    pub fn set_read_only(&self, read_only: bool) {
        // A replica of nothing that answers.
        let master = if read_only { "127.0.0.1 1" } else { "NO ONE" };
        assert!(
            self.command(&format!("REPLICAOF {master}"))
                .starts_with('+')
        );
    }

    /// Sends one command, words between spaces, and gives back the start of the raw answer.
    pub fn command(&self, command: &str) -> String {
        self.try_command(command).unwrap()
    }

    fn try_command(&self, command: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port()))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(format!("{command}\r\n").as_bytes())?;
        let mut answer = vec![0; 64 * 1024];
        let read = stream.read(&mut answer)?;
        Ok(String::from_utf8_lossy(answer.get(..read).unwrap_or_default()).into_owned())
    }

    fn signal(&self, signal: &str) {
        self.process.as_ref().unwrap().signal(signal);
    }

    fn run(&mut self) {
        let log = self.folder.path().join("log");
        let mut command: Vec<OsString> = vec![program().unwrap().into()];
        let port = self.port().to_string();
        let fixed = [
            "--port",
            &port,
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--dir",
        ];
        command.extend(fixed.map(OsString::from));
        command.push(self.folder.path().into());
        command.extend(self.options.iter().map(OsString::from));
        self.process = Some(Process::start(&command, "KILL", &log));
        wait_until("redis-server", &log, || {
            let answer = self.try_command("PING");
            answer.is_ok_and(|answer| answer.starts_with("+PONG"))
        });
    }
}
