//! What a rail counts across processes, and challenges too short to be paid.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use farebox_core::{Account, Method, Offer, Reserved, Store, Tally, Typed, compose, prelude::*};
use farebox_engine::{Engine, Inbound, MemoryStore};
use farebox_testkit::test_secrets;

fn account(limit: u128) -> Account<'static> {
    Account {
        name: "total:1",
        limit,
        keep: Duration::from_secs(60),
    }
}

/// Protects: of many processes at once, none passes the limit together with the others.
#[tokio::test]
async fn what_is_reserved_never_passes_the_limit() {
    let store: Arc<dyn Store> = Arc::<MemoryStore>::default();
    let tasks = (0..64).map(|number| {
        let tally = Tally::new(store.clone(), "tempo/charge");
        tokio::spawn(async move {
            let id = format!("tx{number}");
            tally.reserve(account(100), &id, 7, 50, 10).await.unwrap()
        })
    });
    let mut held = 0;
    for task in tasks.collect::<Vec<_>>() {
        held += usize::from(task.await.unwrap() == Reserved::Held);
    }
    assert_eq!(held, 14, "14 times 7 is below 100");
    let tally = Tally::new(store, "tempo/charge");
    assert_eq!(tally.total(account(100)).await.unwrap(), 98);
}

/// Protects: a reservation counts once, until it is replaced by what was spent or lapses.
#[tokio::test]
async fn a_reservation_ends_as_what_was_spent() {
    let tally = Tally::new(Arc::<MemoryStore>::default(), "tempo/charge");
    let reserve = async |id: &str, amount, now| {
        let held = tally.reserve(account(100), id, amount, 50, now).await;
        held.unwrap()
    };
    for _ in 0..2 {
        assert_eq!(reserve("a", 60, 10).await, Reserved::Held);
    }
    assert_eq!(reserve("b", 60, 10).await, Reserved::Exhausted);
    tally.settle(account(100), "a", 30).await.unwrap();
    assert_eq!(reserve("b", 60, 10).await, Reserved::Held);
    assert_eq!(tally.total(account(100)).await.unwrap(), 90);
    // Lapsed at 50 without having been spent; "a" has.
    assert_eq!(reserve("c", 70, 51).await, Reserved::Held);
    assert_eq!(tally.total(account(100)).await.unwrap(), 100);
    tally.settle(account(100), "c", 0).await.unwrap();
    assert_eq!(tally.total(account(100)).await.unwrap(), 30);
}

struct Slow(Mutex<Option<Tally>>);

#[derive(Deserialize)]
struct Proof {}

impl Rail<Charge> for Slow {
    const METHOD: &'static str = "slow";
    type Details = std::collections::BTreeMap<String, String>;
    type Payload = Proof;
    type Settler = NoSettler;

    fn entrust(&self, tally: Tally) {
        *self.0.lock().unwrap() = Some(tally);
    }

    async fn quote(&self, _: &ChargeTerms) -> Result<Quote<Charge, Self::Details>, NoQuote> {
        let request = ChargeRequest {
            amount: Amount::new(1),
            currency: "usd".into(),
            recipient: None,
            description: None,
            external_id: None,
        };
        let quote = Quote::new(request, Self::Details::new());
        Ok(quote.at_least(Duration::from_secs(15)))
    }

    async fn verify(
        &self,
        cx: &Presented<'_>,
        _: &Ask<Charge, Self::Details>,
        _: Proof,
    ) -> Result<Plan<Once, Never>, Refusal> {
        Ok(Plan::paid(ProofKey::of("slow", &cx.challenge.id), "paid"))
    }

    fn settler(&self) -> &NoSettler {
        &NoSettler
    }
}

/// Protects: nobody is asked for what cannot be paid in time, to the millisecond; and a rail that
/// counts is given something to count with.
#[tokio::test]
async fn a_challenge_that_nobody_could_pay_in_time_is_not_issued() {
    for (lasts, issued) in [(14_999, false), (15_000, true)] {
        let store: Arc<dyn Store> = Arc::<MemoryStore>::default();
        let engine = Engine::builder("test.example", test_secrets(), store)
            .clock(farebox_engine::Clock::from_fn(|| 1_800_000_000_000))
            .challenge_ttl(Duration::from_millis(lasts))
            .build()
            .unwrap();
        let rail = Arc::new(Typed::<_, Charge>::new(Slow(Mutex::default())));
        let method: Arc<dyn Method> = rail.clone();
        let offer = Offer::new::<Charge>(method, ChargeTerms::amount("1")).unwrap();
        let offers = compose([offer]).unwrap();
        let gate = engine.gate("GET /", offers).unwrap();
        assert!(rail.rail().0.lock().unwrap().is_some());
        let challenges = gate.challenges(&Inbound::default()).await;
        assert_eq!(challenges.is_ok_and(|c| !c.is_empty()), issued, "{lasts}");
    }
}
