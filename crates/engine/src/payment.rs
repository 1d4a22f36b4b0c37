//! The lifecycle as types: each step consumes the value before it, so settling what was not
//! reserved, or settling twice, does not compile.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use farebox_core::{
    AnyPlan, ChannelAction, ChannelId, Fault, Method, Presented, Refusal, Rejection, Step,
    StoredOrder,
    wire::{Amount, Credential, Problem, Timestamp},
};
use serde_json::{Map, Value};
use tokio::time::timeout;

use crate::{
    balance,
    conclude::receipt,
    drain::UnderWay,
    engine::Shared,
    meter::Meter,
    record::{ChannelChange, Record, State, Stored, Terms, quote_key},
    reply::Keyed,
    verdict::Refused,
    view::ChannelView,
};

mod changed;
mod claim;
mod settle;
mod undecided;

pub(crate) use changed::Offered;
pub(crate) use settle::Carried;
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
    /// What has become of the offer since the challenge was issued.
    pub(crate) offered: Offered,
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

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(crate) fn credential(&self) -> &Credential {
        &self.credential
    }

    pub(crate) fn method(&self) -> &Arc<dyn Method> {
        &self.method
    }

    /// Whether its challenge pays once; otherwise it is for a channel.
    pub(crate) fn is_single_use(&self) -> bool {
        self.method.intent().single_use()
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

    /// The terms of a record that claims nothing yet.
    fn terms(&self, claim: String) -> Terms {
        let challenge = &self.credential.challenge;
        let books: Books = challenge.request.decode().unwrap_or_default();
        Terms {
            method: self.method.name().to_owned(),
            offer: self.method.offer(),
            fingerprint: self.facts.fingerprint.clone(),
            challenge: challenge.id.clone(),
            expires: self.facts.expires,
            presented: self.shared.clock.millis(),
            proofs: Vec::new(),
            claim,
            changed: false,
            private: None,
            amount: books.amount,
            currency: books.currency,
            external_id: self.method.intent().external_id(&challenge.request),
            channel: None,
            errand: false,
            text: OnceLock::new(),
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
    /// Where the offer's fixed terms have changed since, a proof that is the payment is honoured as
    /// issued, and what would have to be settled is refused.
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
            self.may_be_paid()?;
            self.in_time()?;
        }
        let private = match resumed {
            Some(record) => record.private.clone(),
            None => self.private().await?,
        };
        let presented = resumed.map_or_else(|| self.shared.clock.millis(), |r| r.presented);
        let only_paid = self.takes_only_paid(resumed);
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
        let verdict = verdict.unwrap_or_else(hangs);
        // What it saw outside stands even where it refuses.
        view.record().await?;
        let (plan, private) = match verdict {
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
        if only_paid && !changed::is_paid(&plan) {
            return Err(changed::anew().into());
        }
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
    pub(crate) async fn advance(self) -> Result<Meter, Refused> {
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
        let method = self.method.name();
        balance::apply(&self.shared, self.id(), method, &change).await?;
        let record = Record::new(self.terms(String::new()), State::Reserved { until: 0 });
        let reference = plan.channel.id().to_owned();
        let receipt = receipt(&self.shared, &record, reference, plan.receipt.clone());
        let (method, channel) = (self.method.clone(), plan.channel.clone());
        let meter = self
            .shared
            .meter_for(Some(method), channel, &record, Arc::new(receipt), false);
        Ok(meter)
    }

    /// Whether a handler runs for it.
    pub(crate) fn asks_for_service(&self) -> bool {
        match &self.stage.plan {
            AnyPlan::Once(_) => true,
            AnyPlan::Channel(plan) => plan.action.is_service(),
        }
    }

    /// The channel that it closes, if it does.
    pub(crate) fn closes(&self) -> Option<&ChannelId> {
        match &self.stage.plan {
            AnyPlan::Channel(plan) if plan.action == ChannelAction::Close => Some(&plan.channel),
            _ => None,
        }
    }

    /// Whether no rail is needed any more: all that is left is to record it.
    pub(crate) fn is_decided(&self) -> bool {
        match &self.stage.plan {
            AnyPlan::Once(plan) => matches!(plan.step, Step::Paid { .. }),
            AnyPlan::Channel(plan) => plan.order.is_none(),
        }
    }

    /// Claims, settles and, where it is `served`, takes the serving lease. `None`: somebody else
    /// holds the challenge by now.
    pub(crate) async fn carry_out(
        self,
        keyed: Option<Keyed>,
        served: bool,
    ) -> Result<Option<Carried>, Refused> {
        match self.reserve().await? {
            Some(reserved) if served => Ok(Some(reserved.serve(keyed).await?)),
            Some(reserved) => Ok(Some(Carried::Driven(reserved.settle().await?))),
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
                let paid = plan.order.is_none();
                balance::preview(&self.shared, self.id(), &change, paid).await?;
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
        let terms = Terms {
            proofs: keys,
            channel,
            presented: self.stage.presented,
            private: self.stage.private.clone(),
            ..self.terms(Shared::nonce()?)
        };
        let record = Record::new(terms, state);
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
