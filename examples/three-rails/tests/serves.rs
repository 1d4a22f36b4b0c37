//! The example as a process, against the offline stand-ins.
#![allow(clippy::unwrap_used, reason = "tests may panic")]

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
};

use farebox::{config::Wallets, prelude::*};
use farebox_sandbox_lightning::{Lightning, LightningConfig};
use farebox_sandbox_stripe::{Stripe, StripeConfig};
use farebox_sandbox_tempo::{Chain, ChainConfig, PATH_USD, dev_account};
use serde_json::json;

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_rail_opens_the_route() {
    let chain = Chain::start(ChainConfig::default()).await.unwrap();
    let stripe = Stripe::start(StripeConfig::default()).await.unwrap();
    let lightning = Lightning::start(LightningConfig::default()).await.unwrap();
    let (seller, agent) = (lightning.seller(), lightning.agent());
    let (recipient, _) = dev_account(2).unwrap();
    let (_, payer) = dev_account(1).unwrap();
    let lnd = |endpoint: String, cert, macaroon| {
        json!({
            "backend": "lnd", "endpoint": endpoint, "network": "regtest",
            "tls_cert": { "file": cert }, "macaroon": { "file": macaroon },
        })
    };
    let config = json!({
        "listen": "127.0.0.1:0",
        "realm": "127.0.0.1",
        "secrets": ["a secret of 32 bytes, only for tests"],
        "store": "memory:",
        // Every rail is offered, on a slow machine too.
        "timing": { "quote": "30s" },
        "rails": {
            "tempo": {
                "rpc_url": chain.url(), "chain_id": chain.chain_id(),
                "currency": PATH_USD.to_string(), "recipient": recipient.to_string(),
            },
            "stripe": {
                "secret_key": stripe.secret_key(), "network_id": "internal",
                "api_base": stripe.url(),
            },
            "lightning": lnd(
                seller.endpoint(), seller.tls_cert_path(), seller.invoice_macaroon_path(),
            ),
        },
    });
    let wallets = json!({
        "tempo": {
            "private_key": payer.to_bytes().to_string(),
            "rpc_url": chain.url(), "chain_id": chain.chain_id(),
        },
        "stripe": { "secret_key": stripe.secret_key(), "api_base": stripe.url() },
        "lightning": lnd(agent.endpoint(), agent.tls_cert_path(), agent.admin_macaroon_path()),
    });
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("farebox.toml");
    std::fs::write(&path, toml::to_string(&config).unwrap()).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_three-rails"))
        .arg(&path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let stdout = child.stdout.take().unwrap();
    let _running = Running(child);
    let mut url = String::new();
    BufReader::new(stdout).read_line(&mut url).unwrap();

    let tables = wallets.as_object().unwrap().clone();
    let wallets = Wallets::from_tables(tables, &farebox::registry().unwrap()).unwrap();
    let client = reqwest::Client::new();
    let budget = || {
        Budget::new([
            Limit::per_request(PATH_USD.to_string(), Amount::new(10_000)),
            Limit::per_request("usd", Amount::new(50)),
            Limit::per_request("sat", Amount::new(30)),
        ])
    };
    for (_, payer) in wallets.iter() {
        let purse = Purse::new(budget()).payer(payer.clone());
        let response = client.get(url.trim()).pay(&purse).await.unwrap();
        assert_eq!(response.status(), 200);
        let receipt = response.receipt().expect("a receipt");
        assert_eq!(receipt.method, payer.offer().method);
        let body = response.text().await.unwrap();
        assert!(body.contains(&receipt.reference), "{body}");
    }
    assert_eq!(
        chain.balance(PATH_USD, recipient),
        u128::from(u64::MAX) + 10_000
    );
    assert_eq!(stripe.total("usd"), 50);
    assert_eq!(seller.balance_sat(), 21);
}
