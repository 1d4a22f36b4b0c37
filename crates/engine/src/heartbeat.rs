//! Keeps serving leases alive, all of them on one task that runs while there are any.
//!
//! Most handlers are done before their first renewal, so taking a lease must not cost a task or a
//! timer of its own.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use tokio::time::Instant;

use crate::{
    engine::Shared,
    record::{State, Stored},
};

/// A lease's record as its holder last wrote it. `None` where it was given up.
pub(crate) type Held = Arc<tokio::sync::Mutex<Option<Stored>>>;

/// How many leases are renewed at once.
const AT_ONCE: usize = 16;

/// The leases of an engine.
#[derive(Default)]
pub(crate) struct Heart(Mutex<Beating>);

#[derive(Default)]
struct Beating {
    leases: HashMap<u64, Lease>,
    next: u64,
    /// The task that renews, if it runs.
    runner: Option<u64>,
}

#[derive(Clone)]
struct Lease {
    id: String,
    held: Held,
    renewed: Instant,
}

impl Heart {
    fn beating(&self) -> MutexGuard<'_, Beating> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Renews its lease until it is dropped.
pub(crate) struct Heartbeat {
    shared: Arc<Shared>,
    number: u64,
}

impl Heartbeat {
    pub(crate) fn start(shared: &Arc<Shared>, id: &str, held: &Held) -> Self {
        let lease = Lease {
            id: id.to_owned(),
            held: held.clone(),
            renewed: Instant::now(),
        };
        let mut beating = shared.heart.beating();
        beating.next += 1;
        let number = beating.next;
        beating.leases.insert(number, lease);
        if beating.runner.is_none() {
            beating.runner = Some(number);
            let runner = Runner {
                shared: shared.clone(),
                number,
            };
            tokio::spawn(runner.run());
        }
        let shared = shared.clone();
        Self { shared, number }
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        self.shared.heart.beating().leases.remove(&self.number);
    }
}

struct Runner {
    shared: Arc<Shared>,
    number: u64,
}

impl Runner {
    async fn run(self) {
        // A lease is renewed between one and two of these after it was last written.
        let tick = self.shared.timing.serve / 6;
        loop {
            tokio::time::sleep(tick).await;
            let Some(due) = self.due(tick) else { return };
            stream::iter(due)
                .for_each_concurrent(AT_ONCE, |(number, lease)| self.renew(number, lease))
                .await;
        }
    }

    /// The leases to renew. `None`: there are none at all, and this runner is done.
    fn due(&self, tick: Duration) -> Option<Vec<(u64, Lease)>> {
        let mut beating = self.shared.heart.beating();
        if beating.leases.is_empty() {
            beating.runner = None;
            return None;
        }
        let leases = beating.leases.iter();
        let due = leases.filter(|(_, lease)| lease.renewed.elapsed() >= tick);
        Some(
            due.map(|(number, lease)| (*number, lease.clone()))
                .collect(),
        )
    }

    async fn renew(&self, number: u64, lease: Lease) {
        let from = Instant::now();
        let stands = renew(&self.shared, &lease).await;
        let mut beating = self.shared.heart.beating();
        match (stands, beating.leases.get_mut(&number)) {
            (true, Some(lease)) => lease.renewed = from,
            (false, _) => {
                beating.leases.remove(&number);
            }
            (true, None) => {}
        }
    }
}

impl Drop for Runner {
    /// A runtime that shuts down takes its runner along; another runtime's lease starts a new one.
    fn drop(&mut self) {
        let mut beating = self.shared.heart.beating();
        beating.runner.take_if(|runner| *runner == self.number);
    }
}

/// Whether the lease may still be held.
async fn renew(shared: &Shared, lease: &Lease) -> bool {
    let mut held = lease.held.lock().await;
    let Some(stored) = held.as_ref() else {
        return false;
    };
    let State::Serving {
        receipt, holder, ..
    } = &stored.record.state
    else {
        return false;
    };
    let next = stored.record.with(State::Serving {
        receipt: receipt.clone(),
        holder: holder.clone(),
        until: shared.lease_until(shared.timing.serve),
    });
    let renewed = match shared.advance(&lease.id, Some(stored), next).await {
        Ok(Some(renewed)) => Ok(Some(renewed)),
        // A renewal whose reply was lost is still ours.
        Ok(None) => shared.record(&lease.id).await,
        Err(fault) => Err(fault),
    };
    match renewed {
        Ok(Some(now)) if holds(&now, holder) => *held = Some(now),
        Ok(_) => return false,
        // The store may be back before the lease lapses.
        Err(fault) => tracing::warn!(%fault, "a serving lease was not renewed"),
    }
    true
}

fn holds(stored: &Stored, me: &str) -> bool {
    matches!(&stored.record.state, State::Serving { holder, .. } if holder == me)
}
