//! Finishing what a crash or an unknown outcome left behind.

use std::time::Duration;

use farebox_core::{Fault, IdempotencyKey};
use tokio::{task::AbortHandle, time::timeout};

use crate::{
    engine::{Engine, Shared},
    payment::{Driven, conclude},
    record::{State, TODO, pay_key, todo_key},
};

/// What a run of the reconciler found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reconciled {
    /// Payments found settled; the same credential may now collect them.
    pub settled: usize,
    /// Payments found never to have moved.
    pub declined: usize,
    /// Reservations that were never attempted, freed.
    pub freed: usize,
    /// Payments still under way, or whose rail cannot say yet.
    pub unknown: usize,
}

enum Found {
    Done,
    Freed,
    Busy,
    Driven(Driven),
}

impl Engine {
    /// One run. Safe at any time and from several processes: every step is a compare-and-swap.
    ///
    /// A payment that fails does not keep the others from being looked at.
    pub async fn reconcile(&self) -> Result<Reconciled, Fault> {
        let mut found = Reconciled::default();
        for (key, _) in self.shared.store.scan(TODO).await? {
            let id = &key[TODO.len()..];
            match self.shared.look_after(id).await {
                Ok(Found::Done) => {}
                Ok(Found::Freed) => found.freed += 1,
                Ok(Found::Driven(Driven::Paid)) => found.settled += 1,
                Ok(Found::Driven(Driven::Declined(_))) => found.declined += 1,
                Ok(Found::Busy | Found::Driven(Driven::Pending)) => found.unknown += 1,
                Err(fault) => {
                    tracing::warn!(%fault, "a payment could not be reconciled");
                    found.unknown += 1;
                }
            }
        }
        Ok(found)
    }

    /// Reconciles now and then every `interval`, until the handle is dropped.
    pub fn spawn_reconciler(&self, interval: Duration) -> Reconciler {
        let engine = self.clone();
        let task = tokio::spawn(async move {
            loop {
                match engine.reconcile().await {
                    Ok(found) if found == Reconciled::default() => {}
                    Ok(found) => tracing::info!(?found, "reconciled"),
                    Err(fault) => tracing::warn!(%fault, "cannot reconcile"),
                }
                tokio::time::sleep(interval).await;
            }
        });
        Reconciler {
            task: task.abort_handle(),
        }
    }
}

/// A reconciler on its own task; stops when dropped.
#[derive(Debug)]
#[must_use = "dropping it stops the reconciler"]
pub struct Reconciler {
    task: AbortHandle,
}

impl Drop for Reconciler {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    async fn look_after(&self, id: &str) -> Result<Found, Fault> {
        let now = self.clock.millis();
        let Some(stored) = self.record(id).await? else {
            self.strike(id).await?;
            return Ok(Found::Done);
        };
        match &stored.record.state {
            State::Reserved { until } if *until > now => Ok(Found::Busy),
            State::Reserved { .. } => {
                // Freed before it is struck off, so that a straggler that would still attempt it
                // loses its swap. Its proofs stay with this challenge, which may claim them again.
                let text = Some(stored.text.as_str());
                if !self
                    .store
                    .compare_and_swap(&pay_key(id), text, None, None)
                    .await?
                {
                    return Ok(Found::Busy);
                }
                self.strike(id).await?;
                Ok(Found::Freed)
            }
            State::Attempted { until, .. } if *until > now => Ok(Found::Busy),
            State::Attempted { order, .. } => {
                let method = self.method(&stored.record.method);
                let method = method
                    .ok_or_else(|| Fault::new("a payment's rail is not configured any more"))?;
                let key = IdempotencyKey::for_challenge(id);
                let lookup = method.settler().lookup(&key, order);
                match timeout(self.timing.settle, lookup).await {
                    Ok(outcome) => Ok(Found::Driven(conclude(self, id, &stored, outcome).await?)),
                    Err(_) => Ok(Found::Busy),
                }
            }
            State::Paid { .. }
            | State::Serving { .. }
            | State::Delivered { .. }
            | State::Declined { .. } => {
                self.strike(id).await?;
                Ok(Found::Done)
            }
        }
    }

    async fn strike(&self, id: &str) -> Result<(), Fault> {
        self.store
            .compare_and_swap(&todo_key(id), Some(id), None, None)
            .await?;
        Ok(())
    }
}
