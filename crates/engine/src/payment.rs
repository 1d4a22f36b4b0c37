//! The lifecycle as types: each step consumes the value before it, so settling what was not
//! reserved, or settling twice, does not compile.

use std::{fmt, sync::Arc};

use farebox_core::{
    AnyPlan, ChannelAction, ChannelId, Fault, IdempotencyKey, Method, Outcome, Presented, Refusal,
    Rejection, Step, StoredOrder,
    wire::{Amount, Credential, Problem, Receipt, Timestamp},
};
use serde_json::{Map, Value};
use tokio::time::timeout;

use crate::{
    balance,
    conclude::{insist, receipt},
    drain::UnderWay,
    engine::Shared,
    meter::ChannelView,
    record::{ChannelChange, Record, State, Stored, quote_key, todo_key},
    verdict::Refused,
};

mod claim;
mod undecided;

use undecided::Undecided;

/// A presented credential on its way to being paid.
#[must_use]
pub struct Payment<S> {
    shared: Arc<Shared>,
    method: Arc<dyn Method>,
    credential: Arc<Credential>,
    facts: Arc<Facts>,
    stage: S,
}

/// What authentication found out.
pub(crate) struct Facts {
    /// The payment's id: see `record`.
    pub(crate) id: String,
    /// Who may collect.
    pub(crate) fingerprint: String,
    /// When the challenge lapses, Unix milliseconds.
    pub(crate) expires: i64,
    /// The rail kept something with the challenge.
    pub(crate) kept: bool,
    /// The offer has changed since the challenge was issued.
    pub(crate) stale: bool,
    /// Held by every stage, so that a server that drains waits for the payment.
    pub(crate) _under_way: UnderWay,
}

/// Its challenge was issued here, for this route and body.
#[derive(Debug)]
pub struct Authentic {
    /// A reservation that lapsed without an attempt.
    lapsed: Option<Stored>,
}

/// Its rail says that the proof is good.
#[derive(Debug)]
pub struct Verified {
    lapsed: Option<Stored>,
    plan: AnyPlan,
    private: Option<Value>,
    presented: i64,
    /// What the rail saw spent on the plan's channel.
    seen: Option<Amount>,
}

/// Its challenge and its proofs are claimed; nobody else can get here with them.
#[derive(Debug)]
pub struct Reserved {
    step: Step<StoredOrder>,
    receipt: Map<String, Value>,
    stored: Stored,
}

/// Where the money is; not yet permission to serve, which is [`Admission`](crate::Admission).
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Driven {
    /// In. Whoever takes the serving lease serves.
    Paid,
    /// It did not move and will not.
    Declined(Rejection),
    /// Nobody knows yet; the reconciler and the next presentation will ask.
    Pending,
}

impl<S> Payment<S> {
    pub(crate) fn id(&self) -> &str {
        &self.facts.id
    }

    pub(crate) fn fingerprint(&self) -> &str {
        &self.facts.fingerprint
    }

    fn with<T>(self, stage: T) -> Payment<T> {
        Payment {
            shared: self.shared,
            method: self.method,
            credential: self.credential,
            facts: self.facts,
            stage,
        }
    }

    /// A record that claims nothing yet.
    fn record(&self, state: State, claim: String) -> Record {
        let challenge = &self.credential.challenge;
        let books: Books = challenge.request.decode().unwrap_or_default();
        Record {
            method: self.method.name().to_owned(),
            offer: self.method.offer(),
            fingerprint: self.facts.fingerprint.clone(),
            challenge: challenge.id.clone(),
            expires: self.facts.expires,
            presented: self.shared.clock.millis(),
            proofs: Vec::new(),
            claim,
            private: None,
            amount: books.amount,
            currency: books.currency,
            external_id: self.method.intent().external_id(&challenge.request),
            channel: None,
            state,
        }
    }

    fn in_time(&self) -> Result<(), Rejection> {
        // `expires == now` is expired.
        if self.shared.clock.millis() < self.facts.expires {
            return Ok(());
        }
        let detail = "the challenge has expired; pay a fresh one";
        Err(Rejection::new(Problem::PaymentExpired, detail))
    }
}

impl<S> fmt::Debug for Payment<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Payment")
            .field("id", &self.id())
            .finish_non_exhaustive()
    }
}

impl Payment<Authentic> {
    pub(crate) fn new(
        shared: Arc<Shared>,
        method: Arc<dyn Method>,
        credential: Credential,
        facts: Facts,
    ) -> Self {
        let stage = Authentic { lapsed: None };
        Self {
            shared,
            method,
            credential: Arc::new(credential),
            facts: Arc::new(facts),
            stage,
        }
    }

    /// The same presentation once more, over a reservation that lapsed.
    pub(crate) fn again(&self, lapsed: Option<Stored>) -> Self {
        Self {
            shared: self.shared.clone(),
            method: self.method.clone(),
            credential: self.credential.clone(),
            facts: self.facts.clone(),
            stage: Authentic { lapsed },
        }
    }

    /// Asks the rail whether the proof is good. Read-only.
    ///
    /// What was presented in time and then stalled on our side is judged as of then: its proof may
    /// be the payment, and a payer must not lose it to our outage.
    ///
    /// A proof that comes in time and cannot be judged, since its rail is in trouble or its client
    /// does not wait, is marked as seen and may be judged later. A store that is away keeps no such
    /// mark: there the payer must come again before the challenge lapses.
    pub async fn verify(mut self) -> Result<Payment<Verified>, Refusal> {
        let lapsed = self.stage.lapsed.take();
        let resumed = lapsed.as_ref().map(|stored| &stored.record);
        let resumed = resumed.filter(|record| record.fingerprint == self.facts.fingerprint);
        if let Some(record) = resumed
            && record.method != self.method.name()
        {
            // The offer has changed since, and another instance of the rail has its place.
            let method = self.shared.method(&record.method);
            self.method = method
                .ok_or_else(|| Fault::unavailable("a payment's rail is not configured any more"))?;
        }
        if resumed.is_none() {
            if self.facts.stale {
                let detail = "the offer has changed since; pay a fresh challenge";
                return Err(Rejection::new(Problem::InvalidChallenge, detail).into());
            }
            self.in_time()?;
        }
        let private = match resumed {
            Some(record) => record.private.clone(),
            None => self.private().await?,
        };
        let presented = resumed.map_or_else(|| self.shared.clock.millis(), |r| r.presented);
        let now = Timestamp::from_unix_millis(presented);
        let view = ChannelView::new(self.shared.clone());
        let undecided = Undecided::new(&self, lapsed.as_ref(), private, presented);
        let cx = Presented::new(&self.credential.challenge, &now)
            .by(self.credential.source.as_deref())
            .with_private(undecided.private.as_ref())
            .with_channels(&view);
        // Nothing is claimed yet, so giving up on a rail that hangs costs nobody anything.
        let verdict = self.method.verify(&cx, &self.credential.payload);
        let verdict = timeout(self.shared.timing.settle, verdict).await;
        let hangs = |_| Err(Fault::unavailable("a rail did not verify in time").into());
        let (plan, private) = match verdict.unwrap_or_else(hangs) {
            Ok(plan) => (plan, undecided.decided()),
            Err(refusal) => {
                match &refusal {
                    Refusal::Rejected(rejection) if rejection.problem.status() < 500 => {
                        undecided.decided();
                    }
                    _ => undecided.mark().await,
                }
                return Err(refusal);
            }
        };
        let seen = match &plan {
            AnyPlan::Channel(plan) => view.spent(&plan.channel),
            AnyPlan::Once(_) => None,
        };
        Ok(self.with(Verified {
            lapsed,
            plan,
            private,
            presented,
            seen,
        }))
    }

    /// What the rail kept with the challenge. Its loss is our fault, not the payer's.
    async fn private(&self) -> Result<Option<Value>, Fault> {
        if !self.facts.kept {
            return Ok(None);
        }
        let text = self
            .shared
            .store
            .get(&quote_key(&self.credential.challenge.id))
            .await?;
        let text = text.ok_or_else(|| Fault::new("what was kept with a challenge is gone"))?;
        let value = serde_json::from_str(&text);
        value
            .map(Some)
            .map_err(|_| Fault::new("reading what was kept with a challenge"))
    }
}

/// What the books say of a payment, where its request has it.
#[derive(Default, serde::Deserialize)]
struct Books {
    amount: Option<String>,
    currency: Option<String>,
}

impl Payment<Verified> {
    pub(crate) fn plan(&self) -> &AnyPlan {
        &self.stage.plan
    }

    /// Accepts a voucher: changes the channel's balance and nothing else.
    pub(crate) async fn advance(self) -> Result<(ChannelId, Receipt), Refused> {
        let AnyPlan::Channel(plan) = &self.stage.plan else {
            return Err(Fault::new("a single-use plan cannot advance a channel").into());
        };
        if !plan.proofs.is_empty() {
            return Err(Fault::new("a voucher claims no proof").into());
        }
        let change = ChannelChange {
            id: plan.channel.clone(),
            action: plan.action,
            change: plan.change.clone(),
        };
        balance::apply(&self.shared, self.id(), &change).await?;
        let state = State::Reserved { until: 0 };
        let record = self.record(state, String::new());
        let reference = plan.channel.id().to_owned();
        let receipt = receipt(&self.shared, &record, reference, plan.receipt.clone());
        Ok((plan.channel.clone(), receipt))
    }

    /// Claims, then settles. `None`: somebody else holds the challenge by now.
    pub(crate) async fn carry_out(self) -> Result<Option<Driven>, Refused> {
        match self.reserve().await? {
            Some(reserved) => Ok(Some(reserved.settle().await?)),
            None => Ok(None),
        }
    }

    /// Claims the challenge, then every proof key. `None`: somebody else holds the challenge by
    /// now, or its channel has moved. Single-key swaps suffice: losing the second claim never
    /// pays twice.
    pub async fn reserve(self) -> Result<Option<Payment<Reserved>>, Refused> {
        let (proofs, step, receipt, channel) = match &self.stage.plan {
            AnyPlan::Once(plan) => (&plan.proofs, plan.step.clone(), plan.receipt.clone(), None),
            AnyPlan::Channel(plan) => {
                let step = match &plan.order {
                    Some(order) => Step::Settle(order.clone()),
                    None => Step::Paid {
                        reference: plan.channel.id().to_owned(),
                    },
                };
                let change = ChannelChange {
                    id: plan.channel.clone(),
                    action: plan.action,
                    change: plan.change.clone(),
                };
                // A change that cannot be applied must be refused before money moves for it.
                balance::preview(&self.shared, self.id(), &change).await?;
                (&plan.proofs, step, plan.receipt.clone(), Some(change))
            }
        };
        if proofs.is_empty() && channel.is_none() {
            return Err(Fault::new("a single-use plan claims a proof").into());
        }
        let keys: Vec<String> = proofs
            .iter()
            .map(|proof| proof.as_str().to_owned())
            .collect();
        let closes = channel
            .as_ref()
            .is_some_and(|change| change.action == ChannelAction::Close);
        let seen = self.stage.seen.filter(|_| closes);
        if closes && seen.is_none() {
            return Err(Fault::new("a close that did not look at its channel").into());
        }
        let until = self.shared.after(self.shared.timing.reserve);
        let state = State::Reserved { until };
        let record = Record {
            proofs: keys,
            channel,
            presented: self.stage.presented,
            private: self.stage.private.clone(),
            ..self.record(state, Shared::nonce()?)
        };
        let lapsed = self.stage.lapsed.as_ref();
        let Some(stored) = self.shared.advance(self.id(), lapsed, record).await? else {
            return Ok(None);
        };
        let keeps = claim::keeps(proofs);
        let reserved = self.with(Reserved {
            step,
            receipt,
            stored,
        });
        if !reserved.claim(&keeps).await? {
            return Ok(None);
        }
        match seen {
            Some(seen) => Ok(reserved.freeze(seen).await?.then_some(reserved)),
            None => Ok(Some(reserved)),
        }
    }
}

impl Payment<Reserved> {
    /// Drives the money to a known state. Run it on a task of its own: dropping the future leaves
    /// the rest to the reconciler.
    pub async fn settle(self) -> Result<Driven, Fault> {
        let order = match &self.stage.step {
            Step::Paid { reference } => {
                let receipt = self.stage.receipt.clone();
                let outcome = Outcome::Settled {
                    reference: reference.clone(),
                    receipt,
                };
                return insist(&self.shared, self.id(), &self.stage.stored, outcome).await;
            }
            Step::Settle(order) => order,
        };
        if let Err(expired) = self.in_time() {
            return Ok(match self.release().await? {
                true => Driven::Declined(expired),
                false => Driven::Pending,
            });
        }
        let Some(stored) = self.attempt(order).await? else {
            return Ok(Driven::Pending);
        };
        let shared = &self.shared;
        // The last look at the clock before what cannot be undone; never one after it.
        if let Err(expired) = self.in_time() {
            return insist(shared, self.id(), &stored, Outcome::Declined(expired)).await;
        }
        if let State::Attempted { until, .. } = stored.record.state
            && shared.after(shared.timing.settle_cap) > until
        {
            // The write took so long that others may look the payment up while we settle.
            return insist(shared, self.id(), &stored, Outcome::Unknown).await;
        }
        let key = IdempotencyKey::for_challenge(self.id());
        let settler = self.method.settler();
        let settling = timeout(shared.timing.settle_cap, settler.settle(&key, order));
        let outcome = match effect!("settle", settling.await) {
            Ok(Outcome::Unknown) | Err(_) => {
                let lookup = timeout(shared.timing.settle, settler.lookup(&key, order));
                effect!("lookup", lookup.await).unwrap_or(Outcome::Unknown)
            }
            Ok(known) => known,
        };
        insist(shared, self.id(), &stored, outcome).await
    }

    /// Writes ahead that money may move: on the reconciler's list first, so that the list never
    /// lacks an attempt. `None`: the reservation is not ours any more.
    async fn attempt(&self, order: &StoredOrder) -> Result<Option<Stored>, Fault> {
        let (shared, key) = (&self.shared, todo_key(self.id()));
        let todo = Shared::nonce()?;
        // What an attempt before this one left on the list is replaced.
        let before = shared.store.get(&key).await?;
        let listed = shared.swap_own(&key, before.as_deref(), &todo, None);
        if !effect!("todo.listed", listed.await)? {
            return Ok(None);
        }
        let record = &self.stage.stored.record;
        if let Some(change) = &record.channel
            && change.action == ChannelAction::Close
        {
            // On the list by now, or a crash would leave the channel frozen for ever.
            balance::refreeze(shared, self.id(), &record.claim, change).await?;
        }
        let timing = &shared.timing;
        let attempted = record.with(State::Attempted {
            // Longer than settling and looking up can take, with room for slow clocks and stores.
            until: shared.after(timing.settle_cap + timing.settle + timing.slack),
            todo,
            order: order.clone(),
            receipt: self.stage.receipt.clone(),
            looked: 0,
        });
        shared
            .advance(self.id(), Some(&self.stage.stored), attempted)
            .await
    }
}
