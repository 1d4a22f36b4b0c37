//! What the Redis store does when the server is away, silent, read-only or not to be trusted.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::time::{Duration, Instant};

use farebox_core::{Fault, Store as _};
use farebox_store_redis::{Redis, RedisStore};
use farebox_test_services::{Proxy, Redis as Server};

async fn open(url: &str) -> Result<RedisStore, Fault> {
    RedisStore::open(&Redis::parse(url).unwrap()).await
}

async fn put(store: &RedisStore, key: &str, value: &str) -> Result<bool, Fault> {
    store.compare_and_swap(key, None, Some(value), None).await
}

/// Waits until the store answers again, as the engine's callers do by coming back.
async fn back(store: &RedisStore) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while store.get("back").await.is_err() {
        assert!(Instant::now() < deadline, "the store does not come back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Protects: a swap whose answer was lost is carried out once and reported as a fault, never sent
/// again: a second try would find its own value and say that somebody else was first.
#[tokio::test]
#[ignore = "needs redis-server"]
async fn a_lost_answer_is_a_fault_and_not_a_second_try() {
    let server = Server::start();
    let proxy = Proxy::to(server.port());
    let store = open(&format!("redis://127.0.0.1:{}", proxy.port()))
        .await
        .unwrap();
    assert!(put(&store, "warm", "v").await.unwrap());
    proxy.lose_answer_to("farebox:k");
    let lost = put(&store, "k", "v").await;
    assert!(lost.unwrap_err().retry_after().is_some());
    back(&store).await;
    assert_eq!(store.get("k").await.unwrap().as_deref(), Some("v"));
    assert!(!put(&store, "k", "v").await.unwrap());
    for _ in 0..5 {
        proxy.cut();
        back(&store).await;
    }
}

/// Protects: an outage is a fault inside the time that a call has, and ends with the outage.
#[tokio::test]
#[ignore = "needs redis-server"]
async fn an_outage_is_a_fault_and_ends() {
    let mut server = Server::start();
    let store = open(&server.url()).await.unwrap();
    assert!(put(&store, "k", "v").await.unwrap());
    server.stop();
    for _ in 0..3 {
        let started = Instant::now();
        assert!(store.get("k").await.unwrap_err().retry_after().is_some());
        assert!(started.elapsed() < Duration::from_secs(6));
    }
    server.restart();
    back(&store).await;
    assert_eq!(store.get("k").await.unwrap().as_deref(), Some("v"));
    // Scripts are gone with the process, and loaded anew.
    assert!(put(&store, "k2", "v").await.unwrap());

    server.pause();
    let started = Instant::now();
    assert!(
        put(&store, "slow", "v")
            .await
            .unwrap_err()
            .retry_after()
            .is_some()
    );
    assert!(started.elapsed() < Duration::from_secs(6));
    server.resume();
    back(&store).await;
}

/// Protects: a server that refuses writes is away, and is read as before.
#[tokio::test]
#[ignore = "needs redis-server"]
async fn a_server_that_refuses_writes_is_away() {
    let server = Server::start();
    let store = open(&server.url()).await.unwrap();
    assert!(put(&store, "k", "v").await.unwrap());
    server.set_read_only(true);
    let fault = put(&store, "other", "v").await.unwrap_err();
    assert!(fault.retry_after().is_some(), "{fault}");
    assert!(open(&server.url()).await.is_err(), "a replica is no store");
    server.set_read_only(false);
    assert!(put(&store, "other", "v").await.unwrap());
    server.command("CONFIG SET maxmemory 1");
    let fault = put(&store, "more", "secret value").await.unwrap_err();
    assert!(fault.retry_after().is_some(), "{fault}");
    assert!(!fault.to_string().contains("secret"), "{fault}");
    assert_eq!(store.get("k").await.unwrap().as_deref(), Some("v"));
}

/// Protects: after a failover the store finds the new primary, though the demoted one keeps its
/// connection; and a new connection that leads to a replica is not used.
#[tokio::test]
#[ignore = "needs redis-server"]
async fn a_failover_is_followed() {
    let (old, new) = (Server::start(), Server::start());
    let proxy = Proxy::to(old.port());
    let store = open(&format!("redis://127.0.0.1:{}", proxy.port()))
        .await
        .unwrap();
    assert!(put(&store, "before", "v").await.unwrap());
    old.set_read_only(true);
    new.set_read_only(true);
    let fault = put(&store, "k", "v").await.unwrap_err();
    assert!(fault.retry_after().is_some(), "{fault}");
    // The name may lead to the next primary before it is one.
    proxy.lead_to(new.port());
    let deadline = Instant::now() + Duration::from_secs(20);
    let tried = || {
        let info = new.command("INFO stats");
        let tries = info.split_once("total_connections_received:").unwrap().1;
        tries.lines().next().unwrap().parse::<u32>().unwrap()
    };
    let before = tried();
    // Asking is a connection of its own.
    let mut asked = 1;
    while tried() < before + asked + 1 {
        asked += 1;
        assert!(put(&store, "k", "v").await.is_err());
        assert!(Instant::now() < deadline, "no new connection is made");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(store.get("before").await.unwrap().as_deref(), Some("v"));
    new.set_read_only(false);
    while put(&store, "k", "v").await.is_err() {
        assert!(Instant::now() < deadline, "the new primary is not found");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(new.command("GET farebox:k").ends_with("v\r\n"));
}

/// Protects: a server that would forget payments is refused with the remedy.
#[tokio::test]
#[ignore = "needs redis-server"]
async fn a_server_that_forgets_is_refused() {
    let server = Server::start_with(&["--appendonly", "no"]);
    let fault = open(&server.url()).await.unwrap_err().to_string();
    assert!(fault.contains("appendonly"), "{fault}");
    let unchecked = format!("{}?persistence=unchecked", server.url());
    assert!(open(&unchecked).await.is_ok());
    server.command("CONFIG SET save \"3600 1\"");
    assert!(open(&server.url()).await.is_ok(), "snapshots are warned of");
    server.command("CONFIG SET maxmemory 100mb");
    server.command("CONFIG SET maxmemory-policy volatile-lru");
    let fault = open(&unchecked).await.unwrap_err().to_string();
    assert!(fault.contains("noeviction"), "{fault}");
    server.command("CONFIG SET requirepass hunter2");
    assert!(open(&server.url()).await.is_err(), "it has a password");
    let wrong = server.url().replace("//", "//:hunter3@");
    let fault = open(&wrong).await.unwrap_err();
    assert!(!format!("{fault} {fault:?}").contains("hunter"), "{fault}");
}
