//! A rail on a sandbox, and payments up to the order that the engine would store.

use std::sync::Arc;

use farebox_core::{
    AnyPlan, Budget, Charge, ChargeTerms, IdempotencyKey, Limit, Method, Outcome, Payer, Paying,
    Presented, Refusal, Rejection, Secret, SecretSource, Step, StoredOrder, Typed, TypedPayer,
};
use farebox_sandbox_stripe::{Stripe as Sandbox, StripeConfig};
use farebox_stripe::{Config, Stripe, StripeWallet, WalletConfig};
use farebox_wire::{Amount, Challenge, Encoded, Payload, Timestamp};
use serde_json::Value;

pub(crate) struct Shop {
    pub(crate) sandbox: Sandbox,
    pub(crate) rail: Arc<dyn Method>,
}

impl Shop {
    pub(crate) async fn open() -> Self {
        Self::with(StripeConfig::default(), |_| {}).await
    }

    pub(crate) async fn with(sandbox: StripeConfig, change: impl FnOnce(&mut Config)) -> Self {
        let sandbox = Sandbox::start(sandbox).await.unwrap();
        let rail = rail(key(&sandbox), &sandbox.url(), change);
        Self { sandbox, rail }
    }

    /// The same account after a change of configuration.
    pub(crate) fn reconfigured(&self, change: impl FnOnce(&mut Config)) -> Arc<dyn Method> {
        rail(key(&self.sandbox), &self.sandbox.url(), change)
    }

    /// A challenge that lapses `lapses` seconds from now.
    pub(crate) async fn challenge(&self, id: &str, terms: ChargeTerms, lapses: i64) -> Challenge {
        let quote = self
            .rail
            .quote(&serde_json::to_value(terms).unwrap())
            .await
            .unwrap();
        challenge(id, quote.request, lapses)
    }

    pub(crate) fn wallet(&self, payment_method: &str) -> Arc<dyn Payer> {
        let config = WalletConfig::new(key(&self.sandbox))
            .api_base(self.sandbox.url())
            .payment_method(payment_method);
        Arc::new(TypedPayer::<_, Charge>::new(
            StripeWallet::new(config).unwrap(),
        ))
    }

    pub(crate) async fn pay(&self, challenge: &Challenge, payment_method: &str) -> Payload {
        let wallet = self.wallet(payment_method);
        let cx = Paying::new(challenge, None);
        let cost = wallet.price(&cx).unwrap();
        let budget = Budget::new([Limit::per_request(
            cost.currency.clone(),
            Amount::new(1_000_000),
        )]);
        let (approved, reservation) = budget.approve(cost).unwrap();
        reservation.commit();
        wallet.pay(&cx, approved).await.unwrap().payload
    }

    pub(crate) async fn verify(
        &self,
        challenge: &Challenge,
        payload: &Payload,
    ) -> Result<AnyPlan, Refusal> {
        let now = Timestamp::now();
        self.rail
            .verify(&Presented::new(challenge, &now), payload)
            .await
    }

    /// The order of a challenge that was paid, as the engine stores it.
    pub(crate) async fn order(&self, challenge: &Challenge, payload: &Payload) -> Attempt<'_> {
        Attempt {
            shop: self,
            key: IdempotencyKey::for_challenge(&challenge.id),
            order: to_settle(self.verify(challenge, payload).await.unwrap()),
        }
    }

    /// A paid order for half a dollar.
    pub(crate) async fn attempt(&self, payment_method: &str) -> Attempt<'_> {
        let challenge = self.challenge("c-1_A", usd("0.50"), 300).await;
        let payload = self.pay(&challenge, payment_method).await;
        self.order(&challenge, &payload).await
    }
}

/// A rail at a scripted Stripe, with orders of half a dollar under the challenge `c-1_A`.
pub(crate) struct Counter(Arc<dyn Method>);

impl Counter {
    pub(crate) fn at(url: &str) -> Self {
        let key = SecretSource::Text(Secret::new("sk_test_1"));
        Self(rail(key, url, |_| {}))
    }

    /// Of a challenge that lapses `lapses` seconds from now.
    pub(crate) async fn order(&self, lapses: i64) -> StoredOrder {
        self.order_at(lapses, &Timestamp::now()).await
    }

    /// The same, first presented at `presented`.
    pub(crate) async fn order_at(&self, lapses: i64, presented: &Timestamp) -> StoredOrder {
        let terms = serde_json::to_value(usd("0.50")).unwrap();
        let request = self.0.quote(&terms).await.unwrap().request;
        let challenge = challenge("c-1_A", request, lapses);
        let payload = Payload::from_value(&serde_json::json!({ "spt": "spt_1" })).unwrap();
        let cx = Presented::new(&challenge, presented);
        to_settle(self.0.verify(&cx, &payload).await.unwrap())
    }

    pub(crate) async fn settle(&self, order: &StoredOrder) -> Outcome {
        let key = IdempotencyKey::for_challenge("c-1_A");
        self.0.settler().settle(&key, order).await
    }

    pub(crate) async fn lookup(&self, order: &StoredOrder) -> Outcome {
        let key = IdempotencyKey::for_challenge("c-1_A");
        self.0.settler().lookup(&key, order).await
    }
}

pub(crate) struct Attempt<'a> {
    shop: &'a Shop,
    key: IdempotencyKey,
    order: StoredOrder,
}

impl Attempt<'_> {
    pub(crate) async fn settle(&self) -> Outcome {
        self.settle_with(&self.shop.rail).await
    }

    pub(crate) async fn settle_with(&self, rail: &Arc<dyn Method>) -> Outcome {
        rail.settler().settle(&self.key, &self.order).await
    }

    pub(crate) async fn lookup(&self) -> Outcome {
        self.lookup_with(&self.shop.rail).await
    }

    pub(crate) async fn lookup_with(&self, rail: &Arc<dyn Method>) -> Outcome {
        rail.settler().lookup(&self.key, &self.order).await
    }

    /// The same attempt with another order on record.
    pub(crate) fn changed(&self, how: impl FnOnce(&mut Value)) -> Self {
        Self {
            shop: self.shop,
            key: self.key.clone(),
            order: change(&self.order, how),
        }
    }

    pub(crate) fn posts(&self) -> usize {
        let creates = |r: &&farebox_sandbox_stripe::Recorded| {
            r.method == "POST" && r.path == "/v1/payment_intents"
        };
        self.shop.sandbox.requests().iter().filter(creates).count()
    }
}

fn rail(key: SecretSource, url: &str, change: impl FnOnce(&mut Config)) -> Arc<dyn Method> {
    let mut config = Config::new(key, "internal").api_base(url);
    change(&mut config);
    Arc::new(Typed::<_, Charge>::new(Stripe::new(config).unwrap()))
}

fn challenge(id: &str, request: Encoded, lapses: i64) -> Challenge {
    Challenge {
        id: id.to_owned(),
        realm: "shop.example".to_owned(),
        method: "stripe".to_owned(),
        intent: "charge".to_owned(),
        request,
        expires: Some(seconds_from_now(lapses)),
        digest: None,
        description: None,
        opaque: None,
        header: None,
    }
}

fn to_settle(plan: AnyPlan) -> StoredOrder {
    let AnyPlan::Once(plan) = plan else {
        panic!("a charge is single use")
    };
    assert_eq!(plan.proofs.len(), 1);
    let Step::Settle(order) = plan.step else {
        panic!("a token has to be charged")
    };
    order
}

/// The order as it would be stored after `how`.
pub(crate) fn change(order: &StoredOrder, how: impl FnOnce(&mut Value)) -> StoredOrder {
    let mut value = serde_json::from_str(order.as_str()).unwrap();
    how(&mut value);
    StoredOrder::of(&value).unwrap()
}

pub(crate) fn key(sandbox: &Sandbox) -> SecretSource {
    SecretSource::Text(Secret::new(sandbox.secret_key()))
}

pub(crate) fn usd(amount: &str) -> ChargeTerms {
    ChargeTerms::amount(amount).currency("usd")
}

pub(crate) fn seconds_from_now(seconds: i64) -> Timestamp {
    Timestamp::from_unix_millis(Timestamp::now().unix_millis() + seconds * 1000)
}

#[track_caller]
pub(crate) fn declined(outcome: Outcome) -> Rejection {
    match outcome {
        Outcome::Declined(rejection) => rejection,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
pub(crate) fn settled(outcome: Outcome) -> String {
    match outcome {
        Outcome::Settled { reference, .. } => reference,
        other => panic!("{other:?}"),
    }
}
