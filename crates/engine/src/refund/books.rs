//! Refunds for the books.

use farebox_core::{Fault, wire::Amount};
use serde::Serialize;

use super::ledger::{BACK, Giving, Ledger, State, read};
use crate::engine::Engine;

/// A payment of which money went back, or may have. Serialised in camel case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct RefundedEntry {
    /// The name its rail goes by on this server.
    pub method: String,
    /// What the payment's receipt calls it.
    pub reference: String,
    /// Base units.
    pub charged: Amount,
    /// As a challenge names it.
    pub currency: String,
    /// How many decimals the currency's usual unit has.
    pub decimals: u8,
    /// What went back, from here or, as far as the rail has told, otherwise.
    pub refunded: Amount,
    /// What was charged less what went back.
    pub net: Amount,
    /// The refunds made from here, in their order.
    pub refunds: Vec<RefundEntry>,
}

/// One refund.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct RefundEntry {
    /// What it is called on this server: repeating it moves nothing.
    pub name: String,
    /// Base units.
    pub amount: Amount,
    /// Where it stands.
    pub state: RefundState,
    /// What the rail calls it, once the money went back.
    pub reference: Option<String>,
    /// Why it did not.
    pub reason: Option<String>,
}

/// Where a refund stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum RefundState {
    /// Money may have gone back; the rail's lookup decides.
    Attempted,
    /// The money went back.
    Done,
    /// It did not.
    Refused,
}

impl RefundState {
    /// As it is serialised: `attempted`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Attempted => "attempted",
            Self::Done => "done",
            Self::Refused => "refused",
        }
    }
}

impl RefundedEntry {
    pub(super) fn of(ledger: &Ledger) -> Self {
        let refunded = ledger.done().saturating_add(ledger.elsewhere.get());
        Self {
            method: ledger.method.clone(),
            reference: ledger.reference.clone(),
            charged: ledger.charged,
            currency: ledger.currency.clone(),
            decimals: ledger.decimals,
            refunded: Amount::new(refunded),
            net: Amount::new(ledger.charged.get().saturating_sub(refunded)),
            refunds: ledger.refunds.iter().map(RefundEntry::of).collect(),
        }
    }
}

impl RefundEntry {
    pub(super) fn of(giving: &Giving) -> Self {
        let (state, reference, reason) = match &giving.state {
            State::Attempted { .. } => (RefundState::Attempted, None, None),
            State::Done { reference } => (RefundState::Done, Some(reference.clone()), None),
            State::Refused { why, .. } => (RefundState::Refused, None, Some(why.clone())),
        };
        Self {
            name: giving.name.clone(),
            amount: giving.order.amount,
            state,
            reference,
            reason,
        }
    }
}

impl Engine {
    /// Every payment of which money went back, or may have, by rail and reference. They outlive the
    /// payments' own records.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn refunds(&self) -> Result<Vec<RefundedEntry>, Fault> {
        let ledgers = self.shared.store.scan(BACK).await?;
        let ledgers = ledgers.iter().map(|(_, text)| read(text));
        ledgers.map(|l| l.map(|l| RefundedEntry::of(&l))).collect()
    }
}
