//! Webhooks: an unknown outcome ends when Stripe calls, and only then.

use std::time::{Duration, Instant};

use farebox_sandbox_stripe::{Fault, Sent};
use http::StatusCode;
use serde_json::{Value, json};

use super::{Seen, Shop};
use crate::common::PATIENCE;

const SECRET: &str = "whsec_of_the_test";

/// A server whose reconciler sleeps, and that Stripe calls once it is [told](listen) where.
async fn shop() -> Shop {
    Shop::with(|config| {
        config["hooks"] = json!("/hooks");
        let secrets = json!(["whsec_that_is_replaced", SECRET]);
        config["rails"]["stripe"]["webhook_secrets"] = secrets;
        config["rails"]["stripe"]["timeout"] = 5.into();
    })
    .await
}

fn url(shop: &Shop) -> String {
    format!("http://{}/hooks/stripe/charge", shop.node.address())
}

/// Waits until an event of `kind` was taken.
async fn taken(shop: &Shop, kind: &str) {
    let ended = |sent: &[Sent]| sent.iter().any(|sent| sent.kind == kind && is_taken(sent));
    until(shop, ended).await;
}

/// Waits until all events were taken: each has the server ask.
async fn all_taken(shop: &Shop) {
    until(shop, |sent| sent.iter().all(is_taken)).await;
}

fn is_taken(sent: &Sent) -> bool {
    sent.answers.last() == Some(&204)
}

async fn until(shop: &Shop, ended: impl Fn(&[Sent]) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let sent = shop.sandbox().sent();
        if ended(&sent) {
            return;
        }
        assert!(Instant::now() < deadline, "{sent:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Protects: a charge whose reply is lost, which nothing here can find (the index lags behind, the
/// key repeats a 500), is known as soon as Stripe calls, and the payer is served.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_charge_is_known_when_stripe_calls() {
    let shop = shop().await;
    shop.sandbox().fault(Fault::ErrorAfterCommit);
    let Seen::Unknown(payment) = shop.buy().await else {
        panic!("nobody can know yet")
    };
    assert_eq!(
        shop.answer(&payment).await,
        (StatusCode::SERVICE_UNAVAILABLE, false)
    );
    assert_eq!(shop.books()[0]["state"], "attempted");
    shop.sandbox().notify(Some((&url(&shop), SECRET)));
    taken(&shop, "payment_intent.succeeded").await;
    assert_eq!(shop.books()[0]["state"], "paid", "before anybody asks");
    assert!(matches!(shop.present(payment).await, Seen::Served));
    assert_eq!(
        (shop.sandbox().charged().len(), shop.world.served()),
        (1, 1)
    );
}

/// The same for what takes long and then fails: no money moved, and the payer is told so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_charge_that_fails_late_is_known_when_stripe_calls() {
    let shop = shop().await;
    shop.sandbox().notify(Some((&url(&shop), SECRET)));
    shop.sandbox().fault(Fault::Processing);
    let Seen::Unknown(payment) = shop.buy().await else {
        panic!("nobody can know yet")
    };
    let intents = shop.sandbox().requests();
    let read = intents
        .iter()
        .find(|r| r.path.starts_with("/v1/payment_intents/pi_"));
    let id = read.unwrap().path.rsplit('/').next().unwrap().to_owned();
    assert!(shop.sandbox().resolve(&id, false));
    taken(&shop, "payment_intent.payment_failed").await;
    assert_eq!(shop.books()[0]["state"], "declined");
    assert!(matches!(shop.present(payment).await, Seen::Refused(..)));
    assert_eq!(
        (shop.sandbox().charged().len(), shop.world.served()),
        (0, 0)
    );
}

/// Protects: a refund that is pending ends when Stripe says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refund_is_known_when_stripe_calls() {
    let shop = shop().await;
    shop.sandbox().notify(Some((&url(&shop), SECRET)));
    assert!(matches!(shop.buy().await, Seen::Served));
    taken(&shop, "payment_intent.succeeded").await;
    shop.sandbox().fault_refund(Fault::Processing);
    let paid = shop.sandbox().charged()[0].id.clone();
    assert_eq!(shop.command(&["refund", &paid], "").status.code(), Some(6));
    let id = shop.sandbox().refunded()[0].id.clone();
    assert!(shop.sandbox().resolve_refund(&id, true));
    taken(&shop, "refund.updated").await;
    assert_eq!(shop.books()[1]["refunded"]["refunds"][0]["state"], "done");
}

/// Protects: what was paid, not served and then given back in full is not served for: its payer hears
/// that it is spent, and a part of it leaves it to be collected.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_refunded_is_not_collected() {
    let shop = shop().await;
    shop.sandbox().fault(Fault::ErrorAfterCommit);
    let Seen::Unknown(payment) = shop.buy().await else {
        panic!("nobody can know yet")
    };
    let id = shop.sandbox().charged()[0].id.clone();
    shop.sandbox().notify(Some((&url(&shop), SECRET)));
    taken(&shop, "payment_intent.succeeded").await;
    assert_eq!(shop.books()[0]["state"], "paid");
    shop.sandbox()
        .fault_refund(Fault::Decline("declined".to_owned()));
    assert_eq!(shop.command(&["refund", &id], "").status.code(), Some(1));
    assert_eq!(shop.books()[0]["state"], "paid", "it was refused");
    let part = ["refund", &id, "--amount", "0.10"];
    assert_eq!(shop.command(&part, "").status.code(), Some(0));
    assert_eq!(shop.books()[0]["state"], "paid", "a part");
    assert_eq!(shop.command(&["refund", &id], "").status.code(), Some(0));
    assert_eq!(shop.books()[0]["state"], "returned");
    assert!(matches!(shop.present(payment).await, Seen::Spent));
    assert_eq!(shop.world.served(), 0);
    let returned: u64 = shop.sandbox().refunded().iter().map(|r| r.amount).sum();
    assert_eq!(returned, 50);
}

/// Protects: what was paid, not served, and given back in full in Stripe's dashboard is not served for
/// once Stripe has called; and is again if the bank sends that money back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_dashboard_gave_back_is_not_collected() {
    for comes_back in [false, true] {
        let shop = shop().await;
        shop.sandbox().fault(Fault::ErrorAfterCommit);
        let Seen::Unknown(payment) = shop.buy().await else {
            panic!("nobody can know yet")
        };
        let id = shop.sandbox().charged()[0].id.clone();
        shop.sandbox().notify(Some((&url(&shop), SECRET)));
        taken(&shop, "payment_intent.succeeded").await;
        assert_eq!(shop.books()[0]["state"], "paid");
        let refund = shop.sandbox().refund_by_hand(&id, None).unwrap();
        taken(&shop, "charge.refunded").await;
        all_taken(&shop).await;
        let books = shop.books();
        assert_eq!(books[0]["state"], "returned");
        assert_eq!(books[1]["refunded"]["net"], "0");
        if comes_back {
            assert!(shop.sandbox().resolve_refund(&refund, false));
            taken(&shop, "refund.updated").await;
            assert!(matches!(shop.present(payment).await, Seen::Served));
            assert_eq!(shop.world.served(), 1);
        } else {
            let asked = shop.sandbox().requests().len();
            assert!(matches!(shop.present(payment).await, Seen::Spent));
            assert_eq!(shop.sandbox().requests().len(), asked, "no call to collect");
            assert_eq!(shop.world.served(), 0);
        }
    }
}

/// Protects: a refund that comes while the charge is still unknown here looks it up first, and then
/// keeps it from being served for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refunded_before_it_is_known_is_not_collected() {
    let shop = shop().await;
    shop.sandbox().fault(Fault::ErrorAfterCommit);
    let Seen::Unknown(payment) = shop.buy().await else {
        panic!("nobody can know yet")
    };
    assert_eq!(shop.books()[0]["state"], "attempted");
    let id = shop.sandbox().charged()[0].id.clone();
    assert_eq!(shop.command(&["refund", &id], "").status.code(), Some(0));
    assert_eq!(shop.books()[0]["state"], "returned");
    assert!(matches!(shop.present(payment).await, Seen::Spent));
    assert_eq!(shop.world.served(), 0);
}

/// Protects: a refund that succeeded and failed weeks later (a bank sent it back) is not counted as
/// given back, whether Stripe calls or the operator asks again, and can be given again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refund_that_fails_later_can_be_given_again() {
    for calls in [true, false] {
        let shop = shop().await;
        assert!(matches!(shop.buy().await, Seen::Served));
        let paid = shop.sandbox().charged()[0].id.clone();
        let refund = || shop.command(&["refund", &paid, "--json"], "");
        assert_eq!(refund().status.code(), Some(0));
        let failed = shop.sandbox().refunded()[0].id.clone();
        if calls {
            shop.sandbox().notify(Some((&url(&shop), SECRET)));
            taken(&shop, "refund.created").await;
        }
        assert!(shop.sandbox().resolve_refund(&failed, false));
        if calls {
            taken(&shop, "refund.updated").await;
            let refunded = &shop.books()[1]["refunded"];
            assert_eq!(refunded["refunds"][0]["state"], "refused", "{refunded}");
            assert_eq!(refunded["net"], "50");
        }
        let output = refund();
        let line: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(0), "{line}");
        assert_eq!(line["repeated"], false, "{line}");
        assert_ne!(line["refund"]["reference"], failed.as_str());
        assert_eq!(line["payment"]["refunded"], "50");
        assert_eq!(refund().status.code(), Some(0), "once");
        assert_eq!(shop.sandbox().refunded().len(), 1, "without the failed one");
    }
}

/// Protects: what nobody signed, or what is old, has no effect and costs no call to Stripe; a call
/// about somebody else's payment is taken and does nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forged_calls_have_no_effect() {
    let shop = shop().await;
    shop.sandbox().fault(Fault::ErrorAfterCommit);
    let Seen::Unknown(payment) = shop.buy().await else {
        panic!("nobody can know yet")
    };
    let challenge = &payment.credential().challenge.id;
    let charged = shop.sandbox().charged()[0].id.clone();
    let event = |challenge: &str| {
        let object = json!({ "id": charged, "metadata": { "mpp_challenge_id": challenge } });
        json!({ "type": "payment_intent.succeeded", "data": { "object": object } }).to_string()
    };
    let body = event(challenge);
    let client = reqwest::Client::new();
    let call = async |url: String, signature: Option<String>, body: String| {
        let mut call = client.post(url).body(body);
        if let Some(signature) = signature {
            call = call.header("stripe-signature", signature);
        }
        call.send().await.unwrap().status().as_u16()
    };
    let sign = |secret: &str, body: &str| Some(shop.sandbox().signature(secret, body));
    let before = shop.sandbox().requests().len();
    let at = url(&shop);
    for (signature, body) in [
        (None, body.clone()),
        (Some("t=1,v1=00".to_owned()), body.clone()),
        (sign("whsec_other", &body), body.clone()),
        (sign(SECRET, &event("another")), body.clone()),
        (sign(SECRET, "no event"), "no event".to_owned()),
    ] {
        assert_eq!(call(at.clone(), signature, body).await, 400);
    }
    shop.sandbox().advance_clock(Duration::from_secs(600));
    let ahead = sign(SECRET, &body);
    assert_eq!(call(at.clone(), ahead, body.clone()).await, 400);
    assert_eq!(
        shop.sandbox().requests().len(),
        before,
        "nothing was looked up"
    );
    assert_eq!(shop.books()[0]["state"], "attempted");

    let elsewhere = at.replace("stripe/charge", "tempo/charge");
    assert_eq!(call(elsewhere, None, body.clone()).await, 404);
    let large = "x".repeat(300 * 1024);
    assert_eq!(call(at.clone(), None, large).await, 413);
    let get = client.get(&at).send().await.unwrap();
    assert_eq!(get.status(), StatusCode::METHOD_NOT_ALLOWED);
    let state = |line: &Value| line["state"].clone();
    assert_eq!(
        shop.books().iter().map(state).collect::<Vec<_>>(),
        ["attempted"]
    );
}
