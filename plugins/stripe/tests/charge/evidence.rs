//! What counts as evidence: nothing but the answer to the call itself, and what a PaymentIntent
//! says of itself once no call can be under way.

use farebox_core::{Outcome, StoredOrder};
use farebox_sandbox_stripe::Fault;
use farebox_wire::Problem;
use serde_json::{Value, json};

use crate::{
    script::{Script, error, found, in_use, intent},
    support::{Counter, Shop, declined, seconds_from_now, settled},
};

const HOUR: i64 = 3600;

/// Protects: a first call that is still under way, whose PaymentIntent is indexed as it was created.
#[tokio::test]
async fn the_index_declines_nothing() {
    for indexed in ["requires_payment_method", "canceled", "requires_action"] {
        for (now, paid) in [("succeeded", true), (indexed, false)] {
            let script = Script::start(move |method, path| match (method, path) {
                ("POST", _) => in_use(),
                (_, path) if path.contains("/search") => found(&[intent("pi_1", indexed)]),
                _ => (200, intent("pi_1", now)),
            })
            .await;
            let counter = Counter::at(&script.url);
            let outcome = counter.lookup(&counter.order(300).await).await;
            if paid {
                assert_eq!(settled(outcome), "pi_1", "{indexed}");
            } else {
                assert_eq!(outcome, Outcome::Unknown, "{indexed}");
            }
            assert_eq!(script.asked("POST", "/cancel"), 0, "{indexed}");
        }
    }
}

/// Protects: when no call can be under way any more, how the PaymentIntent stands is final, and an
/// open one is ended first.
#[tokio::test]
async fn what_is_found_in_the_end_decides_as_it_stands() {
    for (indexed, now, cancels) in [
        ("processing", "canceled", 0),
        ("succeeded", "requires_payment_method", 0),
        ("requires_confirmation", "requires_confirmation", 1),
    ] {
        let script = Script::start(move |_, path| match path {
            path if path.contains("/search") => found(&[intent("pi_1", indexed)]),
            path if path.ends_with("/cancel") => (200, intent("pi_1", "canceled")),
            _ => (200, intent("pi_1", now)),
        })
        .await;
        let counter = Counter::at(&script.url);
        let old = aged(&counter.order(300).await, 3 * HOUR);
        declined(counter.lookup(&old).await);
        assert_eq!(script.asked("POST", "/cancel"), cancels, "{now}");
        assert_eq!(script.asked("POST", "/payment_intents"), 0, "{now}");
    }
}

/// Protects: of several PaymentIntents of a challenge, one that failed does not speak for the rest.
#[tokio::test]
async fn every_find_is_read() {
    for (second, paid) in [("succeeded", true), ("processing", false)] {
        let script = Script::start(move |_, path| match path {
            path if path.contains("/search") => {
                let both = ["pi_1", "pi_2"].map(|id| intent(id, "canceled"));
                found(&both)
            }
            path if path.contains("pi_2") => (200, intent("pi_2", second)),
            _ => (200, intent("pi_1", "canceled")),
        })
        .await;
        let counter = Counter::at(&script.url);
        let outcome = counter
            .lookup(&aged(&counter.order(300).await, 3 * HOUR))
            .await;
        if paid {
            assert_eq!(settled(outcome), "pi_2");
        } else {
            assert_eq!(outcome, Outcome::Unknown);
        }
    }
}

/// Protects: money that moved before a crash, when the next build sends other parameters.
#[tokio::test]
async fn a_repeated_call_that_is_refused_tells_nothing_of_the_first() {
    let shop = Shop::open().await;
    shop.sandbox.fault(Fault::DropAfterCommit);
    let attempt = shop.attempt("pm_card_visa").await;
    assert_eq!(attempt.settle().await, Outcome::Unknown);
    let reference = shop.sandbox.charged()[0].id.clone();
    let changed = attempt.changed(|order| order["metadata"]["build"] = json!("2"));
    assert_eq!(settled(changed.lookup().await), reference);
    assert_eq!(shop.sandbox.total("usd"), 50);
}

/// The same for everything that Stripe can say against a call before it looks at the key, and the
/// end of it: without a find, only the token tells, when no call can be under way.
#[tokio::test]
async fn refusals_of_a_repeated_call_are_not_declines() {
    for (status, refusal) in [
        (400, json!({ "type": "idempotency_error" })),
        (
            400,
            json!({ "type": "invalid_request_error", "code": "parameter_unknown", "param": "spt" }),
        ),
        (
            400,
            json!({ "type": "invalid_request_error", "param": "shared_payment_granted_token" }),
        ),
        (404, json!({ "type": "invalid_request_error" })),
        (402, json!({ "type": "invalid_request_error" })),
    ] {
        for hit in [true, false] {
            let text = refusal.to_string();
            let refusal = refusal.clone();
            let script = Script::start(move |method, path| match (method, path) {
                ("POST", _) => error(status, refusal.clone()),
                (_, path) if path.contains("/search") && hit => {
                    found(&[intent("pi_1", "processing")])
                }
                (_, path) if path.contains("/search") => found(&[]),
                (_, path) if path.contains("granted_tokens") => (200, token(&Value::Null, 0)),
                _ => (200, intent("pi_1", "succeeded")),
            })
            .await;
            let counter = Counter::at(&script.url);
            let order = counter.order(300).await;
            if hit {
                assert_eq!(settled(counter.lookup(&order).await), "pi_1", "{text}");
                continue;
            }
            assert_eq!(counter.lookup(&order).await, Outcome::Unknown, "{text}");
            let rejection = declined(counter.lookup(&aged(&order, 3 * HOUR)).await);
            assert_eq!(rejection.problem, Problem::PaymentExpired, "{text}");
        }
    }
}

/// Protects: the first call under a key that another set of parameters has used decides nothing.
#[tokio::test]
async fn a_key_used_otherwise_is_not_a_decline() {
    let script = Script::start(|_, _| error(400, json!({ "type": "idempotency_error" }))).await;
    let counter = Counter::at(&script.url);
    let order = counter.order(300).await;
    assert_eq!(counter.settle(&order).await, Outcome::Unknown);
}

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
        _ => (200, token(&Value::Null, 0)),
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

/// Protects: a PaymentIntent that an error shows, and that could still be paid.
#[tokio::test]
async fn an_error_does_not_outweigh_its_intent() {
    for (status, cancels, expected) in [
        ("requires_action", 1, "declined"),
        ("requires_confirmation", 1, "declined"),
        ("requires_payment_method", 0, "declined"),
        ("canceled", 0, "declined"),
        ("succeeded", 0, "settled"),
        ("processing", 0, "unknown"),
        ("of_tomorrow", 0, "unknown"),
    ] {
        let script = Script::start(move |_, path| {
            if path.ends_with("/cancel") {
                return (200, intent("pi_1", "canceled"));
            }
            let shown = intent("pi_1", status);
            let refusal =
                json!({ "type": "card_error", "code": "expired_card", "payment_intent": shown });
            error(402, refusal)
        })
        .await;
        let counter = Counter::at(&script.url);
        let outcome = counter.settle(&counter.order(300).await).await;
        let seen = match &outcome {
            Outcome::Declined(_) => "declined",
            Outcome::Settled { .. } => "settled",
            Outcome::Unknown => "unknown",
        };
        assert_eq!(seen, expected, "{status}");
        assert_eq!(script.asked("POST", "/cancel"), cancels, "{status}");
    }
}

/// Protects: a broken Stripe that shows a PaymentIntent it may still be working on.
#[tokio::test]
async fn an_outage_declines_nothing() {
    for (status, shown) in [
        (409, "requires_action"),
        (429, "requires_payment_method"),
        (500, "canceled"),
        (503, "processing"),
    ] {
        let script = Script::start(move |method, path| {
            if method == "GET" && path.contains("/search") {
                return found(&[]);
            }
            let shown = intent("pi_1", shown);
            error(
                status,
                json!({ "type": "api_error", "payment_intent": shown }),
            )
        })
        .await;
        let counter = Counter::at(&script.url);
        let order = counter.order(300).await;
        assert_eq!(counter.settle(&order).await, Outcome::Unknown, "{status}");
        assert_eq!(counter.lookup(&order).await, Outcome::Unknown, "{status}");
        assert_eq!(script.asked("POST", "/cancel"), 0, "{status}");
    }
}

/// Protects: a token whose use cannot be read, or of which something was captured, is not unused.
#[tokio::test]
async fn only_a_token_that_says_so_is_unused() {
    for (token, unused) in [
        (token(&Value::Null, 0), true),
        (token(&"expired".into(), 0), true),
        (token(&"revoked".into(), 0), true),
        (token(&"consumed".into(), 0), false),
        (token(&"of_tomorrow".into(), 0), false),
        // Its limit was higher than the price, so that the charge did not consume it.
        (token(&Value::Null, 50), false),
        (token(&"expired".into(), 50), false),
        (json!({ "deactivated_reason": null }), false),
        (json!({}), false),
    ] {
        let text = token.to_string();
        let script = Script::start(move |_, path| match path {
            path if path.contains("/search") => found(&[]),
            _ => (200, token.clone()),
        })
        .await;
        let counter = Counter::at(&script.url);
        let outcome = counter
            .lookup(&aged(&counter.order(300).await, 3 * HOUR))
            .await;
        assert_eq!(matches!(outcome, Outcome::Declined(_)), unused, "{text}");
    }
}

fn token(deactivated_reason: &Value, captured: u64) -> Value {
    json!({
        "id": "spt_1",
        "deactivated_reason": deactivated_reason,
        "usage_details": { "amount_captured": { "currency": "usd", "value": captured } },
    })
}

/// The order as it is read so many seconds later.
fn aged(order: &StoredOrder, seconds: i64) -> StoredOrder {
    crate::support::change(order, |order| {
        for time in ["created", "expires"] {
            order[time] = (order[time].as_i64().unwrap() - seconds).into();
        }
    })
}
