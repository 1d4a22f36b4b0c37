//! Getting back what streams took aside and have not served yet, for somebody who needs it now: a
//! payer must not be asked for more while what he put in lies idle.

use std::{sync::Arc, time::Duration};

use farebox_core::wire::Amount;

use crate::{
    engine::Shared,
    hub::Waiting,
    meter::{Meter, MeterError},
};

/// How long streams may take to give back their blocks, and how often they are asked meanwhile: a
/// word may be lost. A stream whose process died gives back nothing until its block lapses.
const PATIENCE: Duration = Duration::from_secs(1);
const ASKED: u32 = 4;

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

impl Meter {
    /// Where `amount` is only short because streams hold it, has them give it back. Answers whether
    /// it can be spent now.
    pub(crate) async fn recall(&self, amount: Amount) -> Result<bool, MeterError> {
        let shared = &self.shared;
        let Some(account) = shared.glance(self.key()).await? else {
            return Ok(false);
        };
        if account.within_reach(shared.clock.millis()) < amount {
            return Ok(false);
        }
        let word = recall_of(self.key());
        for _ in 0..ASKED {
            shared.hub.wake(&word);
            shared.tell(&word);
            if self.wait_for(amount, PATIENCE / ASKED).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
