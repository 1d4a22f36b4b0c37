//! A million challenges on the memory store, a third of them paid: how large it becomes, what is
//! left, and how long the books take. `cargo run --release -p farebox-engine --example million`
//!
//! Time is simulated at 1,000 challenges a second, so that records expire as they would.

#![allow(clippy::print_stdout, reason = "it is run to be read")]

use std::{sync::Arc, time::Duration};

use farebox_core::{
    Charge, ChargeTerms, Offer, Store as _, Typed, compose,
    wire::{Credential, Payload},
};
use farebox_engine::{Clock, Engine, Inbound, MemoryStore};
use farebox_testkit::{Bank, Fuse, TestPayload, TestRail, test_secrets};
use tokio::time::{Instant, advance};

type Error = Box<dyn std::error::Error>;

const CHALLENGES: usize = 1_000_000;
const T0: i64 = 1_800_000_000_000;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let wall = std::time::Instant::now();
    tokio::time::pause();
    let (start, store) = (Instant::now(), Arc::new(MemoryStore::new()));
    let engine = Engine::builder("test.example", test_secrets(), store.clone())
        .clock(Clock::from_fn(move || {
            T0 + i64::try_from(start.elapsed().as_millis()).unwrap_or(i64::MAX)
        }))
        .build()?;
    let rail = TestRail::settling(Arc::new(Bank::default()), Fuse::endless());
    let method = Arc::new(Typed::<_, Charge>::new(rail));
    let offer = Offer::new::<Charge>(method, ChargeTerms::amount("100"))?;
    let gate = engine.gate("GET /joke", compose([offer])?)?;
    let inbound = Inbound::default();
    let (mut paid, mut most) = (0, 0);
    for n in 0..CHALLENGES {
        let mut challenges = gate.challenges(&inbound).await?;
        if n % 3 == 0 {
            let token = format!("token-{n}");
            let credential = Credential {
                challenge: challenges.remove(0),
                source: None,
                payload: Payload::from_value(&TestPayload { token })?,
            };
            let admission = gate.present(credential, &inbound).await;
            let serving = admission.map_err(|refused| format!("{refused:?}"))?;
            let serving = serving.into_serving().ok_or("a replay")?;
            serving.delivered(None).await?;
            paid += 1;
        }
        if n % 1_000 == 0 {
            advance(Duration::from_secs(1)).await;
            most = most.max(store.len());
        }
    }
    println!(
        "{CHALLENGES} challenges, {paid} paid, in {:.1?}",
        wall.elapsed()
    );
    println!(
        "at most {most} records; {} MB resident",
        resident().unwrap_or_default()
    );
    let wall = std::time::Instant::now();
    let books = engine.books().await?.len();
    println!("books of {books} payments in {:.1?}", wall.elapsed());
    advance(Duration::from_secs(3_600)).await;
    let left = |prefix| {
        let store = store.clone();
        async move { store.scan(prefix).await.map(|found| found.len()) }
    };
    println!(
        "an hour later: {} payments, {} proofs (kept for ever, as this rail says), {} to do, {} \
         quotes",
        left("pay:").await?,
        left("proof:").await?,
        left("todo:").await?,
        left("quote:").await?
    );
    Ok(())
}

/// This process's resident memory in megabytes, where the system says.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS"))?;
    let kilobytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kilobytes / 1_024)
}
