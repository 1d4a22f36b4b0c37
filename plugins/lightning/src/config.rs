//! Configuration of both sides: read, checked all at once, turned into a node.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use farebox_core::{Invalid, Issue, SecretSource};
use serde::Deserialize;

use crate::backend::{ClnConfig, LdkConfig, NodeKeys};
use crate::bolt11::Network;
use crate::charge::RateSource;
use crate::node::Node;

/// How long an invoice can be paid, where the configuration does not say.
pub(crate) const DEFAULT_INVOICE_EXPIRY: Duration = Duration::from_secs(300);
/// The most that routing may cost, where the configuration does not say: 5 sats.
pub(crate) const DEFAULT_MAX_FEE_MSAT: u64 = 5_000;
/// How long a wallet looks for a route, where the configuration does not say.
pub(crate) const DEFAULT_PAYMENT_TIMEOUT: Duration = Duration::from_secs(30);

/// How long an invoice can be paid: what the configuration says, and no longer than its challenge.
#[derive(Debug)]
pub(crate) struct InvoiceExpiry {
    millis: AtomicU64,
}

impl InvoiceExpiry {
    pub(crate) fn new(expiry: Duration) -> Self {
        let millis = u64::try_from(expiry.as_millis()).unwrap_or(u64::MAX);
        Self {
            millis: millis.into(),
        }
    }

    /// An engine's challenges last no longer than this.
    pub(crate) fn cap(&self, at_most: Duration) {
        let at_most = u64::try_from(at_most.as_millis()).unwrap_or(u64::MAX);
        self.millis.fetch_min(at_most, Relaxed);
    }

    pub(crate) fn get(&self) -> Duration {
        Duration::from_millis(self.millis.load(Relaxed))
    }
}

/// The keys under `[rails.lightning]`: the seller's side.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Config {
    /// Which kind of node: `lnd`, `cln`, or `ldk` for one inside the process. Required.
    #[serde(default)]
    pub backend: String,
    /// LND: `https://host:port` of its gRPC interface.
    pub endpoint: Option<String>,
    /// LND: its certificate, PEM. As a file, it is read again for each connection.
    pub tls_cert: Option<SecretSource>,
    /// LND: what allows the calls. Its `invoice.macaroon` suffices, and nothing more should be
    /// given.
    pub macaroon: Option<SecretSource>,
    /// LND: whether invoices name the node's private channels, so that it can be paid over them.
    /// The other backends decide for themselves. Default false.
    #[serde(default)]
    pub private_channels: bool,
    /// Core Lightning: where it is and what lets us in.
    pub cln: Option<ClnConfig>,
    /// LDK: the node inside the process.
    pub ldk: Option<LdkConfig>,
    /// `mainnet` (default), `regtest` or `signet`.
    #[serde(default = "mainnet")]
    pub network: String,
    /// Whether a preimage counts only once the node says that its invoice is settled. A node knows
    /// the preimages of its unpaid invoices, and so does whoever can read its database. Default true.
    #[serde(default = "yes")]
    pub strict: bool,
    /// How long an invoice can be paid, seconds; a challenge lapses with it. Default 300; where a
    /// challenge lasts less, as long as that, since what is paid later opens nothing.
    pub invoice_expiry: Option<u64>,
    /// Where to ask what a bitcoin costs, for prices in other currencies than `sat`.
    pub rates: Option<RatesConfig>,
    /// What only sessions need.
    #[serde(default)]
    pub session: SessionConfig,
}

/// The keys under `[rails.lightning.session]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct SessionConfig {
    /// After how many seconds without a request a session is closed and refunded. Default 300.
    pub idle_timeout: Option<u64>,
    /// The most that routing a refund may cost the seller, millisatoshis. Default 5000.
    pub max_refund_fee_msat: Option<u64>,
}

impl SessionConfig {
    pub(crate) fn idle_timeout(&self, issues: &mut Vec<Issue>) -> Duration {
        within(
            "session.idle_timeout",
            self.idle_timeout,
            crate::session::DEFAULT_IDLE,
            10..=2_592_000,
            issues,
        )
    }
}

/// The keys under `rates`: a URL that answers with what a bitcoin costs, as JSON.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct RatesConfig {
    /// Asked with GET. `{currency}` in it is replaced.
    pub url: String,
    /// Where in the answer the price is: a JSON pointer (RFC 6901) to a number or a decimal string.
    /// `{currency}` in it is replaced.
    pub pointer: String,
    /// The currencies that it knows, as offers name them: `usd`.
    pub currencies: Vec<String>,
    /// How long a price holds, seconds; a challenge at such a price lapses with it, and it has half
    /// of that left when it goes out. 60 or more.
    pub valid_for: u64,
}

/// The keys of a wallet: the payer's side.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct WalletConfig {
    /// Which kind of node: `lnd`, `cln`, or `ldk` for one inside the process. Required.
    #[serde(default)]
    pub backend: String,
    /// LND: `https://host:port` of its gRPC interface.
    pub endpoint: Option<String>,
    /// LND: its certificate, PEM. As a file, it is read again for each connection.
    pub tls_cert: Option<SecretSource>,
    /// LND: what allows the calls: `offchain:read` and `offchain:write`.
    pub macaroon: Option<SecretSource>,
    /// Core Lightning: where it is and what lets us in.
    pub cln: Option<ClnConfig>,
    /// LDK: the node inside the process.
    pub ldk: Option<LdkConfig>,
    /// `mainnet` (default), `regtest` or `signet`.
    #[serde(default = "mainnet")]
    pub network: String,
    /// The most that routing one payment may cost, millisatoshis. Default 5000.
    pub max_fee_msat: Option<u64>,
    /// The same in parts per million of the amount; where both are set, the lower one counts.
    pub max_fee_ppm: Option<u64>,
    /// The most that one payment may cost with its routing fee, satoshis. Default unlimited.
    pub max_total_sat: Option<u64>,
    /// How long to look for a route, seconds. Default 30.
    pub payment_timeout: Option<u64>,
}

fn mainnet() -> String {
    Network::Mainnet.to_string()
}

const fn yes() -> bool {
    true
}

impl Config {
    /// A seller's LND node, with every other key at its default.
    #[must_use]
    pub fn lnd(
        endpoint: impl Into<String>,
        tls_cert: SecretSource,
        macaroon: SecretSource,
        network: Network,
    ) -> Self {
        Self {
            backend: "lnd".into(),
            endpoint: Some(endpoint.into()),
            tls_cert: Some(tls_cert),
            macaroon: Some(macaroon),
            private_channels: false,
            cln: None,
            ldk: None,
            network: network.to_string(),
            strict: true,
            invoice_expiry: None,
            session: SessionConfig::default(),
            rates: None,
        }
    }

    /// A seller's Core Lightning node, with every other key at its default.
    #[must_use]
    pub fn cln(cln: ClnConfig, network: Network) -> Self {
        Self {
            backend: "cln".into(),
            endpoint: None,
            tls_cert: None,
            macaroon: None,
            private_channels: false,
            cln: Some(cln),
            ldk: None,
            network: network.to_string(),
            strict: true,
            invoice_expiry: None,
            session: SessionConfig::default(),
            rates: None,
        }
    }

    pub(crate) fn node(&self, issues: &mut Vec<Issue>) -> Option<Arc<dyn Node>> {
        let keys = NodeKeys {
            backend: &self.backend,
            network: &self.network,
            endpoint: self.endpoint.as_deref(),
            tls_cert: self.tls_cert.as_ref(),
            macaroon: self.macaroon.as_ref(),
            private_channels: self.private_channels,
            cln: self.cln.as_ref(),
            ldk: self.ldk.as_ref(),
        };
        keys.node(issues)
    }

    pub(crate) fn rates(&self, issues: &mut Vec<Issue>) -> Option<Arc<dyn RateSource>> {
        let config = self.rates.as_ref()?;
        #[cfg(feature = "rate-url")]
        match crate::charge::rate_source(config) {
            Ok(source) => return Some(source),
            Err(found) => issues.extend(found),
        }
        #[cfg(not(feature = "rate-url"))]
        {
            let _ = config;
            let problem = "cannot be asked by URL in this build; build farebox-lightning with the \
                           feature `rate-url`";
            issues.push(Issue::new("rates", problem));
        }
        None
    }

    pub(crate) fn invoice_expiry(&self, issues: &mut Vec<Issue>) -> Duration {
        within(
            "invoice_expiry",
            self.invoice_expiry,
            DEFAULT_INVOICE_EXPIRY,
            30..=604_800,
            issues,
        )
    }
}

impl WalletConfig {
    /// A payer's LND node, with every other key at its default.
    #[must_use]
    pub fn lnd(
        endpoint: impl Into<String>,
        tls_cert: SecretSource,
        macaroon: SecretSource,
        network: Network,
    ) -> Self {
        Self {
            backend: "lnd".into(),
            endpoint: Some(endpoint.into()),
            tls_cert: Some(tls_cert),
            macaroon: Some(macaroon),
            cln: None,
            ldk: None,
            network: network.to_string(),
            max_fee_msat: None,
            max_fee_ppm: None,
            max_total_sat: None,
            payment_timeout: None,
        }
    }

    /// A payer's Core Lightning node, with every other key at its default.
    #[must_use]
    pub fn cln(cln: ClnConfig, network: Network) -> Self {
        Self {
            backend: "cln".into(),
            endpoint: None,
            tls_cert: None,
            macaroon: None,
            cln: Some(cln),
            ldk: None,
            network: network.to_string(),
            max_fee_msat: None,
            max_fee_ppm: None,
            max_total_sat: None,
            payment_timeout: None,
        }
    }

    pub(crate) fn node(&self, issues: &mut Vec<Issue>) -> Option<Arc<dyn Node>> {
        let keys = NodeKeys {
            backend: &self.backend,
            network: &self.network,
            endpoint: self.endpoint.as_deref(),
            tls_cert: self.tls_cert.as_ref(),
            macaroon: self.macaroon.as_ref(),
            private_channels: false,
            cln: self.cln.as_ref(),
            ldk: self.ldk.as_ref(),
        };
        keys.node(issues)
    }

    pub(crate) fn payment_timeout(&self, issues: &mut Vec<Issue>) -> Duration {
        within(
            "payment_timeout",
            self.payment_timeout,
            DEFAULT_PAYMENT_TIMEOUT,
            1..=600,
            issues,
        )
    }
}

/// A number of seconds within a range.
fn within(
    key: &str,
    given: Option<u64>,
    default: Duration,
    range: std::ops::RangeInclusive<u64>,
    issues: &mut Vec<Issue>,
) -> Duration {
    let Some(seconds) = given else { return default };
    if !range.contains(&seconds) {
        let (least, most) = (range.start(), range.end());
        let problem = format!("is {seconds}; give whole seconds from {least} to {most}");
        issues.push(Issue::new(key, problem));
    }
    Duration::from_secs(seconds)
}

/// Everything that was found wrong, or `Ok`.
pub(crate) fn finish<T>(value: Option<T>, issues: Vec<Issue>) -> Result<T, Invalid> {
    Invalid::unless_empty(issues)?;
    value.ok_or_else(|| Invalid::new("backend", "the node cannot be set up"))
}
