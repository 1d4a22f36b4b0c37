//! The paying side without transport types: which challenge to pay, whether the budget allows it,
//! and what became of it.
//!
//! A [`Purse`] holds wallets and a [`Budget`]. Given the challenges of a 402
//! and the [`Origin`] that sent them, [`Purse::pay`] pays at most one of them, at most once per
//! challenge, and answers a [`Payment`] to present. `farebox-http` builds the HTTP loop on it.
//!
//! Whether to pay is decided here and never by a wallet: not over plain http (loopback excepted),
//! not after a redirect to another origin, not an expired challenge, not over budget. Once a wallet
//! cannot tell whether money moved, nothing else is paid for the same request.
//!
//! [`session`] pays call by call out of channels, which outlive the call and the process.

mod error;
mod origin;
mod payment;
mod purse;
pub mod session;

pub use error::{ClientError, Reason, Skipped};
pub use origin::Origin;
pub use payment::Payment;
pub use purse::Purse;

pub use farebox_core::{Approved, Budget, BudgetError, Cost, Limit, Payer, Wallet};
