//! One call that is paid from a channel: what to present, and what becomes of it.

use std::{fmt, sync::Arc, time::Duration};

use farebox_core::{
    Paid, Paying, SessionPayer, SessionPrice, Spending, Standing,
    wire::{Amount, Challenge, Credential, Payload, ProblemDetails, Receipt},
};
use serde_json::Value;

use super::{
    courier::{Answer, Cause, Courier, Statement},
    error::SessionError,
    lane::{Lane, Turn},
    limit::DepositLimit,
    open::Found,
    presentation::{Kind, Presentation},
    record::{self, Phase, Raise, Record, key, minus, plus},
    sessions::{Payable, Sessions},
    tab::Tab,
};
use crate::origin::Origin;

/// How often what is presented may be refused before the call gives up.
const REFUSALS: u32 = 4;

/// As long as streams beside the call spend what is signed for it, it is refused more often.
const OVERTAKINGS: u32 = 32;

/// How long such a call waits for them to catch up, times the refusals so far.
const OVERTAKEN: Duration = Duration::from_millis(10);

/// A call under way. Dropping it leaves all it may have cost counted.
pub struct Call {
    pub(super) sessions: Sessions,
    pub(super) payer: Arc<dyn SessionPayer>,
    pub(super) lane: Arc<Lane>,
    pub(super) key: String,
    pub(super) origin: Origin,
    pub(super) resource: String,
    pub(super) challenge: Challenge,
    pub(super) price: SessionPrice,
    pub(super) limit: DepositLimit,
    pub(super) snapshot: Option<Value>,
    pub(super) tab: Arc<Tab>,
    pub(super) served: bool,
    /// Its challenge was gone on with before, so that it may have been paid.
    pub(super) used: bool,
    refusals: u32,
    /// Others were under way when it presented something the last time.
    beside: bool,
    reopened: bool,
    /// What the call itself is worth, before its stream.
    wanted: Amount,
    /// How often the stream has asked since it had delivered so many events.
    pub(super) demanded: (u64, u32),
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("offer", &self.challenge.offer())
            .field("tab", &self.tab)
            .finish_non_exhaustive()
    }
}

impl Call {
    pub(super) fn new(
        sessions: &Sessions,
        payable: Payable,
        origin: &Origin,
        resource: &str,
    ) -> Self {
        let offer = payable.payer.offer();
        let key = key(origin, &offer.method, &payable.price.reuse);
        let wanted = payable.price.unit.amount;
        let lane = sessions.lane(&key);
        Self {
            tab: lane.tabs.open(wanted, payable.limit.most_per_call()),
            lane,
            sessions: sessions.clone(),
            payer: payable.payer,
            key,
            origin: origin.clone(),
            resource: resource.to_owned(),
            challenge: payable.challenge,
            price: payable.price,
            limit: payable.limit,
            snapshot: None,
            served: false,
            used: false,
            refusals: 0,
            beside: false,
            reopened: false,
            wanted,
            demanded: (0, 0),
        }
    }

    /// What [`Sessions::close`] knows its channel by, and
    /// [`ChannelInfo::key`](super::ChannelInfo) says.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// With a challenge that an earlier call went on with. It may have been paid, so nothing is
    /// deposited for it.
    #[must_use]
    pub fn used(mut self) -> Self {
        self.used = true;
        self
    }

    /// With what the server told of a channel beside the challenge. It is checked before it counts.
    #[must_use]
    pub fn snapshot(mut self, snapshot: Value) -> Self {
        self.snapshot = Some(snapshot);
        self
    }

    /// What to present next: a deposit where there is no channel, a voucher otherwise. Tops up
    /// through `courier` where the channel does not hold enough.
    ///
    /// # Errors
    /// See [`SessionError`].
    pub async fn next<C: Courier>(&mut self, courier: &C) -> Result<Presentation, SessionError> {
        loop {
            if let Found::Present(presentation) = self.find(courier).await? {
                return Ok(*presentation);
            }
            self.beside = self.lane.tabs.is_shared(&self.tab);
            let more = minus(self.wanted, self.tab.claim());
            match self.voucher(more, self.refusals > 0, courier).await {
                Ok((credential, target, turn)) => {
                    return Ok(Presentation::new(credential, Kind::Voucher(target), turn));
                }
                // It was over, and is forgotten; another is opened.
                Err(SessionError::NoChannel) if !self.reopened => self.reopen(),
                // All that was presented before was refused.
                Err(error) => {
                    self.end(self.tab.claim()).await?;
                    return Err(error);
                }
            }
        }
    }

    /// Goes on without the channel that the call was counted on.
    fn reopen(&mut self) {
        self.reopened = true;
        self.tab.clear();
    }

    /// What became of a presentation. `true` if it was accepted, `false` if
    /// [`next`](Self::next) has another.
    ///
    /// # Errors
    /// If the call cannot go on; after [`Busy`](SessionError::Busy) it can, later.
    pub async fn answered(
        &mut self,
        presentation: Presentation,
        answer: Answer,
    ) -> Result<bool, SessionError> {
        match (answer, &presentation.kind) {
            (Answer::Accepted(receipt), kind) => {
                if let Kind::Open = kind {
                    self.opened().await?;
                }
                self.served = true;
                if let Err(error) = self.receipt(receipt.as_deref()).await {
                    // What it was served is paid for, and no more of it is wanted.
                    self.end(Amount::new(0)).await?;
                    return Err(error);
                }
                Ok(true)
            }
            // A server that has seen a signed deposit may make it whatever it answers, so this
            // proves nothing: the channel stays on record, and the next call looks into it.
            (
                Answer::Refused {
                    status,
                    problem,
                    challenges,
                },
                Kind::Open,
            ) => {
                drop(presentation);
                if self.was_made().await && self.renew(&challenges).is_ok() {
                    return Ok(false);
                }
                Err(SessionError::NotAccepted { status, problem })
            }
            (
                Answer::Refused {
                    status,
                    problem,
                    challenges,
                },
                Kind::Voucher(target),
            ) => {
                let target = *target;
                // Whoever looks into what happened must not keep the others from going on.
                drop(presentation);
                let refused = self.refused(target, status, problem, &challenges).await;
                if let Err(error) = refused {
                    self.end(self.tab.claim()).await?;
                    return Err(error);
                }
                Ok(false)
            }
            (Answer::NotServed { .. }, Kind::Voucher(_)) => {
                self.lower(self.tab.claim()).await?;
                Ok(true)
            }
            // Whether the deposit was made, the next call finds out.
            (Answer::NotServed { .. }, Kind::Open) => Ok(true),
            // The deposit may have been shown before.
            (unclear, Kind::Open) => Err(self.unknown(unclear.unclear()).await),
            (Answer::Busy { retry_after }, Kind::Voucher(_)) => {
                self.end(self.tab.claim()).await?;
                Err(SessionError::Busy { retry_after })
            }
            (Answer::Lost(why), Kind::Voucher(_)) => Err(SessionError::Unreachable(why)),
            (Answer::Unsent(why), Kind::Voucher(_)) => {
                self.end(self.tab.claim()).await?;
                Err(SessionError::Unreachable(why))
            }
        }
    }

    /// Whether a refused deposit was made all the same: before, when its answer got lost. Then
    /// vouchers do, which is tried once.
    pub(super) async fn was_made(&mut self) -> bool {
        self.refusals += 1;
        if self.refusals > 1 || self.payer.spending() == Spending::Prepaid {
            return false;
        }
        let stored = record::load(self.sessions.store.as_ref(), &self.key).await;
        let Ok(Some(stored)) = stored else {
            return false;
        };
        let standing = self.payer.standing(&stored.record.held).await;
        matches!(standing, Ok(Standing::Open { closing: false, .. }))
    }

    /// A voucher for all that is due with `more`, topping up as needed. One that was overtaken
    /// before is presented while nothing else is.
    pub(super) async fn voucher<C: Courier>(
        &mut self,
        more: Amount,
        alone: bool,
        courier: &C,
    ) -> Result<(Credential, Amount, Turn), SessionError> {
        loop {
            let turn = match alone {
                false => self.lane.shared().await,
                true => self.lane.alone().await,
            };
            let (record, raise) = self.raise(more).await?;
            match raise {
                Raise::To(target) => {
                    self.tab.put_on(&record.channel);
                    let channel = record.channel();
                    let cx = Paying::new(&self.challenge, Some(self.origin.host()));
                    let paid = self.payer.voucher(&cx, &channel, target).await;
                    let paid = paid.map_err(SessionError::NotPaid)?;
                    return Ok((self.credential(paid), target, turn));
                }
                Raise::Short(needed) => {
                    drop(turn);
                    self.top_up(needed, false, courier).await?;
                }
            }
        }
    }

    /// Whether it is the channel that the call is counted on, if it is on any.
    pub(super) fn is_on(&self, record: &Record) -> bool {
        self.tab.is_on(&record.channel)
    }

    async fn raise(&self, more: Amount) -> Result<(Record, Raise), SessionError> {
        let _steady = self.lane.tabs.steady().await;
        let more = self.still(more);
        let cost = plus(self.tab.claim(), more);
        let over = |limit| SessionError::CallLimit { limit };
        self.limit.allows_call(cost).map_err(over)?;
        let (min_delta, cap) = (self.price.min_delta, self.limit.max_deposit());
        let others = self.lane.tabs.collect(&self.tab);
        let all = plus(more, others.sum());
        let begins = self.payer.spending() == Spending::Prepaid && !self.tab.is_uncertain();
        let raised = record::update(self.sessions.store.as_ref(), &self.key, |record| {
            if !self.is_on(record) {
                return Err(SessionError::NoChannel);
            }
            let raise = match record.phase {
                Phase::Open | Phase::ToppingUp { .. } => record.raise(all, min_delta, cap),
                Phase::Closing { .. } => return Err(SessionError::Closing),
                Phase::Opening { .. } => return Err(SessionError::NoChannel),
            };
            if let (Raise::To(_), true) = (raise, begins) {
                record.uncertain = record.uncertain.saturating_add(1);
            }
            Ok(raise)
        });
        match raised.await {
            Ok((record, Raise::To(target))) => {
                self.tab.set_uncertain(begins || self.tab.is_uncertain());
                self.tab.add(more);
                Ok((record, Raise::To(target)))
            }
            // It may be on record.
            Err(error @ SessionError::Store(_)) => Err(error),
            other => {
                others.give_back();
                other
            }
        }
    }

    /// Takes back what was made due and will not be received.
    pub(super) async fn lower(&mut self, by: Amount) -> Result<(), SessionError> {
        let by = by.min(self.tab.claim());
        if by.is_zero() {
            return Ok(());
        }
        let store = self.sessions.store.as_ref();
        let lowered = record::update(store, &self.key, |record| {
            if self.is_on(record) {
                record.lower(by);
            }
            Ok(())
        });
        match lowered.await {
            // It was closed meanwhile.
            Ok(_) | Err(SessionError::NoChannel) => {
                self.tab.take_off(by);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    pub(super) fn credential(&self, paid: Paid<Payload>) -> Credential {
        Credential {
            challenge: self.challenge.clone(),
            payload: paid.payload,
            source: paid.source,
        }
    }

    /// A voucher was refused: what to do about it.
    async fn refused(
        &mut self,
        presented: Amount,
        status: u16,
        problem: Option<Box<ProblemDetails>>,
        challenges: &[Challenge],
    ) -> Result<(), SessionError> {
        self.refusals += 1;
        let cause = Cause::of(problem.as_deref());
        let not_accepted = SessionError::NotAccepted { status, problem };
        // Those that are over by now have made due what they received, and what is presented next
        // covers it.
        let shared =
            cause == Cause::Balance && (self.beside || self.lane.tabs.is_shared(&self.tab));
        if self.refusals > if shared { OVERTAKINGS } else { REFUSALS } {
            return Err(not_accepted);
        }
        if cause == Cause::Gone {
            if self.reopened || !self.is_gone().await? {
                return Err(not_accepted);
            }
            // The record that counted the call is gone too.
            self.reopen();
            self.renew(challenges)?;
            return Ok(());
        }
        let stale = self.sessions.is_expired(&self.challenge);
        let renewed = self.renew(challenges).is_ok();
        let stored = record::load(self.sessions.store.as_ref(), &self.key).await?;
        if stored.is_some_and(|stored| stored.record.signed > presented) {
            // Another call's voucher overtook this one.
            return Ok(());
        }
        let unit = self.price.unit.amount;
        if cause == Cause::Balance && renewed && self.is_used_up().await? {
            return Ok(());
        }
        if cause == Cause::Balance && renewed {
            if self.wanted == unit && (!shared || self.refusals > 1) {
                // The server counts a step more than was counted here; one, and only once.
                self.wanted = plus(unit, unit);
                return Ok(());
            }
            if shared {
                // A stream has spent it, and owes it once its event has arrived here.
                tokio::time::sleep(OVERTAKEN * self.refusals.min(10)).await;
                return Ok(());
            }
        }
        if renewed && (stale || cause == Cause::Challenge) {
            return Ok(());
        }
        Err(not_accepted)
    }

    /// Takes a fresh challenge for the same channel at the same price.
    pub(super) fn renew(&mut self, challenges: &[Challenge]) -> Result<(), SessionError> {
        let payable = self
            .sessions
            .payable_as(&self.key, challenges, &self.origin)?;
        let key = key(
            &self.origin,
            &payable.payer.offer().method,
            &payable.price.reuse,
        );
        if key != self.key || payable.price.unit != self.price.unit {
            let why = "the server now asks for other terms".to_owned();
            return Err(SessionError::NothingPayable(why));
        }
        self.challenge = payable.challenge;
        self.price = payable.price;
        Ok(())
    }

    /// A fresh challenge, unless the present one will do for a message without a body.
    pub(super) async fn fresh<C: Courier>(&mut self, courier: &C) -> Result<(), SessionError> {
        if self.challenge.digest.is_none() && !self.sessions.is_expired(&self.challenge) {
            return Ok(());
        }
        self.another(courier).await
    }

    pub(super) async fn another<C: Courier>(&mut self, courier: &C) -> Result<(), SessionError> {
        let challenges = courier.ask().await.map_err(SessionError::Unreachable)?;
        self.renew(&challenges)
    }

    /// Holds a receipt against what was signed. Only what the server claims too much is an error.
    pub(super) async fn receipt(&self, receipt: Option<&Receipt>) -> Result<(), SessionError> {
        let Some(receipt) = receipt else {
            return Ok(());
        };
        let said = Statement::of(receipt);
        let stored = record::load(self.sessions.store.as_ref(), &self.key).await?;
        let Some(record) = stored.map(|stored| stored.record) else {
            return Ok(());
        };
        self.is_ours(&record, &said.channel)?;
        let accepted = said.accepted.unwrap_or_default();
        if self.payer.spending() == Spending::Vouchers && accepted > record.signed {
            return Err(SessionError::FalseReceipt {
                accepted,
                signed: record.signed,
            });
        }
        Ok(())
    }

    pub(super) fn is_ours(&self, record: &Record, channel: &str) -> Result<(), SessionError> {
        if record.channel.eq_ignore_ascii_case(channel) {
            return Ok(());
        }
        // Someone else's text, and of any length.
        let said: String = channel.chars().take(80).collect();
        Err(SessionError::OtherChannel(said))
    }
}
