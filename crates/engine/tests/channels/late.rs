//! Writes that come after others that they were decided before.

use std::{sync::Arc, time::Duration};

use farebox_core::{Schedule, wire::Amount};
use farebox_engine::Refused;
use farebox_testkit::{FaultyStore, Fuse, Network};
use serde_json::json;

use crate::bank::{Got, World};

const MINUTE: Duration = Duration::from_secs(60);

/// Protects: a close that a store held up for longer than its freeze gives back nothing that a stream
/// has burnt meanwhile, and nothing less than the rest.
#[tokio::test(start_paused = true)]
async fn a_late_close_gives_back_what_was_not_burnt() {
    let world = World::new(Schedule::default());
    let store = Arc::new(FaultyStore::new(world.disk.clone(), Network::default()));
    let slow = Arc::new(world.boot_on(store.clone(), Fuse::endless()));
    let quick = world.boot();
    quick
        .go(json!({"do": "open", "n": 100, "chain": false}))
        .await
        .unwrap();
    store.pause_before(|write| write.puts("chan:", r#""closed":true"#));
    let close = slow.credential(json!({"do": "close"})).await;
    let closing = tokio::spawn({
        let (slow, close) = (slow.clone(), close.clone());
        async move { slow.present(&close).await.map(drop) }
    });
    store.reached().await;
    world.pass(2 * MINUTE);
    let mut tap = quick.meter().tap().unwrap();
    tap.charge(10).await.unwrap();
    store.release();
    let closed = closing.await.unwrap();
    assert!(matches!(closed, Err(Refused::Pending { .. })), "{closed:?}");
    assert!(slow.meter().state().await.unwrap().closed);
    assert_eq!(
        world.ledger.lock().unwrap().returned,
        0,
        "it is not known yet"
    );
    tap.finish().await.unwrap();
    let Ok(Got::Managed(_)) = slow.present(&close).await else {
        panic!("closed and given back");
    };
    let state = slow.meter().state().await.unwrap();
    let now = (state.spent.get(), state.settled.get(), state.refunded.get());
    assert_eq!(now, (10, 10, 90));
    world.balances(&slow, "closed").await;
}

/// Protects: a payer's request to close by force outlives a top-up that it came after, however late
/// that is recorded.
#[tokio::test(start_paused = true)]
async fn a_late_top_up_takes_no_request_back() {
    let world = World::new(Schedule::default().watch(MINUTE));
    let store = Arc::new(FaultyStore::new(world.disk.clone(), Network::default()));
    let slow = Arc::new(world.boot_on(store.clone(), Fuse::endless()));
    let quick = world.boot();
    quick
        .go(json!({"do": "open", "n": 100, "chain": true}))
        .await
        .unwrap();
    store.pause_before(|write| write.puts("chan:", r#""deposit":"150""#));
    let top_up = tokio::spawn({
        let slow = slow.clone();
        async move { slow.go(json!({"do": "topup", "n": 50, "proof": "p"})).await }
    });
    store.reached().await;
    world.ledger.lock().unwrap().close_requested = true;
    world.pass(2 * MINUTE);
    quick.engine.upkeep().await.unwrap();
    assert!(quick.meter().state().await.unwrap().close_requested);
    store.release();
    top_up.await.unwrap().unwrap();
    let state = quick.meter().state().await.unwrap();
    assert_eq!(state.deposit, Amount::new(150));
    assert!(state.close_requested);
    world.balances(&quick, "topped up").await;
}
