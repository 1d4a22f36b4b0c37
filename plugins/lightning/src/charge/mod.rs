//! `lightning/charge`: one invoice for one request.

#[cfg(feature = "page")]
mod page;
pub(crate) mod quote;
pub(crate) mod rate;
#[cfg(feature = "rate-url")]
mod rate_url;
pub(crate) mod verify;
mod wallet;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use farebox_core::{
    Ask, Charge, ChargeTerms, Fault, Invalid, Never, NoQuote, NoSettler, Once, Plan, Presented,
    Quote, Rail, Refusal,
};

pub use rate::{Rate, RateSource};
pub use wallet::LightningWallet;

use rate::Rates;
#[cfg(feature = "rate-url")]
pub(crate) use rate_url::source as rate_source;

use crate::METHOD;
use crate::bolt11::{Details, Payload};
use crate::config::{self, Config, InvoiceExpiry};
use crate::node::Node;

/// The seller's side of `lightning/charge`.
pub struct Lightning {
    node: Arc<dyn Node>,
    strict: bool,
    invoice_expiry: InvoiceExpiry,
    rates: Option<Rates>,
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
        let rates = config.rates(&mut issues);
        let node = config.node(&mut issues);
        let node = config::finish(node, issues)?;
        let rail = Self::on(node)
            .strict(config.strict)
            .invoice_expiry(invoice_expiry);
        Ok(match rates {
            Some(source) => rail.rates(source),
            None => rail,
        })
    }

    /// The rail on a node of one's own, strict, with invoices that last five minutes.
    #[must_use]
    pub fn on(node: Arc<dyn Node>) -> Self {
        Self {
            node,
            strict: true,
            invoice_expiry: InvoiceExpiry::new(config::DEFAULT_INVOICE_EXPIRY),
            rates: None,
            settler: NoSettler,
        }
    }

    /// See [`Config::strict`].
    #[must_use]
    pub fn strict(mut self, strict: bool) -> Self {
        self.strict = strict;
        self
    }

    /// Takes prices in the currencies of a source: a function, or one's own [`RateSource`].
    #[must_use]
    pub fn rates(mut self, source: Arc<dyn RateSource>) -> Self {
        self.rates = Some(Rates::new(source));
        self
    }

    /// See [`Config::invoice_expiry`](field@Config::invoice_expiry).
    #[must_use]
    pub fn invoice_expiry(mut self, expiry: Duration) -> Self {
        self.invoice_expiry = InvoiceExpiry::new(expiry);
        self
    }
}

impl Rail<Charge> for Lightning {
    const METHOD: &'static str = METHOD;
    type Details = Details;
    type Payload = Payload;
    type Settler = NoSettler;

    fn challenges_last(&self, at_most: Duration) {
        self.invoice_expiry.cap(at_most);
    }

    async fn connect(&self) -> Result<(), Fault> {
        let started = self.node.start().await;
        started.map_err(|e| quote::fault("starting the Lightning node", e))
    }

    fn check(&self, terms: &ChargeTerms) -> Result<(), Invalid> {
        quote::read_terms(terms, self.rates.as_ref()).map(drop)
    }

    async fn quote(&self, terms: &ChargeTerms) -> Result<Quote<Charge, Details>, NoQuote> {
        let rates = self.rates.as_ref();
        quote::quote(&*self.node, terms, rates, self.invoice_expiry.get()).await
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

    #[cfg(feature = "page")]
    fn page(
        &self,
        _: &farebox_core::wire::Challenge,
        ask: &Ask<Charge, Details>,
    ) -> Option<farebox_core::PagePart> {
        page::part(ask)
    }
}
