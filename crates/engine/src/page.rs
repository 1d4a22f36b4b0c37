//! What a payment page asks of a gate, besides being served.

use std::time::Duration;

use farebox_core::{
    Fault, Offer, Presented, Refusal, Rejection,
    wire::{Challenge, Credential, Payload, Problem, Timestamp},
};
use tokio::time::timeout;

use crate::{
    challenge::Bound,
    gate::{Gate, Inbound},
    payment::{Authentic, Payment},
    record::{State, prepared_key},
    verdict::Refused,
};

/// How often a rail prepares a payload for one challenge: once, and again when an answer is lost.
const PREPARATIONS: u8 = 3;

impl Gate {
    /// The offer that a challenge was issued for. Only for a challenge that this gate has just
    /// issued: nothing is authenticated.
    pub fn offer_of(&self, challenge: &Challenge) -> Option<&Offer> {
        let bound: Bound = challenge.opaque.as_ref()?.decode().ok()?;
        self.offers.get(bound.offer.parse().ok()?)
    }

    /// How long a challenge that this gate has just issued can still be paid for.
    pub fn lasts(&self, challenge: &Challenge) -> Duration {
        let left = challenge.expires.as_ref().map_or(i64::MAX, |at| {
            at.unix_millis().saturating_sub(self.shared.clock.millis())
        });
        Duration::from_millis(u64::try_from(left).unwrap_or(0))
    }

    /// Has the rail of a challenge make a payload out of what a payment page has collected; see
    /// [`Rail::prepare`](farebox_core::Rail::prepare). The credential's payload is what was
    /// collected.
    ///
    /// Only for a challenge that was issued here, for this request, is as it would be issued now,
    /// has not expired and was not used; and for one challenge three times at most. No money moves:
    /// what was prepared is then presented like any other.
    ///
    /// This is the first half, which costs nothing: the challenge is one of ours.
    ///
    /// # Errors
    /// What is wrong with the challenge.
    pub fn preparation(
        &self,
        credential: Credential,
        inbound: &Inbound<'_>,
    ) -> Result<Preparation, Refused> {
        self.authenticate(credential, inbound).map(Preparation)
    }
}

/// A payload that a rail may be asked to make; see [`Gate::preparation`].
#[derive(Debug)]
#[must_use = "nothing is made until it is asked for"]
pub struct Preparation(Payment<Authentic>);

impl Preparation {
    /// Has it made.
    ///
    /// # Errors
    /// What is wrong with the challenge, or with what was collected. For a challenge that is being
    /// paid for, or that was, nothing is asked for that would make an honest payer pay again.
    pub async fn make(self) -> Result<Payload, Refused> {
        self.0.prepare().await
    }
}

/// What is said of a challenge that a payment is recorded for. Only one that was declined is
/// followed by fresh ones.
fn used(state: &State) -> Refused {
    match state {
        State::Reserved { .. } | State::Attempted { .. } | State::Serving { .. } => {
            Refused::pending()
        }
        State::Paid { .. } | State::Delivered { .. } | State::Returned { .. } => {
            Rejection::spent("the challenge has been paid for; do not pay again").into()
        }
        State::Declined { .. } => {
            let detail = "the challenge has been used; start again with a fresh one";
            Rejection::new(Problem::InvalidChallenge, detail).into()
        }
    }
}

impl Payment<Authentic> {
    async fn prepare(&self) -> Result<Payload, Refused> {
        let shared = self.shared();
        if let Some(stored) = shared.record(self.id()).await? {
            return Err(used(&stored.record.state));
        }
        self.still_offered()?;
        self.count().await?;
        let now = Timestamp::from_unix_millis(shared.clock.millis());
        let credential = self.credential();
        let cx = Presented::new(&credential.challenge, &now).by(credential.source.as_deref());
        let prepared = self.method().prepare(&cx, &credential.payload);
        let prepared = timeout(shared.timing.settle, prepared).await;
        let late = |_| Err(Fault::unavailable("a rail did not prepare in time").into());
        Ok(prepared.unwrap_or_else(late)?)
    }

    /// Counts this preparation, in the store that every process shares.
    async fn count(&self) -> Result<(), Refusal> {
        let shared = self.shared();
        let key = prepared_key(&self.credential().challenge.id);
        let keep = shared.timing.ttl.saturating_add(shared.timing.grace);
        // Whoever loses a swap has seen another's preparation, of which there are few.
        for _ in 0..=PREPARATIONS {
            let before = shared.store.get(&key).await?;
            let made: u8 = before
                .as_deref()
                .map_or(Ok(0), str::parse)
                .unwrap_or(PREPARATIONS);
            if made >= PREPARATIONS {
                break;
            }
            let after = (made + 1).to_string();
            let (before, after) = (before.as_deref(), Some(after.as_str()));
            let swap = shared
                .store
                .compare_and_swap(&key, before, after, Some(keep));
            if swap.await? {
                return Ok(());
            }
        }
        let problem = Problem::InvalidChallenge;
        let detail = "too many attempts with one challenge; start again with a fresh one";
        Err(Rejection::new(problem, detail).into())
    }
}
