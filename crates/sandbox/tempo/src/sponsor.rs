//! A fee payer that is asked over the wire (`eth_fillTransaction`): it completes a transaction and
//! signs to pay its fee.

use std::num::NonZeroU64;

use alloy::{
    consensus::SignableTransaction,
    primitives::{Address, B256, Bytes, TxKind, U64, U128, U256},
    signers::{SignerSync, local::PrivateKeySigner},
};
use serde::Deserialize;
use serde_json::{Value, json};
use tempo_primitives::{
    TempoTransaction,
    transaction::{
        Call, FEE_PAYER_SIGNATURE_MARKER, SignedKeyAuthorization, TEMPO_EXPIRING_NONCE_KEY,
        calc_gas_balance_spending,
    },
};

use crate::{
    chain::dev_account,
    error::RpcError,
    exec::{Message, intrinsic_gas},
    keychain::Grant,
    ledger::{Ledger, PATH_USD},
    state::State,
    tx::{BLOCK_GAS_LIMIT, Replay},
};

/// The development account that sponsors: the last.
pub(crate) const SPONSOR: usize = crate::chain::DEV_ACCOUNTS - 1;

/// What a transaction may be filled from. What is missing is filled in; nothing given is changed.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct FillRequest {
    from: Option<Address>,
    to: Option<Address>,
    input: Option<Bytes>,
    data: Option<Bytes>,
    calls: Vec<FillCall>,
    chain_id: Option<U64>,
    fee_token: Option<Address>,
    fee_payer: Option<Value>,
    gas: Option<U64>,
    max_fee_per_gas: Option<U128>,
    max_priority_fee_per_gas: Option<U128>,
    nonce: Option<U64>,
    nonce_key: Option<U256>,
    valid_before: Option<U64>,
    valid_after: Option<U64>,
    key_authorization: Option<SignedKeyAuthorization>,
}

#[derive(Debug, Deserialize)]
struct FillCall {
    to: Address,
    input: Option<Bytes>,
    data: Option<Bytes>,
}

impl FillCall {
    fn into_call(self) -> Call {
        Call {
            to: TxKind::Call(self.to),
            // There is no native token, and a transaction that moves some is not taken.
            value: U256::ZERO,
            input: self.input.or(self.data).unwrap_or_default(),
        }
    }
}

/// Completes and co-signs: `{raw, tx}`, where `raw` is what the sender signs.
///
/// # Errors
/// -32602 without a sender or calls, for another chain, or if no sponsor is asked for; the revert, if
/// it has to be tried to know its gas.
pub(crate) fn fill(state: &mut State, request: FillRequest) -> Result<Value, RpcError> {
    let head = state.head();
    if request.fee_payer != Some(Value::Bool(true)) {
        return Err(RpcError::params("nothing to sponsor: feePayer is not true"));
    }
    if request
        .chain_id
        .is_some_and(|id| id.to::<u64>() != head.chain_id)
    {
        return Err(RpcError::params("another chain"));
    }
    let sender = request
        .from
        .ok_or_else(|| RpcError::params("missing sender"))?;
    let (sponsor, key) = dev_account(SPONSOR).ok_or_else(|| RpcError::new(-32603, "no sponsor"))?;
    let (token, tried) = (request.fee_token.unwrap_or(PATH_USD), request.gas.is_none());
    let mut tx = request.into_transaction(&state.ledger, sender, head.chain_id, head.base_fee)?;
    let most = calc_gas_balance_spending(tx.gas_limit, tx.max_fee_per_gas);
    if state.ledger.token(token).is_none() || state.ledger.balance(token, sponsor) < most {
        return Err(RpcError::rejected("the sponsor has no such fee token"));
    }
    // With its gas given it is taken at its word: it may be another chain's of the same id.
    if tried {
        let message = message(state, &tx, sender)?;
        let executed = state.simulate(&message);
        let _: Bytes = executed.result?;
        tx.gas_limit = executed.gas_used;
    }
    answer(tx, sender, token, &key)
}

impl FillRequest {
    fn into_transaction(
        self,
        ledger: &Ledger,
        sender: Address,
        chain_id: u64,
        base_fee: u64,
    ) -> Result<TempoTransaction, RpcError> {
        let one = self.to.map(|to| FillCall {
            to,
            input: self.input,
            data: self.data,
        });
        let calls: Vec<_> = self
            .calls
            .into_iter()
            .chain(one)
            .map(FillCall::into_call)
            .collect();
        if calls.is_empty() {
            return Err(RpcError::params("missing calls"));
        }
        let nonce_key = self.nonce_key.unwrap_or_default();
        let next = || match nonce_key {
            TEMPO_EXPIRING_NONCE_KEY => 0,
            key => ledger.nonce(sender, key),
        };
        let tip = self.max_priority_fee_per_gas.unwrap_or_default().to();
        let most = u128::from(base_fee).saturating_mul(2).saturating_add(tip);
        Ok(TempoTransaction {
            chain_id,
            max_priority_fee_per_gas: tip,
            max_fee_per_gas: self.max_fee_per_gas.map_or(most, |fee| fee.to()),
            gas_limit: self.gas.map_or(BLOCK_GAS_LIMIT, |gas| gas.to()),
            calls,
            nonce_key,
            nonce: self.nonce.map_or_else(next, |nonce| nonce.to()),
            fee_payer_signature: Some(FEE_PAYER_SIGNATURE_MARKER),
            valid_before: self.valid_before.and_then(|at| NonZeroU64::new(at.to())),
            valid_after: self.valid_after.and_then(|at| NonZeroU64::new(at.to())),
            key_authorization: self.key_authorization,
            ..TempoTransaction::default()
        })
    }
}

fn message(state: &State, tx: &TempoTransaction, sender: Address) -> Result<Message, RpcError> {
    let grant = tx.key_authorization.as_ref();
    let grant = grant
        .map(|signed| Grant::carried(signed, sender, tx.chain_id))
        .transpose()
        .map_err(RpcError::rejected)?;
    let calls: Vec<_> = tx
        .calls
        .iter()
        .map(|call| {
            (
                call.to.to().copied().unwrap_or_default(),
                call.input.clone(),
            )
        })
        .collect();
    let replay = match tx.nonce_key {
        TEMPO_EXPIRING_NONCE_KEY => Replay::Expiring {
            id: B256::ZERO,
            valid_before: 0,
        },
        key => Replay::Sequence {
            key,
            nonce: tx.nonce,
        },
    };
    let intrinsic = intrinsic_gas(&state.ledger, sender, replay, &calls);
    Ok(Message {
        sender,
        intrinsic: intrinsic.saturating_add(grant.as_ref().map_or(0, Grant::gas)),
        calls,
        gas_limit: tx.gas_limit.min(BLOCK_GAS_LIMIT),
        context: tx.signature_hash(),
        key: Address::ZERO,
        grant,
        fee: None,
    })
}

fn answer(
    mut tx: TempoTransaction,
    sender: Address,
    token: Address,
    key: &PrivateKeySigner,
) -> Result<Value, RpcError> {
    let mut raw = Vec::new();
    tx.encode_for_signing(&mut raw);
    tx.fee_token = Some(token);
    let signature = key
        .sign_hash_sync(&tx.fee_payer_signature_hash(sender))
        .map_err(|_| RpcError::new(-32603, "the sponsor could not sign"))?;
    tx.fee_payer_signature = Some(signature);
    let mut filled = serde_json::to_value(&tx).unwrap_or_default();
    filled["type"] = json!("0x76");
    filled["from"] = json!(sender);
    Ok(json!({ "raw": Bytes::from(raw), "tx": filled }))
}
