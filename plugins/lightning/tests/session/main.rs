//! A session's life on two nodes: paid once, spent bit by bit, topped up, closed and refunded.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod bad;
mod shop;

use std::time::Duration;

use farebox_core::{Paying, SessionPayer as _, Standing, wire::Amount};
use farebox_engine::Refused;
use serde_json::json;
use shop::{FEE, Shop, approve, problem};

/// Protects: what is paid in is what is served, kept and given back, to the sat.
#[tokio::test]
async fn deposit_spend_top_up_close_refund() {
    let shop = Shop::open().await;
    let before = shop.sandbox.agent().balance_sat();
    let challenge = shop.challenge().await;
    let request = challenge.request.value();
    assert_eq!(request["depositAmount"], "100");
    assert_eq!(request["idleTimeout"], "300");
    assert_eq!(request["currency"], "sat");
    assert!(request.get("methodDetails").is_none(), "{request}");

    let (payload, channel) = shop.deposit(&challenge).await;
    let receipt = shop.serve(&challenge, payload, 1).await.unwrap();
    assert_eq!(receipt["reference"], json!(channel.id));
    assert_eq!(
        (&receipt["spent"], &receipt["units"]),
        (&json!(2), &json!(1))
    );

    shop.spend(&channel, 40).await.unwrap();
    let exhausted = problem(shop.spend(&channel, 10).await);
    assert!(
        exhausted.ends_with("lightning/insufficient-balance"),
        "{exhausted}"
    );

    let (challenge, payload, channel) = shop.top_up(&channel).await;
    let (answer, _) = shop.manage(&challenge, payload).await.unwrap();
    assert_eq!(answer, json!({ "status": "ok" }));
    shop.spend(&channel, 10).await.unwrap();

    let (challenge, payload) = shop.close(&channel).await;
    let (answer, receipt) = shop.manage(&challenge, payload).await.unwrap();
    let refund = 200 - 2 * 51;
    let expected = json!({
        "status": "closed", "refundSats": refund, "refundStatus": "succeeded",
    });
    assert_eq!(answer, expected);
    assert_eq!(receipt["refundSats"], refund);
    assert_eq!(
        shop.sandbox.agent().balance_sat(),
        before - 2 * 51 - 2 * FEE
    );
}

/// Protects: whoever asks again how it ended, after a lost reply, hears the same and is not paid
/// twice.
#[tokio::test]
async fn a_close_is_answered_again_and_refunded_once() {
    let shop = Shop::open().await;
    let before = shop.sandbox.agent().balance_sat();
    let channel = shop.session().await;
    let (challenge, payload) = shop.close(&channel).await;
    let first = shop.manage(&challenge, payload.clone()).await.unwrap();
    let again = shop.manage(&challenge, payload).await.unwrap();
    assert_eq!(first.0, again.0);
    assert_eq!(first.0["refundSats"], 100);
    assert_eq!(first.0["refundStatus"], "succeeded");
    assert_eq!(shop.sandbox.agent().balance_sat(), before - FEE);
    let refused = problem(shop.spend(&channel, 1).await);
    assert!(refused.ends_with("lightning/session-closed"), "{refused}");
}

/// Protects: a payer that dies after it has paid a top-up, and before its server has heard of it,
/// presents it again: it is paid once, and counted.
#[tokio::test]
async fn a_top_up_that_was_paid_is_taken_up_again() {
    let shop = Shop::open().await;
    let before = shop.sandbox.agent().balance_sat();
    let mut channel = shop.session().await;
    for deposits in [200, 300] {
        let challenge = shop.challenge().await;
        let cx = Paying::new(&challenge, None);
        let draft = shop.payer.draft_top_up(&cx, &channel, Amount::new(100));
        let mut draft = draft.await.unwrap();
        for _ in 0..2 {
            let approved = approve(&*shop.payer, &cx, draft.amount);
            let funded = shop.payer.top_up(&cx, &draft, approved).await.unwrap();
            draft.held = funded.held;
        }
        channel.deposit = Amount::new(deposits);
        channel.held = draft.held;
        match shop.payer.standing(&channel.held).await.unwrap() {
            Standing::Open { channel: found, .. } => assert_eq!(found.deposit, channel.deposit),
            other => panic!("{other:?}"),
        }
    }
    let paid = before - shop.sandbox.agent().balance_sat();
    assert!((300..310).contains(&paid), "{paid} for 300 and fees");
}

/// Protects: a session that was spent to the last sat pays nothing back.
#[tokio::test]
async fn nothing_left_is_nothing_refunded() {
    let shop = Shop::open().await;
    let channel = shop.session().await;
    shop.spend(&channel, 50).await.unwrap();
    let invoices = shop.sandbox.agent().settled().len();
    let (challenge, payload) = shop.close(&channel).await;
    let (answer, _) = shop.manage(&challenge, payload).await.unwrap();
    let expected = json!({ "status": "closed", "refundSats": 0, "refundStatus": "skipped" });
    assert_eq!(answer, expected);
    assert_eq!(shop.sandbox.agent().settled().len(), invoices);
}

/// Protects: a refund of which nobody knows how it ended is neither reported nor paid again until
/// the node has said.
#[tokio::test]
async fn a_refund_in_flight_is_unknown() {
    let shop = Shop::open().await;
    let before = shop.sandbox.agent().balance_sat();
    let channel = shop.session().await;
    shop.sandbox.seller().drop_next_reply_after_settle();
    let (challenge, payload) = shop.close(&channel).await;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    let answer = loop {
        match shop.manage(&challenge, payload.clone()).await {
            Ok((answer, _)) => break answer,
            Err(Refused::Pending { .. }) => {}
            Err(other) => panic!("{other:?}"),
        }
        assert!(tokio::time::Instant::now() < deadline, "it stays unknown");
        shop.engine.reconcile().await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert_eq!(answer["refundStatus"], "succeeded");
    assert_eq!(shop.sandbox.agent().balance_sat(), before - FEE);
}

/// Protects: a payer's records find the deposit again after a restart, and the secret with it.
#[tokio::test]
async fn a_wallet_finds_its_session_again() {
    let shop = Shop::open().await;
    let challenge = shop.challenge().await;
    let draft = shop.draft(&challenge).await.unwrap();
    let standing = shop.payer.standing(&draft.held).await.unwrap();
    assert!(
        matches!(standing, Standing::Pending),
        "it may still be paid: {standing:?}"
    );
    let channel = shop.session().await;
    let text = serde_json::to_string(&channel).unwrap();
    let another = Shop::restarted(&shop);
    match another.standing(&channel.held).await.unwrap() {
        Standing::Open { channel, .. } => assert_eq!(channel.deposit, Amount::new(100)),
        other => panic!("{other:?}"),
    }
    let challenge = shop.challenge().await;
    let cx = farebox_core::Paying::new(&challenge, None);
    let bearer = another.voucher(&cx, &channel, Amount::new(100)).await;
    let payload = bearer.unwrap().payload;
    // What is kept is no secret: the credential has one, and the records do not.
    let shown: serde_json::Value = payload.decode().unwrap();
    assert!(!text.contains(shown["preimage"].as_str().unwrap()));
    shop.serve(&challenge, payload, 1).await.unwrap();
    let (challenge, payload) = shop.close(&channel).await;
    shop.manage(&challenge, payload).await.unwrap();
    let standing = another.standing(&channel.held).await.unwrap();
    assert!(matches!(standing, Standing::Closed { .. }), "{standing:?}");
}

/// Protects: a payer that never comes back has its money back, once, and no request is served then.
#[tokio::test]
async fn an_idle_session_is_closed_and_refunded() {
    let shop = Shop::closing_after(Duration::from_secs(60)).await;
    let before = shop.sandbox.agent().balance_sat();
    let channel = shop.session().await;
    shop.engine.upkeep().await.unwrap();
    assert!(shop.spend(&channel, 0).await.is_ok(), "it is not idle yet");
    // Invoices, which the nodes' clocks count, still have time left then.
    shop.later(Duration::from_secs(61));
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    while shop.sandbox.agent().balance_sat() != before - FEE {
        assert!(
            tokio::time::Instant::now() < deadline,
            "it was not refunded"
        );
        shop.engine.upkeep().await.unwrap();
        shop.engine.reconcile().await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    shop.engine.upkeep().await.unwrap();
    shop.engine.reconcile().await.unwrap();
    assert_eq!(shop.sandbox.agent().balance_sat(), before - FEE);
    let refused = problem(shop.spend(&channel, 1).await);
    assert!(refused.ends_with("lightning/session-closed"), "{refused}");
}

/// Protects: a payer is owed the refund of a session that is closed while the seller's node is away,
/// and gets it once.
#[tokio::test]
async fn a_refund_waits_for_its_node() {
    let shop = Shop::open().await;
    let channel = shop.session().await;
    let (challenge, payload) = shop.close(&channel).await;
    shop.sandbox.seller().set_unavailable(true);
    let asked = shop.manage(&challenge, payload.clone()).await;
    assert!(matches!(asked, Err(Refused::Pending { .. })), "{asked:?}");
    let paid = shop.sandbox.agent().settled().len();
    shop.sandbox.seller().set_unavailable(false);
    for _ in 0..2 {
        shop.engine.reconcile().await.unwrap();
    }
    let (answer, _) = shop.manage(&challenge, payload).await.unwrap();
    assert_eq!(answer["refundStatus"], "succeeded", "{answer}");
    assert_eq!(shop.sandbox.agent().settled().len(), paid + 1);
}

/// Protects: a refund that cannot be paid closes the session all the same, says what is owed, and is
/// not tried for ever.
#[tokio::test]
async fn a_refund_that_fails_is_said_to_have_failed() {
    let shop = Shop::poor().await;
    let channel = shop.session().await;
    // The node holds the deposit, and not the fee for sending it back.
    let (challenge, payload) = shop.close(&channel).await;
    let (answer, _) = shop.manage(&challenge, payload.clone()).await.unwrap();
    let expected = json!({ "status": "closed", "refundSats": 100, "refundStatus": "failed" });
    assert_eq!(answer, expected);
    let paid = shop.sandbox.agent().settled().len();
    shop.session().await;
    shop.engine.upkeep().await.unwrap();
    shop.engine.reconcile().await.unwrap();
    let (again, _) = shop.manage(&challenge, payload).await.unwrap();
    assert_eq!(
        again, expected,
        "one attempt, though the node could pay now"
    );
    assert_eq!(shop.sandbox.agent().settled().len(), paid);
    let refused = problem(shop.spend(&channel, 1).await);
    assert!(refused.ends_with("lightning/session-closed"), "{refused}");
}
