//! The payment lifecycle, written once for every rail.
//!
//! ```text
//! Authentic ──verify──▶ Verified ──reserve──▶ Reserved ──settle──▶ Paid ──serve──▶ Delivered
//! HMAC, realm, expiry,  rail decides,         swap challenge,      swap Attempted, one caller at a
//! route, digest; pure   read-only             swap proof key(s)    money moves     time holds a lease
//! ```
//!
//! A record is written *before* each effect, by a compare-and-swap of one key. After `Attempted`
//! only the settler's `lookup` may decide; there is no list of compensations to lose in a crash.
//! `Paid` is not `Delivered`: the same credential collects it, now, on a retry after a lost reply
//! or after a crash.
//!
//! An [`Engine`] holds what a server has once (realm, secrets, store, clock); a [`Gate`] is one
//! paid route. Neither knows a transport or a rail.

#[macro_use]
mod effect;
mod ending;

mod account;
mod agenda;
mod balance;
mod batch;
mod block;
mod books;
mod challenge;
mod conclude;
mod deadline;
mod debits;
mod detached;
mod drain;
mod engine;
mod gate;
mod heartbeat;
mod heed;
mod hub;
mod lease;
mod managed;
mod memory;
mod meter;
mod nonce;
mod page;
mod payment;
mod pulse;
mod recall;
mod reconcile;
mod record;
mod refund;
mod reply;
mod serving;
mod tap;
mod upkeep;
mod verdict;
mod view;
mod withdraw;

pub use balance::BalanceError;
pub use books::{ChannelEntry, Entry, Standing};
pub use drain::Drained;
#[cfg(feature = "failpoints")]
pub use effect::EFFECTS;
pub use engine::{Clock, Engine, EngineBuilder, EngineError};
pub use gate::{Gate, Inbound};
pub use heed::{HeedError, Heeded};
pub use lease::{Charge, Lease};
pub use managed::Managed;
pub use memory::MemoryStore;
pub use meter::{Answered, Meter, MeterError};
pub use page::Preparation;
pub use payment::{Authentic, Driven, Payment, Reserved, Verified};
pub use reconcile::{Reconciled, Reconciler};
pub use refund::{
    GaveBack, RefundEntry, RefundError, RefundRequest, RefundState, RefundedEntry,
    RefundsReconciled,
};
pub use reply::{FREE_REPLY, Kept, Reply};
pub use serving::{Admission, Serving};
pub use tap::{HOLD, Tap};
pub use upkeep::Upkept;
pub use verdict::Refused;
