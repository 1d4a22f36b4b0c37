//! Replicas, stragglers and slow stores: of all who race, one pays and one serves.

use std::sync::{Arc, atomic::Ordering::SeqCst};

use farebox_core::{Typed, prelude::*};
use farebox_engine::{Driven, Inbound, Reconciled};
use farebox_testkit::{Bank, Fuse, FusedStore, TestRail};

use crate::common::{
    Act, Got, World, challenge, pay, present, presenting, refused, scripted, settled,
};

fn rail(bank: &Arc<Bank>, prepaid: bool) -> Arc<Typed<TestRail, Charge>> {
    Arc::new(Typed::new(match prepaid {
        true => TestRail::prepaid(bank.clone(), Fuse::endless()),
        false => TestRail::settling(bank.clone(), Fuse::endless()),
    }))
}

/// A replica whose clock runs ahead looks up what is still being settled and finds nothing.
#[tokio::test(start_paused = true)]
async fn money_that_moves_after_a_wrong_lookup_is_served() {
    let (world, bank) = (World::new(), Arc::new(Bank::default()));
    let held = Arc::new(Typed::<_, Charge>::new(TestRail::held(bank.clone())));
    let (engine, gate) = world.charge(world.store(), held.clone());
    let credential = pay(&challenge(&gate).await, "t");
    let settling = presenting(&gate, &credential);
    held.rail().teller().started().await;
    world.pass(60);
    assert_eq!(
        engine.reconcile().await.unwrap().unknown,
        1,
        "within its time"
    );
    world.pass(60);
    assert_eq!(engine.reconcile().await.unwrap().declined, 1);
    held.rail().teller().release();
    assert_eq!(settling.await.unwrap(), Got::Served);
    assert_eq!(
        (present(&gate, &credential).await, bank.moved()),
        (Got::Spent, 1)
    );
    engine.reconcile().await.unwrap();
    assert_eq!(world.count("todo:").await, 0);
}

/// What says that money moved is recorded, whoever parked the payment meanwhile.
#[tokio::test(start_paused = true)]
async fn a_settled_lookup_wins_over_one_that_knows_nothing() {
    let (world, method) = (World::new(), scripted());
    let (engine, gate) = world.charge(world.store(), method.clone());
    let script = &method.rail().0;
    let credential = pay(&challenge(&gate).await, "t");
    assert_eq!(present(&gate, &credential).await, Got::Later);
    world.pass(1);
    script.then_look_up(Act::Hold(Outcome::settled("ref")));
    let reconciler = tokio::spawn({
        let engine = engine.clone();
        async move { engine.reconcile().await.unwrap() }
    });
    script.reached().await;
    assert_eq!(
        present(&gate, &credential).await,
        Got::Later,
        "parks it anew"
    );
    script.release();
    assert_eq!(reconciler.await.unwrap().settled, 1);
    assert_eq!(world.count("todo:").await, 0);
    assert_eq!(present(&gate, &credential).await, Got::Served);
    assert_eq!(engine.reconcile().await.unwrap(), Reconciled::default());
}

/// A lookup that says no, answered after another that said yes, takes nothing back.
#[tokio::test(start_paused = true)]
async fn a_late_no_does_not_undo_a_yes() {
    let (world, method) = (World::new(), scripted());
    let (_, gate) = world.charge(world.store(), method.clone());
    let script = &method.rail().0;
    let credential = pay(&challenge(&gate).await, "t");
    assert_eq!(present(&gate, &credential).await, Got::Later);
    let no = Outcome::Declined(Rejection::verification("no"));
    script.then_look_up(Act::Hold(no));
    script.then_look_up(Act::Say(Outcome::settled("ref")));
    let late = presenting(&gate, &credential);
    script.reached().await;
    // Until then the first has the lookup to itself.
    world.pass(41);
    assert_eq!(present(&gate, &credential).await, Got::Served);
    script.release();
    assert_eq!(
        late.await.unwrap(),
        Got::Spent,
        "never 402 for money that moved"
    );
}

/// The reconciler finds a reservation that stalled while its payer comes back: whatever it
/// removes, a payment that may have moved stays on its list.
#[tokio::test(start_paused = true)]
async fn an_attempt_is_never_struck_off_by_an_earlier_run() {
    for (slow_at, stall) in [("todo:", 0), ("pay:", 61)] {
        let (world, bank) = (World::new(), Arc::new(Bank::default()));
        // Dies behind the list and before the attempt: reserve, claim, list.
        let fuse = Fuse::new(3);
        let store = Arc::new(FusedStore::new(world.disk.clone(), fuse.clone()));
        let (_, gate) = world.charge(store, rail(&bank, false));
        let credential = pay(&challenge(&gate).await, "t");
        assert!(matches!(present(&gate, &credential).await, Got::Fault(_)));
        assert_eq!(world.record().await["state"], "reserved");
        assert_eq!(world.count("todo:").await, 1);
        world.pass(61);

        let store = world.store();
        let held = Arc::new(Typed::<_, Charge>::new(TestRail::held(bank.clone())));
        let (engine, gate) = world.charge(store.clone(), held.clone());
        store.pause_before(move |write| write.removes(slow_at));
        let reconciler = tokio::spawn(async move { engine.reconcile().await.unwrap() });
        store.reached().await;
        world.pass(stall);
        let settling = presenting(&gate, &credential);
        held.rail().teller().started().await;
        store.release();
        reconciler.await.unwrap();
        assert_eq!(world.record().await["state"], "attempted");
        assert_eq!(world.count("todo:").await, 1, "a crash now must be found");
        held.rail().teller().release();
        assert_eq!((settling.await.unwrap(), bank.moved()), (Got::Served, 1));
    }
}

/// A process that wakes up long after its reservation was resumed and delivered by another.
#[tokio::test(start_paused = true)]
async fn a_straggler_does_not_free_the_proof_of_who_replaced_it() {
    for key in ["proof:", "todo:"] {
        let (world, bank) = (World::new(), Arc::new(Bank::default()));
        let store = world.store();
        let (_, slow) = world.charge(store.clone(), rail(&bank, false));
        let credential = pay(&challenge(&slow).await, "t");
        store.pause_before(move |write| write.key.starts_with(key));
        let straggler = presenting(&slow, &credential);
        store.reached().await;
        world.pass(61);
        let (_, gate) = world.charge(world.store(), rail(&bank, false));
        assert_eq!(present(&gate, &credential).await, Got::Served);
        world.pass(240);
        store.release();
        let got = straggler.await.unwrap();
        assert!(
            matches!(got, Got::Later | Got::Spent),
            "stalled at {key}: {got:?}"
        );
        let again = pay(&challenge(&gate).await, "t");
        assert_eq!(present(&gate, &again).await, Got::Spent, "stalled at {key}");
        assert_eq!(bank.moved(), 1);
    }
}

/// Freeing takes long enough that the payer comes back in between.
#[tokio::test(start_paused = true)]
async fn a_slow_release_does_not_free_a_later_claim() {
    let (world, bank) = (World::new(), Arc::new(Bank::default()));
    let fuse = Fuse::new(3);
    let store = Arc::new(FusedStore::new(world.disk.clone(), fuse.clone()));
    let (_, gate) = world.charge(store, rail(&bank, false));
    let credential = pay(&challenge(&gate).await, "t");
    assert!(matches!(present(&gate, &credential).await, Got::Fault(_)));
    world.pass(61);

    let store = world.store();
    let (engine, _) = world.charge(store.clone(), rail(&bank, false));
    store.pause_before(|write| write.removes("proof:"));
    let reconciler = tokio::spawn(async move { engine.reconcile().await.unwrap() });
    store.reached().await;
    let (engine, gate) = world.charge(world.store(), rail(&bank, false));
    assert_eq!(present(&gate, &credential).await, Got::Later, "being freed");
    world.pass(61);
    assert_eq!(present(&gate, &credential).await, Got::Served);
    store.release();
    reconciler.await.unwrap();
    let again = pay(&challenge(&gate).await, "t");
    assert_eq!(present(&gate, &again).await, Got::Spent);
    assert_eq!(bank.moved(), 1);
    engine.reconcile().await.unwrap();
    assert_eq!(world.count("todo:").await, 0);
}

/// One proof under two challenges, the first of which stalled: while the second takes the proof
/// over, the first comes back. Either may have it, never both.
#[tokio::test(start_paused = true)]
async fn a_proof_that_is_taken_over_pays_once() {
    for prepaid in [true, false] {
        let (world, bank) = (World::new(), Arc::new(Bank::default()));
        // Dies behind the reservation and its claim.
        let fuse = Fuse::new(2);
        let store = Arc::new(FusedStore::new(world.disk.clone(), fuse.clone()));
        let (_, gate) = world.charge(store, rail(&bank, prepaid));
        let first = pay(&challenge(&gate).await, "t");
        assert!(matches!(present(&gate, &first).await, Got::Fault(_)));
        world.pass(61);

        let store = world.store();
        let (_, slow) = world.charge(store.clone(), rail(&bank, prepaid));
        let second = pay(&challenge(&slow).await, "t");
        store.pause_before(|write| write.key.starts_with("proof:") && write.expected.is_some());
        let taking = presenting(&slow, &second);
        store.reached().await;
        let (_, gate) = world.charge(world.store(), rail(&bank, prepaid));
        let mut got = vec![present(&gate, &first).await];
        store.release();
        got.push(taking.await.unwrap());
        got.push(present(&gate, &first).await);
        got.push(present(&gate, &second).await);
        let served = got.iter().filter(|got| **got == Got::Served).count();
        assert_eq!(served, 1, "{got:?}");
        assert!(bank.moved() <= 1, "{got:?}");
        assert!(!got.iter().any(|got| matches!(got, Got::Pay(_))), "{got:?}");
    }
}

/// A reservation stalls between its claim and its money. While it is live its proof is its own;
/// once another challenge has taken the proof over, waking up serves nothing.
#[tokio::test(start_paused = true)]
async fn a_straggler_whose_proof_was_taken_over_serves_nothing() {
    for (prepaid, state) in [(true, "\"serving\""), (false, "\"attempted\"")] {
        let (world, bank) = (World::new(), Arc::new(Bank::default()));
        let store = world.store();
        let (_, slow) = world.charge(store.clone(), rail(&bank, prepaid));
        let first = pay(&challenge(&slow).await, "t");
        store.pause_before(move |write| write.puts("pay:", state));
        let straggler = presenting(&slow, &first);
        store.reached().await;
        let (engine, gate) = world.charge(world.store(), rail(&bank, prepaid));
        let early = pay(&challenge(&gate).await, "t");
        assert_eq!(present(&gate, &early).await, Got::Spent, "it is claimed");
        world.pass(61);
        let second = pay(&challenge(&gate).await, "t");
        assert_eq!(present(&gate, &second).await, Got::Served);
        store.release();
        let got = straggler.await.unwrap();
        assert!(matches!(got, Got::Later | Got::Spent), "{got:?}");
        assert_eq!(present(&gate, &first).await, Got::Spent);
        assert_eq!(bank.moved(), usize::from(!prepaid));
        engine.reconcile().await.unwrap();
        assert_eq!(world.count("todo:").await, 0);
    }
}

/// A payer that presents another proof with a challenge of which the first one stalled does not
/// burn the first.
#[tokio::test(start_paused = true)]
async fn a_proof_whose_reservation_was_replaced_is_free() {
    let (world, bank) = (World::new(), Arc::new(Bank::default()));
    let fuse = Fuse::new(2);
    let store = Arc::new(FusedStore::new(world.disk.clone(), fuse.clone()));
    let (_, gate) = world.charge(store, rail(&bank, true));
    let issued = challenge(&gate).await;
    assert!(matches!(
        present(&gate, &pay(&issued, "x")).await,
        Got::Fault(_)
    ));
    world.pass(61);
    let (_, gate) = world.charge(world.store(), rail(&bank, true));
    assert_eq!(present(&gate, &pay(&issued, "y")).await, Got::Served);
    assert_eq!(present(&gate, &pay(&issued, "x")).await, Got::Spent);
    let fresh = pay(&challenge(&gate).await, "x");
    assert_eq!(present(&gate, &fresh).await, Got::Served);
    let again = pay(&challenge(&gate).await, "x");
    assert_eq!(present(&gate, &again).await, Got::Spent);
}

/// A holder of the typed steps that went on after its reservation had lapsed.
#[tokio::test(start_paused = true)]
async fn a_lapsed_reservation_settles_nothing() {
    for prepaid in [true, false] {
        let (world, bank) = (World::new(), Arc::new(Bank::default()));
        let (_, gate) = world.charge(world.store(), rail(&bank, prepaid));
        let credential = pay(&challenge(&gate).await, "t");
        let reserve = || async {
            let authentic = gate.authenticate(credential.clone(), &Inbound::default());
            let verified = authentic.unwrap().verify().await.unwrap();
            verified.reserve().await.unwrap()
        };
        let lapsed = reserve().await.unwrap();
        world.pass(61);
        assert_eq!(present(&gate, &credential).await, Got::Served);
        let driven = lapsed.settle().await.unwrap();
        assert!(
            matches!(driven, Driven::Paid | Driven::Pending),
            "{driven:?}"
        );
        assert_eq!(bank.moved(), usize::from(!prepaid));
        assert_eq!(present(&gate, &credential).await, Got::Spent);
    }
}

/// One that wakes up after the challenge has lapsed must not say "pay anew": its successor may
/// have paid.
#[tokio::test(start_paused = true)]
async fn an_expired_straggler_does_not_decline_what_another_settles() {
    let (world, bank) = (World::new(), Arc::new(Bank::default()));
    let (_, gate) = world.charge(world.store(), rail(&bank, false));
    let credential = pay(&challenge(&gate).await, "t");
    let authentic = gate.authenticate(credential.clone(), &Inbound::default());
    let verified = authentic.unwrap().verify().await.unwrap();
    let straggler = verified.reserve().await.unwrap().unwrap();
    world.pass(61);
    assert_eq!(present(&gate, &credential).await, Got::Served);
    world.pass(300);
    assert_eq!(straggler.settle().await.unwrap(), Driven::Pending);
    assert_eq!(bank.moved(), 1);
}

/// The last look at the clock comes before the money moves, and after it there is none.
#[tokio::test(start_paused = true)]
async fn a_challenge_that_lapses_on_the_way_to_its_attempt_moves_nothing() {
    for key in ["todo:", "pay:"] {
        let (world, bank) = (World::new(), Arc::new(Bank::default()));
        let store = world.store();
        let (engine, gate) = world.charge(store.clone(), rail(&bank, false));
        let credential = pay(&challenge(&gate).await, "t");
        world.pass(299);
        store.pause_before(move |write| {
            write.key.starts_with(key) && (key == "todo:" || write.puts(key, "attempted"))
        });
        let late = presenting(&gate, &credential);
        store.reached().await;
        world.pass(1);
        store.release();
        assert_eq!(
            late.await.unwrap(),
            Got::Pay("payment-expired".into()),
            "{key}"
        );
        assert_eq!(bank.moved(), 0);
        engine.reconcile().await.unwrap();
        assert_eq!(
            (world.count("todo:").await, world.count("proof:").await),
            (0, 0)
        );
    }
}

/// Many replicas find one parked payment at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_who_look_a_parked_payment_up_one_serves() {
    let (world, method) = (World::new(), scripted());
    let (engine, gate) = world.charge(world.store(), method.clone());
    let script = &method.rail().0;
    let credential = pay(&challenge(&gate).await, "t");
    assert_eq!(present(&gate, &credential).await, Got::Later);
    for n in 0..64 {
        script.then_look_up(Act::Say(match n % 3 {
            0 => Outcome::Unknown,
            _ => Outcome::settled("ref"),
        }));
    }
    let callers: Vec<_> = (0..16).map(|_| presenting(&gate, &credential)).collect();
    engine.reconcile().await.unwrap();
    let mut served = 0;
    for caller in callers {
        match caller.await.unwrap() {
            Got::Served => served += 1,
            Got::Spent | Got::Later => {}
            other => panic!("{other:?}"),
        }
    }
    if served == 0 {
        assert_eq!(settled(&gate, &credential).await, Got::Served);
        served += 1;
    }
    assert_eq!((served, script.settled.load(SeqCst)), (1, 1));
}

/// A lease that lapsed under its holder: the response of one of the two is held back.
#[tokio::test(start_paused = true)]
async fn a_holder_that_slept_through_its_lease_serves_nothing() {
    let (world, bank) = (World::new(), Arc::new(Bank::default()));
    let (_, gate) = world.charge(world.store(), rail(&bank, false));
    let credential = pay(&challenge(&gate).await, "t");
    let inbound = Inbound::default();
    let slept = gate.present(credential.clone(), &inbound).await.unwrap();
    world.pass(35);
    let other = gate.present(credential.clone(), &inbound).await.unwrap();
    assert!(slept.into_serving().unwrap().delivered(None).await.is_err());
    assert_eq!(
        refused(
            gate.present(credential.clone(), &inbound)
                .await
                .unwrap_err()
        ),
        Got::Later
    );
    other.into_serving().unwrap().delivered(None).await.unwrap();
    assert_eq!(present(&gate, &credential).await, Got::Spent);
}
