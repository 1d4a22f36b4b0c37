//! The rail against a chain: the same suite on the sandbox chain and, where `FAREBOX_ANVIL` names
//! the binary, on anvil in Tempo mode.

#![allow(clippy::unwrap_used, reason = "test helpers")]

mod anvil;
mod budget;
mod doubt;
mod failover;
mod net;
mod push;
mod remote;
mod sandbox;
mod splits;
mod sponsored;
mod suite;
mod tamper;
