//! A store that misbehaves as networks do: a write that arrives late, and a reply that is lost.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
};

use farebox_core::Fault;
use tokio::sync::Notify;

use crate::proxy::{Between, Call, Proxy, Write};

type Condition = Box<dyn Fn(&Write<'_>) -> bool + Send>;

/// A durable disk behind a bad network.
pub type FaultyStore<S> = Proxy<S, Network>;

/// A network that is good until it is told otherwise. Each condition applies to the first write it
/// fits; a process's sign of life always gets through.
#[derive(Default)]
pub struct Network {
    pause: Mutex<Option<Condition>>,
    hold: Mutex<Option<Condition>>,
    lose: Mutex<Option<Condition>>,
    reached: Notify,
    go: Notify,
}

impl Network {
    /// Holds the next write that fits until [`release`](Self::release); other writes pass it.
    pub fn pause_before(&self, fits: impl Fn(&Write<'_>) -> bool + Send + 'static) {
        arm(&self.pause, fits);
    }

    /// Carries out the next write that fits and holds its reply until [`release`](Self::release).
    pub fn pause_after(&self, fits: impl Fn(&Write<'_>) -> bool + Send + 'static) {
        arm(&self.hold, fits);
    }

    /// Waits until a write is held.
    pub async fn reached(&self) {
        self.reached.notified().await;
    }

    /// Lets the held write, or its reply, go on.
    pub fn release(&self) {
        self.go.notify_one();
    }

    /// Carries out the next write that fits and answers with a fault, as if its reply were lost.
    pub fn lose_reply_of(&self, fits: impl Fn(&Write<'_>) -> bool + Send + 'static) {
        arm(&self.lose, fits);
    }
}

fn arm(slot: &Mutex<Option<Condition>>, fits: impl Fn(&Write<'_>) -> bool + Send + 'static) {
    *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(fits));
}

/// Whether the condition fits; it is used up then.
fn fires(slot: &Mutex<Option<Condition>>, write: &Write<'_>) -> bool {
    let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
    slot.take_if(|fits| fits(write)).is_some()
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network").finish_non_exhaustive()
    }
}

impl Between for Network {
    async fn call<T: Send>(
        &self,
        call: Call<'_>,
        reply: impl Future<Output = Result<T, Fault>> + Send,
    ) -> Result<T, Fault> {
        let Call::Write(write) = call else {
            return reply.await;
        };
        if call.is_sign_of_life() {
            return reply.await;
        }
        if fires(&self.pause, &write) {
            self.reached.notify_one();
            self.go.notified().await;
        }
        // A real store suspends, which is where callers are cancelled.
        tokio::task::yield_now().await;
        let swapped = reply.await;
        if fires(&self.hold, &write) {
            self.reached.notify_one();
            self.go.notified().await;
        }
        if fires(&self.lose, &write) {
            return Err(Fault::unavailable("the reply was lost"));
        }
        swapped
    }
}
