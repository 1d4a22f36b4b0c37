//! Deposits that are the server's from the start: none is forgotten before the server has seen it,
//! and none is made for a server that only says that the last is spent.
#![allow(clippy::unwrap_used, reason = "tests may panic")]

mod support;

use std::sync::Arc;

use farebox_client::{
    Budget,
    session::{Call, DepositLimit, SessionError, Sessions, Store, VolatileStore},
};
use support::{
    budget, coins, origin,
    prepaid::{Payer, Shop},
};

fn memory() -> Arc<dyn Store> {
    Arc::new(VolatileStore::new())
}

fn within(budget: Budget, shop: &Shop, disk: &Arc<dyn Store>) -> Sessions {
    Sessions::new(budget, disk.clone())
        .wallet(Payer(shop.node.clone()))
        .limit(DepositLimit::new("coin", coins(100)))
}

fn process(shop: &Shop, disk: &Arc<dyn Store>) -> Sessions {
    within(budget(1_000), shop, disk)
}

async fn call(sessions: &Sessions, shop: &Shop) -> Result<Call, SessionError> {
    let mut call = sessions.begin(&[shop.challenge()], &origin(), "/")?;
    loop {
        let presentation = call.next(shop).await?;
        let answer = shop.take(presentation.credential(), 1);
        if call.answered(presentation, answer).await? {
            return Ok(call);
        }
    }
}

async fn served(sessions: &Sessions, shop: &Shop) -> Result<(), SessionError> {
    call(sessions, shop).await?.finish().await
}

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
