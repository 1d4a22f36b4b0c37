//! The server's side.
//!
//! ```
//! # fn example(gate: farebox_engine::Gate) -> axum::Router {
//! use axum::{Router, routing::get};
//! use farebox_http::{Payment, PaymentLayer};
//!
//! async fn joke(payment: Payment) -> String {
//!     format!("Paid with {}: why did the chicken cross the road?", payment.receipt.method)
//! }
//!
//! Router::new().route("/joke", get(joke).route_layer(PaymentLayer::new(gate)))
//! # }
//! ```
//!
//! [`PaymentLayer`] is the usual way in. It is made of two functions that anything else can be
//! built from as well: [`admit`], from a request to permission to serve or the answer that refuses
//! it, and [`conclude`], from the handler's response to the one that leaves. [`refuse`] answers for
//! a handler that spends a session's balance and finds too little.
//!
//! | situation | answer |
//! |---|---|
//! | no credential | 402, challenges |
//! | malformed, unknown, forged, expired or for something else; the proof is wrong | 402, fresh challenges |
//! | the session's channel is gone | 410, fresh challenges |
//! | rail not offered here, two credentials | 400 |
//! | used already | 403, no challenge: a fresh one would make the client pay again |
//! | body over the limit | 413 |
//! | repeated under its `Idempotency-Key` | the response it got, `Idempotent-Replayed: true` |
//! | another request under the same key | 422 |
//! | an unusable `Idempotency-Key` | 400 |
//! | not over TLS, where [`Transport`] says so; a browser's preflight | 403 |
//! | too many challenges left unpaid, where a [`ChallengeLimit`] is set | 429 with `Retry-After` |
//! | a session's balance does not cover it | 402, fresh challenges, and what is missing |
//! | it would, and streams hold it | 503 with `Retry-After`, `session/balance-held`; nothing was spent |
//! | outcome not known yet | 503 with `Retry-After`; the same credential may come again |
//! | store or rail fault | 500 or 503, fixed text |
//! | paid, then the handler fails | the handler's status, no receipt; the same credential may come again |
//!
//! Every refusal has an RFC 9457 body and `Cache-Control: no-store`. A receipt goes out on 2xx only,
//! with `Cache-Control: private`.
//!
//! The credential is taken out of the request before the handler sees it.

mod admit;
mod answer;
mod asked;
mod body;
mod conclude;
mod extract;
#[cfg(feature = "axum")]
mod forwarded;
mod headers;
mod key;
mod layer;
mod limit;
mod manage;
mod metered;
#[cfg(feature = "page")]
pub mod page;
pub mod stream;
mod transport;
#[cfg(feature = "ws")]
pub mod ws;

pub use admit::{Admitted, Settings, admit};
pub use answer::refuse;
pub use conclude::{Ticket, conclude};
pub use extract::Payment;
pub use layer::{PaymentFuture, PaymentLayer, PaymentService};
pub use limit::ChallengeLimit;
pub use metered::{EVENT_LIMIT, Metered, Sse, Unpaid, is_event_stream};
#[cfg(feature = "page")]
pub use page::{Look, Page};
pub use stream::{Event, Pace};
pub use transport::Transport;

/// The largest request body that is read before anything is paid, unless set: 2 MiB.
pub const BODY_LIMIT: usize = 2 * 1024 * 1024;

/// The largest response that is kept under an `Idempotency-Key`, unless set: 64 KiB of body.
pub const REPLY_LIMIT: usize = 64 * 1024;
