//! Channels: a deposit is credited once per movement, what is spent is authorised, and nobody
//! spends what a close has settled.

use std::{sync::Arc, time::Duration};

use farebox_core::{Store, Typed, prelude::*, wire::Credential};
use farebox_engine::{Engine, Gate, Meter, MeterError};
use farebox_testkit::FaultyStore;
use serde_json::{Value, json};

use crate::common::{Got, Till, World, challenge, credential, present, presenting, session_gate};

struct Server {
    engine: Engine,
    gate: Arc<Gate>,
    meter: Meter,
    till: Arc<Typed<Till, Session>>,
}

impl Server {
    fn new(world: &World) -> Self {
        Self::on(world, world.store())
    }

    fn on(world: &World, store: Arc<dyn Store>) -> Self {
        let engine = world.engine(store);
        let till = Arc::new(Typed::new(Till::held()));
        Self {
            gate: session_gate(&engine, till.clone()),
            meter: engine.meter(Till::channel()),
            engine,
            till,
        }
    }

    async fn credential(&self, action: Value) -> Credential {
        credential(&challenge(&self.gate).await, &action)
    }

    async fn go(&self, action: Value) -> Got {
        present(&self.gate, &self.credential(action).await).await
    }

    async fn open(&self, n: u64) {
        let open = json!({"do": "open", "n": n, "proof": "opening"});
        assert_eq!(self.go(open).await, Got::Served);
    }

    /// Starts an action and waits until its money is on its way.
    async fn start(&self, action: Value) -> (Credential, tokio::task::JoinHandle<Got>) {
        let credential = self.credential(action).await;
        let task = presenting(&self.gate, &credential);
        self.till.rail().0.reached.notified().await;
        (credential, task)
    }

    fn release(&self) {
        self.till.rail().0.gate.add_permits(1_000);
    }

    fn moved(&self) -> Vec<String> {
        let moved = self.till.rail().0.moved.lock().unwrap();
        moved.iter().map(|(_, order)| order.clone()).collect()
    }

    async fn balance(&self) -> (u128, u128, u128, bool) {
        let state = self.meter.state().await.unwrap();
        let (spent, authorized) = (state.spent.get(), state.authorized.get());
        (spent, authorized, state.deposit.get(), state.closed)
    }
}

fn finalized() -> Got {
    Got::Pay("session/channel-finalized".into())
}

/// Blocks that lapsed are the payer's again, so who slept through its lease burns nothing.
#[tokio::test(start_paused = true)]
async fn lapsed_leases_burn_nothing() {
    let world = World::new();
    let server = Server::new(&world);
    server.open(100).await;
    let (mut leases, mut burnt) = (Vec::new(), 0);
    for _ in 0..5 {
        leases.push(server.meter.lease(Amount::new(100)).await.unwrap());
        world.pass(61);
    }
    for lease in &mut leases {
        while lease.burn(Amount::new(1)) {
            burnt += 1;
        }
    }
    for lease in leases {
        lease.finish().await.unwrap();
    }
    assert!(burnt <= 100, "burnt {burnt} of 100");
    assert!(server.balance().await.0 >= burnt);
}

/// A slow store and a slow process, by the monotonic clock: it ends before the block is others'.
#[tokio::test(start_paused = true)]
async fn a_lease_ends_before_others_may_spend_it() {
    let world = World::new();
    let server = Server::new(&world);
    server.open(100).await;
    let mut lease = server.meter.lease(Amount::new(100)).await.unwrap();
    tokio::time::advance(Duration::from_secs(49)).await;
    assert!(lease.burn(Amount::new(1)));
    lease.renew().await.unwrap();
    tokio::time::advance(Duration::from_secs(49)).await;
    assert!(lease.burn(Amount::new(1)), "renewed");
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(!lease.burn(Amount::new(1)));
    assert_eq!(lease.finish().await.unwrap().spent, Amount::new(2));
}

/// What a stream holds is spent as far as rails and meters see it.
#[tokio::test(start_paused = true)]
async fn a_close_waits_for_streams() {
    let world = World::new();
    let server = Server::new(&world);
    server.open(100).await;
    let mut lease = server.meter.lease(Amount::new(80)).await.unwrap();
    assert!(lease.burn(Amount::new(50)));
    assert_eq!(server.balance().await.0, 80);
    assert_eq!(server.go(json!({"do": "close"})).await, Got::Later);
    lease.finish().await.unwrap();
    assert_eq!(server.go(json!({"do": "close"})).await, Got::Managed);
    assert_eq!(server.balance().await, (50, 100, 100, true));
}

/// A client that goes away while its stream's lease is given back.
#[tokio::test(start_paused = true)]
async fn a_cancelled_finish_still_counts_what_was_burnt() {
    let world = World::new();
    let server = Server::new(&world);
    server.open(100).await;
    let mut lease = server.meter.lease(Amount::new(100)).await.unwrap();
    assert!(lease.burn(Amount::new(60)));
    let mut finish = Box::pin(lease.finish());
    // Polled once, up to the store.
    assert!(futures_poll(finish.as_mut()).is_none());
    drop(finish);
    let counted = tokio::time::timeout(Duration::from_secs(60), async {
        while server.balance().await.0 != 60 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    counted.await.unwrap();
    assert!(server.meter.debit(Amount::new(41)).await.is_err());
    assert!(server.meter.debit(Amount::new(40)).await.is_ok());
}

fn futures_poll<F: Future>(future: std::pin::Pin<&mut F>) -> Option<F::Output> {
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    match future.poll(&mut cx) {
        std::task::Poll::Ready(output) => Some(output),
        std::task::Poll::Pending => None,
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_spends_a_channel_while_its_close_is_settled() {
    let world = World::new();
    let server = Server::new(&world);
    server.open(100).await;
    server.meter.debit(Amount::new(10)).await.unwrap();
    let (_, closing) = server.start(json!({"do": "close", "slow": true})).await;
    // However long it takes.
    for _ in 0..3 {
        assert!(matches!(
            server.meter.debit(Amount::new(1)).await,
            Err(MeterError::Channel(_))
        ));
        assert!(server.meter.lease(Amount::new(1)).await.is_err());
        // Not 402: the close may come to nothing yet, and a deposit is spent by then.
        assert_eq!(server.go(json!({"do": "bearer"})).await, Got::Later);
        let top_up = json!({"do": "topup", "n": 5, "proof": "late"});
        assert_eq!(server.go(top_up).await, Got::Later);
        world.pass(40);
    }
    server.release();
    assert_eq!(closing.await.unwrap(), Got::Managed);
    assert_eq!(server.balance().await, (10, 100, 100, true));
    assert_eq!(server.moved(), ["close 10"]);
    assert!(server.meter.debit(Amount::new(1)).await.is_err());
    assert_eq!(server.go(json!({"do": "bearer"})).await, finalized());
}

/// A deposit whose proof is the payment, presented while a close is under way that comes to
/// nothing: its payer is not told to pay anew, and comes again.
#[tokio::test(start_paused = true)]
async fn a_deposit_that_comes_during_a_close_is_not_lost() {
    let world = World::new();
    let server = Server::new(&world);
    server.open(100).await;
    let (close, _) = server.start(json!({"do": "close", "slow": true})).await;
    let top_up = json!({"do": "topup", "n": 50, "proof": "preimage"});
    let top_up = server.credential(top_up).await;
    assert_eq!(present(&server.gate, &top_up).await, Got::Later);
    // The process that was closing it is gone, and its order never arrived.
    world.pass(101);
    let other = Server::new(&world);
    assert_eq!(other.engine.reconcile().await.unwrap().declined, 1);
    assert_eq!(present(&other.gate, &top_up).await, Got::Managed);
    assert!(matches!(present(&other.gate, &close).await, Got::Pay(_)));
    assert_eq!(other.balance().await, (0, 150, 150, false));
}

/// A close that stalls until its freeze has lapsed, while the channel is spent from: what it
/// would capture is not what was served any more.
#[tokio::test(start_paused = true)]
async fn a_close_settles_what_is_spent_when_it_settles() {
    for key in ["todo:", "chan:"] {
        let world = World::new();
        let store: Arc<FaultyStore<_>> = world.store();
        let (slow, quick) = (Server::on(&world, store.clone()), Server::new(&world));
        slow.release();
        slow.open(100).await;
        slow.meter.debit(Amount::new(10)).await.unwrap();
        let close = slow.credential(json!({"do": "close", "slow": true})).await;
        // Before the attempt is listed, and before the freeze is made to last.
        store.pause_before(move |write| {
            let lasting = write
                .next
                .is_some_and(|n| n.contains(&i64::MAX.to_string()));
            write.key.starts_with(key) && (key == "todo:" || lasting)
        });
        let stalled = presenting(&slow.gate, &close);
        store.reached().await;
        assert!(quick.meter.debit(Amount::new(1)).await.is_err(), "frozen");
        world.pass(61);
        quick.meter.debit(Amount::new(40)).await.unwrap();
        store.release();
        let got = stalled.await.unwrap();
        assert!(matches!(got, Got::Fault(_) | Got::Later), "{key}: {got:?}");
        assert_eq!(slow.moved(), Vec::<String>::new());
        // The channel is not wedged: it can be spent, and closed for what is spent by then.
        quick.meter.debit(Amount::new(5)).await.unwrap();
        world.pass(61);
        slow.engine.reconcile().await.unwrap();
        assert_eq!(present(&slow.gate, &close).await, Got::Managed);
        assert_eq!(slow.moved(), ["close 55"]);
        assert_eq!(world.count("todo:").await, 0);
    }
}

/// A straggling close of which the same credential has attempted another since.
#[tokio::test(start_paused = true)]
async fn a_straggling_close_does_not_thaw_the_channel_of_its_successor() {
    let world = World::new();
    let store: Arc<FaultyStore<_>> = world.store();
    let (slow, quick) = (Server::on(&world, store.clone()), Server::new(&world));
    slow.open(100).await;
    let close = slow.credential(json!({"do": "close", "slow": true})).await;
    // Held before it freezes.
    store.pause_before(|write| write.puts("chan:", "\"closing\""));
    let straggler = presenting(&slow.gate, &close);
    store.reached().await;
    world.pass(61);
    let settling = presenting(&quick.gate, &close);
    quick.till.rail().0.reached.notified().await;
    store.release();
    let got = straggler.await.unwrap();
    assert!(matches!(got, Got::Later), "{got:?}");
    assert!(
        quick.meter.debit(Amount::new(1)).await.is_err(),
        "frozen still"
    );
    world.pass(90);
    assert!(
        quick.meter.debit(Amount::new(1)).await.is_err(),
        "and still"
    );
    quick.release();
    assert_eq!(settling.await.unwrap(), Got::Managed);
    assert_eq!((quick.moved().len(), slow.moved().len()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_top_up_that_settles_after_a_close_is_credited_once() {
    let world = World::new();
    let server = Server::new(&world);
    server.open(100).await;
    let top_up = json!({"do": "topup", "n": 50, "slow": true, "proof": "p"});
    let (credential, task) = server.start(top_up).await;
    assert_eq!(server.go(json!({"do": "close"})).await, Got::Managed);
    server.release();
    assert_eq!(task.await.unwrap(), Got::Managed);
    world.pass(101);
    server.engine.reconcile().await.unwrap();
    assert_eq!(present(&server.gate, &credential).await, Got::Managed);
    assert_eq!(server.balance().await, (0, 150, 150, true));
    assert!(server.meter.debit(Amount::new(1)).await.is_err());
}

/// Both found the channel absent, and both moved money: none of it is lost.
#[tokio::test(start_paused = true)]
async fn two_opens_of_one_channel_are_both_credited() {
    let world = World::new();
    let server = Server::new(&world);
    let open = |n, proof| json!({"do": "open", "n": n, "slow": true, "proof": proof});
    let (_, first) = server.start(open(50, "a")).await;
    let (_, second) = server.start(open(70, "b")).await;
    server.release();
    assert_eq!(
        (first.await.unwrap(), second.await.unwrap()),
        (Got::Served, Got::Served)
    );
    assert_eq!(server.balance().await, (0, 120, 120, false));
    assert_eq!(world.count("todo:").await, 0);
    let third = server.go(open(1, "c")).await;
    assert_eq!(
        third,
        Got::Pay("verification-failed".into()),
        "before money moves"
    );
    assert_eq!(server.moved().len(), 2);
}

/// The challenge of a session carries several actions, each of them once.
#[tokio::test(start_paused = true)]
async fn a_sessions_challenge_carries_each_action_once() {
    let world = World::new();
    let server = Server::new(&world);
    server.release();
    let issued = challenge(&server.gate).await;
    let top_up = |proof| json!({"do": "topup", "n": 1, "slow": true, "proof": proof});
    let actions = [
        json!({"do": "open", "n": 100, "slow": true, "proof": "o"}),
        top_up("a"),
        top_up("b"),
    ];
    for (action, again) in actions.iter().zip([Got::Spent, Got::Managed, Got::Managed]) {
        let credential = credential(&issued, action);
        let first = present(&server.gate, &credential).await;
        let opens = again == Got::Spent;
        assert_eq!(first, if opens { Got::Served } else { Got::Managed });
        // What asked for no service is answered again, and counted once.
        assert_eq!(present(&server.gate, &credential).await, again);
    }
    // The same proof in other words is another payment, and its proof is spent.
    let other = json!({"do": "topup", "n": 9, "slow": true, "proof": "a"});
    assert_eq!(
        present(&server.gate, &credential(&issued, &other)).await,
        Got::Spent
    );
    let mut by_another = credential(&issued, &actions[1]);
    by_another.source = Some("did:key:other".into());
    assert_eq!(present(&server.gate, &by_another).await, Got::Spent);
    let bearer = credential(&issued, &json!({"do": "bearer"}));
    for _ in 0..3 {
        assert_eq!(
            present(&server.gate, &bearer).await,
            Got::Served,
            "as often as it likes"
        );
    }
    assert_eq!(server.balance().await, (0, 102, 102, false));
}

/// A top-up that was applied before a crash is still known after any number of others.
#[tokio::test(start_paused = true)]
async fn an_applied_top_up_is_remembered_for_as_long_as_it_may_be_concluded() {
    let world = World::new();
    let store: Arc<FaultyStore<_>> = world.store();
    let server = Server::on(&world, store.clone());
    server.release();
    server.open(1).await;
    // Applied to the channel, and the process dies before it can say so.
    let big = json!({"do": "topup", "n": 100, "slow": true, "proof": "big"});
    let big = server.credential(big).await;
    store.pause_before(|write| write.puts("pay:", "\"paid\""));
    let dying = presenting(&server.gate, &big);
    store.reached().await;
    for n in 0..80 {
        let small = json!({"do": "topup", "n": 0, "proof": format!("small-{n}")});
        assert_eq!(server.go(small).await, Got::Managed);
    }
    world.pass(24 * 3600);
    let other = Server::new(&world);
    let moved = server.till.rail().0.moved.clone();
    *other.till.rail().0.moved.lock().unwrap() = moved.lock().unwrap().clone();
    assert_eq!(other.engine.reconcile().await.unwrap().settled, 1);
    assert_eq!(other.balance().await, (0, 101, 101, false));
    assert_eq!(present(&other.gate, &big).await, Got::Managed);
    store.release();
    assert!(matches!(dying.await.unwrap(), Got::Managed | Got::Later));
    assert_eq!(other.balance().await, (0, 101, 101, false));
}
