//! What can go wrong between calling and being served.

use std::{error::Error, fmt, time::Duration};

use farebox_client::ClientError;

use super::caller::Pass;
use crate::{ErrorObject, PaymentError};

/// Why a paid call has no result. `E` is what the transport fails with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PayError<E: Error + 'static> {
    /// There was no answer, and nothing was paid.
    #[error("the call failed, and nothing was paid: {0}")]
    Call(#[source] E),
    /// The server answered with an error that has nothing to do with payment.
    #[error("the server answered: {0}; nothing was paid")]
    Error(#[source] ErrorObject),
    /// No challenge was paid, or a wallet lost track of one.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The server asks for payment in a way that cannot be read. Nothing was paid.
    #[error("no challenge can be read: {0}; nothing was paid")]
    Unreadable(String),
    /// Paid, and the server refuses the credential. It was not paid again.
    #[error("{0}")]
    NotAccepted(Box<NotAccepted>),
    /// Paid, and the call failed for another reason.
    #[error("{0}")]
    Failed(Box<Failed>),
    /// Paid, and no usable answer came. The same credential may be presented again.
    #[error("{0}")]
    OutcomeUnknown(Box<OutcomeUnknown<E>>),
}

/// A payment that the server did not accept.
#[derive(Debug)]
#[non_exhaustive]
pub struct NotAccepted {
    /// What was presented.
    pub pass: Pass,
    /// What the server says about it, with what could be paid instead.
    pub error: PaymentError,
}

impl fmt::Display for NotAccepted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let offer = self.pass.payment().offer();
        write!(f, "the server did not accept the payment ({offer})")?;
        match &self.error.problem {
            Some(problem) => write!(f, ": {}: {}", problem.title, problem.detail),
            None => Ok(()),
        }
    }
}

/// A paid call that failed.
#[derive(Debug)]
#[non_exhaustive]
pub struct Failed {
    /// What was presented. A server that did not serve may take it again for the same call.
    pub pass: Pass,
    /// What the server says.
    pub error: ErrorObject,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let offer = self.pass.payment().offer();
        write!(f, "paid ({offer}), but the call failed: {}", self.error)
    }
}

/// A payment whose outcome is not known.
#[derive(Debug)]
#[non_exhaustive]
pub struct OutcomeUnknown<E: Error + 'static> {
    /// What to present again; never pay anew for the same call.
    pub pass: Pass,
    /// How the last attempt failed.
    pub failure: Failure<E>,
    /// When the server wants to be asked again.
    pub retry_after: Option<Duration>,
}

/// How presenting a credential failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure<E: Error + 'static> {
    /// The server could not process it.
    #[error("{0}")]
    Internal(#[source] ErrorObject),
    /// No answer.
    #[error("{0}")]
    Call(#[source] E),
}

impl<E: Error + 'static> fmt::Display for OutcomeUnknown<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "paid ({}), but the outcome is unknown: {}; present the same credential again",
            self.pass.payment().offer(),
            self.failure
        )
    }
}
