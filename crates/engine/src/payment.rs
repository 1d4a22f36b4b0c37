//! The lifecycle as types: each step consumes the value before it, so settling what was not
//! reserved, or settling twice, does not compile.

use std::{fmt, sync::Arc};

use farebox_core::{
    AnyPlan, ChannelId, Fault, IdempotencyKey, Method, Outcome, Presented, ProofKey, Refusal,
    Rejection, Step, StoredOrder,
    wire::{Credential, Problem, Receipt},
};
use serde_json::{Map, Value};
use tokio::time::timeout;

use crate::{
    balance,
    engine::Shared,
    meter::ChannelView,
    record::{ChannelChange, Record, State, Stored, proof_key, quote_key, todo_key},
    verdict::Refused,
};

/// A presented credential on its way to being paid.
#[must_use]
pub struct Payment<S> {
    shared: Arc<Shared>,
    method: Arc<dyn Method>,
    credential: Arc<Credential>,
    fingerprint: String,
    expires: i64,
    kept: bool,
    stage: S,
}

/// Its challenge was issued here, for this route, offer, price and body.
#[derive(Debug)]
pub struct Authentic {
    lapsed: Option<Stored>,
}

/// Its rail says that the proof is good.
#[derive(Debug)]
pub struct Verified {
    lapsed: Option<Stored>,
    plan: AnyPlan,
}

/// Its challenge and its proofs are claimed; nobody else can get here with them.
#[derive(Debug)]
pub struct Reserved {
    step: Step<StoredOrder>,
    receipt: Map<String, Value>,
    stored: Stored,
    claimed: Vec<ProofKey>,
}

/// Where the money is; not yet permission to serve.
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
        &self.credential.challenge.id
    }

    pub(crate) fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    fn with<T>(self, stage: T) -> Payment<T> {
        Payment {
            shared: self.shared,
            method: self.method,
            credential: self.credential,
            fingerprint: self.fingerprint,
            expires: self.expires,
            kept: self.kept,
            stage,
        }
    }

    fn in_time(&self) -> Result<(), Rejection> {
        // `expires == now` is expired.
        if self.shared.clock.millis() < self.expires {
            return Ok(());
        }
        Err(Rejection::new(
            Problem::PaymentExpired,
            "the challenge has expired; pay a fresh one",
        ))
    }
}

impl<S> fmt::Debug for Payment<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Payment")
            .field("challenge", &self.id())
            .finish_non_exhaustive()
    }
}

impl Payment<Authentic> {
    pub(crate) fn new(
        shared: Arc<Shared>,
        method: Arc<dyn Method>,
        credential: Credential,
        fingerprint: String,
        expires: i64,
        kept: bool,
    ) -> Self {
        let stage = Authentic { lapsed: None };
        Self {
            shared,
            method,
            credential: Arc::new(credential),
            fingerprint,
            expires,
            kept,
            stage,
        }
    }

    /// The same presentation once more, over a reservation that lapsed.
    pub(crate) fn again(&self, lapsed: Option<Stored>) -> Self {
        Self {
            shared: self.shared.clone(),
            method: self.method.clone(),
            credential: self.credential.clone(),
            fingerprint: self.fingerprint.clone(),
            expires: self.expires,
            kept: self.kept,
            stage: Authentic { lapsed },
        }
    }

    /// What the rail kept with the challenge. Its loss is our fault, not the payer's.
    async fn private(&self) -> Result<Option<Value>, Fault> {
        if !self.kept {
            return Ok(None);
        }
        let text = self.shared.store.get(&quote_key(self.id())).await?;
        let text = text.ok_or_else(|| Fault::new("what was kept with a challenge is gone"))?;
        let value = serde_json::from_str(&text);
        value
            .map(Some)
            .map_err(|_| Fault::new("reading what was kept with a challenge"))
    }

    /// Asks the rail whether the proof is good. Read-only.
    pub async fn verify(mut self) -> Result<Payment<Verified>, Refusal> {
        self.in_time()?;
        let private = self.private().await?;
        let now = self.shared.clock.now();
        let view = ChannelView(self.shared.clone());
        let cx = Presented::new(&self.credential.challenge, &now)
            .by(self.credential.source.as_deref())
            .with_private(private.as_ref())
            .with_channels(&view);
        let plan = self.method.verify(&cx, &self.credential.payload).await?;
        let lapsed = self.stage.lapsed.take();
        Ok(self.with(Verified { lapsed, plan }))
    }
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
        let change = ChannelChange {
            id: plan.channel.clone(),
            action: plan.action,
            change: plan.change.clone(),
        };
        balance::apply(&self.shared, self.id(), &change).await?;
        let record = self.record(State::Reserved { until: 0 }, None);
        let reference = channel_reference(&plan.channel);
        let receipt = receipt(
            &self.shared,
            self.id(),
            &record,
            reference,
            plan.receipt.clone(),
        );
        Ok((plan.channel.clone(), receipt))
    }

    fn record(&self, state: State, channel: Option<ChannelChange>) -> Record {
        let request = self.credential.challenge.request.value();
        let text = |key: &str| request.get(key).and_then(Value::as_str).map(str::to_owned);
        Record {
            method: self.method.name().to_owned(),
            offer: self.method.offer(),
            fingerprint: self.fingerprint.clone(),
            expires: self.expires,
            amount: text("amount"),
            currency: text("currency"),
            external_id: self
                .method
                .intent()
                .external_id(&self.credential.challenge.request),
            channel,
            state,
        }
    }

    /// Claims the challenge, then every proof key. `None`: somebody else holds the challenge by
    /// now. Single-key swaps suffice: losing the second claim never pays twice.
    pub async fn reserve(self) -> Result<Option<Payment<Reserved>>, Refused> {
        let (proofs, step, receipt, channel) = match &self.stage.plan {
            AnyPlan::Once(plan) => (
                plan.proofs.clone(),
                plan.step.clone(),
                plan.receipt.clone(),
                None,
            ),
            AnyPlan::Channel(plan) => {
                let step = match &plan.order {
                    Some(order) => Step::Settle(order.clone()),
                    None => Step::Paid {
                        reference: channel_reference(&plan.channel),
                    },
                };
                let change = ChannelChange {
                    id: plan.channel.clone(),
                    action: plan.action,
                    change: plan.change.clone(),
                };
                // A change that cannot be applied must be refused before money moves for it.
                balance::preview(&self.shared, self.id(), &change).await?;
                (
                    plan.proofs.clone(),
                    step,
                    plan.receipt.clone(),
                    Some(change),
                )
            }
        };
        let until = self.shared.after(self.shared.timing.reserve);
        let record = self.record(State::Reserved { until }, channel);
        let lapsed = self.stage.lapsed.as_ref();
        let Some(stored) = self.shared.advance(self.id(), lapsed, record).await? else {
            return Ok(None);
        };
        let reserved = self.with(Reserved {
            step,
            receipt,
            stored,
            claimed: Vec::new(),
        });
        reserved.claim(proofs).await.map(Some)
    }
}

impl Payment<Reserved> {
    async fn claim(mut self, proofs: Vec<ProofKey>) -> Result<Self, Refused> {
        let left = self
            .expires
            .saturating_sub(self.shared.clock.millis())
            .max(0);
        let left = std::time::Duration::from_millis(left.unsigned_abs());
        for proof in proofs {
            let key = proof_key(proof.as_str());
            // A proof outlives its challenge's record, or the record's end would free it.
            let lapse = left.saturating_add(self.shared.timing.grace);
            let keep = proof.keep().map(|keep| keep.saturating_add(lapse));
            let store = &self.shared.store;
            let won = store
                .compare_and_swap(&key, None, Some(self.id()), keep)
                .await?;
            // Claimed by this very challenge before a crash: still ours.
            if !won && store.get(&key).await?.as_deref() != Some(self.id()) {
                self.release().await?;
                return Err(
                    Rejection::spent("the proof has already paid for something else").into(),
                );
            }
            self.stage.claimed.push(proof);
        }
        Ok(self)
    }

    /// Nothing was attempted: frees the proofs and the challenge.
    async fn release(&self) -> Result<(), Fault> {
        let store = &self.shared.store;
        for proof in &self.stage.claimed {
            let key = proof_key(proof.as_str());
            store
                .compare_and_swap(&key, Some(self.id()), None, None)
                .await?;
        }
        let key = crate::record::pay_key(self.id());
        store
            .compare_and_swap(&key, Some(&self.stage.stored.text), None, None)
            .await?;
        Ok(())
    }

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
                return conclude(&self.shared, self.id(), &self.stage.stored, outcome).await;
            }
            Step::Settle(order) => order,
        };
        // The last look at the clock before what cannot be undone; never one after it.
        if let Err(expired) = self.in_time() {
            self.release().await?;
            return Ok(Driven::Declined(expired));
        }
        let shared = &self.shared;
        // Before `Attempted`, so that the reconciler's list never lacks an attempt.
        let todo = todo_key(self.id());
        shared
            .store
            .compare_and_swap(&todo, None, Some(self.id()), None)
            .await?;
        let attempted = self.stage.stored.record.with(State::Attempted {
            until: shared.after(shared.timing.settle_cap),
            order: order.clone(),
            receipt: self.stage.receipt.clone(),
        });
        let from = Some(&self.stage.stored);
        let Some(stored) = shared.advance(self.id(), from, attempted).await? else {
            return Ok(Driven::Pending);
        };
        let key = IdempotencyKey::for_challenge(self.id());
        let settler = self.method.settler();
        let outcome = match timeout(shared.timing.settle_cap, settler.settle(&key, order)).await {
            Ok(Outcome::Unknown) | Err(_) => {
                let lookup = timeout(shared.timing.settle, settler.lookup(&key, order)).await;
                lookup.unwrap_or(Outcome::Unknown)
            }
            Ok(known) => known,
        };
        conclude(shared, self.id(), &stored, outcome).await
    }
}

/// Records what became of the money. Idempotent: the loser of a race has read the same truth.
pub(crate) async fn conclude(
    shared: &Shared,
    id: &str,
    from: &Stored,
    outcome: Outcome,
) -> Result<Driven, Fault> {
    let (next, driven) = match outcome {
        Outcome::Settled {
            reference,
            receipt: more,
        } => {
            if let Some(change) = &from.record.channel
                && let Err(refused) = balance::apply(shared, id, change).await
            {
                // The funds are in; what they should do to the channel was checked beforehand.
                return match refused {
                    Refused::Fault(fault) => Err(fault),
                    _ => Err(Fault::new("a settled change does not fit its channel")),
                };
            }
            let mut members = match &from.record.state {
                State::Attempted { receipt, .. } => receipt.clone(),
                _ => Map::new(),
            };
            members.extend(more);
            let receipt = receipt(shared, id, &from.record, reference, members);
            (State::Paid { receipt }, Driven::Paid)
        }
        Outcome::Declined(rejection) => (
            State::Declined {
                rejection: rejection.clone(),
            },
            Driven::Declined(rejection),
        ),
        Outcome::Unknown => {
            if let State::Attempted { order, receipt, .. } = &from.record.state {
                // Nobody is at it any more: the next one who asks may look it up.
                let (until, order) = (shared.clock.millis(), order.clone());
                let parked = State::Attempted {
                    until,
                    order,
                    receipt: receipt.clone(),
                };
                shared
                    .advance(id, Some(from), from.record.with(parked))
                    .await?;
            }
            return Ok(Driven::Pending);
        }
    };
    let settled = matches!(from.record.state, State::Attempted { .. });
    shared
        .advance(id, Some(from), from.record.with(next))
        .await?;
    if settled {
        shared
            .store
            .compare_and_swap(&todo_key(id), Some(id), None, None)
            .await?;
    }
    Ok(driven)
}

fn receipt(
    shared: &Shared,
    id: &str,
    record: &Record,
    reference: String,
    members: Map<String, Value>,
) -> Receipt {
    let method = record.offer.method.clone().into_owned();
    let mut receipt = Receipt::new(method, reference, shared.clock.now()).with("challengeId", id);
    if let Some(external_id) = &record.external_id {
        receipt = receipt.with("externalId", external_id.as_str());
    }
    for (key, value) in members {
        receipt = receipt.with(&key, value);
    }
    receipt
}

/// A channel's id without the rail's prefix, which is what receipts name it by.
fn channel_reference(channel: &ChannelId) -> String {
    let text = channel.as_str();
    text.split_once(':').map_or(text, |(_, id)| id).to_owned()
}
