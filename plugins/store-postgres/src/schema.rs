//! The tables, and what is dropped from them.

use std::time::Duration;

use farebox_core::Fault;
use sqlx::{Connection as _, Error, Executor as _, PgConnection, PgPool};
use tokio::time::timeout;

use crate::{
    error::{UNDEFINED_TABLE, code, fault},
    held::Held,
};

/// The layout below.
const VERSION: i32 = 1;

// Advisory locks are two numbers, of which the first is "fare".
const MIGRATE: &str = "SELECT pg_advisory_xact_lock(1717662309, 1)";
const COLLECT: &str = "SELECT pg_try_advisory_xact_lock(1717662309, 2)";

/// `C` compares bytes, and takes part in no upgrade of the system's languages.
const TABLES: &str = r#"
    CREATE TABLE farebox_records (
        key   text COLLATE "C" PRIMARY KEY,
        value text COLLATE "C" NOT NULL,
        until timestamptz
    );
    CREATE INDEX farebox_records_until ON farebox_records (until) WHERE until IS NOT NULL;
    CREATE TABLE farebox_schema (version integer NOT NULL);
    INSERT INTO farebox_schema VALUES (1);
"#;

/// How often expired records are looked for, and how many are dropped at a time.
const SWEEP: Duration = Duration::from_secs(2);
const SWEPT: u64 = 1000;

/// How long a sweep may take, with the wait for its connection. A server that is silent must not
/// hold a connection that calls need.
const LATE: Duration = Duration::from_secs(10);

/// Refuses a database that forgets, or that cannot hold every text.
pub(crate) async fn inspect(pool: &PgPool) -> Result<Result<(), Fault>, Error> {
    let settings =
        "SELECT current_setting('server_encoding'), current_setting('synchronous_commit'),
                    current_setting('fsync')";
    let (encoding, commit, fsync): (String, String, String) =
        sqlx::query_as(settings).fetch_one(pool).await?;
    if encoding != "UTF8" {
        return Ok(Err(Fault::new("the database's encoding is not UTF8")));
    }
    if commit == "off" {
        return Ok(Err(Fault::new(
            "PostgreSQL answers before it has written, and so forgets payments in a crash; set \
             `synchronous_commit` for the role, or `?options[synchronous_commit]=on` in the URL",
        )));
    }
    if fsync != "on" {
        tracing::warn!("PostgreSQL runs with `fsync = off`: a power loss may forget all payments");
    }
    Ok(Ok(()))
}

/// Makes the tables, or checks that they are of this version.
pub(crate) async fn migrate(pool: &PgPool) -> Result<Result<(), Fault>, Error> {
    // A role that may not make tables can use those that are there.
    let found = match version(pool).await {
        Err(error) if code(&error).as_deref() == Some(UNDEFINED_TABLE) => None,
        found => found?,
    };
    let found = match found {
        Some(found) => found,
        None => {
            let mut transaction = pool.begin().await?;
            transaction.execute(MIGRATE).await?;
            // Somebody else may have made them while this waited.
            let made: bool = sqlx::query_scalar("SELECT to_regclass('farebox_schema') IS NOT NULL")
                .fetch_one(&mut *transaction)
                .await?;
            if !made {
                transaction.execute(TABLES).await?;
            }
            transaction.commit().await?;
            version(pool).await?.unwrap_or_default()
        }
    };
    if found == VERSION {
        return Ok(Ok(()));
    }
    Ok(Err(Fault::new(
        "the tables were made by another version of Farebox",
    )))
}

async fn version(pool: &PgPool) -> Result<Option<i32>, Error> {
    let version = "SELECT max(version) FROM farebox_schema";
    sqlx::query_scalar(version).fetch_one(pool).await
}

/// Drops expired records until it is aborted.
pub(crate) async fn collect(pool: PgPool) {
    loop {
        let why = match timeout(LATE, sweep(&pool)).await {
            Ok(Ok(SWEPT..)) => continue,
            Ok(Ok(_)) => None,
            Ok(Err(error)) => Some(fault(&error)),
            Err(_) => Some(Fault::unavailable("PostgreSQL does not answer")),
        };
        if let Some(fault) = why {
            tracing::warn!(%fault, "expired records were not dropped");
        }
        tokio::time::sleep(SWEEP).await;
    }
}

/// Drops some, unless another process is at it. A sweep that is given up closes its connection.
async fn sweep(pool: &PgPool) -> Result<u64, Error> {
    let mut held = Held::acquire(pool).await?;
    let swept = sweep_on(held.connection()).await;
    held.answered(swept)
}

async fn sweep_on(connection: &mut PgConnection) -> Result<u64, Error> {
    let mut transaction = connection.begin().await?;
    let alone: bool = sqlx::query_scalar(COLLECT)
        .fetch_one(&mut *transaction)
        .await?;
    if !alone {
        transaction.rollback().await?;
        return Ok(0);
    }
    let dropped = sqlx::query(
        "DELETE FROM farebox_records WHERE key IN (
             SELECT key FROM farebox_records WHERE until <= now()
             ORDER BY until LIMIT $1 FOR UPDATE SKIP LOCKED
         )",
    )
    .bind(i64::try_from(SWEPT).unwrap_or(i64::MAX))
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(dropped.rows_affected())
}
