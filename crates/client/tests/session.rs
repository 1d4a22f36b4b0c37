//! Calls on channels, with an honest server: what is opened, signed, topped up and closed.
#![allow(clippy::unwrap_used, reason = "tests may panic")]

mod support;

use std::sync::{Arc, atomic::Ordering};

use farebox_client::session::{DepositLimit, FileStore, SessionError, Sessions, Store};
use farebox_core::wire::Amount;
use serde_json::json;
use support::{Coins, Seller as _, Server, budget, call, coins, memory, origin, served, sessions};

/// Protects: the whole way, and that the books balance at its end: deposit = taken + refunded, and
/// the budget counts what was taken and nothing else.
#[tokio::test]
async fn open_spend_top_up_close() {
    let server = Server::new(2, 10);
    let wallet = Coins::new(&server.chain);
    let store = memory();
    let sessions = sessions(&wallet, &store, 30);
    for _ in 0..7 {
        served(&sessions, &server).await.unwrap();
    }
    let (id, locked) = server.chain.only();
    assert_eq!(locked.deposit, 20, "topped up once, by what is usual");
    assert_eq!(server.books(&id).spent, 14);
    assert_eq!(wallet.most_signed(), 14, "nothing is signed ahead of calls");
    assert_eq!(sessions.budget().spent("coin"), coins(20));
    let channel = &sessions.channels().await.unwrap()[0];
    assert_eq!((channel.signed, channel.due), (coins(14), coins(14)));
    let closed = sessions
        .close(&channel.key, &origin(), &*server)
        .await
        .unwrap();
    assert!(closed.confirmed);
    assert_eq!((closed.spent, closed.refunded), (coins(14), coins(6)));
    assert_eq!(sessions.budget().spent("coin"), coins(14));
    assert!(sessions.channels().await.unwrap().is_empty());
    // A call after that opens another.
    served(&sessions, &server).await.unwrap();
    assert_eq!(server.chain.opens(), 2);
}

/// Protects: many calls at once share one channel, each is served, and no voucher is signed for
/// more than all of them cost.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn calls_at_once_share_one_channel() {
    let server = Server::new(3, 30);
    let wallet = Coins::new(&server.chain);
    let sessions = sessions(&wallet, &memory(), 10_000);
    let calls: Vec<_> = (0..100)
        .map(|_| {
            let (sessions, server) = (sessions.clone(), server.clone());
            tokio::spawn(async move { served(&sessions, &server).await })
        })
        .collect();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    let (id, _) = server.chain.only();
    assert_eq!(server.books(&id).spent, 300);
    assert_eq!(wallet.most_signed(), 300);
}

/// Protects: a receipt of the channel may count what streams beside received and have not paid for
/// yet, and no more than that and a step.
#[tokio::test(start_paused = true)]
async fn a_receipt_counts_the_streams_beside() {
    let server = Server::new(1, 100);
    let wallet = Coins::new(&server.chain);
    let sessions = sessions(&wallet, &memory(), 100);
    let mut ends = call(&sessions, &server).await.unwrap();
    let goes_on = call(&sessions, &server).await.unwrap();
    let id = server.chain.only().0;
    ends.event();
    let counter = goes_on.counter();
    let receipt = |spent| {
        let mut books = server.books(&id);
        books.spent = spent;
        server.receipt(&id, books)
    };
    // What the other stream was sent may arrive a little later.
    let arrives = async {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        (0..5).for_each(|_| counter.event());
    };
    let told = receipt(6);
    let (concluded, ()) = tokio::join!(ends.concluded(&told), arrives);
    concluded.unwrap();
    let refused = ends.concluded(&receipt(8)).await;
    assert!(
        matches!(refused, Err(SessionError::Overcharged { .. })),
        "{refused:?}"
    );
}

/// Protects: however many calls run at once, none of them makes the channel hold or the wallet
/// sign more than the limit.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn calls_at_once_stop_at_the_limit() {
    let server = Server::new(1, 10);
    let wallet = Coins::new(&server.chain);
    let sessions = sessions(&wallet, &memory(), 25);
    let calls: Vec<_> = (0..60)
        .map(|_| {
            let (sessions, server) = (sessions.clone(), server.clone());
            tokio::spawn(async move { served(&sessions, &server).await })
        })
        .collect();
    let mut done = 0;
    for call in calls {
        match call.await.unwrap() {
            Ok(()) => done += 1,
            Err(SessionError::MaxDeposit { max_deposit, .. }) => {
                assert_eq!(max_deposit, coins(25));
            }
            Err(other) => panic!("{other}"),
        }
    }
    let (id, locked) = server.chain.only();
    assert_eq!((done, locked.deposit, wallet.most_signed()), (25, 25, 25));
    assert_eq!(server.books(&id).spent, 25);
}

/// Protects: processes that share a file share the channel: one deposit, and each call paid.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_processes_on_one_file_share_one_channel() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("channels.json");
    let server = Server::new(1, 100);
    let wallet = Coins::new(&server.chain);
    let calls: Vec<_> = (0..2)
        .map(|_| {
            // Nothing in common but the file.
            let store: Arc<dyn Store> = Arc::new(FileStore::new(&path));
            let (sessions, server) = (sessions(&wallet, &store, 100), server.clone());
            tokio::spawn(async move {
                for _ in 0..20 {
                    served(&sessions, &server).await.unwrap();
                }
            })
        })
        .collect();
    for call in calls {
        call.await.unwrap();
    }
    let (id, _) = server.chain.only();
    assert_eq!(server.books(&id).spent, 40);
    assert_eq!(wallet.most_signed(), 40);
}

/// Protects: SQLite, by the plugin that servers use, is a channel store too, and a second process
/// goes on with what the first left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_outlives_its_process() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("channels.db");
    let server = Server::new(1, 50);
    let wallet = Coins::new(&server.chain);
    for _ in 0..3 {
        let store = farebox_store_sqlite::SqliteStore::open(&path)
            .await
            .unwrap();
        let store: Arc<dyn Store> = Arc::new(store);
        let sessions = sessions(&wallet, &store, 50);
        served(&sessions, &server).await.unwrap();
    }
    let (id, locked) = server.chain.only();
    assert_eq!((locked.deposit, server.books(&id).spent), (50, 3));
}

/// Protects: what another process left to be spent counts in this one's budget before anything is
/// signed.
#[tokio::test]
async fn a_channel_that_is_found_counts_in_the_budget() {
    let server = Server::new(1, 50);
    let wallet = Coins::new(&server.chain);
    let store = memory();
    served(&sessions(&wallet, &store, 50), &server)
        .await
        .unwrap();
    let poor = Sessions::new(budget(40), store.clone())
        .wallet(wallet.clone())
        .limit(DepositLimit::new("coin", coins(50)));
    let refused = served(&poor, &server).await;
    assert!(matches!(refused, Err(SessionError::OverBudget(_))));
    assert_eq!(wallet.most_signed(), 1);
    let able = Sessions::new(budget(49), store)
        .wallet(wallet.clone())
        .limit(DepositLimit::new("coin", coins(50)));
    served(&able, &server).await.unwrap();
    assert_eq!(able.budget().spent("coin"), coins(49));
    let key = able.channels().await.unwrap()[0].key.clone();
    able.close(&key, &origin(), &*server).await.unwrap();
    assert_eq!(able.budget().spent("coin"), coins(1), "its own call only");
}

/// Protects: nothing is deposited over plain http to another machine, in a currency without a
/// limit, or above the limit.
#[tokio::test]
async fn what_must_not_be_paid_is_not() {
    let server = Server::new(5, 10);
    let wallet = Coins::new(&server.chain);
    let sessions = sessions(&wallet, &memory(), 4);
    let far = farebox_client::Origin::new("http", "example.com", 80);
    let refused = sessions.begin(&[server.challenge()], &far, "/");
    assert!(matches!(refused, Err(SessionError::InsecureOrigin(_))));
    let refused = served(&sessions, &server).await;
    assert!(matches!(refused, Err(SessionError::MaxDeposit { .. })));
    let none = Sessions::new(budget(100), memory()).wallet(wallet.clone());
    let refused = served(&none, &server).await;
    assert!(matches!(refused, Err(SessionError::NoLimit { .. })));
    assert_eq!((server.chain.opens(), wallet.most_signed()), (0, 0));
}

/// Protects: a channel that the server closed is replaced by another, once per call, and its
/// refund is not counted as spent.
#[tokio::test]
async fn a_channel_that_was_closed_is_replaced() {
    let server = Server::new(1, 10);
    let wallet = Coins::new(&server.chain);
    let sessions = sessions(&wallet, &memory(), 10);
    served(&sessions, &server).await.unwrap();
    let (id, _) = server.chain.only();
    server.chain.close(&id, 1);
    served(&sessions, &server).await.unwrap();
    assert_eq!(server.chain.opens(), 2);
    assert_eq!(sessions.budget().spent("coin"), coins(11));
}

/// Protects: with its records gone, a wallet goes on with the channel the server names, if the rail
/// knows it, and opens one if not.
#[tokio::test]
async fn a_channel_the_server_names_is_checked() {
    let server = Server::new(1, 10);
    let wallet = Coins::new(&server.chain);
    served(&sessions(&wallet, &memory(), 10), &server)
        .await
        .unwrap();
    let (id, _) = server.chain.only();
    let forgetful = sessions(&wallet, &memory(), 10);
    let snapshot = json!({ "channel": id, "signed": 1 });
    let begun = forgetful
        .begin(&[server.challenge()], &origin(), "/")
        .unwrap();
    let mut begun = begun.snapshot(snapshot);
    let presentation = begun.next(&*server).await.unwrap();
    let answer = server.take(presentation.credential(), 1);
    assert!(begun.answered(presentation, answer).await.unwrap());
    assert_eq!((server.chain.opens(), server.books(&id).spent), (1, 2));
    *server.hint.lock().unwrap() = Some("no such channel".to_owned());
    served(&sessions(&wallet, &memory(), 10), &server)
        .await
        .unwrap();
    assert_eq!(server.chain.opens(), 2);
}

/// Protects: a server that wants vouchers to differ by a minimum gets that and no more.
#[tokio::test]
async fn the_least_difference_is_kept() {
    let mut server = Server::new(1, 100);
    Arc::get_mut(&mut server).unwrap().min_delta = 10;
    let wallet = Coins::new(&server.chain);
    let sessions = sessions(&wallet, &memory(), 100).ahead(10);
    for _ in 0..25 {
        served(&sessions, &server).await.unwrap();
    }
    assert_eq!(wallet.most_signed(), 30);
}

/// Protects: a call that is not served does not count.
#[tokio::test]
async fn calls_that_fail_do_not_add_up() {
    let server = Server::new(1, 10);
    let wallet = Coins::new(&server.chain);
    let sessions = sessions(&wallet, &memory(), 10);
    served(&sessions, &server).await.unwrap();
    for _ in 0..30 {
        let mut call = sessions
            .begin(&[server.challenge()], &origin(), "/")
            .unwrap();
        let presentation = call.next(&*server).await.unwrap();
        let answer = farebox_client::session::Answer::NotServed { status: 404 };
        assert!(call.answered(presentation, answer).await.unwrap());
        call.finish().await.unwrap();
    }
    assert_eq!(wallet.most_signed(), 2, "one call ahead of what was served");
}

/// Protects: a call that is told that streams hold the balance goes on with what it had signed.
#[tokio::test]
async fn calls_that_come_back_do_not_add_up() {
    let server = Server::new(1, 10);
    let wallet = Coins::new(&server.chain);
    let sessions = sessions(&wallet, &memory(), 10);
    served(&sessions, &server).await.unwrap();
    let mut call = sessions
        .begin(&[server.challenge()], &origin(), "/")
        .unwrap();
    let retry_after = std::time::Duration::from_secs(1);
    for _ in 0..30 {
        let presentation = call.next(&*server).await.unwrap();
        let answer = farebox_client::session::Answer::Busy { retry_after };
        let busy = call.answered(presentation, answer).await;
        assert!(matches!(busy, Err(SessionError::Busy { .. })), "{busy:?}");
    }
    drop(call);
    served(&sessions, &server).await.unwrap();
    assert_eq!(wallet.most_signed(), 2, "one call ahead of what was served");
}

/// Protects: one call costs no more than it may.
#[tokio::test]
async fn one_call_has_its_own_limit() {
    let server = Server::new(1, 100);
    let wallet = Coins::new(&server.chain);
    let limit = DepositLimit::new("coin", coins(100)).per_call(coins(5));
    let sessions = Sessions::new(budget(100), memory())
        .wallet(wallet.clone())
        .limit(limit);
    let mut call = call(&sessions, &server).await.unwrap();
    let (id, _) = server.chain.only();
    let mut paid = 0;
    let refused = loop {
        call.event();
        let demand = farebox_client::session::Demand {
            channel: id.clone(),
            required: Some(Amount::new(paid + 2)),
        };
        match call.demand(&demand, &*server).await {
            Ok(()) => paid += 1,
            Err(error) => break error,
        }
    };
    assert!(
        matches!(refused, SessionError::CallLimit { .. }),
        "{refused}"
    );
    assert_eq!(wallet.most_signed(), 5);
    assert_eq!(wallet.vouchers.load(Ordering::SeqCst), 4);
}
