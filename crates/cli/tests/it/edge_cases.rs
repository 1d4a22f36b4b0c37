//! Edge cases of the command; numbers are those of `spec/edge-cases.toml`.

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    process::{Command, Output},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::{
    common::{self, KEY, PROOF, Running, listening, output, send, stderr},
    upstream::Upstream,
};

/// The command on a machine that calls itself something, and nothing else in its environment.
fn farebox(args: &[&str]) -> Command {
    let mut command = common::farebox(args);
    command.env_clear();
    command.envs([("HOST", "replica-7"), ("HOSTNAME", "replica-7.internal")]);
    command
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    common::stdout(output)
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
{PROOF}{ROUTES}"#
    );
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

fn serve(config: &str) -> (Running, String) {
    Running::begin(&mut farebox(&["serve", "--config", config]), listening)
}

fn ask(base: &str, line: &str) -> String {
    send(base, &format!("{line} HTTP/1.1\nhost: replica-7"))
}

/// 32: replicas that each had a realm of their own would refuse each other's challenges.
#[test]
fn the_realm_is_not_the_machines_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = config(&folder, "");
    let output = output(&mut farebox(&["check", &path]));
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let said = stderr(&output);
    assert!(said.contains("realm"), "{said}");

    let (_serve, base) = serve(&config(&folder, "realm = \"api.example.com\""));
    let answer = ask(&base, "GET /files/a");
    assert!(answer.contains("realm=\"api.example.com\""), "{answer}");
    assert!(!answer.contains("replica-7"), "{answer}");
}

/// 165, DISC-10: paths and inputs as OpenAPI writes them.
#[test]
fn discovery_describes_paths_and_bodies() {
    let folder = tempfile::tempdir().unwrap();
    let (_serve, base) = serve(&config(&folder, "realm = \"api.example.com\""));
    let answer = ask(&base, "GET /openapi.json");
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
    let answer = format!(
        "HTTP/1.1 402 Pay\r\nwww-authenticate: {challenge}\r\ncontent-length: 0\r\n\
         connection: close\r\n\r\n"
    );
    let inspect = |more: &[&str]| {
        let upstream = Upstream::open("\r\n\r\n");
        let url = format!("http://127.0.0.1:{}/", upstream.port);
        let args = [&["inspect", &url], more].concat();
        let mut running = Running::of(&mut farebox(&args));
        upstream.asked(&mut running).answer(&answer);
        stdout(&running.output())
    };
    let shown = inspect(&[]);
    for said in ["coin/charge", "1250", "nok", "fylke", "two stops"] {
        assert!(shown.contains(said), "{said} is not in {shown}");
    }
    let shown = inspect(&["--json"]);
    let shown: Value = serde_json::from_str(&shown).unwrap();
    let challenge = &shown["challenges"][0];
    assert_eq!(challenge["offer"], "coin/charge");
    assert_eq!(challenge["request"]["amount"], "1250");
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
    let (_serve, base) = serve(&path);
    let mut pay = farebox(&["pay", &format!("{base}/files/a")]);
    let output = output(pay.env("FAREBOX_PROOF_PRIVATE_KEY", KEY));
    // Nobody knows yet, and the same credential may come again.
    assert_eq!(output.status.code(), Some(6), "{output:?}");
    let said = stderr(&output);
    assert!(said.contains("502"), "{said}");
}
