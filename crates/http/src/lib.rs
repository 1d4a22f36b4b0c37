//! MPP over HTTP.
//!
//! On the server, [`PaymentLayer`] puts a price on any `tower` service and
//! hands its handlers a [`Payment`]; `axum` adds the extractor. On the client,
//! [`PayExt`] pays for one `reqwest` request, and `PayMiddleware` for every
//! request of a `reqwest-middleware` client.
//!
//! | feature | gives |
//! |---|---|
//! | `tower` | the layer, for any service over `http` types |
//! | `axum` | the same, with an extractor |
//! | `ws` | paid WebSockets, over axum's |
//! | `page` | what a browser can pay on |
//! | `cors` | what lets pages of other origins pay |
//! | `reqwest` (`client`) | `client.get(url).pay(&purse)`, and sessions by [`SessionClient`] |
//! | `reqwest-middleware` | paying as a middleware |
//! | `client-ws` | WebSockets that are paid from a session |

#[cfg(feature = "reqwest")]
pub mod client;
#[cfg(feature = "cors")]
mod cors;
#[cfg(any(feature = "reqwest", feature = "tower"))]
pub mod event_stream;
mod hosts;
mod network;
mod origins;
#[cfg(feature = "tower")]
pub mod server;

#[cfg(feature = "client-ws")]
pub use client::PaidSocket;
#[cfg(feature = "reqwest-middleware")]
pub use client::PayMiddleware;
#[cfg(feature = "reqwest")]
pub use client::{
    EventStream, PaidFrom, PayError, PayExt, PayOptions, ReceiptExt, SessionCallError,
    SessionClient, SseEvent,
};
#[cfg(feature = "cors")]
pub use cors::cors;
pub use hosts::{Hosts, InvalidHost};
pub use network::Network;
pub use origins::{InvalidOrigin, Origins};
#[cfg(feature = "page")]
pub use server::page::{Look, Page};
#[cfg(feature = "ws")]
pub use server::ws;
#[cfg(feature = "tower")]
pub use server::{
    ChallengeLimit, Event, Metered, Pace, Payment, PaymentLayer, PaymentService, Transport,
};

use http::HeaderName;

/// `Payment-Receipt`, on paid responses.
pub const PAYMENT_RECEIPT: HeaderName = HeaderName::from_static("payment-receipt");

/// `Payment-Session`, the channel that a session's response is paid from.
pub const PAYMENT_SESSION: HeaderName = HeaderName::from_static("payment-session");

/// `Payment-Session-Snapshot`, how that channel stands.
pub const PAYMENT_SESSION_SNAPSHOT: HeaderName =
    HeaderName::from_static("payment-session-snapshot");

/// `Accept-Payment`, on requests.
pub const ACCEPT_PAYMENT: HeaderName = HeaderName::from_static("accept-payment");

/// `Payment-Authorization`, on requests to routes that use `Authorization` themselves.
pub const PAYMENT_AUTHORIZATION: HeaderName = HeaderName::from_static("payment-authorization");

/// `Idempotency-Key`, on requests that may be repeated.
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// `Idempotent-Replayed: true`, on a response that was given before. The draft names no such
/// header; this is the one that is deployed.
pub const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// The header a credential travels in.
#[cfg(any(feature = "tower", feature = "reqwest"))]
pub(crate) fn credential_header(header: farebox_wire::CredentialHeader) -> HeaderName {
    match header {
        farebox_wire::CredentialHeader::Authorization => http::header::AUTHORIZATION,
        farebox_wire::CredentialHeader::PaymentAuthorization => PAYMENT_AUTHORIZATION,
    }
}
