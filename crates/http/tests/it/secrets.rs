//! Secrets are replaced while payments are under way.

use std::sync::Arc;

use farebox_core::{prelude::*, wire::SecretRing};
use farebox_engine::{BalanceError, Engine, Inbound, MemoryStore, MeterError};
use farebox_http::{PaymentLayer, server::refuse};
use farebox_testkit::{Proxy, Wire};

use crate::support::{Answer, REALM, Shop, pay, serve};

/// What replicas share, and what outlives them.
type Disk = Proxy<MemoryStore, Wire>;

/// A process with these secrets; its joke's URL.
async fn process(shop: &Shop, disk: &Arc<Disk>, secrets: &[&str]) -> String {
    let ring = SecretRing::new(secrets.iter().map(|secret| secret.repeat(8).into())).unwrap();
    let engine = Engine::builder(REALM, ring, disk.clone()).build().unwrap();
    let layer = PaymentLayer::new(shop.gate_of(&engine, "GET /joke"));
    let route = axum::routing::get(|| async { "served" }).route_layer(layer);
    let address = serve(axum::Router::new().route("/joke", route)).await;
    format!("http://{address}/joke")
}

async fn ask(url: &str, credential: Option<String>) -> Answer {
    let mut request = reqwest::Client::new().get(url);
    if let Some(credential) = credential {
        request = request.header("authorization", credential);
    }
    Answer::of(request).await
}

/// Protects: a rotation with overlap refuses nobody, and one without takes no money.
#[tokio::test]
async fn challenges_outlive_their_secret_while_it_is_in_the_ring() {
    let (shop, disk) = (
        Shop::open().await,
        Arc::new(Disk::new(Arc::default(), Wire)),
    );
    let before = process(&shop, &disk, &["old!"]).await;
    let during = process(&shop, &disk, &["new!", "old!"]).await;
    let after = process(&shop, &disk, &["new!"]).await;
    let challenge = async |url: &str| ask(url, None).await.challenge("token");
    let present = async |url: &str, challenge, token| {
        let header = pay(challenge, token).to_header().unwrap();
        ask(url, Some(header)).await
    };
    // In flight when the secret changed: it pays as long as the old one is kept.
    let (first, second) = (challenge(&before).await, challenge(&before).await);
    assert_eq!(present(&during, &first, "good-1").await.status, 200);
    let late = present(&after, &second, "good-2").await;
    late.is_refused("invalid-challenge", &second);
    assert_eq!(
        shop.moved(),
        1,
        "nothing moved for the one that came too late"
    );
    // What is issued during the overlap is signed by the new one.
    let fresh = challenge(&during).await;
    let early = present(&before, &fresh, "good-3").await;
    early.is_refused("invalid-challenge", &fresh);
    assert_eq!(present(&after, &fresh, "good-3").await.status, 200);
    // Delivered is delivered, whoever signed it.
    assert_eq!(present(&during, &first, "good-1").await.status, 403);
    assert_eq!(shop.moved(), 2);
}

/// Protects: a payer is told to pay anew only where that helps.
#[tokio::test]
async fn a_meter_that_refuses_is_answered_as_the_lifecycle_is() {
    let shop = Shop::open().await;
    let gate = shop.gate("GET /joke");
    let exhausted = MeterError::Exhausted {
        required: Amount::new(30),
        authorized: Amount::new(20),
        deposit: Amount::new(25),
    };
    for (error, status, kind) in [
        (exhausted, 402, "session/insufficient-balance"),
        (BalanceError::Closing.into(), 503, ""),
        (Fault::unavailable("10.0.0.7 is away").into(), 503, ""),
        (Fault::new("10.0.0.7 broke").into(), 500, ""),
    ] {
        let error: MeterError = error;
        let refused = refuse(&gate, &Inbound::default(), error.into()).await;
        let answer = Answer::of_response(refused.map(Into::into)).await;
        assert_eq!(answer.status, status, "{answer:?}");
        assert_eq!(answer.header("retry-after").is_empty(), status != 503);
        assert!(answer.kind().ends_with(kind), "{answer:?}");
    }
    let closed = MeterError::from(BalanceError::Closed);
    let refused = refuse(&gate, &Inbound::default(), closed.into()).await;
    assert_eq!(refused.status(), 410);
    assert!(refused.headers().contains_key("www-authenticate"));
}
