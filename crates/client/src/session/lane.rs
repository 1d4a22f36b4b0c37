//! What one process keeps of a channel beside its record: whose turn it is, and what the budget
//! counts for it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use farebox_core::{Approved, Budget, Cost, Reservation, wire::Amount};
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

use super::{
    error::SessionError,
    record::{Record, minus},
    tab::Tabs,
};

/// The right to present something on a channel.
#[derive(Debug)]
pub(crate) enum Turn {
    /// Beside others: a voucher that overtakes another makes that one be presented again.
    Shared { _guard: OwnedRwLockReadGuard<()> },
    /// Alone: deposits, and vouchers that were overtaken before.
    Alone { _guard: OwnedRwLockWriteGuard<()> },
}

#[derive(Default)]
pub(crate) struct Lane {
    pub(crate) tabs: Tabs,
    turn: Arc<RwLock<()>>,
    account: Mutex<Account>,
}

#[derive(Default)]
struct Account {
    /// Of which channel.
    channel: String,
    /// What had been spent when this process found the channel.
    base: Amount,
    entries: Vec<Entry>,
}

/// What the budget counts for one deposit.
struct Entry {
    /// The challenge it was recorded with. Empty: what was left of a channel that was found.
    deposit: String,
    amount: Amount,
    reservation: Reservation,
}

impl Account {
    /// Of `channel` from now on. What another is counted for is gone for all that is known here.
    fn of(&mut self, channel: &str) -> &mut Self {
        if self.channel != channel {
            for entry in std::mem::take(self).entries {
                entry.reservation.commit();
            }
            channel.clone_into(&mut self.channel);
        }
        self
    }

    /// Vouchers' deposits may share a challenge. Of two that are alike it does not matter which.
    fn find(&self, deposit: &str, amount: Amount) -> Option<usize> {
        self.entries
            .iter()
            .rposition(|entry| entry.deposit == deposit && entry.amount == amount)
    }

    fn count(&mut self, deposit: &str, amount: Amount, reservation: Reservation) {
        self.entries.push(Entry {
            deposit: deposit.to_owned(),
            amount,
            reservation,
        });
    }
}

impl Lane {
    pub(crate) async fn shared(&self) -> Turn {
        Turn::Shared {
            _guard: self.turn.clone().read_owned().await,
        }
    }

    pub(crate) async fn alone(&self) -> Turn {
        Turn::Alone {
            _guard: self.turn.clone().write_owned().await,
        }
    }

    fn account(&self) -> MutexGuard<'_, Account> {
        // Each critical section leaves whole entries, so a panic elsewhere does not spoil them.
        self.account.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the budget counts the channel already.
    pub(crate) fn is_counted(&self, channel: &str) -> bool {
        let account = self.account();
        account.channel == channel && !account.entries.is_empty()
    }

    /// A deposit is being made here.
    pub(crate) fn hold(
        &self,
        (channel, deposit): (&str, &str),
        amount: Amount,
        reservation: Reservation,
    ) {
        self.account()
            .of(channel)
            .count(deposit, amount, reservation);
    }

    /// Counts what may still be spent of a channel that was found and not opened here.
    pub(crate) fn count(&self, record: &Record, budget: &Budget) -> Result<(), SessionError> {
        let mut account = self.account();
        if account.channel == record.channel && !account.entries.is_empty() {
            return Ok(());
        }
        let left = minus(record.deposit, record.due);
        let (_, reservation) = budget
            .approve(cost(record, left))
            .map_err(SessionError::OverBudget)?;
        let account = account.of(&record.channel);
        account.base = record.due;
        account.count("", left, reservation);
        Ok(())
    }

    /// Approval for the recorded deposit of `amount` that was cut short: under what is counted for
    /// it here, or else under what is counted from now on.
    pub(crate) fn again(
        &self,
        record: &Record,
        amount: Amount,
        budget: &Budget,
    ) -> Result<Approved, SessionError> {
        let deposit = record.phase.challenge().unwrap_or_default();
        let mut account = self.account();
        let account = account.of(&record.channel);
        if let Some(at) = account.find(deposit, amount) {
            let approved = account.entries[at].reservation.again();
            if *approved.cost() == cost(record, amount) {
                return Ok(approved);
            }
        }
        let (approved, reservation) = budget
            .approve(cost(record, amount))
            .map_err(SessionError::OverBudget)?;
        account.count(deposit, amount, reservation);
        Ok(approved)
    }

    /// That deposit did not happen and can not any more.
    pub(crate) fn release(&self, channel: &str, deposit: &str, amount: Amount) {
        let mut account = self.account();
        if account.channel == channel
            && let Some(at) = account.find(deposit, amount)
        {
            account.entries.remove(at).reservation.release();
        }
    }

    /// The channel is over, and the payee kept `taken` of it: the rest may be spent again.
    pub(crate) fn settle(&self, channel: &str, taken: Amount) {
        let mut account = self.account();
        let mut account = std::mem::take(account.of(channel));
        let mut taken = minus(taken, account.base);
        for entry in account.entries.drain(..) {
            let spent = entry.amount.min(taken);
            taken = minus(taken, spent);
            entry.reservation.commit_only(spent);
        }
    }
}

pub(crate) fn cost(record: &Record, amount: Amount) -> Cost {
    Cost {
        amount,
        currency: record.currency.clone(),
        recipient: record.recipient.clone(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use farebox_core::Limit;

    use super::*;

    /// Protects: deposits for one challenge are told apart by what they are, so that one that was not
    /// made frees no more than itself.
    #[test]
    fn a_top_up_that_failed_frees_only_itself() {
        let budget = Budget::new([Limit::per_request("coin", Amount::new(100))]);
        let lane = Lane::default();
        for amount in [Amount::new(10), Amount::new(5)] {
            let cost = Cost {
                amount,
                currency: "coin".to_owned(),
                recipient: None,
            };
            let (_, reservation) = budget.approve(cost).unwrap();
            lane.hold(("channel", "challenge"), amount, reservation);
        }
        lane.release("channel", "challenge", Amount::new(5));
        assert_eq!(budget.spent("coin"), Amount::new(10));
        lane.release("another", "challenge", Amount::new(10));
        assert_eq!(budget.spent("coin"), Amount::new(10));
        lane.settle("channel", Amount::new(3));
        assert_eq!(budget.spent("coin"), Amount::new(3));
    }
}
