//! A `farebox serve` process that can be killed.

use std::{
    fs::{self, File},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    time::{Duration, Instant},
};

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
    port: u16,
    child: Option<Child>,
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
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let path = config.folder.join(format!("{}.toml", config.name));
        let text = text(port)?;
        fs::write(&path, toml::to_string(&text)?)?;
        Ok(Self {
            binary: config.binary.clone(),
            log: path.with_extension("log"),
            config: path,
            port,
            child: None,
        })
    }

    /// `127.0.0.1:…`
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
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
        let child = Command::new(&self.binary)
            .arg("serve")
            .arg("--config")
            .arg(&self.config)
            .env("FAILPOINTS", fail_points)
            .env("FAREBOX_LOG", "farebox=info")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
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
        let (name, options) = subcommand.split_first().ok_or("no subcommand")?;
        let output = Command::new(&self.binary)
            .arg(name)
            .arg("--config")
            .arg(&self.config)
            .args(options)
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
