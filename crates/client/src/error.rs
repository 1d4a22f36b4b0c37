//! Why nothing was paid, or why nobody knows.

use std::fmt;

use farebox_core::{BudgetError, Cost, Fault, wire::OfferId};

use crate::origin::Origin;

/// Why there is no [`Payment`](crate::Payment).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The challenge came over plain http from another machine.
    #[error("{0} asks for payment without TLS; only https or this machine is paid")]
    InsecureOrigin(Origin),
    /// Redirects led to another origin, which then asked for payment.
    #[error(
        "{asked} redirected to {reached}, which asks for payment; request that URL itself to pay it"
    )]
    Redirected {
        /// Whom the request was for.
        asked: Origin,
        /// Who asked for payment.
        reached: Origin,
    },
    /// No challenge could be paid. Nothing moved.
    #[error("no challenge was paid: {}", list(.0))]
    NothingPayable(Vec<Skipped>),
    /// A wallet started to pay and cannot tell whether money moved. Nothing else was tried, and
    /// the amount stays counted as spent.
    #[error("the outcome of paying {offer} is unknown, so nothing else is paid: {fault}")]
    OutcomeUnknown {
        /// What was being paid.
        offer: OfferId,
        /// What went wrong.
        #[source]
        fault: Fault,
    },
}

impl ClientError {
    /// The budget's refusal, where it was the budget that stood in the way.
    #[must_use]
    pub fn over_budget(&self) -> Option<&BudgetError> {
        let Self::NothingPayable(skipped) = self else {
            return None;
        };
        skipped.iter().find_map(|skipped| match &skipped.reason {
            Reason::OverBudget(error) => Some(error),
            _ => None,
        })
    }
}

fn list(skipped: &[Skipped]) -> String {
    if skipped.is_empty() {
        return "there was none that can be read".to_owned();
    }
    skipped
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("; ")
}

/// A challenge that was passed over.
#[derive(Debug)]
pub struct Skipped {
    /// What it asked for.
    pub offer: OfferId,
    /// Why it was not paid.
    pub reason: Reason,
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.offer, self.reason)
    }
}

/// Why a challenge was passed over. In each case nothing moved.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// No wallet pays this method and intent.
    #[error("no wallet for it")]
    NoWallet,
    /// The purse's own preferences exclude it.
    #[error("excluded by preference")]
    NotWanted,
    /// It lapsed.
    #[error("expired")]
    Expired,
    /// This purse paid, or tried to pay, the same challenge before.
    #[error("this challenge was paid before")]
    AlreadyPaid,
    /// The wallet cannot pay such a challenge, or its rules forbid it.
    #[error("{0}")]
    Refused(String),
    /// The wallet does not hold enough.
    #[error("the wallet does not hold {} {}", .0.amount, .0.currency)]
    NotFunded(Cost),
    /// A limit would be passed.
    #[error("{0}")]
    OverBudget(BudgetError),
    /// The wallet tried, and is sure that nothing moved.
    #[error("not paid: {0}")]
    NotPaid(Fault),
}
