//! What an operator does: ending a server, reading its books, finishing what is open.

use std::{
    io::{Read as _, Write as _},
    path::Path,
    process::{Command, Output},
};

use serde_json::Value;

use crate::{
    common::{KEY, PROOF, Running, connect, farebox, listening, run, send, stderr, stdout},
    upstream::Upstream,
};

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
store = "30s"
{PROOF}
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

/// The upstream's answer, which comes late.
pub(crate) const LATE: &str =
    "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 4\r\n\r\nlate";

pub(crate) fn pay(base: &str) -> Running {
    let mut command = farebox(&["pay", &format!("{base}/ask"), "--json"]);
    Running::of(command.env("FAREBOX_PROOF_PRIVATE_KEY", KEY))
}

pub(crate) fn signal(running: &Running, name: &str) {
    let id = running.child.id().to_string();
    let sent = Command::new("kill").args([name, &id]).status().unwrap();
    assert!(sent.success());
}

/// A request without a credential, and the whole answer in lower case.
fn ask(base: &str) -> String {
    send(base, "GET /ask HTTP/1.1\nhost: x").to_lowercase()
}

/// Waits until the server serves no more than what it has begun, and hands over how it says that.
fn drains(serve: &mut Running, base: &str) -> String {
    serve.until("the drain", |_| {
        let answer = ask(base);
        answer.starts_with("http/1.1 503").then_some(answer)
    })
}

/// Protects: a payer in the middle gets what was paid for, and nobody is invited to pay a server
/// that is about to be gone.
#[test]
fn sigterm_drains() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["-TERM", "-INT"] {
        let upstream = Upstream::open("\r\n\r\n");
        let config = config(folder.path(), "memory:", "1h", upstream.port);
        let (mut serve, base) = Running::start(&["serve", "--config", &config], listening);
        let mut payer = pay(&base);
        let asked = upstream.asked(&mut payer);
        signal(&serve, name);
        let refused = drains(&mut serve, &base);
        assert!(refused.contains("\r\nretry-after: "), "{refused}");
        assert!(!refused.contains("www-authenticate"), "{refused}");
        assert_eq!(
            serve.child.try_wait().unwrap(),
            None,
            "a payer is being served"
        );
        asked.answer(LATE);
        let paid = payer.output();
        let paid: Value = serde_json::from_str(&stdout(&paid)).unwrap();
        assert_eq!(
            (&paid["status"], &paid["body"]),
            (&200.into(), &"late".into())
        );
        assert_eq!(paid["receipt"]["status"], "success");
        assert_eq!(serve.output().status.code(), Some(0));
    }
}

/// Protects: an orderly end comes within the grace whoever hangs, and at once for who insists.
#[test]
fn the_grace_ends_and_a_second_signal_ends_it() {
    let folder = tempfile::tempdir().unwrap();
    for (shutdown, insists, code) in [("1s", false, 0), ("1h", true, 1)] {
        let upstream = Upstream::open("\r\n\r\n");
        let config = config(folder.path(), "memory:", shutdown, upstream.port);
        let (mut serve, base) = Running::start(&["serve", "--config", &config], listening);
        let mut payer = pay(&base);
        // Held open, and never answered.
        let _asked = upstream.asked(&mut payer);
        signal(&serve, "-TERM");
        if insists {
            // Two signals at once may count as one: the first has been heard when it drains.
            drains(&mut serve, &base);
            signal(&serve, "-TERM");
        }
        assert_eq!(serve.output().status.code(), Some(code), "{shutdown}");
    }
}

/// Protects: a server at rest ends at once.
#[test]
fn an_idle_server_ends_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), "memory:", "1h", 1);
    let (serve, base) = Running::start(&["serve", "--config", &config], listening);
    // A connection that is kept open holds nothing up.
    let mut idle = connect(&base);
    idle.write_all(b"GET /ask HTTP/1.1\r\nhost: x\r\n\r\n")
        .unwrap();
    let mut some = [0; 12];
    idle.read_exact(&mut some).unwrap();
    assert_eq!(&some, b"HTTP/1.1 402");
    signal(&serve, "-TERM");
    assert_eq!(serve.output().status.code(), Some(0));
}

/// Protects: a log that machines read is one object per line, from the first to the last.
#[test]
fn logs_can_be_json() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), "memory:", "1h", 1);
    let args = ["serve", "--config", &config, "--log", "json"];
    let (serve, _) = Running::start(&args, listening);
    signal(&serve, "-TERM");
    let ended = serve.output();
    assert_eq!(ended.status.code(), Some(0));
    let said = stderr(&ended);
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
    run(&args)
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
