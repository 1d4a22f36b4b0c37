//! What a server has once: realm, secrets, store, clock and the settlers it may need again.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use farebox_core::{
    ChannelId, Durability, Method, Offers, Store, Tally,
    wire::{SecretRing, Timestamp},
};

use crate::{
    agenda::Agenda,
    balance::Ledger,
    batch::Gathered,
    deadline::Punctual,
    drain::Drain,
    gate::Gate,
    heartbeat::Heart,
    hub::Hub,
    meter::{self, Meter},
    nonce,
    pulse::{Condition, Pulse},
};

/// Where the time comes from. Tests bring their own.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> i64 + Send + Sync>);

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        Self(Arc::new(|| {
            // Not `Timestamp::now`, which writes the date out.
            let since = SystemTime::now().duration_since(UNIX_EPOCH);
            since.map_or(0, |since| {
                i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
            })
        }))
    }

    /// A clock that answers Unix milliseconds.
    pub fn from_fn(millis: impl Fn() -> i64 + Send + Sync + 'static) -> Self {
        Self(Arc::new(millis))
    }

    /// Unix milliseconds.
    pub fn millis(&self) -> i64 {
        (self.0)()
    }

    /// The present instant.
    pub fn now(&self) -> Timestamp {
        Timestamp::from_unix_millis(self.millis())
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

/// Why an engine or a gate cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// A realm is what a challenge is for; it must be named.
    #[error(
        "the realm {0:?} is not usable: it must not be empty, nor hold a quote, `|` or a line break"
    )]
    Realm(String),
    /// Two different rails under one name: the reconciler could not tell whose payment it finds.
    #[error("two rails are called {0}; give one another name (Typed::named)")]
    AmbiguousName(String),
    /// No randomness from the operating system.
    #[error("the operating system gives no randomness: {0}")]
    Randomness(getrandom::Error),
}

/// Durations that govern the lifecycle.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timing {
    /// A challenge's life, unless its rail caps it.
    pub(crate) ttl: Duration,
    /// How long one rail may take to quote.
    pub(crate) quote: Duration,
    /// How long a caller waits for a settlement before it is told to come back.
    pub(crate) settle: Duration,
    /// How long a settlement may run on its own task before it counts as unknown.
    pub(crate) settle_cap: Duration,
    /// Room for slow clocks, slow stores and machines that pause.
    pub(crate) slack: Duration,
    /// How long a reservation holds without an attempt.
    pub(crate) reserve: Duration,
    /// How long a serving lease holds without a heartbeat.
    pub(crate) serve: Duration,
    /// How long a part of a channel's balance is held without being renewed.
    pub(crate) hold: Duration,
    /// How long one call to the store may take.
    pub(crate) store: Duration,
    /// How long records outlive their challenge.
    pub(crate) grace: Duration,
    /// How long money that was taken and not served stays collectable.
    pub(crate) collectable: Duration,
}

/// How far the clocks of two processes may be apart: each 2 s off, in opposite directions.
const SKEW: Duration = Duration::from_secs(4);

impl Default for Timing {
    fn default() -> Self {
        Self {
            ttl: Duration::from_secs(300),
            quote: Duration::from_secs(5),
            settle: Duration::from_secs(10),
            settle_cap: Duration::from_secs(60),
            slack: Duration::from_secs(30),
            reserve: Duration::from_secs(60),
            serve: Duration::from_secs(30),
            hold: Duration::from_secs(60),
            store: Duration::from_secs(2),
            grace: Duration::from_secs(600),
            collectable: Duration::from_secs(30 * 24 * 3600),
        }
    }
}

/// Makes an [`Engine`].
#[derive(Debug)]
#[must_use]
pub struct EngineBuilder {
    realm: String,
    secrets: SecretRing,
    store: StoreHandle,
    clock: Clock,
    timing: Timing,
}

struct StoreHandle(Arc<dyn Store>);

impl fmt::Debug for StoreHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store({:?})", self.0.durability())
    }
}

impl EngineBuilder {
    /// How long a challenge may be paid; 5 minutes unless said. Rails may cap it.
    pub fn challenge_ttl(mut self, ttl: Duration) -> Self {
        self.timing.ttl = ttl;
        self
    }

    /// How long one rail may take to quote before its offer is left out; 5 s unless said.
    pub fn quote_deadline(mut self, deadline: Duration) -> Self {
        self.timing.quote = deadline;
        self
    }

    /// How long a caller waits for a settlement; 10 s unless said. The settlement goes on.
    pub fn settle_deadline(mut self, deadline: Duration) -> Self {
        self.timing.settle = deadline;
        self
    }

    /// How long a handler may be silent about its work before another caller with the same
    /// credential may be served instead; 30 s unless said. Running handlers renew it. Others wait
    /// up to 4 s longer, so that their clocks may be ahead; [`slack`](Self::slack) may make it less.
    pub fn serving_lease(mut self, lease: Duration) -> Self {
        self.timing.serve = lease;
        self
    }

    /// How long what a request or a stream holds of a channel's balance stays held after its process
    /// went away; 60 s unless said. Running ones renew it; they stop spending a sixth of it early,
    /// which is room for clocks that differ.
    pub fn balance_lease(mut self, lease: Duration) -> Self {
        self.timing.hold = lease;
        self
    }

    /// How long a settlement may run on its own task before its outcome counts as unknown and is
    /// looked up; 60 s unless said. Longer than the slowest rail takes to settle.
    pub fn settle_at_most(mut self, limit: Duration) -> Self {
        self.timing.settle_cap = limit;
        self
    }

    /// How long a payment may stay reserved without an attempt before its proofs are free again;
    /// 60 s unless said.
    pub fn reservation(mut self, lease: Duration) -> Self {
        self.timing.reserve = lease;
        self
    }

    /// Room for clocks that differ, slow stores and machines that pause, added to how long nobody
    /// else touches an attempt; 30 s unless said. A crash is felt for as long. Under 4 s, processes
    /// whose clocks are 2 s off must not share a store.
    pub fn slack(mut self, slack: Duration) -> Self {
        self.timing.slack = slack;
        self
    }

    /// How long one call to the store may take; 2 s unless said. After that the request is
    /// answered 503, and whether the call was carried out is found out by whoever asks next.
    pub fn store_deadline(mut self, deadline: Duration) -> Self {
        self.timing.store = deadline;
        self
    }

    /// Where the time comes from.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// The engine. A volatile store is announced, and gets challenges that die with the process.
    pub fn build(self) -> Result<Engine, EngineError> {
        if self.realm.is_empty() || self.realm.contains(['"', '|', '\r', '\n']) {
            return Err(EngineError::Realm(self.realm));
        }
        let condition = Condition::new();
        let store = Punctual::new(self.store.0, self.timing.store, condition.clone());
        let store: Arc<dyn Store> = Arc::new(store);
        let process = nonce::draw().map_err(EngineError::Randomness)?;
        let pulse = Pulse::new(condition, store.clone(), &process);
        let secrets = match store.durability() {
            Durability::Durable => self.secrets,
            Durability::Volatile => {
                tracing::warn!(
                    "payments are kept in memory only: a restart forgets them, and challenges \
                     issued before it are refused"
                );
                let mut salt = [0; 32];
                getrandom::fill(&mut salt).map_err(EngineError::Randomness)?;
                self.secrets.with_salt(&salt)
            }
        };
        Ok(Engine {
            shared: Arc::new(Shared {
                realm: self.realm,
                secrets,
                store,
                pulse,
                clock: self.clock,
                timing: self.timing,
                methods: Mutex::default(),
                drain: Arc::default(),
                hub: Hub::default(),
                ledger: Ledger::default(),
                heart: Heart::default(),
                gathered: Gathered::default(),
                agenda: Agenda::default(),
            }),
        })
    }
}

/// What all gates of a server share. Clones are handles to the same engine.
#[derive(Clone)]
pub struct Engine {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) realm: String,
    pub(crate) secrets: SecretRing,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) pulse: Pulse,
    pub(crate) clock: Clock,
    pub(crate) timing: Timing,
    methods: Mutex<HashMap<String, Arc<dyn Method>>>,
    pub(crate) drain: Arc<Drain>,
    pub(crate) hub: Hub,
    pub(crate) ledger: Ledger,
    pub(crate) heart: Heart,
    pub(crate) gathered: Gathered,
    pub(crate) agenda: Agenda,
}

impl Engine {
    /// An engine for `realm` (the protection space, usually the host), with these secrets and
    /// this store.
    pub fn builder(
        realm: impl Into<String>,
        secrets: SecretRing,
        store: Arc<dyn Store>,
    ) -> EngineBuilder {
        EngineBuilder {
            realm: realm.into(),
            secrets,
            store: StoreHandle(store),
            clock: Clock::system(),
            timing: Timing::default(),
        }
    }

    /// A paid route. `route` is its scope, `GET /joke`: a credential for one does not open
    /// another.
    pub fn gate(&self, route: impl Into<String>, offers: Offers) -> Result<Gate, EngineError> {
        for offer in offers.iter() {
            self.adopt(offer.method().clone())?;
        }
        Ok(Gate::new(self.shared.clone(), route.into(), offers))
    }

    /// Knows a method without offering it, so that payments it made before can be reconciled.
    pub fn adopt(&self, method: Arc<dyn Method>) -> Result<(), EngineError> {
        let mut methods = self
            .shared
            .methods
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match methods.get(method.name()) {
            Some(known) if !Arc::ptr_eq(known, &method) => {
                Err(EngineError::AmbiguousName(method.name().to_owned()))
            }
            Some(_) => Ok(()),
            None => {
                // Rails of one wire method may spend out of one purse.
                let tally = Tally::new(self.shared.store.clone(), &method.offer().method);
                method.entrust(tally);
                method.challenges_last(self.shared.timing.ttl);
                methods.insert(method.name().to_owned(), method);
                Ok(())
            }
        }
    }

    /// The meter of a channel, for whoever serves it apart from any presentation: it knows no price
    /// and no rail. A presentation has its own, [`Serving::meter`](crate::Serving::meter).
    pub fn meter(&self, channel: ChannelId) -> Meter {
        Meter::new(self.shared.clone(), channel, meter::Terms::default())
    }

    /// The realm.
    pub fn realm(&self) -> &str {
        &self.shared.realm
    }

    /// The store, as the engine uses it: each call ends within its deadline.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.shared.store
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("realm", &self.shared.realm)
            .finish_non_exhaustive()
    }
}

impl Shared {
    /// All methods, by name.
    pub(crate) fn methods(&self) -> Vec<Arc<dyn Method>> {
        let methods = self.methods.lock().unwrap_or_else(PoisonError::into_inner);
        let mut methods: Vec<_> = methods.values().cloned().collect();
        methods.sort_by(|a, b| a.name().cmp(b.name()));
        methods
    }

    pub(crate) fn method(&self, name: &str) -> Option<Arc<dyn Method>> {
        self.methods
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(name)
            .cloned()
    }

    pub(crate) fn after(&self, span: Duration) -> i64 {
        self.clock
            .millis()
            .saturating_add(i64::try_from(span.as_millis()).unwrap_or(i64::MAX))
    }

    /// When others may take over what is held for `lease`: later by what their clocks may be ahead.
    pub(crate) fn lease_until(&self, lease: Duration) -> i64 {
        self.after(lease.saturating_add(self.timing.slack.min(SKEW)))
    }

    pub(crate) fn before(&self, span: Duration) -> i64 {
        self.clock
            .millis()
            .saturating_sub(i64::try_from(span.as_millis()).unwrap_or(i64::MAX))
    }
}
