//! Servers killed at random moments under load.

use std::sync::Arc;

use farebox_crash_tests::World;

use crate::common::{Killer, Place, Supervised, buy_amid, node, report};

/// Payers per store at least, over all rails.
const PAYERS: usize = 520;

/// Kills, fewer of which would not mean anything.
const KILLS: usize = 10;

/// Payers at once.
const AT_ONCE: usize = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_random_on_sqlite() {
    killed_at_random(Place::sqlite()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn killed_at_random_on_redis() {
    killed_at_random(Place::redis()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs postgres"]
async fn killed_at_random_on_postgres() {
    killed_at_random(Place::postgres()).await;
}

/// Protects: every payer pays once and is served once, wherever SIGKILL hits.
async fn killed_at_random(place: Place) {
    let world = World::start().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let server = node(&world, &folder, "server", &place.url);
    let server = Arc::new(Supervised::start(server, "").await);
    let killer = Killer::of(vec![server.clone()]);
    let killed = || server.restarts();
    let payers = (PAYERS, AT_ONCE);
    let books = buy_amid(KILLS, killed, &world, &server.address, payers).await;
    drop(killer);
    let what = format!("random kills, {}", place.name);
    report(&what, &books, server.restarts(), &world);
    books.balance(world.moved().unwrap()).unwrap();
    let states = server.settled_books().await;
    assert_eq!(states.get("delivered"), Some(&books.total()), "{states:?}");
}
