//! What can go wrong between asking and being served.

use std::{error::Error, fmt, time::Duration};

use farebox_client::{ClientError, Payment};
use farebox_core::wire::{FormatError, ParseError, ProblemDetails};
use http::StatusCode;

/// Why a paid request has no response. `E` is what the HTTP client fails with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PayError<E: Error + 'static = reqwest::Error> {
    /// The request failed before payment came up.
    #[error("the request failed, and nothing was paid: {0}")]
    Request(#[source] E),
    /// No challenge was paid, or a wallet lost track of one.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The server asks for payment in a way that cannot be read. Nothing was paid.
    #[error("no challenge of the 402 can be read: {0}")]
    Unreadable(ParseError),
    /// Every challenge is for another body than the request's. Nothing was paid.
    #[error("the challenges are not for this request's body; nothing was paid")]
    OtherBody,
    /// The body is a stream, which cannot be sent a second time. Nothing was paid.
    #[error("a streamed body cannot be sent again with a credential; nothing was paid")]
    StreamedBody,
    /// The request was redirected and is no GET: its method on the way is not known. Nothing was
    /// paid.
    #[error("the request was redirected to {0}; send it there to pay, nothing was paid yet")]
    RedirectedMethod(reqwest::Url),
    /// The credential would go into `Payment-Authorization`, which reqwest carries along on
    /// redirects to other hosts. Nothing was paid.
    #[error(
        "the server wants the credential in Payment-Authorization, which a client that follows \
         redirects could leak; use a client with redirect::Policy::none() and say so with \
         PayOptions::client_follows_no_redirects(); nothing was paid"
    )]
    LeakyHeader,
    /// Paid, and the server answered with another 402. It was not paid again.
    #[error("{0}")]
    NotAccepted(Box<NotAccepted>),
    /// Paid, and no usable answer came. The same credential may be presented again.
    #[error("{0}")]
    OutcomeUnknown(Box<OutcomeUnknown<E>>),
}

/// A payment that the server did not accept.
#[derive(Debug)]
#[non_exhaustive]
pub struct NotAccepted {
    /// What was presented.
    pub payment: Payment,
    /// What the server says about it.
    pub problem: Option<ProblemDetails>,
}

impl fmt::Display for NotAccepted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the server did not accept the payment ({})",
            self.payment.offer()
        )?;
        match &self.problem {
            Some(problem) => write!(f, ": {}: {}", problem.title, problem.detail),
            None => Ok(()),
        }
    }
}

/// A payment whose outcome is not known.
#[derive(Debug)]
#[non_exhaustive]
pub struct OutcomeUnknown<E: Error + 'static> {
    /// What to present again; never pay anew for the same request.
    pub payment: Payment,
    /// How the last attempt failed.
    pub failure: Failure<E>,
    /// When the server wants to be asked again.
    pub retry_after: Option<Duration>,
}

/// How presenting a credential failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure<E: Error + 'static> {
    /// A 5xx.
    #[error("the server answered {0}")]
    Status(StatusCode),
    /// No answer.
    #[error("{0}")]
    Request(#[source] E),
    /// The credential does not fit a header.
    #[error("{0}")]
    Credential(#[source] FormatError),
}

impl<E: Error + 'static> fmt::Display for OutcomeUnknown<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "paid ({}), but the outcome is unknown: {}; present the same credential again",
            self.payment.offer(),
            self.failure
        )
    }
}
