//! The volatile store: for tests, demos and servers that may forget.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use farebox_core::{Durability, Fault, Store};
use tokio::time::Instant;

/// Records in memory, gone with the process; an engine on it says so when it is built.
///
/// Expired records are collected as new ones come. Beyond the capacity, writes of new keys fail
/// rather than push out a claim that still protects money: requests are answered 503, and the log
/// says why, until records expire.
pub struct MemoryStore {
    state: Mutex<State>,
    capacity: usize,
}

#[derive(Default)]
struct State {
    entries: BTreeMap<Arc<str>, Entry>,
    /// The keys of entries that lapse, soonest first.
    lapses: BTreeSet<(Instant, Arc<str>)>,
    complained: Option<Instant>,
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

/// How many expired records one write collects: more than it adds, and so few that nobody waits.
const COLLECT: usize = 32;

/// How often a full store says so.
const COMPLAIN: Duration = Duration::from_secs(10);

impl State {
    fn live(&self, key: &str, now: Instant) -> Option<&str> {
        let entry = self.entries.get(key).filter(|entry| entry.live(now));
        entry.map(|entry| entry.value.as_str())
    }

    fn collect(&mut self, now: Instant) {
        for _ in 0..COLLECT {
            if self.lapses.first().is_none_or(|(until, _)| *until > now) {
                return;
            }
            if let Some((_, key)) = self.lapses.pop_first() {
                self.entries.remove(&key);
            }
        }
    }

    fn remove(&mut self, key: &str) {
        if let Some((key, entry)) = self.entries.remove_entry(key)
            && let Some(until) = entry.until
        {
            self.lapses.remove(&(until, key));
        }
    }

    fn insert(&mut self, key: &str, value: &str, until: Option<Instant>) {
        self.remove(key);
        let key: Arc<str> = key.into();
        if let Some(until) = until {
            self.lapses.insert((until, key.clone()));
        }
        let value = value.to_owned();
        self.entries.insert(key, Entry { value, until });
    }

    fn complain(&mut self, now: Instant) {
        if self.complained.is_none_or(|last| now >= last + COMPLAIN) {
            self.complained = Some(now);
            tracing::error!(
                records = self.entries.len(),
                "the memory store is full: no payment is accepted until records expire"
            );
        }
    }
}

impl MemoryStore {
    /// A store of at most a million records: some 600 MB, more where responses are kept with them.
    pub fn new() -> Self {
        Self::with_capacity(1_000_000)
    }

    /// A store of at most `capacity` records. A payment has two or three, an unpaid challenge none
    /// or one, as its rail needs.
    pub fn with_capacity(capacity: usize) -> Self {
        Self {
            state: Mutex::default(),
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
        Ok(self.state().live(key, Instant::now()).map(str::to_owned))
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
        state.collect(now);
        if state.live(key, now) != expected {
            return Ok(false);
        }
        match next {
            None => state.remove(key),
            Some(_) if expected.is_none() && state.entries.len() >= self.capacity => {
                state.complain(now);
                return Err(Fault::unavailable("the memory store is full"));
            }
            Some(value) => {
                let until = keep.and_then(|keep| now.checked_add(keep));
                state.insert(key, value, until);
            }
        }
        Ok(true)
    }

    async fn scan(&self, prefix: &str) -> Result<Vec<(String, String)>, Fault> {
        use std::ops::Bound::{Included, Unbounded};
        let now = Instant::now();
        let state = self.state();
        let from = state.entries.range::<str, _>((Included(prefix), Unbounded));
        Ok(from
            .take_while(|(key, _)| key.starts_with(prefix))
            .filter(|(_, entry)| entry.live(now))
            .map(|(key, entry)| (key.to_string(), entry.value.clone()))
            .collect())
    }
}
