//! A rail that hangs, panics or blames the wrong side costs nobody else anything.

use std::{sync::atomic::Ordering::SeqCst, time::Duration};

use farebox_core::prelude::*;
use farebox_engine::Reconciled;

use crate::common::{Act, Got, World, challenge, pay, present, scripted, settled};

#[tokio::test]
async fn a_rails_refusals_are_blamed_on_the_right_side() {
    let (world, method) = (World::new(), scripted());
    let (_, gate) = world.charge(world.store(), method);
    let ours = present(&gate, &pay(&challenge(&gate).await, "away")).await;
    assert!(
        matches!(ours, Got::Fault(_)),
        "a node that is down: {ours:?}"
    );
    let used = present(&gate, &pay(&challenge(&gate).await, "used")).await;
    assert_eq!(
        used,
        Got::Spent,
        "a fresh challenge would make it pay again"
    );
    assert_eq!(world.count("pay:").await, 0, "nothing was claimed");
}

/// A panic's words may hold an order, which may hold what pays.
#[tokio::test]
async fn a_rails_panic_reaches_neither_log_nor_payer_and_the_lookup_decides() {
    let (world, method) = (World::new(), scripted());
    let (_, gate) = world.charge(world.store(), method.clone());
    let script = &method.rail().0;
    script.then_settle(Act::Panic);
    let credential = pay(&challenge(&gate).await, "t");
    match present(&gate, &credential).await {
        Got::Fault(text) => assert!(!text.contains("sk_secret"), "{text}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(present(&gate, &credential).await, Got::Later);
    world.pass(101);
    script.then_look_up(Act::Say(Outcome::settled("ref")));
    assert_eq!(present(&gate, &credential).await, Got::Served);
    assert_eq!(script.settled.load(SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_rail_that_hangs_is_given_up() {
    let (world, method) = (World::new(), scripted());
    let (engine, gate) = world.charge(world.store(), method.clone());
    let hung = present(&gate, &pay(&challenge(&gate).await, "hang")).await;
    assert!(matches!(hung, Got::Fault(_)), "verify: {hung:?}");

    let script = &method.rail().0;
    script.then_settle(Act::Hang);
    script.then_look_up(Act::Hang);
    let credential = pay(&challenge(&gate).await, "t");
    assert_eq!(present(&gate, &credential).await, Got::Later, "settle");
    world.pass(101);
    script.then_look_up(Act::Hang);
    assert_eq!(present(&gate, &credential).await, Got::Later, "lookup");
    script.then_look_up(Act::Hang);
    assert_eq!(engine.reconcile().await.unwrap().unknown, 1, "reconcile");
}

/// One payment whose rail panics or hangs in `lookup` does not keep the others from being found.
#[tokio::test(start_paused = true)]
async fn the_reconciler_outlives_a_rail_that_panics() {
    let (world, method) = (World::new(), scripted());
    let (engine, gate) = world.charge(world.store(), method.clone());
    let script = &method.rail().0;
    for token in ["a", "b", "c"] {
        let credential = pay(&challenge(&gate).await, token);
        assert_eq!(present(&gate, &credential).await, Got::Later);
    }
    for act in [Act::Panic, Act::Hang, Act::Say(Outcome::settled("ref"))] {
        script.then_look_up(act);
    }
    let found = engine.reconcile().await.unwrap();
    let expected = Reconciled {
        settled: 1,
        unknown: 2,
        ..Reconciled::default()
    };
    assert_eq!(found, expected);

    let _reconciler = engine.spawn_reconciler(Duration::from_secs(5));
    script.then_look_up(Act::Panic);
    let asked = script.looked_up.load(SeqCst);
    tokio::time::timeout(Duration::from_secs(60), async {
        while script.looked_up.load(SeqCst) < asked + 6 {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    })
    .await
    .expect("it goes on after a panic");
}

/// The work of a payment is no client's: what is claimed goes on when its client is gone.
#[tokio::test]
async fn a_client_that_goes_away_before_the_claim_cannot_stall_its_payment() {
    let (world, method) = (World::new(), scripted());
    let store = world.store();
    let (_, gate) = world.charge(store.clone(), method.clone());
    method
        .rail()
        .0
        .then_settle(Act::Say(Outcome::settled("ref")));
    let credential = pay(&challenge(&gate).await, "t");
    store.pause_before(|write| write.key.starts_with("pay:"));
    let client = crate::common::presenting(&gate, &credential);
    store.reached().await;
    client.abort();
    assert!(client.await.unwrap_err().is_cancelled());
    store.release();
    assert_eq!(settled(&gate, &credential).await, Got::Served);
}
