//! Channels of a rail that believes whatever it is told.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod balance;
mod edge_cases;
mod rail;
