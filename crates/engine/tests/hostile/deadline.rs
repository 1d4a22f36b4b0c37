//! A store that hangs costs a request its answer's content and never its answer.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering::SeqCst},
    },
    time::Duration,
};

use farebox_core::{Typed, prelude::*};
use farebox_engine::{Inbound, Reconciled};
use farebox_testkit::{Bank, Between, Call, Fuse, Proxy, TestRail};
use tokio::time::{Instant, timeout};

use crate::common::{Got, World, challenge, charge_gate, pay, present};

/// A disk behind a network that swallows calls: all from the n-th on, until it heals.
struct Stuck {
    /// Calls until it sticks.
    left: AtomicI64,
    /// Whether the call that sticks is carried out and only its answer is lost.
    carried_out: bool,
    reached: AtomicBool,
}

impl Stuck {
    fn new(after: i64, carried_out: bool) -> Self {
        Self {
            left: AtomicI64::new(after),
            carried_out,
            reached: AtomicBool::new(false),
        }
    }

    fn heal(&self) {
        self.left.store(i64::MAX, SeqCst);
    }
}

impl Between for Stuck {
    async fn call<T: Send>(
        &self,
        _: Call<'_>,
        reply: impl Future<Output = Result<T, Fault>> + Send,
    ) -> Result<T, Fault> {
        match self.left.fetch_sub(1, SeqCst) {
            1.. => return reply.await,
            0 if self.carried_out => drop(reply.await),
            _ => {}
        }
        self.reached.store(true, SeqCst);
        std::future::pending().await
    }
}

/// It hangs at each call in turn. The request is answered in time; when the store is back, the same
/// credential is served as often as money moved.
#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_anywhere_is_answered_in_time_and_costs_nobody_money() {
    for (prepaid, carried_out) in [(true, true), (true, false), (false, true), (false, false)] {
        for n in 0.. {
            let (world, bank) = (World::new(), Arc::new(Bank::default()));
            let store = Arc::new(Proxy::new(world.disk.clone(), Stuck::new(n, carried_out)));
            let builder = world.builder(store.clone());
            let engine = builder
                .store_deadline(Duration::from_millis(500))
                .build()
                .unwrap();
            let rail = match prepaid {
                true => TestRail::prepaid(bank.clone(), Fuse::endless()),
                false => TestRail::settling(bank.clone(), Fuse::endless()),
            };
            let gate = charge_gate(&engine, Arc::new(Typed::<_, Charge>::new(rail)), "100");
            let credential = pay(&challenge(&gate).await, "t");

            let asked = Instant::now();
            let mut got = vec![present(&gate, &credential).await];
            let took = asked.elapsed();
            let reached = store.reached.load(SeqCst);
            let at = format!("call {n}, prepaid {prepaid}, carried out {carried_out}");
            // A write and a look at what became of it, and once more for what a handler's end writes.
            assert!(took <= Duration::from_secs(2), "{at}: {took:?}");
            if reached {
                let late = matches!(&got[0], Got::Fault(text) if text.contains("in time"));
                // What is struck off the list after the money is in is the reconciler's too.
                assert!(late || got[0] == Got::Served, "{at}: {got:?}");
            }
            store.heal();
            // What was held back is taken back.
            tokio::time::sleep(Duration::from_secs(3)).await;
            for seconds in [1, 61, 101] {
                world.pass(seconds);
                engine.reconcile().await.unwrap();
                got.push(present(&gate, &credential).await);
            }
            let served = got.iter().filter(|got| **got == Got::Served).count();
            let paid = if prepaid { 1 } else { bank.moved() };
            assert_eq!(served, paid, "{at}: {got:?}");
            assert!(bank.transfers() <= 1, "{at}");
            assert!(
                bank.moved() == 0 || !got.iter().any(|got| matches!(got, Got::Pay(_))),
                "{at}: told to pay again: {got:?}"
            );
            let nothing = engine.reconcile().await.unwrap();
            assert_eq!(nothing, Reconciled::default(), "{at}");
            if !reached {
                assert!(n >= if prepaid { 5 } else { 10 }, "only {n} calls");
                break;
            }
        }
    }
}

/// Unless a rail keeps something, a store that hangs is not noticed before a credential comes.
#[tokio::test(start_paused = true)]
async fn the_402_does_not_wait_for_the_store() {
    let (world, bank) = (World::new(), Arc::new(Bank::default()));
    let store = Arc::new(Proxy::new(world.disk.clone(), Stuck::new(0, false)));
    let engine = world.engine(store);
    let rail = TestRail::settling(bank, Fuse::endless());
    let gate = charge_gate(&engine, Arc::new(Typed::<_, Charge>::new(rail)), "100");
    let inbound = Inbound::default();
    let asked = timeout(Duration::from_millis(1), gate.challenges(&inbound));
    assert_eq!(asked.await.unwrap().unwrap().len(), 1);
}

/// The reconciler and the books give up too, later than a request does.
#[tokio::test(start_paused = true)]
async fn a_scan_that_hangs_ends() {
    let world = World::new();
    let store = Arc::new(Proxy::new(world.disk.clone(), Stuck::new(0, false)));
    let engine = world.engine(store);
    let patience = Duration::from_secs(61);
    assert!(
        timeout(patience, engine.reconcile())
            .await
            .unwrap()
            .is_err()
    );
    assert!(timeout(patience, engine.books()).await.unwrap().is_err());
}

/// Who settled knows the outcome: when the store is back it is recorded at once, and nobody has to
/// wait until another may ask the rail.
#[tokio::test(start_paused = true)]
async fn an_outcome_is_recorded_as_soon_as_the_store_is_back() {
    for prepaid in [false, true] {
        let (world, bank) = (World::new(), Arc::new(Bank::default()));
        let calls = 2 + if prepaid { 0 } else { 3 };
        // Reads the record, reserves, claims; lists and attempts where it settles.
        let store = Arc::new(Proxy::new(world.disk.clone(), Stuck::new(calls + 1, false)));
        let engine = world.engine(store.clone());
        let rail = match prepaid {
            true => TestRail::prepaid(bank.clone(), Fuse::endless()),
            false => TestRail::settling(bank.clone(), Fuse::endless()),
        };
        let gate = charge_gate(&engine, Arc::new(Typed::<_, Charge>::new(rail)), "100");
        let credential = pay(&challenge(&gate).await, "t");
        let got = present(&gate, &credential).await;
        assert!(matches!(got, Got::Fault(_)), "{got:?}");
        let state = world.record().await["state"].clone();
        assert_eq!(state, if prepaid { "reserved" } else { "attempted" });
        assert_eq!(bank.moved(), usize::from(!prepaid));
        tokio::time::sleep(Duration::from_secs(30)).await;
        store.heal();
        // No time passes on the engine's clock: no lease has lapsed, and nobody was asked.
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(present(&gate, &credential).await, Got::Served);
    }
}
