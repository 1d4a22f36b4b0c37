//! What a stream pays its meter: one tick out of its block, and a thousand with their writes.

#![allow(clippy::unwrap_used, reason = "a benchmark may panic")]

use std::sync::Arc;

use farebox_core::{
    Offer, Typed, compose,
    prelude::*,
    wire::{Credential, Payload},
};
use farebox_engine::{Engine, Inbound, MemoryStore, Meter};
use farebox_testkit::test_secrets;
use serde_json::{Map, Value, json};

fn main() {
    divan::main();
}

/// Opens what it is told to.
struct Open(NoSettler);

impl Rail<Session> for Open {
    const METHOD: &'static str = "test";
    type Details = Map<String, Value>;
    type Payload = Map<String, Value>;
    type Settler = NoSettler;

    async fn quote(&self, _: &SessionTerms) -> Result<Quote<Session, Self::Details>, NoQuote> {
        let request = serde_json::from_value(json!({"amount": "1", "currency": "usd"}));
        let request = request.map_err(|e| Fault::new("request").caused_by(e))?;
        Ok(Quote::new(request, Map::new()))
    }

    async fn verify(
        &self,
        _: &Presented<'_>,
        _: &Ask<Session, Self::Details>,
        _: Self::Payload,
    ) -> Result<Plan<Channel, Never>, Refusal> {
        let change = Change::prepaid(Amount::new(u128::from(u64::MAX)));
        let (proof, channel) = (ProofKey::of("test", "open"), ChannelId::of("test", "x"));
        Ok(Plan::open(proof, channel, change, None))
    }

    fn settler(&self) -> &NoSettler {
        &self.0
    }
}

fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(1).enable_all().build().unwrap()
}

async fn opened() -> Meter {
    let engine = Engine::builder(
        "bench.example",
        test_secrets(),
        Arc::new(MemoryStore::new()),
    )
    .build()
    .unwrap();
    let method = Arc::new(Typed::<_, Session>::new(Open(NoSettler)));
    let terms = SessionTerms {
        amount: "1".into(),
        unit: "token".into(),
        ..Default::default()
    };
    let offers = compose([Offer::new::<Session>(method, terms).unwrap()]).unwrap();
    let gate = engine.gate("GET /stream", offers).unwrap();
    let challenge = gate
        .challenges(&Inbound::default())
        .await
        .unwrap()
        .remove(0);
    let credential = Credential {
        challenge,
        source: None,
        payload: Payload::from_value(&json!({})).unwrap(),
    };
    let admission = gate.present(credential, &Inbound::default()).await.unwrap();
    let serving = admission.into_serving().unwrap();
    let meter = serving.meter().unwrap().clone();
    serving.delivered(None).await.unwrap();
    meter
}

/// One tick out of a block that is there.
#[divan::bench]
fn tick(bencher: divan::Bencher<'_, '_>) {
    let runtime = runtime();
    let _in = runtime.enter();
    let mut tap = runtime.block_on(opened()).tap().unwrap();
    runtime.block_on(tap.charge(1)).unwrap();
    let one = Amount::new(1);
    bencher.bench_local(|| {
        if !tap.burn(one, 1) {
            runtime.block_on(tap.charge(1)).unwrap();
        }
    });
}

/// A stream of a thousand ticks, from its first block to its last receipt.
#[divan::bench]
fn thousand_ticks(bencher: divan::Bencher<'_, '_>) {
    let runtime = runtime();
    let meter = runtime.block_on(opened());
    bencher.bench_local(|| {
        runtime.block_on(async {
            let mut tap = meter.tap().unwrap();
            for _ in 0..1_000 {
                tap.charge(1).await.unwrap();
            }
            tap.finish().await.unwrap()
        })
    });
}

/// One request: held, and spent.
#[divan::bench]
fn request(bencher: divan::Bencher<'_, '_>) {
    let runtime = runtime();
    let meter = runtime.block_on(opened());
    bencher.bench_local(|| {
        runtime.block_on(async { meter.reserve(1).await.unwrap().commit().await.unwrap() })
    });
}
