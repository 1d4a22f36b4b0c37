//! Whether payments can be recorded, known without asking the store.
//!
//! A payer who is shown a challenge may pay it at once, so none is shown while the store is away.
//! But the answer to a stranger must not wait for a store either. So every write says how the store
//! is, and where nobody has written for a while, the next request has one made behind its back.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use farebox_core::{Durability, Fault, Store};
use tokio::{runtime::Handle, sync::Mutex, time::Instant};

/// How old the news of a working store may be before it is renewed.
const FRESH: Duration = Duration::from_secs(1);

/// How often a store that is away is asked whether it is back.
const PATIENCE: Duration = Duration::from_millis(250);

/// How long a process's own record outlives it.
const KEEP: Duration = Duration::from_secs(3600);

/// How the store is, by the last write.
#[derive(Debug)]
pub(crate) struct Condition {
    started: Instant,
    /// Milliseconds after `started` of the last news.
    heard: AtomicU64,
    away: AtomicBool,
}

impl Condition {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            started: Instant::now(),
            heard: AtomicU64::new(0),
            away: AtomicBool::new(false),
        })
    }

    /// A call ended. Reads may still work where writes do not, so only a write brings good news.
    pub(crate) fn hear<T>(&self, answer: &Result<T, Fault>, wrote: bool) {
        if wrote || answer.is_err() {
            self.away.store(answer.is_err(), Relaxed);
            self.heard.store(self.millis(), Relaxed);
        }
    }

    fn millis(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn age(&self) -> Duration {
        Duration::from_millis(self.millis().saturating_sub(self.heard.load(Relaxed)))
    }
}

/// Writes where nobody else does, one write at a time.
pub(crate) struct Pulse {
    condition: Arc<Condition>,
    store: Arc<dyn Store>,
    key: String,
    /// What this process wrote last, while nobody is writing.
    last: Arc<Mutex<Option<String>>>,
}

impl Pulse {
    /// `process` names this process among those that share the store.
    pub(crate) fn new(condition: Arc<Condition>, store: Arc<dyn Store>, process: &str) -> Self {
        Self {
            condition,
            store,
            key: format!("pulse:{process}"),
            last: Arc::default(),
        }
    }

    /// Whether payments could be recorded a moment ago. Never waits.
    pub(crate) fn check(&self) -> Result<(), Fault> {
        // A volatile store is this process's own memory.
        if self.store.durability() == Durability::Volatile {
            return Ok(());
        }
        let away = self.condition.away.load(Relaxed);
        if self.condition.age() >= if away { PATIENCE } else { FRESH } {
            self.beat();
        }
        if away {
            return Err(Fault::unavailable("the store is away"));
        }
        Ok(())
    }

    /// Has a write made, unless one is under way. Its news goes the way of every other's.
    fn beat(&self) {
        let (Ok(mut last), Ok(runtime)) =
            (self.last.clone().try_lock_owned(), Handle::try_current())
        else {
            return;
        };
        let (store, key) = (self.store.clone(), self.key.clone());
        runtime.spawn(async move {
            let count = last
                .as_ref()
                .map_or(0, |last| last.parse().unwrap_or(0_u64));
            let next = count.wrapping_add(1).to_string();
            let swap = store.compare_and_swap(&key, last.as_deref(), Some(&next), Some(KEEP));
            match swap.await {
                Ok(true) => *last = Some(next),
                // An earlier write whose reply was lost, or the record lapsed.
                Ok(false) => *last = store.get(&key).await.ok().flatten(),
                Err(fault) => tracing::warn!(%fault, "the store is away: nothing is asked for"),
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects: bad news stops challenges at once, a read that works does not bring them back,
    /// and a write does.
    #[test]
    fn only_a_write_brings_good_news() {
        let condition = Condition::new();
        let bad: Result<bool, Fault> = Err(Fault::unavailable("gone"));
        condition.hear(&bad, false);
        assert!(condition.away.load(Relaxed));
        condition.hear(&Ok(true), false);
        assert!(condition.away.load(Relaxed));
        condition.hear(&Ok(false), true);
        assert!(!condition.away.load(Relaxed));
    }
}
