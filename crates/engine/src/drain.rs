//! Ending without leaving payers in the middle.
//!
//! A server that drains accepts no payment and asks for none: a challenge issued now would be paid
//! and presented to a process that is gone, or, with a volatile store, be worth nothing. What has
//! begun goes on. What the grace does not suffice for is recorded already: it is the reconciler's,
//! or whoever presents the same credential to the next process.

use std::{sync::Arc, time::Duration};

use serde::Serialize;
use tokio::{sync::watch, time::timeout};

use crate::engine::Engine;

/// What a drained server leaves to the reconciler and to the next process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[must_use]
pub struct Drained {
    /// Payments that are still being claimed, settled or looked up.
    pub settlements: usize,
    /// Requests and streams that are still being served.
    pub leases: usize,
}

impl Drained {
    /// Whether nothing is left.
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }
}

impl Engine {
    /// From now on every gate answers 503 with `Retry-After`, to a credential and to a request
    /// without one. There is no way back.
    ///
    /// A voucher is refused too, and may be presented to another process on the same store: streams
    /// that wait for it here see it there.
    pub fn drain(&self) {
        self.shared.drain.start();
    }

    /// Whether [`drain`](Self::drain) was called: not ready for requests any more.
    pub fn is_draining(&self) -> bool {
        self.shared.drain.started()
    }

    /// Drains, and waits until what has begun is finished, for `grace` at most. Answers what is
    /// left then.
    pub async fn drained(&self, grace: Duration) -> Drained {
        self.drain();
        let mut work = self.shared.drain.work.subscribe();
        let done = work.wait_for(|work| work.left.is_empty());
        // Late or not, what counts is what is left now.
        let _ = timeout(grace, done).await;
        self.shared.drain.work.borrow().left
    }
}

/// What is under way, and whether more may come.
#[derive(Debug, Default)]
pub(crate) struct Drain {
    work: watch::Sender<Work>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Work {
    draining: bool,
    left: Drained,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Settlement,
    Lease,
}

impl Drain {
    fn start(&self) {
        self.work.send_modify(|work| work.draining = true);
    }

    pub(crate) fn started(&self) -> bool {
        self.work.borrow().draining
    }

    /// Waits until it starts.
    pub(crate) async fn began(&self) {
        let mut work = self.work.subscribe();
        // The sender is in `self`, so it does not go away.
        let _ = work.wait_for(|work| work.draining).await;
    }

    /// Begins a payment. `None`: no more payments are accepted.
    pub(crate) fn admit(self: &Arc<Self>) -> Option<UnderWay> {
        let mut admitted = false;
        self.work.send_if_modified(|work| {
            admitted = !work.draining;
            work.left.settlements += usize::from(admitted);
            false
        });
        admitted.then(|| UnderWay {
            drain: self.clone(),
            kind: Kind::Settlement,
        })
    }

    /// Work on a payment that has begun.
    pub(crate) fn settling(self: &Arc<Self>) -> UnderWay {
        self.begin(Kind::Settlement)
    }

    /// Service of what is paid.
    pub(crate) fn serving(self: &Arc<Self>) -> UnderWay {
        self.begin(Kind::Lease)
    }

    fn begin(self: &Arc<Self>, kind: Kind) -> UnderWay {
        self.work.send_if_modified(|work| {
            *work.left.of(kind) += 1;
            false
        });
        let drain = self.clone();
        UnderWay { drain, kind }
    }
}

impl Drained {
    fn of(&mut self, kind: Kind) -> &mut usize {
        match kind {
            Kind::Settlement => &mut self.settlements,
            Kind::Lease => &mut self.leases,
        }
    }
}

/// Something that has begun, until it is dropped.
#[derive(Debug)]
#[must_use]
pub(crate) struct UnderWay {
    drain: Arc<Drain>,
    kind: Kind,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.drain.work.send_if_modified(|work| {
            let left = work.left.of(self.kind);
            *left = left.saturating_sub(1);
            // Nobody waits before that.
            work.draining
        });
    }
}
