//! Who waits for a channel, and how it hears of a change: in this process at once, from another by
//! the store's notices, and by looking again where there are none.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use farebox_core::{Durability, Fault, Store};
use tokio::{sync::Notify, time::sleep, time::timeout};

use crate::engine::Shared;

/// How often who waits looks again where nobody tells, and where somebody does: a word may be lost.
const LOOK: Duration = Duration::from_millis(500);
const HEED: Duration = Duration::from_secs(5);

/// The same of who streams and has nothing to wait for but the end. Its block makes it look too.
const GLANCE: Duration = Duration::from_secs(5);
const SELDOM: Duration = Duration::from_secs(30);

/// How long after a lost connection the next is tried, and how often a listener looks whether it is
/// still needed.
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(crate) struct Hub {
    waiting: Mutex<HashMap<String, Weak<Notify>>>,
    /// Whether a task listens to the other processes, and whether it hears.
    listens: AtomicBool,
    hears: AtomicBool,
}

impl Hub {
    /// What is woken when the account under `key` changes.
    fn waiter(&self, key: &str) -> Arc<Notify> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(waiter) = waiting.get(key).and_then(Weak::upgrade) {
            return waiter;
        }
        // Those that are gone make room before more is taken.
        if waiting.len() == waiting.capacity() {
            waiting.retain(|_, waiter| waiter.strong_count() > 0);
        }
        let waiter = Arc::new(Notify::new());
        waiting.insert(key.to_owned(), Arc::downgrade(&waiter));
        waiter
    }

    pub(crate) fn wake(&self, key: &str) {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(waiter) = waiting.get(key).and_then(Weak::upgrade) {
            waiter.notify_waiters();
        }
    }

    fn wake_all(&self) {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        for waiter in waiting.values().filter_map(Weak::upgrade) {
            waiter.notify_waiters();
        }
    }
}

/// One who waits for a channel.
pub(crate) struct Waiting {
    waiter: Arc<Notify>,
    look: Duration,
}

impl Waiting {
    /// What to await after the next look, so that a change in between is not missed.
    pub(crate) fn changed(&self) -> tokio::sync::futures::Notified<'_> {
        self.waiter.notified()
    }

    /// How long until the next look, whatever is heard.
    pub(crate) fn look(&self) -> Duration {
        self.look
    }
}

impl Shared {
    /// Begins to wait for the account under `key`.
    pub(crate) fn wait(self: &Arc<Self>, key: &str) -> Waiting {
        self.waiting(key, LOOK, HEED)
    }

    /// Begins to wait for `word`, while there is work to do.
    pub(crate) fn heed(self: &Arc<Self>, word: &str) -> Waiting {
        self.waiting(word, GLANCE, SELDOM)
    }

    /// `untold`, `told`: how often to look again where nobody tells, and where somebody does.
    fn waiting(self: &Arc<Self>, word: &str, untold: Duration, told: Duration) -> Waiting {
        self.listen();
        let volatile = self.store.durability() == Durability::Volatile;
        let hears = volatile || self.hub.hears.load(SeqCst);
        Waiting {
            waiter: self.hub.waiter(word),
            look: if hears { told } else { untold },
        }
    }

    /// Tells the other processes that the account under `key` has changed; nobody waits for that.
    pub(crate) fn tell(self: &Arc<Self>, key: &str) {
        if self.store.notices().is_none() {
            return;
        }
        let (Ok(runtime), shared) = (tokio::runtime::Handle::try_current(), self.clone()) else {
            return;
        };
        let key = key.to_owned();
        runtime.spawn(async move {
            let Some(notices) = shared.store.notices() else {
                return;
            };
            let told = timeout(shared.timing.store, notices.tell(&key)).await;
            let late = |_| Err(Fault::unavailable("the store did not answer in time"));
            if let Err(fault) = told.unwrap_or_else(late) {
                // They look again by themselves.
                tracing::debug!(%fault, "other processes were not told of a change");
            }
        });
    }

    /// Starts the one task that hears the other processes, where the store can carry their words.
    fn listen(self: &Arc<Self>) {
        if self.store.notices().is_none() || self.hub.listens.swap(true, SeqCst) {
            return;
        }
        let shared = Arc::downgrade(self);
        tokio::spawn(async move {
            while let Some(store) = shared.upgrade().map(|shared| shared.store.clone()) {
                hear(store.as_ref(), &shared).await;
                sleep(PAUSE).await;
            }
        });
    }
}

/// Passes on what is told until the connection is lost, or nobody is left to be told.
async fn hear(store: &dyn Store, shared: &Weak<Shared>) {
    let Some(notices) = store.notices() else {
        return;
    };
    let mut listener = match notices.listen().await {
        Ok(listener) => listener,
        Err(fault) => {
            tracing::debug!(%fault, "cannot hear the other processes");
            return;
        }
    };
    if let Some(shared) = shared.upgrade() {
        shared.hub.hears.store(true, SeqCst);
        // What was told before we listened.
        shared.hub.wake_all();
    }
    loop {
        let word = timeout(HEED, listener.next()).await;
        let Some(shared) = shared.upgrade() else {
            return;
        };
        match word {
            Ok(Some(key)) => shared.hub.wake(&key),
            Ok(None) => {
                shared.hub.hears.store(false, SeqCst);
                shared.hub.wake_all();
                return;
            }
            Err(_) => {}
        }
    }
}
