//! While the store is away nobody is asked for money, and nobody waits to be told so.

use std::{
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};

use farebox_core::{Typed, prelude::*};
use farebox_engine::{Gate, Inbound, MemoryStore};
use farebox_testkit::{Bank, Fuse, Proxy, Switch, TestRail};
use tokio::time::{Instant, sleep};

use crate::common::{Got, World, challenge, charge_gate, pay, present};

/// A database that can be stopped, and one that only reads.
type Database = Proxy<MemoryStore, Switch>;

fn shop() -> (World, Arc<Database>, Arc<Gate>) {
    let world = World::new();
    let store = Arc::new(Proxy::new(world.disk.clone(), Switch::default()));
    let engine = world.engine(store.clone());
    let rail = TestRail::settling(Arc::new(Bank::default()), Fuse::endless());
    let gate = charge_gate(&engine, Arc::new(Typed::<_, Charge>::new(rail)), "100");
    (world, store, gate)
}

/// Asks until the answer is the one that is waited for.
async fn comes_to(gate: &Gate, asked_for_money: bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while gate.challenges(&Inbound::default()).await.is_ok() != asked_for_money {
        assert!(
            Instant::now() < deadline,
            "asked for money: {}",
            !asked_for_money
        );
        sleep(Duration::from_millis(10)).await;
    }
}

/// Protects: an outage stops challenges, whether a payer's credential runs into it or nobody comes
/// at all; and its end brings them back without a restart.
#[tokio::test(start_paused = true)]
async fn challenges_stop_and_come_back_with_the_store() {
    let (_world, store, gate) = shop();
    for broken in [&store.off, &store.read_only] {
        let credential = pay(&challenge(&gate).await, "t");
        broken.store(true, SeqCst);
        assert!(matches!(present(&gate, &credential).await, Got::Fault(_)));
        let asked = gate.challenges(&Inbound::default()).await;
        assert!(asked.is_err(), "what was paid now could not be recorded");
        broken.store(false, SeqCst);
        comes_to(&gate, true).await;
        broken.store(true, SeqCst);
        comes_to(&gate, false).await;
        broken.store(false, SeqCst);
        comes_to(&gate, true).await;
    }
}

/// Protects: the answer to a stranger costs no call to the store, however many come.
#[tokio::test(start_paused = true)]
async fn strangers_do_not_load_the_store() {
    let (_world, store, gate) = shop();
    for _ in 0..1_000 {
        gate.challenges(&Inbound::default()).await.unwrap();
        sleep(Duration::from_millis(10)).await;
    }
    let calls = store.calls.load(SeqCst);
    assert!((1..=20).contains(&calls), "{calls} calls in 10 s");
}
