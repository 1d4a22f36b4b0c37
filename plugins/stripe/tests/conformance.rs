//! The rules that every rail keeps, behind a real gate.
#![allow(clippy::unwrap_used, reason = "helpers of tests, outside any #[test]")]

use std::sync::Arc;

use farebox_core::{
    Budget, Charge, Limit, Method, Payer, Paying, Secret, SecretSource, Typed, TypedPayer,
};
use farebox_sandbox_stripe::{Stripe as Sandbox, StripeConfig};
use farebox_stripe::{Config, Stripe, StripeWallet, WalletConfig};
use farebox_testkit::rail::RailFixture;
use farebox_wire::{Amount, Challenge};
use serde_json::{Value, json};

struct Fixture(Sandbox);

impl Fixture {
    async fn new() -> Self {
        Self(Sandbox::start(StripeConfig::default()).await.unwrap())
    }

    fn key(&self) -> SecretSource {
        SecretSource::Text(Secret::new(self.0.secret_key()))
    }

    async fn mint(&self, challenge: &Challenge, payment_method: &str) -> Value {
        let config = WalletConfig::new(self.key())
            .api_base(self.0.url())
            .payment_method(payment_method);
        let wallet = TypedPayer::<_, Charge>::new(StripeWallet::new(config).unwrap());
        let cx = Paying::new(challenge, None);
        let cost = wallet.price(&cx).unwrap();
        let limit = Limit::per_request(cost.currency.clone(), Amount::new(50));
        let (approved, reservation) = Budget::new([limit]).approve(cost).unwrap();
        reservation.commit();
        let paid = wallet.pay(&cx, approved).await.unwrap();
        paid.payload.decode().unwrap()
    }
}

#[async_trait::async_trait]
impl RailFixture for Fixture {
    async fn method(&self) -> Arc<dyn Method> {
        let config = Config::new(self.key(), "internal").api_base(self.0.url());
        Arc::new(Typed::<_, Charge>::new(Stripe::new(config).unwrap()))
    }

    fn terms(&self) -> Value {
        json!({ "amount": "0.50", "currency": "usd" })
    }

    async fn pay(&self, challenge: &Challenge) -> (Value, Option<String>) {
        (self.mint(challenge, "pm_card_visa").await, None)
    }

    async fn forged(&self, challenge: &Challenge) -> Vec<Value> {
        vec![
            json!({ "spt": "spt_stranger" }),
            json!({ "spt": "tok_visa" }),
            self.mint(challenge, "pm_card_chargeDeclined").await,
        ]
    }
}

farebox_testkit::rail_conformance!(stripe_charge, Fixture::new().await);
