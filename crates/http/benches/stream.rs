//! What a piece of a metered stream costs: alone, and as a server-sent event.

#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a benchmark ends where it goes wrong"
)]

#[path = "../tests/it/tills.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    reason = "rails of the tests, which use all of them"
)]
mod tills;

use std::{convert::Infallible, sync::Arc};

use axum::{Router, body::Body, response::IntoResponse, routing::get};
use divan::{Bencher, counter::ItemsCount};
use farebox_core::{
    Offer, Session, SessionTerms, Typed, compose,
    wire::{Challenge, Credential, Payload, SecretRing},
};
use farebox_engine::{Engine, Gate, Inbound, MemoryStore};
use farebox_http::{Metered, PaymentLayer};
use futures_util::stream;
use http::{Request, StatusCode, header};
use http_body_util::BodyExt as _;
use tokio::runtime::Runtime;
use tower::ServiceExt as _;

fn main() {
    divan::main();
}

const PIECES: usize = 100_000;

fn gate() -> Gate {
    let secrets = SecretRing::new(["0123456789abcdef0123456789abcdef".to_owned().into()]).unwrap();
    let store = Arc::new(MemoryStore::new());
    let engine = Engine::builder("localhost", secrets, store)
        .build()
        .unwrap();
    let terms = SessionTerms {
        amount: "1".into(),
        unit: "piece".into(),
        ..Default::default()
    };
    let rail = Arc::new(Typed::<_, Session>::new(tills::Purses));
    let offers = compose([Offer::new::<Session>(rail, terms).unwrap()]).unwrap();
    engine.gate("GET /pieces", offers).unwrap()
}

fn opening(challenge: &Challenge, channel: &str) -> Credential {
    let payload = serde_json::json!({
        "action": "open", "channel": channel, "deposit": 1_000_000_000,
    });
    Credential {
        challenge: challenge.clone(),
        payload: Payload::from_value(&payload).unwrap(),
        source: None,
    }
}

/// A charge of one unit, with the blocks it takes from the store.
#[divan::bench]
fn tick(bencher: Bencher<'_, '_>) {
    let runtime = Runtime::new().unwrap();
    let mut tap = runtime.block_on(async {
        let gate = gate();
        let challenge = gate
            .challenges(&Inbound::default())
            .await
            .unwrap()
            .remove(0);
        let admission = gate
            .present(opening(&challenge, "a"), &Inbound::default())
            .await;
        let serving = admission.unwrap().into_serving().unwrap();
        let meter = serving.meter().unwrap().clone();
        serving.delivered(None).await.unwrap();
        meter.tap().unwrap()
    });
    bencher.counter(ItemsCount::new(PIECES)).bench_local(|| {
        runtime.block_on(async {
            for _ in 0..PIECES {
                tap.charge(1).await.unwrap();
            }
        });
    });
}

async fn pieces(session: Metered) -> impl IntoResponse {
    session.events(stream::iter(
        (0..PIECES).map(|_| Ok::<_, Infallible>("piece")),
    ))
}

/// From the handler's text to the bytes of an event, the whole way.
#[divan::bench]
fn event(bencher: Bencher<'_, '_>) {
    let runtime = Runtime::new().unwrap();
    let app = Router::new().route("/pieces", get(pieces).layer(PaymentLayer::new(gate())));
    let ask = || Request::get("/pieces");
    let mut channels = 0u64;
    let paying = || {
        channels += 1;
        let asked = app.clone().oneshot(ask().body(Body::empty()).unwrap());
        let asked = runtime.block_on(asked).unwrap();
        let challenge = asked.headers()[header::WWW_AUTHENTICATE].to_str().unwrap();
        let challenge = Challenge::parse_one(challenge).unwrap();
        let credential = opening(&challenge, &channels.to_string())
            .to_header()
            .unwrap();
        ask()
            .header(header::AUTHORIZATION, credential)
            .body(Body::empty())
            .unwrap()
    };
    bencher
        .counter(ItemsCount::new(PIECES))
        .with_inputs(paying)
        .bench_local_values(|request| {
            runtime.block_on(async {
                let response = app.clone().oneshot(request).await.unwrap();
                assert_eq!(response.status(), StatusCode::OK);
                let mut body = response.into_body();
                let mut bytes = 0;
                while let Some(frame) = body.frame().await {
                    bytes += frame.unwrap().into_data().unwrap().len();
                }
                assert!(bytes > PIECES * "data: piece\n\n".len());
            });
        });
}
