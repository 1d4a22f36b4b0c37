//! Which channels are to be looked after: those that are open, and those that owe.
//!
//! A channel is listed before it is opened or topped up, and struck off once it is closed and
//! nothing is owed, so a round reads no channel of the past. Of those on the list a process knows
//! when something may next be due of each, and reads no other before.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use farebox_core::{ChannelId, Due, Fault, Refund, Schedule};
use futures_util::{StreamExt as _, stream};

use crate::{
    account::Account,
    engine::Shared,
    record::{LIVE, channel_key, live_key},
};

/// A channel is looked at this often, whatever is known of it: another process may have died with
/// what it had made due.
const LOOK: Duration = Duration::from_secs(300);

/// A channel that was listed and never opened is struck off after so long: its opening may be
/// stalled.
const NEVER_OPENED: Duration = Duration::from_secs(24 * 3600);

/// How many channels are read at once.
const AT_ONCE: usize = 32;

/// How often a listing may be replaced under us.
const ROUNDS: usize = 8;

/// When something may next be due of a channel, by its stored name; Unix milliseconds.
#[derive(Debug, Default)]
pub(crate) struct Agenda(Mutex<HashMap<String, i64>>);

impl Agenda {
    fn with<T>(&self, work: impl FnOnce(&mut HashMap<String, i64>) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// It has changed, so that something may be due at once.
    pub(crate) fn forget(&self, channel: &str) {
        self.with(|known| known.remove(channel));
    }
}

/// What is due.
#[derive(Default)]
pub(crate) struct DueNow {
    /// Settlements, by their channels' method.
    pub(crate) settle: BTreeMap<String, Vec<ChannelId>>,
    /// Whatever else.
    pub(crate) other: Vec<ChannelId>,
}

impl Account {
    /// Whether nothing will be due of it any more.
    fn is_done(&self, now: i64) -> bool {
        let free = self.closing.is_none() && self.errand.is_none() && !self.is_streamed(now);
        free && self.state.closed && self.state.refund != Refund::Pending
    }

    /// When something may be due of it, of which nothing is at `now`.
    fn next_due(&self, schedule: &Schedule, now: i64) -> i64 {
        let failed = now.saturating_sub(self.marks.tried) < millis(LOOK);
        if failed || self.state.closed || self.closing.is_some() || self.errand.is_some() {
            return now;
        }
        // What is spent is compared when it is written.
        let (state, marks) = (&self.state, &self.marks);
        let spans = [
            (marks.asked, schedule.watch),
            (marks.settled, schedule.every),
            (state.used, schedule.idle),
        ];
        let ends = spans.into_iter().filter_map(|(then, span)| {
            let end = then.saturating_add(millis(span?));
            (end > now).then_some(end)
        });
        let look = now.saturating_add(millis(LOOK));
        ends.min().unwrap_or(look).min(look)
    }
}

fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

impl Shared {
    /// Puts a channel on the list. The listing is ours, so nobody who saw an earlier one strikes it
    /// off.
    pub(crate) async fn list(&self, channel: &ChannelId) -> Result<(), Fault> {
        let key = live_key(channel);
        let listing = format!("{} {}", self.clock.millis(), Self::nonce()?);
        let mut before = None;
        for _ in 0..ROUNDS {
            let listed = self.swap_own(&key, before.as_deref(), &listing, None);
            if effect!("channel.listed", listed.await)? {
                return Ok(());
            }
            before = self.store.get(&key).await?;
        }
        Err(Fault::unavailable("a channel could not be listed"))
    }

    /// What is due of the channels on the list; of `all`, or of those of which something may be.
    pub(crate) async fn due_now(self: &Arc<Self>, all: bool) -> Result<DueNow, Fault> {
        let list = self.store.scan(LIVE).await?;
        let now = self.clock.millis();
        self.agenda.with(|known| {
            // Those that are struck off need not be known.
            known.retain(|channel, at| *at > now && listed(&list, channel));
        });
        let wanted = list.iter().filter(|(key, _)| {
            all || !self
                .agenda
                .with(|known| known.contains_key(&key[LIVE.len()..]))
        });
        let looks = stream::iter(wanted.cloned().collect::<Vec<_>>())
            .map(|(key, listing)| async move { self.look_at(&key, &listing).await });
        let mut looks = looks.buffer_unordered(AT_ONCE);
        let mut due = DueNow::default();
        while let Some(look) = looks.next().await {
            match look {
                Ok(Some((channel, method, Due::Settle))) => {
                    due.settle.entry(method).or_default().push(channel);
                }
                Ok(Some((channel, ..))) => due.other.push(channel),
                Ok(None) => {}
                Err(fault) => tracing::warn!(%fault, "a channel could not be looked at"),
            }
        }
        Ok(due)
    }

    /// What is due of a channel on the list. One that is done is struck off.
    async fn look_at(
        &self,
        key: &str,
        listing: &str,
    ) -> Result<Option<(ChannelId, String, Due)>, Fault> {
        let name = &key[LIVE.len()..];
        let Some(channel) = ChannelId::stored(name) else {
            return Ok(None);
        };
        let now = self.clock.millis();
        let text = self.store.get(&channel_key(&channel)).await?;
        let Some(text) = text else {
            let at = listing.split_once(' ').and_then(|(at, _)| at.parse().ok());
            let age = now.saturating_sub(at.unwrap_or(now));
            if age > millis(NEVER_OPENED) {
                self.strike_off(key, listing).await?;
            }
            return Ok(None);
        };
        // One of another version is left to that version.
        let Ok(account) = Account::decode(&text) else {
            return Ok(None);
        };
        if account.is_done(now) {
            self.strike_off(key, listing).await?;
            return Ok(None);
        }
        if let Some(due) = self.is_due(&account) {
            return Ok(Some((channel, account.method, due)));
        }
        if let Some(method) = self.method(&account.method) {
            let next = account.next_due(&method.schedule(), now);
            self.agenda
                .with(|known| known.insert(name.to_owned(), next));
        }
        Ok(None)
    }

    async fn strike_off(&self, key: &str, listing: &str) -> Result<(), Fault> {
        let struck = self.store.compare_and_swap(key, Some(listing), None, None);
        effect!("channel.listed", struck.await)?;
        Ok(())
    }
}

/// A list is sorted by key.
fn listed(list: &[(String, String)], channel: &str) -> bool {
    let at = list.binary_search_by(|(key, _)| key[LIVE.len()..].cmp(channel));
    at.is_ok()
}
