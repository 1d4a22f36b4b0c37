//! The rules every rail keeps, over a real payment between two nodes.
#![allow(clippy::unwrap_used, reason = "helpers of tests, outside any #[test]")]

mod common;

use std::sync::Arc;

use async_trait::async_trait;
use farebox_core::Method;
use farebox_testkit::rail::RailFixture;
use farebox_wire::Challenge;
use serde_json::{Value, json};

struct Fixture(farebox_sandbox_lightning::Lightning);

#[async_trait]
impl RailFixture for Fixture {
    async fn method(&self) -> Arc<dyn Method> {
        common::method(common::rail(self.0.seller()))
    }

    fn terms(&self) -> Value {
        json!({ "amount": "21", "description": "a joke" })
    }

    async fn pay(&self, challenge: &Challenge) -> (Value, Option<String>) {
        let payer = common::payer(common::wallet(self.0.agent()));
        let payload = common::pay(&payer, challenge).await.unwrap();
        (payload.decode().unwrap(), None)
    }

    /// Any preimage but the invoice's own.
    async fn forged(&self, _: &Challenge) -> Vec<Value> {
        ["00", "ff"]
            .map(|byte| json!({ "preimage": byte.repeat(32) }))
            .into()
    }
}

farebox_testkit::rail_conformance!(rules, Fixture(common::start().await));
