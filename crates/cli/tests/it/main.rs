//! The command as a process.
#![cfg(all(
    feature = "tempo",
    feature = "stripe",
    feature = "lightning",
    feature = "proof"
))]
#![allow(clippy::unwrap_used, reason = "tests may panic")]

#[cfg(all(unix, feature = "sqlite"))]
mod books;
mod command;
mod common;
mod edge_cases;
mod limit;
#[cfg(unix)]
mod operate;
mod reach;
#[cfg(feature = "sqlite")]
mod refund;
#[cfg(unix)]
mod session;
mod shop;
mod upstream;
mod validate;
mod wallets;
