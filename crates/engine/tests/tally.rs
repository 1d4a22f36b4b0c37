//! What a rail counts across processes, and challenges too short to be paid.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use farebox_core::{Account, Method, Offer, Reserved, Store, Tally, Typed, compose, prelude::*};
use farebox_engine::{Engine, Inbound, MemoryStore};
use farebox_testkit::{Between, Call, Proxy, test_secrets};

fn account(limit: u128) -> Account<'static> {
    Account {
        name: "total:1",
        limit,
        keep: Duration::from_secs(60),
    }
}

/// Protects: of many processes at once, none passes the limit together with the others.
#[tokio::test(start_paused = true)]
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

/// A network over which everybody else has a turn between a read and a write.
struct Far;

impl Between for Far {
    async fn call<T: Send>(
        &self,
        _: Call<'_>,
        reply: impl Future<Output = Result<T, Fault>> + Send,
    ) -> Result<T, Fault> {
        tokio::task::yield_now().await;
        let answer = reply.await;
        tokio::task::yield_now().await;
        answer
    }
}

/// Protects: the one counter that everybody changes is changed by everybody, however many there are.
#[tokio::test(start_paused = true)]
async fn nobody_is_crowded_out() {
    const MANY: usize = 60;
    let store: Arc<dyn Store> = Arc::new(Proxy::new(Arc::<MemoryStore>::default(), Far));
    for _ in 0..2 {
        let tasks = (0..MANY).map(|number| {
            let tally = Tally::new(store.clone(), "tempo");
            tokio::spawn(async move {
                let (account, id) = (account(10_000), format!("tx{number}"));
                let _ = tally.reserve(account, &id, 7, 50, 10).await.unwrap();
                tally.settle(account, &id, 3).await.unwrap();
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.unwrap();
        }
    }
    let tally = Tally::new(store, "tempo");
    let total = tally.total(account(10_000)).await.unwrap();
    assert!(total >= 3 * 60, "{total}");
}

fn tally() -> Tally {
    Tally::new(Arc::<MemoryStore>::default(), "tempo")
}

async fn reserve(tally: &Tally, id: &str, amount: u128, now: u64) -> Reserved {
    let held = tally.reserve(account(100), id, amount, 50, now).await;
    held.unwrap()
}

/// Protects: a reservation counts once, until it is replaced by what was spent.
#[tokio::test(start_paused = true)]
async fn a_reservation_ends_as_what_was_spent() {
    let tally = tally();
    assert_eq!(reserve(&tally, "a", 60, 10).await, Reserved::Held);
    assert_eq!(reserve(&tally, "a", 60, 10).await, Reserved::Already);
    assert_eq!(reserve(&tally, "b", 60, 10).await, Reserved::Exhausted);
    tally.settle(account(100), "a", 30).await.unwrap();
    assert_eq!(reserve(&tally, "b", 60, 10).await, Reserved::Held);
    assert_eq!(tally.total(account(100)).await.unwrap(), 90);
    tally.settle(account(100), "b", 0).await.unwrap();
    assert_eq!(tally.total(account(100)).await.unwrap(), 30);
}

/// Protects: what nobody has settled counts as spent, and one who settles it late adds nothing.
#[tokio::test(start_paused = true)]
async fn what_lapses_is_spent() {
    let tally = tally();
    assert_eq!(reserve(&tally, "a", 60, 10).await, Reserved::Held);
    assert_eq!(reserve(&tally, "b", 60, 51).await, Reserved::Exhausted);
    assert_eq!(reserve(&tally, "c", 40, 51).await, Reserved::Held);
    tally.settle(account(100), "a", 60).await.unwrap();
    assert_eq!(tally.total(account(100)).await.unwrap(), 100);
}

/// Protects: what is counted and not recorded before a crash is not counted again afterwards, nor
/// reserved again.
#[tokio::test(start_paused = true)]
async fn what_is_settled_twice_counts_once() {
    let tally = tally();
    assert_eq!(reserve(&tally, "a", 60, 10).await, Reserved::Held);
    for _ in 0..2 {
        tally.settle(account(100), "a", 30).await.unwrap();
        assert_eq!(tally.total(account(100)).await.unwrap(), 30);
        assert_eq!(reserve(&tally, "a", 60, 10).await, Reserved::Already);
    }
}

/// Protects: asking whether there is room takes none.
#[tokio::test(start_paused = true)]
async fn a_question_reserves_nothing() {
    let tally = tally();
    let room = async |id: &str| tally.would_reserve(account(100), id, 60).await.unwrap();
    for _ in 0..3 {
        assert_eq!(room("a").await, Reserved::Held);
    }
    assert_eq!(reserve(&tally, "a", 60, 10).await, Reserved::Held);
    assert_eq!(room("a").await, Reserved::Already);
    assert_eq!(room("b").await, Reserved::Exhausted);
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

    async fn quote(&self, terms: &ChargeTerms) -> Result<Quote<Charge, Self::Details>, NoQuote> {
        let request = terms.request(Amount::new(1), "usd");
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

/// Protects: rails of one method that spend out of one purse have one budget, not one each.
#[tokio::test(start_paused = true)]
async fn rails_of_one_method_count_together() {
    let store: Arc<dyn Store> = Arc::<MemoryStore>::default();
    let builder = Engine::builder("test.example", test_secrets(), store);
    let engine = builder.build().unwrap();
    let rails = ["one", "two"].map(|name| {
        let rail = Typed::<_, Charge>::named(Slow(Mutex::default()), name);
        let rail = Arc::new(rail);
        engine.adopt(rail.clone()).unwrap();
        rail
    });
    let [one, two] = rails.map(|rail| rail.rail().0.lock().unwrap().clone().unwrap());
    assert_eq!(reserve(&one, "a", 60, 10).await, Reserved::Held);
    assert_eq!(reserve(&two, "b", 60, 10).await, Reserved::Exhausted);
}

/// Protects: nobody is asked for what cannot be paid in time, to the millisecond; and a rail that
/// counts is given something to count with.
#[tokio::test(start_paused = true)]
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
