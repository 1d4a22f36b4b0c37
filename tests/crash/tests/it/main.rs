//! Money moved = resources served, whatever dies and whenever.
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(clippy::print_stdout, reason = "figures for whoever compares runs")]

mod anvil;
mod common;
mod effects;
mod kills;
mod outages;
mod replicas;
mod session_kills;
mod sessions;
mod stripe;
