//! A proof that came in time is not lost to a rail that could not judge it then.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use farebox_core::{Offer, Store, Typed, compose, prelude::*};
use farebox_engine::Gate;
use farebox_testkit::TestPayload;
use serde_json::{Map, Value, json};
use tokio::sync::Notify;

use crate::common::{Act, Got, Script, T0, World, challenge, pay, present, presenting, request};

/// A rail whose node may be away, and whose invoices lapse with their challenges.
#[derive(Default)]
struct Node {
    up: AtomicBool,
    asked: Notify,
    script: Script,
}

impl Rail<Charge> for Node {
    const METHOD: &'static str = "test";
    type Details = Map<String, Value>;
    type Payload = TestPayload;
    type Settler = Script;

    async fn quote(&self, terms: &ChargeTerms) -> Result<Quote<Charge, Self::Details>, NoQuote> {
        let private = json!({"lapses": T0 + 300_000});
        Ok(Quote::new(request(terms)?, Map::new()).private(private))
    }

    async fn verify(
        &self,
        cx: &Presented<'_>,
        _: &Ask<Charge, Self::Details>,
        TestPayload { token }: TestPayload,
    ) -> Result<Plan<Once, String>, Refusal> {
        if token == "forged" {
            return Err(Rejection::verification("no such payment").into());
        }
        if !self.up.load(SeqCst) {
            self.asked.notify_one();
            return match token.as_str() {
                "hangs" => std::future::pending().await,
                _ => Err(Fault::unavailable("the node is away").into()),
            };
        }
        let kept = cx.private.and_then(|kept| kept["lapses"].as_i64());
        let lapses = kept.ok_or_else(|| Fault::new("nothing was kept"))?;
        if cx.now.unix_millis() >= lapses {
            return Err(Rejection::verification("the invoice has lapsed").into());
        }
        let proof = ProofKey::of("test", &token);
        Ok(match token.as_str() {
            "order" => Plan::settle(proof, token),
            _ => Plan::paid(proof, token),
        })
    }

    fn settler(&self) -> &Script {
        &self.script
    }
}

fn shop(world: &World, price: &str) -> (Arc<Gate>, Arc<Typed<Node, Charge>>) {
    shop_on(world, world.store(), price)
}

fn shop_on(
    world: &World,
    store: Arc<dyn Store>,
    price: &str,
) -> (Arc<Gate>, Arc<Typed<Node, Charge>>) {
    let node = Arc::new(Typed::<_, Charge>::new(Node::default()));
    let engine = world.engine(store);
    let offer = Offer::new::<Charge>(node.clone(), ChargeTerms::amount(price)).unwrap();
    let gate = engine.gate("GET /joke", compose([offer]).unwrap()).unwrap();
    (Arc::new(gate), node)
}

/// The challenge has lapsed, what was kept with it is gone, and the node is back.
async fn hours_later(world: &World, node: &Typed<Node, Charge>) {
    world.pass(3 * 3_600);
    for (key, kept) in world.disk.scan("quote:").await.unwrap() {
        let forgotten = world.disk.compare_and_swap(&key, Some(&kept), None, None);
        assert!(forgotten.await.unwrap());
    }
    node.rail().up.store(true, SeqCst);
}

#[tokio::test(start_paused = true)]
async fn a_payment_made_during_an_outage_is_collected_after_it() {
    let world = World::new();
    let (gate, node) = shop(&world, "100");
    let credential = pay(&challenge(&gate).await, "t");
    for seconds in [0, 200] {
        world.pass(seconds);
        assert!(matches!(present(&gate, &credential).await, Got::Fault(_)));
    }
    world.pass(200);
    // Still away, and the challenge has lapsed: our fault, and no reason to pay again.
    assert!(matches!(present(&gate, &credential).await, Got::Fault(_)));
    hours_later(&world, &node).await;
    assert_eq!(present(&gate, &credential).await, Got::Served);
    assert_eq!(present(&gate, &credential).await, Got::Spent);
    assert_eq!(world.count("pay:").await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_wait_for_the_verdict_may_come_back() {
    let world = World::new();
    let (gate, node) = shop(&world, "100");
    let credential = pay(&challenge(&gate).await, "hangs");
    let client = presenting(&gate, &credential);
    node.rail().asked.notified().await;
    client.abort();
    assert!(client.await.unwrap_err().is_cancelled());
    marked(&world).await;
    hours_later(&world, &node).await;
    assert_eq!(present(&gate, &credential).await, Got::Served);
}

async fn marked(world: &World) {
    let marked = async {
        while world.count("pay:").await == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), marked)
        .await
        .unwrap();
}

/// Protects: a client that goes away while its proof is being marked loses the mark neither.
#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_wait_for_the_mark_may_come_back() {
    let world = World::new();
    let store = world.store();
    let (gate, node) = shop_on(&world, store.clone(), "100");
    let credential = pay(&challenge(&gate).await, "t");
    store.pause_before(|write| write.puts("pay:", "\"reserved\""));
    let client = presenting(&gate, &credential);
    store.reached().await;
    client.abort();
    assert!(client.await.unwrap_err().is_cancelled());
    store.release();
    marked(&world).await;
    hours_later(&world, &node).await;
    assert_eq!(present(&gate, &credential).await, Got::Served);
}

/// A mark is for the one credential that came: it makes no challenge live longer.
#[tokio::test(start_paused = true)]
async fn only_what_was_seen_in_time_is_judged_late() {
    let world = World::new();
    let (gate, node) = shop(&world, "100");
    let challenges = [challenge(&gate).await, challenge(&gate).await];
    let seen = pay(&challenges[0], "t");
    assert!(matches!(present(&gate, &seen).await, Got::Fault(_)));
    // A verdict is final, and writes nothing.
    let forged = pay(&challenges[1], "forged");
    let rejected = Got::Pay("verification-failed".into());
    assert_eq!(present(&gate, &forged).await, rejected);
    assert_eq!(world.count("pay:").await, 1);
    hours_later(&world, &node).await;
    let expired = Got::Pay("payment-expired".into());
    for late in [
        pay(&challenges[0], "u"),
        pay(&challenges[1], "t"),
        forged.clone(),
    ] {
        assert_eq!(present(&gate, &late).await, expired);
    }
    assert_eq!(present(&gate, &seen).await, Got::Served);
}

/// Another credential for the same challenge is not kept out by one that nobody could judge.
#[tokio::test(start_paused = true)]
async fn a_mark_gives_way_to_a_proof() {
    let world = World::new();
    let (gate, node) = shop(&world, "100");
    let challenge = challenge(&gate).await;
    let junk = pay(&challenge, "junk");
    assert!(matches!(present(&gate, &junk).await, Got::Fault(_)));
    node.rail().up.store(true, SeqCst);
    assert_eq!(present(&gate, &pay(&challenge, "t")).await, Got::Served);
    assert_eq!(present(&gate, &junk).await, Got::Spent);
}

/// An authorisation moves no money after its challenge has lapsed, seen or not.
#[tokio::test(start_paused = true)]
async fn a_late_verdict_settles_nothing() {
    let world = World::new();
    let (gate, node) = shop(&world, "100");
    let credential = pay(&challenge(&gate).await, "order");
    assert!(matches!(present(&gate, &credential).await, Got::Fault(_)));
    hours_later(&world, &node).await;
    let expired = Got::Pay("payment-expired".into());
    assert_eq!(present(&gate, &credential).await, expired);
    assert_eq!(node.rail().script.settled.load(SeqCst), 0);
}

/// A restart with another price during an outage: what was paid by then is collected after it, and
/// what was only authorised is not settled at the old price.
#[tokio::test(start_paused = true)]
async fn a_mark_at_changed_terms_is_for_what_was_paid() {
    let world = World::new();
    let (old, _) = shop(&world, "100");
    let (paid, order) = (
        pay(&challenge(&old).await, "t"),
        pay(&challenge(&old).await, "order"),
    );
    let (changed, node) = shop(&world, "101");
    for credential in [&paid, &order] {
        assert!(matches!(present(&changed, credential).await, Got::Fault(_)));
    }
    node.rail().up.store(true, SeqCst);
    let anew = Got::Pay("invalid-challenge".into());
    assert_eq!(present(&changed, &order).await, anew);
    assert_eq!(world.count("proof:").await, 0);
    hours_later(&world, &node).await;
    assert_eq!(present(&changed, &order).await, anew);
    assert_eq!(present(&changed, &paid).await, Got::Served);
    assert_eq!(node.rail().script.settled.load(SeqCst), 0);
}

/// An authorisation that came before the change is settled as it would have been.
#[tokio::test(start_paused = true)]
async fn a_mark_from_before_a_change_keeps_its_terms() {
    let world = World::new();
    let (old, _) = shop(&world, "100");
    let order = pay(&challenge(&old).await, "order");
    assert!(matches!(present(&old, &order).await, Got::Fault(_)));
    let (changed, node) = shop(&world, "101");
    node.rail().up.store(true, SeqCst);
    let settled = Act::Say(Outcome::settled("ref"));
    node.rail().script.then_settle(settled);
    assert_eq!(present(&changed, &order).await, Got::Served);
}
