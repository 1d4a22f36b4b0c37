//! Signing proofs.

use std::{fmt, sync::Arc};

use alloy::{primitives::hex, signers::Signer};
use farebox_core::{Approved, Ask, Charge, Cost, Fault, Paid, PayError, Paying, Wallet};
use farebox_wire::Challenge;
use serde::Serialize;

use crate::{Details, Source, proof_hash, sign_hash};

/// The payload of a proof.
#[derive(Clone, Serialize)]
pub struct Proven {
    #[serde(rename = "type")]
    kind: &'static str,
    signature: String,
}

impl Proven {
    /// A proof by a signature in whatever form its verifier reads.
    pub fn of(signature: &[u8]) -> Self {
        Self {
            kind: "proof",
            signature: hex::encode_prefixed(signature),
        }
    }
}

impl fmt::Debug for Proven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proven").finish_non_exhaustive()
    }
}

/// Signs a proof for `challenge` with the signer's account on `chain_id`. Whether the realm may be
/// signed for is the caller's to check: see [`Realms`].
///
/// # Errors
/// If the signer does not sign; see [`sign_hash`].
pub async fn sign_proof(
    signer: &(dyn Signer + Send + Sync),
    chain_id: u64,
    challenge: &Challenge,
) -> Result<Paid<Proven>, Fault> {
    let address = signer.address();
    let signature = sign_hash(signer, &proof_hash(address, chain_id, challenge)).await?;
    Ok(Paid::new(Proven::of(&signature.as_bytes())).by(Source { chain_id, address }.to_string()))
}

/// For which realms a wallet signs proofs. A proof is good for its realm only, so a wallet that
/// signs for any realm lets one service act as its owner at another.
#[derive(Clone, Debug, Default)]
pub struct Realms {
    pub(crate) pinned: Vec<String>,
}

impl Realms {
    /// Whether a challenge of `realm` that came from `host` may be signed.
    ///
    /// # Errors
    /// [`PayError::Refused`] if the realm is not pinned and not the host.
    pub fn check(&self, realm: &str, host: Option<&str>) -> Result<(), PayError> {
        if self.pinned.iter().any(|pinned| pinned == realm) {
            return Ok(());
        }
        match host {
            Some(host) if same_host(realm, host) => Ok(()),
            Some(host) => Err(PayError::Refused(format!(
                "its realm is {realm:?} and not the host {host:?}, and a proof for one is good at \
                 the other"
            ))),
            None => Err(PayError::Refused(format!(
                "no host is known to compare its realm {realm:?} with; list it under `realms`"
            ))),
        }
    }
}

/// Equal names without regard to case; ports are compared where both have one.
fn same_host(realm: &str, host: &str) -> bool {
    let split = |text: &'_ str| -> (String, Option<String>) {
        match text.rsplit_once(':') {
            Some((name, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => {
                (name.to_ascii_lowercase(), Some(port.to_owned()))
            }
            _ => (text.to_ascii_lowercase(), None),
        }
    };
    let ((realm, realm_port), (host, host_port)) = (split(realm), split(host));
    realm == host && (realm_port.is_none() || host_port.is_none() || realm_port == host_port)
}

/// Answers zero-amount challenges with a proof.
#[derive(Clone)]
pub struct ProofWallet {
    signer: Arc<dyn Signer + Send + Sync>,
    chain_id: Option<u64>,
    realms: Realms,
}

impl fmt::Debug for ProofWallet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProofWallet")
            .field("address", &self.signer.address())
            .field("chain_id", &self.chain_id)
            .field("realms", &self.realms)
            .finish()
    }
}

impl ProofWallet {
    /// A wallet over any signer of raw hashes: a local key, a KMS, a remote wallet.
    pub fn with_signer(signer: impl Signer + Send + Sync + 'static) -> Self {
        Self {
            signer: Arc::new(signer),
            chain_id: None,
            realms: Realms::default(),
        }
    }

    /// Signs for this chain only.
    pub fn on_chain(mut self, chain_id: Option<u64>) -> Self {
        self.chain_id = chain_id;
        self
    }

    /// Signs for these realms whatever host was asked.
    pub fn for_realms(mut self, realms: impl Into<Realms>) -> Self {
        self.realms = realms.into();
        self
    }

    fn chain(&self, details: &Details) -> Result<u64, PayError> {
        match (details.chain_id, self.chain_id) {
            (Some(asked), Some(own)) if asked != own => Err(PayError::Unsupported(format!(
                "it is for chain {asked}, not {own}"
            ))),
            (asked, own) => asked
                .or(own)
                .ok_or_else(|| PayError::Unsupported("it names no chain".to_owned())),
        }
    }
}

impl Wallet<Charge> for ProofWallet {
    const METHOD: &'static str = "tempo";
    type Details = Details;
    type Payload = Proven;

    fn price(&self, cx: &Paying<'_>, ask: &Ask<Charge, Details>) -> Result<Cost, PayError> {
        if !ask.request.amount.is_zero() {
            let text = "it has a price, and this wallet signs proofs only";
            return Err(PayError::Unsupported(text.to_owned()));
        }
        self.chain(&ask.details)?;
        self.realms.check(&cx.challenge.realm, cx.host)?;
        Ok(Cost {
            amount: ask.request.amount,
            currency: ask.request.currency.to_ascii_lowercase(),
            recipient: ask.request.recipient.clone(),
        })
    }

    async fn pay(
        &self,
        cx: &Paying<'_>,
        ask: Ask<Charge, Details>,
        _: Approved,
    ) -> Result<Paid<Proven>, PayError> {
        self.price(cx, &ask)?;
        let chain_id = self.chain(&ask.details)?;
        sign_proof(self.signer.as_ref(), chain_id, cx.challenge)
            .await
            .map_err(PayError::NotPaid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects: a service cannot have a caller sign a proof that is good elsewhere.
    #[test]
    fn a_realm_must_be_the_host_or_pinned() {
        let realms = Realms::from(vec!["pinned.example".to_owned()]);
        for (realm, host) in [
            ("api.example", Some("api.example")),
            ("API.example", Some("api.example:8443")),
            ("localhost:8402", Some("localhost:8402")),
            ("localhost:8402", Some("localhost")),
            ("pinned.example", Some("other.example")),
            ("pinned.example", None),
        ] {
            assert!(realms.check(realm, host).is_ok(), "{realm} {host:?}");
        }
        for (realm, host) in [
            ("bank.example", Some("api.example")),
            ("example", Some("api.example")),
            ("api.example.evil", Some("api.example")),
            ("localhost:1", Some("localhost:2")),
            ("api.example", None),
        ] {
            let refused = realms.check(realm, host);
            assert!(
                matches!(refused, Err(PayError::Refused(_))),
                "{realm} {host:?}"
            );
        }
    }
}
