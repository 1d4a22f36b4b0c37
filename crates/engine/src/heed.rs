//! Calls from outside that something has happened to a payment. They say where to look, and when;
//! what is believed is what the rail says then.

use std::{sync::Arc, time::Duration};

use farebox_core::{Delivery, Fault, Hint, Unheeded};
use tokio::time::{Instant, sleep};

use crate::{
    engine::{Engine, Shared},
    payment::Driven,
    record::State,
};

/// How often a payment that somebody is at is looked at.
const PAUSE: Duration = Duration::from_millis(50);

/// How many payments one call may be about.
const AT_MOST: usize = 16;

/// What a call came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Heeded {
    /// What it was about is decided and on record, or none of this server's business: HTTP 204.
    Done,
    /// Nobody knows yet. The call should come again, HTTP 503 with `Retry-After`; until then the
    /// reconciler goes on asking.
    Later,
}

/// Why a call is not heeded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HeedError {
    /// No rail of this name takes calls: HTTP 404.
    #[error("no rail `{0}` takes calls here")]
    NoListener(String),
    /// It is not genuine, as far as can be told: HTTP 400. Nothing was looked at.
    #[error(transparent)]
    Unheeded(#[from] Unheeded),
    /// Ours: HTTP 503, and the call should come again.
    #[error(transparent)]
    Fault(#[from] Fault),
}

impl Engine {
    /// The names of the rails that [`heed`](Self::heed) calls from outside, sorted.
    pub fn listeners(&self) -> Vec<String> {
        let methods = self.shared.methods().into_iter();
        let listening = methods.filter(|method| method.listens());
        listening.map(|method| method.name().to_owned()).collect()
    }

    /// Has the rail called `name` read a call from outside, and looks at what it is about.
    ///
    /// Safe at any time, and as often as the call comes: it ends what is unknown sooner than the
    /// reconciler would, and does nothing else. Where somebody is at a payment this moment, it waits
    /// for as long as a caller of that payment would.
    ///
    /// # Errors
    /// The call is not genuine, or cannot be followed now.
    pub async fn heed(
        &self,
        name: &str,
        headers: &[(&str, &[u8])],
        body: &[u8],
    ) -> Result<Heeded, HeedError> {
        let method = self.shared.method(name).filter(|method| method.listens());
        let method = method.ok_or_else(|| HeedError::NoListener(name.to_owned()))?;
        let now = self.shared.clock.millis().div_euclid(1000);
        let hints = method.heed(&Delivery::new(headers, body, now))?;
        let _under_way = self.shared.drain.settling();
        let mut heeded = Heeded::Done;
        for hint in hints.into_iter().take(AT_MOST) {
            let shared = &self.shared;
            let done = match hint {
                Hint::Payment {
                    challenge,
                    reference,
                } => shared.hear(name, &challenge, reference.as_deref()).await?,
                Hint::Refund {
                    reference,
                    challenge,
                } => {
                    let heard = shared.hear_refund(name, &reference, challenge.as_deref());
                    heard.await?
                }
                _ => true,
            };
            if !done {
                heeded = Heeded::Later;
            }
        }
        Ok(heeded)
    }
}

impl Shared {
    /// Whether a payment is decided, or not this rail's.
    async fn hear(
        self: &Arc<Self>,
        method: &str,
        id: &str,
        reference: Option<&str>,
    ) -> Result<bool, Fault> {
        let patience = Instant::now() + self.timing.settle;
        loop {
            let Some(stored) = self.record(id).await? else {
                return Ok(true);
            };
            if stored.record.method != method {
                return Ok(true);
            }
            let now = self.clock.millis();
            match &stored.record.state {
                State::Reserved { until } | State::Attempted { until, .. } if *until > now => {
                    if Instant::now() >= patience {
                        return Ok(false);
                    }
                    sleep(PAUSE).await;
                }
                State::Attempted { .. } => {
                    match self.look_up_at(id, &stored, reference).await? {
                        Some(Driven::Paid | Driven::Declined(_)) => return Ok(true),
                        Some(Driven::Pending) => return Ok(false),
                        // Somebody else is asking.
                        None => {}
                    }
                }
                _ => return Ok(true),
            }
        }
    }
}
