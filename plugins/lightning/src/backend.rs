//! Which node stands behind the rail: the keys that say so, and the node they make.

use std::path::PathBuf;
use std::sync::Arc;

use farebox_core::{Issue, SecretSource};
use serde::Deserialize;

use crate::bolt11::Network;
use crate::node::Node;

/// The keys under `ldk`: a node inside the process. Of `esplora`, `electrum` and `bitcoind` one is
/// given.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct LdkConfig {
    /// The node's own folder, used by one process at a time and never copied: an old copy of a
    /// channel's state, if used, loses its money.
    pub data_dir: PathBuf,
    /// 128 hex digits, or BIP 39 words. A file that is not there is made at the first start.
    pub seed: SecretSource,
    /// The URL of an Esplora server.
    pub esplora: Option<String>,
    /// `ssl://host:port` or `tcp://host:port` of an Electrum server.
    pub electrum: Option<String>,
    /// A Bitcoin Core node.
    pub bitcoind: Option<BitcoindConfig>,
    /// Where peers reach it: `host:port`. Default nowhere.
    #[serde(default)]
    pub listen: Vec<String>,
    /// Peers to stay connected to: `node-id@host:port`.
    #[serde(default)]
    pub peers: Vec<String>,
    /// Node ids whose channels are used before they are confirmed, and need no reserve on the
    /// chain. Such a peer can take back what it has paid.
    #[serde(default)]
    pub trusted_peers: Vec<String>,
    /// The URL of a rapid gossip sync server, instead of gossip from peers.
    pub rapid_gossip: Option<String>,
}

impl LdkConfig {
    /// A node in `data_dir` that reads the chain from an Esplora server and listens nowhere.
    #[must_use]
    pub fn esplora(
        data_dir: impl Into<PathBuf>,
        seed: SecretSource,
        url: impl Into<String>,
    ) -> Self {
        Self {
            data_dir: data_dir.into(),
            seed,
            esplora: Some(url.into()),
            electrum: None,
            bitcoind: None,
            listen: Vec::new(),
            peers: Vec::new(),
            trusted_peers: Vec::new(),
            rapid_gossip: None,
        }
    }
}

/// The keys under `ldk.bitcoind`: Bitcoin Core's RPC interface.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct BitcoindConfig {
    /// Its host.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// `rpcuser`.
    pub user: String,
    /// `rpcpassword`.
    pub password: SecretSource,
}

/// The keys that name a node, wherever they are configured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NodeKeys<'a> {
    pub(crate) backend: &'a str,
    pub(crate) network: &'a str,
    pub(crate) endpoint: Option<&'a str>,
    pub(crate) tls_cert: Option<&'a SecretSource>,
    pub(crate) macaroon: Option<&'a SecretSource>,
    pub(crate) private_channels: bool,
    pub(crate) ldk: Option<&'a LdkConfig>,
}

/// The backends of this build.
const BACKENDS: &[&str] = &[
    #[cfg(feature = "ldk")]
    "ldk",
    #[cfg(feature = "lnd")]
    "lnd",
];

impl NodeKeys<'_> {
    /// Checks everything there is to check without the node, so that all of it is reported at once.
    pub(crate) fn node(&self, issues: &mut Vec<Issue>) -> Option<Arc<dyn Node>> {
        let network = Network::parse(self.network);
        if network.is_none() {
            let network = self.network;
            let problem = format!("`{network}` is unknown; give mainnet, regtest or signet");
            issues.push(Issue::new("network", problem));
        }
        let network = network.unwrap_or_default();
        match self.backend {
            #[cfg(feature = "lnd")]
            "lnd" => self.lnd(network, issues),
            #[cfg(feature = "ldk")]
            "ldk" => self.ldk(network, issues),
            other => {
                // Only a backend reads the other keys.
                let _ = (self.endpoint, self.tls_cert, self.macaroon);
                let _ = (self.private_channels, self.ldk, network);
                let hint = farebox_core::config::did_you_mean(other, BACKENDS);
                issues.push(Issue::new(
                    "backend",
                    format!("no backend `{other}` in this build{hint}"),
                ));
                None
            }
        }
    }

    #[cfg(feature = "ldk")]
    fn ldk(&self, network: Network, issues: &mut Vec<Issue>) -> Option<Arc<dyn Node>> {
        let Some(config) = self.ldk else {
            let problem = "is missing; give ldk = { data_dir = …, seed = …, esplora = … }";
            issues.push(Issue::new("ldk", problem));
            return None;
        };
        match crate::ldk::Settings::check(config, network) {
            Ok(settings) => match crate::ldk::Ldk::shared(settings) {
                Ok(node) => Some(node),
                Err(problem) => {
                    issues.push(Issue::new("ldk.data_dir", problem));
                    None
                }
            },
            Err(found) => {
                issues.extend(found);
                None
            }
        }
    }

    #[cfg(feature = "lnd")]
    fn lnd(&self, network: Network, issues: &mut Vec<Issue>) -> Option<Arc<dyn Node>> {
        use farebox_lnd::connect::{Connector, PinnedCertificate, SetupError, check_endpoint};

        for (key, missing) in [
            ("endpoint", self.endpoint.is_none()),
            ("tls_cert", self.tls_cert.is_none()),
            ("macaroon", self.macaroon.is_none()),
        ] {
            if missing {
                issues.push(Issue::new(key, "is missing"));
            }
        }
        let (endpoint, tls_cert, macaroon) = (self.endpoint?, self.tls_cert?, self.macaroon?);
        let mut note = |key: &str, error: SetupError| {
            let remedy = match error {
                SetupError::CertificateFile { .. } => {
                    "; LND writes it as tls.cert in its directory"
                }
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
        Some(Arc::new(
            crate::lnd::Lnd::new(connector.ok()?, network).private_channels(self.private_channels),
        ))
    }
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
