//! Claiming what makes a payment unique, and letting go of it.

use std::{sync::Arc, time::Duration};

use farebox_core::{ChannelAction, Fault, ProofKey, Rejection, wire::Amount};

use super::{Payment, Reserved};
use crate::{
    balance,
    engine::Shared,
    record::{State, Stored, holder, pay_key, proof_key},
    verdict::Refused,
};

/// How often a proof may move under us before it counts as somebody else's.
const ROUNDS: usize = 8;

/// Whose a proof is.
enum Taken {
    Ours,
    Theirs,
    /// Our own reservation was replaced by a later one.
    Replaced,
}

impl Payment<Reserved> {
    /// Claims every proof. `false`: this reservation was replaced meanwhile.
    pub(super) async fn claim(&self, keeps: &[Option<Duration>]) -> Result<bool, Refused> {
        let left = self
            .facts
            .expires
            .saturating_sub(self.shared.clock.millis())
            .max(0);
        let left = Duration::from_millis(left.unsigned_abs());
        for (proof, keep) in self.stage.stored.record.proofs.iter().zip(keeps) {
            // A proof outlives its challenge's record, or the record's end would free it.
            let lapse = left.saturating_add(self.shared.timing.grace);
            let keep = keep.map(|keep| keep.saturating_add(lapse));
            match self.take(&proof_key(proof), keep).await? {
                Taken::Ours => {}
                Taken::Replaced => return Ok(false),
                Taken::Theirs => {
                    self.release().await?;
                    let detail = "the proof has already paid for something else";
                    return Err(Rejection::spent(detail).into());
                }
            }
        }
        Ok(true)
    }

    async fn take(&self, key: &str, keep: Option<Duration>) -> Result<Taken, Fault> {
        let (shared, stored) = (&self.shared, &self.stage.stored);
        let me = holder(self.id(), &stored.record.claim);
        for _ in 0..ROUNDS {
            let first = shared.swap_own(key, None, &me, keep);
            if effect!("proof.claimed", first.await)? {
                return Ok(Taken::Ours);
            }
            let Some(held) = shared.store.get(key).await? else {
                continue;
            };
            if held == me {
                return Ok(Taken::Ours);
            }
            let (id, claim) = held.rsplit_once(' ').unwrap_or((held.as_str(), ""));
            let free = if id == self.id() {
                if !shared.stands(id, stored).await? {
                    return Ok(Taken::Replaced);
                }
                true
            } else {
                shared.came_to_nothing(id, claim).await?
            };
            if !free {
                return Ok(Taken::Theirs);
            }
            // Of all who find it free, one gets it; the others look again.
            let over = shared.swap_own(key, Some(&held), &me, keep);
            if effect!("proof.claimed", over.await)? {
                return Ok(Taken::Ours);
            }
        }
        Ok(Taken::Theirs)
    }

    /// Stops all spending of the channel that is to be closed. `false`: it was spent from since the
    /// rail looked, so the order was made for another balance.
    pub(super) async fn freeze(&self, seen: Amount) -> Result<bool, Refused> {
        let (shared, stored) = (&self.shared, &self.stage.stored);
        let Some(change) = &stored.record.channel else {
            return Ok(true);
        };
        let frozen = balance::freeze(shared, self.id(), stored, change, seen).await;
        if !matches!(frozen, Ok(true)) {
            self.release().await?;
        }
        frozen
    }

    /// Nothing was attempted: frees the proofs and the challenge. `false`: the reservation is not
    /// ours any more, and whoever has it may have attempted.
    pub(super) async fn release(&self) -> Result<bool, Fault> {
        self.shared.abandon(self.id(), &self.stage.stored).await
    }
}

impl Shared {
    /// Whether a claim provably came to nothing and never will. A payment without a record proves
    /// nothing.
    async fn came_to_nothing(&self, id: &str, claim: &str) -> Result<bool, Fault> {
        let Some(stored) = self.record(id).await? else {
            return Ok(false);
        };
        let record = &stored.record;
        match &record.state {
            State::Declined { .. } => Ok(true),
            // A channel's change may have been applied before its reservation was lost.
            _ if record.channel.is_some() => Ok(false),
            // By a reservation that was replaced since: it can attempt nothing.
            _ if record.claim != claim => Ok(true),
            State::Reserved { until } if *until <= self.clock.millis() => {
                // Its straggler loses its swap.
                let detail = "the proof was presented with another challenge since";
                let rejection = Rejection::spent(detail);
                let declined = record.with(State::Declined { rejection });
                let lost = self.advance(id, Some(&stored), declined).await?;
                Ok(lost.is_some())
            }
            _ => Ok(false),
        }
    }

    /// Gives up a reservation, if it still is what it was. It is renewed first, so that nobody
    /// resumes it halfway, and goes last, so that a crash leaves it to be found.
    pub(crate) async fn abandon(
        self: &Arc<Self>,
        id: &str,
        stored: &Stored,
    ) -> Result<bool, Fault> {
        let until = self.after(self.timing.reserve);
        let renewed = stored.record.with(State::Reserved { until });
        let Some(held) = self.advance(id, Some(stored), renewed).await? else {
            return Ok(false);
        };
        self.free(id, &held, false).await?;
        let key = pay_key(id);
        let gone = self
            .store
            .compare_and_swap(&key, Some(&held.text), None, None);
        effect!("pay.freed", gone.await)?;
        Ok(true)
    }

    /// Nothing moved and nothing will: frees a payment's proofs, and the channel it holds. `tried`:
    /// its rail tried and said so, where otherwise a crash may have kept it from trying.
    pub(crate) async fn free(
        self: &Arc<Self>,
        id: &str,
        stored: &Stored,
        tried: bool,
    ) -> Result<(), Fault> {
        let me = holder(id, &stored.record.claim);
        for proof in &stored.record.proofs {
            let key = proof_key(proof);
            let gone = self.store.compare_and_swap(&key, Some(&me), None, None);
            effect!("proof.freed", gone.await)?;
        }
        match &stored.record.channel {
            Some(change) => {
                let declined = matches!(stored.record.state, State::Declined { .. });
                let refund = match change.action {
                    ChannelAction::Refund if declined => Some(tried),
                    _ => None,
                };
                balance::thaw(self, id, stored, change, refund).await
            }
            None => Ok(()),
        }
    }
}

/// How long each proof is kept, in the order of the plan.
pub(super) fn keeps(proofs: &[ProofKey]) -> Vec<Option<Duration>> {
    proofs.iter().map(ProofKey::keep).collect()
}
