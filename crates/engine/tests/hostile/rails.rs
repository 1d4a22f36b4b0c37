//! A rail that hangs, panics or blames the wrong side costs nobody else anything.

use std::{sync::atomic::Ordering::SeqCst, time::Duration};

use farebox_core::prelude::*;
use farebox_engine::Reconciled;
use tokio::time::timeout;

use crate::common::{Act, Got, World, challenge, pay, present, presenting, scripted, settled};

#[tokio::test(start_paused = true)]
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
    assert_eq!(world.count("proof:").await, 0, "nothing was claimed");
}

/// A panic's words may hold an order, which may hold what pays.
#[tokio::test(start_paused = true)]
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
    script.then_look_up(Act::Panic);
    match present(&gate, &credential).await {
        Got::Fault(text) => assert!(!text.contains("sk_secret"), "{text}"),
        other => panic!("{other:?}"),
    }
    script.then_look_up(Act::Say(Outcome::settled("ref")));
    assert_eq!(present(&gate, &credential).await, Got::Served);
    assert_eq!(script.settled.load(SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_rail_that_hangs_is_given_up() {
    let (world, method) = (World::new(), scripted());
    let (engine, gate) = world.charge(world.store(), method.clone());
    let patience = Duration::from_secs(15);
    let got = async |credential| {
        let presentation = timeout(patience, present(&gate, credential)).await;
        presentation.expect("an answer in time")
    };
    let hanging = pay(&challenge(&gate).await, "hang");
    let hung = got(&hanging).await;
    assert!(matches!(hung, Got::Fault(_)), "verify: {hung:?}");

    let script = &method.rail().0;
    script.then_settle(Act::Hang);
    script.then_look_up(Act::Hang);
    let credential = pay(&challenge(&gate).await, "t");
    assert_eq!(got(&credential).await, Got::Later, "settle");
    // Its own task gives the settlement up, and what it looked up to be sure.
    tokio::time::sleep(Duration::from_secs(80)).await;
    assert_eq!(script.looked_up.load(SeqCst), 1);
    script.then_look_up(Act::Hang);
    assert_eq!(got(&credential).await, Got::Later, "lookup");
    script.then_look_up(Act::Hang);
    let found = timeout(patience, engine.reconcile())
        .await
        .expect("in time");
    assert_eq!(found.unwrap().unknown, 1, "reconcile");
    script.then_look_up(Act::Say(Outcome::settled("ref")));
    assert_eq!(got(&credential).await, Got::Served);
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
        looked_at: 3,
        settled: 1,
        unknown: 2,
        ..Reconciled::default()
    };
    assert_eq!(found, expected);

    let _reconciler = engine.spawn_reconciler(Duration::from_secs(5));
    script.then_look_up(Act::Panic);
    let asked = script.looked_up.load(SeqCst);
    timeout(Duration::from_secs(60), async {
        while script.looked_up.load(SeqCst) < asked + 6 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            world.pass(1);
        }
    })
    .await
    .expect("it goes on after a panic");
}

/// The work of a payment is no client's: what is being claimed is paid when its client is gone.
#[tokio::test(start_paused = true)]
async fn a_client_that_goes_away_during_the_claim_cannot_stall_its_payment() {
    let (world, method) = (World::new(), scripted());
    let store = world.store();
    let (_, gate) = world.charge(store.clone(), method.clone());
    let script = &method.rail().0;
    script.then_settle(Act::Hold(Outcome::settled("ref")));
    let credential = pay(&challenge(&gate).await, "t");
    store.pause_before(|write| write.key.starts_with("proof:"));
    let client = presenting(&gate, &credential);
    store.reached().await;
    client.abort();
    assert!(client.await.unwrap_err().is_cancelled());
    store.release();
    timeout(Duration::from_secs(10), script.reached())
        .await
        .expect("settled without a client");
    script.release();
    assert_eq!(settled(&gate, &credential).await, Got::Served);
}
