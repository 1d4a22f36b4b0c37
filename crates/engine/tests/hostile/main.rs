//! What hostile payers, crashes, slow stores and second replicas try. Each test's name says what
//! is protected.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod books;
mod cancelled;
mod changed_terms;
mod collect;
mod common;
mod crash_channel;
mod deadline;
mod drain;
mod dynamic_price;
mod idempotency;
mod lost_replies;
mod outage;
mod races;
mod rails;
mod refunds;
mod replicas;
mod retention;
mod sessions;
mod simulation;
mod undecided;
