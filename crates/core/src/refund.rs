//! Giving money back after it was served for: the seller's own motion, which the protocol knows
//! nothing of.
//!
//! A rail that can says what there is to give back ([`Settle::refundable`]) and carries out orders
//! ([`Settle::refund`]); the engine writes each one down first, under a key that is the same for
//! every attempt, and never exceeds what was charged. What a session's deposit has left is another
//! matter, see [`Upkeep::refund`](crate::Upkeep::refund).
//!
//! [`Settle::refundable`]: crate::Settle::refundable
//! [`Settle::refund`]: crate::Settle::refund

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use farebox_wire::Amount;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::refusal::Fault;

/// One per refund, the same for every attempt and every lookup. Made of the payment's
/// [name](PaymentName) and the operator's name for the refund, so that the same call made twice moves
/// money once.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RefundKey(String);

impl RefundKey {
    /// The key of attempt number `attempt` at the refund `name` of the payment that is called
    /// `reference` within `scope`: at its provider, or on its rail.
    pub fn new(scope: &str, reference: &str, name: &str, attempt: u32) -> Self {
        let mut digest = Sha256::new();
        for part in [scope, reference, name] {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        }
        let digest = digest.chain_update(attempt.to_be_bytes()).finalize();
        Self(format!("refund_{}", URL_SAFE_NO_PAD.encode(digest)))
    }

    /// The key as text: `refund_` and 43 base64url characters.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RefundKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The one name of a payment, however an operator spells it: its refunds are kept under this name,
/// so two spellings of one payment meet one record, whose sum never exceeds what was charged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PaymentName {
    provider: Option<&'static str>,
    reference: String,
}

impl PaymentName {
    /// A reference that is unique among the payments of one rail, as it is configured.
    pub fn of_rail(reference: impl Into<String>) -> Self {
        Self {
            provider: None,
            reference: reference.into(),
        }
    }

    /// A reference that is unique at a provider, so that every rail that is configured for this
    /// provider means the same payment by it.
    pub fn at(provider: &'static str, reference: impl Into<String>) -> Self {
        Self {
            provider: Some(provider),
            reference: reference.into(),
        }
    }

    /// Whose name it is: the provider's, if the reference is unique there.
    pub fn provider(&self) -> Option<&'static str> {
        self.provider
    }

    /// The reference, as a receipt has it.
    pub fn reference(&self) -> &str {
        &self.reference
    }
}

/// A reference that cannot be a payment of this rail. The text says what is wrong with it, for the
/// seller, and follows the reference: "is no hash".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Misnamed(pub String);

/// A payment as its rail has it now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refundable {
    /// What was charged, in the rail's base units.
    pub charged: Amount,
    /// What has gone back already, whoever gave it.
    pub refunded: Amount,
    /// The currency, as a challenge names it.
    pub currency: String,
    /// How many decimals its usual unit has.
    pub decimals: u8,
    /// The challenge that was paid, where the rail knows: what is given back in full must not be
    /// served for later.
    pub challenge: Option<String>,
    /// What the rail wants to have again with each order: whose account it was, what goes with the
    /// refund. Stored, so no secrets.
    pub terms: Value,
}

/// Why a payment cannot be refunded.
#[derive(Debug)]
#[non_exhaustive]
pub enum NoRefund {
    /// The rail gives nothing back, ever.
    Unsupported,
    /// The rail knows no payment of this name, or none that was made here.
    NoSuchPayment,
    /// It cannot be now. The text is for the seller.
    Refused(String),
    /// The rail is away.
    Fault(Fault),
}

impl From<Fault> for NoRefund {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// What is to be given back. Written down before the first attempt, and the same at every other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RefundOrder {
    /// What the payment's receipt calls it.
    pub reference: String,
    /// How much, in the rail's base units. Never zero.
    pub amount: Amount,
    /// The currency.
    pub currency: String,
    /// When it was written down, Unix seconds.
    pub created: i64,
    /// See [`Refundable::terms`].
    #[serde(default)]
    pub terms: Value,
}

/// What a rail knows of a refund after an attempt. As with [`Outcome`](crate::Outcome), only explicit
/// evidence makes `Done` or `Refused`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Refunded {
    /// The money went back.
    Done {
        /// What the rail calls the refund.
        reference: String,
    },
    /// It did not, and never will under this key. The text is for the seller.
    Refused(String),
    /// It was made, and the money came back: a bank may return it weeks later. Final, so that it
    /// outlives a [`Done`](Self::Done) of the same reference that is heard of late.
    Failed {
        /// What the rail calls the refund.
        reference: String,
        /// For the seller.
        why: String,
    },
    /// Nobody knows yet, or it is on its way.
    Unknown,
}
