//! `farebox refund`: money goes back once, and never more than came in.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use farebox::engine::EFFECTS;
use farebox_sandbox_stripe::Fault;
use serde_json::{Value, json};
use tokio::{sync::Semaphore, task::JoinSet};

use super::{Seen, Shop, unhurried};
use crate::common::{PATIENCE, timing};

/// A shop that has sold once for 0.50 usd, and what the sale is called.
async fn sold(timing: Value, change: impl FnOnce(&mut Value)) -> (Shop, String) {
    let shop = Shop::timed(timing, change).await;
    let deadline = Instant::now() + PATIENCE;
    let mut seen = shop.buy().await;
    // Where callers wait a moment only, a slow machine takes longer.
    while let Seen::Unknown(payment) = seen {
        assert!(Instant::now() < deadline, "it is not sold");
        seen = shop.present(payment).await;
    }
    assert!(matches!(seen, Seen::Served), "{seen:?}");
    let reference = shop.sandbox().charged()[0].id.clone();
    (shop, reference)
}

/// Short leases, and nobody but the command looks after what died.
fn hasty() -> Value {
    let mut timing = timing();
    timing["reconcile"] = "1h".into();
    timing
}

/// Exit code, and what it printed where it printed JSON.
fn refund(shop: &Shop, reference: &str, more: &[&str]) -> (Option<i32>, Value, String) {
    dying(shop, reference, more, "")
}

fn dying(shop: &Shop, reference: &str, more: &[&str], at: &str) -> (Option<i32>, Value, String) {
    let args = [&["refund", reference, "--json"], more].concat();
    let output = shop.command(&args, at);
    let said = String::from_utf8(output.stderr).unwrap();
    let line = serde_json::from_slice(&output.stdout).unwrap_or_default();
    (output.status.code(), line, said)
}

/// What went back, by the sandbox's account.
fn returned(shop: &Shop) -> Vec<u64> {
    let refunds = shop.sandbox().refunded();
    refunds.iter().map(|refund| refund.amount).collect()
}

/// Protects: parts add up to the charge at most, the same call twice is one refund, and the books
/// say what is left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parts_and_the_rest_go_back_once_each() {
    let (shop, paid) = sold(unhurried(), |_| {}).await;
    let (code, first, said) = refund(&shop, &paid, &["--amount", "0.10"]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(first["payment"]["net"], "40", "{first}");
    assert!(
        first["refund"]["reference"]
            .as_str()
            .unwrap()
            .starts_with("re_")
    );
    let (code, again, _) = refund(&shop, &paid, &["--amount", "0.1"]);
    assert_eq!((code, &again["repeated"]), (Some(0), &json!(true)));
    assert_eq!(again["refund"], first["refund"]);
    assert_eq!(returned(&shop), [10]);

    // The same amount once more has to be meant.
    assert_eq!(
        refund(&shop, &paid, &["--amount", "0.10", "--key", "2"]).0,
        Some(0)
    );
    let (code, _, said) = refund(&shop, &paid, &["--amount", "0.20", "--key", "2"]);
    assert_eq!(code, Some(2), "a name is of one amount: {said}");
    let (code, _, said) = refund(&shop, &paid, &["--amount", "0.31"]);
    assert_eq!(code, Some(2));
    assert!(
        said.contains("0.31 usd") && said.contains("the 0.3 usd"),
        "{said}"
    );
    assert_eq!(refund(&shop, &paid, &[]).0, Some(0), "all that is left");
    assert_eq!(refund(&shop, &paid, &[]).1["repeated"], true);
    assert_eq!(refund(&shop, &paid, &["--amount", "0.01"]).0, Some(2));
    assert_eq!(returned(&shop), [10, 10, 30]);

    let books = shop.books();
    let (payment, refunded) = (&books[0], &books[1]["refunded"]);
    assert_eq!(
        (&payment["state"], &payment["refunded"]),
        (&json!("delivered"), &json!("50"))
    );
    assert_eq!(
        (&refunded["charged"], &refunded["net"]),
        (&json!("50"), &json!("0"))
    );
    assert_eq!(refunded["refunds"].as_array().unwrap().len(), 3);
    // Nothing of it is on the wire: what was paid for stays paid.
    assert_eq!(shop.sandbox().total("usd"), 50);
}

/// Protects: over Connect a payment has two spellings and one record of refunds, also where the policy
/// no longer names its account.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payment_of_a_connected_account_is_one_payment() {
    let direct = |config: &mut Value| {
        config["rails"]["stripe"]["connect"] = json!({ "account": "acct_seller" });
    };
    let (shop, paid) = sold(unhurried(), direct).await;
    let named = format!("acct_seller/{paid}");
    assert_eq!(refund(&shop, &paid, &["--amount", "0.20"]).0, Some(0));
    let (code, again, said) = refund(&shop, &named, &["--amount", "0.20"]);
    assert_eq!(
        (code, &again["repeated"]),
        (Some(0), &json!(true)),
        "{said}"
    );
    let (code, _, said) = refund(&shop, &named, &["--amount", "0.31"]);
    assert_eq!(code, Some(2), "{said}");
    assert_eq!(refund(&shop, &named, &[]).0, Some(0));
    assert_eq!(refund(&shop, &paid, &[]).1["repeated"], true);
    assert_eq!(returned(&shop), [20, 30]);
    let refunded = &shop.books()[1]["refunded"];
    assert_eq!(refunded["reference"], paid.as_str());
    assert_eq!(refunded["refunds"].as_array().unwrap().len(), 2);
    assert_eq!(shop.books().len(), 2);
}

/// Protects: an operator's slip moves nothing, and says what is wrong.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_refunded_is_said() {
    let (shop, paid) = sold(unhurried(), |_| {}).await;
    for (reference, more, words) in [
        ("pi_nobody", &[][..], "no rail of this server knows"),
        ("0xabc", &[], "`0xabc` is no payment of Stripe's"),
        ("cus_1/pi_1", &[], "connected account, acct_…"),
        ("ch_1", &["--rail", "stripe/charge"], "PaymentIntent, pi_…"),
        (
            paid.as_str(),
            &["--rail", "lightning/charge"],
            "lightning/charge cannot refund",
        ),
        (paid.as_str(), &["--rail", "stripe"], "no rail `stripe`"),
        (paid.as_str(), &["--amount", "0"], "the amount is nothing"),
        (paid.as_str(), &["--amount", "0.001"], "0.001"),
        (paid.as_str(), &["--amount", "-1"], ""),
    ] {
        let (code, _, said) = refund(&shop, reference, more);
        assert_eq!(code, Some(2), "{reference} {more:?}: {said}");
        assert!(said.contains(words), "{said}");
    }
    assert_eq!(returned(&shop), [0; 0]);
}

/// Protects: refunds from several terminals at once neither repeat one another nor exceed the charge.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refunds_at_once_do_not_exceed_the_charge() {
    let (shop, paid) = sold(unhurried(), |_| {}).await;
    let (shop, paid) = (Arc::new(shop), Arc::new(paid));
    let run = |more: Vec<&'static str>| {
        let (shop, paid) = (shop.clone(), paid.clone());
        tokio::spawn(async move { refund(&shop, &paid, &more).0 })
    };
    let same = ["--amount", "0.20"].to_vec();
    let others = ["a", "b", "c"].map(|key| vec!["--amount", "0.20", "--key", key]);
    let mut runs = vec![run(same.clone()), run(same)];
    runs.extend(others.map(run));
    let mut codes = Vec::new();
    for run in runs {
        codes.push(run.await.unwrap());
    }
    assert_eq!(returned(&shop), [20, 20], "{codes:?}");
    assert!(codes.contains(&Some(2)), "somebody was told: {codes:?}");
}

/// Protects: whatever Stripe answers, or does not, a refund is known in the end and given once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_goes_wrong_at_stripe_gives_nothing_back_twice() {
    use Fault::{
        Conflict, Decline, DropAfterCommit, DropBeforeCommit, ErrorAfterCommit, HangAfterCommit,
        Processing, RateLimited,
    };
    for (faults, first, last) in [
        (vec![Conflict, RateLimited], 0, 0),
        (vec![ErrorAfterCommit], 0, 0),
        (vec![HangAfterCommit], 0, 0),
        (vec![DropAfterCommit], 0, 0),
        (vec![DropBeforeCommit], 0, 0),
        (vec![DropBeforeCommit; 2], 6, 0),
        (vec![Processing], 6, 0),
        (vec![Decline("declined".to_owned())], 1, 0),
    ] {
        // Nobody waits long for an answer that never comes.
        let seconds = if faults == [HangAfterCommit] { 5 } else { 30 };
        let change = |config: &mut Value| config["rails"]["stripe"]["timeout"] = seconds.into();
        let (shop, paid) = sold(unhurried(), change).await;
        for fault in &faults {
            shop.sandbox().fault_refund(fault.clone());
        }
        let (code, _, said) = refund(&shop, &paid, &[]);
        assert_eq!(code, Some(first), "{faults:?}: {said}");
        if first == 6 {
            assert_eq!(
                shop.books()[1]["refunded"]["refunds"][0]["state"],
                "attempted"
            );
            let pending = shop.sandbox().refunded();
            let pending = pending.first().map(|refund| refund.id.clone());
            pending.map(|id| shop.sandbox().resolve_refund(&id, true));
            let output = shop.command(&["reconcile", "--json"], "");
            let found: Value = serde_json::from_slice(&output.stdout).unwrap();
            assert_eq!(found["refunds"]["done"], 1, "{faults:?}: {found}");
        }
        let (code, line, said) = refund(&shop, &paid, &[]);
        assert_eq!(code, Some(last), "{faults:?}: {said}");
        assert_eq!(line["payment"]["net"], "0", "{faults:?}: {line}");
        assert_eq!(returned(&shop), [50], "{faults:?}");
    }
}

/// Protects: dying before or after any one effect of a refund neither loses nor repeats it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refund_that_dies_is_given_once() {
    let room = Arc::new(Semaphore::new(4));
    let mut runs = JoinSet::new();
    let effects = EFFECTS.iter().filter(|effect| effect.starts_with("refund"));
    for at in effects.flat_map(|effect| ["before", "after"].map(|when| format!("{effect}.{when}")))
    {
        let room = room.clone();
        runs.spawn(async move {
            let _here = room.acquire_owned().await.unwrap();
            died(&at).await;
        });
    }
    assert_eq!(runs.len(), 12);
    while let Some(run) = runs.join_next().await {
        run.unwrap();
    }
}

async fn died(at: &str) {
    let (shop, paid) = sold(hasty(), |_| {}).await;
    if at.starts_with("refund.lookup") {
        shop.sandbox().fault_refund(Fault::DropAfterCommit);
    }
    let (code, ..) = dying(&shop, &paid, &[], &format!("{at}=1*panic"));
    assert_eq!(code, None, "{at}: it did not die");
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (code, line, said) = refund(&shop, &paid, &[]);
        if code == Some(0) {
            assert_eq!(line["payment"]["net"], "0", "{at}");
            break;
        }
        assert!(code == Some(6) && Instant::now() < deadline, "{at}: {said}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(returned(&shop), [50], "{at}");
    let reconciled = shop.command(&["reconcile", "--json"], "");
    let found: Value = serde_json::from_slice(&reconciled.stdout).unwrap();
    assert_eq!(found["refunds"]["unknown"], 0, "{at}: {found}");
}

/// Protects: a process that dies before the refund reaches Stripe, or right after it has kept the
/// payment from being collected, leaves nothing to collect: the refund goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refund_that_dies_keeps_its_payment_from_being_collected() {
    for at in ["pay.declined.before", "pay.declined.after", "refund.before"] {
        let shop = Shop::timed(hasty(), |_| {}).await;
        shop.sandbox().fault(Fault::ErrorAfterCommit);
        let deadline = Instant::now() + PATIENCE;
        let mut seen = shop.buy().await;
        let payment = loop {
            let Seen::Unknown(payment) = seen else {
                panic!("{at}: nobody can know yet")
            };
            if !shop.sandbox().charged().is_empty() {
                break payment;
            }
            // A server that is slow may give up before it has charged.
            assert!(Instant::now() < deadline, "{at}: nothing is charged");
            seen = shop.present(payment).await;
        };
        let paid = shop.sandbox().charged()[0].id.clone();
        let until = async |fail_points: &str, wanted: Option<i32>| loop {
            let (code, _, said) = dying(&shop, &paid, &[], fail_points);
            if code == wanted {
                break;
            }
            assert!(code == Some(6) && Instant::now() < deadline, "{at}: {said}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        };
        until(&format!("{at}=1*panic"), None).await;
        until("", Some(0)).await;
        assert!(matches!(shop.present(payment).await, Seen::Spent), "{at}");
        assert_eq!((returned(&shop), shop.world.served()), (vec![50], 0));
    }
}
