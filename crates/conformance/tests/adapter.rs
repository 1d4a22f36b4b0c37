//! The adapter as the suite drives it: one process a request, JSON in and out.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    collections::BTreeSet,
    fs,
    io::Write as _,
    process::{Command, Stdio},
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, Method, StatusCode},
    response::{IntoResponse, Response},
    routing::any,
};
use farebox::wire::{Challenge, Credential, Encoded, Receipt, Timestamp};
use serde::Deserialize;
use serde_json::{Value, json};

fn run(request: &str) -> Value {
    let mut adapter = Command::new(assert_cmd::cargo::cargo_bin!("farebox-conformance"))
        .env("RUST_LOG", "trace")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = adapter.stdin.take().unwrap();
    stdin.write_all(request.as_bytes()).unwrap();
    drop(stdin);
    let output = adapter.wait_with_output().unwrap();
    assert!(output.status.success(), "{request}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn call(op: &str, input: &Value) -> Value {
    run(&json!({ "schema": 1, "op": op, "input": input }).to_string())
}

#[derive(Deserialize)]
struct Golden {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    op: String,
    input: Value,
    value: Option<Value>,
    error: Option<String>,
}

/// Protects: every operation answers what is written down, good input and bad.
#[test]
fn golden() {
    let text = fs::read_to_string("../../spec/vectors/adapter.json").unwrap();
    let golden: Golden = serde_json::from_str(&text).unwrap();
    let mut seen = BTreeSet::new();
    for case in golden.cases {
        let answer = call(&case.op, &case.input);
        match (case.value, case.error) {
            (Some(value), None) => {
                let expected = json!({ "ok": true, "value": value });
                assert_eq!(answer, expected, "{}", case.name);
            }
            (None, Some(kind)) => {
                assert_eq!(answer["ok"], false, "{}", case.name);
                assert_eq!(answer["error"]["type"], *kind, "{}", case.name);
                let message = answer["error"]["message"].as_str().unwrap();
                assert!(!message.is_empty(), "{}", case.name);
            }
            _ => panic!("{}: either a value or an error", case.name),
        }
        seen.insert(case.op);
    }
    let manifest = fs::read_to_string("adapter.json").unwrap();
    let manifest: Value = serde_json::from_str(&manifest).unwrap();
    for capability in manifest["capabilities"].as_array().unwrap() {
        let name = capability.as_str().unwrap();
        // That one needs a server; see below.
        let covered = name == "http.payment_request" || seen.contains(name);
        assert!(covered, "{name} has no golden case");
    }
}

/// Protects: whatever is sent, there is an answer and the status is 0.
#[test]
fn what_is_no_request_is_an_error() {
    for text in [
        "",
        "null",
        "[]",
        "{",
        "{\"schema\":1}",
        "{\"schema\":2,\"op\":\"x\",\"input\":{}}",
    ] {
        assert_eq!(run(text)["error"]["type"], "unknown_error", "{text}");
    }
    for op in [
        "challenge.parse",
        "receipt.format",
        "server.verify",
        "tempo.receipt.verify",
    ] {
        assert_eq!(call(op, &json!({}))["ok"], false, "{op}");
        assert_eq!(call(op, &json!("text"))["ok"], false, "{op}");
    }
}

/// What the server below asks for, by path.
fn asks(path: &str) -> Option<Challenge> {
    let (method, expires) = match path {
        "/paid" | "/fails" | "/forbidden" => ("tempo", "2098-06-01T00:00:00Z"),
        "/unknown" => ("songs", "2098-06-01T00:00:00Z"),
        "/over" => ("tempo", "2020-01-01T00:00:00Z"),
        _ => return None,
    };
    Some(Challenge {
        id: format!("challenge of {path}"),
        realm: "127.0.0.1".into(),
        method: method.into(),
        intent: "charge".into(),
        request: Encoded::encode(&json!({ "amount": "7" })).unwrap(),
        expires: Some(Timestamp::parse(expires).unwrap()),
        digest: None,
        description: None,
        opaque: None,
        header: None,
    })
}

async fn serve(
    State(payload): State<Value>,
    method: Method,
    uri: axum::http::Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let Some(challenge) = asks(uri.path()) else {
        return (StatusCode::OK, "free").into_response();
    };
    let refuse = |problem: &str| {
        let problem = json!({ "type": format!("https://paymentauth.org/problems/{problem}") });
        let headers = [
            ("www-authenticate", challenge.to_header().unwrap()),
            ("content-type", "application/problem+json".to_owned()),
        ];
        (StatusCode::PAYMENT_REQUIRED, headers, problem.to_string()).into_response()
    };
    let Some(value) = headers.get("authorization") else {
        return refuse("payment-required");
    };
    let credential = Credential::parse(value.as_bytes()).unwrap().unwrap();
    let presented: Value = credential.payload.decode().unwrap();
    match uri.path() {
        _ if credential.challenge.id != challenge.id => refuse("invalid-challenge"),
        _ if credential.challenge.request != challenge.request => refuse("invalid-challenge"),
        _ if presented != payload => refuse("verification-failed"),
        "/fails" => (StatusCode::INTERNAL_SERVER_ERROR, "broken").into_response(),
        "/forbidden" => (StatusCode::FORBIDDEN, "not you").into_response(),
        _ => {
            let at = Timestamp::from_unix_millis(0);
            let receipt = Receipt::new("tempo", "0xab", at).to_header().unwrap();
            let source = credential.source.unwrap_or_default();
            let told = headers.get("x-told").map_or("", |v| v.to_str().unwrap());
            let body = format!(
                "{method} {source} {told} {}",
                String::from_utf8_lossy(&body)
            );
            ([("payment-receipt", receipt)], body).into_response()
        }
    }
}

/// The server's address.
async fn server(payload: Value) -> String {
    let app = Router::new().fallback(any(serve)).with_state(payload);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    format!("http://{address}")
}

async fn send(url: String, mode: &str, change: Value) -> Value {
    let mut input = json!({
        "url": url,
        "method": "GET",
        "headers": {},
        "body": null,
        "payment": { "payload": { "type": "transaction", "signature": "0x76ab" }, "source": null },
        "mode": mode,
    });
    for (name, value) in change.as_object().unwrap() {
        input[name] = value.clone();
    }
    tokio::task::spawn_blocking(move || call("http.payment_request", &input))
        .await
        .unwrap()
}

/// Protects: the client pays with what it was given, and the answer is the server's own.
#[tokio::test(flavor = "multi_thread")]
async fn requests_are_paid_for() {
    let payload = json!({ "type": "transaction", "signature": "0x76ab" });
    let base = server(payload.clone()).await;
    let answer = send(format!("{base}/paid"), "payment", json!({})).await;
    let value = &answer["value"];
    assert_eq!(value["status"], 200, "{answer}");
    assert_eq!(value["body"], "GET   ");
    let receipt = Receipt::parse(value["headers"]["payment-receipt"].as_str().unwrap()).unwrap();
    assert_eq!(receipt.reference, "0xab");

    let change = json!({
        "method": "POST",
        "headers": { "X-Told": "so" },
        "body": "text",
        "payment": { "payload": payload, "source": "did:key:z6Mk" },
    });
    let answer = send(format!("{base}/paid"), "payment", change).await;
    assert_eq!(
        answer["value"]["body"], "POST did:key:z6Mk so text",
        "{answer}"
    );

    let answer = send(format!("{base}/unknown"), "payment", json!({})).await;
    assert_eq!(answer["value"]["status"], 200, "{answer}");
    let answer = send(format!("{base}/free"), "payment", json!({})).await;
    assert_eq!(answer["value"]["body"], "free", "{answer}");
}

/// Protects: what a server answers to a bad credential, or after a good one, is shown as it is.
#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_shown() {
    let base = server(json!({ "type": "transaction", "signature": "0x76ab" })).await;
    for (mode, problem) in [
        ("plain", "payment-required"),
        ("invalid_payload", "verification-failed"),
        ("mismatched_request", "invalid-challenge"),
        ("invalid_challenge_id", "invalid-challenge"),
    ] {
        let answer = send(format!("{base}/paid"), mode, json!({})).await;
        let value = &answer["value"];
        assert_eq!(value["status"], 402, "{mode}: {answer}");
        assert!(
            value["body"].as_str().unwrap().contains(problem),
            "{mode}: {answer}"
        );
        let challenge = value["headers"]["www-authenticate"].as_str().unwrap();
        assert!(Challenge::parse_one(challenge).is_ok(), "{mode}");
    }
    for (path, status) in [("fails", 500), ("forbidden", 403)] {
        let answer = send(format!("{base}/{path}"), "payment", json!({})).await;
        assert_eq!(answer["value"]["status"], status, "{path}: {answer}");
    }
    for url in [
        format!("{base}/over"),
        "http://127.0.0.1:1/".to_owned(),
        "paid".to_owned(),
    ] {
        let answer = send(url.clone(), "payment", json!({})).await;
        assert_eq!(answer["error"]["type"], "http_error", "{url}: {answer}");
    }
}
