//! Offers whose terms have changed while a challenge was out.
//!
//! A proof may be the payment itself: that money is in, so it buys what it was asked for. What has
//! not moved yet is asked for anew.

use farebox_core::{
    AnyPlan, ChannelAction, Rejection, Step,
    wire::{Amount, Problem},
};

use super::{Authentic, Books, Payment};
use crate::record::Record;

/// What has become of an offer since a challenge was issued for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Offered {
    /// It is as it was.
    Still,
    /// Its fixed terms or its place have changed; its method is there to judge a proof.
    Otherwise,
    /// It is gone, or its price was computed for a request.
    NoMore,
}

impl Payment<Authentic> {
    /// Whether its challenge has not lapsed and would be issued again as it is.
    pub(crate) fn still_offered(&self) -> Result<(), Rejection> {
        match self.facts.offered {
            Offered::Still => self.in_time(),
            Offered::Otherwise | Offered::NoMore => Err(anew()),
        }
    }

    /// Whether its proof can be the payment, or the offer is as it was.
    pub(super) fn may_be_paid(&self) -> Result<(), Rejection> {
        match self.facts.offered {
            Offered::Still => Ok(()),
            Offered::Otherwise if !self.is_free() => Ok(()),
            Offered::Otherwise | Offered::NoMore => Err(anew()),
        }
    }

    /// Whether only what is paid already counts. What was judged, or seen, before the change is
    /// carried out as issued.
    pub(super) fn takes_only_paid(&self, resumed: Option<&Record>) -> bool {
        let changed = self.facts.offered != Offered::Still;
        changed && resumed.is_none_or(|record| record.changed)
    }

    /// Whether nothing was asked for. A channel's amount is a unit's price and not its deposit.
    fn is_free(&self) -> bool {
        let books: Books = self
            .credential
            .challenge
            .request
            .decode()
            .unwrap_or_default();
        let amount = books.amount.and_then(|text| Amount::parse(&text).ok());
        self.method.intent().single_use() && amount.is_none_or(Amount::is_zero)
    }
}

/// Whether a plan's money is in.
pub(super) fn is_paid(plan: &AnyPlan) -> bool {
    match plan {
        AnyPlan::Once(plan) => matches!(plan.step, Step::Paid { .. }),
        // A voucher and a close bring no money.
        AnyPlan::Channel(plan) => {
            let deposit = matches!(plan.action, ChannelAction::Open | ChannelAction::TopUp);
            deposit && plan.order.is_none()
        }
    }
}

pub(super) fn anew() -> Rejection {
    let detail = "the offer has changed since; pay a fresh challenge";
    Rejection::new(Problem::InvalidChallenge, detail)
}
