//! Configuration of the server's and the client's side.

use std::{sync::Arc, time::Duration};

use alloy::{primitives::Address, signers::Signer};
use farebox_core::{Invalid, Issue, Secret, SecretSource};
use farebox_proof::{
    LocalKey, Realms,
    terms::{self, Payee},
};
use farebox_wire::Amount;
use serde::{Deserialize, Serialize};

use crate::{
    Broadcaster, Sponsor, SponsorLimits, Tempo, TempoSettler, TempoWallet,
    chain::Chain,
    charge::sponsor::{FLOOR, is_usual, usual_token},
    charge::wallet::Account,
    rpc::Rpc,
};

/// Digits of an attodollar after a dollar's point.
const ATTO: u8 = 18;

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
}

/// An account that pays network fees, and what one transaction may cost it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeePayerConfig {
    /// The account's secp256k1 private key, hexadecimal. Required.
    pub private_key: Option<SecretSource>,
    /// The stablecoin that it pays fees in; the chain's usual one if left out.
    pub fee_token: Option<String>,
    /// The most gas; 2 000 000 if left out.
    pub max_gas: Option<u64>,
    /// The most that a fee may come to, in dollars: `"0.05"`, which is the default.
    pub max_fee: Option<String>,
    /// The longest time for which a transaction may stay valid; 900 seconds if left out.
    pub window_seconds: Option<u64>,
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

/// The client's side. `private_key`, `rpc_url` and `chain_id` are required.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WalletConfig {
    /// The account's secp256k1 private key, hexadecimal.
    pub private_key: Option<SecretSource>,
    /// The chain's JSON-RPC endpoint.
    pub rpc_url: Option<SecretText>,
    /// Further endpoints, asked in turn where one before does not answer.
    #[serde(default)]
    pub fallback_rpc_urls: Vec<SecretText>,
    /// Pays on this chain only.
    pub chain_id: Option<u64>,
    /// Pays in this token only. Without it, in any TIP-20 token that the budget allows.
    pub currency: Option<String>,
    /// Pays in these tokens as well.
    #[serde(default)]
    pub currencies: Vec<String>,
    /// Pays these accounts only, the recipients of splits included. Without any, whomever the
    /// budget allows.
    #[serde(default)]
    pub recipients: Vec<String>,
    /// The stablecoin that network fees are paid in; the currency of the payment if left out.
    pub fee_token: Option<String>,
    /// Realms to sign zero-amount proofs for whatever host was asked.
    #[serde(default)]
    pub realms: Vec<String>,
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
            let sponsor = sponsor(fee_payer, chain_id.unwrap_or_default());
            let keep = |invalid: Invalid| issues.extend(invalid.under("fee_payer").into_issues());
            sponsor.map_err(keep).ok()
        });
        Invalid::unless_empty(issues)?;
        let (Some(rpc), Some(chain_id), Some(payee)) = (rpc, chain_id, payee) else {
            return Err(unreported());
        };
        let chain = Arc::new(Chain::new(chain_id, rpc));
        let settler = TempoSettler::new(Arc::clone(&chain));
        Ok(Self {
            chain,
            payee,
            decimals,
            modes: modes.into(),
            sponsor,
            settler,
        })
    }
}

impl TempoWallet {
    /// A wallet with a key of its own. Pure, but for reading secrets.
    ///
    /// # Errors
    /// Everything that is wrong with the configuration.
    pub fn new(config: WalletConfig) -> Result<Self, Invalid> {
        let mut issues = Vec::new();
        let key = collect(private_key(config.private_key.as_ref()), &mut issues);
        let signer = key.map(|key| Account::Signs(Arc::new(key)));
        Self::read(config, signer, issues)
    }

    /// A wallet whose key is elsewhere: a KMS, a custodian that signs raw hashes. The
    /// configuration's `private_key` stays out. A signer that does not answer within 30 seconds is
    /// given up, and nothing is paid.
    ///
    /// ```
    /// use alloy::{primitives::{Address, B256, Signature, address}, signers::{Error, Signer}};
    /// use farebox_tempo::{TempoWallet, WalletConfig};
    ///
    /// #[derive(Debug)]
    /// struct Custodian;
    ///
    /// #[async_trait::async_trait]
    /// impl Signer for Custodian {
    ///     async fn sign_hash(&self, hash: &B256) -> alloy::signers::Result<Signature> {
    ///         # let signature: Option<Signature> = None; let _ = hash;
    ///         // Ask whoever has the key for a signature of these 32 bytes.
    ///         signature.ok_or_else(|| Error::other("the custodian says no"))
    ///     }
    ///     fn address(&self) -> Address {
    ///         address!("0x70997970C51812dc3A010C7d01b50e0d17dc79C8")
    ///     }
    ///     fn chain_id(&self) -> Option<u64> { None }
    ///     fn set_chain_id(&mut self, _: Option<u64>) {}
    /// }
    ///
    /// let config = WalletConfig {
    ///     rpc_url: Some("https://rpc.tempo.xyz".into()),
    ///     chain_id: Some(4217),
    ///     ..WalletConfig::default()
    /// };
    /// let wallet = TempoWallet::signing(config, Custodian)?;
    /// assert_eq!(wallet.address(), Custodian.address());
    /// # Ok::<(), farebox_core::Invalid>(())
    /// ```
    ///
    /// # Errors
    /// Everything that is wrong with the configuration.
    pub fn signing(
        config: WalletConfig,
        signer: impl Signer + Send + Sync + 'static,
    ) -> Result<Self, Invalid> {
        let issues = no_key(&config);
        Self::read(config, Some(Account::Signs(Arc::new(signer))), issues)
    }

    /// A wallet that can only broadcast, so it pays in push mode. The configuration's `private_key`
    /// stays out.
    ///
    /// # Errors
    /// Everything that is wrong with the configuration.
    pub fn broadcasting(
        config: WalletConfig,
        broadcaster: impl Broadcaster,
    ) -> Result<Self, Invalid> {
        let issues = no_key(&config);
        Self::read(config, Some(Account::Sends(Arc::new(broadcaster))), issues)
    }

    fn read(
        config: WalletConfig,
        account: Option<Account>,
        mut issues: Vec<Issue>,
    ) -> Result<Self, Invalid> {
        let rpc = endpoints(
            config.rpc_url.as_ref(),
            &config.fallback_rpc_urls,
            &mut issues,
        );
        let chain_id = collect(chain_id(config.chain_id), &mut issues);
        let currencies = config
            .currency
            .iter()
            .map(|text| terms::token("currency", text))
            .chain(numbered("currencies", &config.currencies, terms::token))
            .filter_map(|token| collect(token, &mut issues))
            .collect();
        let recipients = numbered("recipients", &config.recipients, terms::account)
            .filter_map(|recipient| collect(recipient, &mut issues))
            .collect();
        let fee_token = config.fee_token.as_deref();
        let fee_token =
            fee_token.and_then(|text| collect(terms::token("fee_token", text), &mut issues));
        Invalid::unless_empty(issues)?;
        let (Some(account), Some(rpc), Some(chain_id)) = (account, rpc, chain_id) else {
            return Err(unreported());
        };
        Ok(Self {
            account,
            chain: Arc::new(Chain::new(chain_id, rpc)),
            currencies,
            recipients,
            fee_token,
            realms: Realms::from(config.realms),
        })
    }
}

/// Reads each text of a list under a key of its own.
fn numbered<'a>(
    key: &'a str,
    texts: &'a [String],
    read: fn(&str, &str) -> Result<Address, Issue>,
) -> impl Iterator<Item = Result<Address, Issue>> + 'a {
    let texts = texts.iter().enumerate();
    texts.map(move |(number, text)| read(&format!("{key}.{number}"), text))
}

/// Two accounts would be one too many.
fn no_key(config: &WalletConfig) -> Vec<Issue> {
    let issue = || {
        Issue::new(
            "private_key",
            "is of no use beside another account; leave it out",
        )
    };
    config.private_key.iter().map(|_| issue()).collect()
}

fn sponsor(config: &FeePayerConfig, chain_id: u64) -> Result<Sponsor, Invalid> {
    let mut issues = Vec::new();
    let key = collect(private_key(config.private_key.as_ref()), &mut issues);
    let token = match config.fee_token.as_deref() {
        None => Some(usual_token(chain_id)),
        Some(text) => collect(terms::token("fee_token", text), &mut issues),
    };
    if token.is_some_and(|token| !is_usual(token, chain_id)) {
        let usual = usual_token(chain_id);
        let problem = format!("is none that fees are paid in on this chain, such as {usual}");
        issues.push(Issue::new("fee_token", problem));
    }
    let mut limits = SponsorLimits::of_chain(chain_id);
    limits.gas = config.max_gas.unwrap_or(limits.gas);
    if let Some(text) = &config.max_fee {
        match Amount::from_decimal(text, ATTO) {
            Ok(fee) => limits.fee = fee.get(),
            Err(error) => issues.push(Issue::new("max_fee", error.to_string())),
        }
    }
    match config.window_seconds {
        Some(seconds) if seconds < FLOOR => {
            let problem = format!("is {seconds}; a transaction is sponsored for {FLOOR} at least");
            issues.push(Issue::new("window_seconds", problem));
        }
        Some(seconds) => limits.window = Duration::from_secs(seconds),
        None => {}
    }
    Invalid::unless_empty(issues)?;
    let (Some(key), Some(token)) = (key, token) else {
        return Err(unreported());
    };
    Ok(Sponsor::new(Arc::new(key), token).limits(limits))
}

fn collect<T>(result: Result<T, Issue>, issues: &mut Vec<Issue>) -> Option<T> {
    result.map_err(|issue| issues.push(issue)).ok()
}

/// Not reached: what is absent has left an issue.
fn unreported() -> Invalid {
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
