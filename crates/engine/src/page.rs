//! What a payment page asks of a gate, besides being served.

use farebox_core::{
    Fault, Offer, Presented, Refusal, Rejection,
    wire::{Challenge, Credential, Payload, Problem, Timestamp},
};
use tokio::time::timeout;

use crate::{
    challenge::Bound,
    gate::{Gate, Inbound},
    payment::{Authentic, Payment},
    record::prepared_key,
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

    /// Has the rail of a challenge make a payload out of what a payment page has collected; see
    /// [`Rail::prepare`](farebox_core::Rail::prepare). The credential's payload is what was
    /// collected.
    ///
    /// Only for a challenge that was issued here, for this request, is as it would be issued now,
    /// has not expired and was not used; and for one challenge three times at most. No money moves:
    /// what was prepared is then presented like any other.
    ///
    /// # Errors
    /// What is wrong with the challenge, or with what was collected.
    pub async fn prepare(
        &self,
        credential: Credential,
        inbound: &Inbound<'_>,
    ) -> Result<Payload, Refused> {
        let payment = self.authenticate(credential, inbound)?;
        Ok(payment.prepare().await?)
    }
}

impl Payment<Authentic> {
    async fn prepare(&self) -> Result<Payload, Refusal> {
        self.still_offered()?;
        let shared = self.shared();
        if shared.record(self.id()).await?.is_some() {
            let problem = Problem::InvalidChallenge;
            let detail = "the challenge has been used; start again with a fresh one";
            return Err(Rejection::new(problem, detail).into());
        }
        self.count().await?;
        let now = Timestamp::from_unix_millis(shared.clock.millis());
        let credential = self.credential();
        let cx = Presented::new(&credential.challenge, &now).by(credential.source.as_deref());
        let prepared = self.method().prepare(&cx, &credential.payload);
        let prepared = timeout(shared.timing.settle, prepared).await;
        prepared
            .unwrap_or_else(|_| Err(Fault::unavailable("a rail did not prepare in time").into()))
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
