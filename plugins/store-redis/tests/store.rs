//! The Redis store keeps the rules of every store.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::{
    Arc, LazyLock,
    atomic::{AtomicU32, Ordering},
};

use farebox_core::Store;
use farebox_store_redis::{Redis, RedisStore};
use farebox_test_services as services;

/// One server for the rules, with a prefix for each.
static SERVER: LazyLock<services::Redis> = LazyLock::new(services::Redis::start);

fn place() -> String {
    static PLACES: AtomicU32 = AtomicU32::new(0);
    format!(
        "{}?prefix=t{}:",
        SERVER.url(),
        PLACES.fetch_add(1, Ordering::Relaxed)
    )
}

async fn open(url: String) -> Arc<dyn Store> {
    Arc::new(
        RedisStore::open(&Redis::parse(&url).unwrap())
            .await
            .unwrap(),
    )
}

farebox_testkit::store_conformance!(rules, open(place()).await, ignore = "needs redis-server");
farebox_testkit::durable_store_conformance!(shared, place(), open, ignore = "needs redis-server");
