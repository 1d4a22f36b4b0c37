//! What a server, a rail or another process does to a channel between two looks of its payer.
#![allow(clippy::unwrap_used, reason = "tests may panic")]

mod support;

use std::{
    slice,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use farebox_client::session::{Answer, Courier, SessionError, Sessions, Store};
use farebox_core::{
    Fault,
    wire::{BodyDigest, Challenge, Credential, Receipt, Timestamp},
};
use farebox_testkit::{Between, Call, Proxy};
use tokio::sync::Barrier;

use support::{
    Coins, Seller as _, Server, coins, memory, origin,
    prepaid::{Shop, process},
    served, sessions,
};

/// Two units of five are spent of a deposit of ten.
async fn used_up() -> (Arc<Shop>, Sessions) {
    let shop = Shop::new(5, 10);
    let sessions = process(&shop, &memory());
    for _ in 0..2 {
        served(&sessions, &shop).await.unwrap();
    }
    (shop, sessions)
}

/// Protects: nothing is put into a session that its server has closed; another is opened.
#[tokio::test]
async fn a_used_up_session_that_was_closed_gets_no_top_up() {
    let (shop, sessions) = used_up().await;
    shop.close_all();
    for _ in 0..2 {
        served(&sessions, &shop).await.unwrap();
    }
    let accounts = shop.accounts.lock().unwrap().clone();
    assert_eq!((accounts.len(), shop.paid()), (2, 20));
    let left: Vec<_> = accounts.values().filter(|a| !a.closed).collect();
    assert_eq!((left.len(), left[0].deposit, left[0].spent), (1, 10, 10));
    assert_eq!(sessions.budget().spent("coin"), coins(20));
}

/// Protects: nor is anything paid to a server that does not answer.
#[tokio::test]
async fn a_server_that_is_away_gets_no_top_up() {
    let (shop, sessions) = used_up().await;
    shop.away.store(true, Ordering::SeqCst);
    let away = served(&sessions, &shop).await;
    assert!(
        matches!(away, Err(SessionError::Unreachable(_))),
        "{away:?}"
    );
    assert_eq!(shop.paid(), 10);
    shop.away.store(false, Ordering::SeqCst);
    served(&sessions, &shop).await.unwrap();
    assert_eq!((shop.paid(), shop.account().deposit), (20, 20));
}

/// Protects: a used-up channel that was closed on the chain is replaced, with a top-up under way or
/// without.
#[tokio::test(start_paused = true)]
async fn a_used_up_channel_that_was_closed_is_replaced() {
    for under_way in [false, true] {
        let server = Server::new(1, 2);
        let sessions = sessions(&Coins::new(&server.chain), &memory(), 100);
        for _ in 0..2 {
            served(&sessions, &server).await.unwrap();
        }
        if under_way {
            server.lose_before.store(3, Ordering::SeqCst);
            assert!(served(&sessions, &server).await.is_err());
        }
        let id = server.chain.only().0;
        server.chain.close(&id, 2);
        served(&sessions, &server).await.unwrap();
        assert_eq!(server.chain.opens(), 2);
        assert_ne!(sessions.channels().await.unwrap()[0].channel, id);
    }
}

/// Protects: a top-up that is on the chain counts, though its server takes it only once.
#[tokio::test(start_paused = true)]
async fn a_top_up_that_was_made_is_not_refused_for_ever() {
    let server = Server::new(1, 3);
    let sessions = sessions(&Coins::new(&server.chain), &memory(), 100);
    for _ in 0..3 {
        served(&sessions, &server).await.unwrap();
    }
    server.once.store(true, Ordering::SeqCst);
    server.lose_after.store(1, Ordering::SeqCst);
    // The second try of the same call already meets the refusal.
    for _ in 0..3 {
        served(&sessions, &server).await.unwrap();
    }
    assert_eq!(server.chain.only().1.deposit, 6);
    assert_eq!(sessions.channels().await.unwrap()[0].deposit, coins(6));
}

/// Protects: after a top-up the call goes on under its own challenge; the top-up's invoice is paid, and
/// would open nothing.
#[tokio::test]
async fn a_paid_invoice_is_not_gone_on_with() {
    let (shop, sessions) = used_up().await;
    let own = shop.challenge();
    let mut call = sessions
        .begin(slice::from_ref(&own), &origin(), "/")
        .unwrap();
    let presentation = call.next(&*shop).await.unwrap();
    assert_eq!(shop.paid(), 20);
    assert_eq!(presentation.credential().challenge.id, own.id);
}

/// Protects: a call that waits for its turn until its challenge is over deposits for a fresh one, or,
/// where that would not be for its body, nothing.
#[tokio::test]
async fn nothing_is_deposited_for_a_challenge_that_lapsed_in_the_queue() {
    for digest in [None, Some(BodyDigest::of(b"body"))] {
        let server = Server::new(1, 10);
        let late = Arc::new(AtomicBool::new(false));
        let clock = late.clone();
        let sessions = sessions(&Coins::new(&server.chain), &memory(), 100).clock(move || {
            let ahead = 61 * u64::from(clock.load(Ordering::SeqCst));
            Timestamp::now().plus(Duration::from_secs(ahead))
        });
        let mut own = server.challenge();
        own.expires = Some(Timestamp::now().plus(Duration::from_secs(60)));
        own.digest = digest.clone();
        let challenges = slice::from_ref(&own);
        let mut call = sessions.begin(challenges, &origin(), "/").unwrap();
        late.store(true, Ordering::SeqCst);
        let next = call.next(&*server).await;
        match digest {
            None => assert_ne!(next.unwrap().credential().challenge.id, own.id),
            Some(_) => {
                assert!(matches!(next, Err(SessionError::NothingPayable(_))));
                assert!(sessions.channels().await.unwrap().is_empty());
            }
        }
    }
}

/// While the first process decides on what it read, the second acts.
struct Meanwhile(Mutex<Option<(Sessions, Arc<Server>)>>);

impl Between for Meanwhile {
    async fn call<T: Send>(
        &self,
        call: Call<'_>,
        reply: impl Future<Output = Result<T, Fault>> + Send,
    ) -> Result<T, Fault> {
        if let Call::Write(_) = call {
            let other = self.0.lock().unwrap().take();
            if let Some((sessions, server)) = other {
                served(&sessions, &server).await.unwrap();
            }
        }
        reply.await
    }
}

/// Protects: of two processes that find a top-up lapsed, one strikes it out, and neither strikes out
/// what the other makes then.
#[tokio::test(start_paused = true)]
async fn only_what_was_seen_is_struck_out() {
    let server = Server::new(1, 3);
    let wallet = Coins::new(&server.chain);
    let disk = memory();
    let first = sessions(&wallet, &disk, 100);
    for _ in 0..3 {
        served(&first, &server).await.unwrap();
    }
    server.lose_before.store(3, Ordering::SeqCst);
    assert!(served(&first, &server).await.is_err());
    server.chain.lapse("m1");
    let meanwhile = Meanwhile(Mutex::new(Some((first, server.clone()))));
    let slow: Arc<dyn Store> = Arc::new(Proxy::new(disk.clone(), meanwhile));
    let second = sessions(&wallet, &slow, 100);
    served(&second, &server).await.unwrap();
    assert_eq!(server.chain.only().1.deposit, 6, "one top-up, not two");
    assert_eq!(second.channels().await.unwrap()[0].deposit, coins(6));
}

/// Protects: two calls that find their channel gone open one, and both are counted on it.
#[tokio::test(start_paused = true)]
async fn calls_that_lose_their_channel_share_the_next() {
    let server = Server::new(1, 10);
    let sessions = sessions(&Coins::new(&server.chain), &memory(), 100);
    served(&sessions, &server).await.unwrap();
    let id = server.chain.only().0;
    let gate = Barrier::new(2);
    let call = async || {
        let challenge = server.challenge();
        let mut call = sessions.begin(&[challenge], &origin(), "/").unwrap();
        let mut presentation = call.next(&*server).await.unwrap();
        if gate.wait().await.is_leader() {
            server.chain.close(&id, 1);
        }
        gate.wait().await;
        loop {
            let answer = server.take(presentation.credential(), 1);
            if call.answered(presentation, answer).await.unwrap() {
                return call.finish().await.unwrap();
            }
            presentation = call.next(&*server).await.unwrap();
        }
    };
    tokio::join!(call(), call());
    assert_eq!(server.chain.opens(), 2);
    let channel = sessions.channels().await.unwrap().remove(0);
    assert_eq!((channel.due, channel.signed), (coins(2), coins(2)));
}

/// Protects: what was spent of a channel that another process closed stays counted here.
#[tokio::test(start_paused = true)]
async fn a_channel_that_others_closed_stays_counted() {
    let server = Server::new(1, 20);
    let wallet = Coins::new(&server.chain);
    let disk = memory();
    let daemon = sessions(&wallet, &disk, 100);
    for _ in 0..15 {
        served(&daemon, &server).await.unwrap();
    }
    let shell = sessions(&wallet, &disk, 100);
    let key = shell.channels().await.unwrap()[0].key.clone();
    shell.close(&key, &origin(), &*server).await.unwrap();
    for _ in 0..5 {
        served(&daemon, &server).await.unwrap();
    }
    daemon.close(&key, &origin(), &*server).await.unwrap();
    // All of the first, of which nothing is known here, and five of the second.
    assert_eq!(daemon.budget().spent("coin"), coins(25));
}

/// A server whose one resource is gone.
struct Nowhere;

impl Courier for Nowhere {
    async fn ask(&self) -> Result<Vec<Challenge>, String> {
        Err("it answered 404".to_owned())
    }
    async fn deliver(&self, _: &Credential) -> Answer {
        Answer::NotServed { status: 404 }
    }
    async fn deliver_at(&self, _: &str, _: &Credential) -> Answer {
        Answer::NotServed { status: 404 }
    }
}

/// Protects: a close that nobody heard of leaves the channel usable.
#[tokio::test]
async fn a_close_that_was_not_sent_changes_nothing() {
    let shop = Shop::new(1, 10);
    let sessions = process(&shop, &memory());
    served(&sessions, &shop).await.unwrap();
    let channel = sessions.channels().await.unwrap().remove(0);
    let refused = sessions.close(&channel.key, &origin(), &Nowhere).await;
    assert!(matches!(refused, Err(SessionError::Unreachable(_))));
    assert_eq!(sessions.channels().await.unwrap()[0], channel);
    served(&sessions, &shop).await.unwrap();
}

/// A shop whose receipts for top-ups speak of something else.
struct Odd(Arc<Shop>);

impl Courier for Odd {
    async fn ask(&self) -> Result<Vec<Challenge>, String> {
        self.0.ask().await
    }
    async fn deliver(&self, credential: &Credential) -> Answer {
        match self.0.deliver(credential).await {
            Answer::Accepted(_) if self.0.paid() > 10 => {
                let odd = Receipt::new("coins", "0xtransaction", Timestamp::now());
                Answer::Accepted(Some(Box::new(odd)))
            }
            answer => answer,
        }
    }
    async fn deliver_at(&self, _: &str, credential: &Credential) -> Answer {
        self.deliver(credential).await
    }
}

/// Protects: a top-up that was accepted is the payer's to spend, whatever its receipt says.
#[tokio::test]
async fn an_odd_receipt_loses_no_top_up() {
    let (shop, sessions) = used_up().await;
    let mut call = sessions.begin(&[shop.challenge()], &origin(), "/").unwrap();
    let odd = call.next(&Odd(shop.clone())).await;
    assert!(matches!(odd, Err(SessionError::OtherChannel(_))), "{odd:?}");
    let channel = sessions.channels().await.unwrap().remove(0);
    assert_eq!((channel.phase, channel.deposit), ("open", coins(20)));
    served(&sessions, &shop).await.unwrap();
    assert_eq!(shop.paid(), 20);
}
