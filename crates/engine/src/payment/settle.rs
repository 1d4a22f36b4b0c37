//! Moving the money, and recording that it moved.

use std::sync::Arc;

use farebox_core::{Fault, IdempotencyKey, Method, Outcome, Step, StoredOrder};
use serde_json::{Map, Value};
use tokio::time::timeout;

use super::{Driven, Payment, Reserved};
use crate::{
    balance,
    conclude::{Concluded, insist},
    engine::Shared,
    record::{State, Stored, todo_key},
    reply::Keyed,
    serving::Serving,
};

/// What a presentation that was carried out came to.
pub(crate) enum Carried {
    /// Money is in, and this caller serves.
    Serve(Serving),
    /// Money is in, and whoever leases this record first serves.
    Paid(Box<Stored>),
    /// Not served, or not by this caller.
    Driven(Driven),
}

impl Payment<Reserved> {
    /// Drives the money to a known state. Run it on a task of its own: dropping the future leaves
    /// the rest to the reconciler.
    pub async fn settle(self) -> Result<Driven, Fault> {
        Ok(self.drive(None).await?.driven)
    }

    /// The same, for a caller that serves.
    pub(super) async fn serve(self, keyed: Option<Keyed>) -> Result<Carried, Fault> {
        let Concluded { driven, written } = self.drive(Some(Shared::nonce()?)).await?;
        let Some(stored) = written.filter(|_| driven == Driven::Paid) else {
            return Ok(Carried::Driven(driven));
        };
        if let State::Serving { .. } = stored.record.state {
            let serving = Serving::of(self.shared.clone(), self.id(), stored, keyed);
            return Ok(serving.map_or(Carried::Driven(driven), Carried::Serve));
        }
        Ok(Carried::Paid(Box::new(stored)))
    }

    /// What needs no settling is leased to `holder` in the write that records it. Where money has
    /// just moved nobody is: its caller may be gone, or we may be, and a lease would keep the payer
    /// waiting.
    async fn drive(&self, holder: Option<String>) -> Result<Concluded, Fault> {
        let order = match &self.stage.step {
            Step::Paid { reference } => {
                let receipt = self.stage.receipt.clone();
                let outcome = Outcome::Settled {
                    reference: reference.clone(),
                    receipt,
                };
                let from = &self.stage.stored;
                let holder = holder.as_deref();
                return insist(&self.shared, self.id(), from, outcome, holder).await;
            }
            Step::Settle(order) => order,
        };
        if let Err(expired) = self.in_time() {
            let driven = match self.release().await? {
                true => Driven::Declined(expired),
                false => Driven::Pending,
            };
            return Ok(driven.into());
        }
        let Some(stored) = self
            .shared
            .attempt(self.id(), &self.stage.stored, order, &self.stage.receipt)
            .await?
        else {
            return Ok(Driven::Pending.into());
        };
        let shared = &self.shared;
        // The last look at the clock before what cannot be undone; never one after it.
        if let Err(expired) = self.in_time() {
            let outcome = Outcome::Declined(expired);
            return insist(shared, self.id(), &stored, outcome, None).await;
        }
        if let State::Attempted { until, .. } = stored.record.state
            && shared.after(shared.timing.settle_cap) > until
        {
            // The write took so long that others may look the payment up while we settle.
            return insist(shared, self.id(), &stored, Outcome::Unknown, None).await;
        }
        let outcome = shared.move_money(&*self.method, self.id(), order).await;
        insist(shared, self.id(), &stored, outcome, None).await
    }
}

impl Shared {
    /// Carries out an order that was written ahead, and asks at once where nobody can say.
    pub(crate) async fn move_money(
        &self,
        method: &dyn Method,
        id: &str,
        order: &StoredOrder,
    ) -> Outcome {
        let key = IdempotencyKey::for_challenge(id);
        let settler = method.settler();
        let settling = timeout(self.timing.settle_cap, settler.settle(&key, order));
        match effect!("settle", settling.await) {
            Ok(Outcome::Unknown) | Err(_) => {
                let lookup = timeout(self.timing.settle, settler.lookup(&key, order));
                effect!("lookup", lookup.await).unwrap_or(Outcome::Unknown)
            }
            Ok(known) => known,
        }
    }

    /// Writes ahead that money may move: on the reconciler's list first, so that the list never
    /// lacks an attempt. `None`: the reservation is not ours any more.
    pub(crate) async fn attempt(
        self: &Arc<Self>,
        id: &str,
        reserved: &Stored,
        order: &StoredOrder,
        receipt: &Map<String, Value>,
    ) -> Result<Option<Stored>, Fault> {
        let key = todo_key(id);
        let todo = Shared::nonce()?;
        // What an attempt before this one left on the list is replaced.
        let before = self.store.get(&key).await?;
        let listed = self.swap_own(&key, before.as_deref(), &todo, None);
        if !effect!("todo.listed", listed.await)? {
            return Ok(None);
        }
        let record = &reserved.record;
        if let Some(change) = &record.channel {
            // On the list by now, or a crash would leave the channel held for ever.
            balance::hold_on(self, id, &record.claim, change).await?;
        }
        let timing = &self.timing;
        let attempted = record.with(State::Attempted {
            // Longer than settling and looking up can take, with room for slow clocks and stores.
            until: self.after(timing.settle_cap + timing.settle + timing.slack),
            todo,
            order: order.clone(),
            receipt: receipt.clone(),
            looked: 0,
        });
        self.advance(id, Some(reserved), attempted).await
    }
}
