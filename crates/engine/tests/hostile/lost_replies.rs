//! A store that carries a write out and loses its reply costs nobody money or a response.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering::SeqCst},
    },
    time::Duration,
};

use farebox_core::{Typed, prelude::*};
use farebox_engine::{Clock, Inbound, Reconciled};
use farebox_testkit::{Bank, Fuse, TestRail};

use crate::common::{Got, T0, World, challenge, charge_gate, pay, present};

fn rail(bank: &Arc<Bank>, prepaid: bool) -> Arc<Typed<TestRail, Charge>> {
    Arc::new(Typed::new(match prepaid {
        true => TestRail::prepaid(bank.clone(), Fuse::endless()),
        false => TestRail::settling(bank.clone(), Fuse::endless()),
    }))
}

/// The reply to each write in turn. The payer comes again with the same credential until it is
/// served or told for good.
#[tokio::test]
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

#[tokio::test]
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
