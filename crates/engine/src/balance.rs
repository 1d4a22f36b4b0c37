//! The balance machine behind every channel, whatever rail feeds it.
//!
//! `authorized` only grows; an equal voucher changes nothing and is accepted; a lower one is
//! refused; `spent ≤ authorized ≤ deposit`; closing is final.

use std::collections::BTreeMap;

use farebox_core::{
    Authorize, ChannelAction, ChannelState, Fault, Rejection,
    wire::{Amount, Problem},
};
use serde::{Deserialize, Serialize};

use crate::{
    engine::Shared,
    record::{ChannelChange, channel_key},
    verdict::Refused,
};

/// A channel as stored.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Account {
    #[serde(flatten)]
    pub(crate) state: ChannelState,
    /// Blocks that streams hold and have not given back, by lease.
    #[serde(default)]
    pub(crate) leases: BTreeMap<String, Block>,
    /// The latest payments applied, so that none is applied twice.
    #[serde(default)]
    applied: Vec<String>,
}

/// A block of a channel's balance, held by a stream until Unix millisecond `until`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Block {
    pub(crate) amount: Amount,
    pub(crate) until: i64,
}

/// How many applied payments a channel remembers. A challenge lapses long before so many more
/// opens and top-ups of one channel have come.
const REMEMBERED: usize = 64;

/// Why a channel does not change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BalanceError {
    /// Nobody opened it.
    #[error("no such channel; open one")]
    NotFound,
    /// It was opened before.
    #[error("the channel is open already")]
    Exists,
    /// Closing is final.
    #[error("the channel is closed; open another")]
    Closed,
    /// A voucher below an accepted one.
    #[error("the voucher is lower than one accepted before ({authorized})")]
    Backwards {
        /// What is authorised already.
        authorized: Amount,
    },
    /// More than was put in.
    #[error("more than the deposit of {deposit}; top it up first")]
    OverDeposit {
        /// What was put in.
        deposit: Amount,
    },
    /// A sum that no amount can hold.
    #[error("the amount is too large")]
    Overflow,
}

impl BalanceError {
    /// What the payer is told.
    pub fn rejection(&self) -> Rejection {
        let name = match self {
            Self::NotFound => "channel-not-found",
            Self::Closed => "channel-finalized",
            Self::OverDeposit { .. } => "amount-exceeds-deposit",
            Self::Exists | Self::Backwards { .. } | Self::Overflow => {
                return Rejection::verification(self.to_string());
            }
        };
        Rejection::new(Problem::rail("session", name), self.to_string())
    }
}

impl Account {
    /// What may still be spent at `now`. A lease that lapsed is the payer's again.
    pub(crate) fn available(&self, now: i64) -> Amount {
        let held = self.leases.values().filter(|block| block.until > now);
        let held = held.fold(0u128, |sum, block| sum.saturating_add(block.amount.get()));
        let used = self.state.spent.get().saturating_add(held);
        Amount::new(self.state.authorized.get().saturating_sub(used))
    }

    /// The account after `change` by the payment `op`.
    fn after(
        account: Option<&Self>,
        op: &str,
        change: &ChannelChange,
    ) -> Result<Self, BalanceError> {
        if let Some(account) = account
            && account.applied.iter().any(|applied| applied == op)
        {
            return Ok(account.clone());
        }
        let mut next = match (account, change.action) {
            (None, ChannelAction::Open) => Self::default(),
            (None, _) => return Err(BalanceError::NotFound),
            (Some(account), _) if account.state.closed => return Err(BalanceError::Closed),
            (Some(_), ChannelAction::Open) => return Err(BalanceError::Exists),
            (Some(account), _) => account.clone(),
        };
        let state = &mut next.state;
        let deposit = state.deposit.checked_add(change.change.deposit);
        state.deposit = deposit.ok_or(BalanceError::Overflow)?;
        let authorized = match change.change.authorize {
            Authorize::Keep => state.authorized,
            Authorize::To(cumulative) => cumulative,
            Authorize::By(more) => state
                .authorized
                .checked_add(more)
                .ok_or(BalanceError::Overflow)?,
        };
        if authorized < state.authorized {
            return Err(BalanceError::Backwards {
                authorized: state.authorized,
            });
        }
        if authorized > state.deposit {
            return Err(BalanceError::OverDeposit {
                deposit: state.deposit,
            });
        }
        state.authorized = authorized;
        if let Some(rail) = &change.change.rail {
            state.rail = rail.clone();
        }
        state.closed = change.action == ChannelAction::Close;
        // A voucher may come any number of times under one challenge and is idempotent by itself.
        if change.action != ChannelAction::Advance {
            next.applied.push(op.to_owned());
            let excess = next.applied.len().saturating_sub(REMEMBERED);
            next.applied.drain(..excess);
        }
        Ok(next)
    }
}

impl Shared {
    /// The account of a channel, with the text a swap compares.
    pub(crate) async fn account(&self, key: &str) -> Result<Option<(String, Account)>, Fault> {
        let Some(text) = self.store.get(key).await? else {
            return Ok(None);
        };
        let account = serde_json::from_str(&text)
            .map_err(|_| Fault::new("reading a channel of another version"))?;
        Ok(Some((text, account)))
    }

    /// Changes an account under compare-and-swap, as often as it takes.
    pub(crate) async fn update<T, E: From<Fault>>(
        &self,
        key: &str,
        change: impl Fn(Option<&Account>) -> Result<(Account, T), E>,
    ) -> Result<T, E> {
        loop {
            let current = self.account(key).await?;
            let (next, answer) = change(current.as_ref().map(|(_, account)| account))?;
            if current
                .as_ref()
                .is_some_and(|(_, account)| *account == next)
            {
                return Ok(answer);
            }
            let text = serde_json::to_string(&next)
                .map_err(|e| Fault::new("serialising a channel").caused_by(e))?;
            let expected = current.as_ref().map(|(text, _)| text.as_str());
            if self
                .store
                .compare_and_swap(key, expected, Some(&text), None)
                .await?
            {
                self.balances.notify_waiters();
                return Ok(answer);
            }
        }
    }
}

/// Applies a change once per payment `op`.
pub(crate) async fn apply(
    shared: &Shared,
    op: &str,
    change: &ChannelChange,
) -> Result<(), Refused> {
    shared
        .update(&channel_key(&change.id), |account| {
            let next = Account::after(account, op, change).map_err(|e| e.rejection())?;
            Ok((next, ()))
        })
        .await
}

/// Whether a change could be applied now.
pub(crate) async fn preview(
    shared: &Shared,
    op: &str,
    change: &ChannelChange,
) -> Result<(), Refused> {
    let account = shared.account(&channel_key(&change.id)).await?;
    let account = account.as_ref().map(|(_, account)| account);
    Account::after(account, op, change).map_err(|e| e.rejection())?;
    Ok(())
}
