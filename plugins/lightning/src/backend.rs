//! Which node stands behind the rail: the keys that say so, and the node they make.

use std::path::PathBuf;
use std::sync::Arc;

use farebox_core::{Issue, SecretSource};
use serde::Deserialize;

use crate::bolt11::Network;
use crate::node::Node;

/// The keys under `cln`: Core Lightning's gRPC interface. The node makes the three files in its
/// folder; as files, they are read again for each connection.
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

/// Why there is no such backend, and what to do.
fn absent(backend: &str) -> String {
    let feature = match backend {
        "" => return "is missing; give \"lnd\", \"cln\" or \"ldk\"".to_owned(),
        "cln" => "farebox-lightning with the feature `cln`",
        "lnd" => "farebox-lightning with the feature `lnd`",
        "ldk" => "farebox with the feature `lightning-ldk`, the command with `ldk`",
        other => {
            let hint = farebox_core::config::did_you_mean(other, BACKENDS);
            return format!("no backend `{other}` in this build{hint}");
        }
    };
    format!("`{backend}` is not in this build; build {feature}")
}

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
                issues.push(Issue::new("backend", absent(other)));
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
        use farebox_cln::connect::Credentials;
        use farebox_grpc::{Pem, SetupError};

        let Some(config) = self.cln else {
            let problem = "is missing; give cln = { endpoint = …, ca_cert = …, client_cert = …, \
                           client_key = … }";
            issues.push(Issue::new("cln", problem));
            return None;
        };
        check_endpoint("cln.endpoint", &config.endpoint, issues);
        let is_cert = Pem::check_certificate;
        let ca = read_pem("cln.ca_cert", &config.ca_cert, is_cert, "ca.pem", issues);
        let (key, source) = ("cln.client_cert", &config.client_cert);
        let certificate = read_pem(key, source, is_cert, "client.pem", issues);
        let (key, source) = ("cln.client_key", &config.client_key);
        let key = read_pem(key, source, Pem::check_key, "client-key.pem", issues);
        let credentials = Credentials {
            ca: ca?,
            certificate: certificate?,
            key: key?,
        };
        match credentials.connector(&config.endpoint, crate::grpc::CONNECT_DEADLINE) {
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
        use farebox_grpc::Pem;
        use farebox_lnd::connect::Connector;

        for (key, given, what) in [
            (
                "endpoint",
                self.endpoint.is_some(),
                "LND's gRPC interface, such as \"https://127.0.0.1:10009\"",
            ),
            (
                "tls_cert",
                self.tls_cert.is_some(),
                "LND's certificate, such as { file = \"tls.cert\" }",
            ),
            (
                "macaroon",
                self.macaroon.is_some(),
                "its hex or { file = \"path\" }",
            ),
        ] {
            if !given {
                issues.push(Issue::new(key, format!("is missing; give {what}")));
            }
        }
        let (endpoint, tls_cert, macaroon) = (self.endpoint?, self.tls_cert?, self.macaroon?);
        check_endpoint("endpoint", endpoint, issues);
        let is_cert = Pem::check_certificate;
        let certificates = read_pem("tls_cert", tls_cert, is_cert, "tls.cert", issues);
        let macaroon = read_macaroon(macaroon, issues);
        let connector = Connector::new(
            endpoint,
            certificates?,
            macaroon?,
            crate::grpc::CONNECT_DEADLINE,
        );
        // What can fail here is the endpoint, and that has been noted.
        Some(Arc::new(
            crate::lnd::Lnd::new(connector.ok()?, network).private_channels(self.private_channels),
        ))
    }
}

#[cfg(any(feature = "cln", feature = "lnd"))]
fn check_endpoint(key: &str, endpoint: &str, issues: &mut Vec<Issue>) {
    if let Err(error) = farebox_grpc::check_endpoint(endpoint) {
        issues.push(Issue::new(key, error.to_string()));
    }
}

/// A certificate or a key; a file stays one, so that it can be read again. `file` is what the node
/// calls it.
#[cfg(any(feature = "cln", feature = "lnd"))]
fn read_pem(
    key: &str,
    source: &SecretSource,
    check: fn(&farebox_grpc::Pem) -> Result<(), farebox_grpc::SetupError>,
    file: &str,
    issues: &mut Vec<Issue>,
) -> Option<farebox_grpc::Pem> {
    use farebox_grpc::Pem;

    let (pem, remedy) = match source {
        SecretSource::File(path) => {
            let remedy = format!("the node writes it as {file} in its folder");
            (Ok(Pem::file(path)), remedy)
        }
        other => {
            let remedy = format!("give PEM text or {{ file = \"{file}\" }}");
            (other.read_bytes(key).map(Pem::text), remedy)
        }
    };
    let pem = pem.map_err(|issue| issue.problem);
    let pem = pem.and_then(|pem| check(&pem).map(|()| pem).map_err(|error| error.to_string()));
    pem.map_err(|problem| issues.push(Issue::new(key, format!("{problem}; {remedy}"))))
        .ok()
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects: who asks for a backend that was left out is told the feature, and not another one.
    #[test]
    fn a_backend_that_was_left_out_names_its_feature() {
        for (backend, feature) in [
            ("ldk", "`lightning-ldk`"),
            ("lnd", "`lnd`"),
            ("cln", "`cln`"),
        ] {
            let problem = absent(backend);
            assert!(problem.contains("is not in this build"), "{problem}");
            assert!(problem.contains(feature), "{problem}");
            assert!(!problem.contains("did you mean"), "{problem}");
        }
        assert!(absent("lnf").contains("no backend `lnf`"));
    }
}
