//! Channels settled together: one movement for all, found out for each.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering::SeqCst},
    },
    time::Duration,
};

use farebox_core::{
    Offer, Store, Typed, compose,
    prelude::*,
    wire::{Credential, Payload},
};
use farebox_engine::{Clock, Engine, Inbound, MemoryStore};
use farebox_testkit::{Fuse, FusedStore, test_secrets};
use serde_json::{Map, Value, json};

const MINUTE: Duration = Duration::from_secs(60);
const NAMES: [&str; 3] = ["a", "b", "c"];

/// What has moved: by channel, and which movements were made.
#[derive(Default)]
struct Ledger {
    settled: BTreeMap<String, u128>,
    made: HashMap<String, bool>,
    sent: usize,
    /// A channel whose settlement fails, and with it any that it is part of.
    bad: Option<&'static str>,
}

/// A movement, and which part of it a channel's is.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Order {
    movement: String,
    parts: Vec<(String, u128)>,
}

#[derive(Clone)]
struct Pool {
    ledger: Arc<Mutex<Ledger>>,
    fuse: Fuse,
}

impl Settle for Pool {
    type Order = Order;

    async fn settle(&self, _: &IdempotencyKey, order: &Order) -> Outcome {
        if !self.fuse.burn() {
            return Outcome::Unknown;
        }
        let mut ledger = self.ledger.lock().unwrap();
        ledger.sent += 1;
        let fails = order
            .parts
            .iter()
            .any(|(name, _)| Some(&**name) == ledger.bad);
        ledger.made.insert(order.movement.clone(), !fails);
        if fails {
            return Outcome::Declined(Rejection::verification("a part of it fails"));
        }
        for (name, to) in &order.parts {
            let settled = ledger.settled.entry(name.clone()).or_default();
            assert!(to > settled, "{name} is settled twice");
            *settled = *to;
        }
        Outcome::settled(order.movement.as_str())
    }

    async fn lookup(&self, _: &IdempotencyKey, order: &Order) -> Outcome {
        if self.fuse.is_dead() {
            return Outcome::Unknown;
        }
        let mut ledger = self.ledger.lock().unwrap();
        // What has not been made by now never will.
        match *ledger.made.entry(order.movement.clone()).or_default() {
            true => Outcome::settled(order.movement.as_str()),
            false => Outcome::Declined(Rejection::verification("it was not made")),
        }
    }
}

#[derive(Deserialize)]
struct Opening {
    name: String,
}

impl Rail<Session> for Pool {
    const METHOD: &'static str = "pool";
    type Details = Map<String, Value>;
    type Payload = Opening;
    type Settler = Self;

    async fn quote(&self, terms: &SessionTerms) -> Result<Quote<Session, Self::Details>, NoQuote> {
        let request = SessionRequest {
            amount: Amount::parse(&terms.amount).map_err(|e| Fault::new("amount").caused_by(e))?,
            currency: "usd".into(),
            recipient: None,
            description: None,
            unit_type: None,
            suggested_deposit: None,
        };
        Ok(Quote::new(request, Map::new()))
    }

    async fn verify(
        &self,
        _: &Presented<'_>,
        _: &Ask<Session, Self::Details>,
        opening: Opening,
    ) -> Result<Plan<Channel, Order>, Refusal> {
        let proof = ProofKey::of("pool", &opening.name);
        let change = Change::prepaid(Amount::new(100));
        let id = ChannelId::of("pool", &opening.name);
        Ok(Plan::open(proof, id, change, None))
    }

    fn settler(&self) -> &Self {
        self
    }

    fn schedule(&self) -> Schedule {
        Schedule::default().every(10 * MINUTE)
    }

    async fn upkeep(
        &self,
        channel: &ChannelId,
        state: &ChannelState,
        due: Due,
    ) -> Result<Upkeep<Order>, Fault> {
        let one = [(channel.clone(), state.clone())];
        match (due, self.order(&one)) {
            (Due::Settle, Some(order)) => Ok(Upkeep::settle(state.spent, order)),
            _ => Ok(Upkeep::nothing()),
        }
    }

    async fn settle_together(
        &self,
        channels: &[(ChannelId, ChannelState)],
    ) -> Result<Together<Order>, Fault> {
        let order = self.order(channels);
        let order = order.ok_or_else(|| Fault::unavailable("the pool is away"))?;
        let settle = |(_, state): &(_, ChannelState)| Upkeep::settle(state.spent, order.clone());
        Ok(Some(channels.iter().map(settle).collect()))
    }
}

impl Pool {
    fn order(&self, channels: &[(ChannelId, ChannelState)]) -> Option<Order> {
        let parts: Vec<_> = channels
            .iter()
            .map(|(channel, state)| (channel.id().to_owned(), state.spent.get()))
            .collect();
        let movement = format!("{}{parts:?}", self.ledger.lock().unwrap().made.len());
        (!self.fuse.is_dead()).then_some(Order { movement, parts })
    }
}

#[derive(Default)]
struct World {
    disk: Arc<MemoryStore>,
    clock: Arc<AtomicI64>,
    ledger: Arc<Mutex<Ledger>>,
}

impl World {
    fn pass(&self, span: Duration) {
        let millis = i64::try_from(span.as_millis()).unwrap();
        self.clock.fetch_add(millis, SeqCst);
    }

    fn boot(&self, store: Arc<dyn Store>, fuse: Fuse) -> (Engine, farebox_engine::Gate) {
        let clock = self.clock.clone();
        let engine = Engine::builder("test.example", test_secrets(), store)
            .clock(Clock::from_fn(move || {
                1_800_000_000_000 + clock.load(SeqCst)
            }))
            .build()
            .unwrap();
        let ledger = self.ledger.clone();
        let method = Arc::new(Typed::<_, Session>::new(Pool { ledger, fuse }));
        let terms = SessionTerms {
            amount: "1".into(),
            unit: "token".into(),
            ..Default::default()
        };
        let offer = Offer::new::<Session>(method, terms).unwrap();
        let gate = engine.gate("GET /", compose([offer]).unwrap()).unwrap();
        (engine, gate)
    }

    /// Channels of which something is to be settled.
    async fn due(&self) -> Engine {
        let (engine, gate) = self.boot(self.disk.clone(), Fuse::endless());
        for (n, name) in NAMES.into_iter().enumerate() {
            let challenge = gate
                .challenges(&Inbound::default())
                .await
                .unwrap()
                .remove(0);
            let credential = Credential {
                challenge,
                source: None,
                payload: Payload::from_value(&json!({ "name": name })).unwrap(),
            };
            let admission = gate.present(credential, &Inbound::default()).await.unwrap();
            let serving = admission.into_serving().unwrap();
            let meter = serving.meter().unwrap().clone();
            serving.delivered(None).await.unwrap();
            meter.debit(Amount::new(n as u128 + 1)).await.unwrap();
        }
        self.pass(11 * MINUTE);
        engine
    }

    /// The books say what has moved, and of all but the bad one what is to move.
    async fn balances(&self, engine: &Engine, at: &str) {
        for (n, name) in NAMES.into_iter().enumerate() {
            let state = engine.meter(ChannelId::of("pool", name)).state().await;
            let ledger = self.ledger.lock().unwrap();
            let moved = ledger.settled.get(name).copied().unwrap_or_default();
            assert_eq!(state.unwrap().settled.get(), moved, "{name} {at}");
            if ledger.bad != Some(name) {
                assert_eq!(moved, n as u128 + 1, "{name} {at}");
            }
        }
    }
}

/// Protects: channels that are due together are settled by one movement.
#[tokio::test(start_paused = true)]
async fn one_movement_settles_all() {
    let world = World::default();
    let engine = world.due().await;
    let upkept = engine.upkeep().await.unwrap();
    assert_eq!((upkept.asked, upkept.settled, upkept.open), (3, 3, 0));
    assert_eq!(world.ledger.lock().unwrap().sent, 1);
    world.balances(&engine, "settled").await;
    assert_eq!(engine.upkeep().await.unwrap().asked, 0);
}

/// Protects: a channel whose settlement fails costs the others nothing but another movement.
#[tokio::test(start_paused = true)]
async fn a_bad_part_is_left_alone() {
    let world = World::default();
    let engine = world.due().await;
    world.ledger.lock().unwrap().bad = Some("b");
    let upkept = engine.upkeep().await.unwrap();
    assert_eq!((upkept.settled, upkept.open), (2, 1), "{upkept:?}");
    assert_eq!(world.ledger.lock().unwrap().sent, 4);
    world.balances(&engine, "two of three").await;
}

/// Protects: a process that dies anywhere in a batch leaves no channel that is not settled, none
/// that is settled twice, and no books that say otherwise.
#[tokio::test(start_paused = true)]
async fn a_batch_survives_a_crash_anywhere() {
    for n in 0.. {
        let world = World::default();
        world.due().await;
        let fuse = Fuse::new(n);
        let store = FusedStore::new(world.disk.clone(), fuse.clone());
        let (dying, _) = world.boot(Arc::new(store), fuse.clone());
        let _ = dying.upkeep().await;
        let survived = !fuse.is_dead();
        let (last, _) = world.boot(world.disk.clone(), Fuse::endless());
        for _ in 0..5 {
            world.pass(2 * MINUTE);
            last.reconcile().await.unwrap();
            last.upkeep().await.unwrap();
        }
        world.balances(&last, &format!("killed before {n}")).await;
        if survived {
            assert!(n > 12, "{n} points");
            break;
        }
    }
}
