//! A proof that came in time and that nobody could judge: its rail was in trouble, or its client
//! did not wait for the verdict.
//!
//! The proof may be the payment itself, so it must not lapse with its challenge. It is marked with a
//! reservation that has lapsed already and claims nothing: whoever comes with the same credential
//! resumes it and is judged as of when it first came, any other takes its place. It is one record
//! per challenge that was issued here, it is kept for a day, and where a verdict is reached nothing
//! is written.

use serde_json::Value;
use tokio::runtime::Handle;

use super::{Authentic, Offered, Payment};
use crate::{
    detached::Detached,
    record::{Record, State, Stored, Terms},
};

/// Marks a proof as seen, unless it is judged before this is dropped.
pub(super) struct Undecided {
    /// `None` where there is nothing to mark.
    payment: Option<Payment<Authentic>>,
    /// What the rail kept with the challenge.
    pub(super) private: Option<Value>,
    presented: i64,
}

impl Undecided {
    pub(super) fn new(
        payment: &Payment<Authentic>,
        lapsed: Option<&Stored>,
        private: Option<Value>,
        presented: i64,
    ) -> Self {
        // A channel's actions are repeated under a fresh challenge; a record that is there already
        // stands for a proof that was judged, or seen.
        let marks = payment.method.intent().single_use() && lapsed.is_none();
        Self {
            payment: marks.then(|| payment.again(None)),
            private,
            presented,
        }
    }

    /// There is a verdict.
    pub(super) fn decided(mut self) -> Option<Value> {
        self.payment = None;
        self.private.take()
    }

    /// There is none.
    pub(super) async fn mark(mut self) {
        if let Some(payment) = self.payment.take() {
            let mark = payment.mark(self.private.take(), self.presented);
            // Its client may go away now, too.
            Detached::new(mark).await;
        }
    }
}

impl Drop for Undecided {
    fn drop(&mut self) {
        let (Some(payment), Ok(runtime)) = (self.payment.take(), Handle::try_current()) else {
            return;
        };
        let (private, presented) = (self.private.take(), self.presented);
        runtime.spawn(async move { payment.mark(private, presented).await });
    }
}

impl Payment<Authentic> {
    async fn mark(self, private: Option<Value>, presented: i64) {
        let terms = Terms {
            presented,
            private,
            changed: self.facts.offered != Offered::Still,
            ..self.terms(String::new())
        };
        let record = Record::new(terms, State::Reserved { until: presented });
        if let Err(fault) = self.shared.advance(self.id(), None, record).await {
            tracing::warn!(%fault, "a proof that could not be judged was not marked as seen");
        }
    }
}
