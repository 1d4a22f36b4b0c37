//! What counts as evidence: nothing but the answer to the call itself, and what a PaymentIntent
//! says of itself once no call can be under way.

use farebox_core::{Outcome, StoredOrder};
use serde_json::{Value, json};

use crate::{
    script::{Script, found, intent},
    support::{Counter, Shop, seconds_from_now, settled},
};

const HOUR: i64 = 3600;

/// Protects: an upgrade between a charge and its lookup; the repeated call must be the same call.
#[tokio::test]
async fn a_lookup_repeats_what_was_sent_after_a_change_of_configuration() {
    let shop = Shop::open().await;
    let attempt = shop.attempt("pm_card_visa").await;
    let upgraded = shop.reconfigured(|config| {
        config.api_version = "2027-01-01.preview".to_owned();
        config.token_parameter = "payment_method_data".to_owned();
    });
    settled(attempt.lookup_with(&upgraded).await);
    let sent = shop.sandbox.requests().pop().unwrap();
    assert_eq!(sent.headers["stripe-version"], "2026-07-29.preview");
    assert!(sent.form.contains_key("shared_payment_granted_token"));
}

/// Protects: the time for which Stripe remembers the key runs from the call, not from when a payer
/// who was held up by an outage of ours first came.
#[tokio::test]
async fn the_keys_life_begins_with_the_attempt() {
    let script = Script::start(|method, path| match (method, path) {
        ("POST", _) => (503, Value::Null),
        (_, path) if path.contains("/search") => found(&[]),
        _ => (200, json!({ "id": "spt_1", "deactivated_reason": null })),
    })
    .await;
    let counter = Counter::at(&script.url);
    let presented = seconds_from_now(-30 * HOUR);
    for lapses in [72 * HOUR, -2 * HOUR] {
        let order = counter.order_at(lapses, &presented).await;
        let before = script.asked("POST", "/payment_intents");
        assert_eq!(counter.settle(&order).await, Outcome::Unknown);
        assert!(script.asked("POST", "/payment_intents") > before);
        assert_eq!(counter.lookup(&order).await, Outcome::Unknown, "{lapses}");
    }
}

/// Protects: a second settle by a process that found the order long after; the key is forgotten.
#[tokio::test]
async fn nothing_is_sent_under_a_key_that_may_be_forgotten() {
    let script = Script::start(|_, path| match path {
        path if path.contains("/search") => found(&[intent("pi_1", "succeeded")]),
        _ => (200, intent("pi_1", "succeeded")),
    })
    .await;
    let counter = Counter::at(&script.url);
    let old = aged(&counter.order(72 * HOUR).await, 30 * HOUR);
    assert_eq!(settled(counter.settle(&old).await), "pi_1");
    assert_eq!(script.asked("POST", "/payment_intents"), 0);
}

/// The order as it is read so many seconds later.
fn aged(order: &StoredOrder, seconds: i64) -> StoredOrder {
    crate::support::change(order, |order| {
        for time in ["created", "expires"] {
            order[time] = (order[time].as_i64().unwrap() - seconds).into();
        }
    })
}
