//! What is done between requests, and that a crash anywhere leaves the books right.

use std::{num::NonZeroU64, time::Duration};

use farebox_core::{Schedule, wire::Amount};
use farebox_testkit::{Fuse, FusedStore};
use serde_json::{Value, json};

use crate::bank::{Process, World};

const MINUTE: Duration = Duration::from_secs(60);

async fn opened(world: &World, chain: bool) -> Process {
    let process = world.boot();
    process
        .go(json!({"do": "open", "n": 100, "chain": chain}))
        .await
        .unwrap();
    if chain {
        process
            .go(json!({"do": "voucher", "to": 50}))
            .await
            .unwrap();
    }
    process
}

fn orders(world: &World) -> Vec<String> {
    world.ledger.lock().unwrap().orders.clone()
}

/// Waits for what goes on behind the caller's back.
async fn until(mut done: impl FnMut() -> bool) {
    tokio::time::timeout(Duration::from_secs(60), async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await
    .unwrap();
}

/// Protects: what is served is settled every so many units, without a round of the reconciler.
#[tokio::test(start_paused = true)]
async fn units_settle_by_themselves() {
    let world = World::new(Schedule::default().units(NonZeroU64::new(10).unwrap()));
    let process = opened(&world, true).await;
    process.meter().debit(Amount::new(9)).await.unwrap();
    assert_eq!(orders(&world), ["open 100"]);
    process.meter().debit(Amount::new(1)).await.unwrap();
    until(|| orders(&world).len() == 2).await;
    assert_eq!(orders(&world)[1], "settle 50");
    until_settled(&process, 50).await;
    world.balances(&process, "settled").await;
}

async fn until_settled(process: &Process, to: u128) {
    tokio::time::timeout(Duration::from_secs(60), async {
        while process.meter().state().await.unwrap().settled.get() != to {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await
    .unwrap();
}

/// Protects: the interval and the amount settle too, and nothing is settled twice.
#[tokio::test(start_paused = true)]
async fn an_interval_settles_what_is_spent() {
    let world = World::new(Schedule::default().every(5 * MINUTE));
    let process = opened(&world, true).await;
    world.pass(10 * MINUTE);
    assert_eq!(
        process.engine.upkeep().await.unwrap().settled,
        0,
        "nothing spent"
    );
    let lease = process.meter().lease(Amount::new(1)).await.unwrap();
    assert_eq!(
        process.engine.upkeep().await.unwrap().settled,
        0,
        "held is not spent"
    );
    drop(lease);
    // The debit makes it due, and somebody at once does it.
    process.meter().debit(Amount::new(1)).await.unwrap();
    until_settled(&process, 50).await;
    assert_eq!(process.engine.upkeep().await.unwrap().asked, 0);
    world.pass(10 * MINUTE);
    assert_eq!(
        process.engine.upkeep().await.unwrap().asked,
        0,
        "all is settled"
    );
    process
        .go(json!({"do": "voucher", "to": 90}))
        .await
        .unwrap();
    process.meter().debit(Amount::new(60)).await.unwrap();
    until_settled(&process, 90).await;
    assert_eq!(orders(&world), ["open 100", "settle 50", "settle 90"]);
    world.balances(&process, "settled").await;
}

/// Protects: what nobody uses is closed, its payer gets the rest, and a stream keeps it open.
#[tokio::test(start_paused = true)]
async fn an_idle_channel_is_closed_and_refunded() {
    for chain in [true, false] {
        let world = World::new(Schedule::default().idle(5 * MINUTE));
        let process = opened(&world, chain).await;
        process.meter().debit(Amount::new(20)).await.unwrap();
        let lease = process.meter().lease(Amount::new(1)).await.unwrap();
        world.pass(4 * MINUTE);
        assert_eq!(process.engine.upkeep().await.unwrap().closed, 0);
        lease.finish().await.unwrap();
        world.pass(4 * MINUTE);
        assert_eq!(
            process.engine.upkeep().await.unwrap().closed,
            0,
            "a stream used it"
        );
        world.pass(2 * MINUTE);
        let upkept = process.engine.upkeep().await.unwrap();
        assert_eq!((upkept.closed, upkept.refunded), (1, usize::from(!chain)));
        assert!(process.go(json!({"do": "bearer"})).await.is_err());
        world.balances(&process, "idle").await;
        assert_eq!(process.engine.upkeep().await.unwrap().asked, 0);
    }
}

/// Protects: a payer's forced close is seen without any request, and what is authorised is settled
/// before the payer can take it.
#[tokio::test(start_paused = true)]
async fn a_forced_close_is_seen_and_settled() {
    let world = World::new(Schedule::default().watch(MINUTE));
    let process = opened(&world, true).await;
    process.meter().debit(Amount::new(5)).await.unwrap();
    world.ledger.lock().unwrap().close_requested = true;
    world.pass(2 * MINUTE);
    process.engine.upkeep().await.unwrap();
    assert!(process.meter().debit(Amount::new(1)).await.is_err());
    until_settled(&process, 50).await;
    world.balances(&process, "forced").await;
}

/// One action, killed before effect `n`; then the process that cleans up, killed before `m`.
async fn crash(chain: bool, action: &Value, n: i64, m: i64) -> (bool, bool) {
    let schedule = Schedule::default().idle(60 * MINUTE).every(30 * MINUTE);
    let world = World::new(schedule);
    let well = opened(&world, chain).await;
    well.meter().debit(Amount::new(20)).await.unwrap();
    let act = async |fuse: &Fuse| {
        let store = FusedStore::new(world.disk.clone(), fuse.clone());
        let process = world.boot_on(std::sync::Arc::new(store), fuse.clone());
        match action["do"].as_str() {
            Some("upkeep") => drop(process.engine.upkeep().await),
            Some("stream") => {
                if let Ok(mut tap) = process.meter().tap() {
                    let _ = tap.charge(3).await;
                    let _ = tap.finish().await;
                }
            }
            Some("request") => {
                let credential = process.credential(json!({"do": "bearer"})).await;
                if let Ok(crate::bank::Got::Serve(mut serving)) = process.present(&credential).await
                    && serving.reserve(3).await.is_ok()
                {
                    let _ = serving.delivered(None).await;
                }
            }
            _ => drop(process.go(action.clone()).await),
        }
        process
    };
    if action["do"] == "upkeep" {
        world.pass(Duration::from_secs(action["after"].as_u64().unwrap()));
    }
    let fuse = Fuse::new(n);
    act(&fuse).await;
    let first = !fuse.is_dead();
    world.pass(2 * MINUTE);
    let fuse = Fuse::new(m);
    let store = FusedStore::new(world.disk.clone(), fuse.clone());
    let second = world.boot_on(std::sync::Arc::new(store), fuse.clone());
    let _ = second.engine.reconcile().await;
    let _ = second.engine.upkeep().await;
    let survived = (first, !fuse.is_dead());
    // And at last one that lives: all is looked up, closed and accounted for.
    let last = world.boot();
    let at = format!("{action} {n} {m}");
    for _ in 0..4 {
        world.pass(2 * MINUTE);
        last.engine.reconcile().await.unwrap();
        last.engine.upkeep().await.unwrap();
    }
    world.balances(&last, &at).await;
    world.pass(120 * MINUTE);
    for _ in 0..4 {
        world.pass(2 * MINUTE);
        last.engine.reconcile().await.unwrap();
        last.engine.upkeep().await.unwrap();
    }
    let state = last.meter().state().await.unwrap();
    assert!(state.closed, "{at}: wedged: {state:?}");
    assert!(state.unaccounted().is_zero(), "{at}: {state:?}");
    world.balances(&last, &at).await;
    survived
}

/// Protects: a crash between any two effects of an errand, a top-up, a close, a voucher or a debit
/// leaves no amount unaccounted for, and no channel that cannot be closed.
#[tokio::test(start_paused = true)]
async fn the_books_balance_whenever_a_process_dies() {
    for chain in [true, false] {
        for action in [
            json!({"do": "upkeep", "after": 2_000}),
            json!({"do": "upkeep", "after": 4_000}),
            json!({"do": "topup", "n": 30, "proof": "p"}),
            json!({"do": "voucher", "to": if chain { 70 } else { 100 }}),
            json!({"do": "request"}),
            json!({"do": "stream"}),
            json!({"do": "close"}),
        ] {
            let mut points = 0;
            'first: for n in 0.. {
                for m in 0.. {
                    match crash(chain, &action, n, m).await {
                        (true, true) => break 'first,
                        (false, true) => break,
                        _ => {}
                    }
                }
                points = n;
            }
            let least = match (action["do"].as_str(), chain) {
                (Some("upkeep"), _) if action["after"] == 2_000 => i64::from(chain) * 6,
                (Some("upkeep" | "close" | "topup"), _) => 4,
                (Some("request" | "stream"), _) => 1,
                _ => 0,
            };
            assert!(points >= least, "{action} on {chain}: {points} points");
        }
    }
}
