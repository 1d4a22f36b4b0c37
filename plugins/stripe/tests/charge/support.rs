//! A rail on a sandbox, and payments up to the order that the engine would store.

use std::sync::Arc;

use farebox_core::{
    AnyPlan, Budget, Charge, ChargeTerms, IdempotencyKey, Limit, Method, Outcome, Payer, Paying,
    Presented, Refusal, Rejection, Secret, SecretSource, Step, StoredOrder, Typed, TypedPayer,
};
use farebox_sandbox_stripe::{Stripe as Sandbox, StripeConfig};
use farebox_stripe::{Config, Stripe, StripeWallet, WalletConfig};
use farebox_wire::{Amount, Challenge, Payload, Timestamp};

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
        let mut config = Config::new(key(&sandbox), "internal").api_base(sandbox.url());
        change(&mut config);
        let rail = Typed::<_, Charge>::new(Stripe::new(config).unwrap());
        Self {
            sandbox,
            rail: Arc::new(rail),
        }
    }

    /// A challenge that lapses `lapses` seconds from now.
    pub(crate) async fn challenge(&self, id: &str, terms: ChargeTerms, lapses: i64) -> Challenge {
        let quote = self
            .rail
            .quote(&serde_json::to_value(terms).unwrap())
            .await
            .unwrap();
        Challenge {
            id: id.to_owned(),
            realm: "shop.example".to_owned(),
            method: "stripe".to_owned(),
            intent: "charge".to_owned(),
            request: quote.request,
            expires: Some(seconds_from_now(lapses)),
            digest: None,
            description: None,
            opaque: None,
            header: None,
        }
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
        self.order_at(challenge, payload, &Timestamp::now()).await
    }

    pub(crate) async fn order_at(
        &self,
        challenge: &Challenge,
        payload: &Payload,
        now: &Timestamp,
    ) -> Attempt<'_> {
        let plan = self
            .rail
            .verify(&Presented::new(challenge, now), payload)
            .await
            .unwrap();
        let AnyPlan::Once(plan) = plan else {
            panic!("a charge is single use")
        };
        assert_eq!(plan.proofs.len(), 1);
        let Step::Settle(order) = plan.step else {
            panic!("a token has to be charged")
        };
        Attempt {
            shop: self,
            key: IdempotencyKey::for_challenge(&challenge.id),
            order,
        }
    }

    /// A paid order for half a dollar.
    pub(crate) async fn attempt(&self, payment_method: &str) -> Attempt<'_> {
        let challenge = self.challenge("c-1_A", usd("0.50"), 300).await;
        let payload = self.pay(&challenge, payment_method).await;
        self.order(&challenge, &payload).await
    }
}

pub(crate) struct Attempt<'a> {
    shop: &'a Shop,
    key: IdempotencyKey,
    order: StoredOrder,
}

impl Attempt<'_> {
    pub(crate) async fn settle(&self) -> Outcome {
        self.shop
            .rail
            .settler()
            .settle(&self.key, &self.order)
            .await
    }

    pub(crate) async fn lookup(&self) -> Outcome {
        self.shop
            .rail
            .settler()
            .lookup(&self.key, &self.order)
            .await
    }

    pub(crate) fn posts(&self) -> usize {
        let creates = |r: &&farebox_sandbox_stripe::Recorded| {
            r.method == "POST" && r.path == "/v1/payment_intents"
        };
        self.shop.sandbox.requests().iter().filter(creates).count()
    }
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
