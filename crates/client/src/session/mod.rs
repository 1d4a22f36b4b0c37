//! Paying as you go: deposits, vouchers, top-ups and closes, without transport types.
//!
//! [`Sessions`] holds session wallets, a [`Budget`], limits and a channel store. One channel serves
//! all calls to one payee by one rail from one origin; calls may run at once, in several processes
//! that share a store. A [`Call`] says what to present and is told what became of it; where a
//! payment message has to travel beside the call, it goes through a [`Courier`].
//!
//! What is signed is bounded by what was received, and not by what a server says: a call is worth
//! one unit, each event of a stream another, and a step ahead may be signed. A channel never holds
//! more than its [`DepositLimit`] allows, and each deposit is approved by the budget, which gets
//! back what a close brings back.
//!
//! What is about to be deposited is recorded before the money can move. After a crash the record
//! finds it again, and while nobody knows whether it moved, nothing else is deposited.

mod call;
mod close;
mod courier;
mod error;
mod file;
mod lane;
mod limit;
mod open;
mod presentation;
mod record;
mod recorded;
mod sessions;
mod stream;
mod tab;
mod top_up;
mod volatile;

pub use call::Call;
pub use close::Closed;
pub use courier::{Answer, Courier, Demand, Statement};
pub use error::SessionError;
pub use file::FileStore;
pub use limit::DepositLimit;
pub use presentation::Presentation;
pub use sessions::{ChannelInfo, Sessions};
pub use stream::Counter;
pub use volatile::VolatileStore;

pub use farebox_core::{Budget, SessionPayer, SessionWallet, Store};
