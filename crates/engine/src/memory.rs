//! The volatile store: for tests, demos and servers that may forget.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use farebox_core::{Durability, Fault, Store};

/// Records in memory. Expired ones are collected as new ones come; beyond the capacity, writes of
/// new keys fail rather than push out a claim that still protects money.
pub struct MemoryStore {
    state: Mutex<State>,
    capacity: usize,
}

struct State {
    entries: BTreeMap<String, Entry>,
    sweep_at: Instant,
}

struct Entry {
    value: String,
    until: Option<Instant>,
}

impl Entry {
    fn live(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

const SWEEP: Duration = Duration::from_secs(1);

impl MemoryStore {
    /// A store of at most a million records.
    pub fn new() -> Self {
        Self::with_capacity(1_000_000)
    }

    /// A store of at most `capacity` records.
    pub fn with_capacity(capacity: usize) -> Self {
        let state = State {
            entries: BTreeMap::new(),
            sweep_at: Instant::now() + SWEEP,
        };
        Self {
            state: Mutex::new(state),
            capacity,
        }
    }

    /// How many records it holds, expired ones that were not yet collected included.
    pub fn len(&self) -> usize {
        self.state().entries.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each critical section leaves whole entries, so a panic elsewhere does not spoil them.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore")
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Store for MemoryStore {
    fn durability(&self) -> Durability {
        Durability::Volatile
    }

    async fn get(&self, key: &str) -> Result<Option<String>, Fault> {
        let now = Instant::now();
        Ok(self
            .state()
            .entries
            .get(key)
            .filter(|e| e.live(now))
            .map(|e| e.value.clone()))
    }

    async fn compare_and_swap(
        &self,
        key: &str,
        expected: Option<&str>,
        next: Option<&str>,
        keep: Option<Duration>,
    ) -> Result<bool, Fault> {
        let now = Instant::now();
        let mut state = self.state();
        if now >= state.sweep_at {
            state.entries.retain(|_, entry| entry.live(now));
            state.sweep_at = now + SWEEP;
        }
        let current = state
            .entries
            .get(key)
            .filter(|e| e.live(now))
            .map(|e| e.value.as_str());
        if current != expected {
            return Ok(false);
        }
        match next {
            None => {
                state.entries.remove(key);
            }
            Some(_) if expected.is_none() && state.entries.len() >= self.capacity => {
                return Err(Fault::unavailable("the memory store is full"));
            }
            Some(value) => {
                let entry = Entry {
                    value: value.to_owned(),
                    until: keep.and_then(|keep| now.checked_add(keep)),
                };
                state.entries.insert(key.to_owned(), entry);
            }
        }
        Ok(true)
    }

    async fn scan(&self, prefix: &str) -> Result<Vec<(String, String)>, Fault> {
        let now = Instant::now();
        Ok(self
            .state()
            .entries
            .range(prefix.to_owned()..)
            .take_while(|(key, _)| key.starts_with(prefix))
            .filter(|(_, entry)| entry.live(now))
            .map(|(key, entry)| (key.clone(), entry.value.clone()))
            .collect())
    }
}
