//! The seam between the rail and a Lightning node. A backend implements [`Node`]; the rail and the
//! wallet know nothing else. Invoices are decoded by the rail itself, never by the node.

use std::time::Duration;

use async_trait::async_trait;

use crate::bolt11::{Network, PaymentHash, Preimage};

/// An invoice to be minted.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NewInvoice {
    /// Millisatoshis, at least 1.
    pub amount_msat: u64,
    /// Shown to whoever pays; at most 639 bytes.
    pub memo: String,
    /// How long it can be paid.
    pub expiry: Duration,
}

impl NewInvoice {
    /// An invoice over `amount_msat`, payable for `expiry`.
    #[must_use]
    pub fn new(amount_msat: u64, memo: impl Into<String>, expiry: Duration) -> Self {
        Self {
            amount_msat,
            memo: memo.into(),
            expiry,
        }
    }
}

/// A minted invoice.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Minted {
    /// The BOLT11 text.
    pub bolt11: String,
    /// The payment hash, as the node gives it.
    pub payment_hash: PaymentHash,
}

impl Minted {
    /// An invoice with its payment hash.
    #[must_use]
    pub fn new(bolt11: impl Into<String>, payment_hash: PaymentHash) -> Self {
        Self {
            bolt11: bolt11.into(),
            payment_hash,
        }
    }
}

/// Where an invoice of the node stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvoiceState {
    /// Nothing has come in.
    Open,
    /// Money is held, and could still go back.
    Held,
    /// Paid, for good.
    Settled,
    /// It can no longer be paid.
    Canceled,
}

/// A payment to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SendOrder {
    /// The invoice, BOLT11.
    pub bolt11: String,
    /// Its payment hash.
    pub payment_hash: PaymentHash,
    /// The most that routing may cost, millisatoshis.
    pub max_fee_msat: u64,
    /// How long to look for a route.
    pub timeout: Duration,
}

impl SendOrder {
    /// A payment of `bolt11`.
    #[must_use]
    pub fn new(
        bolt11: impl Into<String>,
        payment_hash: PaymentHash,
        max_fee_msat: u64,
        timeout: Duration,
    ) -> Self {
        Self {
            bolt11: bolt11.into(),
            payment_hash,
            max_fee_msat,
            timeout,
        }
    }
}

/// What became of a payment.
///
/// Not a `Result`: there is no `?` out of money. Only the node's own word makes `Succeeded` or
/// `Failed`.
#[derive(Debug)]
#[must_use]
pub enum Payment {
    /// The payee has been paid and has revealed the preimage.
    Succeeded {
        /// The proof.
        preimage: Preimage,
        /// What routing cost, millisatoshis.
        fee_msat: u64,
    },
    /// Nothing moved and nothing will. The text says why, in the node's words.
    Failed(String),
    /// It may have been paid, or may yet be: ask [`Node::track`].
    Unknown(NodeError),
}

/// Why a node did not do what it was asked. The text holds no secrets.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// It could not be reached, or did not answer in time.
    #[error("the node cannot be reached: {0}")]
    Unreachable(String),
    /// It answered with an error.
    #[error("the node refused: {0}")]
    Refused(String),
    /// Its answer makes no sense.
    #[error("the node answered with {0}")]
    Nonsense(&'static str),
    /// The payment is under way.
    #[error("the payment is still in flight")]
    InFlight,
}

/// A Lightning node: minting and looking up for a seller, paying and tracking for a payer. A node
/// that serves only one of them answers [`NodeError::Refused`] to the other.
///
/// No method has a default, so that a wrapper cannot lose one silently.
#[async_trait]
pub trait Node: Send + Sync + 'static {
    /// The network its invoices are for.
    fn network(&self) -> Network;

    /// Mints an invoice with a preimage that nobody has seen.
    async fn create_invoice(&self, invoice: NewInvoice) -> Result<Minted, NodeError>;

    /// Where one of its invoices stands; `None` when it has no such invoice.
    async fn look_up(&self, payment: PaymentHash) -> Result<Option<InvoiceState>, NodeError>;

    /// Pays an invoice, and waits until it has ended or nobody can tell. Dropping the future must
    /// not make the outcome untrackable.
    async fn pay(&self, order: SendOrder) -> Payment;

    /// What became of a payment that was started before, waiting at most `wait` for it to end;
    /// `None` when the node never sent it.
    async fn track(&self, payment: PaymentHash, wait: Duration) -> Option<Payment>;

    /// What it can spend, millisatoshis.
    async fn balance_msat(&self) -> Result<u64, NodeError>;
}
