//! A server that ends asks for no payment and takes none, and leaves no payer in the middle.

use std::{sync::Arc, time::Duration};

use farebox_core::{Typed, prelude::*};
use farebox_engine::{Drained, Inbound, Reconciled};
use farebox_testkit::{Bank, Fuse, TestRail};
use tokio::time::{Instant, sleep};

use crate::common::{
    Got, Till, World, challenge, charge_gate, credential, pay, present, presenting, refused,
    scripted, session_gate,
};

fn held(bank: &Arc<Bank>) -> Arc<Typed<TestRail, Charge>> {
    Arc::new(Typed::new(TestRail::held(bank.clone())))
}

const GRACE: Duration = Duration::from_secs(8);

/// 503 with `Retry-After` to both, and nothing is written for either.
#[tokio::test(start_paused = true)]
async fn a_draining_server_asks_for_nothing_and_takes_nothing() {
    let (world, bank) = (World::new(), Arc::new(Bank::default()));
    let (engine, gate) = world.charge(world.store(), held(&bank));
    let credential = pay(&challenge(&gate).await, "t");
    assert!(!engine.is_draining());
    engine.drain();
    assert!(engine.is_draining());
    let inbound = Inbound::default();
    let asked = gate.challenges(&inbound).await.unwrap_err();
    assert!(
        asked.retry_after().is_some(),
        "a 402 would be paid for nothing"
    );
    assert_eq!(present(&gate, &credential).await, Got::Later);
    let typed = gate.authenticate(credential, &inbound).map(drop);
    assert_eq!(refused(typed.unwrap_err()), Got::Later);
    assert!(world.disk.is_empty());
    assert!(engine.drained(GRACE).await.is_empty());
}

/// What has begun is finished and served, and the wait ends with it.
#[tokio::test(start_paused = true)]
async fn what_has_begun_is_waited_for() {
    let (world, bank) = (World::new(), Arc::new(Bank::default()));
    let method = held(&bank);
    let (engine, gate) = world.charge(world.store(), method.clone());
    let first = pay(&challenge(&gate).await, "t");
    let settling = presenting(&gate, &first);
    method.rail().teller().started().await;
    let draining = tokio::spawn({
        let (engine, asked) = (engine.clone(), Instant::now());
        async move { (engine.drained(GRACE).await, asked.elapsed()) }
    });
    sleep(Duration::from_secs(3)).await;
    assert!(!draining.is_finished());
    method.rail().teller().release();
    assert_eq!(settling.await.unwrap(), Got::Served);
    let (left, took) = draining.await.unwrap();
    assert!(left.is_empty() && took < Duration::from_secs(4), "{took:?}");
    assert_eq!(world.record().await["state"], "delivered");
}

/// A client that goes away takes its settlement off no list.
#[tokio::test(start_paused = true)]
async fn a_settlement_without_a_client_is_waited_for() {
    let (world, bank) = (World::new(), Arc::new(Bank::default()));
    let method = held(&bank);
    let (engine, gate) = world.charge(world.store(), method.clone());
    let client = presenting(&gate, &pay(&challenge(&gate).await, "t"));
    method.rail().teller().started().await;
    client.abort();
    assert!(client.await.unwrap_err().is_cancelled());
    let left = engine.drained(GRACE).await;
    assert_eq!((left.settlements, left.leases), (1, 0));
    method.rail().teller().release();
    assert!(engine.drained(GRACE).await.is_empty());
    assert_eq!(world.record().await["state"], "paid");
}

/// A handler, and a stream's block, until what they hold is given back.
#[tokio::test(start_paused = true)]
async fn leases_are_waited_for() {
    let world = World::new();
    let engine = world.engine(world.store());
    let gate = session_gate(&engine, Arc::new(Typed::new(Till::held())));
    let open = serde_json::json!({"do": "open", "n": 100, "proof": "p"});
    let opened = credential(&challenge(&gate).await, &open);
    let inbound = Inbound::default();
    let admission = gate.present(opened, &inbound).await.unwrap();
    let serving = admission.into_serving().unwrap();
    let stream = serving.meter().unwrap().lease(Amount::new(10)).await;
    let left = engine.drained(GRACE).await;
    assert_eq!((left.settlements, left.leases), (0, 2));
    drop(serving);
    drop(stream.unwrap());
    let asked = Instant::now();
    assert!(engine.drained(GRACE).await.is_empty());
    assert!(asked.elapsed() < Duration::from_secs(1));
    assert_eq!(world.record().await["state"], "paid", "given back");
    let channel = &engine.channels().await.unwrap()[0];
    assert_eq!(channel.held, Amount::new(0), "given back");
}

/// Past the grace it is the next process's: the record says so already.
#[tokio::test(start_paused = true)]
async fn what_is_left_is_on_the_list_of_the_next_process() {
    let (world, method) = (World::new(), scripted());
    let (engine, gate) = world.charge(world.store(), method.clone());
    let script = &method.rail().0;
    script.then_settle(crate::common::Act::Hang);
    let credential = pay(&challenge(&gate).await, "t");
    let client = presenting(&gate, &credential);
    let asked = Instant::now();
    sleep(Duration::from_secs(1)).await;
    let left = engine.drained(GRACE).await;
    assert_eq!(asked.elapsed(), GRACE + Duration::from_secs(1));
    assert_eq!((left.settlements, left.leases), (1, 0));
    client.abort();

    let (next, gate) = world.charge(world.store(), method.clone());
    let settled = crate::common::Act::Say(Outcome::settled("ref"));
    script.then_look_up(settled);
    world.pass(101);
    assert_eq!(next.reconcile().await.unwrap().settled, 1);
    assert_eq!(present(&gate, &credential).await, Got::Served);
}

/// A draining server's reconciler begins nothing; the list is another's.
#[tokio::test(start_paused = true)]
async fn a_draining_server_reconciles_nothing() {
    let (world, method) = (World::new(), scripted());
    let (engine, gate) = world.charge(world.store(), method.clone());
    let credential = pay(&challenge(&gate).await, "t");
    assert_eq!(present(&gate, &credential).await, Got::Later);
    engine.drain();
    assert_eq!(engine.reconcile().await.unwrap(), Reconciled::default());
    let (other, _) = world.charge(world.store(), method);
    assert_eq!(other.reconcile().await.unwrap().looked_at, 1);
}

/// Whatever slipped in before the drain is counted: when nothing is left, no money moves any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_slips_past_a_drain() {
    for round in 0..50 {
        let (world, bank) = (World::new(), Arc::new(Bank::default()));
        let engine = world.engine(world.store());
        let rail = TestRail::settling(bank.clone(), Fuse::endless());
        let gate = charge_gate(&engine, Arc::new(Typed::<_, Charge>::new(rail)), "100");
        let mut clients = Vec::new();
        for n in 0..32 {
            let credential = pay(&challenge(&gate).await, &format!("t{n}"));
            clients.push((credential, gate.clone()));
        }
        let clients: Vec<_> = clients
            .into_iter()
            .map(|(credential, gate)| {
                tokio::spawn(async move { present(&gate, &credential).await })
            })
            .collect();
        for _ in 0..round {
            tokio::task::yield_now().await;
        }
        let left: Drained = engine.drained(Duration::from_secs(60)).await;
        let moved = bank.moved();
        assert!(left.is_empty(), "{left:?}");
        let mut served = 0;
        for client in clients {
            match client.await.unwrap() {
                Got::Served => served += 1,
                Got::Later => {}
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((bank.moved(), served), (moved, moved));
    }
}
