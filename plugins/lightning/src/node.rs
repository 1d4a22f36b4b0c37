//! The seam between the rail and a Lightning node. A backend implements [`Node`]; the rail and the
//! wallet know nothing else. Invoices are decoded by the rail itself, never by the node.

use std::time::Duration;

use async_trait::async_trait;

use crate::bolt11::{Network, PaymentHash, Preimage};

/// An invoice to be minted.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NewInvoice {
    /// Millisatoshis, at least 1; `None` leaves the amount to whoever pays.
    pub amount_msat: Option<u64>,
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
            amount_msat: Some(amount_msat),
            memo: memo.into(),
            expiry,
        }
    }

    /// An invoice that leaves the amount to whoever pays it within `expiry`.
    #[must_use]
    pub fn open(memo: impl Into<String>, expiry: Duration) -> Self {
        Self {
            amount_msat: None,
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
    /// What to pay an invoice that names no amount, millisatoshis; `None` for every other.
    pub amount_msat: Option<u64>,
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
            amount_msat: None,
            max_fee_msat,
            timeout,
        }
    }

    /// Pays this much, millisatoshis: for an invoice that names no amount.
    #[must_use]
    pub const fn amount_msat(mut self, msat: u64) -> Self {
        self.amount_msat = Some(msat);
        self
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
    /// The node did not take the order, so nothing moved; told again, it may.
    Unsent(NodeError),
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

/// Who a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeInfo {
    /// Its compressed public key, hex.
    pub id: String,
    /// The network it follows; `None` for one that the rail does not know.
    pub network: Option<Network>,
    /// Whether it has seen the whole chain. One that has not may refuse to pay.
    pub synced: bool,
    /// Where peers reach it, `host:port`; empty where it listens nowhere or does not say.
    pub addresses: Vec<String>,
}

impl NodeInfo {
    /// A node that is synced and listens nowhere.
    #[must_use]
    pub fn new(id: impl Into<String>, network: Option<Network>) -> Self {
        Self {
            id: id.into(),
            network,
            synced: true,
            addresses: Vec::new(),
        }
    }
}

/// A Lightning node: minting and looking up for a seller, paying and tracking for a payer. A node
/// that serves only one of them answers [`NodeError::Refused`] to the other.
///
/// Invoices are decoded by [`Bolt11`](crate::bolt11::Bolt11), never by the node.
///
/// No method has a default, so that a wrapper cannot lose one silently.
#[async_trait]
pub trait Node: Send + Sync + 'static {
    /// The network its invoices are for.
    fn network(&self) -> Network;

    /// Called when a process starts, and again by whoever shares the node. An embedded node comes
    /// up here; a remote one has nothing to do, so that one that is down is no obstacle.
    async fn start(&self) -> Result<(), NodeError>;

    /// Who it is. What a seller's credentials allow may not suffice for it.
    async fn info(&self) -> Result<NodeInfo, NodeError>;

    /// Mints an invoice with a preimage that nobody has seen.
    async fn create_invoice(&self, invoice: NewInvoice) -> Result<Minted, NodeError>;

    /// Where one of its invoices stands, waiting at most `wait` for it to be settled or canceled;
    /// `None` when it has no such invoice.
    async fn look_up(
        &self,
        payment: PaymentHash,
        wait: Duration,
    ) -> Result<Option<InvoiceState>, NodeError>;

    /// Pays an invoice, and waits until it has ended or nobody can tell. Dropping the future must
    /// not make the outcome untrackable. An invoice that is being paid or has been paid is not
    /// paid again: the answer is that payment's.
    async fn pay(&self, order: SendOrder) -> Payment;

    /// What became of a payment that was started before, by this process or an earlier one,
    /// waiting at most `wait` for it to end; `None` when the node never sent it.
    async fn track(&self, payment: PaymentHash, wait: Duration) -> Option<Payment>;

    /// What it can spend, millisatoshis.
    async fn balance_msat(&self) -> Result<u64, NodeError>;
}
