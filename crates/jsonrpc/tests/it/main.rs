//! MPP over JSON-RPC: the codec, the server's table, the client's loop, and rmcp on both sides.

#![allow(
    clippy::unwrap_used,
    missing_debug_implementations,
    missing_docs,
    unreachable_pub,
    reason = "a test may panic, and nobody else uses its items"
)]

mod client;
mod codec;
mod hostile;
mod mcp;
mod server;
mod sessions;
mod support;
/// The rails of HTTP's tests: what a session comes to is the same over either.
#[path = "../../../http/tests/it/tills.rs"]
#[allow(dead_code, reason = "its rail with vouchers is HTTP's alone")]
mod tills;
