//! The rules of every rail.

use std::sync::Arc;

use async_trait::async_trait;
use farebox_core::{Method, Paying, SessionPayer, Typed, TypedSessionPayer, prelude::*};
use farebox_sandbox_tempo::{Chain, ChainConfig};
use farebox_tempo::TempoSession;
use farebox_testkit::rail::RailFixture;
use serde_json::{Value, json};

use crate::kit::{PAYER, approve, config, wallet};

struct Fixture {
    chain: Chain,
    payer: Arc<dyn SessionPayer>,
}

impl Fixture {
    async fn new() -> Self {
        let chain = Chain::start(ChainConfig::default()).await.unwrap();
        let payer = Arc::new(TypedSessionPayer::new(wallet(&chain.url(), PAYER)));
        Self { chain, payer }
    }
}

#[async_trait]
impl RailFixture for Fixture {
    async fn method(&self) -> Arc<dyn Method> {
        let config = serde_json::from_value(config(&self.chain.url())).unwrap();
        Arc::new(Typed::<_, Session>::new(TempoSession::new(config).unwrap()))
    }

    fn terms(&self) -> Value {
        json!({ "amount": "0.001", "unit": "token" })
    }

    async fn pay(&self, challenge: &Challenge) -> (Value, Option<String>) {
        let cx = Paying::new(challenge, Some(farebox_testkit::TEST_REALM));
        let draft = self.payer.draft_open(&cx, Amount::new(50_000)).await;
        let draft = draft.unwrap();
        let approved = approve(&*self.payer, &cx, &draft);
        let funded = self
            .payer
            .open(&cx, &draft, Amount::new(1_000), approved)
            .await;
        let paid = funded.unwrap().paid;
        (paid.payload.decode().unwrap(), paid.source)
    }

    async fn forged(&self, challenge: &Challenge) -> Vec<Value> {
        let (good, _) = self.pay(challenge).await;
        let with = |member: &str, value: Value| {
            let mut forged = good.clone();
            forged[member] = value;
            forged
        };
        vec![
            with("cumulativeAmount", json!("2000")),
            with("transaction", json!("0x76")),
            with("signature", json!("0x")),
            with("channelId", json!("0x".to_owned() + &"11".repeat(32))),
            with("action", json!("topUp")),
        ]
    }
}

farebox_testkit::rail_conformance!(rules, Fixture::new().await);
