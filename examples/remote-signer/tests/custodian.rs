//! The example as a process: a custodian on loopback, a shop, and the offline chain between them.
#![allow(clippy::unwrap_used, reason = "tests may panic")]

use std::{
    process::{Command, Output},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use alloy::{
    primitives::{Address, B256, Bytes, U256},
    signers::Signer as _,
};
use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::{get, post},
};
use farebox::prelude::*;
use farebox_sandbox_tempo::{Chain, ChainConfig, PATH_USD, dev_account};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// The last two digits of the order, for a high s.
const ORDER: U256 = U256::from_limbs([
    0xbfd2_5e8c_d036_4141,
    0xbaae_dce6_af48_a03b,
    0xffff_ffff_ffff_fffe,
    0xffff_ffff_ffff_ffff,
]);

/// Signs as a KMS does: r and s, s in the upper half, no v.
async fn sign(
    State(asked): State<Arc<AtomicUsize>>,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> Result<Json<Value>, StatusCode> {
    // app:s3cret
    if headers.get("authorization").unwrap() != "Basic YXBwOnMzY3JldA==" {
        return Err(StatusCode::UNAUTHORIZED);
    }
    asked.fetch_add(1, Ordering::Relaxed);
    assert_eq!(body["method"], "secp256k1_sign");
    let hash: B256 = body["params"]["hash"].as_str().unwrap().parse().unwrap();
    let (_, key) = dev_account(4).unwrap();
    let signature = key.sign_hash(&hash).await.unwrap();
    let (r, s) = (signature.r(), ORDER - signature.s());
    let both = [r.to_be_bytes::<32>(), s.to_be_bytes::<32>()].concat();
    Ok(Json(
        json!({ "data": { "signature": Bytes::from(both), "encoding": "hex" } }),
    ))
}

async fn serve(app: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    url
}

async fn run(chain: &Chain, custodian: &str, secret: &'static str, urls: Vec<String>) -> Output {
    let address: Address = dev_account(4).unwrap().0;
    let mut command = Command::new(env!("CARGO_BIN_EXE_remote-signer"));
    command
        .args(urls)
        .env("CUSTODIAN_URL", custodian)
        .env("CUSTODIAN_WALLET", "w1")
        .env("CUSTODIAN_APP", "app")
        .env("CUSTODIAN_SECRET", secret)
        .env("ADDRESS", address.to_string())
        .env("TEMPO_RPC", chain.url())
        .env("CHAIN_ID", "1337")
        .env("CURRENCY", PATH_USD.to_string());
    let output = tokio::task::spawn_blocking(move || command.output());
    output.await.unwrap().unwrap()
}

/// Protects: one signature a payment, the price and no more; a custodian that says no moves nothing,
/// and nobody's secret is printed.
#[tokio::test(flavor = "multi_thread")]
async fn a_custodian_signs_payments() {
    let chain = Chain::start(ChainConfig::default()).await.unwrap();
    let asked = Arc::<AtomicUsize>::default();
    let signer = Router::new()
        .route("/v1/wallets/w1/rpc", post(sign))
        .with_state(asked.clone());
    let custodian = serve(signer).await;
    let (seller, _) = dev_account(2).unwrap();
    let server = Server::builder("127.0.0.1")
        .secret("a secret of 32 bytes, only for tests")
        .store("memory:")
        .rail(
            "tempo",
            json!({
                "rpc_url": chain.url(), "chain_id": 1337,
                "currency": PATH_USD, "recipient": seller,
            }),
        )
        .build()
        .unwrap();
    let paid = server
        .paid("GET /joke", [("tempo/charge", "0.01")])
        .unwrap();
    let shop = Router::new().route("/joke", get(|| async { "a joke" }).route_layer(paid));
    let url = format!("{}/joke", serve(shop).await);
    let before = chain.balance(PATH_USD, seller);

    let output = run(&chain, &custodian, "s3cret", vec![url.clone(); 2]).await;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(said.matches("200 OK tempo 0x").count(), 2, "{said}");
    assert_eq!(asked.load(Ordering::Relaxed), 2);
    assert_eq!(chain.balance(PATH_USD, seller), before + 20_000);

    let output = run(&chain, &custodian, "wr0ng", vec![url]).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && said.contains("not paid"),
        "{said}"
    );
    assert!(
        !said.contains("wr0ng") && !said.contains(&custodian),
        "{said}"
    );
    assert_eq!(chain.balance(PATH_USD, seller), before + 20_000);
}
