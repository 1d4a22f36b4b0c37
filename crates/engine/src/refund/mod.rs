//! Giving back what was charged: the seller's own motion, under the same rules as a charge. It is
//! written down before it is tried, under a key that does not change; what is not known is looked
//! up, never tried anew under another key.

mod bar;
mod books;
mod conclude;
mod elsewhere;
mod find;
mod give;
mod ledger;
mod reconcile;

use std::sync::Arc;

use farebox_core::{Fault, Method, wire::Amount};

pub use books::{RefundEntry, RefundState, RefundedEntry};
pub use reconcile::RefundsReconciled;

use ledger::Name;

/// What an operator asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct RefundRequest {
    reference: String,
    amount: Option<String>,
    name: Option<String>,
    rail: Option<String>,
}

impl RefundRequest {
    /// All that is left of the payment whose receipt has this reference.
    pub fn new(reference: impl Into<String>) -> Self {
        Self {
            reference: reference.into(),
            amount: None,
            name: None,
            rail: None,
        }
    }

    /// A part of it, a decimal in the currency's usual unit: `"0.10"`.
    ///
    /// Unless it is [named](Self::named), the amount names the refund: asked for twice, it is given
    /// once.
    pub fn part(mut self, amount: impl Into<String>) -> Self {
        self.amount = Some(amount.into());
        self
    }

    /// Under a name of the operator's, which tells two refunds of one amount apart.
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Of a payment on this rail, `stripe/charge`. Unless said, the rail is found by the reference.
    /// Where refunds of the payment are on record, the rail that made them makes this one too.
    pub fn on(mut self, rail: impl Into<String>) -> Self {
        self.rail = Some(rail.into());
        self
    }
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[must_use]
pub struct GaveBack {
    /// The refund; its state is `attempted` where nobody knows yet. Then ask again, with the same
    /// request.
    pub refund: RefundEntry,
    /// It had been given before; nothing moved this time.
    pub repeated: bool,
    /// Its payment.
    pub payment: RefundedEntry,
}

/// Why nothing is given back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RefundError {
    /// No rail knows the reference.
    #[error(
        "no rail of this server knows a payment {reference:?} (asked: {}); give the reference that \
         is on its receipt and in the books",
        asked.join(", ")
    )]
    NoSuchPayment {
        /// What was asked for.
        reference: String,
        /// Who was asked.
        asked: Vec<String>,
    },
    /// The rail gives nothing back.
    #[error("{0} cannot refund: what was paid there is given back outside of it, if at all")]
    CannotRefund(String),
    /// There is no such rail here.
    #[error("no rail `{0}` on this server")]
    NoRail(String),
    /// The request cannot be carried out as it is.
    #[error("{0}")]
    Invalid(String),
    /// It is more than is left of the payment.
    #[error("{asked} is more than the {left} that is left of the payment")]
    TooMuch {
        /// What was asked for, in the currency's usual unit.
        asked: String,
        /// What is left.
        left: String,
    },
    /// All of it has gone back.
    #[error("nothing is left of the payment: all of it has gone back")]
    NothingLeft,
    /// The payment is being made or served for this moment, or another refund of it is not decided.
    #[error(
        "the payment is under way, or another refund of it is not decided yet; both are looked up \
         with every round of the reconciler, so ask again later"
    )]
    Undecided,
    /// The rail refuses, for good unless something changes.
    #[error("not refunded: {0}")]
    Refused(String),
    /// Ours, or the rail is away. Whether money went back is on record, where it may have.
    #[error("{0}")]
    Fault(#[from] Fault),
}

/// A payment and who can give it back.
#[derive(Clone)]
struct Payment {
    method: Arc<dyn Method>,
    name: Name,
    /// As the operator or the rail spells it, which may say where the rail is to look.
    spelled: String,
}

fn not_configured() -> Fault {
    Fault::unavailable("a refund's rail is not configured any more")
}

/// For people: `0.50 usd`.
fn show(amount: Amount, decimals: u8, currency: &str) -> String {
    format!("{} {currency}", amount.to_decimal(decimals))
}
