//! Channel values: the running balance behind a session, which the engine owns.

use std::fmt;

use async_trait::async_trait;
use farebox_wire::Amount;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::refusal::Fault;

/// A channel's name, unique over all rails.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ChannelId(String);

impl ChannelId {
    /// The channel `id` of `rail`. A rail whose ids have several spellings (hex) passes one of
    /// them, always the same.
    pub fn of(rail: &str, id: &str) -> Self {
        // The length keeps `a`, `b:x` apart from `a:b`, `x`: method names may hold colons.
        Self(format!("{}:{rail}:{id}", rail.len()))
    }

    /// The id without the rail: what receipts name a channel by.
    pub fn id(&self) -> &str {
        let rest = self.0.split_once(':').map_or("", |(_, rest)| rest);
        let length = self
            .0
            .split_once(':')
            .and_then(|(n, _)| n.parse::<usize>().ok());
        length.and_then(|n| rest.get(n + 1..)).unwrap_or(rest)
    }

    /// The stored form.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ChannelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChannelId({})", self.0)
    }
}

/// Where a channel stands. All amounts in the rail's base units.
///
/// What every rail inherits: `authorized` only grows, `spent ≤ authorized ≤ deposit`, and
/// closing is final.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelState {
    /// What the payer has put in.
    pub deposit: Amount,
    /// What the payer has signed over so far.
    pub authorized: Amount,
    /// What has been served. As rails and meters see it, blocks that streams hold are included.
    pub spent: Amount,
    /// No more service; final.
    pub closed: bool,
    /// The rail's own part (the highest voucher, a return invoice).
    pub rail: Value,
}

/// What a presentation may authorise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Authorize {
    /// Leave it.
    Keep,
    /// To this cumulative amount: a voucher. Lower than the present one is refused.
    To(Amount),
    /// By this much more: a deposit that is spendable at once.
    By(Amount),
}

/// How a channel's balances change. Data and not a closure, so that it survives a crash between
/// the settlement that funds it and the record of it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Added to the deposit.
    pub deposit: Amount,
    /// Added to, or set as, the authorised amount.
    pub authorize: Authorize,
    /// Replaces the rail's own part.
    pub rail: Option<Value>,
}

impl Change {
    /// Nothing but the right to spend what is there.
    pub fn none() -> Self {
        Self {
            deposit: Amount::new(0),
            authorize: Authorize::Keep,
            rail: None,
        }
    }

    /// A deposit of `amount` that still needs vouchers.
    pub fn deposit(amount: Amount) -> Self {
        Self {
            deposit: amount,
            ..Self::none()
        }
    }

    /// A deposit of `amount`, all of it spendable at once.
    pub fn prepaid(amount: Amount) -> Self {
        Self {
            deposit: amount,
            authorize: Authorize::By(amount),
            rail: None,
        }
    }

    /// With the rail's own part.
    pub fn with_rail(mut self, rail: Value) -> Self {
        self.rail = Some(rail);
        self
    }
}

/// The rail's own part may hold vouchers and invoices, so `Debug` leaves it out.
impl fmt::Debug for ChannelState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChannelState")
            .field("deposit", &self.deposit)
            .field("authorized", &self.authorized)
            .field("spent", &self.spent)
            .field("closed", &self.closed)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Change")
            .field("deposit", &self.deposit)
            .field("authorize", &self.authorize)
            .finish_non_exhaustive()
    }
}

/// What a voucher may do to a channel: raise what is authorised, and nothing else. It cannot add
/// to the deposit, since it claims no proof.
#[derive(Clone)]
pub struct Voucher {
    change: Change,
}

impl Voucher {
    /// The right to spend what is there: a bearer proof.
    pub fn bearer() -> Self {
        Self {
            change: Change::none(),
        }
    }

    /// Authorised up to `cumulative`.
    pub fn to(cumulative: Amount) -> Self {
        Self {
            change: Change {
                authorize: Authorize::To(cumulative),
                ..Change::none()
            },
        }
    }

    /// With the rail's own part.
    pub fn with_rail(self, rail: Value) -> Self {
        Self {
            change: self.change.with_rail(rail),
        }
    }

    pub(crate) fn into_change(self) -> Change {
        self.change
    }
}

impl fmt::Debug for Voucher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.change, f)
    }
}

/// A read-only view of the channels, for a rail's `verify`.
#[async_trait]
pub trait Channels: Send + Sync {
    /// The channel's present state.
    async fn state(&self, channel: &ChannelId) -> Result<Option<ChannelState>, Fault>;
}

/// The view of a server without channels, and of tests of single-use rails.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoChannels;

#[async_trait]
impl Channels for NoChannels {
    async fn state(&self, _: &ChannelId) -> Result<Option<ChannelState>, Fault> {
        Ok(None)
    }
}
