//! Keeping what is given back in full from being served for.
//!
//! The order of writes: the refund is on record, then its payment is [`Returned`](State::Returned),
//! then the rail is called. Whoever finds the refund open repeats the second step before the third,
//! and a refund that is refused undoes it before it is recorded as refused.

use std::sync::Arc;

use farebox_core::{Fault, RefundKey};

use super::ledger::{Giving, Name};
use crate::{
    engine::Shared,
    record::{Record, State, Stored},
};

/// How often a record may move under us before we leave it to the next one who asks.
const ROUNDS: usize = 16;

/// Whether a payment stands so that all of it can go back.
pub(super) enum Ready {
    /// It was served for, or there is nothing to collect, or its record is of another payment.
    Already,
    /// Nobody was served yet.
    Collectable,
    /// Somebody is at it.
    Busy,
}

impl Shared {
    /// Whether a refund may be written down: not while its payment is under way.
    pub(super) async fn may_bar(
        self: &Arc<Self>,
        name: &Name,
        giving: &Giving,
    ) -> Result<bool, Fault> {
        let Some(id) = &giving.bars else {
            return Ok(true);
        };
        let Some(stored) = self.record(id).await? else {
            return Ok(true);
        };
        if let State::Attempted { until, .. } = &stored.record.state
            && *until <= self.clock.millis()
        {
            let reference = &giving.order.reference;
            self.look_up_at(id, &stored, Some(reference)).await?;
            let stored = self.record(id).await?;
            return Ok(stored.is_none_or(|s| !matches!(self.ready(&s, name), Ready::Busy)));
        }
        Ok(!matches!(self.ready(&stored, name), Ready::Busy))
    }

    /// Sees to it that nobody will be served for a payment of which this refund leaves nothing, or
    /// was already. `false`: somebody is at it this moment.
    pub(super) async fn bar(
        &self,
        name: &Name,
        giving: &Giving,
        key: &RefundKey,
    ) -> Result<bool, Fault> {
        let Some(id) = &giving.bars else {
            return Ok(true);
        };
        for _ in 0..ROUNDS {
            let Some(stored) = self.record(id).await? else {
                return Ok(true);
            };
            match self.ready(&stored, name) {
                Ready::Already => return Ok(true),
                Ready::Busy => return Ok(false),
                Ready::Collectable => {}
            }
            let (State::Paid { receipt }
            | State::Serving { receipt, .. }
            | State::Returned { receipt, .. }) = &stored.record.state
            else {
                return Ok(false);
            };
            let refund = key.as_str().to_owned();
            if matches!(&stored.record.state, State::Returned { refund: of, .. } if *of == refund) {
                return Ok(true);
            }
            let returned = stored.record.with(State::Returned {
                receipt: receipt.clone(),
                refund,
            });
            if self.advance(id, Some(&stored), returned).await?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Makes a payment collectable again whose refund, this one, is refused.
    pub(super) async fn unbar(&self, giving: &Giving, key: &RefundKey) -> Result<(), Fault> {
        let Some(id) = &giving.bars else {
            return Ok(());
        };
        for _ in 0..ROUNDS {
            let Some(stored) = self.record(id).await? else {
                return Ok(());
            };
            let receipt = match &stored.record.state {
                State::Returned { receipt, refund } if refund == key.as_str() => receipt.clone(),
                _ => return Ok(()),
            };
            let paid = stored.record.with(State::Paid { receipt });
            if self.advance(id, Some(&stored), paid).await?.is_some() {
                return Ok(());
            }
        }
        Err(Fault::unavailable(
            "a payment changes faster than it can be made collectable again",
        ))
    }

    /// How the payment of this name stands, if this is its record: what a rail says it was paid for
    /// is a note that others can copy, and the receipt is ours.
    pub(super) fn ready(&self, stored: &Stored, name: &Name) -> Ready {
        if let State::Paid { receipt }
        | State::Serving { receipt, .. }
        | State::Returned { receipt, .. } = &stored.record.state
            && !self.is_named(&stored.record, &receipt.reference, name)
        {
            return Ready::Already;
        }
        match &stored.record.state {
            State::Delivered { .. } | State::Declined { .. } => Ready::Already,
            State::Paid { .. } | State::Returned { .. } => Ready::Collectable,
            // Its holder is gone; were it slow, its response would be held back.
            State::Serving { until, .. } if *until <= self.clock.millis() => Ready::Collectable,
            State::Serving { .. } | State::Reserved { .. } | State::Attempted { .. } => Ready::Busy,
        }
    }

    fn is_named(&self, record: &Record, reference: &str, name: &Name) -> bool {
        match self.method(&record.method) {
            Some(method) => Name::of(&*method, reference).is_ok_and(|of| of == *name),
            // Its rail is not configured any more, so nobody can say how it spells.
            None => reference == name.reference,
        }
    }
}
