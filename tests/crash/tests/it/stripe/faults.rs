//! Everything Stripe can answer, or not answer, to a charge.

use std::{sync::Arc, time::Duration};

use farebox_sandbox_stripe::Fault;
use serde_json::{Value, json};
use tokio::{sync::Semaphore, task::JoinSet};

use super::{LAG, Seen, Shop};

/// What ends an unknown outcome.
#[derive(Clone, Copy, Debug)]
enum Cure {
    /// Asking again.
    Ask,
    /// The search index catches up.
    Index,
    /// So much time that no call can be under way any more.
    Age,
}

/// What is to be seen.
#[derive(Clone, Copy, Debug)]
enum Then {
    Served,
    /// The problem's type, and words of its advice.
    Refused(&'static str, &'static str),
    /// 503 without a challenge; and what ends it, after which this is to be seen.
    Unknown(Cure, Last),
}

#[derive(Clone, Copy, Debug)]
enum Last {
    Served,
    Refused(&'static str, &'static str),
}

type Row = (&'static str, Vec<Fault>, Then);

fn matrix() -> Vec<Row> {
    use Fault::{
        Conflict, Decline, DropAfterCommit, DropBeforeCommit, ErrorAfterCommit, ErrorBeforeCommit,
        HangAfterCommit, RateLimited, RequiresAction, Slow,
    };
    let decline = |code: &str| vec![Decline(code.to_owned())];
    let action = (
        "payment-action-required",
        "use a payment method that needs no further step",
    );
    let paid_later = Then::Unknown(Cure::Ask, Last::Served);
    let never_paid = Last::Refused("payment-expired", "was not charged");
    vec![
        (
            "decline",
            decline("insufficient_funds"),
            Then::Refused("verification-failed", "there are not enough funds"),
        ),
        (
            "decline of a stolen card",
            decline("stolen_card"),
            Then::Refused("verification-failed", "the issuer declined; use another"),
        ),
        (
            "requires_action",
            vec![RequiresAction],
            Then::Refused(action.0, action.1),
        ),
        ("409 once", vec![Conflict], Then::Served),
        ("409 again and again", vec![Conflict; 6], paid_later),
        (
            "409 in flight",
            vec![Slow(Duration::from_secs(20))],
            paid_later,
        ),
        ("429 once", vec![RateLimited], Then::Served),
        ("429 again and again", vec![RateLimited; 6], paid_later),
        (
            "500 before commit",
            vec![ErrorBeforeCommit],
            Then::Unknown(Cure::Age, never_paid),
        ),
        (
            "500 after commit",
            vec![ErrorAfterCommit],
            Then::Unknown(Cure::Index, Last::Served),
        ),
        (
            "timeout after commit",
            vec![HangAfterCommit, DropBeforeCommit],
            paid_later,
        ),
        ("cut after commit", vec![DropAfterCommit], Then::Served),
        (
            "cut after commit, and once more",
            vec![DropAfterCommit, DropBeforeCommit],
            paid_later,
        ),
        ("cut before commit", vec![DropBeforeCommit], Then::Served),
        (
            "cut before commit, and once more",
            vec![DropBeforeCommit; 2],
            paid_later,
        ),
    ]
}

/// Protects: money moved = served for everything that can go wrong; the client knows what happened,
/// and is asked for no new payment while nobody knows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_goes_wrong_at_stripe_neither_charges_nor_serves_twice() {
    let room = Arc::new(Semaphore::new(4));
    let mut rows = JoinSet::new();
    for (name, faults, then) in matrix() {
        let room = room.clone();
        rows.spawn(async move {
            let _here = room.acquire_owned().await.unwrap();
            println!("{name}");
            row(name, faults, then).await;
        });
    }
    let mut failed = 0;
    while let Some(row) = rows.join_next().await {
        failed += usize::from(row.is_err());
    }
    assert_eq!(failed, 0, "rows of the matrix that failed");
}

async fn row(name: &str, faults: Vec<Fault>, then: Then) {
    // Nobody waits long for an answer that never comes; where one does, the machine may be busy.
    let hurried = |fault: &Fault| matches!(fault, Fault::HangAfterCommit | Fault::Slow(_));
    let timeout = if faults.iter().any(hurried) { 5 } else { 30 };
    let shop = Shop::with(|config| config["rails"]["stripe"]["timeout"] = timeout.into()).await;
    for fault in faults {
        shop.sandbox().fault(fault);
    }
    let seen = shop.buy().await;
    match (then, seen) {
        (Then::Served, Seen::Served) => balanced(name, &shop, 1),
        (Then::Refused(problem, advice), Seen::Refused(kind, detail)) => {
            assert!(kind.ends_with(problem), "{name}: {kind}");
            assert!(detail.contains(advice), "{name}: {detail}");
            balanced(name, &shop, 0);
        }
        (Then::Unknown(cure, last), Seen::Unknown(payment)) => {
            // Another look that is lost as well: still no word of paying again.
            shop.sandbox().fault(Fault::DropBeforeCommit);
            let (status, challenged) = shop.answer(&payment).await;
            assert_eq!((status.as_u16(), challenged), (503, false), "{name}");
            assert_eq!(shop.books()[0]["state"], "attempted", "{name}");
            match cure {
                Cure::Ask => {}
                Cure::Index => shop.sandbox().advance_clock(LAG),
                Cure::Age => two_hours_later(&shop).await,
            }
            shop.reconcile(name).await;
            match (last, shop.present(payment).await) {
                (Last::Served, Seen::Served) => balanced(name, &shop, 1),
                (Last::Refused(problem, advice), Seen::Refused(kind, detail)) => {
                    assert!(kind.ends_with(problem), "{name}: {kind}");
                    assert!(detail.contains(advice), "{name}: {detail}");
                    balanced(name, &shop, 0);
                }
                (_, seen) => panic!("{name}: in the end {seen:?}"),
            }
        }
        (_, seen) => panic!("{name}: at first {seen:?}"),
    }
}

/// As much money moved as was served for, by everybody's account.
fn balanced(name: &str, shop: &Shop, times: usize) {
    assert_eq!(shop.sandbox().charged().len(), times, "{name}: charged");
    assert_eq!(shop.world.served(), times, "{name}: served");
    let books = shop.books();
    assert_eq!(books.len(), 1, "{name}");
    let state = ["declined", "delivered"][times];
    assert_eq!(books[0]["state"], state, "{name}");
}

/// Stripe's periods run by the system's clock, so it is the order that gets older.
async fn two_hours_later(shop: &Shop) {
    let store = shop.store().await;
    let [(key, text)] = store.scan("pay:").await.unwrap().try_into().unwrap();
    let mut record: Value = serde_json::from_str(&text).unwrap();
    let mut order: Value = serde_json::from_str(record["order"].as_str().unwrap()).unwrap();
    for time in ["created", "expires"] {
        order[time] = (order[time].as_i64().unwrap() - 7_200).into();
    }
    record["order"] = order.to_string().into();
    let next = record.to_string();
    let swapped = store.compare_and_swap(&key, Some(&text), Some(&next), None);
    assert!(swapped.await.unwrap());
}

/// Protects: a price that Stripe would refuse costs its offer its place, and not the server its start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_offer_below_the_minimum_is_left_out() {
    let shop = Shop::with(|config| {
        let routes = config["routes"].as_array_mut().unwrap();
        let route = routes.iter_mut().find(|route| route["path"] == "/stripe");
        route.unwrap()["offers"] = json!([
            { "rail": "stripe/charge", "amount": "0.49", "currency": "usd" },
            { "rail": "proof/charge", "amount": "0" },
        ]);
    })
    .await;
    let challenges = shop.challenges().await;
    let methods: Vec<&str> = challenges.iter().map(|c| c.method.as_str()).collect();
    assert_eq!(methods, ["tempo"], "the proof's, and no other");
    let log = std::fs::read_to_string(shop.node.log()).unwrap();
    let warning = "an offer is not made: 0.49 usd is below Stripe's smallest charge";
    assert!(log.contains(warning), "{log}");
}
