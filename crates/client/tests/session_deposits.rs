//! Deposits that are the server's from the start: none is forgotten before the server has seen it,
//! and none is made for a server that only says that the last is spent.
#![allow(clippy::unwrap_used, reason = "tests may panic")]

mod support;

use std::sync::{Arc, atomic::Ordering};

use farebox_client::{
    Budget,
    session::{Closed, Demand, SessionError, Store},
};
use support::{
    Seller as _, call, coins, memory, origin,
    prepaid::{Shop, process, within},
    served,
};

/// Protects: a server that refuses calls oddly is not believed the next time that what it refused
/// has been spent.
#[tokio::test]
async fn a_refused_call_is_not_uncertain() {
    for odd in [
        "verification-failed",
        "session-not-found",
        "invalid-challenge",
    ] {
        let shop = Shop::new(1, 10);
        let disk = memory();
        let sessions = process(&shop, &disk);
        served(&sessions, &shop).await.unwrap();
        for name in [odd, "insufficient-balance", odd, "insufficient-balance"] {
            let challenge = shop.challenge();
            let mut call = sessions.begin(&[challenge], &origin(), "/").unwrap();
            let refused = loop {
                let presentation = call.next(&*shop).await.unwrap();
                match call.answered(presentation, shop.refuse(name)).await {
                    Ok(served) => assert!(!served),
                    Err(error) => break error,
                }
            };
            assert!(
                matches!(refused, SessionError::NotAccepted { .. }),
                "{odd}, {name}: {refused}"
            );
        }
        assert_eq!(shop.paid(), 10, "{odd}");
        let due = sessions.channels().await.unwrap()[0].due;
        assert_eq!(due, coins(1), "{odd}");
    }
}

/// Protects: nor is one that could not be reached, or whose receipts are for another channel.
#[tokio::test]
async fn an_unsent_call_is_not_uncertain() {
    use farebox_client::session::Answer;
    use farebox_core::wire::{Receipt, Timestamp};
    let other = Receipt::new("coins", "other", Timestamp::now());
    for odd in [
        Answer::Unsent("nobody is there".to_owned()),
        Answer::Accepted(Some(Box::new(other))),
    ] {
        let shop = Shop::new(1, 10);
        let sessions = process(&shop, &memory());
        served(&sessions, &shop).await.unwrap();
        let mut call = sessions.begin(&[shop.challenge()], &origin(), "/").unwrap();
        let presentation = call.next(&*shop).await.unwrap();
        assert!(call.answered(presentation, odd).await.is_err());
        drop(call);
        let mut call = sessions.begin(&[shop.challenge()], &origin(), "/").unwrap();
        for _ in 0..3 {
            let presentation = call.next(&*shop).await.unwrap();
            let answer = shop.refuse("insufficient-balance");
            if call.answered(presentation, answer).await.is_err() {
                break;
            }
        }
        assert_eq!(shop.paid(), 10);
    }
}

/// As the command line closes, that allows itself nothing.
async fn close(shop: &Shop, disk: &Arc<dyn Store>) -> Result<Closed, SessionError> {
    let sessions = within(Budget::new([]), shop, disk);
    let key = sessions.channels().await?[0].key.clone();
    sessions.close(&key, &origin(), shop).await
}

async fn phase(shop: &Shop, disk: &Arc<dyn Store>) -> &'static str {
    process(shop, disk).channels().await.unwrap()[0].phase
}

/// Nine of ten are spent, ten more are paid, and the server has not seen them.
async fn unshown() -> (Arc<Shop>, Arc<dyn Store>) {
    let shop = Shop::new(3, 10);
    let disk = memory();
    let sessions = process(&shop, &disk);
    for _ in 0..3 {
        served(&sessions, &shop).await.unwrap();
    }
    shop.lose.store(3, Ordering::SeqCst);
    let lost = served(&sessions, &shop).await;
    assert!(matches!(lost, Err(SessionError::OutcomeUnknown { .. })));
    assert_eq!((shop.paid(), shop.account().deposit), (20, 10));
    assert_eq!(phase(&shop, &disk).await, "topping-up");
    (shop, disk)
}

/// A deposit is paid, and the server has not seen it.
async fn unopened() -> (Arc<Shop>, Arc<dyn Store>) {
    let (shop, disk) = (Shop::new(1, 10), memory());
    let mut call = process(&shop, &disk)
        .begin(&[shop.challenge()], &origin(), "/")
        .unwrap();
    call.next(&*shop).await.unwrap();
    assert_eq!(shop.paid(), 10);
    (shop, disk)
}

/// Protects: a deposit that was paid and not shown is shown before its channel is closed, so that it
/// comes back.
#[tokio::test]
async fn a_deposit_that_was_not_shown_comes_back() {
    let (shop, disk) = unopened().await;
    let closed = close(&shop, &disk).await.unwrap();
    assert_eq!(closed.refunded, coins(10));
    assert!(closed.confirmed);

    let (shop, disk) = unshown().await;
    let closed = close(&shop, &disk).await.unwrap();
    assert_eq!((closed.spent, closed.refunded), (coins(9), coins(11)));
    assert_eq!(shop.paid(), 20, "nothing is paid again");
}

/// Protects: a server that does not take a deposit does not make it forgotten, however it answers a
/// close.
#[tokio::test]
async fn a_deposit_that_is_not_taken_stays_on_record() {
    for lost in [false, true] {
        for (action, was) in [("open", "opening"), ("topUp", "topping-up")] {
            let (shop, disk) = match action {
                "open" => unopened().await,
                _ => unshown().await,
            };
            match lost {
                true => shop.lose.store(3, Ordering::SeqCst),
                false => *shop.refuses.lock().unwrap() = Some(action),
            }
            let refused = close(&shop, &disk).await;
            assert!(
                matches!(refused, Err(SessionError::OutcomeUnknown { amount, .. }) if amount == coins(10)),
                "{action}: {refused:?}"
            );
            assert_eq!(phase(&shop, &disk).await, was);
            *shop.refuses.lock().unwrap() = None;
            close(&shop, &disk).await.unwrap();
            let back: u128 = shop.node.refunds.lock().unwrap().values().sum();
            assert_eq!(back, shop.paid() - shop.account().spent, "{action}");
        }
    }
}

/// Protects: a deposit that was shown and whose server takes no more of it comes back all the same.
#[tokio::test]
async fn a_deposit_whose_answer_got_lost_comes_back() {
    let (shop, disk) = (Shop::new(1, 10), memory());
    let mut call = process(&shop, &disk)
        .begin(&[shop.challenge()], &origin(), "/")
        .unwrap();
    let presentation = call.next(&*shop).await.unwrap();
    shop.take(presentation.credential(), 1);
    drop((presentation, call));
    *shop.refuses.lock().unwrap() = Some("open");
    let closed = close(&shop, &disk).await.unwrap();
    assert_eq!((closed.spent, closed.refunded), (coins(1), coins(9)));
}

/// Protects: a close that is refused leaves the channel as it was, so that what was paid is spent.
#[tokio::test]
async fn a_refused_close_loses_nothing() {
    for open in [true, false] {
        let (shop, disk) = match open {
            true => unopened().await,
            false => unshown().await,
        };
        *shop.refuses.lock().unwrap() = Some("close");
        let refused = close(&shop, &disk).await;
        assert!(matches!(refused, Err(SessionError::NotAccepted { .. })));
        let paid = shop.paid();
        let sessions = process(&shop, &disk);
        for _ in 0..3 {
            served(&sessions, &shop).await.unwrap();
        }
        assert_eq!((shop.paid(), shop.account().deposit), (paid, paid));
    }
}

/// Protects: a top-up that was paid and not shown is not forgotten where the server closes by itself.
#[tokio::test]
async fn a_channel_that_is_closed_meanwhile_is_not_forgotten() {
    for refunds in [true, false] {
        let (shop, disk) = unshown().await;
        shop.refunds.store(refunds, Ordering::SeqCst);
        shop.close_all();
        // What is left would pay for this one.
        shop.unit.store(1, Ordering::SeqCst);
        let sessions = process(&shop, &disk);
        let gone = served(&sessions, &shop).await;
        assert!(
            matches!(gone, Err(SessionError::OutcomeUnknown { .. })),
            "{gone:?}"
        );
        let gone = close(&shop, &disk).await;
        assert!(
            matches!(gone, Err(SessionError::OutcomeUnknown { .. })),
            "{gone:?}"
        );
        assert_eq!(phase(&shop, &disk).await, "topping-up");
        assert_eq!(shop.paid(), 20);
    }
}

/// Protects: a top-up that was never made does not keep a channel that is over from being forgotten,
/// once the wallet can say so.
#[tokio::test]
async fn a_top_up_that_was_never_made_is_no_loss() {
    let (shop, disk) = (Shop::new(5, 10), memory());
    let sessions = process(&shop, &disk);
    for _ in 0..2 {
        served(&sessions, &shop).await.unwrap();
    }
    shop.node.hangs.store(true, Ordering::SeqCst);
    let lost = served(&sessions, &shop).await;
    assert!(matches!(lost, Err(SessionError::OutcomeUnknown { .. })));
    shop.node.hangs.store(false, Ordering::SeqCst);
    let back = shop.account();
    shop.node.refunds.lock().unwrap().insert("i0".to_owned(), 0);
    assert_eq!((back.deposit, shop.paid()), (10, 10));
    let closed = close(&shop, &disk).await.unwrap();
    assert!(closed.confirmed);
    assert!(process(&shop, &disk).channels().await.unwrap().is_empty());
}

/// Protects: what nobody can settle any more can be given up, by its owner only: it stays counted, and
/// another channel may be opened.
#[tokio::test]
async fn a_channel_can_be_given_up() {
    let (shop, disk) = (Shop::new(5, 10), memory());
    let sessions = process(&shop, &disk);
    for _ in 0..2 {
        served(&sessions, &shop).await.unwrap();
    }
    shop.lose.store(3, Ordering::SeqCst);
    assert!(served(&sessions, &shop).await.is_err());
    shop.close_all();
    assert!(served(&sessions, &shop).await.is_err());
    let channel = sessions.channels().await.unwrap().remove(0);
    let given_up = sessions.forget(&channel.key).await.unwrap();
    assert_eq!(given_up, channel);
    assert_eq!(given_up.at_stake(), coins(20), "with the top-up");
    assert!(matches!(
        sessions.forget(&channel.key).await,
        Err(SessionError::NoChannel)
    ));
    assert_eq!(sessions.budget().spent("coin"), coins(20));
    served(&sessions, &shop).await.unwrap();
    assert_eq!(shop.paid(), 30);
}

fn wants(required: u128) -> Demand {
    Demand {
        channel: "i0".to_owned(),
        required: Some(coins(required)),
    }
}

/// Protects: after a call that was cut short the server's word for what it sent counts, once and up to
/// the deposit, so that the channel can be gone on with; after calls that ended it does not.
#[tokio::test]
async fn a_server_is_believed_about_a_call_that_was_cut_short() {
    let (shop, disk) = (Shop::new(1, 10), memory());
    served(&process(&shop, &disk), &shop).await.unwrap();

    let second = process(&shop, &disk);
    let mut honest = call(&second, &shop).await.unwrap();
    honest.event();
    let lie = honest.demand(&wants(11), &*shop).await;
    assert!(
        matches!(lie, Err(SessionError::Overcharged { .. })),
        "{lie:?}"
    );
    // It is dropped without a word, as by a process that is killed.
    drop(honest);
    drop(second);

    let third = process(&shop, &disk);
    let mut next = call(&third, &shop).await.unwrap();
    next.event();
    next.demand(&wants(11), &*shop).await.unwrap();
    assert_eq!(shop.account().deposit, 20);
    for required in [21, 25, 1_000] {
        next.event();
        let lie = next.demand(&wants(required), &*shop).await;
        assert!(
            matches!(lie, Err(SessionError::Overcharged { .. })),
            "{required}: {lie:?}"
        );
    }
    assert_eq!(shop.account().deposit, 20, "believed once");
    next.finish().await.unwrap();
}

/// Protects: a challenge that was gone on with before, and whose invoice may be paid, is not deposited for.
#[tokio::test]
async fn a_used_challenge_gets_no_deposit() {
    let shop = Shop::new(1, 10);
    let sessions = process(&shop, &memory());
    let used = shop.challenge();
    let begun = sessions.begin(std::slice::from_ref(&used), &origin(), "/");
    let mut call = begun.unwrap().used();
    let presentation = call.next(&*shop).await.unwrap();
    assert!(presentation.is_deposit());
    assert_ne!(presentation.credential().challenge.id, used.id);
}
