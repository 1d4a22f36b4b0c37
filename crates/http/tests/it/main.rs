//! Server and client over loopback sockets, with two rails that exist only here.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(
    missing_docs,
    unreachable_pub,
    missing_debug_implementations,
    reason = "nobody depends on a test"
)]

mod booth;
mod browser;
mod client;
mod delivery;
mod hostile;
mod idempotency;
mod page;
mod rails;
mod reach;
mod redirects;
mod script;
mod secrets;
mod sessions;
mod sessions_client;
mod sessions_socket;
mod shop;
mod sockets;
mod streams;
mod support;
mod table;
mod tills;
