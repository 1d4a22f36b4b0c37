//! A signer whose key is elsewhere, in the manner of a server wallet (Privy's `secp256k1_sign`) or a
//! KMS: it is sent 32 bytes and answers with a signature.
//!
//! It is an alloy [`Signer`], which is all that [`TempoWallet::signing`] asks for. What it needs to
//! know is the account's address; nothing here can sign without the custodian.
//!
//! [`TempoWallet::signing`]: farebox::rails::tempo::TempoWallet::signing

use std::{fmt, time::Duration};

use alloy::{
    primitives::{Address, B256, Bytes, ChainId, Signature, U256},
    signers::{Error, Signer},
};
use async_trait::async_trait;
use farebox::core::Secret;
use serde::Deserialize;
use serde_json::{Value, json};

/// Longer than a custodian takes, unless it asks a person.
const DEADLINE: Duration = Duration::from_secs(20);

/// A wallet at a custodian.
pub struct Custodian {
    http: reqwest::Client,
    base: String,
    wallet: String,
    app: String,
    secret: Secret,
    address: Address,
}

/// Who asks, and for which wallet.
pub struct Access {
    /// `https://api.privy.io`, say.
    pub base: String,
    /// The wallet's id there.
    pub wallet: String,
    /// The app's id there.
    pub app: String,
    /// The app's secret.
    pub secret: Secret,
    /// The wallet's account on the chain.
    pub address: Address,
}

/// The secret stays out of `Debug`.
impl fmt::Debug for Custodian {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Custodian")
            .field("wallet", &self.wallet)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access")
            .field("wallet", &self.wallet)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct Answer {
    data: Signed,
}

#[derive(Deserialize)]
struct Signed {
    signature: Bytes,
}

impl Custodian {
    /// A signer that asks there.
    ///
    /// # Errors
    /// If there can be no HTTP client here.
    pub fn new(access: Access) -> Result<Self, reqwest::Error> {
        let Access {
            base,
            wallet,
            app,
            secret,
            address,
        } = access;
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(DEADLINE)
            .build()?;
        Ok(Self {
            http,
            base,
            wallet,
            app,
            secret,
            address,
        })
    }

    async fn ask(&self, hash: &B256) -> Result<Bytes, reqwest::Error> {
        let url = format!("{}/v1/wallets/{}/rpc", self.base, self.wallet);
        let body: Value = json!({ "method": "secp256k1_sign", "params": { "hash": hash } });
        let request = self
            .http
            .post(url)
            .basic_auth(&self.app, Some(self.secret.expose()))
            .header("privy-app-id", &self.app)
            .json(&body);
        let answer: Answer = request.send().await?.error_for_status()?.json().await?;
        Ok(answer.data.signature)
    }

    /// Reads r, s and perhaps v. A KMS gives no v: of the two that there are, one recovers to the
    /// account. A high s, which chains refuse, is the same statement as its negative.
    fn read(&self, bytes: &Bytes, hash: &B256) -> Option<Signature> {
        let word = |at: usize| Some(U256::from_be_slice(bytes.get(at..at + 32)?));
        let (r, s) = (word(0)?, word(32)?);
        let both = [false, true].map(|odd| Signature::new(r, s, odd));
        both.into_iter()
            .map(|signature| signature.normalize_s().unwrap_or(signature))
            .find(|signature| {
                let signer = signature.recover_address_from_prehash(hash);
                signer.is_ok_and(|signer| signer == self.address)
            })
    }
}

#[async_trait]
impl Signer for Custodian {
    async fn sign_hash(&self, hash: &B256) -> alloy::signers::Result<Signature> {
        // Its text would name the URL otherwise.
        let answer = self
            .ask(hash)
            .await
            .map_err(|e| Error::other(e.without_url()))?;
        let signature = self.read(&answer, hash);
        signature.ok_or_else(|| Error::other("the custodian's signature is not this account's"))
    }

    fn address(&self) -> Address {
        self.address
    }

    fn chain_id(&self) -> Option<ChainId> {
        None
    }

    // What is signed names its chain.
    fn set_chain_id(&mut self, _: Option<ChainId>) {}
}
