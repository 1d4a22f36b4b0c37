//! The balance machine behind every channel, whatever rail feeds it.
//!
//! `authorized` only grows; an equal voucher changes nothing and is accepted; a lower one is
//! refused; `spent ≤ authorized ≤ deposit`; closing is final.

use std::{collections::BTreeMap, time::Duration};

use farebox_core::{
    Authorize, ChannelAction, ChannelState, Fault, Rejection,
    wire::{Amount, Problem},
};
use serde::{Deserialize, Serialize};

use crate::{
    debits::Debits,
    engine::Shared,
    record::{ChannelChange, Stored, channel_key},
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
    /// Payments applied and when, so that none is applied twice.
    #[serde(default)]
    applied: BTreeMap<String, i64>,
    /// The latest debits and when, so that one whose write lost its reply knows itself.
    #[serde(default, skip_serializing_if = "Debits::is_empty")]
    recent: Debits,
    /// The payment that is closing it: nothing else may change or spend meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    closing: Option<Closing>,
}

/// A close under way, holding the channel until Unix millisecond `until`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Closing {
    op: String,
    /// Which of the payment's reservations.
    claim: String,
    until: i64,
}

impl Closing {
    fn is_of(&self, op: &str, claim: &str) -> bool {
        self.op == op && self.claim == claim
    }
}

/// A block of a channel's balance, held by a stream until Unix millisecond `until`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Block {
    pub(crate) amount: Amount,
    pub(crate) until: i64,
}

/// A block that was lost with its process is forgotten after this many milliseconds.
const FORGOTTEN: i64 = 3_600_000;

/// How often a write is tried whose reply was lost. Each try looks first.
const TRIES: u32 = 3;

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
    /// Somebody is closing it.
    #[error("the channel is being closed")]
    Closing,
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
            Self::Closed | Self::Closing => "channel-finalized",
            Self::OverDeposit { .. } => "amount-exceeds-deposit",
            Self::Exists | Self::Backwards { .. } | Self::Overflow => {
                return Rejection::verification(self.to_string());
            }
        };
        Rejection::new(Problem::rail("session", name), self.to_string())
    }
}

impl From<BalanceError> for Refused {
    /// A close that is under way may come to nothing, so until then nobody is told to pay anew.
    fn from(error: BalanceError) -> Self {
        match error {
            BalanceError::Closing => Self::pending(),
            error => error.rejection().into(),
        }
    }
}

impl Account {
    fn encode(&self) -> Result<String, Fault> {
        serde_json::to_string(self).map_err(|e| Fault::new("serialising a channel").caused_by(e))
    }

    /// How long the store must keep it: an open one for ever, since it holds the payer's money; a
    /// closed one for as long as a payment of its may still come to be concluded.
    fn keep(&self, shared: &Shared) -> Option<Duration> {
        let closed = self.state.closed && self.closing.is_none();
        closed.then(|| shared.timing.collectable.saturating_mul(2))
    }

    /// What streams hold at `now`. A lease that lapsed is the payer's again.
    pub(crate) fn leased(&self, now: i64) -> u128 {
        let held = self.leases.values().filter(|block| block.until > now);
        held.fold(0u128, |sum, block| sum.saturating_add(block.amount.get()))
    }

    /// What may still be spent at `now`.
    pub(crate) fn available(&self, now: i64) -> Amount {
        let used = self.state.spent.get().saturating_add(self.leased(now));
        Amount::new(self.state.authorized.get().saturating_sub(used))
    }

    /// The channel as rails and meters see it: what streams hold counts as spent.
    pub(crate) fn view(&self, now: i64) -> ChannelState {
        let mut view = self.state.clone();
        view.held = Amount::new(self.leased(now));
        view.spent = Amount::new(view.spent.get().saturating_add(view.held.get()));
        view
    }

    /// Whether a close holds the channel at `now`.
    pub(crate) fn is_closing(&self, now: i64) -> bool {
        self.closing
            .as_ref()
            .is_some_and(|closing| closing.until > now)
    }

    /// Whether the debit `op` was counted.
    pub(crate) fn has_debited(&self, op: &str) -> bool {
        self.recent.has(op)
    }

    /// Counts the debit `op`, and forgets those nobody looks for any more.
    pub(crate) fn debit(
        &mut self,
        op: &str,
        n: Amount,
        shared: &Shared,
    ) -> Result<(), BalanceError> {
        let spent = self.state.spent.checked_add(n);
        self.state.spent = spent.ok_or(BalanceError::Overflow)?;
        // Each try is a look and a write; as much again for clocks that differ.
        let horizon = shared.before(shared.timing.store * (4 * TRIES));
        self.recent.remember(op, shared.clock.millis(), horizon);
        Ok(())
    }

    /// Whether `op` may change the channel, and anybody spend it, at `now`.
    pub(crate) fn open(&self, op: Option<&str>, now: i64) -> Result<(), BalanceError> {
        match &self.closing {
            _ if self.state.closed => Err(BalanceError::Closed),
            Some(closing) if closing.until > now && Some(closing.op.as_str()) != op => {
                Err(BalanceError::Closing)
            }
            _ => Ok(()),
        }
    }

    /// A freeze that lapsed is gone with the first change after it: its close was made for what the
    /// channel was before.
    pub(crate) fn end_lapsed_close(&mut self, now: i64) {
        self.closing.take_if(|closing| closing.until <= now);
    }

    pub(crate) fn forget_lost_leases(&mut self, now: i64) {
        self.leases
            .retain(|_, block| block.until.saturating_add(FORGOTTEN) > now);
    }

    /// The account after `change` by the payment `op`, if it fits.
    fn after(
        account: Option<&Self>,
        op: &str,
        change: &ChannelChange,
        now: i64,
    ) -> Result<Self, BalanceError> {
        let mut next = match (account, change.action) {
            (Some(account), _) if account.applied.contains_key(op) => return Ok(account.clone()),
            (None, ChannelAction::Open) => Self::default(),
            (None, _) => return Err(BalanceError::NotFound),
            (Some(account), action) => {
                account.open(Some(op), now)?;
                if action == ChannelAction::Open {
                    return Err(BalanceError::Exists);
                }
                account.clone()
            }
        };
        next.end_lapsed_close(now);
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
        next.finish(op, change, now);
        Ok(next)
    }

    /// The account after `change` by the payment `op`, whose money has moved: what was put in is
    /// credited whatever happened to the channel meanwhile, and nothing is ever taken back.
    fn settled(account: Option<&Self>, op: &str, change: &ChannelChange, now: i64) -> Self {
        let mut next = account.cloned().unwrap_or_default();
        if next.applied.contains_key(op) {
            return next;
        }
        let state = &mut next.state;
        let sum = |a: Amount, b: Amount| Amount::new(a.get().saturating_add(b.get()));
        state.deposit = sum(state.deposit, change.change.deposit);
        let authorized = match change.change.authorize {
            Authorize::Keep => state.authorized,
            Authorize::To(cumulative) => cumulative.max(state.authorized),
            Authorize::By(more) => sum(state.authorized, more),
        };
        state.authorized = authorized.min(state.deposit);
        next.finish(op, change, now);
        next
    }

    fn finish(&mut self, op: &str, change: &ChannelChange, now: i64) {
        if let Some(rail) = &change.change.rail {
            self.state.rail = rail.clone();
        }
        self.state.closed |= change.action == ChannelAction::Close;
        // A voucher may come any number of times under one challenge and is idempotent by itself.
        if change.action != ChannelAction::Advance {
            self.applied.insert(op.to_owned(), now);
        }
        if self
            .closing
            .as_ref()
            .is_some_and(|closing| closing.op == op)
        {
            self.closing = None;
        }
    }
}

impl Shared {
    /// The account of a channel, with the text a swap compares.
    pub(crate) async fn account(&self, key: &str) -> Result<Option<(String, Account)>, Fault> {
        let Some(text) = self.store.get(key).await? else {
            return Ok(None);
        };
        let account = Self::read_account(&text)?;
        Ok(Some((text, account)))
    }

    pub(crate) fn read_account(text: &str) -> Result<Account, Fault> {
        serde_json::from_str(text).map_err(|_| Fault::new("reading a channel of another version"))
    }

    async fn replace(&self, key: &str, text: &str, next: &Account) -> Result<bool, Fault> {
        let (next, keep) = (next.encode()?, next.keep(self));
        let swap = self
            .store
            .compare_and_swap(key, Some(text), Some(&next), keep);
        effect!("channel.frozen", swap.await)
    }

    /// Changes an account under compare-and-swap, as often as it takes.
    ///
    /// `change` must know its own work and leave it as it is: a write whose reply was lost may have
    /// been carried out, and only the next look tells.
    pub(crate) async fn update<T, E: From<Fault>>(
        &self,
        key: &str,
        change: impl Fn(Option<&Account>) -> Result<(Account, T), E>,
    ) -> Result<T, E> {
        let mut lost = 0;
        loop {
            let current = self.account(key).await?;
            let (next, answer) = change(current.as_ref().map(|(_, account)| account))?;
            if current
                .as_ref()
                .is_some_and(|(_, account)| *account == next)
            {
                if lost > 0 {
                    self.balances.notify_waiters();
                }
                return Ok(answer);
            }
            let (text, keep) = (next.encode()?, next.keep(self));
            let expected = current.as_ref().map(|(text, _)| text.as_str());
            let swap = self
                .store
                .compare_and_swap(key, expected, Some(&text), keep);
            match effect!("channel.changed", swap.await) {
                Ok(true) => {
                    self.balances.notify_waiters();
                    return Ok(answer);
                }
                Ok(false) => {}
                Err(fault) => {
                    lost += 1;
                    if lost == TRIES {
                        return Err(fault.into());
                    }
                }
            }
        }
    }
}

/// Applies a change that fits, once per payment `op`.
pub(crate) async fn apply(
    shared: &Shared,
    op: &str,
    change: &ChannelChange,
) -> Result<(), Refused> {
    let now = shared.clock.millis();
    shared
        .update(&channel_key(&change.id), |account| {
            let next = Account::after(account, op, change, now).map_err(Refused::from)?;
            Ok((next, ()))
        })
        .await
}

/// Applies a change whose money has moved, once per payment `op`.
pub(crate) async fn settle(shared: &Shared, op: &str, change: &ChannelChange) -> Result<(), Fault> {
    let now = shared.clock.millis();
    shared
        .update(&channel_key(&change.id), |account| {
            let mut next = Account::settled(account, op, change, now);
            // Payments are remembered for as long as their records may still come to be concluded.
            let horizon = shared.before(shared.timing.collectable.saturating_mul(2));
            next.applied.retain(|_, at| *at > horizon);
            Ok((next, ()))
        })
        .await
}

/// Whether the payment `op` has changed its channel already.
pub(crate) async fn is_applied(
    shared: &Shared,
    op: &str,
    change: &ChannelChange,
) -> Result<bool, Fault> {
    let account = shared.account(&channel_key(&change.id)).await?;
    Ok(account.is_some_and(|(_, account)| account.applied.contains_key(op)))
}

/// Whether a change could be applied now.
pub(crate) async fn preview(
    shared: &Shared,
    op: &str,
    change: &ChannelChange,
) -> Result<(), Refused> {
    let account = shared.account(&channel_key(&change.id)).await?;
    let account = account.as_ref().map(|(_, account)| account);
    let now = shared.clock.millis();
    Account::after(account, op, change, now).map_err(Refused::from)?;
    Ok(())
}

/// Stops all spending for a close that was reserved as `stored` and whose order was made for `seen`
/// spent. `false`: it is another amount by now, a stream is still spending, or the reservation was
/// replaced.
pub(crate) async fn freeze(
    shared: &Shared,
    op: &str,
    stored: &Stored,
    change: &ChannelChange,
    seen: Amount,
) -> Result<bool, Refused> {
    let (key, claim) = (channel_key(&change.id), &stored.record.claim);
    loop {
        let account = shared.account(&key).await?;
        let (text, account) = account.ok_or_else(|| Refused::from(BalanceError::NotFound))?;
        let now = shared.clock.millis();
        account.open(Some(op), now).map_err(Refused::from)?;
        let mut next = account.clone();
        let earlier = next
            .closing
            .take_if(|closing| closing.op == op && closing.claim != *claim);
        if earlier.is_some() && !shared.stands(op, stored).await? {
            return Ok(false);
        }
        let unspent = account.leased(now) == 0 && account.state.spent == seen;
        if unspent {
            next.closing = Some(Closing {
                op: op.to_owned(),
                claim: claim.clone(),
                until: shared.after(shared.timing.reserve),
            });
        }
        if next == account || shared.replace(&key, &text, &next).await? {
            return Ok(unspent);
        }
    }
}

/// Holds a frozen channel until its close is concluded, however long that takes.
pub(crate) async fn refreeze(
    shared: &Shared,
    op: &str,
    claim: &str,
    change: &ChannelChange,
) -> Result<(), Fault> {
    let now = shared.clock.millis();
    shared
        .update(&channel_key(&change.id), |account| {
            let mut next = account
                .cloned()
                .ok_or_else(|| Fault::new("a frozen channel is gone"))?;
            match &mut next.closing {
                // One that lapsed may have been spent from, so its order is void.
                Some(closing) if closing.is_of(op, claim) && closing.until > now => {
                    closing.until = i64::MAX;
                }
                _ => return Err(Fault::unavailable("a close lost its channel")),
            }
            Ok((next, ()))
        })
        .await
}

/// The close that was recorded as `stored` came to nothing: the channel goes on.
pub(crate) async fn thaw(
    shared: &Shared,
    op: &str,
    stored: &Stored,
    change: &ChannelChange,
) -> Result<(), Fault> {
    let key = channel_key(&change.id);
    while let Some((text, account)) = shared.account(&key).await? {
        let mut next = account;
        let Some(closing) = next.closing.take_if(|closing| closing.op == op) else {
            return Ok(());
        };
        if closing.claim != stored.record.claim && !shared.stands(op, stored).await? {
            return Ok(());
        }
        if shared.replace(&key, &text, &next).await? {
            return Ok(());
        }
    }
    Ok(())
}
