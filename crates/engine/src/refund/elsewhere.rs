//! What others gave back: in the provider's dashboard, say. Nobody is served for it.
//!
//! Only a call from outside or an operator makes us look, so that collecting a payment costs no call.

use std::{panic::AssertUnwindSafe, sync::Arc};

use farebox_core::{Fault, NoRefund, Refundable};
use futures_util::FutureExt as _;
use tokio::time::timeout;

use super::{Payment, bar::Ready, ledger::Ledger};
use crate::{
    engine::Shared,
    record::{State, Stored},
};

/// Stands for the refund's key where the refund is not ours.
const ELSEWHERE: &str = "elsewhere";

/// How often the payment may move under us before the call has to come again.
const ROUNDS: usize = 8;

impl Shared {
    /// Sees to it that a payment that others gave back in full is not served for, and that it is again
    /// where the money came back to us. `challenge` is what was paid, where somebody has said;
    /// otherwise what is on record. `false`: it is under way, or nobody can say now.
    ///
    /// The rail is asked until it agrees with the record as read before, so what happens at the rail
    /// meanwhile is either seen here or told by a later call, which finds it on record.
    pub(super) async fn look_elsewhere(
        self: &Arc<Self>,
        payment: &Payment,
        challenge: Option<&str>,
    ) -> Result<bool, Fault> {
        for _ in 0..ROUNDS {
            let known = self.ledger_of(&payment.name).await?;
            let ledger = known.as_ref().map(|known| &known.ledger);
            let Some(id) = challenge.or_else(|| ledger?.barred.as_deref()) else {
                return Ok(true);
            };
            if ledger.is_some_and(|ledger| ledger.open().is_some()) {
                return Ok(false);
            }
            let Some(stored) = self.record(id).await? else {
                return Ok(true);
            };
            match self.ready(&stored, &payment.name) {
                Ready::Already => return Ok(true),
                Ready::Collectable => {}
                Ready::Busy if self.known_by_now(id, &stored, payment).await? => continue,
                Ready::Busy => return Ok(false),
            }
            let (receipt, barred) = match &stored.record.state {
                State::Returned { refund, .. } if refund != ELSEWHERE => return Ok(true),
                State::Returned { receipt, .. } => (receipt.clone(), true),
                State::Paid { receipt } | State::Serving { receipt, .. } => {
                    (receipt.clone(), false)
                }
                _ => return Ok(true),
            };
            let now = match self.stands_at_the_rail(payment).await {
                Ok(now) => now,
                Err(NoRefund::Fault(fault)) => return Err(fault),
                // Then the rail cannot have given it back either.
                Err(_) => return Ok(true),
            };
            let gone = now.refunded >= now.charged;
            if now.challenge.as_deref() != Some(id) || gone == barred {
                return Ok(true);
            }
            // First, so that whoever hears that the money came back finds what to make collectable.
            let fresh = || Ledger::new(&*payment.method, &payment.name, &now);
            let mut next = ledger.cloned().unwrap_or_else(fresh);
            next.count_elsewhere(&now);
            next.barred = Some(id.to_owned());
            let rewritten = self.rewrite(known.as_ref(), next).await;
            if effect!("refund.recorded", rewritten)?.is_none() {
                continue;
            }
            let next = stored.record.with(match gone {
                true => State::Returned {
                    receipt,
                    refund: ELSEWHERE.to_owned(),
                },
                false => State::Paid { receipt },
            });
            self.advance(id, Some(&stored), next).await?;
        }
        Ok(false)
    }

    /// Looks up a payment that nobody is at and nobody knows of. `false`: it is still under way.
    async fn known_by_now(
        self: &Arc<Self>,
        id: &str,
        stored: &Stored,
        payment: &Payment,
    ) -> Result<bool, Fault> {
        let State::Attempted { until, .. } = &stored.record.state else {
            return Ok(false);
        };
        if *until > self.clock.millis() {
            return Ok(false);
        }
        let reference = &payment.name.reference;
        self.look_up_at(id, stored, Some(reference)).await?;
        let stored = self.record(id).await?;
        Ok(stored.is_none_or(|s| !matches!(s.record.state, State::Attempted { .. })))
    }

    async fn stands_at_the_rail(&self, payment: &Payment) -> Result<Refundable, NoRefund> {
        let ask = payment.method.settler().refundable(&payment.spelled);
        let ask = timeout(self.timing.settle, AssertUnwindSafe(ask).catch_unwind());
        match ask.await {
            Ok(Ok(told)) => told,
            Ok(Err(_)) => Err(Fault::new("a rail panicked over what is left of a payment").into()),
            Err(_) => Err(Fault::unavailable("a rail takes too long to say what is left").into()),
        }
    }
}
