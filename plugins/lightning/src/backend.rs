//! Which node stands behind the rail: the keys that say so, and the node they make.

use std::path::PathBuf;
use std::sync::Arc;

use farebox_core::{Issue, SecretSource};
use serde::Deserialize;

use crate::bolt11::Network;
use crate::node::Node;

/// The keys under `cln`: Core Lightning's gRPC interface. The node makes the three files in its
/// folder.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct ClnConfig {
    /// `https://host:port`, the port being the node's `grpc-port`.
    pub endpoint: String,
    /// `ca.pem`: what the node's certificate is signed with.
    pub ca_cert: SecretSource,
    /// `client.pem`.
    pub client_cert: SecretSource,
    /// `client-key.pem`. It allows every call of the node.
    pub client_key: SecretSource,
}

impl ClnConfig {
    /// A node and what it takes to be let in.
    #[must_use]
    pub fn new(
        endpoint: impl Into<String>,
        ca_cert: SecretSource,
        client_cert: SecretSource,
        client_key: SecretSource,
    ) -> Self {
        Self {
            endpoint: endpoint.into(),
            ca_cert,
            client_cert,
            client_key,
        }
    }
}

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
            esplora: Some(url.into()),
            ..Self::without_chain(data_dir.into(), seed)
        }
    }

    /// The same from an Electrum server, `tcp://host:port` or `ssl://host:port`.
    #[must_use]
    pub fn electrum(
        data_dir: impl Into<PathBuf>,
        seed: SecretSource,
        url: impl Into<String>,
    ) -> Self {
        Self {
            electrum: Some(url.into()),
            ..Self::without_chain(data_dir.into(), seed)
        }
    }

    /// The same from a Bitcoin Core node.
    #[must_use]
    pub fn bitcoind(
        data_dir: impl Into<PathBuf>,
        seed: SecretSource,
        bitcoind: BitcoindConfig,
    ) -> Self {
        Self {
            bitcoind: Some(bitcoind),
            ..Self::without_chain(data_dir.into(), seed)
        }
    }

    fn without_chain(data_dir: PathBuf, seed: SecretSource) -> Self {
        Self {
            data_dir,
            seed,
            esplora: None,
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

impl BitcoindConfig {
    /// Where it answers, and as whom.
    #[must_use]
    pub fn new(
        host: impl Into<String>,
        port: u16,
        user: impl Into<String>,
        password: SecretSource,
    ) -> Self {
        Self {
            host: host.into(),
            port,
            user: user.into(),
            password,
        }
    }
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
    pub(crate) cln: Option<&'a ClnConfig>,
    pub(crate) ldk: Option<&'a LdkConfig>,
}

/// The backends of this build.
const BACKENDS: &[&str] = &[
    #[cfg(feature = "cln")]
    "cln",
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
            #[cfg(feature = "cln")]
            "cln" => self.cln(network, issues),
            #[cfg(feature = "lnd")]
            "lnd" => self.lnd(network, issues),
            #[cfg(feature = "ldk")]
            "ldk" => self.ldk(network, issues),
            other => {
                // Only a backend reads the other keys.
                let _ = (self.endpoint, self.tls_cert, self.macaroon);
                let _ = (self.private_channels, self.cln, self.ldk, network);
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

    #[cfg(feature = "cln")]
    fn cln(&self, network: Network, issues: &mut Vec<Issue>) -> Option<Arc<dyn Node>> {
        use farebox_cln::connect::{Connector, Credentials, check_certificate, check_endpoint};
        use farebox_cln::connect::{SetupError, check_key};

        let Some(config) = self.cln else {
            let problem = "is missing; give cln = { endpoint = …, ca_cert = …, client_cert = …, \
                           client_key = … }";
            issues.push(Issue::new("cln", problem));
            return None;
        };
        if let Err(error) = check_endpoint(&config.endpoint) {
            issues.push(Issue::new("cln.endpoint", error.to_string()));
        }
        type Check = fn(&[u8]) -> Result<(), SetupError>;
        let mut read = |key: &'static str, source: &SecretSource, check: Check, file: &str| {
            let remedy = match source {
                SecretSource::File(_) => format!("; the node writes it as {file} in its folder"),
                _ => format!("; give PEM text or {{ file = \"{file}\" }}"),
            };
            let pem = match source.read_bytes(key) {
                Ok(pem) => zeroize::Zeroizing::new(pem),
                Err(issue) => {
                    issues.push(Issue::new(key, format!("{}{remedy}", issue.problem)));
                    return None;
                }
            };
            if let Err(error) = check(&pem) {
                issues.push(Issue::new(key, format!("{error}{remedy}")));
                return None;
            }
            Some(pem)
        };
        let ca = read("cln.ca_cert", &config.ca_cert, check_certificate, "ca.pem");
        let certificate = read(
            "cln.client_cert",
            &config.client_cert,
            check_certificate,
            "client.pem",
        );
        let key = read(
            "cln.client_key",
            &config.client_key,
            check_key,
            "client-key.pem",
        );
        let credentials = Credentials::new(&ca?, &certificate?, &key?).ok()?;
        match Connector::new(&config.endpoint, credentials, crate::grpc::CONNECT_DEADLINE) {
            Ok(connector) => Some(Arc::new(crate::cln::Cln::new(connector, network))),
            // It has been noted above.
            Err(SetupError::Endpoint) => None,
            Err(error) => {
                let problem = format!("{error}; it must be the key of cln.client_cert");
                issues.push(Issue::new("cln.client_key", problem));
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
            crate::grpc::CONNECT_DEADLINE,
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
