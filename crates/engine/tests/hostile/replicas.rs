//! Several processes on one store, with clocks that differ by 2 s either way: the work is shared,
//! nothing is settled or served twice, and no payer is refused for it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use farebox_core::{Method, Store, Typed, prelude::*};
use farebox_engine::{Clock, Engine, Gate, Inbound, Reconciled};
use farebox_testkit::{Bank, Fuse, TestRail};
use tokio::time::{Instant, sleep};

use crate::common::{
    Act, Got, Scripted, T0, World, challenge, charge_gate, pay, present, presenting, scripted,
    settled,
};

/// The machine's time as tokio tells it, `ahead` seconds ahead.
pub(crate) fn clock(start: Instant, ahead: i64) -> Clock {
    Clock::from_fn(move || {
        let elapsed = i64::try_from(start.elapsed().as_millis()).unwrap();
        T0 + ahead * 1_000 + elapsed
    })
}

/// A replica of the server that sells one joke for 100.
fn replica(
    world: &World,
    store: Arc<dyn Store>,
    clock: Clock,
    method: Arc<dyn Method>,
) -> (Engine, Arc<Gate>) {
    let engine = world.builder(store).clock(clock).build().unwrap();
    let gate = charge_gate(&engine, method, "100");
    (engine, gate)
}

/// Leaves `n` payments behind that nobody knows the outcome of.
async fn park(gate: &Gate, n: usize) {
    for n in 0..n {
        let credential = pay(&challenge(gate).await, &format!("t{n}"));
        assert_eq!(present(gate, &credential).await, Got::Later);
    }
}

fn asked(method: &Typed<Scripted, Charge>) -> BTreeMap<String, usize> {
    let mut times = BTreeMap::new();
    for order in method.rail().0.asked.lock().unwrap().drain(..) {
        *times.entry(order).or_default() += 1;
    }
    times
}

/// Three reconcilers look each payment up as often as one would.
#[tokio::test(start_paused = true)]
async fn three_reconcilers_do_the_work_of_one() {
    let (world, method, start) = (World::new(), scripted(), Instant::now());
    let engines: Vec<_> = [-2, 0, 2]
        .map(|ahead| replica(&world, world.store(), clock(start, ahead), method.clone()))
        .into();
    park(&engines[0].1, 20).await;
    asked(&method);
    let interval = Duration::from_secs(10);
    let reconcilers: Vec<_> = engines
        .iter()
        .map(|(engine, _)| engine.spawn_reconciler(interval))
        .collect();
    sleep(interval * 12).await;
    drop(reconcilers);
    let times = asked(&method);
    assert_eq!(times.len(), 20, "every payment");
    for (payment, times) in times {
        // One reconciler alone would ask 11 to 13 times, three apart 36.
        assert!((9..=16).contains(&times), "{payment}: {times} times");
    }
}

/// Runs at the same moment: each payment is looked up by one of them.
#[tokio::test(start_paused = true)]
async fn of_three_runs_at_once_one_looks_a_payment_up() {
    let (world, method, start) = (World::new(), scripted(), Instant::now());
    let engines: Vec<_> = [-2, 0, 2]
        .map(|ahead| replica(&world, world.store(), clock(start, ahead), method.clone()))
        .into();
    park(&engines[0].1, 20).await;
    asked(&method);
    for _ in 0..20 {
        method
            .rail()
            .0
            .then_look_up(Act::Say(Outcome::settled("ref")));
    }
    // Past what the skew makes of the time they were parked at.
    sleep(Duration::from_secs(5)).await;
    let runs: Vec<_> = engines
        .iter()
        .map(|(engine, _)| {
            let engine = engine.clone();
            tokio::spawn(async move { engine.reconcile().await.unwrap() })
        })
        .collect();
    let mut settled = 0;
    for run in runs {
        settled += run.await.unwrap().settled;
    }
    assert_eq!(settled, 20);
    assert!(asked(&method).values().all(|times| *times == 1));
    for (engine, _) in engines {
        assert_eq!(engine.reconcile().await.unwrap(), Reconciled::default());
    }
}

/// A process that dies while it looks payments up keeps the others off them for its lease only.
#[tokio::test(start_paused = true)]
async fn what_a_dead_process_took_is_finished_by_another() {
    for ahead in [-2, 2] {
        let (world, method, start) = (World::new(), scripted(), Instant::now());
        let (dying, gate) = replica(&world, world.store(), clock(start, -ahead), method.clone());
        let (other, _) = replica(&world, world.store(), clock(start, ahead), method.clone());
        park(&gate, 5).await;
        asked(&method);
        sleep(Duration::from_secs(5)).await;
        let script = &method.rail().0;
        for _ in 0..5 {
            script.then_look_up(Act::Hang);
        }
        let run = tokio::spawn(async move { dying.reconcile().await });
        sleep(Duration::from_secs(1)).await;
        assert_eq!(asked(&method).len(), 5, "taken");
        run.abort();
        assert!(run.await.unwrap_err().is_cancelled());

        for _ in 0..5 {
            script.then_look_up(Act::Say(Outcome::settled("ref")));
        }
        let found = other.reconcile().await.unwrap();
        assert_eq!((found.unknown, asked(&method).len()), (5, 0), "not yet");
        sleep(Duration::from_secs(45)).await;
        assert_eq!(other.reconcile().await.unwrap().settled, 5);
    }
}

/// For as long as one process may be settling, a clock that is ahead makes no other look it up.
#[tokio::test(start_paused = true)]
async fn an_attempt_is_its_makers_until_it_gave_up() {
    for ahead in [-2, 2] {
        let (world, bank, start) = (World::new(), Arc::new(Bank::default()), Instant::now());
        let held = Arc::new(Typed::<_, Charge>::new(TestRail::held(bank.clone())));
        let (_, gate) = replica(&world, world.store(), clock(start, -ahead), held.clone());
        let knows = scripted();
        let (other, elsewhere) = replica(&world, world.store(), clock(start, ahead), knows.clone());
        let credential = pay(&challenge(&gate).await, "t");
        let settling = presenting(&gate, &credential);
        held.rail().teller().started().await;
        for _ in 0..59 {
            sleep(Duration::from_secs(1)).await;
            assert_eq!(other.reconcile().await.unwrap().unknown, 1);
            assert_eq!(present(&elsewhere, &credential).await, Got::Later);
        }
        assert!(asked(&knows).is_empty(), "nobody else asked");
        held.rail().teller().release();
        assert_eq!(settling.await.unwrap(), Got::Later, "its client was told");
        assert_eq!(settled(&elsewhere, &credential).await, Got::Served);
        assert_eq!(present(&gate, &credential).await, Got::Spent);
        assert_eq!(bank.transfers(), 1);
    }
}

/// However long a handler runs and however short the lease: while it beats, nobody else serves.
#[tokio::test(start_paused = true)]
async fn a_serving_lease_holds_against_a_clock_that_is_ahead() {
    for (ahead, lease) in [(-2, 3), (2, 3), (-2, 30), (2, 30)] {
        let (world, bank, start) = (World::new(), Arc::new(Bank::default()), Instant::now());
        let gates = [-ahead, ahead].map(|ahead| {
            let engine = world
                .builder(world.store())
                .clock(clock(start, ahead))
                .serving_lease(Duration::from_secs(lease))
                .build()
                .unwrap();
            let rail = TestRail::settling(bank.clone(), Fuse::endless());
            charge_gate(&engine, Arc::new(Typed::<_, Charge>::new(rail)), "100")
        });
        let credential = pay(&challenge(&gates[0]).await, "t");
        let inbound = Inbound::default();
        let admission = gates[0].present(credential.clone(), &inbound);
        let serving = admission.await.unwrap().into_serving().unwrap();
        for _ in 0..100 {
            sleep(Duration::from_secs(1)).await;
            assert_eq!(present(&gates[1], &credential).await, Got::Later);
        }
        serving.delivered(None).await.unwrap();
        assert_eq!(present(&gates[1], &credential).await, Got::Spent);
        assert_eq!(bank.transfers(), 1);
    }
}

/// A process that stalls between its reservation and its proof, on both sides of the lapse.
#[tokio::test(start_paused = true)]
async fn a_reservation_that_lapses_early_elsewhere_pays_once() {
    for (ahead, stalled) in [(-2, 55), (2, 55), (-2, 65), (2, 65)] {
        let (world, bank, start) = (World::new(), Arc::new(Bank::default()), Instant::now());
        let store = world.store();
        let rail = |bank: &Arc<Bank>| {
            let rail = TestRail::settling(bank.clone(), Fuse::endless());
            Arc::new(Typed::<_, Charge>::new(rail))
        };
        let builder = world.builder(store.clone()).clock(clock(start, -ahead));
        let engine = builder
            .store_deadline(Duration::from_secs(100))
            .build()
            .unwrap();
        let gate = charge_gate(&engine, rail(&bank), "100");
        let (_, other) = replica(&world, world.store(), clock(start, ahead), rail(&bank));
        let credential = pay(&challenge(&gate).await, "t");
        store.pause_before(|write| write.key.starts_with("proof:"));
        let slow = presenting(&gate, &credential);
        store.reached().await;
        sleep(Duration::from_secs(stalled)).await;
        let mut got = vec![present(&other, &credential).await];
        store.release();
        got.push(slow.await.unwrap());
        for gate in [&gate, &other] {
            sleep(Duration::from_secs(70)).await;
            got.push(present(gate, &credential).await);
        }
        let served = got.iter().filter(|got| **got == Got::Served).count();
        assert_eq!((served, bank.transfers()), (1, 1), "{stalled} s: {got:?}");
        let refused = got.iter().any(|got| matches!(got, Got::Pay(_)));
        assert!(!refused, "{stalled} s: {got:?}");
    }
}
