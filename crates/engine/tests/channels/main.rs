//! Sessions: what one request and one stream are charged, what is answered without a handler, and
//! what is done between requests.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod agenda;
mod bank;
mod batch;
mod ending;
mod late;
mod manage;
mod meter;
mod model;
mod outage;
mod stalled;
mod upkeep;
