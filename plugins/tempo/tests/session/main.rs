//! Sessions on the sandbox's chain, through the engine.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod bad;
mod batch;
mod conformance;
mod kit;
mod life;
mod payer;
