//! No call to the store takes longer than its deadline, and what a lost reply leaves unknown is
//! read back.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use farebox_core::{Durability, Fault, Store};
use tokio::time::timeout;

use crate::{engine::Shared, pulse::Condition};

/// A scan reads everything and no request waits for one, so it has this many deadlines.
const SCAN: u32 = 30;

/// A store whose calls end in time. What a call that did not end in time has done is unknown.
pub(crate) struct Punctual {
    store: Arc<dyn Store>,
    deadline: Duration,
    condition: Arc<Condition>,
}

impl Punctual {
    /// Every call is news for `condition`.
    pub(crate) fn new(
        store: Arc<dyn Store>,
        deadline: Duration,
        condition: Arc<Condition>,
    ) -> Self {
        Self {
            store,
            deadline,
            condition,
        }
    }
}

fn late() -> Fault {
    Fault::unavailable("the store did not answer in time")
}

#[async_trait]
impl Store for Punctual {
    fn durability(&self) -> Durability {
        self.store.durability()
    }

    fn notices(&self) -> Option<&dyn farebox_core::Notices> {
        self.store.notices()
    }

    async fn get(&self, key: &str) -> Result<Option<String>, Fault> {
        let answer = timeout(self.deadline, self.store.get(key)).await;
        let answer = answer.unwrap_or_else(|_| Err(late()));
        self.condition.hear(&answer, false);
        answer
    }

    async fn compare_and_swap(
        &self,
        key: &str,
        expected: Option<&str>,
        next: Option<&str>,
        keep: Option<Duration>,
    ) -> Result<bool, Fault> {
        let swap = self.store.compare_and_swap(key, expected, next, keep);
        let answer = timeout(self.deadline, swap).await;
        let answer = answer.unwrap_or_else(|_| Err(late()));
        self.condition.hear(&answer, true);
        answer
    }

    async fn scan(&self, prefix: &str) -> Result<Vec<(String, String)>, Fault> {
        let deadline = self.deadline.saturating_mul(SCAN);
        let answer = timeout(deadline, self.store.scan(prefix)).await;
        answer.map_err(|_| late())?
    }
}

impl Shared {
    /// A swap whose reply may get lost: then the value is read back. `next` must be a text that
    /// nobody else writes there to mean something of their own, as it holds a nonce.
    pub(crate) async fn swap_own(
        &self,
        key: &str,
        expected: Option<&str>,
        next: &str,
        keep: Option<Duration>,
    ) -> Result<bool, Fault> {
        let swap = self.store.compare_and_swap(key, expected, Some(next), keep);
        let fault = match swap.await {
            Ok(swapped) => return Ok(swapped),
            Err(fault) => fault,
        };
        match self.store.get(key).await {
            Ok(Some(value)) if value == next => Ok(true),
            // Not carried out, or not yet: whoever asks next finds out.
            _ => Err(fault),
        }
    }
}
