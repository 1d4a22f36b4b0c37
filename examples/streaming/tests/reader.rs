//! The reader as a process, against the endpoint on the sandbox's chain.
#![allow(clippy::unwrap_used, reason = "tests may panic")]

use std::{
    convert::Infallible,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use axum::{
    Router, body::Body, extract::Query, http::header::CONTENT_TYPE, response::IntoResponse,
    routing::get,
};
use farebox::prelude::*;
use farebox_sandbox_tempo::{ALPHA_USD, Chain, ChainConfig, PATH_USD};
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// The usual development accounts' well-known keys: the second pays, the third sells.
const PAYER_KEY: &str = "59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d";
const SELLER_KEY: &str = "5de4111afa1a4b94908f83103eb1f1706367c2e68ca870fc3fb9a804cdab365a";
const SELLER: &str = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC";

const SECRET: &str = "a secret of 32 bytes, only for tests";

fn rail(chain: &Chain) -> Value {
    json!({
        "rpc_url": chain.url(), "chain_id": 1337, "currency": PATH_USD, "recipient": SELLER,
        "session": { "operator_key": SELLER_KEY, "fee_token": ALPHA_USD },
    })
}

/// Serves the endpoint: its address without a scheme.
async fn serve(chain: &Chain) -> String {
    let server = Server::builder("127.0.0.1")
        .secret(SECRET)
        .store("memory:")
        .rail("tempo", rail(chain))
        .build()
        .unwrap();
    server.connect().await.unwrap();
    // Fifty tokens' worth is suggested as a deposit, so that a longer answer needs a top-up.
    let offer = OfferSpec::new("tempo/session", "0.0001")
        .with("unit", "token")
        .with("suggested_deposit", "0.005");
    let paid = server.paid("GET /chat", [offer]).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        // It holds the engine, which must live as long as the endpoint.
        let _server = server;
        axum::serve(listener, streaming::app(paid)).await
    });
    address.to_string()
}

async fn read(wallets: &Path, urls: Vec<String>) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_reader"));
    command.arg(wallets).args(urls);
    let output = tokio::task::spawn_blocking(move || command.output());
    let output = output.await.unwrap().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

/// The payer's wallets, in a folder of their own.
fn wallets(chain: &Chain) -> (tempfile::TempDir, std::path::PathBuf) {
    let wallets = json!({ "wallets": { "tempo": {
        "rpc_url": chain.url(), "chain_id": 1337, "private_key": PAYER_KEY,
        "fee_token": ALPHA_USD,
    }}});
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("wallets.toml");
    std::fs::write(&path, toml::to_string(&wallets).unwrap()).unwrap();
    (folder, path)
}

/// Protects: server and client together: one channel pays for events and for a socket's messages, is
/// topped up on the way, and closing it brings back what was not spent.
#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_paid_over_both() {
    let chain = Chain::start(ChainConfig::default()).await.unwrap();
    let address = serve(&chain).await;
    let (folder, path) = wallets(&chain);
    let urls = vec![
        format!("http://{address}/chat?tokens=120"),
        format!("ws://{address}/chat?tokens=30"),
    ];
    let (done, said) = read(&path, urls).await;
    assert!(done, "{said}");
    assert!(
        said.contains("120 tokens\n") && said.contains("30 tokens\n"),
        "{said}"
    );
    let spent = said.lines().find_map(|line| line.split_once(" spent, "));
    let spent: u64 = spent.unwrap().0.parse().unwrap();
    assert_eq!(spent, 15_000, "{said}");
    let channels = std::fs::read_to_string(folder.path().join("channels.json")).unwrap();
    assert_eq!(channels, r#"{"entries":{}}"#, "nothing is left open");
}

#[derive(serde::Deserialize)]
struct Ask {
    tokens: usize,
}

/// The model as a server that knows nothing about payment.
async fn free(Query(ask): Query<Ask>) -> impl IntoResponse {
    let lines = streaming::model::tokens(ask.tokens).map(|token| {
        let token = token.unwrap();
        Ok::<_, Infallible>(format!("data: {}\n\n", token.data()))
    });
    let events = [(CONTENT_TYPE, "text/event-stream")];
    (events, Body::from_stream(lines))
}

/// A child that ends with its handle.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Protects: the command meters a stream that comes from elsewhere as the endpoint meters its own.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the command beside the reader: cargo build -p farebox-cli"]
async fn tokens_from_elsewhere_are_metered_by_the_command() {
    let chain = Chain::start(ChainConfig::default()).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = format!("http://{}", listener.local_addr().unwrap());
    let model = Router::new().route("/chat", get(free));
    tokio::spawn(async move { axum::serve(listener, model).await });
    let config = json!({
        "listen": "127.0.0.1:0", "realm": "127.0.0.1", "secrets": [SECRET], "store": "memory:",
        "rails": { "tempo": rail(&chain) },
        "routes": [{ "path": "/chat", "upstream": upstream, "offers": [{
            "rail": "tempo/session", "amount": "0.0001", "unit": "token",
            "suggested_deposit": "0.005",
        }]}],
    });
    let (folder, path) = wallets(&chain);
    let file = folder.path().join("farebox.toml");
    std::fs::write(&file, toml::to_string(&config).unwrap()).unwrap();
    let command = Path::new(env!("CARGO_BIN_EXE_reader")).with_file_name("farebox");
    let serving = Command::new(command)
        .args(["serve", "--config"])
        .arg(&file)
        .stdout(Stdio::piped())
        .spawn();
    let mut serving = Running(serving.unwrap());
    let mut lines = BufReader::new(serving.0.stdout.take().unwrap()).lines();
    let base = lines.find_map(|line| {
        let line = line.unwrap();
        let rest = line.strip_prefix("listening on ")?;
        Some(rest.split(',').next()?.to_owned())
    });
    let (done, said) = read(&path, vec![format!("{}/chat?tokens=120", base.unwrap())]).await;
    assert!(done, "{said}");
    assert!(said.contains("120 tokens\n"), "{said}");
    assert!(said.contains("12000 spent, "), "{said}");
    assert!(said.contains("A fare is paid for every word"), "{said}");
}
