//! `farebox serve` with a node inside: it says who it is, takes payments, and comes back with its
//! channels.
#![allow(clippy::unwrap_used, reason = "helpers of tests, outside any #[test]")]

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use farebox::http::{PayExt as _, ReceiptExt as _};
use farebox::prelude::*;
use farebox::rails::lightning::ldk::{Ldk, Settings};
use farebox::rails::lightning::{LightningWallet, Network, Node as _};
use farebox_live_lightning_tests::esplora::Esplora;
use farebox_live_lightning_tests::ldk::{config, fund, open_channel_to, until};
use farebox_test_services::free_port;
use serde_json::Value;

/// The server's process; ends with its handle.
struct Served(Child);

impl Served {
    /// Ends it as a service manager does.
    fn end(mut self) {
        let pid = self.0.id().to_string();
        let told = Command::new("kill").args(["-TERM", &pid]).status();
        assert!(told.unwrap().success());
        let ended = self.0.wait().unwrap();
        assert!(ended.success(), "{ended}");
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts the command and waits until it listens; the answer has what the node said of itself.
fn serve(config: &Path) -> (Served, Value) {
    let child = Command::new(env!("CARGO_BIN_EXE_farebox-ldk"))
        .args(["serve", "--log", "json", "--config"])
        .arg(config)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut served = Served(child.unwrap());
    let output = BufReader::new(served.0.stdout.take().unwrap());
    let mut log = BufReader::new(served.0.stderr.take().unwrap()).lines();
    let up = log
        .by_ref()
        .map(|line| line.unwrap())
        .filter_map(|line| serde_json::from_str::<Value>(&line).ok())
        .find(|event| event["message"] == "the Lightning node is up");
    // Nobody reads the rest, which must not fill the pipe.
    std::thread::spawn(move || log.for_each(drop));
    let mut lines = output.lines().map(|line| line.unwrap());
    lines
        .find(|line| line.contains("listening on"))
        .expect("it listens");
    (served, up.expect("the node says who it is"))
}

#[tokio::test(flavor = "multi_thread")]
async fn serve_runs_a_node_that_keeps_its_channels() {
    let folder = tempfile::tempdir().unwrap();
    let esplora = Esplora::start().await;
    let payer = config(folder.path(), "payer", &esplora);
    let payer = Settings::check(&payer, Network::Regtest).unwrap();
    let payer = Arc::new(Ldk::new(payer));
    let trusted = payer.info().await.unwrap().id;

    let (port, peers) = (free_port(), format!("127.0.0.1:{}", free_port()));
    let text = format!(
        r#"
listen = "127.0.0.1:{port}"
realm = "127.0.0.1"
secrets = ["a secret of 32 bytes, only for tests"]
store = "memory:"

[rails.lightning]
backend = "ldk"
network = "regtest"

[rails.lightning.ldk]
data_dir = "{folder}/seller"
seed = {{ file = "{folder}/seller.seed" }}
esplora = "{esplora}"
listen = ["{peers}"]
trusted_peers = ["{trusted}"]

[[routes]]
path = "/joke"
respond = "a joke"
offers = [{{ rail = "lightning/charge", amount = "21" }}]
"#,
        folder = folder.path().display(),
        esplora = esplora.url(),
    );
    let file = folder.path().join("farebox.toml");
    std::fs::write(&file, text).unwrap();

    let (server, first) = serve(&file);
    let id = first["node_id"].as_str().unwrap().to_owned();
    assert_eq!(first["listening"], peers.as_str());
    let address = first["deposit_address"].as_str().unwrap();
    assert!(address.starts_with("bcrt1"), "{address}");
    assert_eq!(first["channels"], 0);

    fund(&esplora, &payer).await;
    open_channel_to(&payer, &id, &peers).await;
    let usable = "the channel is usable";
    let is_usable = |n: &farebox::rails::lightning::ldk::ldk_node::Node| {
        n.list_channels().iter().any(|channel| channel.is_usable)
    };
    until(usable, &payer, is_usable).await;
    let budget = Budget::new([Limit::per_request("sat", Amount::new(100))]);
    let wallet = LightningWallet::on(payer.clone()).payment_timeout(Duration::from_secs(60));
    let purse = Purse::new(budget).wallet::<farebox::Charge, _>(wallet);
    let url = format!("http://127.0.0.1:{port}/joke");
    let client = reqwest::Client::new();
    let paid = client.get(&url).pay(&purse).await.unwrap();
    assert_eq!(paid.status(), 200);
    let reference = paid.receipt().unwrap().reference.clone();

    server.end();
    let (_server, again) = serve(&file);
    assert_eq!(again["node_id"], id.as_str());
    assert_eq!(again["channels"], 1);
    // The payer reconnects when it next needs to.
    let (peer, host) = (id.parse().unwrap(), peers.parse().unwrap());
    let connected = payer.with(move |n| n.connect(peer, host, true)).await;
    connected.unwrap().unwrap();
    until(usable, &payer, is_usable).await;
    let paid = client.get(&url).pay(&purse).await.unwrap();
    assert_eq!(paid.status(), 200);
    assert_ne!(paid.receipt().unwrap().reference, reference);
    payer.stop().await;
}
