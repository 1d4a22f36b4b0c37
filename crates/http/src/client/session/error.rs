//! Why a call on a session has no answer.

use farebox_client::session::SessionError;
use reqwest::Response;

use crate::client::PayError;

/// Why a request, stream or socket that is paid from a session did not go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionCallError {
    /// The request failed or cannot be paid for. Nothing was paid.
    #[error(transparent)]
    Unpaid(#[from] PayError),
    /// The session cannot go on.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// A presented voucher has no answer: the server may have taken its one unit. The channel is
    /// good; whether to send the request again is the caller's choice.
    #[error("the paid request has no answer: {0}")]
    Lost(String),
    /// What was paid for is no event stream; it was served, and here it is.
    #[error("the response is no event stream (status {})", .0.status())]
    NotEvents(Box<Response>),
    /// The stream broke off.
    #[error("the stream broke off: {0}")]
    Broken(String),
    /// An event is larger than the limit.
    #[error("an event of the stream is larger than {limit} bytes")]
    TooLarge {
        /// In bytes.
        limit: usize,
    },
    /// The server gave the stream up while it waited for money.
    #[error("the server gave the session up while it waited to be paid")]
    TimedOut,
    /// A payment event cannot be read.
    #[error("a payment event of the stream cannot be read")]
    Unreadable,
    /// The server ended it with an error.
    #[error("the server ended it: {status} {message}")]
    Ended {
        /// As HTTP would have it.
        status: u16,
        /// What it says.
        message: String,
    },
}
