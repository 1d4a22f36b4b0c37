//! The PostgreSQL store keeps the rules of every store.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::{Arc, LazyLock};

use farebox_core::Store;
use farebox_store_postgres::{Postgres, PostgresStore};
use farebox_test_services as services;

/// One server for all rules, with a database for each, and room for many pools.
static SERVER: LazyLock<services::Postgres> =
    LazyLock::new(|| services::Postgres::start_with(&["max_connections=200"]));

fn place() -> String {
    SERVER.database()
}

async fn open(url: String) -> Arc<dyn Store> {
    let config = Postgres::parse(&url).unwrap();
    Arc::new(PostgresStore::open(&config).await.unwrap())
}

farebox_testkit::store_conformance!(rules, open(place()).await, ignore = "needs postgres");
farebox_testkit::durable_store_conformance!(shared, place(), open, ignore = "needs postgres");
