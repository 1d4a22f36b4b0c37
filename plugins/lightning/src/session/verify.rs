//! What a presentation does to a session.

use std::time::Duration;

use farebox_core::{
    Ask, Change, Channel, ChannelId, ChannelState, Fault, Plan, Presented, ProofKey, Refusal,
    Rejection, Session, Voucher,
};
use serde::{Deserialize, Serialize};

use super::settle::RefundOrder;
use super::wire::{Action, Right, SessionDetails, SessionPayload};
use crate::bolt11::{Bolt11, Network, PaymentHash, Preimage};
use crate::charge::quote::fault;
use crate::charge::verify::{KEEP, is_settled};
use crate::node::Node;

/// The rail's own part of a channel.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Kept {
    /// Where what is left goes at the close.
    pub(crate) return_invoice: String,
}

pub(crate) fn channel_of(session: PaymentHash) -> ChannelId {
    ChannelId::of(crate::METHOD, &session.to_string())
}

pub(crate) async fn verify(
    node: &dyn Node,
    strict: bool,
    cx: &Presented<'_>,
    ask: &Ask<Session, SessionDetails>,
    payload: SessionPayload,
) -> Result<Plan<Channel, RefundOrder>, Refusal> {
    match payload.read()? {
        Action::Open {
            preimage,
            return_invoice,
        } => {
            let back = returns_to(&return_invoice, node.network(), cx)?;
            let deposit = deposit(node, strict, cx, ask, &preimage).await?;
            let kept = serde_json::to_value(Kept { return_invoice })
                .map_err(|e| Fault::new("writing a session").caused_by(e))?;
            let change = Change::prepaid(deposit.amount).with_rail(kept);
            let plan = Plan::open(deposit.proof, channel_of(deposit.hash), change, None);
            Ok(plan.also(back))
        }
        Action::Bearer(right) => {
            let channel = entitled(cx, &right).await?;
            Ok(Plan::advance(channel, Voucher::bearer()))
        }
        Action::TopUp { session, preimage } => {
            let channel = channel_of(session);
            // Refused before its proof is claimed, so that the same payment may open another.
            if open(cx, &channel).await?.closed {
                return Err(closed());
            }
            let deposit = deposit(node, strict, cx, ask, &preimage).await?;
            let change = Change::prepaid(deposit.amount);
            Ok(Plan::top_up(deposit.proof, channel, change, None))
        }
        Action::Close(right) => {
            let channel = entitled(cx, &right).await?;
            Ok(Plan::close(channel, Change::none(), None))
        }
    }
}

/// A session that takes requests. It says nothing of its balance: whoever asks has shown nothing.
async fn open(cx: &Presented<'_>, channel: &ChannelId) -> Result<ChannelState, Refusal> {
    let Some(state) = cx.channel(channel).await? else {
        let detail = "no such session; pay a deposit to open one";
        return Err(Rejection::rail("session-not-found", detail).into());
    };
    Ok(state)
}

/// The session of whoever holds its secret.
async fn entitled(cx: &Presented<'_>, right: &Right) -> Result<ChannelId, Refusal> {
    let channel = channel_of(right.session);
    let state = open(cx, &channel).await?;
    if right.preimage.hash() != right.session {
        return Err(wrong_preimage());
    }
    if state.closed {
        return Err(closed());
    }
    Ok(channel)
}

fn closed() -> Refusal {
    let detail = "the session is closed; pay a deposit to open another";
    Rejection::rail("session-closed", detail).into()
}

fn wrong_preimage() -> Refusal {
    let detail = "the preimage does not belong to the deposit's invoice";
    Rejection::rail("invalid-preimage", detail).into()
}

struct Deposit {
    hash: PaymentHash,
    amount: farebox_wire::Amount,
    proof: ProofKey,
}

/// The deposit that `preimage` proves, by the challenge's own invoice.
async fn deposit(
    node: &dyn Node,
    strict: bool,
    cx: &Presented<'_>,
    ask: &Ask<Session, SessionDetails>,
    preimage: &Preimage,
) -> Result<Deposit, Refusal> {
    // The ask is ours, bound by HMAC; that it contradicts itself would be our own mistake.
    let (invoice, amount) = ask
        .details
        .deposit(node.network())
        .map_err(|e| Fault::new("reading an issued invoice").caused_by(e))?;
    let hash = invoice.payment_hash;
    if preimage.hash() != hash {
        return Err(wrong_preimage());
    }
    if invoice.expires <= *cx.now {
        let detail = "the deposit's invoice has expired; ask for another challenge";
        return Err(Rejection::rail("challenge-expired", detail).into());
    }
    if strict && !is_settled(node, hash).await? {
        return Err(Rejection::verification("the deposit has not been paid").into());
    }
    // The key of a charge: one payment is a charge or a deposit, and never both.
    let proof = ProofKey::of(crate::METHOD, hash.as_bytes()).keep_for(KEEP);
    Ok(Deposit {
        hash,
        amount,
        proof,
    })
}

/// Where refunds go: an invoice that leaves the amount to us. It is claimed, because a node pays an
/// invoice once: the second of two sessions that name the same one would get nothing back.
fn returns_to(bolt11: &str, network: Network, cx: &Presented<'_>) -> Result<ProofKey, Rejection> {
    let refuse = |why: String| Rejection::rail("invalid-return-invoice", why);
    let invoice = Bolt11::parse(bolt11)
        .map_err(|_| refuse("`returnInvoice` is not valid BOLT11".to_owned()))?;
    if invoice.network != Some(network) {
        return Err(refuse(format!("`returnInvoice` is not for {network}")));
    }
    if invoice.amount_msat.is_some_and(|msat| msat > 0) {
        return Err(refuse("`returnInvoice` must not name an amount".to_owned()));
    }
    let left = invoice.expires.unix_millis() - cx.now.unix_millis();
    let left = Duration::from_millis(u64::try_from(left).unwrap_or(0));
    if left.is_zero() {
        return Err(refuse(
            "`returnInvoice` has expired; give one that lasts 30 days".to_owned(),
        ));
    }
    let key = ProofKey::of("lightning/return", invoice.payment_hash.as_bytes());
    Ok(key.keep_for(left.saturating_add(KEEP)))
}

/// What is to be given back of a closed session, if anything can be.
pub(crate) fn refund_of(state: &ChannelState, max_fee_msat: u64) -> Result<RefundOrder, Fault> {
    let kept = Kept::deserialize(&state.rail)
        .map_err(|_| Fault::new("reading where a session's refund goes"))?;
    RefundOrder::new(&kept.return_invoice, state.unaccounted(), max_fee_msat)
        .map(|order| order.again(!state.refunded.is_zero()))
        .map_err(|e| fault_of("reading a return invoice", &e))
}

fn fault_of(what: &'static str, error: &crate::bolt11::Disagreement) -> Fault {
    fault(what, crate::node::NodeError::Refused(error.to_string()))
}
