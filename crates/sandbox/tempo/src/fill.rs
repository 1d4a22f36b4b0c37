//! `eth_fillTransaction` as services that pay network fees answer it: what is asked about comes back
//! with the service's signature in the fee payer's place. Account 9 pays, in pathUSD.

use std::num::NonZeroU64;

use alloy::{
    primitives::{Address, Bytes, TxKind, U64, U128, U256},
    signers::SignerSync,
};
use serde::Deserialize;
use serde_json::{Value, json};
use tempo_primitives::{TempoTransaction, transaction::Call};

use crate::{chain::dev_account, error::RpcError, ledger::PATH_USD};

/// The development account that pays.
const SERVICE: usize = 9;

#[derive(Deserialize)]
struct CallToFill {
    to: Address,
    #[serde(alias = "input")]
    data: Option<Bytes>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ToFill {
    #[serde(default)]
    fee_payer: bool,
    from: Address,
    calls: Vec<CallToFill>,
    gas: U64,
    max_fee_per_gas: U128,
    #[serde(default)]
    max_priority_fee_per_gas: U128,
    #[serde(default)]
    nonce: U64,
    #[serde(default)]
    nonce_key: U256,
    valid_before: Option<U64>,
    valid_after: Option<U64>,
    key_authorization: Option<tempo_primitives::transaction::SignedKeyAuthorization>,
}

/// Signs for the fee of a whole transaction. Gas and nonce are not filled in.
///
/// # Errors
/// -32602 for one that cannot be read, -32003 if no fee payer is asked for.
pub(crate) fn fill(request: &Value, chain_id: u64) -> Result<Value, RpcError> {
    let asked =
        ToFill::deserialize(request).map_err(|error| RpcError::params(error.to_string()))?;
    if !asked.fee_payer {
        return Err(RpcError::rejected("only feePayer: true is filled in here"));
    }
    let bound = |bound: Option<U64>| bound.and_then(|bound| NonZeroU64::new(bound.to()));
    let call = |call: CallToFill| Call {
        to: TxKind::Call(call.to),
        value: U256::ZERO,
        input: call.data.unwrap_or_default(),
    };
    let tx = TempoTransaction {
        chain_id,
        fee_token: Some(PATH_USD),
        max_priority_fee_per_gas: asked.max_priority_fee_per_gas.to(),
        max_fee_per_gas: asked.max_fee_per_gas.to(),
        gas_limit: asked.gas.to(),
        calls: asked.calls.into_iter().map(call).collect(),
        nonce_key: asked.nonce_key,
        nonce: asked.nonce.to(),
        valid_before: bound(asked.valid_before),
        valid_after: bound(asked.valid_after),
        key_authorization: asked.key_authorization,
        ..TempoTransaction::default()
    };
    let gone = || RpcError::new(-32603, "the service has no key");
    let (_, key) = dev_account(SERVICE).ok_or_else(gone)?;
    let hash = tx.fee_payer_signature_hash(asked.from);
    let signature = key.sign_hash_sync(&hash).map_err(|_| gone())?;
    let mut filled = request.clone();
    filled["chainId"] = json!(U64::from(chain_id));
    filled["feeToken"] = json!(PATH_USD);
    filled["feePayerSignature"] = json!({
        "r": signature.r(),
        "s": signature.s(),
        "yParity": U64::from(u64::from(signature.v())),
    });
    Ok(json!({ "tx": filled }))
}
