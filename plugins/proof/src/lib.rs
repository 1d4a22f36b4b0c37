//! The zero-amount proof: a payer shows that it controls an account, and nothing moves.
//!
//! On the wire this is `tempo/charge` with amount `"0"` and a payload of type `proof`: an EIP-712
//! signature over the challenge id and the realm. There is no RPC and no chain client here, so a
//! server can identify its callers by key without running anything else. The Tempo rail uses the
//! same functions for its own zero-amount offers.
//!
//! ```
//! use farebox_core::{Plugin, Registry};
//!
//! let registry = Registry::default().with(&farebox_proof::CHARGE)?;
//! let plugin: &Plugin = registry.get("proof/charge")?;
//! assert_eq!((plugin.method, plugin.intent), ("tempo", "charge"));
//! # Ok::<(), farebox_core::RegistryError>(())
//! ```

mod config;
mod key;
mod quote;
mod source;
pub mod terms;
mod verify;
mod wallet;

use farebox_core::prelude::*;

pub use config::{Config, WalletConfig};
pub use key::{LocalKey, sign_hash};
pub use source::{InvalidSource, Source};
pub use verify::{Delegates, Payload, proof_hash, proof_key, verify_proof, verify_proof_with};
pub use wallet::{ProofWallet, Proven, Realms, sign_proof};

use terms::Payee;

plugin! {
    /// `proof/charge`: `tempo/charge` on the wire, for amount `"0"`.
    pub static CHARGE = Charge: Proof::new, wallet: ProofWallet::new,
        name: "proof/charge", example: include_str!("../example.toml");
}

/// The server's side: asks for a proof and checks it.
#[derive(Debug)]
pub struct Proof {
    chain_id: u64,
    payee: Payee,
    settler: NoSettler,
}

/// The rail's own request members.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Details {
    /// The chain that the account lives on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chain_id: Option<u64>,
}

impl Rail<Charge> for Proof {
    const METHOD: &'static str = "tempo";
    type Details = Details;
    type Payload = Payload;
    type Settler = NoSettler;

    fn check(&self, terms: &ChargeTerms) -> Result<(), Invalid> {
        quote::check(self, terms).map(drop)
    }

    async fn quote(&self, terms: &ChargeTerms) -> Result<Quote<Charge, Details>, NoQuote> {
        quote::quote(self, terms)
    }

    async fn verify(
        &self,
        cx: &Presented<'_>,
        ask: &Ask<Charge, Details>,
        payload: Payload,
    ) -> Result<Plan<Once, Never>, Refusal> {
        verify::verify(self, cx, ask, &payload)
    }

    fn settler(&self) -> &NoSettler {
        &self.settler
    }
}
