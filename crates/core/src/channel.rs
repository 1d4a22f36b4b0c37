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

    /// The rail without the id.
    pub fn rail(&self) -> &str {
        self.0
            .strip_suffix(self.id())
            .and_then(|rest| rest.strip_suffix(':'))
            .and_then(|rest| rest.split_once(':'))
            .map_or("", |(_, rail)| rail)
    }

    /// The channel whose [stored form](Self::as_str) this is.
    pub fn stored(text: &str) -> Option<Self> {
        let (length, rest) = text.split_once(':')?;
        let (_, id) = rest.split_at_checked(length.parse().ok()?)?;
        id.starts_with(':').then(|| Self(text.to_owned()))
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
///
/// Once it is closed and all is done, `deposit = settled + refunded`.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ChannelState {
    /// What the payer has put in.
    pub deposit: Amount,
    /// What the payer has signed over so far.
    pub authorized: Amount,
    /// What has been served. As rails and meters see it, blocks that streams hold are included.
    pub spent: Amount,
    /// Of `spent`, what streams hold this moment and may give back. Never stored.
    #[serde(skip)]
    pub held: Amount,
    /// What is the seller's for good: captured on chain, or, of a prepaid deposit, spent at the
    /// close. Never lowered. May be over `spent`, where a whole voucher was settled.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub settled: Amount,
    /// What has gone back to the payer.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub refunded: Amount,
    /// What became of the refund, where one was due.
    #[serde(default, skip_serializing_if = "Refund::is_none")]
    pub refund: Refund,
    /// Units of service served.
    #[serde(default)]
    pub units: u64,
    /// The payer has asked for a close by force: no service until a top-up takes it back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub close_requested: bool,
    /// No more service; final.
    pub closed: bool,
    /// When the payer last did anything or was served, Unix milliseconds.
    #[serde(default)]
    pub used: i64,
    /// The rail's own part (the highest voucher, a return invoice).
    pub rail: Value,
}

fn is_zero(amount: &Amount) -> bool {
    amount.is_zero()
}

impl ChannelState {
    /// What the payer may still spend.
    pub fn available(&self) -> Amount {
        Amount::new(self.authorized.get().saturating_sub(self.spent.get()))
    }

    /// What is neither the seller's nor given back: of a closed channel, what is owed to the payer.
    pub fn unaccounted(&self) -> Amount {
        let gone = self.settled.get().saturating_add(self.refunded.get());
        Amount::new(self.deposit.get().saturating_sub(gone))
    }
}

/// What became of what a closed channel owed its payer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Refund {
    /// None was due, or none yet.
    #[default]
    None,
    /// It is under way.
    Pending,
    /// It has gone back.
    Done,
    /// It did not go back and is not tried again; [`unaccounted`](ChannelState::unaccounted) says
    /// how much is owed.
    Failed,
}

impl Refund {
    fn is_none(&self) -> bool {
        *self == Self::None
    }
}

/// What a rail saw of a channel outside, on its chain. The engine records it whatever else the rail
/// says, and never takes back what only grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Observed {
    /// What is settled there, cumulative.
    pub settled: Option<Amount>,
    /// Whether the payer has asked there for a close by force.
    pub close_requested: Option<bool>,
    /// It is closed there for good, and all that was not settled has gone back to the payer.
    pub closed: bool,
}

impl Observed {
    /// Settled there, cumulative.
    #[must_use]
    pub fn settled(mut self, cumulative: Amount) -> Self {
        self.settled = Some(cumulative);
        self
    }

    /// Whether a close by force was asked for there.
    #[must_use]
    pub fn close_requested(mut self, requested: bool) -> Self {
        self.close_requested = Some(requested);
        self
    }

    /// Closed there for good.
    #[must_use]
    pub fn closed(mut self) -> Self {
        self.closed = true;
        self
    }
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
    /// What is settled then, cumulative. A close that does not say settles what was spent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settled: Option<Amount>,
    /// What has gone back to the payer then; never counted beyond what is unaccounted for.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub refunded: Amount,
}

impl Change {
    /// Nothing but the right to spend what is there.
    pub fn none() -> Self {
        Self {
            deposit: Amount::new(0),
            authorize: Authorize::Keep,
            rail: None,
            settled: None,
            refunded: Amount::new(0),
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
            ..Self::none()
        }
    }

    /// Authorised up to `cumulative` as well: a deposit that comes with its first voucher.
    pub fn authorized(mut self, cumulative: Amount) -> Self {
        self.authorize = Authorize::To(cumulative);
        self
    }

    /// Settled up to `cumulative` by then: what a close captures.
    pub fn settled(mut self, cumulative: Amount) -> Self {
        self.settled = Some(cumulative);
        self
    }

    /// `amount` gone back to the payer by then.
    pub fn refunded(mut self, amount: Amount) -> Self {
        self.refunded = amount;
        self
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
            .field("settled", &self.settled)
            .field("refunded", &self.refunded)
            .field("units", &self.units)
            .field("close_requested", &self.close_requested)
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

    /// Hands in what the rail saw of a channel. Kept even if the presentation is refused.
    fn saw(&self, channel: &ChannelId, observed: Observed);
}

/// The view of a server without channels, and of tests of single-use rails.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoChannels;

#[async_trait]
impl Channels for NoChannels {
    async fn state(&self, _: &ChannelId) -> Result<Option<ChannelState>, Fault> {
        Ok(None)
    }

    fn saw(&self, _: &ChannelId, _: Observed) {}
}
