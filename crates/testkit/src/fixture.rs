//! A conformance fixture from a plugin and two configurations.

use std::{any::Any, sync::Arc};

use async_trait::async_trait;
use farebox_core::{Budget, Limit, Method, Payer, Paying, Plugin, wire::Challenge};
use serde_json::Value;

use crate::{TEST_REALM, rail::RailFixture};

/// Runs a plugin's own rail and wallet against each other.
pub struct PluginFixture {
    plugin: &'static Plugin,
    config: Value,
    payer: Arc<dyn Payer>,
    terms: Value,
    forged: Vec<Value>,
    /// The stand-ins it talks to live as long as the fixture.
    _kept: Box<dyn Any + Send + Sync>,
}

impl PluginFixture {
    /// The rail built from `config`, paid by the wallet built from `wallet`, at `terms`. `forged`
    /// are payloads that pay for nothing; `kept` is whatever must stay alive meanwhile.
    pub fn new(
        plugin: &'static Plugin,
        config: Value,
        wallet: Value,
        terms: Value,
        forged: impl IntoIterator<Item = Value>,
        kept: impl Any + Send + Sync,
    ) -> Self {
        let build = plugin.wallet.expect("the plugin has a wallet");
        let payer = match build(&wallet) {
            Ok(payer) => payer,
            Err(invalid) => panic!("the wallet's configuration: {invalid}"),
        };
        let (forged, _kept) = (forged.into_iter().collect(), Box::new(kept));
        Self {
            plugin,
            config,
            payer,
            terms,
            forged,
            _kept,
        }
    }
}

impl std::fmt::Debug for PluginFixture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("PluginFixture")
            .field(&self.plugin.name)
            .finish()
    }
}

#[async_trait]
impl RailFixture for PluginFixture {
    async fn method(&self) -> Arc<dyn Method> {
        let method = match (self.plugin.build)(&self.config) {
            Ok(method) => method,
            Err(invalid) => panic!("the rail's configuration: {invalid}"),
        };
        method.connect().await.expect("the rail's stand-in answers");
        method
    }

    fn terms(&self) -> Value {
        self.terms.clone()
    }

    async fn pay(&self, challenge: &Challenge) -> (Value, Option<String>) {
        let cx = Paying::new(challenge, Some(TEST_REALM));
        let cost = match self.payer.price(&cx) {
            Ok(cost) => cost,
            Err(error) => panic!("the wallet does not price the rail's own challenge: {error}"),
        };
        let budget = Budget::new([Limit::per_request(cost.currency.clone(), cost.amount)]);
        let (approved, reservation) = budget.approve(cost).expect("exactly the price");
        match self.payer.pay(&cx, approved).await {
            Ok(paid) => {
                reservation.commit();
                let payload = paid.payload.decode().expect("a payload is JSON");
                (payload, paid.source)
            }
            Err(error) => panic!("the wallet does not pay the rail's own challenge: {error}"),
        }
    }

    fn configured(&self) -> Option<(&'static Plugin, Value)> {
        Some((self.plugin, self.config.clone()))
    }

    async fn forged(&self, _: &Challenge) -> Vec<Value> {
        self.forged.clone()
    }
}
