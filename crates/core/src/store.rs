//! What survives a restart.

use std::time::Duration;

use async_trait::async_trait;

use crate::refusal::Fault;

/// Whether a store outlives its process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Records are gone with the process. The engine then mixes a per-process random into the
    /// challenge secret, so that an old challenge is refused rather than accepted twice.
    Volatile,
    /// Records survive, and every process that shares the store sees them.
    Durable,
}

/// A key-value store with one atomic primitive: a compare-and-swap of a single key.
///
/// The primitive is required and has no fallback: a backend that cannot swap atomically cannot
/// be a store. Keys are UTF-8 of at most 512 bytes, values JSON text. An outage is a [`Fault`],
/// and every caller fails closed on it.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Whether records outlive the process.
    fn durability(&self) -> Durability;

    /// The live value of `key`.
    async fn get(&self, key: &str) -> Result<Option<String>, Fault>;

    /// If the live value of `key` equals `expected` (`None`: there is none), makes it `next`
    /// (`None`: removes it) and answers `true`; otherwise changes nothing and answers `false`.
    ///
    /// `keep` is how long the new value must stay readable; it may be dropped afterwards and must
    /// not be dropped before. `None` keeps it until it is removed.
    async fn compare_and_swap(
        &self,
        key: &str,
        expected: Option<&str>,
        next: Option<&str>,
        keep: Option<Duration>,
    ) -> Result<bool, Fault>;

    /// All live entries whose key starts with `prefix`, by key. A write during the scan may or
    /// may not be seen; an entry that is there throughout is.
    async fn scan(&self, prefix: &str) -> Result<Vec<(String, String)>, Fault>;
}
