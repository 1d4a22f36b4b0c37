//! Configuration of the client's side.

use std::sync::Arc;

use alloy::{
    primitives::{Address, hex},
    rlp::Decodable,
    signers::Signer,
};
use farebox_core::{Invalid, Issue, SecretSource};
use farebox_proof::{Realms, terms};
use farebox_wire::Amount;
use serde::Deserialize;
use tempo_primitives::transaction::SignedKeyAuthorization;

use super::{SecretText, chain_id, collect, endpoints, private_key, unreported};
use crate::{
    Broadcaster, KeySigner, TempoWallet,
    chain::Chain,
    charge::{key::Key, swap::Buying, wallet::Account},
    session::SessionWalletConfig,
};

/// The client's side. `private_key`, `rpc_url` and `chain_id` are required.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WalletConfig {
    /// The account's secp256k1 private key, hexadecimal.
    pub private_key: Option<SecretSource>,
    /// The account that the key is an access key of; the key's own account if left out.
    pub account: Option<String>,
    /// What makes it an access key, where that has to ride in the first payment: a signed key
    /// authorisation, RLP in hexadecimal.
    pub key_authorization: Option<String>,
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
    /// budget allows; a budget that lists its recipients then allows no splits, as it would see
    /// one payee of several.
    #[serde(default)]
    pub recipients: Vec<String>,
    /// The stablecoin that network fees are paid in; what is given for the payment if left out.
    pub fee_token: Option<String>,
    /// Buys the tokens with it that it does not pay in directly.
    pub buy_with: Option<BuyConfig>,
    /// Realms to sign zero-amount proofs for whatever host was asked.
    #[serde(default)]
    pub realms: Vec<String>,
    /// What only `tempo/session` needs.
    pub session: Option<SessionWalletConfig>,
}

/// A stablecoin to buy others with, on the chain's own exchange.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BuyConfig {
    /// The token that is given. Required.
    pub token: Option<String>,
    /// How much dearer than one for one the other may be, a share: `"0.01"`, which is the default.
    /// At most `"0.1"`. What a payment may come to with it is what the budget is asked for.
    pub slippage: Option<String>,
}

impl BuyConfig {
    fn read(&self, issues: &mut Vec<Issue>) -> Option<Buying> {
        let at = "buy_with.token";
        let missing = || Issue::new(at, "is missing; give the stablecoin to buy others with");
        let token = self.token.as_deref().ok_or_else(missing);
        let token = collect(token.and_then(|text| terms::token(at, text)), issues);
        let share = self.slippage.as_deref().unwrap_or("0.01");
        let points = Amount::from_decimal(share, 4).ok();
        let points = points.and_then(|points| u16::try_from(points.get()).ok());
        let slippage = points.filter(|points| *points <= 1_000).ok_or_else(|| {
            let problem = "is no share from 0 to 0.1 with up to four decimals, such as \"0.01\"";
            Issue::new("buy_with.slippage", problem)
        });
        let slippage = collect(slippage, issues)?;
        token.map(|token| Buying { token, slippage })
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
        Self::read(
            config,
            key.map(|key| Account::Signs(Key::ecdsa(key))),
            issues,
        )
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
        Self::read(config, Some(Account::Signs(Key::ecdsa(signer))), issues)
    }

    /// The same for a key of any kind that Tempo accounts know: P-256, WebAuthn.
    ///
    /// # Errors
    /// Everything that is wrong with the configuration.
    pub fn signing_with(config: WalletConfig, signer: impl KeySigner) -> Result<Self, Invalid> {
        let issues = no_key(&config);
        let key = Key::own(Arc::new(signer));
        Self::read(config, Some(Account::Signs(key)), issues)
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
        let buying = config.buy_with.as_ref();
        let buying = buying.and_then(|buying| buying.read(&mut issues));
        let holder = config.account.as_deref();
        let holder = holder.and_then(|text| collect(terms::account("account", text), &mut issues));
        let authorization = config.key_authorization.as_deref();
        let authorization =
            authorization.and_then(|text| collect(key_authorization(text), &mut issues));
        if config.key_authorization.is_some() && config.account.is_none() {
            let problem = "makes the key an access key of an account; give `account` too";
            issues.push(Issue::new("key_authorization", problem));
        }
        if let Some(Account::Sends(_)) = account
            && config.account.is_some()
        {
            let problem = "is of no use in a wallet that can only broadcast; leave it out";
            issues.push(Issue::new("account", problem));
        }
        Invalid::unless_empty(issues)?;
        let (Some(account), Some(rpc), Some(chain_id)) = (account, rpc, chain_id) else {
            return Err(unreported());
        };
        let wallet = Self {
            account,
            chain: Arc::new(Chain::new(chain_id, rpc)),
            currencies,
            recipients,
            fee_token,
            buying,
            realms: Realms::from(config.realms),
        };
        Ok(match holder {
            Some(holder) => wallet.for_account(holder, authorization),
            None => wallet,
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

fn key_authorization(text: &str) -> Result<SignedKeyAuthorization, Issue> {
    let problem = "is no signed key authorisation; give its RLP in hexadecimal, 0x…";
    let shape = || Issue::new("key_authorization", problem);
    let bytes = hex::decode(text).map_err(|_| shape())?;
    let mut rest = bytes.as_slice();
    let signed = SignedKeyAuthorization::decode(&mut rest).map_err(|_| shape())?;
    rest.is_empty().then_some(signed).ok_or_else(shape)
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
