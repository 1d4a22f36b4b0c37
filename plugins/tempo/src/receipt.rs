//! What a transaction's receipt says about a payment. No I/O.

use alloy::primitives::{Address, B256};
use farebox_core::Rejection;
use farebox_proof::Source;
use farebox_wire::Credential;

use crate::{
    Payload,
    chain::Receipt,
    legs::{Asked, Made},
    tx::SignedTx,
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
    if !receipt.succeeded() {
        return Err(no("the transaction was reverted; nothing was transferred"));
    }
    let source = source(credential, &asked)?;
    if let (Some(source), Some(signer)) = (source, signer)
        && source != signer
    {
        return Err(no(
            "the transaction is not signed by the account in `source`",
        ));
    }
    let payer = source.or(signer).or(receipt.from);
    let mut made = receipt.transfers(asked.token);
    made.retain(|made: &Made| payer.is_none_or(|payer| made.from == payer));
    asked.check(&made)?;
    Ok(hash)
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
    let taken = |mode: &str| {
        let modes = asked.details.supported_modes.as_deref();
        modes.is_none_or(|modes| modes.iter().any(|taken| taken == mode))
    };
    match payload.kind.as_str() {
        "hash" if asked.details.fee_payer == Some(true) => Err(no(
            "a sponsored payment is handed over signed, not as a hash",
        )),
        "hash" if taken("push") => {
            let hash = payload.hash.parse().map_err(|_| {
                Rejection::malformed("the payload's `hash` is no transaction hash (0x…)")
            })?;
            Ok((hash, None))
        }
        "transaction" if taken("pull") => {
            let signed = SignedTx::read(&payload.signature)?;
            Ok((signed.hash, Some(signed.sender)))
        }
        "hash" | "transaction" => Err(no("the challenge does not take this type of payload")),
        _ => Err(Rejection::malformed(
            "the payload's `type` must be `hash` or `transaction`",
        )),
    }
}

fn source(credential: &Credential, asked: &Asked<'_>) -> Result<Option<Address>, Rejection> {
    let Some(source) = credential.source.as_deref() else {
        return Ok(None);
    };
    let source: Source = source
        .parse()
        .map_err(|error| no(&format!("the source cannot be read: {error}")))?;
    if asked
        .details
        .chain_id
        .is_some_and(|id| id != source.chain_id)
    {
        return Err(no("the source is an account of another chain"));
    }
    Ok(Some(source.address))
}
