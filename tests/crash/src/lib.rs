//! Servers killed at every effect, many at once, and stores that go away.
//!
//! A [`World`] is everything around a server: the rails' stand-ins, which know what money moved, an
//! upstream that counts what it served, and wallets. A [`Node`] is a `farebox serve` process that
//! can be killed. A [`Payer`] buys until it has the resource and never pays twice for it. At the
//! end the [`Books`] must balance: as much money moved as there were payers, and each was served.
//! A [`SessionWorld`] sells by the unit, and a [`SessionPayer`] keeps its channel and goes on. A
//! [`TempoWorld`] is the same for one rail on a real chain, whose own account is the measure.

mod address;
mod books;
mod node;
mod payer;
mod session;
mod tempo;
mod world;

pub use address::Address;
pub use books::{Books, Moved};
pub use node::{Node, NodeConfig};
pub use payer::{Bought, Payer, Presented};
pub use session::{
    ChannelBooks, DEPOSIT, Drained, MAX_DEPOSIT, SessionPayer, SessionRail, SessionWorld, Tally,
    Upkeep, balance,
};
pub use tempo::{Anvil, MODES, Mode, Moment, TempoWorld, Wire};
pub use world::{RAILS, World};

/// What went wrong, for people.
pub type Problem = Box<dyn std::error::Error + Send + Sync>;
