//! Channels that are forgotten with the process.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use farebox_core::{Durability, Fault, Store};

/// A channel store in memory, for tests and for clients that close what they open: money in a
/// channel that is open when the process ends is found again only if the server tells of it.
#[derive(Default)]
pub struct VolatileStore {
    entries: Mutex<BTreeMap<String, (String, Option<Instant>)>>,
}

impl VolatileStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn live(&self) -> MutexGuard<'_, BTreeMap<String, (String, Option<Instant>)>> {
        // Each critical section leaves whole entries, so a panic elsewhere does not spoil them.
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        entries.retain(|_, (_, until)| until.is_none_or(|until| now < until));
        entries
    }
}

impl fmt::Debug for VolatileStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VolatileStore").finish_non_exhaustive()
    }
}

#[async_trait]
impl Store for VolatileStore {
    fn durability(&self) -> Durability {
        Durability::Volatile
    }

    fn notices(&self) -> Option<&dyn farebox_core::Notices> {
        None
    }

    async fn get(&self, key: &str) -> Result<Option<String>, Fault> {
        Ok(self.live().get(key).map(|(value, _)| value.clone()))
    }

    async fn compare_and_swap(
        &self,
        key: &str,
        expected: Option<&str>,
        next: Option<&str>,
        keep: Option<Duration>,
    ) -> Result<bool, Fault> {
        let mut entries = self.live();
        if entries.get(key).map(|(value, _)| value.as_str()) != expected {
            return Ok(false);
        }
        match next {
            Some(next) => {
                let until = keep.and_then(|keep| Instant::now().checked_add(keep));
                entries.insert(key.to_owned(), (next.to_owned(), until));
            }
            None => drop(entries.remove(key)),
        }
        Ok(true)
    }

    async fn scan(&self, prefix: &str) -> Result<Vec<(String, String)>, Fault> {
        let entries = self.live();
        let from = entries.range(prefix.to_owned()..);
        let within = from.take_while(|(key, _)| key.starts_with(prefix));
        Ok(within
            .map(|(key, (value, _))| (key.clone(), value.clone()))
            .collect())
    }
}
