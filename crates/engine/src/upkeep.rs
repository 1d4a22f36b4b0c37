//! What is done with channels between requests: settling what is authorised, closing what is idle,
//! giving back what is owed. The rail says what, and it goes the way of every payment: recorded
//! before it is attempted, looked up where nobody can say.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use farebox_core::{
    AnyErrand, ChannelAction, ChannelId, Due, Fault, Method, Outcome, Refund, Schedule,
    wire::Amount,
};
use serde::Serialize;
use serde_json::Map;
use tokio::{task::JoinSet, time::timeout};

use crate::{
    account::{Account, Closing},
    agenda::DueNow,
    balance,
    batch::Batch,
    conclude::insist,
    engine::{Engine, Shared},
    payment::Driven,
    record::{CHANNEL, ChannelChange, Record, State, Terms, channel_key},
};

/// What a round of upkeep did. Serialised in camel case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Upkept {
    /// Channels whose rails were asked.
    pub asked: usize,
    /// Channels of which something was settled.
    pub settled: usize,
    /// Channels closed.
    pub closed: usize,
    /// Refunds that went out.
    pub refunded: usize,
    /// Errands that came to nothing, or of which nobody can say yet.
    pub open: usize,
}

/// How many channels are looked after at once.
const AT_ONCE: usize = 8;

/// How many errands one look may lead to: a settlement, a close, a refund.
const CHAIN: usize = 3;

/// What an errand came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ran {
    /// Nothing is due, or somebody else is at it.
    Idle,
    /// The rail had nothing to be done.
    Nothing,
    Done(ChannelAction),
    Open,
}

impl Engine {
    /// One round: every channel of which something is due by its rail's [`Schedule`], and every
    /// closed one that owes. Safe at any time and from several processes.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn upkeep(&self) -> Result<Upkept, Fault> {
        self.upkeep_of(true).await
    }

    /// Of `all`, or of those of which this process has not seen that nothing can be due yet.
    pub(crate) async fn upkeep_of(&self, all: bool) -> Result<Upkept, Fault> {
        let shared = &self.shared;
        let mut upkept = Upkept::default();
        let DueNow { settle, other } = shared.due_now(all).await?;
        let other = other.into_iter().map(|channel| (channel, false));
        let mut due: Vec<_> = other.collect();
        for (method, channels) in settle {
            let Some(method) = shared.method(&method) else {
                continue;
            };
            let together = tokio::spawn({
                let shared = shared.clone();
                async move { shared.settle_together(method, channels).await }
            });
            // As below.
            let batch = together.await.unwrap_or_else(|_| Batch::failed());
            upkept.count(batch.ran.iter().map(|ran| vec![*ran]));
            due.extend(batch.alone.into_iter().map(|channel| (channel, true)));
        }
        for batch in due.chunks(AT_ONCE) {
            if self.is_draining() {
                break;
            }
            let mut tasks = JoinSet::new();
            for (channel, at_once) in batch {
                let (shared, channel, at_once) = (shared.clone(), channel.clone(), *at_once);
                tasks.spawn(async move { shared.look_after_channel(&channel, at_once).await });
            }
            // A rail that panics holds up nobody else.
            while let Some(ran) = tasks.join_next().await {
                upkept.count([ran.unwrap_or(vec![Ran::Open])]);
            }
        }
        Ok(upkept)
    }
}

impl Upkept {
    /// Counts what each channel's errands came to.
    fn count(&mut self, channels: impl IntoIterator<Item = Vec<Ran>>) {
        for errands in channels {
            self.asked += usize::from(errands.iter().any(|ran| *ran != Ran::Idle));
            for ran in errands {
                match ran {
                    Ran::Idle | Ran::Nothing => {}
                    Ran::Done(ChannelAction::Settle) => self.settled += 1,
                    Ran::Done(ChannelAction::Close) => self.closed += 1,
                    Ran::Done(_) => self.refunded += 1,
                    Ran::Open => self.open += 1,
                }
            }
        }
    }
}

impl Account {
    /// Why the rail should be asked at `now`, if at all. After an errand that came to nothing, the
    /// next one on its channel waits for `again`.
    fn due(&self, schedule: &Schedule, again: Duration, now: i64) -> Option<Due> {
        let since = |then: i64, span: Duration| {
            u128::try_from(now.saturating_sub(then)).is_ok_and(|past| past >= span.as_millis())
        };
        let busy = |held: &Option<Closing>| held.as_ref().is_some_and(|held| held.until > now);
        if busy(&self.closing) || busy(&self.errand) || !since(self.marks.tried, again) {
            return None;
        }
        let (state, marks) = (&self.state, &self.marks);
        if state.closed {
            // What streams hold may be the payer's or not.
            let owes = state.refund == Refund::Pending && self.leased(now) == 0;
            return (owes && !state.unaccounted().is_zero()).then_some(Due::Owed);
        }
        let unsettled = state.spent.get().saturating_sub(state.settled.get());
        let settle = unsettled > 0
            && (state.close_requested
                || schedule
                    .amount
                    .is_some_and(|amount| unsettled >= amount.get())
                || schedule
                    .units
                    .is_some_and(|n| state.units.saturating_sub(marks.units) >= n.get())
                || schedule
                    .every
                    .is_some_and(|every| since(marks.settled, every)));
        let idle = schedule.idle.is_some_and(|idle| since(state.used, idle));
        if idle && self.leased(now) == 0 {
            Some(Due::Idle)
        } else if settle {
            Some(Due::Settle)
        } else {
            let watch = schedule
                .watch
                .is_some_and(|watch| since(marks.asked, watch));
            watch.then_some(Due::Watch)
        }
    }
}

impl Shared {
    /// How long the next errand on a channel waits after one that came to nothing.
    fn again(&self) -> Duration {
        self.timing.reserve / 2
    }

    pub(crate) fn is_due(&self, account: &Account) -> Option<Due> {
        let method = self.method(&account.method)?;
        account.due(&method.schedule(), self.again(), self.clock.millis())
    }

    /// Has a settlement made that a change has made due, behind the caller's back.
    pub(crate) fn settle_if_due(self: &Arc<Self>, key: &str, account: &Account) {
        if let Some(channel) = key.strip_prefix(CHANNEL) {
            self.agenda.forget(channel);
        }
        let settles = matches!(self.is_due(account), Some(Due::Settle));
        let (true, Some(channel), Ok(_)) = (
            settles && !self.drain.started(),
            key.strip_prefix(CHANNEL).and_then(ChannelId::stored),
            tokio::runtime::Handle::try_current(),
        ) else {
            return;
        };
        self.settle_soon(&account.method, &channel);
    }

    /// Gives back what a closed channel owes, as far as that is known in time.
    pub(crate) async fn give_back_owed(self: &Arc<Self>, channel: &ChannelId) {
        let (shared, channel) = (self.clone(), channel.clone());
        let work = tokio::spawn(async move { shared.look_after_channel(&channel, false).await });
        // What takes longer goes on.
        let _ = timeout(self.timing.settle, work).await;
    }

    /// Does what is due of a channel, and what that makes due. `at_once`: even where an errand came
    /// to nothing a moment ago.
    pub(crate) async fn look_after_channel(
        self: &Arc<Self>,
        channel: &ChannelId,
        at_once: bool,
    ) -> Vec<Ran> {
        let _under_way = self.drain.settling();
        let mut errands = Vec::new();
        for n in 0..CHAIN {
            match self.run(channel, at_once && n == 0).await {
                Ok(Ran::Idle) => break,
                Ok(ran) => {
                    errands.push(ran);
                    if !matches!(ran, Ran::Done(_)) {
                        break;
                    }
                }
                Err(fault) => {
                    tracing::warn!(%fault, "a channel could not be looked after");
                    errands.push(Ran::Open);
                    break;
                }
            }
        }
        errands
    }

    async fn run(self: &Arc<Self>, channel: &ChannelId, at_once: bool) -> Result<Ran, Fault> {
        let key = channel_key(channel);
        let (op, claim) = (Self::nonce()?, Self::nonce()?);
        let Some(account) = self.glance(&key).await? else {
            return Ok(Ran::Idle);
        };
        let Some(method) = self.method(&account.method) else {
            return Ok(Ran::Idle);
        };
        let schedule = method.schedule();
        let begun = self.begin(&key, &schedule, (&op, &claim), at_once);
        let Some((due, account)) = begun.await? else {
            return Ok(Ran::Idle);
        };
        let now = self.clock.millis();
        let view = account.view(now);
        let upkeep = timeout(self.timing.settle, method.upkeep(channel, &view, due)).await;
        let hangs = |_| Err(Fault::unavailable("a rail did not answer in time"));
        let (observed, errand) = match upkeep.unwrap_or_else(hangs) {
            Ok(upkeep) => (upkeep.observed, upkeep.errand),
            Err(fault) => {
                self.end(&key, &op, Some(now)).await?;
                return Err(fault);
            }
        };
        balance::observe(self, channel, &observed).await?;
        let Some(errand) = errand else {
            // What is only watched may be asked about again as the schedule says.
            let tried = (due != Due::Watch).then_some(now);
            self.end(&key, &op, tried).await?;
            return Ok(Ran::Nothing);
        };
        let seen = view.spent;
        let action = errand.action;
        let done = self.carry_out(&*method, channel, errand, (&op, claim), seen);
        match done.await? {
            true => Ok(Ran::Done(action)),
            false => Ok(Ran::Open),
        }
    }

    /// Claims the channel's errands, if one is due.
    pub(crate) async fn begin(
        self: &Arc<Self>,
        key: &str,
        schedule: &Schedule,
        (op, claim): (&str, &str),
        at_once: bool,
    ) -> Result<Option<(Due, Account)>, Fault> {
        let (now, until) = (self.clock.millis(), self.after(self.timing.reserve));
        let pause = match at_once {
            true => Duration::ZERO,
            false => self.again(),
        };
        self.update(key, |account| {
            let mut next = account
                .cloned()
                .ok_or_else(|| Fault::new("a channel is gone"))?;
            if next.errand.as_ref().is_some_and(|errand| errand.op == op) {
                // Written before, and its reply was lost.
                next.errand = None;
                let due = next.due(schedule, pause, now);
                let next = account.cloned().unwrap_or_default();
                return Ok((next.clone(), due.map(|due| (due, next))));
            }
            let Some(due) = next.due(schedule, pause, now) else {
                return Ok((next, None));
            };
            next.errand = Some(Closing {
                op: op.to_owned(),
                claim: claim.to_owned(),
                until,
            });
            next.marks.asked = now;
            Ok((next.clone(), Some((due, next))))
        })
        .await
    }

    /// Nothing comes of the errand `op`.
    pub(crate) async fn end(
        self: &Arc<Self>,
        key: &str,
        op: &str,
        tried: Option<i64>,
    ) -> Result<(), Fault> {
        self.update(key, |account| {
            let mut next = account.cloned().unwrap_or_default();
            if next.errand.take_if(|errand| errand.op == op).is_some() {
                next.marks.tried = tried.unwrap_or(next.marks.tried);
            }
            Ok((next, ()))
        })
        .await
    }

    /// Whether the errand is done. Its channel is held for it, by `op` and `claim`.
    async fn carry_out(
        self: &Arc<Self>,
        method: &dyn Method,
        channel: &ChannelId,
        errand: AnyErrand,
        (op, claim): (&str, String),
        seen: Amount,
    ) -> Result<bool, Fault> {
        let change = ChannelChange {
            id: channel.clone(),
            action: errand.action,
            change: errand.change,
        };
        let terms = self.errand(method, op, claim, change.clone());
        let until = self.after(self.timing.reserve);
        let record = Record::new(terms, State::Reserved { until });
        let Some(reserved) = self.advance(op, None, record).await? else {
            return Ok(false);
        };
        if change.action == ChannelAction::Close
            && !balance::freeze(self, op, &reserved, &change, seen)
                .await
                .unwrap_or(false)
        {
            // Somebody spends or closes it.
            self.abandon(op, &reserved).await?;
            return Ok(false);
        }
        let (from, outcome) = match &errand.order {
            None => (reserved, Outcome::settled(channel.id())),
            Some(order) => {
                let attempted = self.attempt(op, &reserved, order, &Map::new()).await;
                let Some(attempted) = attempted? else {
                    return Ok(false);
                };
                let outcome = match &attempted.record.state {
                    // The write took so long that others may look it up while we settle.
                    State::Attempted { until, .. }
                        if self.after(self.timing.settle_cap) > *until =>
                    {
                        Outcome::Unknown
                    }
                    _ => self.move_money(method, op, order).await,
                };
                (attempted, outcome)
            }
        };
        let concluded = insist(self, op, &from, outcome, None).await?;
        Ok(concluded.driven == Driven::Paid)
    }

    /// The terms of an errand's record: nobody presented it, and nobody collects it.
    pub(crate) fn errand(
        &self,
        method: &dyn Method,
        op: &str,
        claim: String,
        change: ChannelChange,
    ) -> Terms {
        let now = self.clock.millis();
        let moved = match change.action {
            ChannelAction::Refund => change.change.refunded,
            _ => change.change.settled.unwrap_or_default(),
        };
        Terms {
            method: method.name().to_owned(),
            offer: method.offer(),
            fingerprint: String::new(),
            challenge: op.to_owned(),
            expires: now,
            presented: now,
            proofs: Vec::new(),
            claim,
            changed: false,
            private: None,
            amount: Some(moved.to_string()),
            currency: None,
            external_id: None,
            channel: Some(change),
            errand: true,
            text: OnceLock::new(),
        }
    }
}
