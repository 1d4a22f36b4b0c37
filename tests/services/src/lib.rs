//! Redis and PostgreSQL for tests: started on ports of their own in a temporary folder, and stopped
//! when they are dropped or when the test's process ends, however it ends.
//!
//! `FAREBOX_REDIS_SERVER` names the Redis server, `FAREBOX_POSTGRES_BIN` the folder of PostgreSQL's
//! programs; without them the usual places are searched. A test that needs one is
//! `#[ignore = "needs redis-server"]` or `#[ignore = "needs postgres"]` and is run by `tests/run`.
//!
//! Everything here panics on failure, as test code does.

#![allow(clippy::unwrap_used, reason = "test code may panic")]

mod port;
mod postgres;
mod process;
mod proxy;
mod redis;

pub use port::{Port, free_port};
pub use postgres::Postgres;
pub use proxy::Proxy;
pub use redis::Redis;

/// Whether both services can be started, or which are missing.
///
/// # Errors
/// What is missing, and how to name it.
pub fn available() -> Result<(), String> {
    let missing: Vec<String> = [redis::program().err(), postgres::programs().err()]
        .into_iter()
        .flatten()
        .collect();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(missing.join("; "))
    }
}
