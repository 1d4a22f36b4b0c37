//! The typed data, and whether a signature over it is good.

use std::{fmt, future::Future, time::Duration};

use alloy::{
    primitives::{Address, B256, Signature, hex},
    sol_types::{SolStruct, eip712_domain},
};
use farebox_core::{
    Ask, Charge, Fault, Never, Once, Plan, Presented, ProofKey, Refusal, Rejection,
};
use farebox_wire::Challenge;
use serde::Deserialize;

use crate::{Details, Proof, Source};

mod typed {
    alloy::sol! {
        /// Version 3 of the proof. The drafts' version 1 holds the challenge id alone; deployed
        /// peers sign and accept only this one.
        struct Proof {
            address account;
            string challengeId;
            string realm;
        }
    }
}

/// What a payer presents. Members of other payload types are ignored.
#[derive(Clone, Deserialize)]
pub struct Payload {
    /// Must be `proof`.
    #[serde(rename = "type")]
    pub kind: String,
    /// 65 bytes, hexadecimal: r, s and v.
    #[serde(default)]
    pub signature: String,
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Payload").finish_non_exhaustive()
    }
}

/// The hash that `account` signs for `challenge` on `chain_id` (EIP-712).
pub fn proof_hash(account: Address, chain_id: u64, challenge: &Challenge) -> B256 {
    let domain = eip712_domain! { name: "MPP", version: "3", chain_id: chain_id, };
    typed::Proof {
        account,
        challengeId: challenge.id.clone(),
        realm: challenge.realm.clone(),
    }
    .eip712_signing_hash(&domain)
}

/// Who else may sign for an account than its own key: somebody who reads the account's keychain.
pub trait Delegates {
    /// Whether `signature` over `hash` was made by a key that `account` lets sign for it.
    ///
    /// # Errors
    /// A rejection if not, a fault if nobody can tell.
    fn signed(
        &self,
        account: Address,
        hash: B256,
        signature: &[u8],
    ) -> impl Future<Output = Result<(), Refusal>> + Send;
}

/// Whether `signature` (hexadecimal) proves that the account in `source` answered `challenge` on
/// `chain_id`. Needs no chain: the account must be a plain key.
///
/// # Errors
/// What is wrong, in words for the payer.
pub fn verify_proof(
    challenge: &Challenge,
    chain_id: u64,
    source: Option<&str>,
    signature: &str,
) -> Result<Source, Rejection> {
    let source = proof_source(source, chain_id)?;
    let hash = proof_hash(source.address, chain_id, challenge);
    own(source.address, &hash, signature)?;
    Ok(source)
}

/// The same, where the account may have let another key sign. `delegates` is asked only about
/// signatures that are not the account's own.
///
/// # Errors
/// What is wrong, or that nobody can tell.
pub async fn verify_proof_with(
    challenge: &Challenge,
    chain_id: u64,
    source: Option<&str>,
    signature: &str,
    delegates: &impl Delegates,
) -> Result<Source, Refusal> {
    let source = proof_source(source, chain_id)?;
    let hash = proof_hash(source.address, chain_id, challenge);
    let Err(why) = own(source.address, &hash, signature) else {
        return Ok(source);
    };
    let digits = signature.strip_prefix("0x");
    let bytes = digits.and_then(|digits| hex::decode(digits).ok());
    let bytes = bytes.filter(|bytes| !bytes.is_empty()).ok_or(why)?;
    delegates.signed(source.address, hash, &bytes).await?;
    Ok(source)
}

fn proof_source(source: Option<&str>, chain_id: u64) -> Result<Source, Rejection> {
    let no_source = "a proof needs the member `source`: did:pkh:eip155:<chain id>:<address>";
    let source: Source = source
        .ok_or_else(|| Rejection::verification(no_source))?
        .parse()
        .map_err(|e| Rejection::verification(format!("the source cannot be read: {e}")))?;
    if source.chain_id != chain_id {
        return Err(Rejection::verification(format!(
            "the source is on chain {}, this challenge is for chain {chain_id}",
            source.chain_id
        )));
    }
    Ok(source)
}

/// Whether the account's own key made the signature.
fn own(account: Address, hash: &B256, signature: &str) -> Result<(), Rejection> {
    let signer = parse_signature(signature)?
        .recover_address_from_prehash(hash)
        .map_err(|_| Rejection::verification("no account can have made this signature"))?;
    if signer != account {
        return Err(Rejection::verification(
            "the signature is not the source's over this challenge (EIP-712, MPP version 3)",
        ));
    }
    Ok(())
}

fn parse_signature(text: &str) -> Result<Signature, Rejection> {
    let shape =
        || Rejection::malformed("a proof's signature is 0x and 130 hexadecimal digits: r, s and v");
    let digits = text.strip_prefix("0x").ok_or_else(shape)?;
    let mut bytes = [0u8; 65];
    hex::decode_to_slice(digits, &mut bytes).map_err(|_| shape())?;
    if !matches!(bytes[64], 0 | 1 | 27 | 28) {
        return Err(shape());
    }
    let signature = Signature::from_raw_array(&bytes).map_err(|_| shape())?;
    // Of the two valid s the upper one is refused, as by the chain itself (EIP-2).
    if signature.normalize_s().is_some() {
        return Err(Rejection::verification(
            "the signature's s is in the upper half; negate it",
        ));
    }
    Ok(signature)
}

pub(crate) fn verify(
    rail: &Proof,
    cx: &Presented<'_>,
    ask: &Ask<Charge, Details>,
    payload: &Payload,
) -> Result<Plan<Once, Never>, Refusal> {
    if !ask.request.amount.is_zero() || ask.details.chain_id != Some(rail.chain_id) {
        // The request is our own, authenticated: only a bug can bring another one here.
        return Err(Fault::new("a proof was asked for with a price or for another chain").into());
    }
    if payload.kind != "proof" {
        let text = "this offer costs nothing and takes a payload of type `proof`";
        return Err(Rejection::verification(text).into());
    }
    verify_proof(cx.challenge, rail.chain_id, cx.source, &payload.signature)?;
    Ok(Plan::paid(proof_key(cx.challenge), &cx.challenge.id))
}

/// What makes a proof of `challenge` unique: the challenge and not the signature, since there are
/// many signatures of one statement.
///
/// Both rails that take proofs use this key. A challenge that has lapsed is refused before any rail
/// sees it, so the key is kept only a little longer, for clocks that differ.
pub fn proof_key(challenge: &Challenge) -> ProofKey {
    ProofKey::of("tempo/proof", &challenge.id).keep_for(Duration::from_secs(300))
}
