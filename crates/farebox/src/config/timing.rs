//! `[timing]`: how long things may take, `"30s"` or `"2m 30s"`.

use std::time::Duration;

use farebox_core::Issue;
use farebox_engine::EngineBuilder;
use serde_json::Value;

use super::section::{Section, wrong};

const KEYS: &[&str] = &[
    "challenge",
    "quote",
    "settle",
    "settle_at_most",
    "reservation",
    "serving_lease",
    "balance_lease",
    "slack",
    "store",
    "reconcile",
    "shutdown",
];

/// How often payments are looked after that a crash or a lost answer left open, unless said.
pub const DEFAULT_RECONCILE: Duration = Duration::from_secs(10);

/// How long what is under way may take to finish when the server is told to end, unless said.
pub const DEFAULT_SHUTDOWN: Duration = Duration::from_secs(30);

/// Below this a lease is lost to a slow disk, above it a crash is felt for hours.
const BOUNDS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3600));

const SHAPE: &str = "give a time from \"1s\" to \"1h\", such as \"30s\" or \"2m 30s\"";

/// The times of a configuration. What it does not say is the engine's to choose.
#[derive(Clone, Debug, Default)]
pub(super) struct Timing {
    challenge: Option<Duration>,
    quote: Option<Duration>,
    settle: Option<Duration>,
    settle_at_most: Option<Duration>,
    reservation: Option<Duration>,
    serving_lease: Option<Duration>,
    balance_lease: Option<Duration>,
    slack: Option<Duration>,
    store: Option<Duration>,
    reconcile: Option<Duration>,
    shutdown: Option<Duration>,
}

impl Timing {
    /// Reads the table, if there is one.
    pub(super) fn read(table: Option<Value>, issues: &mut Vec<Issue>) -> Self {
        let Some(table) = table else {
            return Self::default();
        };
        let mut section = Section::open(table, "timing", KEYS, issues);
        let mut time = |key| time(&mut section, key, issues);
        let timing = Self {
            challenge: time("challenge"),
            quote: time("quote"),
            settle: time("settle"),
            settle_at_most: time("settle_at_most"),
            reservation: time("reservation"),
            serving_lease: time("serving_lease"),
            balance_lease: time("balance_lease"),
            slack: time("slack"),
            store: time("store"),
            reconcile: time("reconcile"),
            shutdown: time("shutdown"),
        };
        section.finish(issues);
        timing
    }

    /// How often to reconcile.
    pub(super) fn reconcile(&self) -> Duration {
        self.reconcile.unwrap_or(DEFAULT_RECONCILE)
    }

    /// How long to drain.
    pub(super) fn shutdown(&self) -> Duration {
        self.shutdown.unwrap_or(DEFAULT_SHUTDOWN)
    }

    /// Tells the engine.
    pub(super) fn tune(self, engine: EngineBuilder) -> EngineBuilder {
        type Setter = fn(EngineBuilder, Duration) -> EngineBuilder;
        let settings: [(Option<Duration>, Setter); 9] = [
            (self.challenge, EngineBuilder::challenge_ttl),
            (self.quote, EngineBuilder::quote_deadline),
            (self.settle, EngineBuilder::settle_deadline),
            (self.settle_at_most, EngineBuilder::settle_at_most),
            (self.reservation, EngineBuilder::reservation),
            (self.serving_lease, EngineBuilder::serving_lease),
            (self.balance_lease, EngineBuilder::balance_lease),
            (self.slack, EngineBuilder::slack),
            (self.store, EngineBuilder::store_deadline),
        ];
        settings
            .into_iter()
            .fold(engine, |engine, (time, set)| match time {
                Some(time) => set(engine, time),
                None => engine,
            })
    }
}

/// A time of a table, within bounds.
pub(super) fn time(section: &mut Section, key: &str, issues: &mut Vec<Issue>) -> Option<Duration> {
    let value = section.take(key)?;
    let given = match &value {
        Value::String(text) => humantime::parse_duration(text).ok(),
        _ => None,
    };
    let within = given.filter(|time| (BOUNDS.0..=BOUNDS.1).contains(time));
    if within.is_none() {
        let problem = match value {
            Value::String(_) => format!("is no usable time; {SHAPE}"),
            other => wrong(&other, SHAPE),
        };
        issues.push(Issue::new(section.path(key), problem));
    }
    within
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Protects: a time that would break leases is refused by name, and what is left out stays the
    /// engine's.
    #[test]
    fn times_are_read_or_named() {
        let mut issues = Vec::new();
        let table = json!({ "slack": "5s", "store": "3s", "reconcile": "1m 30s", "settle": "0s", "quote": 5, "slak": "1s" });
        let timing = Timing::read(Some(table), &mut issues);
        assert_eq!(timing.slack, Some(Duration::from_secs(5)));
        assert_eq!(timing.store, Some(Duration::from_secs(3)));
        assert_eq!(timing.reconcile(), Duration::from_secs(90));
        assert_eq!(timing.challenge, None);
        let keys: Vec<&str> = issues.iter().map(|issue| issue.key.as_str()).collect();
        assert_eq!(keys, ["timing.quote", "timing.settle", "timing.slak"]);
        assert_eq!(
            Timing::read(None, &mut issues).reconcile(),
            DEFAULT_RECONCILE
        );
    }
}
