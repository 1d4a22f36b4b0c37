//! Answers that are late, lost or empty: how often money moved is known in the end.

use std::time::Duration;

use farebox_core::Outcome;
use farebox_sandbox_stripe::{Fault, StripeConfig};
use farebox_wire::{Challenge, Problem};
use serde_json::Value;

use crate::support::{Shop, declined, settled, usd};

/// Protects: money that moved without an answer is found again, and not moved again.
#[tokio::test]
async fn a_lost_success_is_found() {
    for fault in [
        Fault::ErrorAfterCommit,
        Fault::HangAfterCommit,
        Fault::DropAfterCommit,
    ] {
        let shop = Shop::open().await;
        // Long enough for the request to arrive, on a machine that does much else; only what hangs
        // takes so long.
        let impatient = shop.reconfigured(|config| config.timeout = 8);
        let attempt = shop.attempt("pm_card_visa").await;
        shop.sandbox.fault(fault.clone());
        let outcome = attempt.settle_with(&impatient).await;
        assert_eq!(outcome, Outcome::Unknown, "{fault:?}");
        let reference = settled(attempt.lookup().await);
        assert_eq!(shop.sandbox.charged()[0].id, reference, "{fault:?}");
        assert_eq!(shop.sandbox.total("usd"), 50, "{fault:?}");
    }
}

/// Protects: while the index lags behind, what cannot be found is not taken for not paid.
#[tokio::test]
async fn a_lagging_search_decides_nothing() {
    let lag = Duration::from_secs(60);
    let shop = Shop::with(StripeConfig::default().search_lag(lag), |_| {}).await;
    shop.sandbox.fault(Fault::ErrorAfterCommit);
    let attempt = shop.attempt("pm_card_visa").await;
    assert_eq!(attempt.settle().await, Outcome::Unknown);
    assert_eq!(attempt.lookup().await, Outcome::Unknown);
    shop.sandbox.advance_clock(lag);
    settled(attempt.lookup().await);
    assert_eq!(shop.sandbox.total("usd"), 50);
}

/// Protects: an order that never arrived is carried out by the lookup, once, while it may be.
#[tokio::test]
async fn an_attempt_that_never_arrived_is_made_again() {
    let shop = Shop::open().await;
    shop.sandbox.fault(Fault::DropBeforeCommit);
    let attempt = shop.attempt("pm_card_visa").await;
    assert_eq!(attempt.settle().await, Outcome::Unknown);
    assert!(shop.sandbox.charged().is_empty());
    let reference = settled(attempt.lookup().await);
    assert_eq!(settled(attempt.lookup().await), reference);
    assert_eq!(shop.sandbox.total("usd"), 50);
}

#[tokio::test]
async fn a_repeated_500_tells_nothing() {
    let shop = Shop::open().await;
    shop.sandbox.fault(Fault::ErrorBeforeCommit);
    let attempt = shop.attempt("pm_card_visa").await;
    assert_eq!(attempt.settle().await, Outcome::Unknown);
    assert_eq!(attempt.lookup().await, Outcome::Unknown);
    assert!(shop.sandbox.charged().is_empty());
}

/// Protects: nobody is charged for a challenge that lapsed, and a parked payment does not stay so.
#[tokio::test]
async fn a_lapsed_order_is_only_looked_up() {
    let shop = Shop::open().await;
    let fresh = shop.challenge("c-1_A", usd("0.50"), 300).await;
    let of = |id: &str| Challenge {
        id: id.to_owned(),
        ..fresh.clone()
    };
    let two_hours_later = |order: &mut Value| {
        for time in ["created", "expires"] {
            order[time] = (order[time].as_i64().unwrap() - 2 * 3600).into();
        }
    };

    let payload = shop.pay(&fresh, "pm_card_visa").await;
    let charged = shop.order(&fresh, &payload).await;
    shop.sandbox.fault(Fault::ErrorAfterCommit);
    assert_eq!(charged.settle().await, Outcome::Unknown);
    let posts = charged.posts();
    settled(charged.changed(two_hours_later).lookup().await);

    let payload = shop.pay(&fresh, "pm_card_visa").await;
    let died_before = shop.order(&of("c-2"), &payload).await;
    let died_before = died_before.changed(two_hours_later);
    assert_eq!(
        declined(died_before.lookup().await).problem,
        Problem::PaymentExpired
    );
    assert_eq!(
        died_before.posts(),
        posts,
        "a lookup after the challenge charges nothing"
    );
    assert_eq!(shop.sandbox.total("usd"), 50);

    // A consumed token without a PaymentIntent of this challenge is for people to look into.
    let elsewhere = shop.pay(&fresh, "pm_card_visa").await;
    settled(shop.order(&of("c-3"), &elsewhere).await.settle().await);
    let contested = shop.order(&of("c-4"), &elsewhere).await;
    let contested = contested.changed(two_hours_later);
    assert_eq!(contested.lookup().await, Outcome::Unknown);
}

#[tokio::test]
async fn processing_is_unknown_until_stripe_knows() {
    for succeeded in [true, false] {
        let shop = Shop::open().await;
        shop.sandbox.fault(Fault::Processing);
        let attempt = shop.attempt("pm_card_visa").await;
        assert_eq!(attempt.settle().await, Outcome::Unknown);
        assert_eq!(attempt.lookup().await, Outcome::Unknown);
        let read = shop.sandbox.requests().pop().unwrap();
        let id = read
            .path
            .strip_prefix("/v1/payment_intents/")
            .unwrap()
            .to_owned();
        assert!(shop.sandbox.resolve(&id, succeeded));
        let outcome = attempt.lookup().await;
        if succeeded {
            assert_eq!(settled(outcome), id)
        } else {
            drop(declined(outcome))
        }
        assert_eq!(shop.sandbox.total("usd"), if succeeded { 50 } else { 0 });
    }
}

#[tokio::test]
async fn a_busy_stripe_is_asked_again_with_the_same_key() {
    let shop = Shop::open().await;
    shop.sandbox.fault(Fault::Conflict);
    shop.sandbox.fault(Fault::RateLimited);
    let attempt = shop.attempt("pm_card_visa").await;
    settled(attempt.settle().await);
    assert_eq!(attempt.posts(), 3);

    let shop = Shop::open().await;
    shop.sandbox.faults(Fault::RateLimited, 3);
    let attempt = shop.attempt("pm_card_visa").await;
    assert_eq!(attempt.settle().await, Outcome::Unknown, "not for ever");
    assert_eq!(attempt.posts(), 3);
    settled(attempt.lookup().await);
    assert_eq!(shop.sandbox.total("usd"), 50);
}

/// Protects: two processes that settle one order charge once.
#[tokio::test]
async fn two_at_once_charge_once() {
    let slow = StripeConfig::default().latency(Duration::from_millis(600));
    let shop = Shop::with(slow, |_| {}).await;
    let attempt = shop.attempt("pm_card_visa").await;
    let (a, b) = tokio::join!(attempt.settle(), attempt.lookup());
    assert_eq!(settled(a), settled(b));
    assert_eq!(shop.sandbox.total("usd"), 50);
}
