//! A store that carries a write out and loses its reply costs nobody money or a response.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering::SeqCst},
    },
    time::Duration,
};

use farebox_core::{Store, Typed, prelude::*};
use farebox_engine::{Clock, Inbound, Reconciled};
use farebox_testkit::{Bank, Fuse, TestRail};
use serde_json::json;

use crate::common::{
    Got, T0, Till, World, challenge, charge_gate, credential, pay, present, session_gate,
};

fn rail(bank: &Arc<Bank>, prepaid: bool) -> Arc<Typed<TestRail, Charge>> {
    Arc::new(Typed::new(match prepaid {
        true => TestRail::prepaid(bank.clone(), Fuse::endless()),
        false => TestRail::settling(bank.clone(), Fuse::endless()),
    }))
}

/// The reply to each write in turn. The payer comes again with the same credential until it is
/// served or told for good.
#[tokio::test(start_paused = true)]
async fn any_one_lost_reply_leaves_the_books_right() {
    for prepaid in [false, true] {
        for n in 0.. {
            let (world, bank) = (World::new(), Arc::new(Bank::default()));
            let store = world.store();
            let (engine, gate) = world.charge(store.clone(), rail(&bank, prepaid));
            let credential = pay(&challenge(&gate).await, "t");
            let left = Arc::new(AtomicI64::new(n));
            store.lose_reply_of({
                let left = left.clone();
                move |_| left.fetch_sub(1, SeqCst) == 0
            });
            let mut got = vec![present(&gate, &credential).await];
            let lost = left.load(SeqCst) < 0;
            for seconds in [1, 61, 101] {
                world.pass(seconds);
                engine.reconcile().await.unwrap();
                got.push(present(&gate, &credential).await);
            }
            let served = got.iter().filter(|got| **got == Got::Served).count();
            let paid = if prepaid { 1 } else { bank.moved() };
            assert_eq!(served, paid, "reply {n}, prepaid {prepaid}: {got:?}");
            assert!(
                bank.moved() == 0 || !got.iter().any(|got| matches!(got, Got::Pay(_))),
                "reply {n}: told to pay again: {got:?}"
            );
            assert_eq!(engine.reconcile().await.unwrap(), Reconciled::default());
            assert_eq!(world.count("todo:").await, 0, "reply {n}");
            if !lost {
                break;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_delivery_whose_reply_is_lost_is_delivered() {
    let (world, bank) = (World::new(), Arc::new(Bank::default()));
    let store = world.store();
    let (_, gate) = world.charge(store.clone(), rail(&bank, false));
    let credential = pay(&challenge(&gate).await, "t");
    store.lose_reply_of(|write| write.puts("pay:", "\"delivered\""));
    assert_eq!(present(&gate, &credential).await, Got::Served);
    assert_eq!(present(&gate, &credential).await, Got::Spent);
}

/// A heartbeat renewed the lease, and its holder did not hear of it.
#[tokio::test(start_paused = true)]
async fn a_heartbeat_whose_reply_is_lost_does_not_cost_the_lease() {
    for seconds in [11, 21] {
        let (world, bank) = (World::new(), Arc::new(Bank::default()));
        let store = world.store();
        // Each look at the clock is a millisecond later, so that no renewal writes the same text.
        let clock = AtomicI64::new(T0);
        let engine = world
            .builder(store.clone())
            .clock(Clock::from_fn(move || clock.fetch_add(1, SeqCst)))
            .build()
            .unwrap();
        let gate = charge_gate(&engine, rail(&bank, false), "100");
        let credential = pay(&challenge(&gate).await, "t");
        let admission = gate.present(credential.clone(), &Inbound::default()).await;
        store.lose_reply_of(|write| write.puts("pay:", "\"serving\""));
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        admission
            .unwrap()
            .into_serving()
            .unwrap()
            .delivered(None)
            .await
            .unwrap();
        assert_eq!(present(&gate, &credential).await, Got::Spent);
    }
}

/// What is spent through a meter is counted once, whichever write of it lost its reply.
#[tokio::test(start_paused = true)]
async fn a_debit_or_a_block_whose_reply_is_lost_is_counted_once() {
    let world = World::new();
    let store = world.store();
    let engine = world.engine(store.clone());
    let gate = session_gate(&engine, Arc::new(Typed::new(Till::held())));
    let open = json!({"do": "open", "n": 20, "proof": "opening"});
    let open = credential(&challenge(&gate).await, &open);
    assert_eq!(present(&gate, &open).await, Got::Served);
    let meter = engine.meter(Till::channel());
    let lose = || store.lose_reply_of(|write| write.key.starts_with("chan:"));

    lose();
    let state = meter.debit(Amount::new(15)).await.unwrap();
    assert_eq!(state.spent, Amount::new(15));
    lose();
    let mut lease = meter.lease(Amount::new(5)).await.unwrap();
    assert!(lease.burn(Amount::new(2)));
    lose();
    lease.renew().await.unwrap();
    lose();
    let state = lease.finish().await.unwrap();
    assert_eq!(state.spent, Amount::new(17));
    // The same amount again is another debit.
    meter.debit(Amount::new(1)).await.unwrap();
    meter.debit(Amount::new(1)).await.unwrap();
    assert_eq!(meter.state().await.unwrap().spent, Amount::new(19));
    // What is remembered of debits is bounded.
    for _ in 0..30 {
        world.pass(60);
        meter.debit(Amount::new(0)).await.unwrap();
    }
    let (_, account) = world.disk.scan("chan:").await.unwrap().remove(0);
    assert!(account.len() < 1_500, "{} bytes", account.len());
}

/// Protects: a debit whose reply was lost is charged once, however many others came meanwhile.
#[tokio::test(start_paused = true)]
async fn a_lost_debit_is_remembered_while_it_is_looked_for() {
    let world = World::new();
    let store = world.store();
    let engine = world.engine(store.clone());
    let gate = session_gate(&engine, Arc::new(Typed::new(Till::held())));
    let open = json!({"do": "open", "n": 100, "proof": "opening"});
    let open = credential(&challenge(&gate).await, &open);
    assert_eq!(present(&gate, &open).await, Got::Served);
    store.pause_after(|write| write.key.starts_with("chan:"));
    store.lose_reply_of(|write| write.key.starts_with("chan:"));
    let meter = engine.meter(Till::channel());
    let lost = tokio::spawn(async move { meter.debit(Amount::new(5)).await.map(drop) });
    store.reached().await;
    let other = world.engine(world.store()).meter(Till::channel());
    for _ in 0..30 {
        other.debit(Amount::new(1)).await.unwrap();
    }
    store.release();
    lost.await.unwrap().unwrap();
    assert_eq!(other.state().await.unwrap().spent, Amount::new(35));
}
