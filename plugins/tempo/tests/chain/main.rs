//! The rail against a chain: the same tests on the sandbox chain and, where `FAREBOX_ANVIL` names
//! the binary, on anvil in Tempo mode, but for those that `anvil` lists. The other files of `tests`
//! are about bytes that the rail and its wallet read and write, whatever the chain.

#![allow(clippy::unwrap_used, reason = "test helpers")]

mod anvil;
mod budget;
mod doubt;
mod failover;
mod ground;
mod keys;
mod net;
mod push;
mod remote;
mod sandbox;
mod splits;
mod sponsored;
mod suite;
mod swap;
mod tamper;
