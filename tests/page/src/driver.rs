//! chromedriver: one for all the browsers of a process.

use std::{
    io::{BufRead, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, TcpStream},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError, Weak,
        mpsc::{Receiver, channel},
    },
    thread,
    time::Duration,
};

/// How long it may take to start, and to end a session.
const PATIENCE: Duration = Duration::from_secs(120);

/// How often a start is tried: the port that it is given may be taken before it has both families'.
const ATTEMPTS: usize = 5;

/// What the browsers that are open share. A static is never dropped, so none is kept in it.
static RUNNING: Mutex<Weak<Driver>> = Mutex::new(Weak::new());

/// A running chromedriver, which ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Driver {
    child: Child,
    port: u16,
    /// What it has said on standard error.
    said: Arc<Mutex<String>>,
}

impl Driver {
    /// The one that runs, or a fresh one. Blocks.
    pub(crate) fn shared() -> Arc<Self> {
        let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(driver) = running.upgrade() {
            return driver;
        }
        let mut faults = Vec::new();
        for _ in 0..ATTEMPTS {
            match Self::start() {
                Ok(driver) => {
                    let driver = Arc::new(driver);
                    *running = Arc::downgrade(&driver);
                    return driver;
                }
                Err(fault) => faults.push(fault),
            }
        }
        panic!("chromedriver did not start: {faults:#?}");
    }

    fn start() -> Result<Self, String> {
        let mut child = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| e.to_string())?;
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let mut driver = Self {
            child,
            port: 0,
            said: Arc::default(),
        };
        let port = port_of(stdout, &driver.said);
        let said = driver.said.clone();
        let listener = thread::spawn(move || stderr.lines().for_each(|line| keep(&said, line)));
        if let Ok(port) = port.recv_timeout(PATIENCE) {
            driver.port = port;
            return Ok(driver);
        }
        let ended = driver.child.try_wait();
        let _ = driver.child.kill();
        let _ = listener.join();
        Err(format!("{ended:?}: {}", driver.said()))
    }

    /// Where it listens.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// What it has said so far.
    pub(crate) fn said(&self) -> String {
        let said = self.said.lock();
        said.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends a session and its browser, which would outlive the driver. Blocks; for a `drop`.
    pub(crate) fn end(&self, session: &str) -> std::io::Result<()> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let host = format!("127.0.0.1:{}", self.port);
        write!(
            stream,
            "DELETE /session/{session} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        )?;
        // The answer comes when the browser is gone.
        stream.read_exact(&mut [0; 12])
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The port that a driver says it listens on; and everything that it says is read, or it would stop.
fn port_of(stdout: impl BufRead + Send + 'static, said: &Arc<Mutex<String>>) -> Receiver<u16> {
    let (tell, port) = channel();
    let said = said.clone();
    thread::spawn(move || {
        for line in stdout.lines() {
            let port = line.as_ref().ok().and_then(|line| {
                let (_, port) = line.split_once("started successfully on port ")?;
                port.trim_end_matches('.').parse().ok()
            });
            match port {
                Some(port) => drop(tell.send(port)),
                None => keep(&said, line),
            }
        }
    });
    port
}

fn keep(said: &Mutex<String>, line: std::io::Result<String>) {
    let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
    said.push_str(&line.unwrap_or_default());
    said.push('\n');
}
