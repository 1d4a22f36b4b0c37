//! A response that was held back, because nobody could say whether its delivery was recorded.
//!
//! Its payer got nothing, so the payment must become collectable again, also where the store
//! carried the write out and only its reply was lost.

use std::{sync::Arc, time::Duration};

use farebox_core::Fault;
use tokio::{runtime::Handle, time::sleep};

use crate::{
    drain::UnderWay,
    engine::Shared,
    record::{State, Stored},
};

/// The longest pause between two attempts. A payer who comes back sooner after an outage than this
/// may be told that the payment was delivered.
const PAUSE: Duration = Duration::from_millis(500);

/// Takes back whatever its holder recorded, unless it is [kept](Self::keep) before it is dropped:
/// the caller's client may go away between any two writes.
pub(crate) struct Withdrawal(Option<Delivery>);

struct Delivery {
    shared: Arc<Shared>,
    id: String,
    me: String,
    /// A server that drains waits for it.
    _under_way: UnderWay,
}

impl Withdrawal {
    pub(crate) fn of(shared: &Arc<Shared>, id: &str, me: &str) -> Self {
        Self(Some(Delivery {
            _under_way: shared.drain.serving(),
            shared: shared.clone(),
            id: id.to_owned(),
            me: me.to_owned(),
        }))
    }

    /// The delivery is recorded, and its response may leave.
    pub(crate) fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Withdrawal {
    fn drop(&mut self) {
        if let (Some(delivery), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            runtime.spawn(async move {
                // Whole, or what counts it as under way would stay here.
                let delivery = delivery;
                withdraw(&delivery.shared, &delivery.id, &delivery.me).await;
            });
        }
    }
}

/// Takes back whatever `me` recorded, as soon as the store answers. If the process dies before,
/// only a delivery that was recorded is lost; a lease lapses by itself.
pub(crate) async fn withdraw(shared: &Shared, id: &str, me: &str) {
    let mut pause = Duration::from_millis(10);
    loop {
        match undo(shared, id, me).await {
            Ok(true) => return,
            Ok(false) => {}
            Err(fault) => tracing::warn!(%fault, "a held-back response is not taken back yet"),
        }
        sleep(pause).await;
        pause = (pause * 2).min(PAUSE);
    }
}

/// Whether nothing of `me` is recorded any more. A write of ours that is still on its way comes
/// too late then: it expects what this one replaced.
async fn undo(shared: &Shared, id: &str, me: &str) -> Result<bool, Fault> {
    let Some(stored) = shared.record(id).await? else {
        return Ok(true);
    };
    let Some(receipt) = held_by(&stored, me) else {
        return Ok(true);
    };
    let paid = stored.record.with(State::Paid { receipt });
    Ok(shared.advance(id, Some(&stored), paid).await?.is_some())
}

fn held_by(stored: &Stored, me: &str) -> Option<Arc<farebox_core::wire::Receipt>> {
    match &stored.record.state {
        State::Serving {
            receipt, holder, ..
        }
        | State::Delivered {
            receipt, holder, ..
        } if holder == me => Some(receipt.clone()),
        _ => None,
    }
}
