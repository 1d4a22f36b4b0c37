//! What a transaction's receipt says about a payment. No I/O.

use alloy::primitives::{Address, B256};
use farebox_core::Rejection;
use farebox_proof::Source;
use farebox_wire::Credential;

use crate::{
    Payload,
    chain::Receipt,
    charge::legs::{Asked, Made},
    charge::tx::SignedTx,
};

fn no(detail: &str) -> Rejection {
    Rejection::verification(detail)
}

/// Whether a transaction pays for the challenge of `credential`, from the transaction's receipt:
/// it succeeded, is the one presented, and the token logged every transfer asked for, by whom
/// `source` says. Returns its hash.
///
/// This reads evidence and nothing else. The caller has authenticated the challenge, knows it to
/// be unexpired, got the receipt from a node it trusts, and claims the hash, so that one
/// transaction pays once.
///
/// # Errors
/// The first thing that differs from what was asked for.
pub fn verify_receipt(credential: &Credential, receipt: &Receipt) -> Result<B256, Rejection> {
    let asked = Asked::read(&credential.challenge)?;
    let (hash, signer) = presented(credential, &asked)?;
    if receipt.transaction_hash != hash {
        return Err(no("the receipt is of another transaction"));
    }
    let source = source(credential.source.as_deref(), asked.details.chain_id)?;
    if let (Some(source), Some(signer)) = (source, signer)
        && source != signer
    {
        return Err(no(
            "the transaction is not signed by the account in `source`",
        ));
    }
    pays(&asked, source.or(signer).or(receipt.from), receipt)?;
    Ok(hash)
}

/// Whether a receipt shows every transfer that is asked for, made by `payer` where one is known.
///
/// # Errors
/// The first thing that differs. A transaction that has paid for another challenge is spent: no
/// fresh challenge follows, since its payer would pay again.
pub(crate) fn pays(
    asked: &Asked<'_>,
    payer: Option<Address>,
    receipt: &Receipt,
) -> Result<(), Rejection> {
    if !receipt.succeeded() {
        return Err(no("the transaction was reverted; nothing was transferred"));
    }
    if payer == Some(asked.recipient) {
        return Err(no("the payer and the recipient are the same account"));
    }
    let mut made = receipt.transfers(asked.token);
    made.retain(|made: &Made| payer.is_none_or(|payer| made.from == payer));
    asked.check(&made).map_err(|why| {
        if asked.is_for_another(&made) {
            Rejection::spent("the transaction pays for another challenge, as its memo says")
        } else {
            why
        }
    })
}

/// The transaction that is presented, and its signer where it is there.
fn presented(
    credential: &Credential,
    asked: &Asked<'_>,
) -> Result<(B256, Option<Address>), Rejection> {
    let payload: Payload = credential
        .payload
        .decode()
        .map_err(|_| Rejection::malformed("the payload is none of tempo/charge"))?;
    match payload.kind.as_str() {
        "hash" => {
            asked.details.takes_hash()?;
            Ok((read_hash(&payload.hash)?, None))
        }
        "transaction" => {
            asked.details.takes_transaction()?;
            let signed = SignedTx::read_any(&payload.signature)?;
            Ok((signed.hash, Some(signed.sender)))
        }
        _ => Err(Rejection::malformed(
            "the payload's `type` must be `hash` or `transaction`",
        )),
    }
}

/// A transaction's hash: `0x` and 64 hexadecimal digits.
pub(crate) fn read_hash(text: &str) -> Result<B256, Rejection> {
    let hash = Some(text).filter(|text| text.starts_with("0x"));
    hash.and_then(|text| text.parse().ok()).ok_or_else(|| {
        Rejection::malformed("the payload's `hash` is no transaction hash (0x and 64 digits)")
    })
}

/// Who says that it paid, if anybody.
///
/// # Errors
/// If the text is no account, or one of another chain.
pub(crate) fn source(
    text: Option<&str>,
    chain_id: Option<u64>,
) -> Result<Option<Address>, Rejection> {
    let Some(text) = text else {
        return Ok(None);
    };
    let source: Source = text
        .parse()
        .map_err(|error| no(&format!("the source cannot be read: {error}")))?;
    if chain_id.is_some_and(|id| id != source.chain_id) {
        return Err(no("the source is an account of another chain"));
    }
    Ok(Some(source.address))
}
