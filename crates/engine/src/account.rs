//! A channel's account: what may happen to it, as pure functions of what is stored.
//!
//! `authorized` only grows; an equal voucher changes nothing and is accepted; a lower one is
//! refused; `spent ≤ authorized ≤ deposit` and `settled ≤ authorized`; closing is final, and then
//! `deposit = settled + refunded` once all errands are done.

use std::{collections::BTreeMap, time::Duration};

use farebox_core::{
    Authorize, Change, ChannelAction, ChannelState, Fault, Observed, Refund, wire::Amount,
};
use serde::{Deserialize, Serialize};

use crate::{balance::BalanceError, debits::Debits, engine::Shared, record::ChannelChange};

/// A channel as stored.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Account {
    #[serde(flatten)]
    pub(crate) state: ChannelState,
    /// The name of the method that opened it, by which its rail is found.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) method: String,
    /// Blocks that streams hold and have not given back, by lease. One of nothing: it waits.
    #[serde(default)]
    pub(crate) leases: BTreeMap<String, Block>,
    /// Payments applied and when, so that none is applied twice.
    #[serde(default)]
    pub(crate) applied: BTreeMap<String, i64>,
    /// The latest debits and when, so that one whose write lost its reply knows itself.
    #[serde(default, skip_serializing_if = "Debits::is_empty")]
    recent: Debits,
    /// What the request costs that opened it was charged, whether its delivery is recorded or not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) charged: bool,
    /// The payment that is closing it: nothing else may change or spend meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) closing: Option<Closing>,
    /// Streams and requests end for a payment that will close it, and none begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ending: Option<Ending>,
    /// A settlement or a refund under way; it keeps nobody from spending.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) errand: Option<Closing>,
    /// It was closed for what was spent, whatever that comes to.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    follows: bool,
    /// Where the schedule stands.
    #[serde(default)]
    pub(crate) marks: Marks,
}

/// Where a channel stands in its rail's schedule. Instants are Unix milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Marks {
    /// Units served by the last settlement.
    pub(crate) units: u64,
    /// When it was settled last, or opened.
    pub(crate) settled: i64,
    /// When the rail was asked last, whatever for.
    pub(crate) asked: i64,
    /// When an errand came to nothing last.
    pub(crate) tried: i64,
    /// Refunds that came to nothing.
    pub(crate) refunds: u8,
}

/// A close or an errand under way, holding the channel until Unix millisecond `until`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Closing {
    pub(crate) op: String,
    /// Which of the payment's reservations.
    pub(crate) claim: String,
    pub(crate) until: i64,
}

/// The payment that waits for streams to end, until Unix millisecond `until`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Ending {
    pub(crate) op: String,
    pub(crate) until: i64,
}

impl Closing {
    pub(crate) fn is_of(&self, op: &str, claim: &str) -> bool {
        self.op == op && self.claim == claim
    }
}

/// A block of a channel's balance, held by a stream until Unix millisecond `until`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Block {
    pub(crate) amount: Amount,
    pub(crate) until: i64,
    /// Which of its stream's blocks it is, so that a write that lost its reply knows itself.
    #[serde(default)]
    pub(crate) turn: u64,
}

impl Block {
    /// What a request costs is held until it was served, and is not given back before.
    fn is_of_stream(&self) -> bool {
        self.turn > 0
    }
}

/// A block that was lost with its process is forgotten after this many milliseconds.
const FORGOTTEN: i64 = 3_600_000;

/// Each try of a write is a look and a write.
const LOOKED_FOR: u32 = 12;

fn sum(a: Amount, b: Amount) -> Amount {
    Amount::new(a.get().saturating_add(b.get()))
}

fn less(a: Amount, b: Amount) -> Amount {
    Amount::new(a.get().saturating_sub(b.get()))
}

impl Account {
    pub(crate) fn encode(&self) -> Result<String, Fault> {
        serde_json::to_string(self).map_err(|e| Fault::new("serialising a channel").caused_by(e))
    }

    pub(crate) fn decode(text: &str) -> Result<Self, Fault> {
        serde_json::from_str(text).map_err(|_| Fault::new("reading a channel of another version"))
    }

    /// How long the store must keep it: one that still holds the payer's money for ever; another
    /// for as long as a payment of its may still come to be concluded.
    pub(crate) fn keep(&self, shared: &Shared) -> Option<Duration> {
        let done = self.state.closed && self.closing.is_none() && self.errand.is_none();
        done.then(|| shared.timing.collectable.saturating_mul(2))
    }

    /// What streams hold at `now`. A lease that lapsed is the payer's again.
    pub(crate) fn leased(&self, now: i64) -> u128 {
        let held = self.leases.values().filter(|block| block.until > now);
        held.fold(0u128, |sum, block| sum.saturating_add(block.amount.get()))
    }

    /// Whether a stream, here or in another process, may be waiting for this channel.
    pub(crate) fn is_streamed(&self, now: i64) -> bool {
        self.leases.values().any(|block| block.until > now)
    }

    /// What may still be spent at `now`.
    pub(crate) fn available(&self, now: i64) -> Amount {
        let used = self.state.spent.get().saturating_add(self.leased(now));
        less(self.state.authorized, Amount::new(used))
    }

    /// The same with what streams would give back if they were asked.
    pub(crate) fn within_reach(&self, now: i64) -> Amount {
        let held = self.leases.values();
        let held = held.filter(|block| block.until > now && block.is_of_stream());
        let held = held.fold(0u128, |sum, block| sum.saturating_add(block.amount.get()));
        sum(self.available(now), Amount::new(held))
    }

    /// When the first of the blocks that streams hold lapses, from `now` on.
    pub(crate) fn next_lapse(&self, now: i64) -> Option<Duration> {
        let held = self.leases.values();
        let held = held.filter(|block| block.is_of_stream() && !block.amount.is_zero());
        let left = held.map(|block| block.until.saturating_sub(now));
        let left = left.filter(|left| *left > 0).min()?;
        u64::try_from(left).ok().map(Duration::from_millis)
    }

    /// The channel as rails and meters see it: what streams hold counts as spent.
    pub(crate) fn view(&self, now: i64) -> ChannelState {
        let mut view = self.state.clone();
        view.held = Amount::new(self.leased(now));
        view.spent = sum(view.spent, view.held);
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
        units: u64,
        shared: &Shared,
    ) -> Result<(), BalanceError> {
        let spent = self.state.spent.checked_add(n);
        self.state.spent = spent.ok_or(BalanceError::Overflow)?;
        self.state.units = self.state.units.saturating_add(units);
        // As much again for clocks that differ.
        let horizon = shared.before(shared.timing.store * LOOKED_FOR);
        let now = shared.clock.millis();
        self.state.used = now;
        self.recent.remember(op, now, horizon);
        Ok(())
    }

    /// Counts what a stream burnt of a block that it held. What was authorised bounds it: a block
    /// that lapsed may have been spent by others.
    pub(crate) fn burnt(&mut self, amount: Amount, units: u64, now: i64) {
        let state = &mut self.state;
        state.spent = sum(state.spent, amount).min(state.authorized);
        state.units = state.units.saturating_add(units);
        state.used = state.used.max(now);
        // Nothing is given back before, unless the block has lapsed.
        if self.follows && state.refund == Refund::Pending && self.errand.is_none() {
            let kept = state.spent.min(less(state.deposit, state.refunded));
            state.settled = kept.max(state.settled);
            if state.unaccounted().is_zero() {
                state.refund = match state.refunded.is_zero() {
                    true => Refund::None,
                    false => Refund::Done,
                };
            }
        }
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

    /// Whether it may be served from at `now`.
    pub(crate) fn serves(&self, now: i64) -> Result<(), BalanceError> {
        self.open(None, now)?;
        if self.ending.as_ref().is_some_and(|end| end.until > now) {
            return Err(BalanceError::Closing);
        }
        match self.state.close_requested {
            true => Err(BalanceError::CloseRequested),
            false => Ok(()),
        }
    }

    /// A freeze that lapsed is gone with the first change after it: its close was made for what the
    /// channel was before.
    pub(crate) fn end_lapsed_close(&mut self, now: i64) {
        self.closing.take_if(|closing| closing.until <= now);
        self.ending.take_if(|ending| ending.until <= now);
    }

    pub(crate) fn forget_lost_leases(&mut self, now: i64) {
        self.leases
            .retain(|_, block| block.until.saturating_add(FORGOTTEN) > now);
    }

    /// The account after `change` by the payment `op`, if it fits.
    pub(crate) fn after(
        account: Option<&Self>,
        op: &str,
        method: &str,
        change: &ChannelChange,
        now: i64,
    ) -> Result<Self, BalanceError> {
        let mut next = match (account, change.action) {
            (Some(account), _) if account.applied.contains_key(op) => return Ok(account.clone()),
            (None, ChannelAction::Open) => Self::of(method, now),
            (None, _) => return Err(BalanceError::NotFound),
            (Some(account), action) => {
                account.open(Some(op), now)?;
                match action {
                    ChannelAction::Open => return Err(BalanceError::Exists),
                    ChannelAction::Advance => account.serves(now)?,
                    _ => {}
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
        if authorized > state.authorized {
            state.used = state.used.max(now);
        }
        state.authorized = authorized;
        next.finish(op, change, now);
        Ok(next)
    }

    /// The account after `change` by the payment `op`, whose money has moved: what was put in is
    /// credited whatever happened to the channel meanwhile, and nothing is ever taken back.
    pub(crate) fn settled(
        account: Option<&Self>,
        op: &str,
        method: &str,
        change: &ChannelChange,
        now: i64,
    ) -> Self {
        let mut next = account.cloned().unwrap_or_else(|| Self::of(method, now));
        if next.applied.contains_key(op) {
            return next;
        }
        let state = &mut next.state;
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

    fn of(method: &str, now: i64) -> Self {
        Self {
            method: method.to_owned(),
            marks: Marks {
                settled: now,
                asked: now,
                ..Marks::default()
            },
            ..Self::default()
        }
    }

    fn finish(&mut self, op: &str, change: &ChannelChange, now: i64) {
        let action = change.action;
        if let Some(rail) = &change.change.rail {
            self.state.rail = rail.clone();
        }
        self.count(action, &change.change, now);
        match action {
            // It may come any number of times under one challenge and is idempotent by itself.
            ChannelAction::Advance => {}
            _ => drop(self.applied.insert(op.to_owned(), now)),
        }
        if matches!(action, ChannelAction::Open | ChannelAction::TopUp) {
            self.state.used = self.state.used.max(now);
        }
        self.closing.take_if(|closing| closing.op == op);
        self.errand.take_if(|errand| errand.op == op);
    }

    /// What is the seller's, and what has gone back.
    fn count(&mut self, action: ChannelAction, change: &Change, now: i64) {
        let state = &mut self.state;
        let closes = action == ChannelAction::Close && !state.closed;
        let settled = match change.settled {
            None if closes => Some(state.spent),
            settled => settled,
        };
        if let Some(settled) = settled {
            state.settled = settled.min(state.authorized).max(state.settled);
            self.marks.settled = now;
            self.marks.units = state.units;
        }
        state.closed |= closes;
        // A store that stalled for longer than the freeze has let others in: what they burn is kept.
        self.follows |= closes && change.settled.is_none();
        let refunded = change.refunded.min(state.unaccounted());
        state.refunded = sum(state.refunded, refunded);
        if state.closed {
            state.refund = match (action, state.unaccounted().is_zero()) {
                (_, true) if state.refunded.is_zero() => Refund::None,
                (_, true) => Refund::Done,
                // More is owed than before: a top-up that settled after the close.
                (ChannelAction::TopUp, false) => Refund::Pending,
                (_, false) if state.refund == Refund::Failed => Refund::Failed,
                (_, false) => Refund::Pending,
            };
        }
    }

    /// The account after what its rail saw outside.
    pub(crate) fn seen(&self, observed: &Observed, now: i64) -> Self {
        let mut next = self.clone();
        let state = &mut next.state;
        if let Some(settled) = observed.settled {
            // What a chain has settled was authorised, whether we knew it or not.
            state.authorized = settled.min(state.deposit).max(state.authorized);
            state.settled = settled.min(state.authorized).max(state.settled);
        }
        if let Some(requested) = observed.close_requested {
            state.close_requested = requested;
        }
        if observed.closed && !state.closed {
            let settled = Some(state.settled);
            let change = Change {
                settled,
                refunded: state.unaccounted(),
                ..Change::none()
            };
            next.count(ChannelAction::Close, &change, now);
        }
        next
    }
}
