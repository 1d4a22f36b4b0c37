//! The signature test: kill the process before every single effect, restart, reconcile, present
//! the same credential again, and check the books. Money must have moved exactly as often as the
//! resource was served, and nothing may be left behind.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering::SeqCst},
    },
    time::Duration,
};

use farebox_core::{
    Charge, ChargeTerms, Offer, Store, Typed, compose,
    wire::{Challenge, Credential, Payload},
};
use farebox_engine::{Clock, Engine, Gate, Inbound, MemoryStore, Reconciled, Refused};
use farebox_testkit::{Bank, Fuse, FusedStore, TestPayload, TestRail, test_secrets};

struct World {
    disk: Arc<MemoryStore>,
    bank: Arc<Bank>,
    clock: Arc<AtomicI64>,
}

impl World {
    fn new() -> Self {
        Self {
            disk: Arc::default(),
            bank: Arc::default(),
            clock: Arc::new(AtomicI64::new(1_800_000_000_000)),
        }
    }

    fn pass(&self, seconds: i64) {
        self.clock.fetch_add(seconds * 1_000, SeqCst);
    }

    /// A process: it shares the disk, the bank and the clock with those before it.
    fn boot(&self, fuse: &Fuse, rail: TestRail) -> (Engine, Arc<Gate>) {
        let clock = self.clock.clone();
        let store = FusedStore::new(self.disk.clone(), fuse.clone());
        let engine = Engine::builder("test.example", test_secrets(), Arc::new(store))
            .clock(Clock::from_fn(move || clock.load(SeqCst)))
            .build()
            .unwrap();
        let method = Arc::new(Typed::<TestRail, Charge>::new(rail));
        let offer = Offer::new::<Charge>(method, ChargeTerms::amount("100")).unwrap();
        let gate = engine.gate("GET /joke", compose([offer]).unwrap()).unwrap();
        (engine, Arc::new(gate))
    }

    fn rail(&self, prepaid: bool, fuse: &Fuse) -> TestRail {
        let (bank, fuse) = (self.bank.clone(), fuse.clone());
        if prepaid {
            TestRail::prepaid(bank, fuse)
        } else {
            TestRail::settling(bank, fuse)
        }
    }
}

async fn challenge(gate: &Gate) -> Challenge {
    gate.challenges(&Inbound::default())
        .await
        .unwrap()
        .remove(0)
}

fn pay(challenge: &Challenge, token: &str) -> Credential {
    let payload = Payload::from_value(&TestPayload {
        token: token.to_owned(),
    })
    .unwrap();
    Credential {
        challenge: challenge.clone(),
        source: None,
        payload,
    }
}

#[derive(Debug, PartialEq)]
enum Got {
    Served,
    Declined,
    Spent,
    Later,
    Fault,
}

/// What a client sees: served means that the response may leave.
async fn present(gate: &Gate, credential: Credential) -> Got {
    match gate.present(credential, &Inbound::default()).await {
        Ok(admission) => match admission.into_serving().unwrap().delivered(None).await {
            Ok(_) => Got::Served,
            Err(_) => Got::Fault,
        },
        Err(Refused::Payment(_)) => Got::Declined,
        Err(Refused::Spent(_)) => Got::Spent,
        Err(Refused::Pending { .. } | Refused::Busy { .. }) => Got::Later,
        Err(Refused::Request(_) | Refused::Conflict(_) | Refused::Fault(_)) => Got::Fault,
    }
}

#[tokio::test(start_paused = true)]
async fn the_books_balance_whenever_the_process_dies() {
    // A restart may take longer than a challenge lives: 120 s is within its 300 s, 400 s is not.
    for (prepaid, downtime) in [(false, 120), (true, 120), (false, 400), (true, 400)] {
        let mut points = 0;
        for n in 0.. {
            let world = World::new();
            let fuse = Fuse::new(n);
            let (_, gate) = world.boot(&fuse, world.rail(prepaid, &fuse));
            let credential = pay(&challenge(&gate).await, "token");
            let first = present(&gate, credential.clone()).await;
            let survived = !fuse.is_dead();
            let before = world.bank.moved();
            drop(gate);

            // A new process finds the same disk and the same bank, after all leases have lapsed.
            world.pass(downtime);
            let fuse = Fuse::endless();
            let (engine, gate) = world.boot(&fuse, world.rail(prepaid, &fuse));
            let found = engine.reconcile().await.unwrap();
            let again = present(&gate, credential.clone()).await;
            let after = world.bank.moved();
            println!(
                "prepaid={prepaid} down {downtime} s, dead before effect {n}: {first:?}, moved {before}; {found:?}; \
                 {again:?}, moved {after}"
            );

            let served = usize::from(first == Got::Served) + usize::from(again == Got::Served);
            assert!(after <= 1, "money moved twice");
            // A proof that is the payment is served too, unless the process died before it wrote
            // anything at all and came back after the challenge had lapsed.
            let lost = n == 0 && downtime > 300;
            let paid = if prepaid { usize::from(!lost) } else { after };
            assert_eq!(served, paid, "served as often as money moved");
            assert!(
                first != Got::Served || prepaid || before == 1,
                "served without money"
            );
            assert!(
                first != Got::Declined || before == 0,
                "told 'declined' after money moved"
            );
            let more = present(&gate, credential).await;
            assert!(more != Got::Served, "served twice");
            assert_eq!(engine.reconcile().await.unwrap(), Reconciled::default());
            assert!(
                world.disk.scan("todo:").await.unwrap().is_empty(),
                "left behind"
            );
            points += 1;
            if survived {
                break;
            }
        }
        // Reserve, claim, list, attempt, move, answer, record, strike, lease, deliver: a settling
        // payment has ten effects, so fewer points would mean that the fuse sits in the wrong place.
        assert!(
            points > if prepaid { 5 } else { 10 },
            "only {points} crash points"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_goes_away_cannot_cut_a_settlement_short() {
    let world = World::new();
    let clock = world.clock.clone();
    let method = Arc::new(HeldRail::new(world.bank.clone()));
    let engine = Engine::builder("test.example", test_secrets(), world.disk.clone())
        .clock(Clock::from_fn(move || clock.load(SeqCst)))
        .build()
        .unwrap();
    let offer = Offer::new::<Charge>(method.method(), ChargeTerms::amount("100")).unwrap();
    let gate = Arc::new(engine.gate("GET /joke", compose([offer]).unwrap()).unwrap());
    let credential = pay(&challenge(&gate).await, "token");

    let client = tokio::spawn({
        let (gate, credential) = (gate.clone(), credential.clone());
        async move { present(&gate, credential).await }
    });
    method.rail().teller().started().await;
    client.abort();
    assert!(client.await.unwrap_err().is_cancelled());
    assert_eq!(
        present(&gate, credential.clone()).await,
        Got::Later,
        "still being settled"
    );
    method.rail().teller().release();

    let settled = async {
        loop {
            match present(&gate, credential.clone()).await {
                Got::Later => tokio::time::sleep(Duration::from_millis(1)).await,
                other => break other,
            }
        }
    };
    let got = tokio::time::timeout(Duration::from_secs(60), settled).await;
    let got = got.expect("settled at last");
    assert_eq!(
        (got, world.bank.moved()),
        (Got::Served, 1),
        "a retry collects what was paid"
    );
    assert_eq!(present(&gate, credential).await, Got::Spent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_64_callers_with_one_credential_one_is_served() {
    for prepaid in [false, true] {
        let world = World::new();
        let fuse = Fuse::endless();
        let (_, gate) = world.boot(&fuse, world.rail(prepaid, &fuse));
        let credential = pay(&challenge(&gate).await, "token");
        let callers: Vec<_> = (0..64)
            .map(|_| {
                let (gate, credential) = (gate.clone(), credential.clone());
                tokio::spawn(async move { present(&gate, credential).await })
            })
            .collect();
        let mut served = 0;
        for caller in callers {
            match caller.await.unwrap() {
                Got::Served => served += 1,
                Got::Spent | Got::Later => {}
                other => panic!("a caller with a good credential was told {other:?}"),
            }
        }
        assert_eq!(served, 1);
        assert_eq!(world.bank.moved(), usize::from(!prepaid));
    }
}

/// One proof under two challenges at once: one is served, the other is told that it is spent.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_proof_opens_one_challenge() {
    let world = World::new();
    let fuse = Fuse::endless();
    let (_, gate) = world.boot(&fuse, world.rail(true, &fuse));
    let (a, b) = (challenge(&gate).await, challenge(&gate).await);
    let callers: Vec<_> = [a, b]
        .into_iter()
        .map(|challenge| {
            let gate = gate.clone();
            tokio::spawn(async move { present(&gate, pay(&challenge, "token")).await })
        })
        .collect();
    let mut got = Vec::new();
    for caller in callers {
        got.push(caller.await.unwrap());
    }
    assert!(
        got.contains(&Got::Served) && got.contains(&Got::Spent),
        "{got:?}"
    );
}

/// A handler that fails gives the payment back, and only then may another collect it.
#[tokio::test(start_paused = true)]
async fn a_failed_handler_leaves_the_payment_collectable() {
    let world = World::new();
    let fuse = Fuse::endless();
    let (_, gate) = world.boot(&fuse, world.rail(false, &fuse));
    let credential = pay(&challenge(&gate).await, "token");
    let admission = gate
        .present(credential.clone(), &Inbound::default())
        .await
        .unwrap();
    assert_eq!(
        present(&gate, credential.clone()).await,
        Got::Later,
        "the lease is held"
    );
    admission.into_serving().unwrap().failed().await.unwrap();

    // Long after the challenge has lapsed the money is still there to be collected.
    world.pass(3_600);
    let dropped = gate
        .present(credential.clone(), &Inbound::default())
        .await
        .unwrap();
    drop(dropped);
    tokio::task::yield_now().await;
    assert_eq!(present(&gate, credential.clone()).await, Got::Served);
    assert_eq!(
        (present(&gate, credential).await, world.bank.moved()),
        (Got::Spent, 1)
    );
}

/// A held settling rail whose teller the test can reach.
struct HeldRail {
    typed: Arc<Typed<TestRail, Charge>>,
}

impl HeldRail {
    fn new(bank: Arc<Bank>) -> Self {
        Self {
            typed: Arc::new(Typed::new(TestRail::held(bank))),
        }
    }

    fn method(&self) -> Arc<dyn farebox_core::Method> {
        self.typed.clone()
    }

    fn rail(&self) -> &TestRail {
        self.typed.rail()
    }
}
