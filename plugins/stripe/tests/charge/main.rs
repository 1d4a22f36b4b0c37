//! `stripe/charge` against the sandbox: every way a charge can go, and how often money moved.
#![allow(clippy::unwrap_used, reason = "helpers of tests, outside any #[test]")]

mod connect;
mod evidence;
mod issued;
mod lost;
mod page;
mod script;
mod support;

use std::time::Duration;

use farebox_core::{
    AnyPlan, Charge, ChargeTerms, Method as _, Outcome, Refusal, Secret, SecretSource, Typed,
};
use farebox_sandbox_stripe::{Stripe as Sandbox, StripeConfig};
use farebox_stripe::{Config, Stripe};
use farebox_wire::{Challenge, Payload, Problem};
use serde_json::{Value, json};

use support::{Shop, declined, key, settled, usd};

#[tokio::test]
async fn the_request_is_the_drafts() {
    let shop = Shop::open().await;
    let plain = shop.challenge("c", usd("0.50"), 300).await;
    assert_eq!(
        plain.request.json(),
        r#"{"amount":"50","currency":"usd","methodDetails":{"networkId":"internal","paymentMethodTypes":["card"]}}"#
    );
    let terms = ChargeTerms::amount("5")
        .currency("USD")
        .description("A report")
        .external_id("order-7")
        .option("metadata", json!({ "plan": "pro" }));
    assert_eq!(
        shop.challenge("c", terms, 300).await.request.json(),
        r#"{"amount":"500","currency":"usd","description":"A report","externalId":"order-7","methodDetails":{"metadata":{"plan":"pro"},"networkId":"internal","paymentMethodTypes":["card"]}}"#
    );
}

#[tokio::test]
async fn a_token_becomes_one_payment_intent() {
    let shop = Shop::open().await;
    let terms = usd("0.50").option("metadata", json!({ "plan": "pro" }));
    let challenge = shop.challenge("c-1_A", terms, 300).await;
    let payload = shop.pay(&challenge, "pm_card_visa").await;
    let attempt = shop.order(&challenge, &payload).await;
    assert_eq!(attempt.posts(), 0, "verifying charges nothing");

    let reference = settled(attempt.settle().await);
    let charged = shop.sandbox.charged();
    assert_eq!(charged.len(), 1);
    assert_eq!(
        (charged[0].id.as_str(), charged[0].amount),
        (reference.as_str(), 50)
    );
    let metadata: Vec<(&str, &str)> = charged[0]
        .metadata
        .iter()
        .map(|(k, v)| (k.as_str(), v.as_str()))
        .collect();
    let expected = [
        ("challenge_id", "c-1_A"),
        ("machine_payment", "true"),
        ("mpp_challenge_id", "c-1_A"),
        ("mpp_intent", "charge"),
        ("plan", "pro"),
    ];
    assert_eq!(metadata, expected);

    let sent = shop.sandbox.requests().pop().unwrap();
    assert_eq!(sent.headers["idempotency-key"], "mpp_c-1_A");
    assert_eq!(sent.headers["stripe-version"], "2026-07-29.preview");
    assert_eq!(
        sent.form["automatic_payment_methods[allow_redirects]"],
        "never"
    );
    assert!(sent.form.contains_key("shared_payment_granted_token"));
}

#[tokio::test]
async fn the_newer_spelling_of_the_token_works_as_well() {
    let newer = |config: &mut Config| config.token_parameter = "payment_method_data".to_owned();
    let shop = Shop::with(StripeConfig::default(), newer).await;
    settled(shop.attempt("pm_card_visa").await.settle().await);
    let sent = shop.sandbox.requests().pop().unwrap();
    assert!(
        sent.form
            .contains_key("payment_method_data[shared_payment_granted_token]")
    );
}

/// Protects: a payer learns what to do, and nothing that helps a thief.
#[tokio::test]
async fn declines_say_what_to_do() {
    for (payment_method, hint) in [
        ("pm_card_chargeDeclined", "another payment method"),
        (
            "pm_card_chargeDeclinedInsufficientFunds",
            "not enough funds",
        ),
        ("pm_card_chargeDeclinedExpiredCard", "expired"),
        ("pm_card_chargeDeclinedProcessingError", "try again"),
        ("pm_card_chargeDeclinedStolenCard", "another payment method"),
    ] {
        let shop = Shop::open().await;
        let attempt = shop.attempt(payment_method).await;
        let rejection = declined(attempt.settle().await);
        assert_eq!(rejection.problem, Problem::VerificationFailed);
        assert!(
            rejection.detail.contains(hint),
            "{payment_method}: {}",
            rejection.detail
        );
        assert!(!rejection.detail.contains("stolen"));
        assert_eq!(
            declined(attempt.lookup().await),
            rejection,
            "a decline is final"
        );
        assert!(shop.sandbox.charged().is_empty());
    }
}

/// Protects: a charge that waits for a cardholder cannot be completed after it was refused.
#[tokio::test]
async fn a_required_action_is_refused_for_good() {
    let shop = Shop::open().await;
    let attempt = shop.attempt("pm_card_authenticationRequired").await;
    assert_eq!(
        declined(attempt.settle().await).problem,
        Problem::PaymentActionRequired
    );
    let cancel = shop.sandbox.requests().pop().unwrap();
    let id = cancel.path.strip_prefix("/v1/payment_intents/").unwrap();
    let id = id.strip_suffix("/cancel").unwrap();
    assert!(
        !shop.sandbox.resolve(id, true),
        "nobody can complete it any more"
    );
    assert_eq!(
        declined(attempt.lookup().await).problem,
        Problem::PaymentActionRequired
    );
    assert!(shop.sandbox.charged().is_empty());
}

/// Protects: at most one charge per challenge, whatever is presented for it.
#[tokio::test]
async fn a_challenge_is_charged_once() {
    let shop = Shop::open().await;
    let challenge = shop.challenge("c-1_A", usd("0.50"), 300).await;
    let first = shop.pay(&challenge, "pm_card_visa").await;
    let first = shop.order(&challenge, &first).await;
    let reference = settled(first.settle().await);
    assert_eq!(
        settled(first.settle().await),
        reference,
        "a replay is the truth about this order"
    );
    assert_eq!(settled(first.lookup().await), reference);

    let minted_anew = shop.pay(&challenge, "pm_card_visa").await;
    let second = shop.order(&challenge, &minted_anew).await;
    // The key says only that another call used it; what it came to is for the lookup to find.
    assert_eq!(second.settle().await, Outcome::Unknown);
    assert_eq!(settled(second.lookup().await), reference);
    assert_eq!(shop.sandbox.total("usd"), 50);
}

/// Protects: a token that does not cover the price is the payer's fault, and stays uncharged.
#[tokio::test]
async fn a_tokens_limits_are_the_payers_fault() {
    let shop = Shop::open().await;
    let dear = shop.challenge("c-1", usd("5.00"), 300).await;
    let cheap = shop.challenge("c-2", usd("0.50"), 300).await;
    let euro = shop
        .challenge("c-3", ChargeTerms::amount("0.50").currency("eur"), 300)
        .await;
    let stranger = Payload::from_value(&json!({ "spt": "spt_stranger" })).unwrap();
    let for_cheap = shop.pay(&cheap, "pm_card_visa").await;
    for (challenge, payload) in [
        (&dear, &for_cheap),
        (&euro, &for_cheap),
        (&cheap, &stranger),
    ] {
        let rejection = declined(shop.order(challenge, payload).await.settle().await);
        assert_eq!(rejection.problem, Problem::VerificationFailed);
        assert!(!rejection.detail.contains("spt_"), "{}", rejection.detail);
    }
    shop.sandbox.advance_clock(Duration::from_secs(300 + 600));
    let expired = Challenge {
        id: "c-4".to_owned(),
        ..cheap.clone()
    };
    declined(shop.order(&expired, &for_cheap).await.settle().await);
    assert!(shop.sandbox.charged().is_empty());
}

#[tokio::test]
async fn the_payload_is_checked_without_stripe() {
    let shop = Shop::open().await;
    let challenge = shop.challenge("c-1", usd("0.50"), 300).await;
    let bound = shop
        .challenge("c-2", usd("0.50").external_id("order-7"), 300)
        .await;
    for (challenge, payload, problem) in [
        (&challenge, json!({}), Problem::MalformedCredential),
        (
            &challenge,
            json!({ "spt": 1 }),
            Problem::MalformedCredential,
        ),
        (
            &challenge,
            json!({ "spt": "tok_1" }),
            Problem::MalformedCredential,
        ),
        (
            &challenge,
            json!({ "spt": "spt_1&amount=1" }),
            Problem::MalformedCredential,
        ),
        (&bound, json!({ "spt": "spt_1" }), Problem::InvalidChallenge),
        (
            &bound,
            json!({ "spt": "spt_1", "externalId": "order-8" }),
            Problem::InvalidChallenge,
        ),
    ] {
        let text = payload.to_string();
        match shop
            .verify(challenge, &Payload::from_value(&payload).unwrap())
            .await
        {
            Err(Refusal::Rejected(rejection)) => {
                assert_eq!(rejection.problem, problem, "{text}");
                assert!(!rejection.detail.contains("amount=1"));
            }
            other => panic!("{text}: {other:?}"),
        }
    }
    let payload = |value: Value| Payload::from_value(&value).unwrap();
    let good = payload(json!({ "spt": "spt_1", "externalId": "order-7", "more": true }));
    assert!(shop.verify(&bound, &good).await.is_ok());
    let own = payload(json!({ "spt": "spt_1", "externalId": "mine" }));
    match shop.verify(&challenge, &own).await.unwrap() {
        // A payer's own reference is not the seller's word.
        AnyPlan::Once(plan) => assert!(plan.receipt.is_empty()),
        AnyPlan::Channel(_) => panic!("a charge is single use"),
    }
    assert!(shop.sandbox.requests().is_empty());
}

#[tokio::test]
async fn the_wallet_repeats_the_reference_of_the_request() {
    let shop = Shop::open().await;
    let challenge = shop
        .challenge("c-1", usd("0.50").external_id("order-7"), 300)
        .await;
    let payload = shop.pay(&challenge, "pm_card_visa").await;
    settled(shop.order(&challenge, &payload).await.settle().await);
}

/// Protects: a wrong key stops a server at startup, an outage does not.
#[tokio::test]
async fn connecting_tries_the_key() {
    let shop = Shop::open().await;
    shop.rail.connect().await.unwrap();

    let wrong = SecretSource::Text(Secret::new("sk_test_wrong"));
    let config = Config::new(wrong, "internal").api_base(shop.sandbox.url());
    let rail = Typed::<_, Charge>::new(Stripe::new(config).unwrap());
    let fault = rail.connect().await.unwrap_err();
    assert!(!fault.to_string().contains("sk_test_wrong"));

    let Shop { sandbox, rail } = shop;
    drop(sandbox);
    rail.connect().await.unwrap();
}

/// Protects: neither keys nor tokens are shown.
#[tokio::test]
async fn debug_shows_no_secrets() {
    let sandbox = Sandbox::start(StripeConfig::default()).await.unwrap();
    let config = Config::new(key(&sandbox), "internal").api_base(sandbox.url());
    let text = format!("{config:?} {:?}", Stripe::new(config.clone()).unwrap());
    assert!(!text.contains("sk_test"), "{text}");
}
