//! Paid WebSockets: credentials come in frames, and each message is charged before it is sent.
//!
//! A client asks the route's HTTP form for challenges, then connects without a credential and sends
//! one in its first frame. From then on it sends vouchers when it is told that its balance is
//! exhausted, and gets the handler's messages between. The frames are JSON in text messages:
//!
//! | `mpp` | from | with |
//! |---|---|---|
//! | `authorization` | client | `authorization`: the credential, as in the header |
//! | `payment-close-request` | client | |
//! | `message` | server | `data`: a piece of the stream |
//! | `payment-need-voucher`, or the rail's own | server | `data`: what must be authorised |
//! | `payment-receipt` | server | `data`: the answer to a credential |
//! | `payment-close-ready` | server | `data`: the receipt of the stream; nothing follows but the mark that some rails end with |
//! | `payment-error` | server | `status`, `message` |
//!
//! It is closed with 1000 when the stream is over or the session is closed, 1008 when a payment was
//! refused, and 1011 when it could not be processed.

mod desk;
mod frame;
mod serve;
mod socket;

use axum::http::{HeaderMap, Uri};
use tokio::sync::mpsc;

pub use frame::{Frame, Unreadable};
pub(crate) use serve::{Acceptor, is_upgrade};

/// What a handler of paid WebSockets learns about one.
#[derive(Debug)]
#[non_exhaustive]
pub struct Call {
    /// The address asked for.
    pub uri: Uri,
    /// The request's headers, without its credentials.
    pub headers: HeaderMap,
    /// The client's own messages, those that are not the protocol's. A handler that does not take
    /// them loses those it has no room for.
    pub messages: mpsc::Receiver<String>,
}
