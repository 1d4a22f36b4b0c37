//! Finishing what a crash or an unknown outcome left behind.

use std::time::Duration;

use farebox_core::{Fault, IdempotencyKey};
use tokio::{
    task::{AbortHandle, JoinSet},
    time::timeout,
};

use crate::{
    conclude::conclude,
    engine::{Engine, Shared},
    payment::Driven,
    record::{State, Stored, TODO, todo_key},
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

/// How many payments are looked up at once.
const AT_ONCE: usize = 8;

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
        let list = self.shared.store.scan(TODO).await?;
        for batch in list.chunks(AT_ONCE) {
            // Each on a task of its own: a rail that hangs or panics holds up nobody else.
            let mut tasks = JoinSet::new();
            for (key, attempt) in batch {
                let (shared, id) = (self.shared.clone(), key[TODO.len()..].to_owned());
                let attempt = attempt.clone();
                tasks.spawn(async move { shared.look_after(&id, &attempt).await });
            }
            while let Some(outcome) = tasks.join_next().await {
                match outcome {
                    Ok(Ok(Found::Done)) => {}
                    Ok(Ok(Found::Freed)) => found.freed += 1,
                    Ok(Ok(Found::Driven(Driven::Paid))) => found.settled += 1,
                    Ok(Ok(Found::Driven(Driven::Declined(_)))) => found.declined += 1,
                    Ok(Ok(Found::Busy | Found::Driven(Driven::Pending))) => found.unknown += 1,
                    Ok(Err(fault)) => {
                        tracing::warn!(%fault, "a payment could not be reconciled");
                        found.unknown += 1;
                    }
                    Err(_) => {
                        tracing::error!("a rail panicked while a payment was looked up");
                        found.unknown += 1;
                    }
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
    async fn look_after(&self, id: &str, attempt: &str) -> Result<Found, Fault> {
        let now = self.clock.millis();
        let Some(stored) = self.record(id).await? else {
            self.strike(id, attempt).await?;
            return Ok(Found::Done);
        };
        match &stored.record.state {
            State::Reserved { until } if *until > now => Ok(Found::Busy),
            State::Reserved { .. } => {
                // Freed before it is struck off, so that a straggler that would still attempt it
                // loses its swap.
                if !self.abandon(id, &stored).await? {
                    return Ok(Found::Busy);
                }
                self.strike(id, attempt).await?;
                Ok(Found::Freed)
            }
            State::Attempted { until, .. } if *until > now => Ok(Found::Busy),
            State::Attempted { .. } => Ok(Found::Driven(self.look_up(id, &stored).await?)),
            State::Declined { .. } => {
                // Whoever declined it may have died before it freed what the payment held.
                self.free(id, &stored).await?;
                self.strike(id, attempt).await?;
                Ok(Found::Done)
            }
            State::Paid { .. } | State::Serving { .. } | State::Delivered { .. } => {
                self.strike(id, attempt).await?;
                Ok(Found::Done)
            }
        }
    }

    /// Asks the settler what became of an attempt, and records what it knows.
    pub(crate) async fn look_up(&self, id: &str, stored: &Stored) -> Result<Driven, Fault> {
        let State::Attempted { order, .. } = &stored.record.state else {
            return Ok(Driven::Pending);
        };
        let method = self
            .method(&stored.record.method)
            .ok_or_else(|| Fault::unavailable("a payment's rail is not configured any more"))?;
        let key = IdempotencyKey::for_challenge(id);
        let lookup = timeout(self.timing.settle, method.settler().lookup(&key, order));
        match effect!("lookup", lookup.await) {
            Ok(outcome) => conclude(self, id, stored, outcome).await,
            Err(_) => Ok(Driven::Pending),
        }
    }

    /// Takes an attempt off the list, unless the list speaks of a later one by now.
    pub(crate) async fn strike(&self, id: &str, attempt: &str) -> Result<(), Fault> {
        let key = todo_key(id);
        let struck = self.store.compare_and_swap(&key, Some(attempt), None, None);
        effect!("todo.struck", struck.await)?;
        Ok(())
    }
}
