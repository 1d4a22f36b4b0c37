//! The example as a process, against a shop on the offline stand-ins.
#![allow(clippy::unwrap_used, reason = "tests may panic")]

use std::{process::Command, time::Duration};

use axum::{Router, routing::get};
use farebox::prelude::*;
use farebox_sandbox_lightning::{Lightning, LightningConfig};
use farebox_sandbox_stripe::{Stripe, StripeConfig};
use serde_json::json;

/// Protects: the preferred rail while its limit lasts, the next one afterwards, and in the end
/// nothing: a budget is a limit.
#[tokio::test(flavor = "multi_thread")]
async fn it_pays_in_sats_until_they_run_out() {
    let stripe = Stripe::start(StripeConfig::default()).await.unwrap();
    let lightning = Lightning::start(LightningConfig::default()).await.unwrap();
    let (seller, agent) = (lightning.seller(), lightning.agent());
    let lnd = |endpoint: String, cert, macaroon| {
        json!({
            "backend": "lnd", "endpoint": endpoint, "network": "regtest",
            "tls_cert": { "file": cert }, "macaroon": { "file": macaroon },
        })
    };
    let account = json!({
        "secret_key": stripe.secret_key(), "network_id": "internal", "api_base": stripe.url(),
    });
    let node = lnd(
        seller.endpoint(),
        seller.tls_cert_path(),
        seller.invoice_macaroon_path(),
    );
    let server = Server::builder("127.0.0.1")
        .secret("a secret of 32 bytes, only for tests")
        .store("memory:")
        .rail("stripe", account)
        .rail("lightning", node)
        // Both rails are offered, on a slow machine too.
        .engine(|engine| engine.quote_deadline(Duration::from_secs(30)))
        .build()
        .unwrap();
    let offers = [
        OfferSpec::new("stripe/charge", "0.50").currency("usd"),
        OfferSpec::new("lightning/charge", "21"),
    ];
    let paid = server.paid("GET /joke", offers).unwrap();
    let app = Router::new().route("/joke", get(|| async { "a joke" }).route_layer(paid));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/joke", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });

    let wallets = json!({ "wallets": {
        "stripe": { "secret_key": stripe.secret_key(), "api_base": stripe.url() },
        "lightning":
            lnd(agent.endpoint(), agent.tls_cert_path(), agent.admin_macaroon_path()),
    }});
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("wallets.toml");
    std::fs::write(&path, toml::to_string(&wallets).unwrap()).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_agent"));
    command.arg(&path).args(vec![url; 8]);
    let output = tokio::task::spawn_blocking(move || command.output())
        .await
        .unwrap()
        .unwrap();

    let said = String::from_utf8(output.stdout).unwrap();
    let rails: Vec<_> = said
        .lines()
        .filter_map(|line| line.split(' ').nth(2))
        .collect();
    // Each counts 26 sats: 21 and at most 5 for routing. Then four times 50 cents.
    assert_eq!(
        rails,
        [
            "lightning",
            "lightning",
            "stripe",
            "stripe",
            "stripe",
            "stripe"
        ],
        "{said}"
    );
    assert_eq!(output.status.code(), Some(1));
    let why = String::from_utf8(output.stderr).unwrap();
    assert!(why.contains("over the budget's limit"), "{why}");
    assert_eq!((seller.balance_sat(), stripe.total("usd")), (42, 200));
}
