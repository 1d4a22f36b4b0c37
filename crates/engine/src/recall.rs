//! Getting back what streams took aside and have not served yet, for somebody who needs it now: a
//! payer must not be asked for more while what he put in lies idle.

use std::{sync::Arc, time::Duration};

use farebox_core::wire::Amount;
use tokio::time::{Instant, sleep};

use crate::{
    engine::Shared,
    hub::Waiting,
    meter::{Meter, MeterError},
};

/// How long streams may take to give back their blocks, and how often they are asked meanwhile: a
/// word may be lost. A stream whose process died gives back nothing until its block lapses.
const PATIENCE: Duration = Duration::from_secs(1);
const ASKED: u32 = 4;

/// How long to rest after a try that came too late.
const PAUSE: Duration = Duration::from_millis(10);

/// When to come back at the latest: one whose process lives gives back before its block lapses.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// What whoever streams from the account under `key` hears.
fn recall_of(key: &str) -> String {
    ["recall ", key].concat()
}

impl Shared {
    /// Begins to listen for somebody who needs what a stream of `key` holds.
    pub(crate) fn recalled(self: &Arc<Self>, key: &str) -> Waiting {
        self.heed(&recall_of(key))
    }
}

/// Tries to spend what streams hold.
pub(crate) struct Recall {
    amount: Amount,
    /// Not before the first try fails.
    end: Option<Instant>,
}

impl Recall {
    pub(crate) fn of(amount: Amount) -> Self {
        let end = None;
        Self { amount, end }
    }

    /// After a try that found the balance `short`: waits until another may succeed.
    ///
    /// # Errors
    /// `short` where all that streams hold would not do, and [`Busy`](MeterError::Busy) where they
    /// do not give it back: a payer that put in enough must not be asked for more.
    pub(crate) async fn again(
        &mut self,
        meter: &Meter,
        short: MeterError,
    ) -> Result<(), MeterError> {
        let shared = &meter.shared;
        // Not as it was seen last: this may refuse.
        let Some((_, account)) = shared.account(meter.key()).await? else {
            return Err(short);
        };
        let now = shared.clock.millis();
        if account.within_reach(now) < self.amount {
            return Err(short);
        }
        match self.end {
            None => self.end = Some(Instant::now() + PATIENCE),
            // What could be spent was taken by others, who may go on taking.
            Some(_) => sleep(PAUSE).await,
        }
        if self.end.is_some_and(|end| Instant::now() >= end) {
            let lapse = account.next_lapse(now).unwrap_or(PATIENCE);
            let retry_after = lapse.clamp(PATIENCE, RETRY_AFTER);
            return Err(MeterError::Busy { retry_after });
        }
        let word = recall_of(meter.key());
        shared.hub.wake(&word);
        shared.tell(&word);
        let patience = PATIENCE / ASKED;
        meter.wait_for(self.amount, patience).await.map(drop)
    }
}
