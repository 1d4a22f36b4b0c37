//! Channel values: the running balance behind a session, which the engine owns.

use std::fmt;

use async_trait::async_trait;
use farebox_wire::Amount;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::refusal::Fault;

/// A channel's name, unique over all rails: `method:id`, the id in lower case.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ChannelId(String);

impl ChannelId {
    /// The channel `id` of `rail`. Ids are case-insensitive (hex on every known rail).
    pub fn of(rail: &str, id: &str) -> Self {
        Self(format!("{rail}:{}", id.to_ascii_lowercase()))
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
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelState {
    /// What the payer has put in.
    pub deposit: Amount,
    /// What the payer has signed over so far.
    pub authorized: Amount,
    /// What has been served. Includes blocks that streams have leased and not yet given back.
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

    /// A voucher up to `cumulative`.
    pub fn voucher(cumulative: Amount) -> Self {
        Self {
            authorize: Authorize::To(cumulative),
            ..Self::none()
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
