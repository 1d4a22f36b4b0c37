//! Whether a payload pays for a challenge. Reads the chain, changes nothing.

use std::time::Duration;

use alloy::primitives::U256;
use farebox_core::{Ask, Charge, Fault, Once, Plan, Presented, ProofKey, Refusal, Rejection};
use farebox_proof::{Source, proof_key, verify_proof};

use crate::{
    Details, Order, Payload, Tempo,
    explain::payers_fault,
    rpc::RpcError,
    tx::{Expected, SignedTx},
};

/// How long a transaction's keys outlive its challenge. Its memo names the challenge and its window
/// closes with it, so afterwards the rail refuses it by itself; this is for clocks that differ.
const KEEP: Duration = Duration::from_secs(300);

pub(crate) async fn verify(
    rail: &Tempo,
    cx: &Presented<'_>,
    ask: &Ask<Charge, Details>,
    payload: &Payload,
) -> Result<Plan<Once, Order>, Refusal> {
    let free = ask.request.amount.is_zero();
    match (payload.kind.as_str(), free) {
        ("proof", true) => {
            verify_proof(cx.challenge, rail.chain.id(), cx.source, &payload.signature)?;
            Ok(Plan::paid(proof_key(cx.challenge), &cx.challenge.id))
        }
        ("transaction", false) => transaction(rail, cx, ask, &payload.signature).await,
        (_, true) => reject("this offer costs nothing and takes a payload of type `proof`"),
        ("proof", false) => reject("a proof moves no money and this offer has a price"),
        ("hash", false) => reject(
            "push mode is not offered here: hand over the signed transaction instead of its hash",
        ),
        _ => Err(Rejection::malformed("the payload's `type` must be `transaction`").into()),
    }
}

fn reject<T>(detail: &str) -> Result<T, Refusal> {
    Err(Rejection::verification(detail).into())
}

async fn transaction(
    rail: &Tempo,
    cx: &Presented<'_>,
    ask: &Ask<Charge, Details>,
    text: &str,
) -> Result<Plan<Once, Order>, Refusal> {
    let expected = expected(rail, cx, ask)?;
    let signed = SignedTx::read(text)?;
    same_payer(cx.source, expected.chain_id, &signed)?;
    let (transfer, valid_before) = signed.check(&expected)?;
    rail.chain
        .simulate(&signed.simulation())
        .await
        .map_err(refusal)?;
    let keys = [signed.unique, signed.hash].map(|hash| ProofKey::of("tempo", hash).keep_for(KEEP));
    let [unique, hash] = keys;
    let order = Order {
        raw: signed.raw,
        hash: signed.hash,
        valid_before,
        transfer,
    };
    Ok(Plan::settle(unique, order).also(hash))
}

/// What the request asks for, from the request itself: it is our own, authenticated.
fn expected<'a>(
    rail: &Tempo,
    cx: &Presented<'a>,
    ask: &Ask<Charge, Details>,
) -> Result<Expected<'a>, Fault> {
    let broken = |_| Fault::new("a tempo request of ours names no address");
    let recipient = ask.request.recipient.as_deref().unwrap_or_default();
    if ask.details.chain_id != Some(rail.chain.id()) {
        return Err(Fault::new("a tempo request of ours is for another chain"));
    }
    Ok(Expected {
        chain_id: rail.chain.id(),
        token: ask.request.currency.parse().map_err(broken)?,
        recipient: recipient.parse().map_err(broken)?,
        amount: U256::from(ask.request.amount.get()),
        challenge: cx.challenge,
        now: cx.now.unix_millis(),
    })
}

/// A source may be left out; one that is given must be the sender.
fn same_payer(source: Option<&str>, chain_id: u64, signed: &SignedTx) -> Result<(), Rejection> {
    let Some(source) = source else { return Ok(()) };
    let source: Source = source
        .parse()
        .map_err(|e| Rejection::verification(format!("the source cannot be read: {e}")))?;
    if source
        != (Source {
            chain_id,
            address: signed.sender,
        })
    {
        return Err(Rejection::verification(
            "the transaction is not signed by the account in `source`",
        ));
    }
    Ok(())
}

/// A failed simulation is the payer's fault only if the node said why, in words that are known.
fn refusal(error: RpcError) -> Refusal {
    let refused = match &error {
        RpcError::Refused(refused) => payers_fault(refused),
        _ => None,
    };
    match refused {
        Some(text) => Rejection::verification(format!("the payment would fail: {text}")).into(),
        None => Fault::unavailable("simulating a tempo transaction")
            .caused_by(error)
            .into(),
    }
}
