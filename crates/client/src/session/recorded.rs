//! Deposits that are on record as under way when their channel is to be closed.
//!
//! What was prepaid and never shown to the server is no part of what it gives back, and the record
//! holds the only copy of the challenge that its proof is good for. So it is shown first.

use farebox_core::{
    Approved, Budget, Draft, Funded, Held, Limit, Paying, SessionPayer, Spending, Standing,
    wire::{Amount, Challenge, Credential, Payload},
};

use super::{
    courier::{Answer, Courier},
    error::SessionError,
    lane::{Lane, cost},
    record::{self, Phase, Record, plus},
    sessions::Sessions,
};
use crate::origin::Origin;

/// How often it is shown before its outcome counts as unknown.
const ATTEMPTS: u32 = 3;

/// Why a channel is kept that the rail or its server says is over.
pub(super) const UNSHOWN: &str = "the channel was closed before its server had seen it";

/// What became of what was under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// The record says now what became of it.
    Changed,
    /// Nothing that the server would have to be shown.
    Nothing,
    /// The server does not take the first deposit. It may have it already.
    Refused,
}

impl Phase {
    /// A top-up of a prepaid channel is only known never to have been made where the rail counts the
    /// channel without it. `Some` with the amount where that is not known.
    pub(super) fn unshown(
        &self,
        spending: Spending,
        standing: &Standing,
        deposit: Amount,
    ) -> Option<Amount> {
        match (self, standing) {
            _ if spending == Spending::Vouchers => None,
            (Self::ToppingUp { .. }, Standing::Open { channel, .. })
                if channel.deposit <= deposit =>
            {
                None
            }
            (
                Self::ToppingUp { .. },
                Standing::Closed {
                    held: Some(held), ..
                },
            ) if *held <= deposit => None,
            (Self::ToppingUp { amount, .. }, _) => Some(*amount),
            _ => None,
        }
    }
}

/// Of one channel.
pub(super) struct Recorded<'a, C> {
    pub(super) sessions: &'a Sessions,
    pub(super) payer: &'a dyn SessionPayer,
    pub(super) lane: &'a Lane,
    pub(super) key: &'a str,
    pub(super) origin: &'a Origin,
    pub(super) courier: &'a C,
}

impl<C: Courier> Recorded<'_, C> {
    /// Sees to what `record` says is under way.
    pub(super) async fn settle(
        &self,
        record: &Record,
        standing: &Standing,
    ) -> Result<Found, SessionError> {
        let spending = self.payer.spending();
        match (record.phase.before(), standing) {
            (Phase::Opening { challenge, .. }, Standing::Open { .. })
                if spending == Spending::Prepaid =>
            {
                let made = self.open(record, challenge).await?;
                self.show(made, &record.resource, record, record.deposit)
                    .await
            }
            (
                Phase::ToppingUp {
                    challenge,
                    amount,
                    at,
                    ..
                },
                Standing::Open { channel, .. },
            ) => {
                let with = plus(record.deposit, *amount);
                if channel.deposit <= record.deposit {
                    if self.over(record, record.deposit, &channel.held).await? {
                        self.lane.release(&record.channel, challenge, *amount);
                    }
                    return Ok(Found::Changed);
                }
                if spending == Spending::Vouchers {
                    self.over(record, with, &channel.held).await?;
                    return Ok(Found::Changed);
                }
                let made = self.top_up(record, challenge, *amount).await?;
                match self.show(made, at, record, with).await? {
                    Found::Refused => Err(lost(*amount, "the server does not take it")),
                    found => Ok(found),
                }
            }
            (phase, standing) => match phase.unshown(spending, standing, record.deposit) {
                Some(amount) if matches!(standing, Standing::Pending) => {
                    Err(lost(amount, "it is still being made"))
                }
                Some(amount) => Err(lost(amount, UNSHOWN)),
                None => Ok(Found::Nothing),
            },
        }
    }

    /// The first deposit again, which the rail says was made.
    async fn open(&self, record: &Record, challenge: &str) -> Result<Made, SessionError> {
        let challenge = parse(challenge)?;
        let cx = Paying::new(&challenge, Some(self.origin.host()));
        let draft = draft(record, record.deposit);
        let approved = approved(record, record.deposit)?;
        let opened = self.payer.open(&cx, &draft, record.signed, approved).await;
        let funded = opened.map_err(|error| lost(record.deposit, error))?;
        Ok(Made {
            challenge,
            funded,
            amount: record.deposit,
        })
    }

    /// So a top-up.
    async fn top_up(
        &self,
        record: &Record,
        challenge: &str,
        amount: Amount,
    ) -> Result<Made, SessionError> {
        let challenge = parse(challenge)?;
        let cx = Paying::new(&challenge, Some(self.origin.host()));
        let approved = approved(record, amount)?;
        let draft = draft(record, amount);
        let added = self.payer.top_up(&cx, &draft, approved).await;
        let funded = added.map_err(|error| lost(amount, error))?;
        Ok(Made {
            challenge,
            funded,
            amount,
        })
    }

    /// Shows it to the server where it was asked for, with which the channel holds `with`.
    async fn show(
        &self,
        made: Made,
        at: &str,
        record: &Record,
        with: Amount,
    ) -> Result<Found, SessionError> {
        let credential = Credential {
            challenge: made.challenge,
            payload: made.funded.paid.payload,
            source: made.funded.paid.source,
        };
        let mut why = String::new();
        for _ in 0..ATTEMPTS {
            match self.courier.deliver_at(at, &credential).await {
                Answer::Accepted(_) => {
                    self.over(record, with, &made.funded.held).await?;
                    return Ok(Found::Changed);
                }
                Answer::Refused { .. } | Answer::NotServed { .. } => return Ok(Found::Refused),
                unclear => why = unclear.unclear(),
            }
        }
        Err(lost(made.amount, why))
    }

    /// Nothing is under way any more. `false` if something else is.
    async fn over(
        &self,
        seen: &Record,
        deposit: Amount,
        held: &Held,
    ) -> Result<bool, SessionError> {
        let changed = record::update(self.sessions.store.as_ref(), self.key, |record| {
            let same = record.phase == seen.phase;
            if same {
                record.phase = Phase::Open;
                record.deposit = deposit;
                record.held = held.clone();
            }
            Ok(same)
        });
        Ok(changed.await?.1)
    }
}

struct Made {
    challenge: Challenge,
    funded: Funded<Payload>,
    amount: Amount,
}

fn parse(challenge: &str) -> Result<Challenge, SessionError> {
    Challenge::parse_one(challenge)
        .map_err(|_| SessionError::NothingPayable("its challenge is lost".to_owned()))
}

fn draft(record: &Record, amount: Amount) -> Draft {
    Draft {
        channel: record.channel.clone(),
        amount,
        held: record.held.clone(),
    }
}

/// It was approved before it was recorded and has been made, so no budget is to allow it again.
fn approved(record: &Record, amount: Amount) -> Result<Approved, SessionError> {
    let limit = Limit::per_request(&record.currency, amount).total(amount);
    let approved = Budget::new([limit]).approve(cost(record, amount));
    let (approved, _) = approved.map_err(SessionError::OverBudget)?;
    Ok(approved)
}

pub(super) fn lost(amount: Amount, why: impl ToString) -> SessionError {
    let why = why.to_string();
    SessionError::OutcomeUnknown { amount, why }
}
