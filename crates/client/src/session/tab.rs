//! What each call on a channel has received and made due.
//!
//! Streams receive first and are asked to pay then, so that between the two they owe something.
//! Whichever call signs next signs for that too, since the server has spent it already.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use farebox_core::wire::Amount;

use super::record::{minus, plus, times};

/// The sums of one call.
#[derive(Debug)]
pub(crate) struct Tab {
    /// What one event costs here; other resources of the same channel may have other prices.
    unit: Amount,
    /// What the call may cost, where that is limited.
    most: Option<Amount>,
    sums: Mutex<Sums>,
}

#[derive(Debug, Default)]
struct Sums {
    /// The channel that counts the call.
    channel: Option<String>,
    /// In units.
    received: u64,
    /// What the call has made due.
    claim: Amount,
    /// Whether the channel's record counts the call among those that are uncertain.
    uncertain: bool,
}

impl Tab {
    fn sums(&self) -> MutexGuard<'_, Sums> {
        // Each critical section leaves whole sums, so a panic elsewhere does not spoil them.
        self.sums.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn channel(&self) -> Option<String> {
        self.sums().channel.clone()
    }

    pub(crate) fn put_on(&self, channel: &str) {
        self.sums().channel = Some(channel.to_owned());
    }

    /// Whether it is counted on `channel`, or on none yet.
    pub(crate) fn is_on(&self, channel: &str) -> bool {
        self.sums()
            .channel
            .as_ref()
            .is_none_or(|own| own == channel)
    }

    /// Its channel is over, and so is what was counted there.
    pub(crate) fn clear(&self) {
        let mut sums = self.sums();
        (sums.channel, sums.claim, sums.uncertain) = (None, Amount::ZERO, false);
    }

    pub(crate) fn event(&self) {
        let mut sums = self.sums();
        sums.received = sums.received.saturating_add(1);
    }

    pub(crate) fn received(&self) -> u64 {
        self.sums().received
    }

    pub(crate) fn claim(&self) -> Amount {
        self.sums().claim
    }

    pub(crate) fn set(&self, claim: Amount) {
        self.sums().claim = claim;
    }

    pub(crate) fn add(&self, more: Amount) {
        let mut sums = self.sums();
        sums.claim = plus(sums.claim, more);
    }

    pub(crate) fn take_off(&self, less: Amount) {
        let mut sums = self.sums();
        sums.claim = minus(sums.claim, less);
    }

    pub(crate) fn is_uncertain(&self) -> bool {
        self.sums().uncertain
    }

    pub(crate) fn set_uncertain(&self, uncertain: bool) {
        self.sums().uncertain = uncertain;
    }

    fn worth(&self, sums: &Sums) -> Amount {
        times(self.unit, sums.received)
    }

    /// What others make due for it: never more than the call might itself.
    fn owed(&self, sums: &Sums) -> Amount {
        let worth = self.worth(sums);
        minus(self.most.map_or(worth, |most| worth.min(most)), sums.claim)
    }
}

/// The tabs of the calls under way.
#[derive(Debug, Default)]
pub(crate) struct Tabs {
    open: Mutex<Vec<Weak<Tab>>>,
    collecting: tokio::sync::Mutex<()>,
}

impl Tabs {
    /// For a call that pays `unit` for each event, and costs `most` at most.
    pub(crate) fn open(&self, unit: Amount, most: Option<Amount>) -> Arc<Tab> {
        let tab = Arc::new(Tab {
            unit,
            most,
            sums: Mutex::default(),
        });
        let mut tabs = self.tabs();
        tabs.retain(|tab| tab.strong_count() > 0);
        tabs.push(Arc::downgrade(&tab));
        tab
    }

    fn tabs(&self) -> MutexGuard<'_, Vec<Weak<Tab>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// While it is held, what the tabs have made due is on record: nobody else is collecting what
    /// may yet go back, perhaps to a call that is over by then.
    pub(crate) async fn steady(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.collecting.lock().await
    }

    /// Those of the channel that `own` is on.
    fn beside(&self, own: &Arc<Tab>) -> Vec<Arc<Tab>> {
        let channel = own.channel();
        let here = |tab: &Arc<Tab>| channel.as_deref().is_none_or(|channel| tab.is_on(channel));
        let tabs = self.tabs();
        tabs.iter().filter_map(Weak::upgrade).filter(here).collect()
    }

    fn others(&self, own: &Arc<Tab>) -> Vec<Arc<Tab>> {
        let mut beside = self.beside(own);
        beside.retain(|tab| !Arc::ptr_eq(tab, own));
        beside
    }

    /// Whether other calls are under way.
    pub(crate) fn is_shared(&self, own: &Arc<Tab>) -> bool {
        !self.others(own).is_empty()
    }

    /// What the other calls have received and not made due.
    pub(crate) fn owed(&self, own: &Arc<Tab>) -> Amount {
        let owed = |sum, tab: &Arc<Tab>| plus(sum, tab.owed(&tab.sums()));
        self.others(own).iter().fold(Amount::new(0), owed)
    }

    /// What the calls under way have made due, and what they have received.
    pub(crate) fn all(&self, own: &Arc<Tab>) -> (Amount, Amount) {
        let none = (Amount::new(0), Amount::new(0));
        self.beside(own)
            .iter()
            .fold(none, |(claimed, received), tab| {
                let sums = tab.sums();
                (plus(claimed, sums.claim), plus(received, tab.worth(&sums)))
            })
    }

    /// How many of the calls under way the channel's record counts as uncertain.
    pub(crate) fn uncertain(&self, own: &Arc<Tab>) -> u32 {
        let beside = self.beside(own);
        let count = beside.iter().filter(|tab| tab.is_uncertain()).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// Makes it theirs, to be made due at once.
    pub(crate) fn collect(&self, own: &Arc<Tab>) -> Collected {
        let mut parts = Vec::new();
        for tab in self.others(own) {
            let mut sums = tab.sums();
            let owed = tab.owed(&sums);
            sums.claim = plus(sums.claim, owed);
            drop(sums);
            if !owed.is_zero() {
                parts.push((tab, owed));
            }
        }
        Collected { parts }
    }
}

/// What was collected for other calls. It is theirs unless it is given back: what may be on record must
/// not be made due again.
#[must_use = "give it back where it is not due"]
pub(crate) struct Collected {
    parts: Vec<(Arc<Tab>, Amount)>,
}

impl Collected {
    pub(crate) fn sum(&self) -> Amount {
        let sum = |sum, (_, owed): &(Arc<Tab>, Amount)| plus(sum, *owed);
        self.parts.iter().fold(Amount::new(0), sum)
    }

    pub(crate) fn give_back(self) {
        for (tab, owed) in self.parts {
            tab.take_off(owed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects: what a stream received on a channel that is over is not signed for on the next.
    #[test]
    fn calls_of_another_channel_are_not_paid_for() {
        let tabs = Tabs::default();
        let unit = Amount::new(1);
        let (old, new) = (tabs.open(unit, None), tabs.open(unit, None));
        old.put_on("old");
        old.event();
        old.set_uncertain(true);
        assert_eq!(tabs.owed(&new), unit, "whose is not known yet");
        new.put_on("new");
        assert_eq!(tabs.owed(&new), Amount::ZERO);
        assert_eq!(tabs.collect(&new).sum(), Amount::ZERO);
        assert_eq!(tabs.uncertain(&new), 0);
        assert!(!tabs.is_shared(&new));
        assert_eq!(tabs.uncertain(&old), 1);
    }
}
