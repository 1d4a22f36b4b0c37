//! What a rail wants done with a channel outside a request: settle what is authorised, close what
//! is idle, give back what is left. The rail answers an order; the engine carries it out under the
//! same lifecycle as a payment.

use std::{num::NonZeroU64, time::Duration};

use farebox_wire::Amount;
use serde::Serialize;

use crate::{
    channel::{Change, Observed},
    plan::ChannelAction,
    settle::StoredOrder,
};

/// When a rail wants to be asked about a channel. Nothing is due unless said.
///
/// Spending is compared with `units` and `amount` whenever it is recorded; the rest with each round
/// of the reconciler, so what is shorter than its interval comes late.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Schedule {
    /// Settle once so many units were served since the last settlement.
    pub units: Option<NonZeroU64>,
    /// Settle once so much was spent beyond what is settled.
    pub amount: Option<Amount>,
    /// Settle what is spent and not settled so long after the last settlement, with the next spending
    /// or the next round.
    pub every: Option<Duration>,
    /// Close what was not used for so long.
    pub idle: Option<Duration>,
    /// Look at an open channel this often, whoever uses it: a payer may close it by force.
    pub watch: Option<Duration>,
}

impl Schedule {
    /// Settle every so many units.
    #[must_use]
    pub fn units(mut self, units: NonZeroU64) -> Self {
        self.units = Some(units);
        self
    }

    /// Settle every so much.
    #[must_use]
    pub fn amount(mut self, amount: Amount) -> Self {
        self.amount = Some(amount);
        self
    }

    /// Settle every so often.
    #[must_use]
    pub fn every(mut self, every: Duration) -> Self {
        self.every = Some(every);
        self
    }

    /// Close when idle for so long.
    #[must_use]
    pub fn idle(mut self, idle: Duration) -> Self {
        self.idle = Some(idle);
        self
    }

    /// Look this often.
    #[must_use]
    pub fn watch(mut self, watch: Duration) -> Self {
        self.watch = Some(watch);
        self
    }
}

/// Why a rail is asked about a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Due {
    /// The schedule says to settle, or the payer closes by force: settle what is authorised.
    Settle,
    /// Nobody used it for as long as the schedule says: close it.
    Idle,
    /// It is closed, and part of the deposit is neither settled nor refunded: what was not spent,
    /// or a top-up that settled after the close. Asked once right after the close, and again in
    /// each round until all is accounted for or the refund has failed for good.
    Owed,
    /// The schedule's watch: say what is to be seen.
    Watch,
}

/// A rail's answer. `O` is its settler's order.
#[must_use]
#[derive(Debug)]
pub struct Upkeep<O> {
    observed: Observed,
    errand: Option<Errand<O>>,
}

#[derive(Debug)]
struct Errand<O> {
    action: ChannelAction,
    change: Change,
    order: Option<O>,
}

/// What [`Rail::settle_together`](crate::Rail::settle_together) answers: an [`Upkeep`] for each
/// channel, or that they cannot be settled together.
pub type Together<O> = Option<Vec<Upkeep<O>>>;

impl<O> Upkeep<O> {
    /// Nothing needs to be done.
    pub fn nothing() -> Self {
        Self {
            observed: Observed::default(),
            errand: None,
        }
    }

    /// Settle up to the cumulative amount `to` by this order.
    pub fn settle(to: Amount, order: O) -> Self {
        Self::errand(
            ChannelAction::Settle,
            Change::none().settled(to),
            Some(order),
        )
    }

    /// The same, with what was observed so far.
    pub fn settling(self, to: Amount, order: O) -> Self {
        Self::settle(to, order).observed(self.observed)
    }

    /// Close the channel, carrying out `order` (capture), if anything. The same as
    /// [`Plan::close`](crate::Plan::close), without a payer.
    pub fn close(change: Change, order: Option<O>) -> Self {
        Self::errand(ChannelAction::Close, change, order)
    }

    /// Give `amount` back to the payer by this order. `None`: it has gone back already (a chain
    /// pays out what is left when it closes). A declined order is a refund that failed for good.
    pub fn refund(amount: Amount, order: Option<O>) -> Self {
        Self::errand(
            ChannelAction::Refund,
            Change::none().refunded(amount),
            order,
        )
    }

    fn errand(action: ChannelAction, change: Change, order: Option<O>) -> Self {
        let errand = Errand {
            action,
            change,
            order,
        };
        Self {
            observed: Observed::default(),
            errand: Some(errand),
        }
    }

    /// With what the rail saw of the channel.
    pub fn observed(mut self, observed: Observed) -> Self {
        self.observed = observed;
        self
    }
}

/// An erased answer, as the engine sees it.
#[must_use]
#[derive(Clone, Debug)]
pub struct AnyUpkeep {
    /// What the rail saw.
    pub observed: Observed,
    /// What to do.
    pub errand: Option<AnyErrand>,
}

/// An erased errand.
#[derive(Clone, Debug)]
pub struct AnyErrand {
    /// [`Settle`](ChannelAction::Settle), [`Close`](ChannelAction::Close) or
    /// [`Refund`](ChannelAction::Refund).
    pub action: ChannelAction,
    /// How the balances change once it is done.
    pub change: Change,
    /// What must be settled first, if anything.
    pub order: Option<StoredOrder>,
}

pub(crate) fn erase<O: Serialize>(upkeep: Upkeep<O>) -> Result<AnyUpkeep, serde_json::Error> {
    let errand = upkeep.errand.map(|errand| {
        let order = errand.order.as_ref().map(StoredOrder::of).transpose()?;
        Ok(AnyErrand {
            action: errand.action,
            change: errand.change,
            order,
        })
    });
    Ok(AnyUpkeep {
        observed: upkeep.observed,
        errand: errand.transpose()?,
    })
}
