//! The payment page in Chromium, against the sandbox.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod card;
mod goods;
mod late;
mod looks;
mod scope;
mod wallets;
