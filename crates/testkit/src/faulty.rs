//! A store that misbehaves as networks do: a write that arrives late, and a reply that is lost.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use farebox_core::{Durability, Fault, Store};
use tokio::sync::Notify;

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

type Condition = Box<dyn Fn(&Write<'_>) -> bool + Send>;

/// A durable disk behind a bad network. Each condition applies to the first write it fits.
pub struct FaultyStore<S> {
    disk: Arc<S>,
    pause: Mutex<Option<Condition>>,
    hold: Mutex<Option<Condition>>,
    lose: Mutex<Option<Condition>>,
    reached: Notify,
    go: Notify,
}

impl<S> FaultyStore<S> {
    /// The disk, over a network that is good so far.
    pub fn new(disk: Arc<S>) -> Self {
        Self {
            disk,
            pause: Mutex::default(),
            hold: Mutex::default(),
            lose: Mutex::default(),
            reached: Notify::new(),
            go: Notify::new(),
        }
    }

    /// Holds the next write that fits until [`release`](Self::release); other writes pass it.
    pub fn pause_before(&self, fits: impl Fn(&Write<'_>) -> bool + Send + 'static) {
        arm(&self.pause, fits);
    }

    /// Carries out the next write that fits and holds its reply until [`release`](Self::release).
    pub fn pause_after(&self, fits: impl Fn(&Write<'_>) -> bool + Send + 'static) {
        arm(&self.hold, fits);
    }

    /// Waits until a write is held.
    pub async fn reached(&self) {
        self.reached.notified().await;
    }

    /// Lets the held write, or its reply, go on.
    pub fn release(&self) {
        self.go.notify_one();
    }

    /// Carries out the next write that fits and answers with a fault, as if its reply were lost.
    pub fn lose_reply_of(&self, fits: impl Fn(&Write<'_>) -> bool + Send + 'static) {
        arm(&self.lose, fits);
    }
}

fn arm(slot: &Mutex<Option<Condition>>, fits: impl Fn(&Write<'_>) -> bool + Send + 'static) {
    *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(fits));
}

/// Whether the condition fits; it is used up then.
fn fires(slot: &Mutex<Option<Condition>>, write: &Write<'_>) -> bool {
    let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
    slot.take_if(|fits| fits(write)).is_some()
}

impl<S> std::fmt::Debug for FaultyStore<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FaultyStore").finish_non_exhaustive()
    }
}

#[async_trait]
impl<S: Store> Store for FaultyStore<S> {
    fn durability(&self) -> Durability {
        Durability::Durable
    }

    fn notices(&self) -> Option<&dyn farebox_core::Notices> {
        self.disk.notices()
    }

    async fn get(&self, key: &str) -> Result<Option<String>, Fault> {
        self.disk.get(key).await
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
        if fires(&self.pause, &write) {
            self.reached.notify_one();
            self.go.notified().await;
        }
        // A real store suspends, which is where callers are cancelled.
        tokio::task::yield_now().await;
        let swapped = self.disk.compare_and_swap(key, expected, next, keep).await;
        if fires(&self.hold, &write) {
            self.reached.notify_one();
            self.go.notified().await;
        }
        if fires(&self.lose, &write) {
            return Err(Fault::unavailable("the reply was lost"));
        }
        swapped
    }

    async fn scan(&self, prefix: &str) -> Result<Vec<(String, String)>, Fault> {
        self.disk.scan(prefix).await
    }
}
