//! More money for an open channel.

use farebox_core::{
    Cost, DepositRule, Draft, Funded, Held, PayError, Paying, Spending, Standing,
    wire::{Amount, Challenge, Credential, Payload},
};

use super::{
    call::Call,
    courier::{Answer, Cause, Courier},
    error::SessionError,
    record::{self, Phase, Record, minus, plus},
    recorded::UNSHOWN,
};

/// A top-up that is on record.
struct UnderWay {
    phase: Phase,
    amount: Amount,
    /// Where it is to be shown.
    at: String,
    /// What the channel holds with it.
    with: Amount,
}

/// How often a top-up is presented before its outcome counts as unknown.
const ATTEMPTS: u32 = 3;

impl Call {
    /// Sees to it that the channel holds `needed`. `asked`: the server itself asks for it, so that it
    /// is there and knows the channel.
    pub(super) async fn top_up<C: Courier>(
        &mut self,
        needed: Amount,
        asked: bool,
        courier: &C,
    ) -> Result<(), SessionError> {
        // Top-ups wait for each other, and whoever comes second may find enough.
        let _turn = self.lane.alone().await;
        let mut asked = asked;
        loop {
            let store = self.sessions.store.as_ref();
            let stored = record::load(store, &self.key).await?;
            let record = stored.ok_or(SessionError::NoChannel)?.record;
            if !self.is_on(&record) {
                return Err(SessionError::NoChannel);
            }
            if record.deposit >= needed {
                return self.within(needed, &record);
            }
            if self.took_up(&record, courier).await? {
                continue;
            }
            if !std::mem::replace(&mut asked, true) {
                self.is_alive(&record, courier).await?;
                continue;
            }
            // Another challenge is asked for, which is of no use to the call itself.
            let own = self.challenge.clone();
            let added = self.add(&record, needed, courier).await;
            self.back_to(own);
            added?;
        }
    }

    async fn add<C: Courier>(
        &mut self,
        record: &Record,
        needed: Amount,
        courier: &C,
    ) -> Result<(), SessionError> {
        let draft = self.draft_top_up(record, needed, courier).await?;
        let under_way = UnderWay {
            phase: Phase::ToppingUp {
                challenge: self.header()?,
                amount: draft.amount,
                at: self.resource.clone(),
                again: 0,
            },
            amount: draft.amount,
            at: self.resource.clone(),
            with: plus(record.deposit, draft.amount),
        };
        let funded = self.fund_top_up(draft, &under_way.phase).await?;
        self.present_top_up(under_way, funded, courier).await
    }

    pub(super) fn header(&self) -> Result<String, SessionError> {
        let header = self.challenge.to_header();
        header.map_err(|error| SessionError::NothingPayable(error.to_string()))
    }

    /// Goes on with a challenge of the call's own, unless another will do longer.
    pub(super) fn back_to(&mut self, own: Challenge) {
        if self.payer.spending() == Spending::Prepaid || !self.sessions.is_expired(&own) {
            self.challenge = own;
        }
    }

    /// Looks whether the channel is still one, before more is put into it: the server may have closed
    /// it, or be away. One that is over is forgotten, and there is [`SessionError::NoChannel`].
    async fn is_alive<C: Courier>(
        &mut self,
        record: &Record,
        courier: &C,
    ) -> Result<(), SessionError> {
        let standing = self.payer.standing(&record.held).await;
        let standing = standing.map_err(SessionError::Standing)?;
        if let Standing::Closed { .. } = standing {
            return self.forget_over(record, &standing).await;
        }
        if self.payer.spending() == Spending::Vouchers {
            return Ok(());
        }
        // Only its server knows of a deposit that was used up; saying whose it is costs nothing.
        let cx = Paying::new(&self.challenge, Some(self.origin.host()));
        let channel = record.channel();
        let bearer = self.payer.voucher(&cx, &channel, record.signed).await;
        let bearer = self.credential(bearer.map_err(SessionError::NotPaid)?);
        match courier.deliver(&bearer).await {
            Answer::Refused {
                status, problem, ..
            } if Cause::of(problem.as_deref()) == Cause::Gone => {
                match self.over(Some(&record.channel)).await? {
                    true => Err(SessionError::NoChannel),
                    false => Err(SessionError::NotAccepted { status, problem }),
                }
            }
            Answer::Lost(why) | Answer::Unsent(why) => Err(SessionError::Unreachable(why)),
            _ => Ok(()),
        }
    }

    /// Forgets a channel that is closed by all evidence.
    async fn forget_over(&self, record: &Record, standing: &Standing) -> Result<(), SessionError> {
        let spending = self.payer.spending();
        if let Some(amount) = record.phase.unshown(spending, standing, record.deposit) {
            return Err(lost(amount, UNSHOWN.to_owned()));
        }
        let stored = record::load(self.sessions.store.as_ref(), &self.key).await?;
        if let (Standing::Closed { taken, .. }, Some(stored)) = (standing, stored)
            && stored.record.channel == record.channel
            && stored.record.phase == record.phase
        {
            self.retire(&stored, *taken).await?;
        }
        Err(SessionError::NoChannel)
    }

    /// Sees to it that no top-up is on record as under way. `false` if none was.
    pub(super) async fn take_up<C: Courier>(&mut self, courier: &C) -> Result<bool, SessionError> {
        let _turn = self.lane.alone().await;
        let stored = record::load(self.sessions.store.as_ref(), &self.key).await?;
        let record = stored.ok_or(SessionError::NoChannel)?.record;
        if !self.is_on(&record) {
            return Err(SessionError::NoChannel);
        }
        self.took_up(&record, courier).await
    }

    /// Takes up a recorded top-up, or strikes it out. `false` if there is none.
    async fn took_up<C: Courier>(
        &mut self,
        record: &Record,
        courier: &C,
    ) -> Result<bool, SessionError> {
        let Phase::ToppingUp {
            challenge,
            amount,
            at,
            ..
        } = &record.phase
        else {
            return Ok(false);
        };
        let (challenge, amount, at) = (challenge.clone(), *amount, at.clone());
        if self.cannot_happen(record).await? {
            return Ok(true);
        }
        let Some(phase) = self.mark_taken_up(&record.phase).await? else {
            return Ok(true);
        };
        let own = self.challenge.clone();
        let under_way = UnderWay {
            phase,
            amount,
            at: self.recall(&challenge, at, courier).await?,
            with: plus(record.deposit, amount),
        };
        let shown = match self.fund_again(record, amount).await {
            Ok(funded) => self.present_top_up(under_way, funded, courier).await,
            Err(error) => Err(error),
        };
        self.back_to(own);
        shown.map(|()| true)
    }

    /// From now on its first maker cannot strike it out any more. `None` if it has changed.
    pub(super) async fn mark_taken_up(&self, seen: &Phase) -> Result<Option<Phase>, SessionError> {
        let marked = record::update(self.sessions.store.as_ref(), &self.key, |record| {
            let same = record.phase == *seen;
            if same {
                record.phase = seen.taken_up();
            }
            Ok(same)
        });
        let (record, same) = marked.await?;
        Ok(same.then_some(record.phase))
    }

    fn within(&self, needed: Amount, record: &Record) -> Result<(), SessionError> {
        let max_deposit = self.limit.max_deposit();
        if needed <= max_deposit {
            return Ok(());
        }
        Err(SessionError::MaxDeposit {
            needed,
            max_deposit,
            currency: record.currency.clone(),
        })
    }

    /// Whether a recorded top-up has become impossible; then it is struck out.
    async fn cannot_happen(&self, record: &Record) -> Result<bool, SessionError> {
        let standing = self.payer.standing(&record.held).await;
        let standing = standing.map_err(SessionError::Standing)?;
        match standing {
            Standing::Open { channel, .. } if channel.deposit <= record.deposit => {
                let struck = record::update(self.sessions.store.as_ref(), &self.key, |now| {
                    let same = now.phase == record.phase;
                    if same {
                        now.phase = Phase::Open;
                        now.held = channel.held.clone();
                    }
                    Ok(same)
                });
                if struck.await?.1
                    && let Phase::ToppingUp {
                        challenge, amount, ..
                    } = &record.phase
                {
                    self.lane.release(&record.channel, challenge, *amount);
                }
                Ok(true)
            }
            Standing::Closed { .. } => self.forget_over(record, &standing).await.map(|()| true),
            Standing::Absent => Err(SessionError::Closing),
            _ => Ok(false),
        }
    }

    /// Whether the rail itself says that a recorded top-up was made; then it counts.
    async fn was_topped_up(&self, under_way: &UnderWay) -> Result<bool, SessionError> {
        let stored = record::load(self.sessions.store.as_ref(), &self.key).await?;
        let held = stored.ok_or(SessionError::NoChannel)?.record.held;
        let standing = self.payer.standing(&held).await;
        match standing.map_err(SessionError::Standing)? {
            Standing::Open { channel, .. } if channel.deposit >= under_way.with => {
                self.topped_up(under_way, channel.held).await?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    async fn topped_up(&self, under_way: &UnderWay, held: Held) -> Result<(), SessionError> {
        record::update(self.sessions.store.as_ref(), &self.key, |record| {
            let before = minus(under_way.with, under_way.amount);
            if record.deposit == before && record.phase.is_same(&under_way.phase) {
                record.phase = Phase::Open;
                record.deposit = record.deposit.max(under_way.with);
                record.held = held.clone();
            }
            Ok(())
        })
        .await?;
        Ok(())
    }

    async fn draft_top_up<C: Courier>(
        &mut self,
        record: &Record,
        needed: Amount,
        courier: &C,
    ) -> Result<Draft, SessionError> {
        // An invoice pays for one top-up only, and only what has been asked for without a body
        // may be answered without one.
        match self.payer.spending() {
            Spending::Prepaid => self.another(courier).await?,
            Spending::Vouchers => self.fresh(courier).await?,
        }
        let max_deposit = self.limit.max_deposit();
        let additional = match self.price.deposit {
            DepositRule::Exactly(amount) => amount,
            DepositRule::Any { suggested } => {
                let usual = suggested.unwrap_or(record.deposit);
                self.limit.adding(record.deposit, usual, needed)
            }
        };
        let after = plus(record.deposit, additional);
        let short = after < needed && self.payer.spending() == Spending::Vouchers;
        if additional.is_zero() || after > max_deposit || short {
            return Err(self.past_the_limit(record, needed.max(after)));
        }
        let cost = Cost {
            amount: additional,
            ..self.price.unit.clone()
        };
        let check = self.sessions.budget.check(&cost);
        check.map_err(SessionError::OverBudget)?;
        if !self.payer.funded(&cost).await {
            return Err(SessionError::NotFunded(cost));
        }
        let cx = Paying::new(&self.challenge, Some(self.origin.host()));
        let channel = record.channel();
        let draft = self.payer.draft_top_up(&cx, &channel, additional).await;
        let draft = draft.map_err(SessionError::NotPaid)?;
        if draft.amount != additional || draft.channel != record.channel {
            let why = "the wallet drafted another top-up".to_owned();
            return Err(SessionError::NotPaid(PayError::Refused(why)));
        }
        Ok(draft)
    }

    fn past_the_limit(&self, record: &Record, needed: Amount) -> SessionError {
        SessionError::MaxDeposit {
            needed,
            max_deposit: self.limit.max_deposit(),
            currency: record.currency.clone(),
        }
    }

    /// Records a top-up, then makes it.
    async fn fund_top_up(
        &self,
        draft: Draft,
        phase: &Phase,
    ) -> Result<Funded<Payload>, SessionError> {
        let cost = Cost {
            amount: draft.amount,
            ..self.price.unit.clone()
        };
        let approved = self.sessions.budget.approve(cost);
        let (approved, reservation) = approved.map_err(SessionError::OverBudget)?;
        let store = self.sessions.store.as_ref();
        let recorded = record::update(store, &self.key, |record| match record.phase {
            Phase::Open if record.channel == draft.channel => {
                record.held = draft.held.clone();
                record.phase = phase.clone();
                Ok(())
            }
            _ => Err(SessionError::Closing),
        });
        if let Err(error) = recorded.await {
            // Nothing is signed yet, so nothing can have moved, whatever the store made of it.
            reservation.release();
            return Err(error);
        }
        let deposit = (&*draft.channel, phase.challenge().unwrap_or_default());
        self.lane.hold(deposit, draft.amount, reservation);
        let cx = Paying::new(&self.challenge, Some(self.origin.host()));
        match self.payer.top_up(&cx, &draft, approved).await {
            Ok(funded) => Ok(funded),
            Err(PayError::Unknown(fault)) => Err(lost(draft.amount, fault.to_string())),
            Err(error) => {
                let struck = record::update(store, &self.key, |record| {
                    // Whoever took it up may be making it.
                    let same = record.phase == *phase;
                    if same {
                        record.phase = Phase::Open;
                    }
                    Ok(same)
                });
                if !struck.await?.1 {
                    return Err(lost(draft.amount, error.to_string()));
                }
                self.lane.release(deposit.0, deposit.1, draft.amount);
                Err(SessionError::NotPaid(error))
            }
        }
    }

    /// Goes back to the challenge of a recorded deposit, which was asked for `at` a resource, unless a
    /// fresh one does as well and is needed. Where the deposit is to be shown.
    pub(super) async fn recall<C: Courier>(
        &mut self,
        challenge: &str,
        at: String,
        courier: &C,
    ) -> Result<String, SessionError> {
        let challenge = Challenge::parse_one(challenge)
            .map_err(|_| SessionError::NothingPayable("its challenge is lost".to_owned()))?;
        let prepaid = self.payer.spending() == Spending::Prepaid;
        if prepaid || !self.sessions.is_expired(&challenge) {
            self.challenge = challenge;
            return Ok(at);
        }
        self.fresh(courier).await?;
        Ok(self.resource.clone())
    }

    /// Takes up a recorded top-up whose outcome got lost: the very same again.
    async fn fund_again(
        &mut self,
        record: &Record,
        amount: Amount,
    ) -> Result<Funded<Payload>, SessionError> {
        let approved = self.lane.again(record, amount, &self.sessions.budget)?;
        let draft = Draft {
            channel: record.channel.clone(),
            amount,
            held: record.held.clone(),
        };
        let cx = Paying::new(&self.challenge, Some(self.origin.host()));
        let funded = self.payer.top_up(&cx, &draft, approved).await;
        // An earlier attempt may have got further, so whatever is said now, it stays on record.
        funded.map_err(|error| lost(amount, error.to_string()))
    }

    async fn present_top_up<C: Courier>(
        &mut self,
        mut under_way: UnderWay,
        funded: Funded<Payload>,
        courier: &C,
    ) -> Result<(), SessionError> {
        // Until it is accepted the draft stays on record: with it the same is made again.
        let held = funded.held;
        let mut why = String::new();
        for _ in 0..ATTEMPTS {
            // What is signed fits a fresh challenge too, where it is not an invoice's.
            let credential = self.credential(funded.paid.clone());
            let (status, problem) = match self.deliver(&under_way.at, &credential, courier).await {
                Answer::Accepted(receipt) => {
                    self.topped_up(&under_way, held).await?;
                    return self.receipt(receipt.as_deref()).await;
                }
                Answer::Refused {
                    status, problem, ..
                } => (status, problem),
                Answer::NotServed { status } => (status, None),
                unclear => {
                    why = unclear.unclear();
                    continue;
                }
            };
            // It proves nothing: the server may make the top-up, or have made it, whatever it says.
            let prepaid = self.payer.spending() == Spending::Prepaid;
            if !prepaid && let Ok(true) = self.was_topped_up(&under_way).await {
                return Ok(());
            }
            let useless = self.sessions.is_expired(&self.challenge)
                || Cause::of(problem.as_deref()) == Cause::Challenge;
            if prepaid || !useless {
                return Err(SessionError::NotAccepted { status, problem });
            }
            self.another(courier).await?;
            under_way.at.clone_from(&self.resource);
        }
        Err(lost(under_way.amount, why))
    }

    /// Shows a deposit at the resource that asked for it.
    pub(super) async fn deliver<C: Courier>(
        &self,
        at: &str,
        credential: &Credential,
        courier: &C,
    ) -> Answer {
        match at == self.resource {
            true => courier.deliver(credential).await,
            false => courier.deliver_at(at, credential).await,
        }
    }
}

fn lost(amount: Amount, why: String) -> SessionError {
    SessionError::OutcomeUnknown { amount, why }
}
