//! The Lightning rail: `lightning/charge` over BOLT11 (draft-lightning-charge).
//!
//! The challenge carries a fresh invoice, the credential its preimage. A preimage that hashes to
//! the invoice's payment hash proves that the invoice was paid, provided that nobody but the node
//! knew it before; in strict mode, the default, the node is also asked whether the invoice is
//! settled, so that a preimage read from the node of an unpaid invoice opens nothing.
//!
//! The node is behind [`Node`]; [`lnd`] is the backend for LND.
//!
//! ```
//! use farebox_core::SecretSource;
//! use farebox_lightning::{Config, Lightning, Network};
//!
//! let config = Config::lnd(
//!     "https://127.0.0.1:10009",
//!     SecretSource::File("tls.cert".into()),
//!     SecretSource::File("invoice.macaroon".into()),
//!     Network::Mainnet,
//! );
//! // The files are not there, and both are said to be missing.
//! let problems = Lightning::new(config).unwrap_err();
//! assert_eq!(problems.issues().len(), 2);
//! ```

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use farebox_core::{
    Ask, Charge, ChargeTerms, Invalid, Never, NoQuote, NoSettler, Once, Plan, Presented, Quote,
    Rail, Refusal, plugin,
};

pub mod bolt11;
mod config;
#[cfg(feature = "lnd")]
pub mod lnd;
pub mod node;
mod quote;
mod verify;
mod wallet;

pub use bolt11::{Details, Network, Payload, PaymentHash, Preimage};
pub use config::{Config, WalletConfig};
pub use node::Node;
pub use wallet::LightningWallet;

/// The method's name on the wire.
pub(crate) const METHOD: &str = "lightning";

plugin! {
    /// `lightning/charge`.
    pub static CHARGE = Charge: Lightning::new, wallet: LightningWallet::new,
        example: include_str!("example.toml");
}

/// The seller's side of `lightning/charge`.
pub struct Lightning {
    node: Arc<dyn Node>,
    strict: bool,
    invoice_expiry: Duration,
    settler: NoSettler,
}

impl fmt::Debug for Lightning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lightning")
            .field("network", &self.node.network())
            .field("strict", &self.strict)
            .field("invoice_expiry", &self.invoice_expiry)
            .finish_non_exhaustive()
    }
}

impl Lightning {
    /// The rail as configured. Pure: the node is reached at the first challenge, so one that is
    /// down does not stop a server from starting.
    ///
    /// # Errors
    ///
    /// Everything wrong with the configuration, files that are missing included.
    pub fn new(config: Config) -> Result<Self, Invalid> {
        let mut issues = Vec::new();
        let invoice_expiry = config.invoice_expiry(&mut issues);
        let node = config.node(&mut issues);
        let node = config::finish(node, issues)?;
        Ok(Self::on(node)
            .strict(config.strict)
            .invoice_expiry(invoice_expiry))
    }

    /// The rail on a node of one's own, strict, with invoices that last ten minutes.
    #[must_use]
    pub fn on(node: Arc<dyn Node>) -> Self {
        Self {
            node,
            strict: true,
            invoice_expiry: config::DEFAULT_INVOICE_EXPIRY,
            settler: NoSettler,
        }
    }

    /// See [`Config::strict`].
    #[must_use]
    pub fn strict(mut self, strict: bool) -> Self {
        self.strict = strict;
        self
    }

    /// See [`Config::invoice_expiry`](field@Config::invoice_expiry).
    #[must_use]
    pub fn invoice_expiry(mut self, expiry: Duration) -> Self {
        self.invoice_expiry = expiry;
        self
    }
}

impl Rail<Charge> for Lightning {
    const METHOD: &'static str = METHOD;
    type Details = Details;
    type Payload = Payload;
    type Settler = NoSettler;

    fn check(&self, terms: &ChargeTerms) -> Result<(), Invalid> {
        quote::read_terms(terms).map(drop)
    }

    async fn quote(&self, terms: &ChargeTerms) -> Result<Quote<Charge, Details>, NoQuote> {
        quote::quote(&*self.node, terms, self.invoice_expiry).await
    }

    async fn verify(
        &self,
        cx: &Presented<'_>,
        ask: &Ask<Charge, Details>,
        payload: Payload,
    ) -> Result<Plan<Once, Never>, Refusal> {
        verify::verify(&*self.node, self.strict, cx, ask, payload).await
    }

    fn settler(&self) -> &NoSettler {
        &self.settler
    }
}
