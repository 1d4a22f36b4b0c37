//! What is written goes again when it protects nothing any more, and not before.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use farebox_core::{Store, Typed, prelude::*, wire::Credential};
use farebox_engine::{Engine, Gate, Inbound, MemoryStore};
use farebox_testkit::{Bank, Counter, Fuse, Proxy, TestPayload, TestRail};
use serde_json::{Map, Value, json};
use tokio::time::{Instant, sleep};

use crate::common::session_gate;
use crate::common::{Got, Till, World, challenge, charge_gate, credential, pay, present, request};
use crate::replicas::clock;

/// `test/charge` that keeps something with each challenge, and does what its token begins with.
struct Keeper(Processor);

/// Does as the order says; an unknown outcome stays so until the processor is back.
#[derive(Default)]
struct Processor {
    back: AtomicUsize,
}

impl Settle for Processor {
    type Order = String;

    async fn settle(&self, _: &IdempotencyKey, order: &String) -> Outcome {
        match order.split('-').next() {
            Some("decline") => Outcome::Declined(Rejection::verification("no")),
            Some("unknown") => Outcome::Unknown,
            _ => Outcome::settled("ref"),
        }
    }

    async fn lookup(&self, _: &IdempotencyKey, _: &String) -> Outcome {
        match self.back.load(SeqCst) {
            0 => Outcome::Unknown,
            _ => Outcome::settled("ref"),
        }
    }
}

/// How long a proof is kept, unless its token says `forever`.
const KEEP: Duration = Duration::from_secs(60);

impl Rail<Charge> for Keeper {
    const METHOD: &'static str = "test";
    type Details = Map<String, Value>;
    type Payload = TestPayload;
    type Settler = Processor;

    async fn quote(&self, terms: &ChargeTerms) -> Result<Quote<Charge, Self::Details>, NoQuote> {
        Ok(Quote::new(request(terms)?, Map::new()).private(json!("kept")))
    }

    async fn verify(
        &self,
        _: &Presented<'_>,
        _: &Ask<Charge, Self::Details>,
        payload: TestPayload,
    ) -> Result<Plan<Once, String>, Refusal> {
        let proof = ProofKey::of("test", &payload.token);
        let plan = match payload.token.split('-').next() {
            Some("paid") => Plan::paid(proof.keep_for(KEEP), "ref"),
            Some("forever") => Plan::paid(proof, "ref"),
            _ => Plan::settle(proof.keep_for(KEEP), payload.token),
        };
        Ok(plan)
    }

    fn settler(&self) -> &Processor {
        &self.0
    }
}

/// How many records there are by kind.
async fn kinds(disk: &MemoryStore) -> BTreeMap<String, usize> {
    let mut kinds = BTreeMap::new();
    for (key, _) in disk.scan("").await.unwrap() {
        let kind = key.split(':').next().unwrap_or_default().to_owned();
        // A process's sign of life, which depends on how fast this machine is.
        if kind != "pulse" {
            *kinds.entry(kind).or_default() += 1;
        }
    }
    kinds
}

fn counts<const N: usize>(expected: [(&str, usize); N]) -> BTreeMap<String, usize> {
    expected
        .into_iter()
        .map(|(kind, n)| (kind.to_owned(), n))
        .collect()
}

async fn failing(gate: &Gate, credential: Credential) {
    let admission = gate.present(credential, &Inbound::default()).await.unwrap();
    admission.into_serving().unwrap().failed().await.unwrap();
}

const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(24 * 3_600);

/// A thousand of each kind of end that a challenge can come to.
#[tokio::test(start_paused = true)]
async fn the_store_shrinks_to_what_must_be_kept() {
    const N: usize = 1_000;
    let (world, start) = (World::new(), Instant::now());
    let builder = world.builder(world.store()).clock(clock(start, 0));
    let engine: Engine = builder.build().unwrap();
    let method = Arc::new(Typed::<_, Charge>::new(Keeper(Processor::default())));
    let gate = charge_gate(&engine, method.clone(), "100");
    let (mut late, mut unserved) = (Vec::new(), Vec::new());
    for n in 0..N {
        challenge(&gate).await;
        late.push(pay(&challenge(&gate).await, &format!("late-{n}")));
        for end in ["paid", "settle", "forever"] {
            let credential = pay(&challenge(&gate).await, &format!("{end}-{n}"));
            assert_eq!(present(&gate, &credential).await, Got::Served);
        }
        let declined = pay(&challenge(&gate).await, &format!("decline-{n}"));
        let told = present(&gate, &declined).await;
        assert_eq!(told, Got::Pay("verification-failed".into()));
        let unknown = pay(&challenge(&gate).await, &format!("unknown-{n}"));
        assert_eq!(present(&gate, &unknown).await, Got::Later);
        let failed = pay(&challenge(&gate).await, &format!("settle-failed-{n}"));
        failing(&gate, failed.clone()).await;
        unserved.push(failed);
    }
    // Before anything lapses: what is declined holds no proof, what is finished is on no list.
    let full = [
        ("pay", 6 * N),
        ("proof", 5 * N),
        ("quote", 8 * N),
        ("todo", N),
    ];
    assert_eq!(kinds(&world.disk).await, counts(full));

    sleep(Duration::from_secs(301)).await;
    for credential in &late {
        let told = present(&gate, credential).await;
        assert_eq!(told, Got::Pay("payment-expired".into()));
    }
    assert_eq!(kinds(&world.disk).await, counts(full), "nothing is written");

    // Money that may have moved, money that was not served for, and proofs without a term.
    sleep(HOUR).await;
    let lapsed = [("pay", 2 * N), ("proof", N), ("todo", N)];
    assert_eq!(kinds(&world.disk).await, counts(lapsed));
    let collected = present(&gate, &unserved[0]).await;
    assert_eq!(collected, Got::Served, "long after its proof key went");

    sleep(DAY * 31).await;
    let undecided = [("pay", N), ("proof", N), ("todo", N)];
    assert_eq!(kinds(&world.disk).await, counts(undecided));

    method.rail().0.back.store(1, SeqCst);
    assert_eq!(engine.reconcile().await.unwrap().settled, N);
    let decided = [("pay", N), ("proof", N)];
    assert_eq!(kinds(&world.disk).await, counts(decided), "collectable now");
    sleep(DAY * 31).await;
    assert_eq!(kinds(&world.disk).await, counts([("proof", N)]));

    // And the memory goes with them: every write collects more than it adds.
    for n in 0..=N {
        challenge(&gate).await;
        if world.disk.len() <= N + n + 2 {
            return;
        }
    }
    panic!("{} records in memory", world.disk.len());
}

/// A closed channel is forgotten once nothing can come for it; an open one holds money.
#[tokio::test(start_paused = true)]
async fn a_closed_channel_goes_and_an_open_one_stays() {
    let (world, start) = (World::new(), Instant::now());
    let builder = world.builder(world.store()).clock(clock(start, 0));
    let engine = builder.build().unwrap();
    let gate = session_gate(&engine, Arc::new(Typed::new(Till::held())));
    for (action, left) in [("open", 1), ("close", 0)] {
        let payload = json!({"do": action, "n": 100, "proof": action});
        let credential = credential(&challenge(&gate).await, &payload);
        let expected = if left == 1 { Got::Served } else { Got::Managed };
        assert_eq!(present(&gate, &credential).await, expected);
        assert_eq!(world.count("chan:").await, 1);
        sleep(DAY * 61).await;
        assert_eq!(world.count("chan:").await, left, "after {action}");
    }
}

/// A stranger who asks, and one who presents nonsense, costs the store nothing; a rail that keeps
/// something with its challenge costs one write.
#[tokio::test(start_paused = true)]
async fn without_a_credential_nothing_is_written() {
    let bank = Arc::new(Bank::default());
    let plain = TestRail::settling(bank, Fuse::endless());
    let methods: [(Arc<dyn farebox_core::Method>, usize); 2] = [
        (Arc::new(Typed::<_, Charge>::new(plain)), 0),
        (
            Arc::new(Typed::<_, Charge>::new(Keeper(Processor::default()))),
            1,
        ),
    ];
    for (method, each) in methods {
        let world = World::new();
        let store = Arc::new(Proxy::new(world.disk.clone(), Counter::default()));
        let (_, gate) = world.charge(store.clone(), method);
        let mut last = None;
        for _ in 0..1_000 {
            last = Some(challenge(&gate).await);
        }
        let counted = || (store.reads(), store.writes());
        assert_eq!(counted(), (0, 1_000 * each));
        let mut forged = last.unwrap();
        forged.realm = "other.example".into();
        let told = present(&gate, &pay(&forged, "paid")).await;
        assert_eq!(told, Got::Pay("invalid-challenge".into()));
        assert_eq!(counted(), (0, 1_000 * each), "a forgery reads nothing");
    }
}

/// A payment that is its proof costs the store four writes and a read, as the README says.
#[tokio::test(start_paused = true)]
async fn a_prepaid_request_costs_four_writes() {
    let world = World::new();
    let store = Arc::new(Proxy::new(world.disk.clone(), Counter::default()));
    let method = TestRail::prepaid(Arc::default(), Fuse::endless());
    let method = Arc::new(Typed::<_, Charge>::new(method));
    let (_, gate) = world.charge(store.clone(), method);
    let paid = pay(&challenge(&gate).await, "a");
    assert_eq!(present(&gate, &paid).await, Got::Served);
    assert_eq!((store.reads(), store.writes()), (1, 4));
}

/// A full store takes no new payment and loses none that it has.
#[tokio::test(start_paused = true)]
async fn a_full_store_refuses_new_payments_and_finishes_old_ones() {
    let (world, start) = (World::new(), Instant::now());
    let disk = Arc::new(MemoryStore::with_capacity(2));
    let builder = world.builder(disk.clone()).clock(clock(start, 0));
    let engine = builder.build().unwrap();
    let method = TestRail::prepaid(Arc::default(), Fuse::endless());
    let gate = charge_gate(&engine, Arc::new(Typed::<_, Charge>::new(method)), "100");
    let first = pay(&challenge(&gate).await, "a");
    failing(&gate, first.clone()).await;
    let second = pay(&challenge(&gate).await, "b");
    let told = present(&gate, &second).await;
    assert!(
        matches!(&told, Got::Fault(text) if text.contains("full")),
        "{told:?}"
    );
    assert_eq!(present(&gate, &first).await, Got::Served);
    sleep(DAY * 31).await;
    let third = pay(&challenge(&gate).await, "c");
    let told = present(&gate, &third).await;
    assert!(
        matches!(told, Got::Fault(_)),
        "the first's proof has no term: {told:?}"
    );
}
