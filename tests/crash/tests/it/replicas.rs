//! Three servers on one store behind one address.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use farebox_crash_tests::{Address, Payer, RAILS, World};
use farebox_sandbox_stripe::{Fault, Recorded};
use http::StatusCode;
use serde_json::Value;
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::common::{
    Killer, PATIENCE, Place, Supervised, buy_amid, node, patient, report, timed, timing,
};

struct Replicas {
    servers: Vec<Arc<Supervised>>,
    address: Address,
    _folder: TempDir,
}

impl Replicas {
    async fn start(world: &World, place: &Place, timing: &Value) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut servers = Vec::new();
        for name in ["one", "two", "three"] {
            let node = timed(timing.clone(), world, &folder, name, &place.url);
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
    // A lease that lapsed because a server was slow would have another one serve.
    let replicas = Replicas::start(&world, &place, &patient()).await;
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
    // It shall get to where it dies, on a slow machine too.
    let mut timing = timing();
    timing["settle"] = "5s".into();
    let mut mortal = timed(timing, &world, &folder, "mortal", &place.url);
    let heir = Supervised::start(node(&world, &folder, "heir", &place.url), "").await;
    for rail in ["tempo/charge", "stripe/charge"] {
        mortal.start("settle.after=1*panic").await.unwrap();
        let payer = Payer::new(&world, rail, &mortal.address()).unwrap();
        let paid = payer.pay(true).await.unwrap();
        let deadline = Instant::now() + PATIENCE;
        while mortal.ended().unwrap().is_none() {
            assert!(Instant::now() < deadline, "{rail}: it should have died");
            // No answer, or where it took its time that it is not known yet.
            if let Ok(answer) = payer.present(&paid).await {
                assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE, "{rail}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
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
    const KILLS: usize = 3;
    let world = World::start().await.unwrap();
    let replicas = Replicas::start(&world, &place, &timing()).await;
    let servers = &replicas.servers;
    let killed = || servers.iter().map(|server| server.restarts()).sum();
    let killer = Killer::of(servers.clone());
    let address = replicas.address.address();
    let books = buy_amid(KILLS, killed, &world, address, (PAYERS, 8)).await;
    drop(killer);
    let what = format!("three replicas, {}", place.name);
    report(&what, &books, killed(), &world);
    books.balance(world.moved().unwrap()).unwrap();
    let states = servers[0].settled_books().await;
    assert_eq!(states.get("delivered"), Some(&books.total()), "{states:?}");
}

/// Protects: three reconcilers ask a rail about as often as one would, and not three times.
async fn one_replica_at_a_time_looks_up(place: Place) {
    let world = World::start().await.unwrap();
    let replicas = Replicas::start(&world, &place, &timing()).await;
    world.stripe.fault(Fault::Processing);
    let payer = Payer::new(&world, "stripe/charge", replicas.address.address()).unwrap();
    let paid = payer.pay(true).await.unwrap();
    let charges = || {
        let charge =
            |request: &&Recorded| request.method == "POST" && request.path == "/v1/payment_intents";
        world.stripe.requests().iter().filter(charge).count()
    };
    let deadline = Instant::now() + PATIENCE;
    // A server that is slow may give up before it has tried.
    while charges() == 0 {
        assert!(Instant::now() < deadline, "nobody has tried");
        let answer = payer.present(&paid).await.unwrap();
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    }
    // Some of its rounds of a second each, however long they take.
    let (before, started) = (charges(), Instant::now());
    while charges() < before + 8 {
        let looks = charges() - before;
        assert!(started.elapsed() < PATIENCE, "{looks} looked");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let took = started.elapsed().as_secs_f64();
    println!("{}: 8 lookups in {took:.1} s", place.name);
    // Together they take about 6 s at least, and would take less than 3 s if they did not heed each
    // other.
    assert!(took >= 3.5, "8 lookups in {took:.1} s");
}
