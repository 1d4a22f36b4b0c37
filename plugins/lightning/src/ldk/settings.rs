//! What a node in the process needs to know, checked before anything is started.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr as _;

use farebox_core::{Issue, SecretSource};
use ldk_node::Builder;
use ldk_node::bip39::Mnemonic;
use ldk_node::bitcoin;
use ldk_node::bitcoin::secp256k1::PublicKey;
use ldk_node::lightning::ln::msgs::SocketAddress;
use zeroize::Zeroizing;

use crate::backend::LdkConfig;
use crate::bolt11::Network;
use crate::node::NodeError;

const SEED_LEN: usize = 64;

/// Where the node reads the chain.
#[derive(Clone, PartialEq, Eq)]
enum Chain {
    Esplora(String),
    Electrum(String),
    Bitcoind {
        host: String,
        port: u16,
        user: String,
        password: Zeroizing<String>,
    },
}

#[derive(Clone, PartialEq, Eq)]
enum Seed {
    Bytes(Zeroizing<[u8; SEED_LEN]>),
    Words(Mnemonic),
    /// Made at the first start.
    New(PathBuf),
}

/// A checked [`LdkConfig`].
#[derive(Clone, PartialEq, Eq)]
pub struct Settings {
    pub(super) network: Network,
    pub(super) data_dir: PathBuf,
    pub(super) peers: Vec<(PublicKey, SocketAddress)>,
    seed: Seed,
    chain: Chain,
    listen: Vec<SocketAddress>,
    trusted: Vec<PublicKey>,
    rapid_gossip: Option<String>,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("network", &self.network)
            .field("data_dir", &self.data_dir)
            .finish_non_exhaustive()
    }
}

/// 128 hex digits or the words of BIP 39.
fn read_seed(text: &str) -> Option<Seed> {
    let mut bytes = Zeroizing::new([0; SEED_LEN]);
    if hex::decode_to_slice(text, &mut bytes[..]).is_ok() {
        return Some(Seed::Bytes(bytes));
    }
    Mnemonic::parse(text).ok().map(Seed::Words)
}

impl Settings {
    /// Checks a configuration, the seed's file included; a file that is not there yet is made at
    /// the first start.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with it, by key.
    pub fn check(config: &LdkConfig, network: Network) -> Result<Self, Vec<Issue>> {
        let mut issues = Vec::new();
        let mut note = |key: &str, problem: String| issues.push(Issue::new(key, problem));
        let seed = match &config.seed {
            SecretSource::File(path) if !path.exists() => Some(Seed::New(path.clone())),
            source => match source.read("ldk.seed") {
                Ok(secret) => {
                    let seed = read_seed(secret.expose());
                    if seed.is_none() {
                        let problem = "is neither 128 hex digits nor BIP 39 words; name a \
                                       file that is not there and one is made";
                        note("ldk.seed", problem.into());
                    }
                    seed
                }
                Err(issue) => {
                    note("ldk.seed", issue.problem);
                    None
                }
            },
        };
        let mut chains = Vec::new();
        let url = |text: &String, schemes: &[&str]| schemes.iter().any(|s| text.starts_with(s));
        if let Some(esplora) = &config.esplora {
            if !url(esplora, &["http://", "https://"]) {
                note(
                    "ldk.esplora",
                    "is no http:// or https:// URL; give that of an Esplora server".into(),
                );
            }
            chains.push(Chain::Esplora(esplora.trim_end_matches('/').to_owned()));
        }
        if let Some(electrum) = &config.electrum {
            if !url(electrum, &["tcp://", "ssl://"]) {
                note("ldk.electrum", "is no tcp:// or ssl:// URL; give tcp://host:port or ssl://host:port of an Electrum server".into());
            }
            chains.push(Chain::Electrum(electrum.clone()));
        }
        if let Some(bitcoind) = &config.bitcoind {
            match bitcoind.password.read("ldk.bitcoind.password") {
                Ok(password) => chains.push(Chain::Bitcoind {
                    host: bitcoind.host.clone(),
                    port: bitcoind.port,
                    user: bitcoind.user.clone(),
                    password: Zeroizing::new(password.expose().to_owned()),
                }),
                Err(issue) => note("ldk.bitcoind.password", issue.problem),
            }
        }
        let sources = [
            config.esplora.is_some(),
            config.electrum.is_some(),
            config.bitcoind.is_some(),
        ];
        if sources.into_iter().filter(|given| *given).count() != 1 {
            let problem = "give one chain source: `esplora`, `electrum` or `bitcoind`";
            note("ldk", problem.into());
        }
        let mut listen = Vec::new();
        for text in &config.listen {
            match SocketAddress::from_str(text) {
                Ok(address) => listen.push(address),
                Err(_) => note(
                    "ldk.listen",
                    format!("`{text}` is no host:port; give one such as \"0.0.0.0:9735\""),
                ),
            }
        }
        let mut peers = Vec::new();
        for text in &config.peers {
            let parsed = text.split_once('@').and_then(|(id, address)| {
                let id = PublicKey::from_str(id).ok()?;
                Some((id, SocketAddress::from_str(address).ok()?))
            });
            match parsed {
                Some(peer) => peers.push(peer),
                None => note(
                    "ldk.peers",
                    format!("`{text}` is no node-id@host:port; give one such as \"02…@host:9735\""),
                ),
            }
        }
        let mut trusted = Vec::new();
        for text in &config.trusted_peers {
            match PublicKey::from_str(text) {
                Ok(id) => trusted.push(id),
                Err(_) => note(
                    "ldk.trusted_peers",
                    format!("`{text}` is no node id; give the 66 hex digits that the peer goes by"),
                ),
            }
        }
        match (seed, chains.pop()) {
            (Some(seed), Some(chain)) if issues.is_empty() => Ok(Self {
                network,
                data_dir: config.data_dir.clone(),
                peers,
                seed,
                chain,
                listen,
                trusted,
                rapid_gossip: config.rapid_gossip.clone(),
            }),
            _ => Err(issues),
        }
    }

    /// Which key names the chain source. Not its address, which may hold a password.
    pub(super) fn chain_key(&self) -> &'static str {
        match self.chain {
            Chain::Esplora(_) => "ldk.esplora",
            Chain::Electrum(_) => "ldk.electrum",
            Chain::Bitcoind { .. } => "ldk.bitcoind",
        }
    }

    /// LDK Node's builder, with the seed made if it must be.
    pub(super) fn builder(self) -> Result<Builder, NodeError> {
        let mut config = ldk_node::config::Config {
            storage_dir_path: self.data_dir.display().to_string(),
            network: match self.network {
                Network::Mainnet => bitcoin::Network::Bitcoin,
                Network::Regtest => bitcoin::Network::Regtest,
                Network::Signet => bitcoin::Network::Signet,
            },
            listening_addresses: (!self.listen.is_empty()).then_some(self.listen),
            trusted_peers_0conf: self.trusted.clone(),
            ..Default::default()
        };
        if let Some(anchors) = &mut config.anchor_channels_config {
            anchors.trusted_peers_no_reserve = self.trusted;
        }
        let mut builder = Builder::from_config(config);
        let seed = match self.seed {
            Seed::New(path) => make_seed(&path)?,
            known => known,
        };
        match seed {
            Seed::Bytes(bytes) => {
                builder.set_entropy_seed_bytes(*bytes);
            }
            Seed::Words(words) => {
                builder.set_entropy_bip39_mnemonic(words, None);
            }
            Seed::New(_) => {}
        }
        match self.chain {
            Chain::Esplora(url) => builder.set_chain_source_esplora(url, None),
            Chain::Electrum(url) => builder.set_chain_source_electrum(url, None),
            Chain::Bitcoind {
                host,
                port,
                user,
                password,
            } => builder.set_chain_source_bitcoind_rpc(host, port, user, password.to_string()),
        };
        if let Some(url) = self.rapid_gossip {
            builder.set_gossip_source_rgs(url);
        }
        Ok(builder)
    }
}

/// Writes a new seed where only its owner can read it, before anything depends on it.
fn make_seed(path: &PathBuf) -> Result<Seed, NodeError> {
    use std::io::Write as _;
    let refused = |e: &dyn fmt::Display| {
        NodeError::Refused(format!("cannot write a seed to {}: {e}", path.display()))
    };
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = match options.open(path) {
        Ok(file) => file,
        // Another start was quicker.
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            let text = std::fs::read_to_string(path).map_err(|e| refused(&e))?;
            return read_seed(Zeroizing::new(text).trim()).ok_or_else(|| refused(&"no seed in it"));
        }
        Err(error) => return Err(refused(&error)),
    };
    let mut bytes = Zeroizing::new([0; SEED_LEN]);
    getrandom::fill(&mut bytes[..]).map_err(|e| refused(&e))?;
    let text = Zeroizing::new(hex::encode(&bytes[..]));
    file.write_all(text.as_bytes()).map_err(|e| refused(&e))?;
    file.sync_all().map_err(|e| refused(&e))?;
    Ok(Seed::Bytes(bytes))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use serde_json::{Value, json};

    use super::*;

    fn check(chain: Value) -> Result<Settings, Vec<(String, String)>> {
        let mut keys = json!({ "data_dir": "lightning", "seed": "00".repeat(SEED_LEN) });
        let more = chain.as_object().unwrap().clone();
        keys.as_object_mut().unwrap().extend(more);
        let config: LdkConfig = serde_json::from_value(keys).unwrap();
        let checked = Settings::check(&config, Network::Regtest);
        checked.map_err(|issues| issues.into_iter().map(|i| (i.key, i.problem)).collect())
    }

    /// Protects: a node from starting without a chain, or with a source that is not the one meant.
    #[test]
    fn one_chain_source_is_named_rightly() {
        let bitcoind = json!({ "host": "h", "port": 8332, "user": "u", "password": "p" });
        for (chain, key) in [
            (
                json!({ "esplora": "https://esplora.example/api/" }),
                "ldk.esplora",
            ),
            (
                json!({ "electrum": "ssl://electrum.example:50002" }),
                "ldk.electrum",
            ),
            (json!({ "bitcoind": bitcoind }), "ldk.bitcoind"),
        ] {
            let settings = check(chain).unwrap();
            assert_eq!(settings.chain_key(), key);
            // A source may have a password in it.
            assert!(!format!("{settings:?}").contains("example"));
        }
        let nowhere = json!({ "file": "/does/not/exist" });
        let no_password = json!({ "host": "h", "port": 1, "user": "u", "password": nowhere });
        let esplora = "http://127.0.0.1:1";
        for (chain, key, remedy) in [
            (json!({}), "ldk", "give one chain source"),
            (
                json!({ "esplora": esplora, "electrum": "tcp://127.0.0.1:1" }),
                "ldk",
                "give one chain source",
            ),
            (
                json!({ "esplora": "127.0.0.1" }),
                "ldk.esplora",
                "give that of",
            ),
            (
                json!({ "electrum": "https://e" }),
                "ldk.electrum",
                "give tcp://host:port",
            ),
            (
                json!({ "bitcoind": no_password }),
                "ldk.bitcoind.password",
                "/does/not/exist",
            ),
            (
                json!({ "esplora": esplora, "listen": ["here"] }),
                "ldk.listen",
                "host:port",
            ),
            (
                json!({ "esplora": esplora, "peers": ["02"] }),
                "ldk.peers",
                "node-id@host:port",
            ),
            (
                json!({ "esplora": esplora, "seed": "abc" }),
                "ldk.seed",
                "128 hex digits",
            ),
        ] {
            let issues = check(chain).unwrap_err();
            assert_eq!(issues[0].0, key, "{issues:?}");
            assert!(issues[0].1.contains(remedy), "{issues:?}");
        }
    }
}
