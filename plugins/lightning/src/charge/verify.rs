//! Whether a preimage pays for a challenge.

use std::time::Duration;

use farebox_core::{
    Ask, Charge, Fault, Never, Once, Plan, Presented, ProofKey, Refusal, Rejection,
};

use crate::bolt11::{Details, Invoice, Payload, PaymentHash};
use crate::charge::quote::fault;
use crate::node::{InvoiceState, Node};

/// How long a payment hash is remembered beyond its challenge. The challenge carries the invoice,
/// so once it has lapsed no challenge is left that the preimage could answer; a day covers clocks
/// that are set back.
pub(crate) const KEEP: Duration = Duration::from_secs(24 * 3600);

/// How long a right preimage waits for the node to say that its invoice is settled: the payer may
/// have it before the node has written that down, and a busy node takes its time. Nobody waits who has
/// not paid: the preimage comes with the payment.
const SETTLING: Duration = Duration::from_secs(6);

pub(crate) async fn verify(
    node: &dyn Node,
    strict: bool,
    cx: &Presented<'_>,
    ask: &Ask<Charge, Details>,
    payload: Payload,
) -> Result<Plan<Once, Never>, Refusal> {
    let preimage = payload.preimage.ok_or_else(|| {
        Rejection::rail(
            "malformed-credential",
            "the payload needs a preimage of 64 lower-case hex digits",
        )
    })?;
    // The ask is ours, bound by HMAC; that it contradicts itself would be our own mistake.
    let invoice = Invoice::check(ask.request.amount, &ask.details)
        .map_err(|e| Fault::new("reading an issued invoice").caused_by(e))?;
    let hash = invoice.payment_hash;
    if preimage.hash() != hash {
        return Err(Rejection::rail(
            "invalid-preimage",
            "the preimage does not belong to this challenge's invoice",
        )
        .into());
    }
    if invoice.expires <= *cx.now {
        return Err(Rejection::rail("expired-invoice", "the invoice has expired").into());
    }
    if strict && !is_settled(node, hash).await? {
        return Err(Rejection::verification("the invoice has not been paid").into());
    }
    let proof = ProofKey::of(crate::METHOD, hash.as_bytes()).keep_for(KEEP);
    Ok(Plan::paid(proof, hash.to_string()))
}

/// Whether the node has been paid for an invoice that we issued.
pub(crate) async fn is_settled(node: &dyn Node, hash: PaymentHash) -> Result<bool, Fault> {
    let state = node.look_up(hash, SETTLING).await;
    match state.map_err(|e| fault("looking up a Lightning invoice", e))? {
        Some(state) => Ok(state == InvoiceState::Settled),
        // A right preimage for an invoice the node has lost: the payer is not at fault.
        None => Err(Fault::new("finding an issued invoice at the node")),
    }
}
