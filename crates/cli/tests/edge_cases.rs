//! Edge cases of the command; numbers are those of `spec/edge-cases.toml`.
#![cfg(feature = "proof")]
#![allow(clippy::unwrap_used, reason = "tests may panic")]

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    process::{Child, Command, Output, Stdio},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

/// The command on a machine that calls itself something, and nothing else in its environment.
fn farebox(args: &[&str]) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("farebox"));
    command.args(args).stdin(Stdio::null()).env_clear();
    command.envs([("HOST", "replica-7"), ("HOSTNAME", "replica-7.internal")]);
    command
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

const ROUTES: &str = r#"
[[routes]]
path = "/files/{name}"
respond = "a file"
offers = [{ rail = "proof/charge", amount = "0" }]
[[routes]]
path = "/ask/{*rest}"
method = "POST"
respond = "an answer"
offers = [{ rail = "proof/charge", amount = "0", description = "ask away" }]
"#;

/// A configuration that sells for nothing at two routes.
fn config(folder: &tempfile::TempDir, realm: &str) -> String {
    let path = folder.path().join("farebox.toml");
    let text = format!(
        r#"
listen = "127.0.0.1:0"
{realm}
secrets = ["a secret of 32 bytes, only for tests"]
store = "memory:"
[rails.proof]
chain_id = 1337
currency = "0x20c0000000000000000000000000000000000000"
recipient = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC"
{ROUTES}"#
    );
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// A server that ends with its handle.
struct Serving(Child, String);

impl Drop for Serving {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Serving {
    fn start(config: &str) -> Self {
        let mut command = farebox(&["serve", "--config", config]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = lines.map(Result::unwrap).find_map(|line| {
            let rest = line.strip_prefix("listening on http://")?;
            Some(rest.split(',').next()?.to_owned())
        });
        Self(child, address.unwrap_or_default())
    }

    fn ask(&self, line: &str) -> String {
        let mut stream = TcpStream::connect(&self.1).unwrap();
        let rest = "HTTP/1.1\r\nhost: replica-7\r\nconnection: close\r\n\r\n";
        write!(stream, "{line} {rest}").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

/// 32: replicas that each had a realm of their own would refuse each other's challenges.
#[test]
fn the_realm_is_not_the_machines_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = config(&folder, "");
    let output = farebox(&["check", &path]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("realm"), "{said}");

    let serving = Serving::start(&config(&folder, "realm = \"api.example.com\""));
    let answer = serving.ask("GET /files/a");
    assert!(answer.contains("realm=\"api.example.com\""), "{answer}");
    assert!(!answer.contains("replica-7"), "{answer}");
}

/// 165, DISC-10: paths and inputs as OpenAPI writes them.
#[test]
fn discovery_describes_paths_and_bodies() {
    let folder = tempfile::tempdir().unwrap();
    let serving = Serving::start(&config(&folder, "realm = \"api.example.com\""));
    let answer = serving.ask("GET /openapi.json");
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let document: Value = serde_json::from_str(body).unwrap();
    let paths = document["paths"].as_object().unwrap();
    assert!(
        paths.keys().eq(["/ask/{rest}", "/files/{name}"]),
        "{paths:?}"
    );
    let (get, post) = (
        &paths["/files/{name}"]["get"],
        &paths["/ask/{rest}"]["post"],
    );
    for (operation, name) in [(get, "name"), (post, "rest")] {
        let parameter = &operation["parameters"][0];
        assert_eq!(parameter["name"], name);
        let place = (&parameter["in"], &parameter["required"]);
        assert_eq!(place, (&json!("path"), &json!(true)));
        let offer = &operation["x-payment-info"]["offers"][0];
        assert_eq!(
            (&offer["method"], &offer["amount"]),
            (&json!("tempo"), &json!("0"))
        );
        assert!(operation["responses"]["402"].is_object());
    }
    assert!(post["requestBody"]["content"].is_object());
    assert!(get.get("requestBody").is_none());
    assert_eq!(
        post["x-payment-info"]["offers"][0]["description"],
        "ask away"
    );
}

/// CHG-5: what all methods share is shown of one that nobody here knows.
#[test]
fn a_method_that_is_unknown_can_be_looked_at() {
    let request = json!({
        "amount": "1250",
        "currency": "nok",
        "recipient": "fylke",
        "description": "two stops",
        "methodDetails": { "token": "magnetic" },
    });
    let request = URL_SAFE_NO_PAD.encode(request.to_string());
    let challenge = format!(
        r#"Payment id="i", realm="bus", method="coin", intent="charge", request="{request}""#
    );
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = [0; 4096];
            let read = stream.read(&mut asked).unwrap();
            assert_ne!(read, 0);
            write!(
                stream,
                "HTTP/1.1 402 Pay\r\nwww-authenticate: {challenge}\r\ncontent-length: 0\r\n\
                 connection: close\r\n\r\n"
            )
            .unwrap();
        }
    });
    let shown = stdout(&farebox(&["inspect", &url]).output().unwrap());
    for said in ["coin/charge", "1250", "nok", "fylke", "two stops"] {
        assert!(shown.contains(said), "{said} is not in {shown}");
    }
    let shown = stdout(&farebox(&["inspect", "--json", &url]).output().unwrap());
    let shown: Value = serde_json::from_str(&shown).unwrap();
    let challenge = &shown["challenges"][0];
    assert_eq!(challenge["offer"], "coin/charge");
    assert_eq!(challenge["request"]["amount"], "1250");
    server.join().unwrap();
}

/// 160, CORE-2: a 402 of the server behind is no 402 of ours: who has paid is not asked again.
#[test]
fn an_upstream_that_asks_for_payment_is_a_bad_gateway() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut asked = [0; 4096];
            let read = stream.read(&mut asked).unwrap();
            let asked = String::from_utf8_lossy(&asked[..read]).to_lowercase();
            assert!(!asked.contains("payment"), "{asked}");
            let answer = "HTTP/1.1 402 Pay\r\nwww-authenticate: Payment id=\"i\", realm=\"r\", \
                          method=\"tempo\", intent=\"charge\", request=\"e30\"\r\n\
                          content-length: 0\r\nconnection: close\r\n\r\n";
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let path = config(&folder, "realm = \"127.0.0.1\"");
    let text = std::fs::read_to_string(&path).unwrap();
    let upstream = format!("upstream = \"http://127.0.0.1:{port}\"");
    std::fs::write(&path, text.replacen("respond = \"a file\"", &upstream, 1)).unwrap();
    let serving = Serving::start(&path);
    let url = format!("http://{}/files/a", serving.1);
    let key = "0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d";
    let mut pay = farebox(&["pay", &url]);
    let output = pay.env("FAREBOX_PROOF_PRIVATE_KEY", key).output().unwrap();
    // Nobody knows yet, and the same credential may come again.
    assert_eq!(output.status.code(), Some(6), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("502"), "{said}");
}
