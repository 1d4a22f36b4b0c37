//! What an operator does: ending a server, reading its books, finishing what is open.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Command, Output, Stdio},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::common::{Running, farebox, listening, stderr, stdout};

const KEY: &str = "0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d";

/// A server of one route that costs a proof and is answered by `upstream`.
pub(crate) fn config(folder: &Path, store: &str, shutdown: &str, upstream: u16) -> String {
    let text = format!(
        r#"
listen = "127.0.0.1:0"
realm = "127.0.0.1"
secrets = ["a secret of 32 bytes, only for tests"]
store = "{store}"
[timing]
shutdown = "{shutdown}"
[rails.proof]
chain_id = 1337
currency = "0x20c0000000000000000000000000000000000000"
recipient = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC"
[[routes]]
path = "/ask"
upstream = "http://127.0.0.1:{upstream}"
offers = [{{ rail = "proof/charge", amount = "0" }}]
"#
    );
    let path = folder.join("farebox.toml");
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// A server that is asked once, and answers when it is told to.
pub(crate) struct Upstream {
    pub(crate) port: u16,
    asked: JoinHandle<TcpStream>,
}

impl Upstream {
    pub(crate) fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                let mut some = [0; 1024];
                let n = stream.read(&mut some).unwrap();
                asked.extend_from_slice(&some[..n]);
            }
            stream
        });
        Self { port, asked }
    }

    /// Waits until it is asked.
    pub(crate) fn asked(self) -> TcpStream {
        self.asked.join().unwrap()
    }
}

pub(crate) fn answer(mut stream: TcpStream) {
    let answer = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 4\r\n\r\nlate";
    stream.write_all(answer).unwrap();
}

pub(crate) fn pay(base: &str) -> std::process::Child {
    farebox(&["pay", &format!("{base}/ask"), "--json"])
        .env("FAREBOX_PROOF_PRIVATE_KEY", KEY)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

pub(crate) fn signal(running: &Running, name: &str) {
    let id = running.0.id().to_string();
    let sent = Command::new("kill").args([name, &id]).status().unwrap();
    assert!(sent.success());
}

/// How it ended, within ten seconds.
pub(crate) fn ended(running: &mut Running) -> Option<i32> {
    let deadline = Instant::now() + Duration::from_secs(10);
    while Instant::now() < deadline {
        if let Some(status) = running.0.try_wait().unwrap() {
            return status.code();
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("it did not end");
}

/// A request without a credential, and the whole answer in lower case.
fn ask(base: &str) -> String {
    let mut stream = TcpStream::connect(base.strip_prefix("http://").unwrap()).unwrap();
    let request = "GET /ask HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.to_lowercase()
}

/// Protects: a payer in the middle gets what was paid for, and nobody is invited to pay a server
/// that is about to be gone.
#[test]
fn sigterm_drains() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["-TERM", "-INT"] {
        let upstream = Upstream::open();
        let config = config(folder.path(), "memory:", "30s", upstream.port);
        let (mut serve, base) = Running::start(&["serve", "--config", &config], listening);
        let payer = pay(&base);
        let stream = upstream.asked();
        signal(&serve, name);
        let deadline = Instant::now() + Duration::from_secs(10);
        let refused = loop {
            let refused = ask(&base);
            if refused.starts_with("http/1.1 503") {
                break refused;
            }
            assert!(Instant::now() < deadline, "{refused}");
        };
        assert!(refused.contains("\r\nretry-after: "), "{refused}");
        assert!(!refused.contains("www-authenticate"), "{refused}");
        assert_eq!(serve.0.try_wait().unwrap(), None, "a payer is being served");
        answer(stream);
        let paid = payer.wait_with_output().unwrap();
        let paid: Value = serde_json::from_str(&stdout(&paid)).unwrap();
        assert_eq!(
            (&paid["status"], &paid["body"]),
            (&200.into(), &"late".into())
        );
        assert_eq!(paid["receipt"]["status"], "success");
        assert_eq!(ended(&mut serve), Some(0));
    }
}

/// Protects: an orderly end comes within the grace whoever hangs, and at once for who insists.
#[test]
fn the_grace_ends_and_a_second_signal_ends_it() {
    let folder = tempfile::tempdir().unwrap();
    for (shutdown, insists, code) in [("1s", false, 0), ("1h", true, 1)] {
        let upstream = Upstream::open();
        let config = config(folder.path(), "memory:", shutdown, upstream.port);
        let (mut serve, base) = Running::start(&["serve", "--config", &config], listening);
        let mut payer = pay(&base);
        // Held open, and never answered.
        let _stream = upstream.asked();
        signal(&serve, "-TERM");
        if insists {
            // Two signals at once may count as one: the first has been heard when it drains.
            let deadline = Instant::now() + Duration::from_secs(10);
            while !ask(&base).starts_with("http/1.1 503") {
                assert!(Instant::now() < deadline);
            }
            signal(&serve, "-TERM");
        }
        assert_eq!(ended(&mut serve), Some(code), "{shutdown}");
        payer.kill().unwrap();
        payer.wait().unwrap();
    }
}

/// Protects: a server at rest ends at once.
#[test]
fn an_idle_server_ends_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), "memory:", "1h", 1);
    let (mut serve, base) = Running::start(&["serve", "--config", &config], listening);
    // A connection that is kept open holds nothing up.
    let mut idle = TcpStream::connect(base.strip_prefix("http://").unwrap()).unwrap();
    idle.write_all(b"GET /ask HTTP/1.1\r\nhost: x\r\n\r\n")
        .unwrap();
    let mut some = [0; 12];
    idle.read_exact(&mut some).unwrap();
    assert_eq!(&some, b"HTTP/1.1 402");
    signal(&serve, "-TERM");
    assert_eq!(ended(&mut serve), Some(0));
}

/// Protects: a log that machines read is one object per line, from the first to the last.
#[test]
fn logs_can_be_json() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), "memory:", "1s", 1);
    let mut command = farebox(&["serve", "--config", &config, "--log", "json"]);
    let (mut serve, _) = Running::begin(command.stderr(Stdio::piped()), listening);
    signal(&serve, "-TERM");
    let mut said = String::new();
    let stderr = serve.0.stderr.take();
    stderr.unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(ended(&mut serve), Some(0));
    let lines: Vec<Value> = said
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let [volatile, draining] = lines.as_slice() else {
        panic!("{said}")
    };
    assert_eq!(
        (&volatile["level"], &draining["level"]),
        (&"WARN".into(), &"INFO".into())
    );
    assert!(
        draining["message"]
            .as_str()
            .unwrap()
            .starts_with("draining")
    );
    assert!(draining["timestamp"].is_string() && draining["target"].is_string());
}

pub(crate) fn operator(command: &str, config: &str, more: &[&str]) -> Output {
    let mut args = vec![command, "--config", config];
    args.extend(more);
    farebox(&args).output().unwrap()
}

/// Protects: another process has nothing to say about payments in memory, and says that.
#[test]
fn books_in_memory_are_nobody_elses() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), "memory:", "1s", 1);
    for command in ["books", "reconcile"] {
        let output = operator(command, &config, &[]);
        assert_eq!(output.status.code(), Some(2));
        assert!(stderr(&output).contains("memory:"), "{}", stderr(&output));
    }
}
