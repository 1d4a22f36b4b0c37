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
    counted: bool,
    /// What had been spent when this process found the channel.
    base: Amount,
    entries: Vec<(Amount, Reservation)>,
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
    pub(crate) fn is_counted(&self) -> bool {
        self.account().counted
    }

    /// A deposit is being made here.
    pub(crate) fn hold(&self, amount: Amount, reservation: Reservation) {
        let mut account = self.account();
        account.counted = true;
        account.entries.push((amount, reservation));
    }

    /// Counts what may still be spent of a channel that was found and not opened here.
    pub(crate) fn count(&self, record: &Record, budget: &Budget) -> Result<(), SessionError> {
        let mut account = self.account();
        if account.counted {
            return Ok(());
        }
        let left = minus(record.deposit, record.due);
        let (_, reservation) = budget
            .approve(cost(record, left))
            .map_err(SessionError::OverBudget)?;
        account.counted = true;
        account.base = record.due;
        account.entries.push((left, reservation));
        Ok(())
    }

    /// Approval for a recorded deposit of `amount` that was cut short: under what is counted for
    /// it here, or else under what is counted from now on.
    pub(crate) fn again(
        &self,
        record: &Record,
        amount: Amount,
        budget: &Budget,
    ) -> Result<Approved, SessionError> {
        let mut account = self.account();
        let held = account
            .entries
            .iter()
            .rev()
            .find(|(held, _)| *held == amount);
        if let Some((_, reservation)) = held {
            let approved = reservation.again();
            if *approved.cost() == cost(record, amount) {
                return Ok(approved);
            }
        }
        let (approved, reservation) = budget
            .approve(cost(record, amount))
            .map_err(SessionError::OverBudget)?;
        account.counted = true;
        account.entries.push((amount, reservation));
        Ok(approved)
    }

    /// The last movement of `amount` did not happen and can not any more.
    pub(crate) fn release(&self, amount: Amount) {
        let mut account = self.account();
        let last = account
            .entries
            .iter()
            .rposition(|(held, _)| *held == amount);
        if let Some(at) = last {
            account.entries.remove(at).1.release();
        }
        account.counted = !account.entries.is_empty();
    }

    /// The channel is over, and the payee kept `taken` of it: the rest may be spent again.
    pub(crate) fn settle(&self, taken: Amount) {
        let mut account = self.account();
        let mut taken = minus(taken, account.base);
        for (amount, reservation) in account.entries.drain(..) {
            let spent = amount.min(taken);
            taken = minus(taken, spent);
            reservation.commit_only(spent);
        }
        *account = Account::default();
    }
}

pub(crate) fn cost(record: &Record, amount: Amount) -> Cost {
    Cost {
        amount,
        currency: record.currency.clone(),
        recipient: record.recipient.clone(),
    }
}
