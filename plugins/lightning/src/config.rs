//! Configuration of both sides: read, checked all at once, turned into a node.

use std::sync::Arc;
use std::time::Duration;

use farebox_core::{Invalid, Issue, SecretSource};
use serde::Deserialize;

use crate::bolt11::Network;
use crate::node::Node;

/// How long an invoice can be paid, where the configuration does not say.
pub(crate) const DEFAULT_INVOICE_EXPIRY: Duration = Duration::from_secs(600);
/// The most that routing may cost, where the configuration does not say: 5 sats.
pub(crate) const DEFAULT_MAX_FEE_MSAT: u64 = 5_000;
/// How long a wallet looks for a route, where the configuration does not say.
pub(crate) const DEFAULT_PAYMENT_TIMEOUT: Duration = Duration::from_secs(30);

/// The keys under `[rails.lightning]`: the seller's side.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Config {
    /// Which kind of node: `lnd`.
    pub backend: String,
    /// `https://host:port` of its gRPC interface.
    pub endpoint: String,
    /// Its certificate, PEM. As a file, it is read again when the node presents another one.
    pub tls_cert: SecretSource,
    /// What allows the calls. LND's `invoice.macaroon` suffices, and nothing more should be given.
    pub macaroon: SecretSource,
    /// `mainnet` (default), `regtest` or `signet`.
    #[serde(default = "mainnet")]
    pub network: String,
    /// Whether a preimage counts only once the node says that its invoice is settled. A node knows
    /// the preimages of its unpaid invoices, and so does whoever can read its database. Default true.
    #[serde(default = "yes")]
    pub strict: bool,
    /// How long an invoice can be paid, seconds; a challenge lapses with it. Default 600.
    pub invoice_expiry: Option<u64>,
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

/// The keys of a wallet: the payer's side.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct WalletConfig {
    /// Which kind of node: `lnd`.
    pub backend: String,
    /// `https://host:port` of its gRPC interface.
    pub endpoint: String,
    /// Its certificate, PEM. As a file, it is read again when the node presents another one.
    pub tls_cert: SecretSource,
    /// What allows the calls: `offchain:read` and `offchain:write`.
    pub macaroon: SecretSource,
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
            endpoint: endpoint.into(),
            tls_cert,
            macaroon,
            network: network.to_string(),
            strict: true,
            invoice_expiry: None,
            session: SessionConfig::default(),
        }
    }

    pub(crate) fn node(&self, issues: &mut Vec<Issue>) -> Option<Arc<dyn Node>> {
        let Self {
            backend,
            endpoint,
            tls_cert,
            macaroon,
            network,
            ..
        } = self;
        node(backend, endpoint, tls_cert, macaroon, network, issues)
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
            endpoint: endpoint.into(),
            tls_cert,
            macaroon,
            network: network.to_string(),
            max_fee_msat: None,
            max_fee_ppm: None,
            max_total_sat: None,
            payment_timeout: None,
        }
    }

    pub(crate) fn node(&self, issues: &mut Vec<Issue>) -> Option<Arc<dyn Node>> {
        let Self {
            backend,
            endpoint,
            tls_cert,
            macaroon,
            network,
            ..
        } = self;
        node(backend, endpoint, tls_cert, macaroon, network, issues)
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

/// Checks everything there is to check without the node, so that all of it is reported at once.
fn node(
    backend: &str,
    endpoint: &str,
    tls_cert: &SecretSource,
    macaroon: &SecretSource,
    network: &str,
    issues: &mut Vec<Issue>,
) -> Option<Arc<dyn Node>> {
    let parsed = Network::parse(network);
    if parsed.is_none() {
        let problem = format!("`{network}` is unknown; give mainnet, regtest or signet");
        issues.push(Issue::new("network", problem));
    }
    match backend {
        #[cfg(feature = "lnd")]
        "lnd" => lnd(
            endpoint,
            tls_cert,
            macaroon,
            parsed.unwrap_or_default(),
            issues,
        ),
        other => {
            // Only a backend reads the other keys.
            let _ = (endpoint, tls_cert, macaroon);
            let known: &[&str] = if cfg!(feature = "lnd") { &["lnd"] } else { &[] };
            let hint = farebox_core::config::did_you_mean(other, known);
            issues.push(Issue::new(
                "backend",
                format!("no backend `{other}` in this build{hint}"),
            ));
            None
        }
    }
}

#[cfg(feature = "lnd")]
fn lnd(
    endpoint: &str,
    tls_cert: &SecretSource,
    macaroon: &SecretSource,
    network: Network,
    issues: &mut Vec<Issue>,
) -> Option<Arc<dyn Node>> {
    use farebox_lnd::connect::{Connector, PinnedCertificate, SetupError, check_endpoint};

    let mut note = |key: &str, error: SetupError| {
        let remedy = match error {
            SetupError::CertificateFile { .. } => "; LND writes it as tls.cert in its directory",
            SetupError::Certificate => "; give PEM text or { file = \"tls.cert\" }",
            _ => "",
        };
        issues.push(Issue::new(key, format!("{error}{remedy}")));
    };
    if let Err(error) = check_endpoint(endpoint) {
        note("endpoint", error);
    }
    let certificate = match tls_cert {
        SecretSource::File(path) => PinnedCertificate::from_file(path),
        other => match other.read("tls_cert") {
            Ok(pem) => PinnedCertificate::from_pem(pem.expose().as_bytes()),
            Err(issue) => {
                issues.push(issue);
                return None;
            }
        },
    };
    let certificate = match certificate {
        Ok(certificate) => Some(certificate),
        Err(error) => {
            note("tls_cert", error);
            None
        }
    };
    let macaroon = read_macaroon(macaroon, issues);
    let connector = Connector::new(
        endpoint,
        certificate?,
        macaroon?,
        crate::lnd::CONNECT_DEADLINE,
    );
    // What can fail here is the endpoint, and that has been noted.
    Some(Arc::new(crate::lnd::Lnd::new(connector.ok()?, network)))
}

/// A file may hold either form; text in the configuration or the environment can only be hex, and
/// a path written there by mistake must not become a macaroon.
#[cfg(feature = "lnd")]
fn read_macaroon(
    source: &SecretSource,
    issues: &mut Vec<Issue>,
) -> Option<farebox_lnd::connect::Macaroon> {
    let bytes = match source.read_bytes("macaroon") {
        Ok(bytes) => zeroize::Zeroizing::new(bytes),
        Err(issue) => {
            issues.push(issue);
            return None;
        }
    };
    let from_file = matches!(source, SecretSource::File(_));
    let hex = bytes.len().is_multiple_of(2) && bytes.iter().all(u8::is_ascii_hexdigit);
    let read = if from_file || hex {
        farebox_lnd::connect::Macaroon::new(&bytes).ok()
    } else {
        None
    };
    if read.is_none() {
        let problem = if from_file {
            "the file is empty; give the path of a macaroon file"
        } else {
            "is not hex; give the macaroon's hex, or { file = \"invoice.macaroon\" }"
        };
        issues.push(Issue::new("macaroon", problem));
    }
    read
}

/// Everything that was found wrong, or `Ok`.
pub(crate) fn finish<T>(value: Option<T>, issues: Vec<Issue>) -> Result<T, Invalid> {
    Invalid::unless_empty(issues)?;
    value.ok_or_else(|| Invalid::new("backend", "the node cannot be set up"))
}
