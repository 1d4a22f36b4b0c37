//! `tempo/charge`: one stablecoin transfer for one request.

pub(crate) mod build;
mod calls;
pub(crate) mod key;
pub(crate) mod legs;
pub mod memo;
mod page;
mod quote;
pub(crate) mod receipt;
pub(crate) mod settle;
pub(crate) mod sponsor;
pub(crate) mod swap;
pub(crate) mod tx;
pub(crate) mod verify;
pub(crate) mod wallet;

use std::{fmt, sync::Arc};

use farebox_core::{Tally, prelude::*};
use farebox_proof::terms::Payee;

pub use build::Broadcaster;
pub use calls::TokenCall;
pub use key::KeySigner;
pub use receipt::verify_receipt;
pub use settle::{Order, TempoSettler};
pub use sponsor::{Sponsor, SponsorBudget, SponsorLimits};
pub use wallet::{Payment, TempoWallet};

use crate::{
    chain::Chain,
    config::{Mode, Modes},
};

/// The server's side.
#[derive(Debug)]
pub struct Tempo {
    pub(crate) chain: Arc<Chain>,
    pub(crate) payee: Payee,
    pub(crate) decimals: u8,
    pub(crate) modes: Modes,
    pub(crate) sponsor: Option<Sponsor>,
    pub(crate) settler: TempoSettler,
}

/// The rail's own request members. A `memo` is not offered here; the wallet writes one that other
/// servers ask for.
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
        let allowance = sponsor.allowance(self.chain.id());
        self.settler.allowance = Some(Arc::new(allowance));
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

    fn entrust(&self, tally: Tally) {
        if let Some(allowance) = &self.settler.allowance {
            allowance.entrust(tally);
        }
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

    fn page(&self, challenge: &Challenge, ask: &Ask<Charge, Details>) -> Option<PagePart> {
        page::part(challenge, ask, self.decimals)
    }
}
