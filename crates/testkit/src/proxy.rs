//! What may lie between a process and its disk.

use std::{
    fmt,
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use async_trait::async_trait;
use farebox_core::{Durability, Fault, Notices, Store};

/// A call to a store.
#[derive(Clone, Copy, Debug)]
pub enum Call<'a> {
    /// A look at this key.
    Get(&'a str),
    /// A compare-and-swap.
    Write(Write<'a>),
    /// A look at all keys with this prefix.
    Scan(&'a str),
}

impl Call<'_> {
    /// The key, or the prefix.
    pub fn key(&self) -> &str {
        match self {
            Self::Get(key) | Self::Scan(key) => key,
            Self::Write(write) => write.key,
        }
    }

    /// Whether it is a process's sign of life, which it gives when nothing was written for a while:
    /// nothing that is counted may depend on how fast a machine is.
    pub fn is_sign_of_life(&self) -> bool {
        self.key().starts_with("pulse:")
    }
}

/// A write, as a condition sees it.
#[derive(Clone, Copy, Debug)]
pub struct Write<'a> {
    /// The key.
    pub key: &'a str,
    /// What it is expected to hold.
    pub expected: Option<&'a str>,
    /// What it shall hold; `None` removes it.
    pub next: Option<&'a str>,
}

impl Write<'_> {
    /// Whether a key of this kind (`pay:`) is made to hold something with `text` in it.
    pub fn puts(&self, prefix: &str, text: &str) -> bool {
        self.key.starts_with(prefix) && self.next.is_some_and(|next| next.contains(text))
    }

    /// Whether a key of this kind is removed.
    pub fn removes(&self, prefix: &str) -> bool {
        self.key.starts_with(prefix) && self.next.is_none()
    }
}

/// What happens to calls on their way: they are counted, late, lost or refused.
///
/// ```
/// use farebox_core::Fault;
/// use farebox_testkit::{Between, Call};
///
/// /// A disk that is full.
/// struct Full;
///
/// impl Between for Full {
///     async fn call<T: Send>(
///         &self,
///         call: Call<'_>,
///         reply: impl Future<Output = Result<T, Fault>> + Send,
///     ) -> Result<T, Fault> {
///         match call {
///             Call::Write(_) => Err(Fault::unavailable("the disk is full")),
///             _ => reply.await,
///         }
///     }
/// }
/// ```
pub trait Between: Send + Sync + 'static {
    /// Carries out a call by awaiting `reply`, or does not.
    fn call<T: Send>(
        &self,
        call: Call<'_>,
        reply: impl Future<Output = Result<T, Fault>> + Send,
    ) -> impl Future<Output = Result<T, Fault>> + Send;

    /// Words between processes, where they do not go through the disk.
    fn notices(&self) -> Option<&dyn Notices> {
        None
    }
}

/// A durable store with something in [`Between`], to whose own methods it dereferences.
pub struct Proxy<S: ?Sized, B> {
    disk: Arc<S>,
    between: B,
}

impl<S: ?Sized, B> Proxy<S, B> {
    /// The disk, which outlives this proxy and may have others.
    pub fn new(disk: Arc<S>, between: B) -> Self {
        Self { disk, between }
    }
}

impl<S: ?Sized, B> Deref for Proxy<S, B> {
    type Target = B;

    fn deref(&self) -> &B {
        &self.between
    }
}

impl<S: ?Sized, B> fmt::Debug for Proxy<S, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy").finish_non_exhaustive()
    }
}

#[async_trait]
impl<S: Store + ?Sized, B: Between> Store for Proxy<S, B> {
    fn durability(&self) -> Durability {
        Durability::Durable
    }

    fn notices(&self) -> Option<&dyn Notices> {
        self.between.notices().or_else(|| self.disk.notices())
    }

    async fn get(&self, key: &str) -> Result<Option<String>, Fault> {
        let reply = self.disk.get(key);
        self.between.call(Call::Get(key), reply).await
    }

    async fn compare_and_swap(
        &self,
        key: &str,
        expected: Option<&str>,
        next: Option<&str>,
        keep: Option<Duration>,
    ) -> Result<bool, Fault> {
        let write = Write {
            key,
            expected,
            next,
        };
        let reply = self.disk.compare_and_swap(key, expected, next, keep);
        self.between.call(Call::Write(write), reply).await
    }

    async fn scan(&self, prefix: &str) -> Result<Vec<(String, String)>, Fault> {
        let reply = self.disk.scan(prefix);
        self.between.call(Call::Scan(prefix), reply).await
    }
}

/// Nothing in between: a store in memory that passes for a disk.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wire;

impl Between for Wire {
    async fn call<T: Send>(
        &self,
        _: Call<'_>,
        reply: impl Future<Output = Result<T, Fault>> + Send,
    ) -> Result<T, Fault> {
        reply.await
    }
}

/// Counts calls, but for a process's sign of life, which it gives whoever asks.
#[derive(Debug, Default)]
pub struct Counter {
    of: String,
    reads: AtomicUsize,
    writes: AtomicUsize,
}

impl Counter {
    /// Counts only calls whose key has `text` in it.
    pub fn of(text: impl Into<String>) -> Self {
        Self {
            of: text.into(),
            ..Self::default()
        }
    }

    /// Reads and scans so far.
    pub fn reads(&self) -> usize {
        self.reads.load(SeqCst)
    }

    /// Writes so far.
    pub fn writes(&self) -> usize {
        self.writes.load(SeqCst)
    }

    /// Both together.
    pub fn calls(&self) -> usize {
        self.reads() + self.writes()
    }
}

impl Between for Counter {
    async fn call<T: Send>(
        &self,
        call: Call<'_>,
        reply: impl Future<Output = Result<T, Fault>> + Send,
    ) -> Result<T, Fault> {
        if call.key().contains(&self.of) && !call.is_sign_of_life() {
            let counter = match call {
                Call::Write(_) => &self.writes,
                _ => &self.reads,
            };
            counter.fetch_add(1, SeqCst);
        }
        reply.await
    }
}

/// A store that can be switched off, wholly or for writes.
#[derive(Debug, Default)]
pub struct Switch {
    /// Whether every call fails.
    pub off: AtomicBool,
    /// Whether every write fails.
    pub read_only: AtomicBool,
    /// Calls so far, those that failed included.
    pub calls: AtomicUsize,
}

impl Between for Switch {
    async fn call<T: Send>(
        &self,
        call: Call<'_>,
        reply: impl Future<Output = Result<T, Fault>> + Send,
    ) -> Result<T, Fault> {
        self.calls.fetch_add(1, SeqCst);
        let frozen = matches!(call, Call::Write(_)) && self.read_only.load(SeqCst);
        if frozen || self.off.load(SeqCst) {
            // With a detail that no client may read.
            return Err(Fault::unavailable("writing to /var/lib/shop.db"));
        }
        reply.await
    }
}
