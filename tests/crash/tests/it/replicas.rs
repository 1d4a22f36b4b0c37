//! Three servers on one store behind one address.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use farebox_crash_tests::{Address, Payer, RAILS, World};
use farebox_sandbox_stripe::Fault;
use http::StatusCode;
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::common::{Killer, Place, Supervised, buy_many, node, report};

struct Replicas {
    servers: Vec<Arc<Supervised>>,
    address: Address,
    _folder: TempDir,
}

impl Replicas {
    async fn start(world: &World, place: &Place) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut servers = Vec::new();
        for name in ["one", "two", "three"] {
            let node = node(world, &folder, name, &place.url);
            servers.push(Arc::new(Supervised::start(node, "").await));
        }
        let addresses = servers
            .iter()
            .map(|server| server.address.clone())
            .collect();
        let address = Address::in_front_of(addresses).await.unwrap();
        Self {
            servers,
            address,
            _folder: folder,
        }
    }
}

macro_rules! on_every_store {
    ($($test:ident),* $(,)?) => {
        $(
            mod $test {
                use super::*;

                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn on_sqlite() {
                    super::$test(Place::sqlite()).await;
                }

                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                #[ignore = "needs redis-server"]
                async fn on_redis() {
                    super::$test(Place::redis()).await;
                }

                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                #[ignore = "needs postgres"]
                async fn on_postgres() {
                    super::$test(Place::postgres()).await;
                }
            }
        )*
    };
}

on_every_store!(
    one_credential_at_all_replicas_is_served_once,
    a_replica_that_dies_after_settling_is_finished_by_another,
    replicas_under_load_with_kills_balance,
    one_replica_at_a_time_looks_up,
);

/// Protects: of twelve presentations of one credential at three replicas, one runs the handler.
async fn one_credential_at_all_replicas_is_served_once(place: Place) {
    let world = World::start().await.unwrap();
    let replicas = Replicas::start(&world, &place).await;
    for (n, (rail, _)) in RAILS.into_iter().enumerate() {
        let payer = Arc::new(Payer::new(&world, rail, replicas.address.address()).unwrap());
        let paid = payer.pay(false).await.unwrap();
        let mut presented = JoinSet::new();
        for _ in 0..12 {
            let (payer, paid) = (payer.clone(), paid.clone());
            presented.spawn(async move { payer.present(&paid).await.unwrap().status() });
        }
        let statuses = presented.join_all().await;
        let served = statuses
            .iter()
            .filter(|status| **status == StatusCode::OK)
            .count();
        assert_eq!(served, 1, "{rail}: {statuses:?}");
        // The others came while it was being served, or after.
        let others = [
            StatusCode::OK,
            StatusCode::SERVICE_UNAVAILABLE,
            StatusCode::FORBIDDEN,
        ];
        assert!(
            statuses.iter().all(|status| others.contains(status)),
            "{rail}: {statuses:?}"
        );
        assert_eq!(world.served(), n + 1, "{rail}");
    }
    let moved = world.moved().unwrap();
    assert_eq!((moved.tempo, moved.stripe, moved.lightning), (1, 1, 1));
}

/// Protects: money that moved at a replica that is gone buys the resource at another one.
async fn a_replica_that_dies_after_settling_is_finished_by_another(place: Place) {
    let world = World::start().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut mortal = node(&world, &folder, "mortal", &place.url);
    let heir = Supervised::start(node(&world, &folder, "heir", &place.url), "").await;
    for rail in ["tempo/charge", "stripe/charge"] {
        mortal.start("settle.after=1*panic").await.unwrap();
        let payer = Payer::new(&world, rail, &mortal.address()).unwrap();
        let paid = payer.pay(true).await.unwrap();
        assert!(
            payer.present(&paid).await.is_err(),
            "{rail}: it should have died"
        );
        let bought = payer.collect(&paid.at(&heir.address)).await.unwrap();
        println!(
            "{rail}, {}: finished by another after {:.1} s",
            place.name,
            bought.waited.as_secs_f64()
        );
    }
    let moved = world.moved().unwrap();
    assert_eq!((moved.tempo, moved.stripe), (1, 1));
    assert_eq!(world.served(), 2);
}

/// Protects: the books balance with three servers, of which any may be killed.
async fn replicas_under_load_with_kills_balance(place: Place) {
    const PAYERS: usize = 160;
    let world = World::start().await.unwrap();
    let replicas = Replicas::start(&world, &place).await;
    let killer = Killer::of(replicas.servers.clone());
    let books = buy_many(&world, replicas.address.address(), PAYERS, 8).await;
    drop(killer);
    let kills = replicas
        .servers
        .iter()
        .map(|server| server.restarts())
        .sum();
    report(
        &format!("three replicas, {}", place.name),
        &books,
        kills,
        &world,
    );
    books.balance(world.moved().unwrap()).unwrap();
    let states = replicas.servers[0].settled_books().await;
    assert_eq!(states.get("delivered"), Some(&PAYERS), "{states:?}");
}

/// Protects: three reconcilers ask a rail about as often as one would, and not three times.
async fn one_replica_at_a_time_looks_up(place: Place) {
    let world = World::start().await.unwrap();
    let replicas = Replicas::start(&world, &place).await;
    world.stripe.fault(Fault::Processing);
    let payer = Payer::new(&world, "stripe/charge", replicas.address.address()).unwrap();
    let paid = payer.pay(true).await.unwrap();
    let answer = payer.present(&paid).await.unwrap();
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    // Let it be looked at for some rounds of a second each.
    let (before, started) = (world.stripe.requests().len(), Instant::now());
    tokio::time::sleep(Duration::from_secs(8)).await;
    let looks = world.stripe.requests()[before..]
        .iter()
        .filter(|request| request.method == "POST")
        .count();
    let rounds = started.elapsed().as_secs_f64().ceil();
    println!("{}: {looks} lookups in {rounds} s", place.name);
    assert!(looks >= 1, "nobody looked");
    assert!(
        looks as f64 <= 1.5 * rounds,
        "{looks} lookups in {rounds} rounds of a second"
    );
}
