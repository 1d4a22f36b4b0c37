//! Farebox records in Redis or Valkey, for several machines.
//!
//! ```toml
//! store = "redis://127.0.0.1:6379/0"
//! store = { env = "REDIS_URL" }              # rediss://user:password@host:6380/0?prefix=shop:
//! ```
//!
//! `rediss:` is TLS, checked against the machine's certificates. Keys start with `?prefix=`,
//! `farebox:` unless said, so that a database may be shared; two servers that share payments share
//! the prefix.
//!
//! # What it promises
//!
//! A swap is one script on one key, and expiry is the server's. A call that gets no answer in five
//! seconds is a fault, and a swap whose answer was lost is never sent again: whether it was carried
//! out is for the engine to find out.
//!
//! What an answered swap survives is up to the server, so opening the store looks at its settings:
//!
//! - `maxmemory` with a policy that evicts is refused: a claim that is pushed out is a payment that
//!   can be used twice. Set `maxmemory-policy noeviction`.
//! - No persistence at all is refused, unless the URL says `?persistence=unchecked`. Snapshots alone
//!   lose minutes, `appendfsync everysec` up to a second, and both are warned of; `appendonly yes`
//!   with `appendfsync always` loses nothing.
//! - A replica, and a server in cluster mode, are refused. Every operation touches a single key, but
//!   this client speaks to one server.
//!
//! A primary that is demoted while it is in use answers `READONLY`. The call is a fault, and a new
//! connection is made in the background, at most once a second, and used if it leads to a primary.
//!
//! Where the server does not let its settings be read, that is warned of. Redis replicates after it
//! has answered: a failover may forget the last swaps, which PostgreSQL with synchronous
//! replication does not.

mod config;
mod inspect;
mod link;
mod notices;
mod script;

use std::{collections::BTreeMap, fmt, time::Duration};

use async_trait::async_trait;
use farebox_core::{Backend, Durability, Fault, Invalid, Notices, Store, store_driver};
use redis::{ErrorKind, FromRedisValue, RedisError, ServerErrorKind, aio::ConnectionManager};

pub use config::Redis;
use link::Link;
use script::Swap;

store_driver! {
    /// `redis:` and `rediss:`, one server.
    pub static DRIVER = Redis,
        schemes: ["redis", "rediss", "valkey", "valkeys"],
        example: "redis://127.0.0.1:6379/0";
}

/// How long a call waits for its answer.
const PATIENCE: Duration = Duration::from_secs(5);

const NOT_PERMITTED: &str =
    "Redis does not permit what a store needs: GET, SCAN, MGET, EVALSHA, SCRIPT LOAD, SET, DEL";

/// Keys that one step of a scan looks at.
const STEP: usize = 1000;

impl Backend for Redis {
    type Store = RedisStore;

    fn read(url: &str) -> Result<Self, Invalid> {
        Self::parse(url)
    }

    async fn open(&self) -> Result<RedisStore, Fault> {
        RedisStore::open(self).await
    }
}

/// Records in a Redis server. Clones share one connection, which comes back by itself.
#[derive(Clone)]
pub struct RedisStore {
    link: Link,
    prefix: String,
    swap: Swap,
}

impl RedisStore {
    /// Connects, and looks whether the server can be trusted with payments.
    ///
    /// # Errors
    /// If it cannot be reached, or forgets by design.
    pub async fn open(config: &Redis) -> Result<Self, Fault> {
        let store = Self {
            link: Link::open(config).await?,
            prefix: config.prefix().to_owned(),
            swap: Swap::new(),
        };
        inspect::server(&store, config.unchecked()).await?;
        Ok(store)
    }

    /// Sends one command.
    async fn ask<T: FromRedisValue>(&self, command: &redis::Cmd) -> Result<T, Fault> {
        let mut connection = self.connection();
        self.heeded(command.query_async(&mut connection)).await
    }

    fn connection(&self) -> ConnectionManager {
        self.link.connection()
    }

    /// The call's answer in time, and what it says about the connection.
    async fn heeded<T>(
        &self,
        call: impl Future<Output = Result<T, RedisError>>,
    ) -> Result<T, Fault> {
        let heed = async { call.await.inspect_err(|error| self.link.heed(error)) };
        in_time(heed).await
    }

    fn key(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore")
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Store for RedisStore {
    fn durability(&self) -> Durability {
        Durability::Durable
    }

    fn notices(&self) -> Option<&dyn Notices> {
        Some(self)
    }

    async fn get(&self, key: &str) -> Result<Option<String>, Fault> {
        self.ask(redis::cmd("GET").arg(self.key(key))).await
    }

    async fn compare_and_swap(
        &self,
        key: &str,
        expected: Option<&str>,
        next: Option<&str>,
        keep: Option<Duration>,
    ) -> Result<bool, Fault> {
        let call = self.swap.call(&self.key(key), expected, next, keep);
        let mut connection = self.connection();
        self.heeded(call.invoke_async(&mut connection)).await
    }

    async fn scan(&self, prefix: &str) -> Result<Vec<(String, String)>, Fault> {
        let pattern = format!("{}*", literal(&self.key(prefix)));
        // By key, and once each: a scan may name a key twice.
        let mut found = BTreeMap::new();
        let mut cursor = 0_u64;
        loop {
            let mut step = redis::cmd("SCAN");
            step.arg(cursor).arg("MATCH").arg(&pattern);
            step.arg("COUNT").arg(STEP);
            let (next, keys): (u64, Vec<Vec<u8>>) = self.ask(&step).await?;
            if !keys.is_empty() {
                let get = redis::cmd("MGET").arg(&keys).to_owned();
                let values: Vec<Option<String>> = self.ask(&get).await?;
                for (key, value) in keys.into_iter().zip(values) {
                    let key = String::from_utf8(key).ok();
                    let key = key
                        .as_deref()
                        .and_then(|key| key.strip_prefix(&self.prefix));
                    if let (Some(key), Some(value)) = (key, value) {
                        found.insert(key.to_owned(), value);
                    }
                }
            }
            cursor = next;
            if cursor == 0 {
                return Ok(found.into_iter().collect());
            }
        }
    }
}

/// Text that a pattern matches as it is.
fn literal(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len());
    for character in text.chars() {
        if matches!(character, '*' | '?' | '[' | ']' | '\\') {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern
}

async fn in_time<T>(call: impl Future<Output = Result<T, RedisError>>) -> Result<T, Fault> {
    match tokio::time::timeout(PATIENCE, call).await {
        Ok(result) => result.map_err(|error| fault(&error)),
        Err(_) => Err(Fault::unavailable("Redis does not answer")),
    }
}

/// Redis' errors as faults: the code and what it means. A server's own words may hold values.
fn fault(error: &RedisError) -> Fault {
    let code = error.code().unwrap_or_else(|| error.category()).to_owned();
    if error.is_timeout() {
        return Fault::unavailable("Redis does not answer");
    }
    if error.is_io_error() {
        return Fault::unavailable("Redis cannot be reached").caused_by(code);
    }
    let passing = [
        "BUSY",
        "CLUSTERDOWN",
        "LOADING",
        "MASTERDOWN",
        "MISCONF",
        "NOREPLICAS",
        "OOM",
        "READONLY",
        "TRYAGAIN",
    ];
    match error.kind() {
        _ if passing.contains(&code.as_str()) => {
            Fault::unavailable("Redis refuses for now").caused_by(code)
        }
        _ if ["NOAUTH", "WRONGPASS"].contains(&code.as_str()) => {
            Fault::new("Redis does not know the user or password")
        }
        ErrorKind::AuthenticationFailed => Fault::new("Redis does not know the user or password"),
        ErrorKind::Server(ServerErrorKind::NoPerm) => Fault::new(NOT_PERMITTED),
        _ => Fault::new("Redis failed").caused_by(code),
    }
}

#[cfg(test)]
mod tests {
    use super::literal;

    #[test]
    fn a_prefix_is_no_pattern() {
        assert_eq!(literal("a*b?[c]\\^-ü"), "a\\*b\\?\\[c\\]\\\\^-ü");
    }
}
