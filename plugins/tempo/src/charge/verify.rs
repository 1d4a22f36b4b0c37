//! Whether a payload pays for a challenge. Reads the chain, changes nothing.

use std::time::Duration;

use alloy::primitives::{Address, B256, U256};
use farebox_core::{Ask, Charge, Fault, Once, Plan, Presented, ProofKey, Refusal, Rejection};
use farebox_proof::{proof_key, verify_proof_with};
use farebox_wire::Timestamp;
use tempo_primitives::{TempoTransaction, transaction::calc_gas_balance_spending};

use crate::{
    Details, Order, Payload, Tempo,
    chain::Receipt,
    charge::build::ON_THE_WAY,
    charge::legs::Asked,
    charge::receipt::{pays, read_hash, source},
    charge::settle::MARGIN,
    charge::sponsor::{FLOOR, Half, Share, Sponsor},
    charge::swap::Swap,
    charge::tx::{SignedTx, sponsored_request},
    envelope,
    explain::payers_fault,
    keys::Spending,
    rpc::RpcError,
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
            let (id, signature) = (rail.chain.id(), &payload.signature);
            verify_proof_with(cx.challenge, id, cx.source, signature, rail.chain.as_ref()).await?;
            Ok(Plan::paid(proof_key(cx.challenge), &cx.challenge.id))
        }
        ("transaction", false) => {
            ask.details.takes_transaction()?;
            if ask.details.fee_payer == Some(true) {
                return sponsored(rail, cx, ask, &payload.signature).await;
            }
            transaction(rail, cx, ask, &payload.signature).await
        }
        ("hash", false) => {
            ask.details.takes_hash()?;
            broadcast(rail, cx, ask, &payload.hash).await
        }
        (_, true) => reject("this offer costs nothing and takes a payload of type `proof`"),
        ("proof", false) => reject("a proof moves no money and this offer has a price"),
        _ => {
            Err(Rejection::malformed("the payload's `type` must be `transaction` or `hash`").into())
        }
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
    let asked = asked(rail, cx, ask)?;
    let signed = SignedTx::read_any(text)?;
    let source = source(cx.source, Some(rail.chain.id()))?;
    if source.is_some_and(|source| source != signed.sender) {
        return reject("the transaction is not signed by the account in `source`");
    }
    let (transfers, valid_before) = signed.check(&asked, rail.chain.id(), cx.now)?;
    let spending = spending(&asked, signed.tx(), true);
    // Before the simulation, which a node makes of anybody's account.
    signed
        .by
        .may_spend(&rail.chain, signed.tx(), spending)
        .await?;
    rail.chain
        .simulate(&signed.simulation())
        .await
        .map_err(refusal)?;
    let order = Order {
        raw: signed.raw,
        hash: signed.hash,
        valid_before,
        transfers,
        sponsored: false,
        share: None,
        moved: None,
    };
    Ok(Plan::settle(key(signed.unique), order).also(key(signed.hash)))
}

/// A transaction whose fee we pay. It is signed for the fee here, and broadcast by the settler; if
/// the simulation fails or nobody can tell, the signature goes nowhere.
async fn sponsored(
    rail: &Tempo,
    cx: &Presented<'_>,
    ask: &Ask<Charge, Details>,
    text: &str,
) -> Result<Plan<Once, Order>, Refusal> {
    let sponsor = rail
        .sponsor
        .as_ref()
        .ok_or_else(|| Fault::new("a sponsored request of ours without a fee payer"))?;
    let asked = asked(rail, cx, ask)?;
    let (open, claimed) = envelope::read(text)?;
    let half = sponsor.examine(&asked, open, cx.now)?;
    let payer = half.by.account;
    let source = source(cx.source, Some(rail.chain.id()))?;
    let mut named = source.into_iter().chain(claimed);
    if named.any(|named| named != payer) {
        return reject("the transaction is not signed by the account that it names");
    }
    if payer == asked.recipient {
        return reject("the payer and the recipient are the same account");
    }
    let spending = spending(&asked, &half.tx, false);
    half.by.may_spend(&rail.chain, &half.tx, spending).await?;
    let Cosigned {
        signed,
        share,
        unique,
        end,
    } = cosigned(rail, sponsor, half).await?;
    let order = Order {
        transfers: signed.last_transfers(asked.len())?,
        valid_before: end,
        raw: signed.raw,
        hash: signed.hash,
        sponsored: true,
        share,
        moved: None,
    };
    Ok(Plan::settle(key(unique), order).also(key(signed.hash)))
}

/// A transaction that has both signatures, with what it will take from the fee payer's budget.
pub(crate) struct Cosigned {
    pub(crate) signed: SignedTx,
    pub(crate) share: Option<Share>,
    pub(crate) unique: B256,
    pub(crate) end: u64,
}

/// Simulates what a payer signed, and signs for its fee. The signature goes nowhere but into an
/// order.
pub(crate) async fn cosigned(
    rail: &Tempo,
    sponsor: &Sponsor,
    half: Half,
) -> Result<Cosigned, Refusal> {
    let payer = half.by.account;
    let simulation = sponsored_request(half.by, &half.tx);
    match (sponsor.fee_token(), sponsor.account()) {
        (Some(token), Some(account)) => {
            let held = rail.chain.simulate_and_balance(&simulation, token, account);
            let held = held.await.map_err(refusal)?;
            can_pay(
                held,
                token,
                account,
                calc_gas_balance_spending(half.tx.gas_limit, half.tx.max_fee_per_gas),
            )?;
        }
        _ => rail.chain.simulate(&simulation).await.map_err(refusal)?,
    }
    let (unique, most, end) = (half.unique(), half.dearest_fee(), half.end());
    let allowance = rail.settler.allowance.as_ref();
    let allowance = allowance.ok_or_else(|| Fault::new("a fee payer without an allowance"))?;
    let share = allowance.share(payer, unique, most, clock()).await?;
    // The clock has gone on since the request came, and does so while somebody signs.
    in_time(end, clock())?;
    let signed = complete(rail, sponsor, half).await?;
    in_time(end, clock())?;
    Ok(Cosigned {
        signed,
        share: Some(share),
        unique,
        end,
    })
}

/// Whether what is still to be sent will be taken.
fn in_time(end: u64, now: u64) -> Result<(), Rejection> {
    if end < now.saturating_add(FLOOR + ON_THE_WAY) {
        return Err(Rejection::verification(
            "the transaction's valid_before is too close for it to be sponsored; sign it again",
        ));
    }
    Ok(())
}

fn clock() -> u64 {
    seconds(&Timestamp::now())
}

/// The transaction with its fee payer's signature. Whoever was not known to be able to pay before
/// is looked at now.
async fn complete(rail: &Tempo, sponsor: &Sponsor, half: Half) -> Result<SignedTx, Refusal> {
    let known = sponsor.fee_token().is_some();
    let whole = sponsor.complete(half).await?;
    if !known {
        let (token, account) = (whole.fee_token, whole.fee_payer);
        let held = rail.chain.balance(token, account).await.map_err(|error| {
            Fault::unavailable("reading what the fee payer holds").caused_by(error)
        })?;
        can_pay(held, token, account, whole.dearest_fee())?;
    }
    Ok(SignedTx::of(whole.signed)?)
}

fn can_pay(held: U256, token: Address, account: Address, fee: U256) -> Result<(), Fault> {
    if held >= fee {
        return Ok(());
    }
    let why = format!("{account} holds {held} base units of {token}; fund it");
    Err(Fault::unavailable("the fee payer cannot pay the network fee").caused_by(why))
}

/// What a payment takes from the key that signs it.
fn spending(asked: &Asked<'_>, tx: &TempoTransaction, own_fee: bool) -> Spending {
    // Where the token is bought, what is given for it is what the key spends.
    let bought = Swap::of(tx).ok().flatten();
    let (token, mut amount) = match bought {
        Some(swap) => (swap.token_in, U256::from(swap.most)),
        None => (asked.token, asked.total()),
    };
    if own_fee && tx.fee_token == Some(token) {
        amount += calc_gas_balance_spending(tx.gas_limit, tx.max_fee_per_gas);
    }
    Spending {
        token,
        amount,
        until: tx.valid_before.map_or(0, std::num::NonZeroU64::get),
    }
}

fn seconds(now: &Timestamp) -> u64 {
    u64::try_from(now.unix_millis().div_euclid(1000)).unwrap_or(0)
}

/// A payment that the payer has broadcast. What counts is what the tokens logged, so its calls may
/// be any. When it was included does not: its memo names the challenge, so it is no older, and the
/// challenge has not expired yet.
async fn broadcast(
    rail: &Tempo,
    cx: &Presented<'_>,
    ask: &Ask<Charge, Details>,
    text: &str,
) -> Result<Plan<Once, Order>, Refusal> {
    let asked = asked(rail, cx, ask)?;
    let hash = read_hash(text)?;
    let source = source(cx.source, Some(rail.chain.id()))?;
    let receipt = rail.chain.receipt(hash).await.map_err(|error| {
        Fault::unavailable("reading the receipt of a presented hash").caused_by(error)
    })?;
    let receipt = match receipt {
        Some(receipt) => receipt,
        None => late_receipt(rail, cx, hash).await?,
    };
    if receipt.transaction_hash != hash {
        return Err(Fault::unavailable("a node answered with another receipt").into());
    }
    let payer = source
        .or(receipt.from)
        .ok_or_else(|| Fault::unavailable("a node's receipt names no sender"))?;
    pays(&asked, Some(payer), &receipt)?;
    Ok(Plan::paid(key(hash), hash.to_string()))
}

/// What is known of a hash that no block had a moment ago.
///
/// The same credential may come again for as long as a transaction that was made in time may still
/// be included, since a fresh challenge would have an honest payer pay twice. After that there will
/// be none: wallets make transactions that end with their challenge.
async fn late_receipt(rail: &Tempo, cx: &Presented<'_>, hash: B256) -> Result<Receipt, Refusal> {
    let waiting = || Fault::unavailable("a presented hash is in no block yet");
    let expires = cx.challenge.expires.as_ref();
    let end = expires.map_or(u64::MAX, |at| seconds(at).saturating_add(MARGIN));
    // Until then one call is enough to know nothing.
    if seconds(&Timestamp::now()) < end {
        return Err(waiting().into());
    }
    let found = rail.chain.time_and_receipt(hash).await;
    match found.map_err(|error| waiting().caused_by(error))? {
        (_, Some(receipt)) => Ok(receipt),
        (time, None) if time >= end => {
            reject("no block has this transaction, and the challenge it was for is over; pay anew")
        }
        _ => Err(waiting().into()),
    }
}

fn key(hash: B256) -> ProofKey {
    ProofKey::of("tempo", hash).keep_for(KEEP)
}

/// What the request asks for. It is our own, authenticated, so one that cannot be read is our
/// fault.
fn asked<'a>(
    rail: &Tempo,
    cx: &Presented<'a>,
    ask: &Ask<Charge, Details>,
) -> Result<Asked<'a>, Fault> {
    if ask.details.chain_id != Some(rail.chain.id()) {
        return Err(Fault::new("a tempo request of ours is for another chain"));
    }
    Asked::of(cx.challenge, ask)
        .map_err(|why| Fault::new("reading a tempo request of ours").caused_by(why.detail))
}

/// A failed simulation is the payer's fault only if the node said why, in words that are known.
pub(crate) fn refusal(error: RpcError) -> Refusal {
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
