//! A charge and its refund in Stripe's test mode, over the real API: no money moves.
//!
//! `STRIPE_SECRET_KEY` is a key of an account in test mode that has Shared Payment Tokens, and
//! `STRIPE_NETWORK_ID` its Business Network profile, `internal` unless set. `STRIPE_API_BASE` sends
//! the calls elsewhere.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::env;

use farebox_core::{
    AnyPlan, Budget, Charge, ChargeTerms, IdempotencyKey, Limit, Method, Outcome, Payer, Paying,
    Presented, RefundKey, RefundOrder, Refunded, Secret, SecretSource, Step, Typed, TypedPayer,
};
use farebox_stripe::{Config, Stripe, StripeWallet, WalletConfig};
use farebox_wire::{Amount, Challenge, Timestamp};

fn now() -> i64 {
    Timestamp::now().unix_millis()
}

/// Protects: Stripe takes what is sent here, and answers what is read here.
#[tokio::test]
#[ignore = "needs stripe: STRIPE_SECRET_KEY, a key in test mode"]
async fn a_token_is_charged_once_and_given_back_in_test_mode() {
    let key = env::var("STRIPE_SECRET_KEY").expect("STRIPE_SECRET_KEY is set");
    assert!(key.contains("_test_"), "never with a live key");
    let key = SecretSource::Text(Secret::new(key));
    let network = env::var("STRIPE_NETWORK_ID").unwrap_or_else(|_| "internal".to_owned());
    let mut config = Config::new(key.clone(), network);
    let mut wallet = WalletConfig::new(key);
    if let Ok(base) = env::var("STRIPE_API_BASE") {
        config = config.api_base(base.clone());
        wallet = wallet.api_base(base);
    }
    let rail = Typed::<_, Charge>::new(Stripe::new(config).unwrap());
    rail.connect().await.unwrap();
    let terms = serde_json::to_value(ChargeTerms::amount("0.50").currency("usd")).unwrap();
    let challenge = Challenge {
        // A name of its own: Stripe remembers the key for a day.
        id: format!("live-{}", now()),
        realm: "test.example".to_owned(),
        method: "stripe".to_owned(),
        intent: "charge".to_owned(),
        request: rail.quote(&terms).await.unwrap().request,
        expires: Some(Timestamp::from_unix_millis(now() + 300_000)),
        digest: None,
        description: None,
        opaque: None,
        header: None,
    };
    let wallet = TypedPayer::<_, Charge>::new(StripeWallet::new(wallet).unwrap());
    let cx = Paying::new(&challenge, None);
    let limit = Limit::per_request("usd".to_owned(), Amount::new(50));
    let (approved, reservation) = Budget::new([limit])
        .approve(wallet.price(&cx).unwrap())
        .unwrap();
    reservation.commit();
    let payload = wallet.pay(&cx, approved).await.unwrap().payload;

    let at = Timestamp::now();
    let plan = rail
        .verify(&Presented::new(&challenge, &at), &payload)
        .await;
    let AnyPlan::Once(plan) = plan.unwrap() else {
        panic!("a charge is single use")
    };
    let Step::Settle(order) = plan.step else {
        panic!("a token has to be charged")
    };
    let (settler, key) = (rail.settler(), IdempotencyKey::for_challenge(&challenge.id));
    let Outcome::Settled { reference, .. } = settler.settle(&key, &order).await else {
        panic!("Stripe's test card pays")
    };
    let again = settler.lookup(&key, &order).await;
    assert_eq!(again, Outcome::settled(&reference), "once");

    let known = settler.refundable(&reference).await.unwrap();
    assert_eq!((known.charged.get(), known.refunded.get()), (50, 0));
    let refund = RefundOrder {
        reference: reference.clone(),
        amount: Amount::new(20),
        currency: known.currency,
        created: now() / 1000,
        terms: known.terms,
    };
    let key = RefundKey::new("stripe/charge", &reference, "test", 0);
    let given = settler.refund(&key, &refund).await;
    assert!(matches!(given, Refunded::Done { .. }), "{given:?}");
    assert_eq!(settler.look_up_refund(&key, &refund).await, given, "once");
    assert_eq!(
        settler.refundable(&reference).await.unwrap().refunded.get(),
        20
    );
}
