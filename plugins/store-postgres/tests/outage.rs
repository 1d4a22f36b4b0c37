//! What the PostgreSQL store does when the server is away, silent, full or read-only.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::time::{Duration, Instant};

use farebox_core::{Fault, Store as _};
use farebox_store_postgres::{Postgres, PostgresStore};
use farebox_test_services::{Postgres as Server, Proxy};

async fn open(url: &str) -> Result<PostgresStore, Fault> {
    PostgresStore::open(&Postgres::parse(url).unwrap()).await
}

async fn put(store: &PostgresStore, key: &str, keep: Option<Duration>) -> Result<bool, Fault> {
    store.compare_and_swap(key, None, Some("v"), keep).await
}

/// Waits until the store answers again, as the engine's callers do by coming back.
async fn back(store: &PostgresStore) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while store.get("back").await.is_err() {
        assert!(Instant::now() < deadline, "the store does not come back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Protects: a swap whose answer was lost is carried out once and reported as a fault, never sent
/// again: a second try would find its own value and say that somebody else was first.
#[tokio::test]
#[ignore = "needs postgres"]
async fn a_lost_answer_is_a_fault_and_not_a_second_try() {
    let server = Server::start();
    let proxy = Proxy::to(server.port());
    let direct = server.database();
    let url = direct.replace(&server.port().to_string(), &proxy.port().to_string());
    let store = open(&format!("{url}?max_connections=1")).await.unwrap();
    assert!(put(&store, "warm", None).await.unwrap());
    let witness = open(&direct).await.unwrap();
    for n in 0..10 {
        let key = format!("key-{n}");
        proxy.lose_answer_to(&key);
        let lost = put(&store, &key, None).await;
        assert!(lost.unwrap_err().retry_after().is_some());
        assert!(witness.get(&key).await.unwrap().is_some(), "carried out");
        back(&store).await;
        assert!(!put(&store, &key, None).await.unwrap());
    }
    for _ in 0..5 {
        proxy.cut();
        back(&store).await;
    }
}

/// Protects: an outage is a fault inside the time that a call has, and ends with the outage.
#[tokio::test]
#[ignore = "needs postgres"]
async fn an_outage_is_a_fault_and_ends() {
    let mut server = Server::start();
    let url = server.database();
    let store = open(&url).await.unwrap();
    assert!(put(&store, "k", None).await.unwrap());
    server.stop();
    for _ in 0..3 {
        let started = Instant::now();
        let fault = store.get("k").await.unwrap_err();
        assert!(fault.retry_after().is_some(), "{fault}");
        assert!(started.elapsed() < Duration::from_secs(6));
    }
    assert!(open(&url).await.is_err());
    server.restart();
    back(&store).await;
    assert_eq!(store.get("k").await.unwrap().as_deref(), Some("v"));

    server.pause();
    let started = Instant::now();
    let fault = put(&store, "slow", None).await.unwrap_err();
    assert!(fault.retry_after().is_some(), "{fault}");
    assert!(started.elapsed() < Duration::from_secs(6));
    server.resume();
    back(&store).await;

    server.set_read_only(true);
    let fault = put(&store, "other", None).await.unwrap_err();
    assert!(fault.retry_after().is_some(), "{fault}");
    assert_eq!(store.get("k").await.unwrap().as_deref(), Some("v"));
    server.set_read_only(false);
    assert!(put(&store, "other", None).await.unwrap());
}

/// Protects: a server without a free connection is away, and nobody waits longer than a call may.
#[tokio::test]
#[ignore = "needs postgres"]
async fn a_server_without_connections_is_away() {
    let server = Server::start_with(&["max_connections=4", "superuser_reserved_connections=3"]);
    server.sql("CREATE ROLE shop LOGIN");
    let url = server.database();
    let name = url.rsplit('/').next().unwrap();
    server.sql(&format!("ALTER DATABASE {name} OWNER TO shop"));
    let url = url.replace("postgres@", "shop@");
    let first = open(&format!("{url}?max_connections=1")).await.unwrap();
    let started = Instant::now();
    let fault = open(&url).await.unwrap_err();
    assert!(fault.retry_after().is_some(), "{fault}");
    assert!(started.elapsed() < Duration::from_secs(6));
    assert!(put(&first, "k", None).await.unwrap());
}

/// Protects: a database that forgets answered commits is refused with the remedy, which works.
#[tokio::test]
#[ignore = "needs postgres"]
async fn a_database_that_forgets_is_refused() {
    let server = Server::start_with(&["synchronous_commit=off"]);
    let url = server.database();
    let fault = open(&url).await.unwrap_err().to_string();
    assert!(fault.contains("synchronous_commit"), "{fault}");
    let store = open(&format!("{url}?options[synchronous_commit]=on")).await;
    assert!(store.is_ok());
}

/// Protects: expired records leave the table while the store is at rest.
#[tokio::test]
#[ignore = "needs postgres"]
async fn expired_records_are_dropped() {
    let server = Server::start();
    let url = server.database();
    let store = open(&url).await.unwrap();
    let short = Some(Duration::from_millis(1));
    for n in 0..20 {
        assert!(put(&store, &format!("k{n}"), short).await.unwrap());
    }
    assert!(put(&store, "stays", None).await.unwrap());
    let deadline = Instant::now() + Duration::from_secs(30);
    while server.sql_in("farebox_0", "SELECT count(*) FROM farebox_records") != "1" {
        assert!(Instant::now() < deadline, "expired records stay");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Protects: a standby is refused, and after a failover a store leaves the server that takes no
/// writes for the next one, though its connections are sound.
#[tokio::test]
#[ignore = "needs postgres"]
async fn a_failover_is_followed() {
    let (mut old, new) = (Server::start(), Server::start());
    let proxy = Proxy::to(old.port());
    let (direct, next) = (old.database(), new.database());
    let url = direct.replace(&old.port().to_string(), &proxy.port().to_string());
    let store = open(&format!("{url}?max_connections=1")).await.unwrap();
    drop(open(&next).await.unwrap());
    assert!(put(&store, "before", None).await.unwrap());
    old.set_read_only(true);
    proxy.lead_to(new.port());
    let fault = put(&store, "k", None).await.unwrap_err();
    assert!(fault.retry_after().is_some(), "{fault}");
    assert!(put(&store, "k", None).await.unwrap(), "it found the next");
    assert_eq!(store.get("before").await.unwrap(), None);
    old.restart_as_standby();
    let fault = open(&direct).await.unwrap_err();
    assert!(fault.retry_after().is_some(), "{fault}");
    proxy.lead_to(old.port());
    proxy.cut();
    assert!(store.get("before").await.is_err(), "a standby may be stale");
    assert!(store.get("before").await.is_err(), "a standby may be stale");
    proxy.lead_to(new.port());
    back(&store).await;
}

/// Protects: the sweeper gives up its connection when the server falls silent, so that calls get
/// one to the server that answers.
#[tokio::test]
#[ignore = "needs postgres"]
async fn a_silent_server_does_not_keep_the_sweepers_connection() {
    let (silent, new) = (Server::start(), Server::start());
    let proxy = Proxy::to(silent.port());
    let (url, next) = (silent.database(), new.database());
    let url = url.replace(&silent.port().to_string(), &proxy.port().to_string());
    let store = open(&format!("{url}?max_connections=1")).await.unwrap();
    drop(open(&next).await.unwrap());
    silent.pause();
    // Two sweeps' time, in which the sweeper alone uses the connection.
    tokio::time::sleep(Duration::from_secs(4)).await;
    proxy.lead_to(new.port());
    back(&store).await;
    silent.resume();
}
