//! Servers that die at a named effect.

use std::sync::Arc;

use farebox::engine::EFFECTS;
use farebox_crash_tests::{Payer, RAILS, World};
use farebox_sandbox_stripe::Fault;
use farebox_test_services::{Postgres, Redis};
use tokio::{sync::Semaphore, task::JoinSet};

use crate::common::{Supervised, buy_on, node, report};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_every_effect_on_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let file = |effect: &str| format!("sqlite://{}", folder.path().join(effect).display());
    killed_at_every_effect(&RAILS.map(|(rail, _)| rail), file).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn killed_at_every_effect_on_redis() {
    let redis = Redis::start();
    let rails = RAILS.map(|(rail, _)| rail);
    killed_at_every_effect(&rails, |effect| format!("{}?prefix={effect}:", redis.url())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs postgres"]
async fn killed_at_every_effect_on_postgres() {
    let postgres = Postgres::start_with(&["max_connections=200"]);
    killed_at_every_effect(&RAILS.map(|(rail, _)| rail), |_| postgres.database()).await;
}

/// Protects: the same of Stripe alone. Above, the first rail of several is the one whose payment is
/// under way when the server dies.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_every_effect_of_stripe() {
    let folder = tempfile::tempdir().unwrap();
    let file = |effect: &str| format!("sqlite://{}", folder.path().join(effect).display());
    killed_at_every_effect(&["stripe/charge", "stripe/charge"], file).await;
}

/// Effects that no payer here causes: channels, refunds, what a rail keeps with its challenge, and
/// letting go of a reservation because another one has its proof.
const OTHERS: [&str; 4] = ["channel.", "quote.", "pay.freed", "refund"];

/// Servers at once, each with stand-ins of its own.
const AT_ONCE: usize = 4;

/// Protects: dying before or after any one effect neither moves money twice nor loses a payment.
async fn killed_at_every_effect(rails: &[&'static str], store: impl Fn(&str) -> String) {
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let mut runs = JoinSet::new();
    let effects = EFFECTS
        .iter()
        .filter(|effect| !OTHERS.iter().any(|other| effect.starts_with(other)));
    for effect in
        effects.flat_map(|effect| ["before", "after"].map(|when| format!("{effect}.{when}")))
    {
        let (room, store, rails) = (room.clone(), store(&effect), rails.to_vec());
        runs.spawn(async move {
            let _here = room.acquire_owned().await.unwrap();
            killed_at(&effect, &rails, &store).await;
        });
    }
    // Each says for itself what went wrong; none keeps the others from being tried.
    let mut failed = 0;
    while let Some(run) = runs.join_next().await {
        failed += usize::from(run.is_err());
    }
    assert_eq!(failed, 0, "effects after which the books do not balance");
}

async fn killed_at(point: &str, rails: &[&str], store: &str) {
    let (world, folder) = (World::start().await.unwrap(), tempfile::tempdir().unwrap());
    let mortal = node(&world, &folder, "server", store);
    let server = Supervised::start(mortal, &format!("{point}=1*panic")).await;
    // What happens only when something else goes wrong first.
    let declined = ["pay.declined", "proof.freed"];
    if declined.iter().any(|effect| point.starts_with(effect)) {
        world
            .stripe
            .fault(Fault::Decline("insufficient_funds".to_owned()));
        let payer = Payer::new(&world, "stripe/charge", &server.address).unwrap();
        let paid = payer.pay(true).await.unwrap();
        payer.refused(&paid).await.unwrap();
        assert_eq!(world.moved().unwrap().stripe, 0, "{point}");
    }
    if point.starts_with("lookup") {
        world.stripe.fault(Fault::DropAfterCommit);
    }
    let books = buy_on(rails, &world, &server.address).await;
    report(point, &books, server.restarts(), &world);
    books.balance(world.moved().unwrap()).unwrap();
    let states = server.settled_books().await;
    assert_eq!(
        states.get("delivered"),
        Some(&books.total()),
        "{point}: {states:?}"
    );
    assert!(server.restarts() > 0, "{point} never happened");
    server.stop().await;
}
