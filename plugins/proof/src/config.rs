//! Configuration of the server's and the client's side.

use farebox_core::{Invalid, Issue, NoSettler, SecretSource};
use serde::Deserialize;

use crate::{LocalKey, Proof, ProofWallet, Realms, terms::Payee};

/// The server's side. All three members are required; they are optional here so that everything
/// that is missing can be reported together.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// EIP-155 id of the chain whose accounts are asked for.
    pub chain_id: Option<u64>,
    /// A TIP-20 token's address. Nothing is paid in it; the protocol asks for one.
    pub currency: Option<String>,
    /// The seller's address.
    pub recipient: Option<String>,
}

/// The client's side.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WalletConfig {
    /// The account's secp256k1 private key, hexadecimal. Required.
    pub private_key: Option<SecretSource>,
    /// Signs for this chain only. Without it, for the chain that the challenge names.
    pub chain_id: Option<u64>,
    /// Realms to sign for whatever host was asked, and when none is known. Without an entry, a
    /// realm must be the host that was asked.
    #[serde(default)]
    pub realms: Vec<String>,
}

impl Proof {
    /// The rail. Pure.
    ///
    /// # Errors
    /// Everything that is wrong with the configuration.
    pub fn new(config: Config) -> Result<Self, Invalid> {
        let mut issues = Vec::new();
        let chain_id = chain_id(config.chain_id, &mut issues);
        let payee = Payee::read(
            config.currency.as_deref(),
            config.recipient.as_deref(),
            &mut issues,
        );
        Invalid::unless_empty(issues)?;
        match (chain_id, payee) {
            (Some(chain_id), Some(payee)) => Ok(Self {
                chain_id,
                payee,
                settler: NoSettler,
            }),
            // Not reached: each absence has left an issue.
            _ => Err(Invalid::new("", "the configuration is incomplete")),
        }
    }
}

/// A chain id that is there and not zero.
fn chain_id(chain_id: Option<u64>, issues: &mut Vec<Issue>) -> Option<u64> {
    let found = chain_id.filter(|id| *id != 0);
    if found.is_none() {
        let text = "is missing or zero; give the chain's EIP-155 id, 4217 for Tempo mainnet";
        issues.push(Issue::new("chain_id", text));
    }
    found
}

impl ProofWallet {
    /// A wallet with a key of its own. Pure, but for reading the key.
    ///
    /// # Errors
    /// Everything that is wrong with the configuration.
    pub fn new(config: WalletConfig) -> Result<Self, Invalid> {
        let mut issues = Vec::new();
        let key = private_key(config.private_key.as_ref()).map_err(|issue| issues.push(issue));
        if config.chain_id == Some(0) {
            issues.push(Issue::new(
                "chain_id",
                "is zero; leave it out to sign for any chain",
            ));
        }
        Invalid::unless_empty(issues)?;
        match key {
            Ok(key) => Ok(Self::with_signer(key)
                .on_chain(config.chain_id)
                .for_realms(config.realms)),
            // Not reached: the error has left an issue.
            Err(()) => Err(Invalid::new("private_key", "cannot be read")),
        }
    }
}

/// The key `private_key` of a wallet's configuration.
fn private_key(source: Option<&SecretSource>) -> Result<LocalKey, Issue> {
    let at = "private_key";
    let missing = || {
        Issue::new(
            at,
            "is missing; give { env = \"NAME\" } or { file = \"path\" }",
        )
    };
    LocalKey::parse(at, &source.ok_or_else(missing)?.read(at)?)
}

impl From<Vec<String>> for Realms {
    fn from(pinned: Vec<String>) -> Self {
        Self { pinned }
    }
}

#[cfg(test)]
mod tests {
    use farebox_core::{Registry, config};
    use serde_json::json;

    use super::*;

    #[test]
    fn all_problems_at_once() {
        let value = json!({ "chain_id": 0, "currency": "usd", "recipent": "0x1" });
        let error = config::read::<Config>(&value).unwrap_err();
        assert!(
            error.to_string().contains("did you mean `recipient`"),
            "{error}"
        );
        let config = Config {
            currency: Some("usd".into()),
            ..Config::default()
        };
        let invalid = Proof::new(config).unwrap_err();
        let keys: Vec<_> = invalid.issues().iter().map(|i| i.key.as_str()).collect();
        assert_eq!(keys, ["chain_id", "currency", "recipient"]);
    }

    /// Protects: the example that `farebox rails` shows is a working configuration.
    #[test]
    fn the_example_builds() {
        let registry = Registry::default().with(&crate::CHARGE).unwrap();
        let plugin = registry.get("proof/charge").unwrap();
        let value = json!({
            "chain_id": 4217,
            "currency": "0x20c0000000000000000000000000000000000000",
            "recipient": "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC",
        });
        for line in plugin.example.lines() {
            let (key, text) = line.split_once(" = ").unwrap();
            assert_eq!(value[key].to_string(), text);
        }
        let method = (plugin.build)(&value).unwrap();
        assert_eq!(
            (method.name(), method.offer().to_string().as_str()),
            ("proof/charge", "tempo/charge")
        );
    }

    #[test]
    fn a_wallet_needs_a_key_that_is_one() {
        for key in [
            None,
            Some(SecretSource::Env("FAREBOX_PROOF_NO_SUCH_VARIABLE".into())),
        ] {
            let config = WalletConfig {
                private_key: key,
                chain_id: Some(0),
                ..Default::default()
            };
            assert_eq!(ProofWallet::new(config).unwrap_err().issues().len(), 2);
        }
    }
}
