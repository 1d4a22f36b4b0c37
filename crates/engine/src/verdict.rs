//! Why a presentation is not served, in terms that map one to one to an answer.

use std::time::Duration;

use farebox_core::{Fault, Refusal, Rejection, wire::Problem};

use crate::meter::MeterError;

/// Why a presentation is not served.
#[derive(Debug)]
pub enum Refused {
    /// The payer's fault: 402, with the problem and fresh challenges.
    Payment(Rejection),
    /// The request itself is wrong: 400, no challenge.
    Request(Rejection),
    /// Already used, by someone else or up to delivery: 403. No challenge, since a fresh one would
    /// make an honest client pay again.
    Spent(Rejection),
    /// An `Idempotency-Key` came back with another request: 422, no challenge.
    Conflict(Rejection),
    /// Not decided yet, or being served this moment, or the server drains: 503 with `Retry-After`, no challenge. The
    /// same credential may come again.
    Pending {
        /// When.
        retry_after: Duration,
    },
    /// Streams hold the balance that would do: 503 with `Retry-After`, no challenge. Nothing was spent.
    Busy {
        /// When.
        retry_after: Duration,
    },
    /// Ours: 500, or 503 if it passes; fixed text, no challenge.
    Fault(Fault),
}

impl Refused {
    pub(crate) fn pending() -> Self {
        Self::Pending {
            retry_after: Duration::from_secs(1),
        }
    }

    /// This process takes no more payments; another one, or the next, does.
    pub(crate) fn draining() -> Self {
        Self::Pending {
            retry_after: Duration::from_secs(2),
        }
    }
}

impl From<Rejection> for Refused {
    /// The problem's own status decides: only 402 (and 410, a channel that is gone) brings a
    /// fresh challenge.
    fn from(rejection: Rejection) -> Self {
        match rejection.problem.status() {
            _ if rejection.spent => Self::Spent(rejection),
            402 | 410 => Self::Payment(rejection),
            403 => Self::Spent(rejection),
            422 => Self::Conflict(rejection),
            500.. => Self::Fault(Fault::new("a rail blamed the payer for a server's problem")),
            _ => Self::Request(rejection),
        }
    }
}

impl From<Fault> for Refused {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl MeterError {
    /// The balance does not cover what is asked for, and what is missing.
    pub(crate) fn insufficient(&self, problem: Problem) -> Rejection {
        let rejection = Rejection::new(problem, self.to_string());
        match self {
            Self::Exhausted {
                required,
                authorized,
                ..
            } => {
                let missing = required.get().saturating_sub(authorized.get());
                rejection.member("requiredTopUp", missing.to_string())
            }
            _ => rejection,
        }
    }
}

impl From<MeterError> for Refused {
    /// A balance that does not cover what is asked for is the payer's to raise.
    fn from(error: MeterError) -> Self {
        match error {
            MeterError::Exhausted { .. } => {
                let problem = Problem::rail("session", "insufficient-balance");
                error.insufficient(problem).into()
            }
            MeterError::Busy { retry_after } => Self::Busy { retry_after },
            MeterError::Channel(error) => error.into(),
            MeterError::Fault(fault) => fault.into(),
        }
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Rejected(rejection) => rejection.into(),
            Refusal::Fault(fault) => fault.into(),
        }
    }
}
