//! Money that was paid in time is never lost to the server's own trouble.

use std::sync::Arc;

use farebox_core::{Offer, Store, Typed, compose, prelude::*};
use farebox_engine::{Engine, Gate, Inbound};
use farebox_testkit::{Bank, Fuse, FusedStore, TestPayload, TestRail};

use serde_json::{Map, Value, json};

use crate::common::{Act, Got, T0, World, challenge, pay, present, presenting, request, scripted};

/// A rail whose invoice lapses with its challenge, and whose node forgets what it was for.
struct Invoices(NoSettler);

impl Rail<Charge> for Invoices {
    const METHOD: &'static str = "test";
    type Details = Map<String, Value>;
    type Payload = TestPayload;
    type Settler = NoSettler;

    async fn quote(&self, terms: &ChargeTerms) -> Result<Quote<Charge, Self::Details>, NoQuote> {
        let private = json!({"lapses": T0 + 300_000});
        Ok(Quote::new(request(terms)?, Map::new()).private(private))
    }

    async fn verify(
        &self,
        cx: &Presented<'_>,
        _: &Ask<Charge, Self::Details>,
        payload: TestPayload,
    ) -> Result<Plan<Once, Never>, Refusal> {
        let kept = cx.private.and_then(|kept| kept["lapses"].as_i64());
        let lapses = kept.ok_or_else(|| Fault::new("nothing was kept"))?;
        if cx.now.unix_millis() >= lapses {
            return Err(Rejection::verification("the invoice has lapsed").into());
        }
        Ok(Plan::paid(
            ProofKey::of("test", &payload.token),
            payload.token,
        ))
    }

    fn settler(&self) -> &NoSettler {
        &self.0
    }
}

fn prepaid() -> Arc<Typed<TestRail, Charge>> {
    Arc::new(Typed::new(TestRail::prepaid(
        Arc::new(Bank::default()),
        Fuse::endless(),
    )))
}

/// The proof is the payment, so a crash anywhere behind the first write leaves it collectable,
/// even after the challenge has lapsed.
#[tokio::test(start_paused = true)]
async fn a_prepaid_proof_survives_a_crash_and_a_lapsed_challenge() {
    for n in 1.. {
        let (world, fuse) = (World::new(), Fuse::new(n));
        let store = Arc::new(FusedStore::new(world.disk.clone(), fuse.clone()));
        let (_, gate) = world.charge(store, prepaid());
        let credential = pay(&challenge(&gate).await, "t");
        let first = present(&gate, &credential).await;
        world.pass(301);
        let (engine, gate) = world.charge(world.store(), prepaid());
        engine.reconcile().await.unwrap();
        let again = present(&gate, &credential).await;
        if !fuse.is_dead() {
            assert_eq!((first, again), (Got::Served, Got::Spent));
            break;
        }
        let served = [&first, &again]
            .iter()
            .filter(|g| ***g == Got::Served)
            .count();
        assert_eq!(
            served, 1,
            "dead before write {n}: {first:?}, then {again:?}"
        );
    }
}

/// The rail is asked as of when the proof first came, and with what it kept.
#[tokio::test(start_paused = true)]
async fn a_stalled_proof_is_judged_as_of_when_it_came() {
    let (world, fuse) = (World::new(), Fuse::new(2));
    let method = || Arc::new(Typed::<_, Charge>::new(Invoices(NoSettler)));
    let store = Arc::new(FusedStore::new(world.disk.clone(), fuse));
    let (_, gate) = world.charge(store, method());
    // The quote is the first write, the reservation the second.
    let credential = pay(&challenge(&gate).await, "t");
    assert!(matches!(present(&gate, &credential).await, Got::Fault(_)));
    world.pass(3_600);
    for (key, kept) in world.disk.scan("quote:").await.unwrap() {
        let forgotten = world.disk.compare_and_swap(&key, Some(&kept), None, None);
        assert!(forgotten.await.unwrap());
    }
    let (_, gate) = world.charge(world.store(), method());
    assert_eq!(present(&gate, &credential).await, Got::Served);
    assert_eq!(present(&gate, &credential).await, Got::Spent);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_goes_away_while_its_proof_is_claimed_may_come_back_after_expiry() {
    let world = World::new();
    let disk = world.store();
    let (_, gate) = world.charge(disk.clone(), prepaid());
    let credential = pay(&challenge(&gate).await, "t");
    world.pass(250);
    disk.pause_before(|write| write.key.starts_with("proof:"));
    let client = presenting(&gate, &credential);
    disk.reached().await;
    client.abort();
    assert!(client.await.unwrap_err().is_cancelled());
    assert_eq!(
        present(&gate, &credential).await,
        Got::Later,
        "being claimed"
    );
    // The replica that held the claim never comes back.
    world.pass(61);
    let (_, gate) = world.charge(world.store(), prepaid());
    assert_eq!(present(&gate, &credential).await, Got::Served);
}

/// A settling payment that stalls before anything was attempted is not attempted late, and its
/// proof is free for a fresh challenge.
#[tokio::test(start_paused = true)]
async fn an_unattempted_proof_is_not_burnt() {
    for n in 1..=3 {
        let (world, bank) = (World::new(), Arc::new(Bank::default()));
        let rail = |fuse| {
            let rail = TestRail::settling(bank.clone(), fuse);
            Arc::new(Typed::<_, Charge>::new(rail))
        };
        let fuse = Fuse::new(n);
        let store = Arc::new(FusedStore::new(world.disk.clone(), fuse.clone()));
        let (_, gate) = world.charge(store, rail(fuse));
        let credential = pay(&challenge(&gate).await, "t");
        assert!(matches!(present(&gate, &credential).await, Got::Fault(_)));
        world.pass(400);
        let (engine, gate) = world.charge(world.store(), rail(Fuse::endless()));
        engine.reconcile().await.unwrap();
        let fresh = pay(&challenge(&gate).await, "t");
        assert_eq!(present(&gate, &fresh).await, Got::Served, "dead before {n}");
        let old = present(&gate, &credential).await;
        assert!(matches!(old, Got::Pay(_) | Got::Spent), "{old:?}");
        assert_eq!(bank.moved(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_declined_proof_may_be_presented_with_a_fresh_challenge() {
    let (world, method) = (World::new(), scripted());
    let (_, gate) = world.charge(world.store(), method.clone());
    let script = &method.rail().0;
    script.then_settle(Act::Say(Outcome::Declined(Rejection::rail(
        "card-declined",
        "no",
    ))));
    let declined = Got::Pay("test/card-declined".into());
    let first = pay(&challenge(&gate).await, "spt");
    assert_eq!(present(&gate, &first).await, declined);
    assert_eq!(present(&gate, &first).await, declined, "and stays declined");
    script.then_settle(Act::Say(Outcome::settled("ref")));
    let second = pay(&challenge(&gate).await, "spt");
    assert_eq!(present(&gate, &second).await, Got::Served);
    assert_eq!(present(&gate, &first).await, declined);
}

/// A rail without a name for the movement must not leave a payment that cannot be served.
#[tokio::test(start_paused = true)]
async fn an_empty_reference_becomes_the_challenges() {
    let (world, method) = (World::new(), scripted());
    let (_, gate) = world.charge(world.store(), method.clone());
    let script = &method.rail().0;
    script.then_settle(Act::Say(Outcome::settled("")));
    let credential = pay(&challenge(&gate).await, "t");
    let admission = gate.present(credential.clone(), &Inbound::default()).await;
    let receipt = admission
        .unwrap()
        .into_serving()
        .unwrap()
        .delivered(None)
        .await
        .unwrap();
    assert_eq!(receipt.receipt.reference, credential.challenge.id);
}

/// Two rails of one kind: what one of them began, the other must not go on with.
#[tokio::test(start_paused = true)]
async fn a_stalled_payment_is_resumed_by_the_rail_that_began_it() {
    let world = World::new();
    let banks = [Arc::new(Bank::default()), Arc::new(Bank::default())];
    let boot = |order: [usize; 2], fuse: Fuse| -> (Engine, Arc<Gate>) {
        let store = Arc::new(FusedStore::new(world.disk.clone(), fuse));
        let engine = world.engine(store);
        let offers = order.map(|n| {
            let rail = TestRail::settling(banks[n].clone(), Fuse::endless());
            let method = Typed::<_, Charge>::named(rail, format!("rail-{n}"));
            let terms = ChargeTerms::amount(format!("10{n}"));
            Offer::new::<Charge>(Arc::new(method), terms).unwrap()
        });
        let gate = engine.gate("GET /joke", compose(offers).unwrap()).unwrap();
        (engine, Arc::new(gate))
    };
    // Dies behind the reservation and the claim.
    let (_, gate) = boot([0, 1], Fuse::new(2));
    let credential = pay(&challenge(&gate).await, "t");
    assert!(matches!(present(&gate, &credential).await, Got::Fault(_)));
    world.pass(61);
    let (_, gate) = boot([1, 0], Fuse::endless());
    assert_eq!(present(&gate, &credential).await, Got::Served);
    assert_eq!((banks[0].moved(), banks[1].moved()), (1, 0));
}
