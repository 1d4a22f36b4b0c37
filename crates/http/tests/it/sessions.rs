//! Sessions over plain HTTP: what is asked for, what is only presented, and what each costs.

use std::sync::{Arc, atomic::Ordering::SeqCst};

use axum::{Router, routing::get};
use farebox_core::{ChannelId, Offer, Session, SessionTerms, Typed, compose};
use farebox_engine::Clock;
use farebox_http::{ChallengeLimit, Metered, PaymentLayer};
use serde_json::json;
use tokio::sync::Mutex;

use crate::{
    booth::{Booth, credential, open, top_up, voucher},
    support::{Answer, engine, serve},
    tills::Chits,
};

/// Protects: a request costs a unit, a voucher pays for more, and the receipt says how it stands.
#[tokio::test]
async fn a_request_costs_a_unit() {
    let booth = Booth::chits().await;
    let first = booth.get("/plain", open("a", 10, 4)).await;
    assert_eq!((first.status, first.body.as_str()), (200, "plain "));
    let receipt = first.receipt();
    assert_eq!(receipt.extra["spent"], "2");
    assert_eq!(receipt.extra["acceptedCumulative"], "4");
    assert_eq!(first.header("payment-session"), "a");
    assert_eq!(first.header("cache-control"), "private");
    // The same voucher pays for the second unit that it covers.
    let second = booth.get("/plain", voucher("a", 4)).await;
    assert_eq!(second.receipt().extra["spent"], "4");
    let used = booth.challenge("/plain").await;
    let request = booth.client.get(booth.url("/plain"));
    let paid = credential(&used, voucher("a", 4));
    let third = Answer::of(request.header("authorization", paid)).await;
    assert_eq!(
        (third.status, third.kind().as_str()),
        (402, "session/insufficient-balance")
    );
    assert_ne!(third.challenges()[0].id, used.id, "a fresh one");
    let problem: serde_json::Value = serde_json::from_str(&third.body).unwrap();
    assert_eq!(problem["requiredTopUp"], "2", "{problem}");
    assert_eq!(
        booth.behind.calls.load(SeqCst),
        2,
        "the handler is not asked for what is not covered"
    );
    assert_eq!(booth.get("/plain", voucher("a", 6)).await.status, 200);
    assert_eq!(booth.spent("a").await, 6);
}

/// Protects: who is not served does not pay, and may ask again.
#[tokio::test]
async fn what_fails_is_given_back() {
    let booth = Booth::chits().await;
    for status in [500, 404] {
        booth.behind.status.store(status, SeqCst);
        let act = match status {
            500 => open("a", 10, 2),
            _ => voucher("a", 2),
        };
        assert_eq!(booth.get("/plain", act).await.status, status);
        let state = booth.state("a").await;
        assert_eq!((state.spent.get(), state.held.get()), (0, 0));
    }
    booth.behind.status.store(303, SeqCst);
    assert_eq!(
        booth
            .client
            .get(booth.url("/plain"))
            .header(
                "authorization",
                booth.credential("/plain", voucher("a", 2)).await
            )
            .send()
            .await
            .unwrap()
            .status(),
        303
    );
    assert_eq!(booth.spent("a").await, 2, "a redirect is service");
}

/// Protects: a payer whose balance a stream holds elsewhere is told to come back, and not to pay.
#[tokio::test]
async fn a_balance_that_streams_hold_is_not_asked_for_again() {
    let booth = Booth::chits().await;
    booth.manage("/plain", open("a", 10, 10)).await;
    // A process that hears nothing of this one.
    let other = engine("booth.example", booth.store.clone(), Clock::system());
    let mut stream = other.meter(ChannelId::of("chit", "a")).tap().unwrap();
    stream.charge(1).await.unwrap();
    for path in ["/plain", "/pages/1", "/stream"] {
        let busy = booth.get(path, voucher("a", 10)).await;
        assert_eq!(
            (busy.status, busy.kind().as_str()),
            (503, "session/balance-held"),
            "{path}"
        );
        let seconds: u64 = busy.header("retry-after").parse().unwrap();
        assert!((1..=10).contains(&seconds), "{path}: {seconds}");
        assert!(busy.challenges().is_empty(), "{path}");
    }
    assert_eq!(booth.behind.calls.load(SeqCst), 0);
    stream.finish().await.unwrap();
    assert_eq!(booth.get("/plain", voucher("a", 10)).await.status, 200);
}

/// Protects: who was charged already is not told that nothing was spent.
#[tokio::test]
async fn a_request_that_was_charged_for_is_not_said_to_be_free() {
    let booth = Booth::chits().await;
    let other = engine("booth.example", booth.store.clone(), Clock::system());
    let stream = Arc::new(Mutex::new(
        other.meter(ChannelId::of("chit", "a")).tap().unwrap(),
    ));
    let takes = stream.clone();
    let twice = async move |session: Metered| {
        session.debit(1).await?;
        takes.lock().await.charge(1).await.unwrap();
        session.debit(1).await.map(|()| "twice")
    };
    let terms = SessionTerms {
        amount: "2".into(),
        unit: "piece".into(),
        ..Default::default()
    };
    let method = Arc::new(Typed::<_, Session>::named(Chits, "chit/twice"));
    let offers = compose([Offer::new::<Session>(method, terms).unwrap()]).unwrap();
    let gate = booth.engine.gate("GET /twice", offers).unwrap();
    let route = get(twice).layer(PaymentLayer::new(gate));
    let url = format!(
        "http://{}/twice",
        serve(Router::new().route("/twice", route)).await
    );
    let challenge = Answer::of(booth.client.get(&url))
        .await
        .challenges()
        .remove(0);
    let credential = credential(&challenge, open("a", 10, 10));
    let answer = Answer::of(booth.client.get(&url).header("authorization", credential)).await;
    assert_eq!(
        (answer.status, answer.kind().as_str()),
        (503, "about:blank")
    );
    drop(stream);
    assert!(booth.spent("a").await >= 2);
}

/// Protects: a `POST` without a body only presents; it costs nothing, and no handler sees it,
/// whatever its headers say.
#[tokio::test]
async fn management_needs_no_handler() {
    let booth = Booth::purses().await;
    let opened = booth.manage("/stream", open("a", 10, 0)).await;
    assert_eq!((opened.status, opened.body.as_str()), (204, ""));
    assert_eq!(opened.receipt().reference, "a");
    let credential = booth.credential("/stream", top_up("a", 5)).await;
    let request = booth
        .client
        .post(booth.url("/stream"))
        .header("authorization", &credential);
    let topped = Answer::of(request.header("content-type", "application/json")).await;
    assert_eq!(
        (topped.status, topped.body.as_str()),
        (200, r#"{"status":"ok"}"#)
    );
    assert_eq!(topped.header("content-type"), "application/json");
    assert_eq!(booth.state("a").await.deposit.get(), 15);
    let closed = booth
        .manage("/stream", json!({"action": "close", "channel": "a"}))
        .await;
    assert_eq!(closed.status, 204);
    assert!(booth.state("a").await.closed);
    let late = booth
        .manage("/stream", json!({"action": "bearer", "channel": "a"}))
        .await;
    assert_eq!(
        (late.status, late.kind().as_str()),
        (410, "session/channel-finalized")
    );
    assert_eq!(booth.behind.calls.load(SeqCst), 0);
}

/// Protects: `HEAD` presents a voucher and is never billed.
#[tokio::test]
async fn head_is_never_billed() {
    let booth = Booth::chits().await;
    booth.manage("/plain", open("a", 10, 4)).await;
    let credential = booth.credential("/plain", voucher("a", 6)).await;
    let head = booth.client.head(booth.url("/plain"));
    let head = head
        .header("authorization", credential)
        .send()
        .await
        .unwrap();
    assert_eq!(head.status(), 204);
    assert!(head.headers().contains_key("payment-receipt"));
    let state = booth.state("a").await;
    assert_eq!((state.spent.get(), state.authorized.get()), (0, 6));
    assert_eq!(booth.behind.calls.load(SeqCst), 0);
}

/// Protects: a challenge for a body may be used to manage the session without one, and not to be
/// served anything else.
#[tokio::test]
async fn management_bypasses_the_bodys_digest() {
    let booth = Booth::chits().await;
    let asked = Answer::of(booth.client.post(booth.url("/ask")).body("why?")).await;
    let challenge = asked.challenges().remove(0);
    let present = |act, body: &'static str| {
        let request = booth.client.post(booth.url("/ask")).body(body);
        Answer::of(request.header("authorization", credential(&challenge, act)))
    };
    assert_eq!(present(open("a", 10, 4), "why?").await.body, "plain why?");
    assert_eq!(present(voucher("a", 6), "").await.status, 204);
    let other = present(voucher("a", 6), "what?").await;
    assert_eq!(
        (other.status, other.kind().as_str()),
        (402, "invalid-challenge")
    );
    assert_eq!(booth.spent("a").await, 2);
}

/// Protects: a handler that meters pays as it says, once, and what it may not spend is asked for.
#[tokio::test]
async fn a_handler_may_meter_itself() {
    let booth = Booth::chits().await;
    let three = booth.get("/pages/3", open("a", 10, 6)).await;
    assert_eq!((three.status, three.body.as_str()), (200, "3 pages"));
    assert_eq!(three.receipt().extra["spent"], "6");
    let more = booth.get("/pages/2", voucher("a", 8)).await;
    assert_eq!(
        (more.status, more.kind().as_str()),
        (402, "session/insufficient-balance")
    );
    assert_eq!(booth.get("/pages/1", voucher("a", 8)).await.status, 200);
    let state = booth.state("a").await;
    assert_eq!(
        (state.spent.get(), state.held.get(), state.units),
        (8, 0, 4)
    );
    // What is free is free, and its unit is given back.
    assert_eq!(booth.get("/pages/0", voucher("a", 10)).await.status, 200);
    assert_eq!(booth.spent("a").await, 8);
}

/// Protects: a session's credential for one route opens no other.
#[tokio::test]
async fn credentials_stay_on_their_route() {
    let booth = Booth::chits().await;
    let credential = booth.credential("/plain", open("a", 10, 4)).await;
    for path in ["/stream", "/pages/1"] {
        for request in [
            booth.client.get(booth.url(path)),
            booth.client.post(booth.url(path)),
        ] {
            let refused = Answer::of(request.header("authorization", &credential)).await;
            assert_eq!(
                (refused.status, refused.kind().as_str()),
                (402, "invalid-challenge")
            );
        }
    }
    assert_eq!(booth.behind.calls.load(SeqCst), 0);
}

/// Protects: a rail whose challenges cost its seller something from vouchers that cover nothing, as
/// from no payment at all; also where only the handler finds out.
#[tokio::test]
async fn challenges_to_vouchers_that_cover_nothing_are_limited() {
    let booth = Booth::chits().await;
    let hour = std::time::Duration::from_secs(3_600);
    for (path, covers) in [("/one", 0), ("/five", 2)] {
        let terms = SessionTerms {
            amount: "2".into(),
            unit: "piece".into(),
            ..Default::default()
        };
        let method = Arc::new(Typed::<_, Session>::named(Chits, format!("chit{path}")));
        let offer = Offer::new::<Session>(method, terms).unwrap();
        let offers = compose([offer]).unwrap();
        let layer = PaymentLayer::new(booth.engine.gate(format!("GET {path}"), offers).unwrap())
            .limit_challenges(ChallengeLimit::new(3, hour, |_| None));
        let one = get(|| async { "one" }).layer(layer.clone());
        let five = async |session: Metered| session.debit(5).await.map(|()| "five");
        let router = Router::new()
            .route("/one", one)
            .route("/five", get(five).layer(layer));
        let url = format!("http://{}{path}", serve(router).await);
        let asked = Answer::of(booth.client.get(&url)).await;
        let challenge = asked.challenges().remove(0);
        let channel = format!("limited{covers}");
        let opened = credential(&challenge, open(&channel, 20, covers));
        let opened = booth.client.post(&url).header("authorization", opened);
        assert_eq!(Answer::of(opened).await.status, 204);
        let voucher = credential(&challenge, voucher(&channel, covers));
        let present = || booth.client.get(&url).header("authorization", &voucher);
        for _ in 0..3 {
            let answer = Answer::of(present()).await;
            assert_eq!(
                (answer.status, answer.challenges().len()),
                (402, 1),
                "{path}"
            );
        }
        let answer = Answer::of(present()).await;
        assert_eq!(
            (answer.status, answer.challenges().len()),
            (429, 0),
            "{path}"
        );
    }
}
