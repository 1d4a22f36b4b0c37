//! Clients that are killed, stores that fail and answers that get lost: never a second deposit
//! while nobody knows about the first.
#![allow(clippy::unwrap_used, reason = "tests may panic")]

mod support;

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use farebox_client::session::{Answer, Courier, FileStore, SessionError, Sessions, Store};
use farebox_core::{
    Fault,
    wire::{Challenge, Credential},
};
use farebox_testkit::{Between, Call, Proxy};
use support::{Coins, Seller as _, Server, coins, memory, origin, served, sessions};

/// A disk whose `n`th write fails: undone, or done and the reply lost.
struct Failing {
    writes: AtomicU32,
    nth: u32,
    done: bool,
}

impl Between for Failing {
    async fn call<T: Send>(
        &self,
        call: Call<'_>,
        reply: impl Future<Output = Result<T, Fault>> + Send,
    ) -> Result<T, Fault> {
        if !matches!(call, Call::Write(_)) {
            return reply.await;
        }
        let now = self.writes.fetch_add(1, Ordering::SeqCst) + 1;
        // A process that lost its store does not get it back.
        if now > self.nth || (now == self.nth && !self.done) {
            return Err(Fault::new("the disk is gone"));
        }
        let swapped = reply.await;
        match now == self.nth {
            true => Err(Fault::new("the disk is gone")),
            false => swapped,
        }
    }
}

/// Protects: wherever the store fails, in opening, spending or topping up, the next process goes on
/// with the same channel: one deposit, one top-up, no call unpaid, nothing signed beyond the calls.
#[tokio::test(start_paused = true)]
async fn a_process_that_dies_at_any_write_leaves_one_channel() {
    let mut failed = 0;
    for nth in 1..20 {
        for done in [false, true] {
            let server = Server::new(1, 3);
            let wallet = Coins::new(&server.chain);
            let disk = memory();
            let failing = Failing {
                writes: AtomicU32::new(0),
                nth,
                done,
            };
            let store: Arc<dyn Store> = Arc::new(Proxy::new(disk.clone(), failing));
            let first = sessions(&wallet, &store, 100);
            let mut calls = 0;
            while calls < 5 && served(&first, &server).await.is_ok() {
                calls += 1;
            }
            failed += u32::from(calls < 5);
            let second = sessions(&wallet, &disk, 100);
            for _ in calls..8 {
                served(&second, &server).await.unwrap();
            }
            let (id, locked) = server.chain.only();
            let context = format!("write {nth}, done: {done}, {calls} calls before");
            assert_eq!(server.chain.opens(), 1, "{context}");
            assert!(server.books(&id).spent >= 8, "{context}");
            assert!(locked.deposit <= 12, "{context}: {}", locked.deposit);
            assert!(wallet.most_signed() <= 10, "{context}");
        }
    }
    assert!(failed > 10, "the points that fail are reached: {failed}");
}

/// A server, and a client of it.
fn market(suggested: u128) -> (Arc<Server>, Sessions) {
    let server = Server::new(1, suggested);
    let wallet = Coins::new(&server.chain);
    let sessions = sessions(&wallet, &memory(), 100);
    (server, sessions)
}

/// What loses the next credentials, before the server sees them or after.
fn losing(server: &Server, before: bool) -> &AtomicU32 {
    match before {
        true => &server.lose_before,
        false => &server.lose_after,
    }
}

/// A deposit of three that is spent, and another that got lost as often as it was shown.
async fn lost_top_up(before: bool) -> (Arc<Server>, Sessions) {
    let (server, sessions) = market(3);
    for _ in 0..3 {
        served(&sessions, &server).await.unwrap();
    }
    losing(&server, before).store(3, Ordering::SeqCst);
    let lost = served(&sessions, &server).await;
    assert!(matches!(lost, Err(SessionError::OutcomeUnknown { .. })));
    assert_eq!(sessions.budget().spent("coin"), coins(6));
    (server, sessions)
}

/// It was made once, and counted once.
async fn topped_up(server: &Arc<Server>, sessions: &Sessions) {
    served(sessions, server).await.unwrap();
    assert_eq!(server.chain.only().1.deposit, 6);
    assert_eq!(sessions.budget().spent("coin"), coins(6));
}

/// Protects: a deposit whose presentation or answer got lost is presented again, not made again.
#[tokio::test(start_paused = true)]
async fn a_lost_deposit_is_found_again() {
    for before in [true, false] {
        let server = Server::new(1, 10);
        let wallet = Coins::new(&server.chain);
        let disk = memory();
        losing(&server, before).store(1, Ordering::SeqCst);
        let first = sessions(&wallet, &disk, 100);
        let lost = served(&first, &server).await;
        assert!(matches!(lost, Err(SessionError::OutcomeUnknown { .. })));
        assert_eq!(first.budget().spent("coin"), coins(10), "it stays counted");
        served(&first, &server).await.unwrap();
        assert_eq!(first.budget().spent("coin"), coins(10), "and only once");
        // And so in another process.
        served(&sessions(&wallet, &disk, 100), &server)
            .await
            .unwrap();
        assert_eq!(server.chain.opens(), 1, "lost before: {before}");
    }
}

/// Protects: only the rail's word that a deposit has become impossible makes room for another.
#[tokio::test(start_paused = true)]
async fn a_deposit_that_lapsed_is_made_anew() {
    let (server, sessions) = market(10);
    server.lose_before.store(1, Ordering::SeqCst);
    assert!(served(&sessions, &server).await.is_err());
    let id = sessions.channels().await.unwrap()[0].channel.clone();
    server.chain.lapse(&id);
    served(&sessions, &server).await.unwrap();
    assert_ne!(server.chain.only().0, id);
    assert_eq!(sessions.budget().spent("coin"), coins(10));
}

/// Protects: a server that refuses a deposit may still make it, so it is not replaced.
#[tokio::test(start_paused = true)]
async fn a_refused_deposit_is_not_replaced() {
    let (server, sessions) = market(10);
    let mut drafts = std::collections::BTreeSet::new();
    *server.refuses.lock().unwrap() = Some("open");
    for _ in 0..3 {
        let refused = served(&sessions, &server).await;
        assert!(matches!(refused, Err(SessionError::NotAccepted { .. })));
        drafts.insert(sessions.channels().await.unwrap()[0].channel.clone());
    }
    assert_eq!(drafts.len(), 1, "the same deposit each time");
    assert_eq!(sessions.budget().spent("coin"), coins(10));
}

/// Protects: a top-up whose answer got lost is shown again and counted once; one that lapsed is
/// struck out.
#[tokio::test(start_paused = true)]
async fn a_lost_top_up_is_found_again() {
    for (before, lapses) in [(true, false), (false, false), (true, true)] {
        let (server, sessions) = lost_top_up(before).await;
        if lapses {
            server.chain.lapse("m1");
        }
        topped_up(&server, &sessions).await;
    }
}

/// Protects: a top-up whose answer got lost at one resource is finished at another of the same payee.
#[tokio::test(start_paused = true)]
async fn a_lost_top_up_is_finished_elsewhere() {
    for before in [true, false] {
        let (server, sessions) = lost_top_up(before).await;
        let asked = server.challenges.load(Ordering::SeqCst);
        server.oldest.store(asked, Ordering::SeqCst);
        topped_up(&server, &sessions).await;
    }
}

/// Protects: calls whose future is dropped at any point leave the channel usable.
#[tokio::test(start_paused = true)]
async fn abandoned_calls_do_no_harm() {
    let server = Server::new(1, 1_000);
    let wallet = Coins::new(&server.chain);
    let disk = memory();
    let sessions = sessions(&wallet, &disk, 1_000);
    for polls in 0..40 {
        let call = served(&sessions, &server);
        let mut call = std::pin::pin!(call);
        for _ in 0..polls {
            let waker = std::task::Waker::noop();
            let mut cx = std::task::Context::from_waker(waker);
            if call.as_mut().poll(&mut cx).is_ready() {
                break;
            }
        }
    }
    served(&sessions, &server).await.unwrap();
    assert_eq!(server.chain.opens(), 1);
}

/// Protects: a channel file that cannot be read is not taken for an empty one, and nobody else may
/// read what is in it.
#[tokio::test]
async fn a_damaged_file_opens_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("channels.json");
    let server = Server::new(1, 10);
    let wallet = Coins::new(&server.chain);
    let store: Arc<dyn Store> = Arc::new(FileStore::new(&path));
    served(&sessions(&wallet, &store, 10), &server)
        .await
        .unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0);
    }
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let refused = served(&sessions(&wallet, &store, 10), &server).await;
    assert!(matches!(refused, Err(SessionError::Store(_))));
    assert_eq!(server.chain.opens(), 1);
}

/// Protects: a close that is refused while a top-up may be on its way leaves it on record, so that
/// it is not made twice.
#[tokio::test(start_paused = true)]
async fn a_refused_close_leaves_a_top_up_on_record() {
    struct Refusing<'a>(&'a Server);
    impl Courier for Refusing<'_> {
        async fn ask(&self) -> Result<Vec<Challenge>, String> {
            self.0.ask().await
        }
        async fn deliver(&self, _: &Credential) -> Answer {
            self.0.refuse("verification-failed")
        }
        async fn deliver_at(&self, _: &str, credential: &Credential) -> Answer {
            self.deliver(credential).await
        }
    }
    let (server, sessions) = lost_top_up(true).await;
    let channel = sessions.channels().await.unwrap().remove(0);
    let refused = sessions
        .close(&channel.key, &origin(), &Refusing(&server))
        .await;
    assert!(matches!(refused, Err(SessionError::NotAccepted { .. })));
    let after = sessions.channels().await.unwrap().remove(0);
    assert_eq!((after.phase, after), ("topping-up", channel));
    topped_up(&server, &sessions).await;
}
