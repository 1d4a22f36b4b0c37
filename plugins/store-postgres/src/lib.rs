//! Farebox records in PostgreSQL, for several machines.
//!
//! ```toml
//! store = { env = "DATABASE_URL" }
//! # postgres://user:password@host:5432/database?sslmode=verify-full&max_connections=10
//! ```
//!
//! The first process to start makes two tables in the first schema of its search path
//! (`?options[search_path]=shop` names another), and processes that start together wait for it.
//! `sslmode` is as for `psql`; use `verify-full` over a network. A pooler in between must keep a
//! session on one connection.
//!
//! # What it promises
//!
//! A swap is one statement in READ COMMITTED, where a row that changed meanwhile is looked at
//! again. It is repeated only when the server says that it rolled it back (`40001`, `40P01`), and
//! never after a connection was lost: whether it was carried out is for the engine to find out.
//! Keys are compared by their bytes, expiry is the server's clock, and no answer takes longer than
//! five seconds.
//!
//! An answered swap survives what the server's own commits survive, so a database with
//! `synchronous_commit = off` is refused. With a synchronous replica, a failover forgets nothing.
//!
//! A standby is refused, and a connection whose server takes no writes is closed, so that the next
//! one may lead to the primary.
//!
//! Expired records are dropped in the background, a thousand at a time, by one process at a time.

mod config;
mod error;
mod held;
mod notices;
mod schema;

use std::{fmt, time::Duration};

use async_trait::async_trait;
use farebox_core::{
    Backend, Durability, Fault, Invalid, Notices, Store, driver::prefix_end, store_driver,
};
use sqlx::{PgConnection, PgPool};
use tokio::task::AbortHandle;

pub use config::Postgres;
use error::{fault, rolled_back};
use held::Held;

store_driver! {
    /// `postgres:`, one database.
    pub static DRIVER = Postgres,
        schemes: ["postgres", "postgresql"],
        example: "postgres://user@host/database";
}

/// How long a call waits for its answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often a statement that the server rolled back is repeated.
const TRIES: u32 = 5;

/// Kept beyond what was asked: a replica that takes over may have a clock that is ahead.
const MARGIN: Duration = Duration::from_secs(2);

impl Backend for Postgres {
    type Store = PostgresStore;

    fn read(url: &str) -> Result<Self, Invalid> {
        Self::parse(url)
    }

    async fn open(&self) -> Result<PostgresStore, Fault> {
        PostgresStore::open(self).await
    }
}

/// Records in a PostgreSQL database.
pub struct PostgresStore {
    pool: PgPool,
    /// For connections that listen.
    config: Postgres,
    collector: AbortHandle,
}

impl PostgresStore {
    /// Connects, makes the tables where there are none, and starts to drop what has expired.
    ///
    /// # Errors
    /// If the server cannot be reached, or the database is not fit to be a store.
    pub async fn open(config: &Postgres) -> Result<Self, Fault> {
        let pool = config.pool();
        in_time(schema::inspect(&pool)).await??;
        in_time(schema::migrate(&pool)).await??;
        let collector = tokio::spawn(schema::collect(pool.clone())).abort_handle();
        Ok(Self {
            pool,
            config: config.clone(),
            collector,
        })
    }

    /// One try at a swap.
    async fn swap(&self, swap: &Swap<'_>) -> Result<bool, sqlx::Error> {
        let mut held = Held::acquire(&self.pool).await?;
        let swapped = swap.run(held.connection()).await;
        held.answered(swapped)
    }
}

/// A swap as the statements have it.
struct Swap<'a> {
    key: &'a str,
    expected: Option<&'a str>,
    next: Option<&'a str>,
    keep: Option<i64>,
}

impl Swap<'_> {
    async fn run(&self, connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
        let query = match (self.expected, self.next) {
            (None, None) => {
                let found: Option<i32> = sqlx::query_scalar(
                    "SELECT 1 FROM farebox_records
                     WHERE key = $1 AND (until IS NULL OR until > clock_timestamp())",
                )
                .bind(self.key)
                .fetch_optional(connection)
                .await?;
                return Ok(found.is_none());
            }
            (None, Some(next)) => sqlx::query(
                "INSERT INTO farebox_records AS r (key, value, until)
                 VALUES ($1, $2, clock_timestamp() + $3 * interval '1 millisecond')
                 ON CONFLICT (key) DO UPDATE SET value = excluded.value, until = excluded.until
                 WHERE r.until <= clock_timestamp()",
            )
            .bind(self.key)
            .bind(next)
            .bind(self.keep),
            (Some(expected), Some(next)) => sqlx::query(
                "UPDATE farebox_records
                 SET value = $2, until = clock_timestamp() + $3 * interval '1 millisecond'
                 WHERE key = $1 AND value = $4 AND (until IS NULL OR until > clock_timestamp())",
            )
            .bind(self.key)
            .bind(next)
            .bind(self.keep)
            .bind(expected),
            (Some(expected), None) => sqlx::query(
                "DELETE FROM farebox_records
                 WHERE key = $1 AND value = $2 AND (until IS NULL OR until > clock_timestamp())",
            )
            .bind(self.key)
            .bind(expected),
        };
        let changed = query.execute(connection).await?.rows_affected();
        Ok(changed == 1)
    }
}

impl Drop for PostgresStore {
    fn drop(&mut self) {
        self.collector.abort();
    }
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore")
            .field("connections", &self.pool.size())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Store for PostgresStore {
    fn durability(&self) -> Durability {
        Durability::Durable
    }

    fn notices(&self) -> Option<&dyn Notices> {
        Some(self)
    }

    async fn get(&self, key: &str) -> Result<Option<String>, Fault> {
        let get = sqlx::query_scalar(
            "SELECT value FROM farebox_records
             WHERE key = $1 AND (until IS NULL OR until > clock_timestamp())",
        );
        in_time(async {
            let mut held = Held::acquire(&self.pool).await?;
            let value = get.bind(key).fetch_optional(held.connection()).await;
            held.answered(value)
        })
        .await
    }

    async fn compare_and_swap(
        &self,
        key: &str,
        expected: Option<&str>,
        next: Option<&str>,
        keep: Option<Duration>,
    ) -> Result<bool, Fault> {
        let swap = Swap {
            key,
            expected,
            next,
            keep: keep.and_then(milliseconds),
        };
        in_time(async {
            let mut tries = 1;
            loop {
                match self.swap(&swap).await {
                    Err(error) if rolled_back(&error) && tries < TRIES => {
                        tokio::time::sleep(Duration::from_millis(5) * tries).await;
                        tries += 1;
                    }
                    result => return result,
                }
            }
        })
        .await
    }

    async fn scan(&self, prefix: &str) -> Result<Vec<(String, String)>, Fault> {
        let scan = match prefix_end(prefix) {
            Some(end) => sqlx::query_as(
                "SELECT key, value FROM farebox_records WHERE key >= $1 AND key < $2
                 AND (until IS NULL OR until > clock_timestamp()) ORDER BY key",
            )
            .bind(prefix)
            .bind(end),
            None => sqlx::query_as(
                "SELECT key, value FROM farebox_records WHERE key >= $1
                 AND (until IS NULL OR until > clock_timestamp()) ORDER BY key",
            )
            .bind(prefix),
        };
        in_time(async {
            let mut held = Held::acquire(&self.pool).await?;
            let found = scan.fetch_all(held.connection()).await;
            held.answered(found)
        })
        .await
    }
}

/// `keep` as the statements have it. What is too long for a calendar is kept until it is removed.
fn milliseconds(keep: Duration) -> Option<i64> {
    const LIMIT: i64 = 1000 * 365 * 24 * 3600 * 1000;
    let keep = i64::try_from(keep.checked_add(MARGIN)?.as_millis()).ok()?;
    (keep < LIMIT).then_some(keep + 1)
}

async fn in_time<T>(call: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, Fault> {
    match tokio::time::timeout(PATIENCE, call).await {
        Ok(result) => result.map_err(|error| fault(&error)),
        Err(_) => Err(Fault::unavailable("PostgreSQL does not answer")),
    }
}
