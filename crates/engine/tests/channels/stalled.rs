//! Streams that nobody polls: their payer has stopped reading, and keeps the connection.

use std::{sync::Arc, time::Duration};

use farebox_core::{Schedule, wire::Amount};
use farebox_engine::Tap;
use farebox_testkit::{FaultyStore, Fuse, Network};
use serde_json::json;

use crate::bank::{Process, World};

async fn opened(world: &World, process: &Process, n: u64) -> Tap {
    process
        .go(json!({"do": "open", "n": n, "chain": false}))
        .await
        .unwrap();
    world.balances(process, "opened").await;
    process.meter().tap().unwrap()
}

/// Both clocks go on, in steps that are shorter than a lease.
async fn pass(world: &World, seconds: u64) {
    for _ in 0..seconds {
        tokio::time::sleep(Duration::from_secs(1)).await;
        world.pass(Duration::from_secs(1));
    }
}

/// Protects: what a stream was served whose payer stopped reading is counted and not given back, and
/// its payer's close is made.
#[tokio::test(start_paused = true)]
async fn a_close_gives_back_nothing_that_a_stalled_stream_burnt() {
    let world = World::new(Schedule::default());
    let process = world.boot();
    let mut tap = opened(&world, &process, 100).await;
    tap.charge(70).await.unwrap();
    pass(&world, 90).await;
    process.go(json!({"do": "close"})).await.unwrap();
    let state = process.meter().state().await.unwrap();
    let books = (state.spent.get(), state.settled.get(), state.refunded.get());
    assert_eq!(books, (70, 70, 30));
    assert_eq!(world.ledger.lock().unwrap().returned, 30);
    tap.finish().await.unwrap();
    let state = process.meter().state().await.unwrap();
    assert_eq!((state.spent.get(), state.units), (70, 70), "counted once");
    world.balances(&process, "closed").await;
}

/// Protects: what a stalled stream holds is not spent a second time, and what it does not burn
/// becomes others' bit by bit.
#[tokio::test(start_paused = true)]
async fn a_stalled_stream_holds_on_to_what_it_has() {
    let world = World::new(Schedule::default());
    let process = world.boot();
    let mut tap = opened(&world, &process, 2_000).await;
    tap.charge(1_000).await.unwrap();
    for _ in 0..10 {
        pass(&world, 30).await;
        let state = process.meter().state().await.unwrap();
        assert!(state.held.get() >= 16, "{state:?}");
        assert!(state.spent.get() >= 1_016, "{state:?}");
    }
    let state = process.meter().state().await.unwrap();
    assert_eq!(
        (state.spent.get(), state.held.get(), state.units),
        (1_016, 16, 1_000)
    );
    assert!(tap.burn(Amount::new(16), 16), "it goes on with it");
    assert!(!tap.burn(Amount::new(1), 1));
    tap.charge(1).await.unwrap();
    tap.finish().await.unwrap();
    assert_eq!(
        process.meter().state().await.unwrap().spent,
        Amount::new(1_017)
    );
}

/// Protects: a task that counts what was burnt counts it once, whichever replies are lost, and while
/// the stream goes on.
#[tokio::test(start_paused = true)]
async fn what_a_slow_stream_burns_is_counted_once() {
    for lost in 0..8 {
        let world = World::new(Schedule::default());
        let store = Arc::new(FaultyStore::new(world.disk.clone(), Network::default()));
        let process = world.boot_on(store.clone(), Fuse::endless());
        let mut tap = opened(&world, &process, 10_000).await;
        tap.charge(1).await.unwrap();
        let left = std::sync::atomic::AtomicI64::new(lost);
        store.lose_reply_of(move |write| {
            let one = i64::from(write.key.starts_with("chan:"));
            left.fetch_sub(one, std::sync::atomic::Ordering::SeqCst) < one
        });
        for _ in 0..200 {
            pass(&world, 1).await;
            tap.charge(3).await.unwrap();
        }
        tap.finish().await.unwrap();
        let state = process.meter().state().await.unwrap();
        assert_eq!((state.spent.get(), state.units), (601, 601), "{lost}");
        assert_eq!(state.held, Amount::new(0), "{lost}");
    }
}
