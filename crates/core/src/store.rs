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

    /// How processes on this store tell each other what changed. `None`: they look again now and
    /// then. A wrapper passes its store's on.
    fn notices(&self) -> Option<&dyn Notices>;
}

/// Words between the processes that share a store. Best effort: one may be lost, so nobody relies on
/// it for more than speed.
#[async_trait]
pub trait Notices: Send + Sync {
    /// Tells whoever listens now, in every process, this one included. `word` is at most 512 bytes
    /// of UTF-8 without line breaks.
    async fn tell(&self, word: &str) -> Result<(), Fault>;

    /// What is told from now on.
    async fn listen(&self) -> Result<Box<dyn Listener>, Fault>;
}

/// One listener's words, in the order they came.
#[async_trait]
pub trait Listener: Send {
    /// The next word. `None`: the connection was lost or the listener fell behind; listen anew, and
    /// look at what you wait for.
    async fn next(&mut self) -> Option<String>;
}
