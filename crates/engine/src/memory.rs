//! The volatile store: for tests, demos and servers that may forget.

use std::{
    collections::{BTreeMap, HashMap},
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

struct State {
    /// The entries by kind, which is their key up to its colon: a scan reads one kind only.
    kinds: BTreeMap<Box<str>, HashMap<Arc<str>, Entry>>,
    len: usize,
    /// The keys of entries that lapse, soonest first.
    lapses: BTreeMap<Lapse, Arc<str>>,
    born: Instant,
    next: u64,
    complained: Option<Instant>,
}

/// The second of the store's life from which an entry may be collected, and the entry's number.
/// In whole seconds, so that a record that moves on quickly keeps its place.
type Lapse = (u64, u64);

struct Entry {
    value: String,
    until: Option<Instant>,
    number: u64,
    lapse: Option<Lapse>,
}

impl Entry {
    fn live(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

fn kind(key: &str) -> &str {
    key.find(':').map_or("", |colon| &key[..=colon])
}

/// How many expired records one write collects: more than it adds, and so few that nobody waits.
const COLLECT: usize = 32;

/// How often a full store says so.
const COMPLAIN: Duration = Duration::from_secs(10);

impl State {
    fn entry(&self, key: &str) -> Option<&Entry> {
        self.kinds.get(kind(key))?.get(key)
    }

    fn live(&self, key: &str, now: Instant) -> Option<&str> {
        let entry = self.entry(key).filter(|entry| entry.live(now));
        entry.map(|entry| entry.value.as_str())
    }

    fn collect(&mut self, now: Instant) {
        let now = now.duration_since(self.born).as_secs();
        for _ in 0..COLLECT {
            match self.lapses.first_entry() {
                Some(first) if first.key().0 <= now => {
                    let key = first.remove();
                    self.remove(&key);
                }
                _ => return,
            }
        }
    }

    fn remove(&mut self, key: &str) {
        let entries = self.kinds.get_mut(kind(key));
        if let Some(entry) = entries.and_then(|entries| entries.remove(key)) {
            self.len -= 1;
            if let Some(lapse) = entry.lapse {
                self.lapses.remove(&lapse);
            }
        }
    }

    fn insert(&mut self, key: &str, value: &str, until: Option<Instant>) {
        let second = until.map(|until| until.duration_since(self.born).as_secs() + 1);
        if !self.kinds.contains_key(kind(key)) {
            self.kinds.insert(kind(key).into(), HashMap::new());
        }
        let Some(entries) = self.kinds.get_mut(kind(key)) else {
            return;
        };
        if let Some(entry) = entries.get_mut(key) {
            entry.value.clear();
            entry.value.push_str(value);
            entry.until = until;
            let lapse = second.map(|second| (second, entry.number));
            if entry.lapse != lapse {
                let listed = entry.lapse.and_then(|lapse| self.lapses.remove(&lapse));
                if let Some(lapse) = lapse {
                    let key = listed.unwrap_or_else(|| key.into());
                    self.lapses.insert(lapse, key);
                }
                entry.lapse = lapse;
            }
            return;
        }
        self.next += 1;
        let (key, number): (Arc<str>, u64) = (key.into(), self.next);
        let lapse = second.map(|second| (second, number));
        if let Some(lapse) = lapse {
            self.lapses.insert(lapse, key.clone());
        }
        let value = value.to_owned();
        let entry = Entry {
            value,
            until,
            number,
            lapse,
        };
        entries.insert(key, entry);
        self.len += 1;
    }

    fn complain(&mut self, now: Instant) {
        if self.complained.is_none_or(|last| now >= last + COMPLAIN) {
            self.complained = Some(now);
            tracing::error!(
                records = self.len,
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
        let state = State {
            kinds: BTreeMap::new(),
            len: 0,
            lapses: BTreeMap::new(),
            born: Instant::now(),
            next: 0,
            complained: None,
        };
        Self {
            state: Mutex::new(state),
            capacity,
        }
    }

    /// How many records it holds, expired ones that were not yet collected included.
    pub fn len(&self) -> usize {
        self.state().len
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

    fn notices(&self) -> Option<&dyn farebox_core::Notices> {
        None
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
            Some(_) if expected.is_none() && state.len >= self.capacity => {
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
        let now = Instant::now();
        let mut found = Vec::new();
        for (kind, entries) in &self.state().kinds {
            if kind.starts_with(prefix) || prefix.starts_with(&**kind) {
                let entries = entries.iter();
                let live =
                    entries.filter(|(key, entry)| key.starts_with(prefix) && entry.live(now));
                found.extend(live.map(|(key, entry)| (key.to_string(), entry.value.clone())));
            }
        }
        found.sort_unstable();
        Ok(found)
    }
}
