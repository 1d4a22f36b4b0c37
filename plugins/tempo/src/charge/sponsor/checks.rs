//! What a transaction may be that somebody else pays the fee of. No I/O.

use std::time::Duration;

use alloy::primitives::{Address, TxKind};
use farebox_core::Rejection;
use farebox_wire::{Challenge, Timestamp};
use tempo_primitives::{TempoTransaction, transaction::TEMPO_EXPIRING_NONCE_KEY};

use super::{FLOOR, no};
use crate::charge::{
    legs::{Asked, Made, transfer},
    swap::Swap,
};

/// What is no payment whatever the calls say.
pub(super) fn check_form(tx: &TempoTransaction, chain_id: u64) -> Result<(), Rejection> {
    if tx.chain_id != chain_id {
        let is = tx.chain_id;
        return Err(no(format!(
            "the transaction is for chain {is}, not {chain_id}"
        )));
    }
    if tx.fee_payer_signature.is_some() {
        return Err(no("the transaction has a fee payer already"));
    }
    if !tx.access_list.is_empty() {
        return Err(no("an access list is not sponsored"));
    }
    // A key's authorisation is another matter: it costs no more gas than is capped anyway.
    if !tx.tempo_authorization_list.is_empty() {
        return Err(no("a transaction with authorizations is not sponsored"));
    }
    if tx.nonce_key != TEMPO_EXPIRING_NONCE_KEY || tx.nonce != 0 {
        return Err(no(
            "the transaction needs an expiring nonce (nonce_key 2^256 - 1, nonce 0)",
        ));
    }
    if tx.max_priority_fee_per_gas > tx.max_fee_per_gas {
        return Err(no(
            "the transaction's max_priority_fee_per_gas is higher than its max_fee_per_gas",
        ));
    }
    Ok(())
}

pub(super) fn check_window(
    tx: &TempoTransaction,
    challenge: &Challenge,
    now: &Timestamp,
    longest: Duration,
) -> Result<(), Rejection> {
    let seconds = |millis: i64| u64::try_from(millis.div_euclid(1000)).unwrap_or(0);
    let now = seconds(now.unix_millis());
    let end = tx
        .valid_before
        .ok_or_else(|| no("a sponsored transaction needs a valid_before"))?
        .get();
    if end < now.saturating_add(FLOOR) {
        return Err(no(
            "the transaction's valid_before has passed or is less than 15 seconds away; sign it again",
        ));
    }
    let mut latest = now.saturating_add(longest.as_secs());
    if let Some(expires) = &challenge.expires {
        // Rounded up: a client cannot say half a second.
        latest = latest.min(seconds(expires.unix_millis().saturating_add(999)));
    }
    if end > latest {
        return Err(no("the transaction is valid for longer than is sponsored"));
    }
    if tx.valid_after.is_some_and(|start| start.get() > now) {
        return Err(no("the transaction's valid_after lies in the future"));
    }
    Ok(())
}

/// The transfers asked for and nothing else, but for buying the token first.
pub(super) fn check_calls(
    tx: &TempoTransaction,
    asked: &Asked<'_>,
    sender: Address,
) -> Result<(), Rejection> {
    let mut calls = Vec::with_capacity(tx.calls.len());
    for call in &tx.calls {
        let TxKind::Call(to) = call.to else {
            return Err(no("a sponsored transaction creates no contract"));
        };
        if !call.value.is_zero() {
            return Err(no(
                "a call carries a native value, which Tempo does not have",
            ));
        }
        calls.push((to, &call.input));
    }
    let transfers = match Swap::of(tx)? {
        Some(swap) => {
            swap.buys(asked.token, asked.total())?;
            calls.get(2..).unwrap_or_default()
        }
        None => calls.as_slice(),
    };
    if transfers.len() != asked.len() {
        let (are, asked) = (transfers.len(), asked.len());
        return Err(no(format!(
            "the transaction has {are} transfers, {asked} are asked for"
        )));
    }
    let made: Result<Vec<Made>, Rejection> = transfers
        .iter()
        .map(|(token, input)| {
            if *token != asked.token {
                return Err(no("a call goes to something else than the token asked for"));
            }
            transfer(input, sender)
        })
        .collect();
    asked.check(&made?)
}
