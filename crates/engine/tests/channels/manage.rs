//! Answers without a handler, and what becomes of a credential that comes again.

use farebox_core::{
    Answer, ChannelAction, Refund, Schedule,
    wire::{Amount, BodyDigest},
};
use farebox_engine::{Admission, Inbound, Kept, Refused};
use serde_json::json;

use crate::bank::{Got, World};

/// Protects: a lost answer to a close is given again, and its refund is paid once.
#[tokio::test(start_paused = true)]
async fn a_close_refunds_and_is_answered_as_often_as_it_comes() {
    let world = World::new(Schedule::default());
    let process = world.boot();
    process
        .go(json!({"do": "open", "n": 100, "chain": false}))
        .await
        .unwrap();
    process.meter().debit(Amount::new(30)).await.unwrap();
    let close = process.credential(json!({"do": "close"})).await;
    for _ in 0..3 {
        let Ok(Got::Managed(managed)) = process.present(&close).await else {
            panic!("a close asks for no service");
        };
        assert_eq!(managed.action, ChannelAction::Close);
        let answer = json!({"refunded": "70", "refund": "done"});
        assert_eq!(managed.answer, Answer::Json(answer));
        assert_eq!(managed.attachments[0].name, "Payment-Session");
        assert_eq!(managed.receipt.extra["spent"], "30");
    }
    assert_eq!(world.ledger.lock().unwrap().orders, ["refund 70"]);
    world.balances(&process, "closed").await;
}

/// Protects: a refund that fails leaves the channel closed, is not tried again, and is in the books.
#[tokio::test(start_paused = true)]
async fn a_refund_that_fails_is_owed() {
    let world = World::new(Schedule::default());
    let process = world.boot();
    world.ledger.lock().unwrap().broke = true;
    process
        .go(json!({"do": "open", "n": 100, "chain": false}))
        .await
        .unwrap();
    let managed = process.manage(json!({"do": "close"})).await;
    assert_eq!(
        managed.answer,
        Answer::Json(json!({"refunded": "0", "refund": "failed"}))
    );
    world.ledger.lock().unwrap().broke = false;
    world.pass(std::time::Duration::from_secs(3600));
    process.engine.upkeep().await.unwrap();
    let books = &process.engine.channels().await.unwrap()[0];
    assert_eq!(
        (books.owed, books.refund),
        (Amount::new(100), Refund::Failed)
    );
    assert!(books.closed);
}

/// Protects: a deposit that arrives after the close goes back to who paid it.
#[tokio::test(start_paused = true)]
async fn a_top_up_that_comes_after_the_close_is_refunded() {
    let world = World::new(Schedule::default());
    let process = world.boot();
    process
        .go(json!({"do": "open", "n": 100, "chain": false}))
        .await
        .unwrap();
    process.manage(json!({"do": "close"})).await;
    process
        .manage(json!({"do": "topup", "n": 50, "proof": "late"}))
        .await;
    let orders = world.ledger.lock().unwrap().orders.clone();
    assert_eq!(orders, ["refund 100", "refund 50"]);
    world.balances(&process, "late").await;
}

/// Protects: an opening whose reply was lost is answered again, without a second charge.
#[tokio::test(start_paused = true)]
async fn an_opening_is_replayed_without_a_key() {
    let world = World::new(Schedule::default());
    let process = world.boot();
    let open = process
        .credential(json!({"do": "open", "n": 100, "chain": false}))
        .await;
    let Ok(Got::Serve(mut serving)) = process.present(&open).await else {
        panic!("an opening is served");
    };
    assert!(serving.keyed());
    serving.reserve(3).await.unwrap();
    let reply = Kept {
        status: 200,
        headers: Vec::new(),
        body: b"hello".to_vec(),
    };
    let answered = serving.delivered(Some(reply)).await.unwrap();
    assert_eq!(answered.receipt.extra["spent"], "3");
    let admission = process
        .gate
        .present(open.clone(), &Inbound::default())
        .await;
    let Ok(Admission::Replay(reply)) = admission else {
        panic!("{admission:?}");
    };
    assert_eq!(
        (reply.body, reply.receipt),
        (b"hello".to_vec(), answered.receipt)
    );
    // Another request does not get that answer, and nothing else for the same opening.
    let other = Inbound {
        target: "/other",
        ..Inbound::default()
    };
    let refused = process.gate.present(open, &other).await;
    assert!(matches!(refused, Err(Refused::Spent(_))), "{refused:?}");
    assert_eq!(process.meter().state().await.unwrap().spent, Amount::new(3));
}

/// Protects: a voucher for a waiting stream needs no body, buys no service, and no body buys service
/// that was quoted for another.
#[tokio::test(start_paused = true)]
async fn managing_needs_no_body_and_serves_nothing() {
    let world = World::new(Schedule::default());
    let process = world.boot();
    process
        .go(json!({"do": "open", "n": 100, "chain": true}))
        .await
        .unwrap();
    let digest = BodyDigest::of(b"prompt");
    let prompt = Inbound {
        body: Some(b"prompt"),
        digest: Some(&digest),
        ..Inbound::default()
    };
    let challenge = process.gate.challenges(&prompt).await.unwrap().remove(0);
    let mut voucher = process.credential(json!({"do": "voucher", "to": 10})).await;
    voucher.challenge = challenge;
    let bare = process
        .gate
        .present(voucher.clone(), &Inbound::default())
        .await;
    assert!(matches!(bare, Err(Refused::Payment(_))), "{bare:?}");
    let manages = Inbound {
        manages: true,
        ..Inbound::default()
    };
    for _ in 0..2 {
        let admission = process.gate.present(voucher.clone(), &manages).await;
        let Ok(Admission::Managed(managed)) = admission else {
            panic!("{admission:?}");
        };
        assert_eq!(
            (managed.action, managed.answer),
            (ChannelAction::Advance, Answer::Empty)
        );
    }
    let state = process.meter().state().await.unwrap();
    assert_eq!(
        (state.authorized, state.spent),
        (Amount::new(10), Amount::new(0))
    );
}
