//! Payment channels, rule by rule.
#![allow(clippy::unwrap_used, reason = "tests may panic")]

mod kit;
mod lifecycle;
#[path = "../peer/mod.rs"]
mod peer;
mod refusals;
mod signers;
