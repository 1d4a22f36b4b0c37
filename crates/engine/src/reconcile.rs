//! Finishing what a crash or an unknown outcome left behind.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use farebox_core::{Fault, IdempotencyKey, Outcome};
use futures_util::FutureExt as _;
use serde::Serialize;
use tokio::{
    task::{AbortHandle, JoinSet},
    time::{sleep, timeout},
};

use crate::{
    conclude::conclude,
    engine::{Engine, Shared},
    payment::Driven,
    record::{State, Stored, TODO, todo_key},
    refund::RefundsReconciled,
    upkeep::Upkept,
};

/// What a run of the reconciler found. Serialised in camel case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Reconciled {
    /// Payments that were on the list. Those not counted below needed nothing any more.
    pub looked_at: usize,
    /// Payments found settled; the same credential may now collect them.
    pub settled: usize,
    /// Payments found never to have moved.
    pub declined: usize,
    /// Reservations that were never attempted, freed.
    pub freed: usize,
    /// Payments still under way, looked up by another process, or whose rail cannot say yet.
    pub unknown: usize,
}

/// How many payments are looked up at once.
const AT_ONCE: usize = 8;

/// Of its interval, how much a reconciler leaves between two lookups of one payment, its own or
/// another process's: less than its shortest round, and more than half.
const PACE: (u32, u32) = (4, 5);

enum Found {
    Done,
    Freed,
    Busy,
    Driven(Driven),
}

impl Engine {
    /// One run. Safe at any time and from several processes: every step is a compare-and-swap, and
    /// of several that run at once one looks a payment up.
    ///
    /// A payment that fails does not keep the others from being looked at. A server that
    /// [drains](Self::drain) begins with none.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn reconcile(&self) -> Result<Reconciled, Fault> {
        self.reconcile_at(Duration::ZERO).await
    }

    /// Leaves alone what was looked up less than `pace` ago, whoever did it.
    async fn reconcile_at(&self, pace: Duration) -> Result<Reconciled, Fault> {
        let mut found = Reconciled::default();
        let mut list = self.shared.store.scan(TODO).await?;
        // Processes that start together do not queue for the same payments.
        let first = random().checked_rem(list.len() as u64).unwrap_or_default();
        list.rotate_left(usize::try_from(first).unwrap_or_default());
        for batch in list.chunks(AT_ONCE) {
            if self.is_draining() {
                break;
            }
            // Each on a task of its own: a rail that hangs or panics holds up nobody else.
            let mut tasks = JoinSet::new();
            for (key, attempt) in batch {
                let (shared, id) = (self.shared.clone(), key[TODO.len()..].to_owned());
                let (attempt, under_way) = (attempt.clone(), shared.drain.settling());
                tasks.spawn(async move {
                    let _under_way = under_way;
                    shared.look_after(&id, &attempt, pace).await
                });
            }
            found.looked_at += batch.len();
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
                        tracing::error!("a payment could not be reconciled: its task ended");
                        found.unknown += 1;
                    }
                }
            }
        }
        Ok(found)
    }

    /// Reconciles, and looks after [refunds](Self::reconcile_refunds) and channels
    /// ([`upkeep`](Self::upkeep)), now and then about every
    /// `interval`, until the handle is dropped.
    ///
    /// Any number of processes may do so on one store: together they look a payment up about once
    /// per interval. Each starts and goes on a random tenth of the interval apart from the others.
    pub fn spawn_reconciler(&self, interval: Duration) -> Reconciler {
        let engine = self.clone();
        let pace = interval * PACE.0 / PACE.1;
        let task = tokio::spawn(async move {
            sleep(up_to(interval / 10)).await;
            loop {
                match engine.reconcile_at(pace).await {
                    Ok(found) if found == Reconciled::default() => {}
                    Ok(found) => tracing::info!(?found, "reconciled"),
                    Err(fault) => tracing::warn!(%fault, "cannot reconcile"),
                }
                match engine.reconcile_refunds().await {
                    Ok(found) if found == RefundsReconciled::default() => {}
                    Ok(found) => tracing::info!(?found, "looked after refunds"),
                    Err(fault) => tracing::warn!(%fault, "cannot look after refunds"),
                }
                match engine.upkeep_of(false).await {
                    Ok(upkept) if upkept == Upkept::default() => {}
                    Ok(upkept) => tracing::info!(?upkept, "looked after channels"),
                    Err(fault) => tracing::warn!(%fault, "cannot look after channels"),
                }
                sleep(interval * 9 / 10 + up_to(interval / 5)).await;
            }
        });
        Reconciler {
            task: task.abort_handle(),
        }
    }
}

/// Zero where there is no randomness: it only spreads work.
fn random() -> u64 {
    let mut bytes = [0; 8];
    match getrandom::fill(&mut bytes) {
        Ok(()) => u64::from_le_bytes(bytes),
        Err(_) => 0,
    }
}

/// A random span, `most` at most.
fn up_to(most: Duration) -> Duration {
    let thousandths = u32::try_from(random() % 1_001).unwrap_or_default();
    most.saturating_mul(thousandths) / 1_000
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
    async fn look_after(
        self: &Arc<Self>,
        id: &str,
        attempt: &str,
        pace: Duration,
    ) -> Result<Found, Fault> {
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
            State::Attempted { until, looked, .. }
                if *until > now || *looked > self.before(pace) =>
            {
                Ok(Found::Busy)
            }
            State::Attempted { .. } => {
                let driven = self.look_up(id, &stored).await?;
                Ok(driven.map_or(Found::Busy, Found::Driven))
            }
            State::Declined { .. } => {
                // Whoever declined it may have died before it freed what the payment held.
                self.free(id, &stored, false).await?;
                self.strike(id, attempt).await?;
                Ok(Found::Done)
            }
            State::Paid { .. }
            | State::Serving { .. }
            | State::Delivered { .. }
            | State::Returned { .. } => {
                self.strike(id, attempt).await?;
                Ok(Found::Done)
            }
        }
    }

    /// Asks the settler what became of an attempt, and records what it knows. `None`: somebody
    /// else is asking.
    pub(crate) async fn look_up(
        self: &Arc<Self>,
        id: &str,
        stored: &Stored,
    ) -> Result<Option<Driven>, Fault> {
        self.look_up_at(id, stored, None).await
    }

    /// The same, where somebody has said what the rail calls the movement of money.
    pub(crate) async fn look_up_at(
        self: &Arc<Self>,
        id: &str,
        stored: &Stored,
        reference: Option<&str>,
    ) -> Result<Option<Driven>, Fault> {
        let State::Attempted {
            todo,
            order,
            receipt,
            looked,
            ..
        } = &stored.record.state
        else {
            return Ok(None);
        };
        let method = self
            .method(&stored.record.method)
            .ok_or_else(|| Fault::unavailable("a payment's rail is not configured any more"))?;
        // Taken before the rail is asked, for as long as asking can take; who dies meanwhile leaves
        // it to whoever comes after that.
        let taken = stored.record.with(State::Attempted {
            until: self.after(self.timing.settle + self.timing.slack),
            todo: todo.clone(),
            order: order.clone(),
            receipt: receipt.clone(),
            // Never 0 again: who asks afterwards knows that nobody heard the rail say so itself.
            looked: (*looked).max(1),
        });
        let Some(taken) = self.advance(id, Some(stored), taken).await? else {
            return Ok(None);
        };
        let key = IdempotencyKey::for_challenge(id);
        let settler = method.settler();
        let lookup = match reference {
            Some(reference) => settler.look_at(&key, order, reference),
            None => settler.lookup(&key, order),
        };
        let lookup = AssertUnwindSafe(lookup).catch_unwind();
        let lookup = timeout(self.timing.settle, lookup);
        // Whatever it was, the payment is put back, so that the next one may ask.
        let (outcome, panicked) = match effect!("lookup", lookup.await) {
            Ok(Ok(outcome)) => (outcome, false),
            // A panic's own words could hold anything, so they are not passed on.
            Ok(Err(_)) => (Outcome::Unknown, true),
            Err(_) => (Outcome::Unknown, false),
        };
        let driven = conclude(self, id, &taken, outcome).await?;
        match panicked {
            true => Err(Fault::new("a rail panicked while a payment was looked up")),
            false => Ok(Some(driven)),
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
