//! More money for an open channel.

use farebox_core::{
    Cost, DepositRule, Draft, Funded, PayError, Paying, Spending, Standing,
    wire::{Amount, Challenge, Credential, Payload},
};

use super::{
    call::Call,
    courier::{Answer, Cause, Courier},
    error::SessionError,
    record::{self, Phase, Record, plus},
};

/// How often a top-up is presented before its outcome counts as unknown.
const ATTEMPTS: u32 = 3;

impl Call {
    /// Sees to it that the channel holds `needed`.
    pub(super) async fn top_up<C: Courier>(
        &mut self,
        needed: Amount,
        courier: &C,
    ) -> Result<(), SessionError> {
        // Top-ups wait for each other, and whoever comes second may find enough.
        let _turn = self.lane.alone().await;
        loop {
            let store = self.sessions.store.as_ref();
            let stored = record::load(store, &self.key).await?;
            let record = stored.ok_or(SessionError::NoChannel)?.record;
            if record.deposit >= needed {
                return self.within(needed, &record);
            }
            if self.took_up(&record, courier).await? {
                continue;
            }
            let draft = self.draft_top_up(&record, needed, courier).await?;
            let amount = draft.amount;
            let funded = self.fund_top_up(draft).await?;
            let at = self.resource.clone();
            self.present_top_up(record, funded, amount, at, courier)
                .await?;
        }
    }

    /// Sees to it that no top-up is on record as under way. `false` if none was.
    pub(super) async fn take_up<C: Courier>(&mut self, courier: &C) -> Result<bool, SessionError> {
        let _turn = self.lane.alone().await;
        let stored = record::load(self.sessions.store.as_ref(), &self.key).await?;
        let record = stored.ok_or(SessionError::NoChannel)?.record;
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
        } = record.phase.clone()
        else {
            return Ok(false);
        };
        if !self.cannot_happen(record, amount).await? {
            let own = self.challenge.clone();
            let at = self.recall(&challenge, at)?;
            let funded = self.fund_again(record, amount).await?;
            let shown = self
                .present_top_up(record.clone(), funded, amount, at.clone(), courier)
                .await;
            if at != self.resource {
                // Another resource's is of no use to the call itself.
                self.challenge = own;
            }
            shown?;
        }
        Ok(true)
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
    async fn cannot_happen(&self, record: &Record, amount: Amount) -> Result<bool, SessionError> {
        let standing = self.payer.standing(&record.held).await;
        match standing.map_err(SessionError::Standing)? {
            Standing::Open { channel, .. } if channel.deposit <= record.deposit => {
                self.topped_up(record.deposit, channel.held).await?;
                self.lane.release(amount);
                Ok(true)
            }
            Standing::Closed { .. } | Standing::Absent => Err(SessionError::Closing),
            _ => Ok(false),
        }
    }

    /// Whether the rail itself says that a recorded top-up was made; then it counts.
    async fn was_topped_up(&self, total: Amount) -> Result<bool, SessionError> {
        let stored = record::load(self.sessions.store.as_ref(), &self.key).await?;
        let held = stored.ok_or(SessionError::NoChannel)?.record.held;
        let standing = self.payer.standing(&held).await;
        match standing.map_err(SessionError::Standing)? {
            Standing::Open { channel, .. } if channel.deposit >= total => {
                self.topped_up(total, channel.held).await?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    async fn topped_up(
        &self,
        deposit: Amount,
        held: farebox_core::Held,
    ) -> Result<(), SessionError> {
        record::update(self.sessions.store.as_ref(), &self.key, |record| {
            if matches!(record.phase, Phase::ToppingUp { .. }) {
                record.phase = Phase::Open;
                record.deposit = record.deposit.max(deposit);
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
    async fn fund_top_up(&self, draft: Draft) -> Result<Funded<Payload>, SessionError> {
        let challenge = self.challenge.to_header();
        let challenge = challenge.map_err(|e| SessionError::NothingPayable(e.to_string()))?;
        let cost = Cost {
            amount: draft.amount,
            ..self.price.unit.clone()
        };
        let approved = self.sessions.budget.approve(cost);
        let (approved, reservation) = approved.map_err(SessionError::OverBudget)?;
        let store = self.sessions.store.as_ref();
        let recorded = record::update(store, &self.key, |record| match record.phase {
            Phase::Open => {
                record.held = draft.held.clone();
                record.phase = Phase::ToppingUp {
                    challenge: challenge.clone(),
                    amount: draft.amount,
                    at: self.resource.clone(),
                };
                Ok(())
            }
            _ => Err(SessionError::Closing),
        });
        if let Err(error) = recorded.await {
            // Nothing is signed yet, so nothing can have moved, whatever the store made of it.
            reservation.release();
            return Err(error);
        }
        self.lane.hold(draft.amount, reservation);
        let cx = Paying::new(&self.challenge, Some(self.origin.host()));
        match self.payer.top_up(&cx, &draft, approved).await {
            Ok(funded) => Ok(funded),
            Err(PayError::Unknown(fault)) => Err(lost(draft.amount, fault.to_string())),
            Err(error) => {
                record::update(store, &self.key, |record| {
                    if matches!(record.phase, Phase::ToppingUp { .. }) {
                        record.phase = Phase::Open;
                    }
                    Ok(())
                })
                .await?;
                self.lane.release(draft.amount);
                Err(SessionError::NotPaid(error))
            }
        }
    }

    /// Goes back to the challenge of a recorded deposit, which was asked for `at` a resource, unless a
    /// fresh one does as well and is needed. Where the deposit is to be shown.
    pub(super) fn recall(&mut self, challenge: &str, at: String) -> Result<String, SessionError> {
        let challenge = Challenge::parse_one(challenge)
            .map_err(|_| SessionError::NothingPayable("its challenge is lost".to_owned()))?;
        let prepaid = self.payer.spending() == Spending::Prepaid;
        if prepaid || !self.sessions.is_expired(&challenge) {
            self.challenge = challenge;
            return Ok(at);
        }
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
        record: Record,
        funded: Funded<Payload>,
        amount: Amount,
        mut at: String,
        courier: &C,
    ) -> Result<(), SessionError> {
        // Until it is accepted the draft stays on record: with it the same is made again.
        let held = funded.held;
        let mut why = String::new();
        for _ in 0..ATTEMPTS {
            // What is signed fits a fresh challenge too, where it is not an invoice's.
            let credential = self.credential(funded.paid.clone());
            match self.deliver(&at, &credential, courier).await {
                Answer::Accepted(receipt) => {
                    self.receipt(receipt.as_deref()).await?;
                    return self.topped_up(plus(record.deposit, amount), held).await;
                }
                Answer::Refused {
                    status, problem, ..
                } => {
                    // It proves nothing: the server may make the top-up whatever it says.
                    let useless = self.sessions.is_expired(&self.challenge)
                        || Cause::of(problem.as_deref()) == Cause::Challenge;
                    if self.payer.spending() == Spending::Prepaid || !useless {
                        return Err(SessionError::NotAccepted { status, problem });
                    }
                    if self.was_topped_up(plus(record.deposit, amount)).await? {
                        return Ok(());
                    }
                    self.another(courier).await?;
                    at = self.resource.clone();
                }
                Answer::NotServed { status } => {
                    return Err(SessionError::NotAccepted {
                        status,
                        problem: None,
                    });
                }
                Answer::Lost(lost) | Answer::Unsent(lost) => why = lost,
            }
        }
        Err(lost(amount, why))
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
