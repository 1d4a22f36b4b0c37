//! Configuration of the server's and the client's side.

mod fee_payer;
mod wallet;

use std::sync::Arc;

use farebox_core::{Invalid, Issue, Secret, SecretSource};
use farebox_proof::{
    LocalKey,
    terms::{self, Payee},
};
use serde::{Deserialize, Serialize};

use crate::{Tempo, TempoSettler, chain::Chain, rpc::Rpc, session::SessionConfig};

pub use fee_payer::FeePayerConfig;
pub use wallet::{BuyConfig, WalletConfig};

/// The server's side. `rpc_url`, `chain_id`, `currency` and `recipient` are required; they are
/// optional here so that everything that is missing can be reported together.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The chain's JSON-RPC endpoint, `http` or `https`. May hold an API key, so it is a secret.
    pub rpc_url: Option<SecretText>,
    /// Further endpoints, asked in turn where one before does not answer.
    #[serde(default)]
    pub fallback_rpc_urls: Vec<SecretText>,
    /// EIP-155 chain id: 4217 is mainnet, 42431 the Moderato testnet, 1337 a local chain.
    pub chain_id: Option<u64>,
    /// The TIP-20 token to be paid in.
    pub currency: Option<String>,
    /// Who is paid.
    pub recipient: Option<String>,
    /// Digits after the token's decimal point; 6 on every TIP-20 token.
    pub decimals: Option<u8>,
    /// How payers may hand over a payment; both ways if left out. An offer may say `modes` itself.
    pub modes: Option<Vec<Mode>>,
    /// Pays the network fee of the payers' transactions. Without it they pay it themselves.
    pub fee_payer: Option<FeePayerConfig>,
    /// What only `tempo/session` needs.
    pub session: Option<SessionConfig>,
}

/// How a payment is handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Mode {
    /// As a signed transaction, which the server broadcasts.
    Pull,
    /// As the hash of a transaction that the payer has broadcast.
    Push,
}

impl Mode {
    /// Its name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "push",
        }
    }
}

/// The modes of an offer, in the order in which they are named.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Modes {
    pull: bool,
    push: bool,
}

impl From<&[Mode]> for Modes {
    fn from(modes: &[Mode]) -> Self {
        Self {
            pull: modes.contains(&Mode::Pull),
            push: modes.contains(&Mode::Push),
        }
    }
}

impl Modes {
    /// Without push; `None` if nothing is left.
    pub(crate) fn pull_only(self) -> Option<Self> {
        self.pull.then_some(Self {
            push: false,
            ..self
        })
    }

    pub(crate) fn names(self) -> Vec<String> {
        let all = [(self.pull, Mode::Pull), (self.push, Mode::Push)];
        let taken = all.into_iter().filter(|(taken, _)| *taken);
        taken.map(|(_, mode)| mode.as_str().to_owned()).collect()
    }
}

/// A secret that code may also give as plain text.
#[derive(Clone, Debug, Deserialize)]
#[serde(transparent)]
pub struct SecretText(SecretSource);

impl From<&str> for SecretText {
    fn from(text: &str) -> Self {
        Self(SecretSource::Text(Secret::new(text)))
    }
}

impl From<String> for SecretText {
    fn from(text: String) -> Self {
        Self(SecretSource::Text(Secret::new(text)))
    }
}

impl From<SecretSource> for SecretText {
    fn from(source: SecretSource) -> Self {
        Self(source)
    }
}

impl Tempo {
    /// The rail. Pure, but for reading secrets.
    ///
    /// # Errors
    /// Everything that is wrong with the configuration.
    pub fn new(config: Config) -> Result<Self, Invalid> {
        let mut issues = Vec::new();
        let rpc = endpoints(
            config.rpc_url.as_ref(),
            &config.fallback_rpc_urls,
            &mut issues,
        );
        let chain_id = collect(chain_id(config.chain_id), &mut issues);
        let payee = Payee::read(
            config.currency.as_deref(),
            config.recipient.as_deref(),
            &mut issues,
        );
        let decimals = config.decimals.unwrap_or(terms::DECIMALS);
        if decimals > 18 {
            issues.push(Issue::new(
                "decimals",
                "is above 18; TIP-20 tokens have 6, leave it out",
            ));
        }
        let modes = config.modes.as_deref().unwrap_or(&[Mode::Pull, Mode::Push]);
        if modes.is_empty() {
            issues.push(Issue::new("modes", "is empty; name `pull`, `push` or both"));
        }
        let sponsor = config.fee_payer.as_ref().and_then(|fee_payer| {
            let sponsor = fee_payer.read(chain_id.unwrap_or_default());
            let keep = |invalid: Invalid| issues.extend(invalid.under("fee_payer").into_issues());
            sponsor.map_err(keep).ok()
        });
        Invalid::unless_empty(issues)?;
        let (Some(rpc), Some(chain_id), Some(payee)) = (rpc, chain_id, payee) else {
            return Err(unreported());
        };
        let chain = Arc::new(Chain::new(chain_id, rpc));
        let settler = TempoSettler::new(Arc::clone(&chain));
        let rail = Self {
            chain,
            payee,
            decimals,
            modes: modes.into(),
            sponsor: None,
            settler,
        };
        Ok(match sponsor {
            Some(sponsor) => rail.with_sponsor(sponsor),
            None => rail,
        })
    }
}

pub(crate) fn collect<T>(result: Result<T, Issue>, issues: &mut Vec<Issue>) -> Option<T> {
    result.map_err(|issue| issues.push(issue)).ok()
}

/// Not reached: what is absent has left an issue.
pub(crate) fn unreported() -> Invalid {
    Invalid::new("", "the configuration is incomplete")
}

fn chain_id(chain_id: Option<u64>) -> Result<u64, Issue> {
    let text = "is missing or zero; give the chain's EIP-155 id, 4217 for Tempo mainnet";
    chain_id
        .filter(|id| *id != 0)
        .ok_or_else(|| Issue::new("chain_id", text))
}

/// All endpoints; `None` if the first is missing. Each problem is an issue.
fn endpoints(
    first: Option<&SecretText>,
    further: &[SecretText],
    issues: &mut Vec<Issue>,
) -> Option<Vec<Rpc>> {
    let at = "rpc_url";
    let missing = || Issue::new(at, "is missing; give the JSON-RPC endpoint of a Tempo node");
    let first = first.ok_or_else(missing).and_then(|url| endpoint(at, url));
    let further = further
        .iter()
        .enumerate()
        .map(|(number, url)| endpoint(&format!("fallback_rpc_urls.{number}"), url));
    let all: Vec<_> = std::iter::once(first)
        .chain(further)
        .map(|endpoint| collect(endpoint, issues))
        .collect();
    all.into_iter().collect()
}

fn endpoint(at: &str, url: &SecretText) -> Result<Rpc, Issue> {
    Rpc::new(url.0.read(at)?.expose()).map_err(|problem| Issue::new(at, problem))
}

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
