//! Servers that lie get no signature beyond what was received and a step ahead.
#![allow(clippy::unwrap_used, reason = "tests may panic")]

mod support;

use std::sync::Arc;

use farebox_client::session::{Answer, Call, Demand, SessionError};
use farebox_core::wire::{Amount, Receipt, Timestamp};
use support::{Books, Coins, Seller as _, Server, call, coins, memory, origin, served, sessions};

fn wants(channel: &str, required: u128) -> Demand {
    Demand {
        channel: channel.to_owned(),
        required: Some(Amount::new(required)),
    }
}

/// A stream that has been served its first unit.
async fn stream(max_deposit: u128) -> (Arc<Server>, Coins, Call, String) {
    let server = Server::new(1, 10);
    let wallet = Coins::new(&server.chain);
    let sessions = sessions(&wallet, &memory(), max_deposit);
    let call = call(&sessions, &server).await.unwrap();
    let id = server.chain.only().0;
    (server, wallet, call, id)
}

/// Protects: an honest stream is paid event by event, and topped up on the way.
#[tokio::test]
async fn an_honest_stream_is_paid() {
    let (server, wallet, mut call, id) = stream(100).await;
    for n in 1..=40 {
        call.event();
        call.demand(&wants(&id, n + 1), &*server).await.unwrap();
        assert_eq!(server.books(&id).accepted, n + 1);
    }
    call.event();
    assert_eq!(wallet.most_signed(), 41);
    assert_eq!(server.chain.only().1.deposit, 50);
    let books = Books {
        deposit: 50,
        accepted: 41,
        spent: 41,
    };
    call.concluded(&server.receipt(&id, books)).await.unwrap();
    call.finish().await.unwrap();
}

/// Protects: what is asked for beyond what was received and one step is not signed, however the
/// server asks, and nothing is deposited for it.
#[tokio::test]
async fn asking_for_more_than_was_served_gets_nothing() {
    let (server, wallet, mut call, id) = stream(1_000).await;
    for required in [3, 10, 11, 999, 1_000, 1_001, u128::MAX - 10] {
        call.event();
        let refused = call.demand(&wants(&id, required + 10), &*server).await;
        assert!(
            matches!(refused, Err(SessionError::Overcharged { .. })),
            "{required}"
        );
    }
    assert_eq!(wallet.most_signed(), 1);
    assert_eq!(server.chain.only().1.deposit, 10);
}

/// Protects: nothing is signed past the largest deposit, whatever was received.
#[tokio::test]
async fn nothing_is_signed_past_the_largest_deposit() {
    let (server, wallet, mut call, id) = stream(10).await;
    for n in 1..=9 {
        call.event();
        call.demand(&wants(&id, n + 1), &*server).await.unwrap();
    }
    for n in 10..20 {
        call.event();
        let refused = call.demand(&wants(&id, n + 1), &*server).await;
        assert!(matches!(refused, Err(SessionError::MaxDeposit { .. })));
    }
    assert_eq!(wallet.most_signed(), 10);
    assert_eq!(server.chain.only().1.deposit, 10);
}

/// Protects: a server that asks and asks without delivering is left.
#[tokio::test]
async fn asking_again_and_again_gets_one_step() {
    let (server, wallet, mut call, id) = stream(1_000).await;
    call.event();
    let mut asked = 0;
    let refused = loop {
        asked += 1;
        match call.demand(&wants(&id, 2), &*server).await {
            Ok(()) => assert!(asked < 100, "it never ends"),
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, SessionError::NoProgress), "{refused}");
    assert_eq!(wallet.most_signed(), 2);
}

/// Protects: another channel is not paid for this one's service.
#[tokio::test]
async fn another_channel_gets_nothing() {
    let (server, wallet, mut call, id) = stream(1_000).await;
    call.event();
    let refused = call.demand(&wants("c99", 2), &*server).await;
    assert!(matches!(refused, Err(SessionError::OtherChannel(_))));
    assert_eq!(wallet.most_signed(), 1);
    // Ids are hex on most rails, in any case.
    call.demand(&wants(&id.to_uppercase(), 2), &*server)
        .await
        .unwrap();
}

/// Protects: a server that says it accepted less than it did is not signed for twice.
#[tokio::test]
async fn accepting_less_changes_nothing() {
    let server = Server::new(1, 10);
    let wallet = Coins::new(&server.chain);
    let sessions = sessions(&wallet, &memory(), 10);
    for _ in 0..5 {
        let mut call = sessions
            .begin(&[server.challenge()], &origin(), "/")
            .unwrap();
        let presentation = call.next(&*server).await.unwrap();
        server.take(presentation.credential(), 1);
        let id = server.chain.only().0;
        let said = server.receipt(&id, Books::default());
        let answer = Answer::Accepted(Some(Box::new(said)));
        assert!(call.answered(presentation, answer).await.unwrap());
        call.finish().await.unwrap();
    }
    assert_eq!(wallet.most_signed(), 5);
    let channels = sessions.channels().await.unwrap();
    assert_eq!(channels[0].signed, coins(5));
}

/// Protects: receipts for more than was signed, or for another channel, are reported.
#[tokio::test]
async fn forged_receipts_are_noticed() {
    let (server, _, mut call, id) = stream(1_000).await;
    call.event();
    let books = |accepted, spent| Books {
        deposit: 10,
        accepted,
        spent,
    };
    let too_much = server.receipt(&id, books(2, 1));
    let refused = call.concluded(&too_much).await;
    assert!(matches!(refused, Err(SessionError::FalseReceipt { .. })));
    let overspent = server.receipt(&id, books(1, 3));
    let refused = call.concluded(&overspent).await;
    assert!(matches!(refused, Err(SessionError::Overcharged { .. })));
    let other = server.receipt("c99", books(1, 1));
    let refused = call.concluded(&other).await;
    assert!(matches!(refused, Err(SessionError::OtherChannel(_))));
    let odd = Receipt::new("coins", &*id, Timestamp::now()).with("spent", "-5");
    call.concluded(&odd).await.unwrap();
    call.concluded(&server.receipt(&id, books(1, 1)))
        .await
        .unwrap();
}

/// Protects: refusing what is good, for whatever reason and however often, brings no more than one
/// step more, no second deposit and no endless loop.
#[tokio::test]
async fn refusing_everything_gets_one_step() {
    for name in [
        "insufficient-balance",
        "invalid-signature",
        "delta-too-small",
        "amount-exceeds-deposit",
        "channel-not-found",
        "channel-finalized",
        "challenge-not-found",
        "anything",
    ] {
        let server = Server::new(1, 10);
        let wallet = Coins::new(&server.chain);
        let sessions = sessions(&wallet, &memory(), 1_000);
        served(&sessions, &server).await.unwrap();
        for _ in 0..5 {
            let mut call = sessions
                .begin(&[server.challenge()], &origin(), "/")
                .unwrap();
            let mut presented = 0;
            let refused = loop {
                presented += 1;
                assert!(presented < 10, "{name}: it never ends");
                let presentation = call.next(&*server).await.unwrap();
                match call.answered(presentation, server.refuse(name)).await {
                    Ok(served) => assert!(!served),
                    Err(error) => break error,
                }
            };
            assert!(
                matches!(refused, SessionError::NotAccepted { .. }),
                "{name}: {refused}"
            );
        }
        let most = if name == "insufficient-balance" { 3 } else { 2 };
        assert_eq!(wallet.most_signed(), most, "{name}");
        assert_eq!(server.chain.opens(), 1, "{name}");
        assert_eq!(sessions.budget().spent("coin"), coins(10), "{name}");
    }
}

/// Protects: a server that changes its price or payee in mid-call is not followed.
#[tokio::test]
async fn other_terms_in_mid_call_are_not_taken() {
    let (server, wallet, mut call, id) = stream(1_000).await;
    let dear = Server::new(7, 10);
    call.event();
    let presentation = call.next(&*server).await.unwrap();
    let answer = dear.refuse("insufficient-balance");
    let refused = call.answered(presentation, answer).await;
    assert!(matches!(refused, Err(SessionError::NotAccepted { .. })));
    assert_eq!(wallet.most_signed(), 1);
    call.demand(&wants(&id, 2), &*server).await.unwrap();
}

/// Protects: a server that says it closed a channel and did not gets no second deposit, and one
/// that says the close cost more than was signed is not believed.
#[tokio::test]
async fn a_close_is_not_taken_on_trust() {
    let server = Server::new(1, 10);
    let wallet = Coins::new(&server.chain);
    let sessions = sessions(&wallet, &memory(), 10);
    served(&sessions, &server).await.unwrap();
    let key = sessions.channels().await.unwrap()[0].key.clone();
    struct Liar(Arc<Server>, Receipt);
    impl farebox_client::session::Courier for Liar {
        async fn ask(&self) -> Result<Vec<farebox_core::wire::Challenge>, String> {
            self.0.ask().await
        }
        async fn deliver(&self, _: &farebox_core::wire::Credential) -> Answer {
            Answer::Accepted(Some(Box::new(self.1.clone())))
        }
        async fn deliver_at(&self, _: &str, credential: &farebox_core::wire::Credential) -> Answer {
            self.deliver(credential).await
        }
    }
    let id = server.chain.only().0;
    let liar = Liar(
        server.clone(),
        server.receipt(
            &id,
            Books {
                deposit: 10,
                accepted: 1,
                spent: 999,
            },
        ),
    );
    let closed = sessions.close(&key, &origin(), &liar).await.unwrap();
    assert!(!closed.confirmed);
    assert_eq!((closed.spent, closed.refunded), (coins(10), coins(0)));
    // It is not used, and not replaced, until the rail says what became of it.
    let refused = served(&sessions, &server).await;
    assert!(matches!(refused, Err(SessionError::Closing)));
    assert_eq!(server.chain.opens(), 1);
    let closed = sessions.close(&key, &origin(), &*server).await.unwrap();
    assert!(closed.confirmed);
    assert_eq!((closed.spent, closed.refunded), (coins(1), coins(9)));
    assert_eq!(wallet.most_signed(), 1);
}

/// Protects: a server cannot have more signed than was received by calling it the least that a
/// voucher may add, neither at the opening nor with a later challenge.
#[tokio::test]
async fn a_leap_is_not_signed() {
    let mut server = Server::new(1, 1_000);
    Arc::get_mut(&mut server).unwrap().min_delta = 500;
    let wallet = Coins::new(&server.chain);
    let refused = served(&sessions(&wallet, &memory(), 1_000), &server).await;
    assert!(
        matches!(&refused, Err(SessionError::NothingPayable(why)) if why.contains("500")),
        "{refused:?}"
    );
    assert_eq!((server.chain.opens(), wallet.most_signed()), (0, 0));

    let mut server = Server::new(1, 1_000);
    let wallet = Coins::new(&server.chain);
    let sessions = sessions(&wallet, &memory(), 1_000);
    served(&sessions, &server).await.unwrap();
    Arc::get_mut(&mut server).unwrap().min_delta = 500;
    assert!(served(&sessions, &server).await.is_err());
    assert_eq!(wallet.most_signed(), 1);
}
