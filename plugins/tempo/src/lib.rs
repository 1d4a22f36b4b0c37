//! The Tempo rail: stablecoin payments on the Tempo chain, `tempo/charge` on the wire.
//!
//! Pull mode: the payer signs a type-0x76 transaction of `transferWithMemo` calls, one for the
//! payment and one for each of its splits, and hands it over; the server checks it against what it
//! asked for, simulates it, and the engine has it broadcast. Push mode: the payer broadcasts and
//! hands over the hash; the server reads what the tokens logged. The payment's memo is bound to the
//! challenge ([`memo`]), so one transaction pays for one challenge. An offer of amount `"0"` takes a
//! proof instead (see `farebox-proof`).
//!
//! With a `fee_payer` the server pays the network fee of pull payments, after its own checks of what
//! else the transaction does ([`Sponsor`]).
//!
//! Accepted in pull mode are transactions with an expiring nonce that the account's own key has
//! signed. Whether another nonce is the account's next, or an access key its own, takes further
//! reads of the chain.
//!
//! Of alloy and the Tempo crates only types, ABI and signing are used. A pull charge costs two RPC
//! calls, a simulation and `eth_sendRawTransactionSync`; a push charge costs one, the receipt.
//!
//! ```no_run
//! use farebox_tempo::{Config, Tempo};
//!
//! let rail = Tempo::new(Config {
//!     rpc_url: Some("https://rpc.tempo.xyz".into()),
//!     chain_id: Some(4217),
//!     currency: Some("0x20C000000000000000000000b9537d11c60E8b50".to_owned()),
//!     recipient: Some("0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC".to_owned()),
//!     ..Config::default()
//! })?;
//! # Ok::<(), farebox_core::Invalid>(())
//! ```

mod build;
mod chain;
mod config;
mod envelope;
mod explain;
mod legs;
pub mod memo;
mod nodes;
mod quote;
mod receipt;
mod rpc;
mod settle;
mod sponsor;
mod tx;
mod verify;
mod wallet;

use std::{fmt, sync::Arc};

use farebox_core::prelude::*;
use farebox_proof::terms::Payee;

pub use build::{Broadcaster, TokenCall};
pub use chain::Receipt as TransactionReceipt;
pub use config::{Config, FeePayerConfig, Mode, SecretText, WalletConfig};
pub use receipt::verify_receipt;
pub use settle::{Order, TempoSettler};
pub use sponsor::{Sponsor, SponsorLimits};
pub use wallet::{Payment, TempoWallet};

use chain::Chain;
use config::Modes;

plugin! {
    /// `tempo/charge`: a stablecoin transfer that the payer signs and the server broadcasts.
    pub static CHARGE = Charge: Tempo::new, wallet: TempoWallet::new,
        example: include_str!("../example.toml");
}

/// The server's side.
#[derive(Debug)]
pub struct Tempo {
    chain: Arc<Chain>,
    payee: Payee,
    decimals: u8,
    modes: Modes,
    sponsor: Option<Sponsor>,
    settler: TempoSettler,
}

/// The rail's own request members. Those of features that this version does not offer are read, so
/// that the wallet can say why it does not pay.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Details {
    /// EIP-155 chain id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chain_id: Option<u64>,
    /// `pull`, `push`; absent means both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supported_modes: Option<Vec<String>>,
    /// Whether the server pays the network fee.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fee_payer: Option<bool>,
    /// A memo of the seller's own instead of the one bound to the challenge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memo: Option<alloy::primitives::B256>,
    /// Further transfers out of the amount.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub splits: Option<Vec<serde_json::Value>>,
}

impl Details {
    /// Whether a signed transaction is taken.
    ///
    /// # Errors
    /// What to present instead.
    pub(crate) fn takes_transaction(&self) -> Result<(), Rejection> {
        if self.takes(Mode::Pull) {
            return Ok(());
        }
        Err(Rejection::verification(
            "pull mode is not offered here: broadcast the transaction and hand over its hash",
        ))
    }

    /// Whether the hash of a transaction is taken.
    ///
    /// # Errors
    /// What to present instead.
    pub(crate) fn takes_hash(&self) -> Result<(), Rejection> {
        if self.fee_payer == Some(true) {
            return Err(Rejection::verification(
                "a sponsored payment is handed over signed, not as a hash",
            ));
        }
        if self.takes(Mode::Push) {
            return Ok(());
        }
        Err(Rejection::verification(
            "push mode is not offered here: hand over the signed transaction instead of its hash",
        ))
    }

    /// Whether the request lists a mode, or none.
    pub(crate) fn takes(&self, mode: Mode) -> bool {
        let listed = self.supported_modes.as_deref();
        listed.is_none_or(|modes| modes.iter().any(|listed| listed == mode.as_str()))
    }
}

/// What a payer presents. Which members are there depends on the type.
#[derive(Clone, Deserialize)]
pub struct Payload {
    /// `transaction`, `proof` or `hash`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The signed transaction, or the proof's signature; hexadecimal.
    #[serde(default)]
    pub signature: String,
    /// The hash of a transaction that the payer has broadcast.
    #[serde(default)]
    pub hash: String,
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Payload")
            .field("type", &self.kind)
            .finish_non_exhaustive()
    }
}

impl Tempo {
    /// The same rail, which pays the network fees of its payers through `sponsor`: a key elsewhere, or
    /// limits of one's own. Offers are sponsored unless they say `fee_payer = false`.
    #[must_use]
    pub fn with_sponsor(mut self, sponsor: Sponsor) -> Self {
        self.sponsor = Some(sponsor);
        self
    }
}

impl Rail<Charge> for Tempo {
    const METHOD: &'static str = "tempo";
    type Details = Details;
    type Payload = Payload;
    type Settler = TempoSettler;

    fn check(&self, terms: &ChargeTerms) -> Result<(), Invalid> {
        quote::read(self, terms).map(drop)
    }

    async fn connect(&self) -> Result<(), Fault> {
        self.chain.connect().await
    }

    async fn quote(&self, terms: &ChargeTerms) -> Result<Quote<Charge, Details>, NoQuote> {
        quote::quote(self, terms)
    }

    async fn verify(
        &self,
        cx: &Presented<'_>,
        ask: &Ask<Charge, Details>,
        payload: Payload,
    ) -> Result<Plan<Once, Order>, Refusal> {
        verify::verify(self, cx, ask, &payload).await
    }

    fn settler(&self) -> &TempoSettler {
        &self.settler
    }
}
