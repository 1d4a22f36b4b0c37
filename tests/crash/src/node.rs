//! A `farebox serve` process that can be killed.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Output, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use farebox_test_services::Port;
use serde_json::Value;

use crate::{Problem, World};

/// How a node is made.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// The farebox command to run.
    pub binary: PathBuf,
    /// Where its configuration and its log go.
    pub folder: PathBuf,
    /// A name for both.
    pub name: String,
    /// The store's URL.
    pub store: String,
    /// The `[timing]` table.
    pub timing: Value,
}

/// A server process, which ends with its handle. It listens on the same port after each restart.
#[derive(Debug)]
pub struct Node {
    binary: PathBuf,
    config: PathBuf,
    log: PathBuf,
    /// Its own while it is down, too.
    port: Arc<Port>,
    child: Option<Child>,
    orders: Option<(ChildStdin, BufReader<ChildStdout>)>,
}

/// How long a process may take to listen, on a machine that does much else.
const START: Duration = Duration::from_secs(60);

impl Node {
    /// Writes the configuration; nothing runs yet.
    pub fn new(world: &World, config: &NodeConfig) -> Result<Self, Problem> {
        Self::of(config, |port| {
            world.config(port, &config.store, config.timing.clone())
        })
    }

    /// The same for a server configured as `text` says for a port to listen on.
    pub fn of(
        config: &NodeConfig,
        text: impl FnOnce(u16) -> Result<Value, Problem>,
    ) -> Result<Self, Problem> {
        let port = Arc::new(Port::reserve());
        let path = config.folder.join(format!("{}.toml", config.name));
        let text = text(port.number())?;
        fs::write(&path, toml::to_string(&text)?)?;
        Ok(Self {
            binary: config.binary.clone(),
            log: path.with_extension("log"),
            config: path,
            port,
            child: None,
            orders: None,
        })
    }

    /// The same without its process, for [`command`](Self::command)s.
    #[must_use]
    pub fn twin(&self) -> Self {
        Self {
            binary: self.binary.clone(),
            config: self.config.clone(),
            log: self.log.clone(),
            port: self.port.clone(),
            child: None,
            orders: None,
        }
    }

    /// `127.0.0.1:…`
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port.number())
    }

    /// Where its log is.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Starts it, to die as `fail_points` say (the `fail` crate's syntax), and waits until it
    /// listens.
    pub async fn start(&mut self, fail_points: &str) -> Result<(), Problem> {
        self.kill()?;
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut child = Command::new(&self.binary)
            .arg("serve")
            .arg("--config")
            .arg(&self.config)
            .env("FAILPOINTS", fail_points)
            .env("FAREBOX_LOG", "farebox=info")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()?;
        let said = child.stdout.take().map(BufReader::new);
        self.orders = child.stdin.take().zip(said);
        self.child = Some(child);
        let deadline = Instant::now() + START;
        while tokio::net::TcpStream::connect(self.address())
            .await
            .is_err()
        {
            if let Some(status) = self.ended()? {
                let log = fs::read_to_string(&self.log)?;
                return Err(format!("the server did not start: {status}\n{log}").into());
            }
            if Instant::now() > deadline {
                return Err("the server does not listen".into());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Has it log the fail points that it reaches from now on, and die at `point`, before or after an
    /// effect (`settle.after`), when it gets there for the `count`th time. One that is dead already
    /// stays so.
    pub fn arm(&mut self, point: &str, count: usize) -> Result<(), Problem> {
        let (orders, said) = self.orders.as_mut().ok_or("it was not started")?;
        if writeln!(orders, "{point} {count}").is_err() {
            return Ok(());
        }
        let mut line = String::new();
        while line != "armed\n" {
            line.clear();
            if said.read_line(&mut line)? == 0 {
                break;
            }
        }
        Ok(())
    }

    /// The fail points that it reached, in order.
    pub fn reached(&self) -> Result<Vec<String>, Problem> {
        self.logged("reached ")
    }

    /// Those at which it died by [order](Self::arm), in order.
    pub fn deaths(&self) -> Result<Vec<String>, Problem> {
        self.logged("died at ")
    }

    fn logged(&self, what: &str) -> Result<Vec<String>, Problem> {
        let log = fs::read_to_string(&self.log)?;
        let lines = log.lines().filter_map(|line| line.strip_prefix(what));
        Ok(lines.map(str::to_owned).collect())
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>, Problem> {
        match &mut self.child {
            Some(child) => Ok(child.try_wait()?),
            None => Ok(None),
        }
    }

    /// SIGKILL: nothing is flushed and no destructor runs.
    pub fn kill(&mut self) -> Result<(), Problem> {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself.
            let _ = child.kill();
            child.wait()?;
        }
        Ok(())
    }

    /// SIGTERM, and how it ended within `grace`. `None`: it did not, and was killed.
    pub async fn terminate(&mut self, grace: Duration) -> Result<Option<ExitStatus>, Problem> {
        let Some(child) = &self.child else {
            return Ok(None);
        };
        let id = child.id().to_string();
        Command::new("kill").args(["-TERM", &id]).status()?;
        let deadline = Instant::now() + grace;
        while Instant::now() < deadline {
            if let Some(status) = self.ended()? {
                self.child = None;
                return Ok(Some(status));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.kill()?;
        Ok(None)
    }

    /// Runs another subcommand over the same configuration: `books --json`.
    pub fn command(&self, subcommand: &[&str]) -> Result<Output, Problem> {
        self.command_dying(subcommand, "")
    }

    /// The same, to die as `fail_points` say.
    pub fn command_dying(&self, subcommand: &[&str], fail_points: &str) -> Result<Output, Problem> {
        let (name, options) = subcommand.split_first().ok_or("no subcommand")?;
        let output = Command::new(&self.binary)
            .arg(name)
            .arg("--config")
            .arg(&self.config)
            .args(options)
            .env("FAILPOINTS", fail_points)
            .output()?;
        Ok(output)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Nobody is left to tell.
        let _ = self.kill();
    }
}
