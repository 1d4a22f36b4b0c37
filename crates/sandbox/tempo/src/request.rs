//! `eth_call` and `eth_estimateGas` requests, with the fields Tempo adds.

use alloy::primitives::{Address, Bytes, Signature, U64, U128, U256, keccak256};
use serde::Deserialize;
use tempo_primitives::transaction::{
    SignedKeyAuthorization, TEMPO_EXPIRING_NONCE_KEY, calc_gas_balance_spending,
};

use crate::{
    error::RpcError,
    exec::{Message, Payment, intrinsic_gas, resolve_fee_token},
    keychain::{self, Grant},
    ledger::Ledger,
    tx::{BLOCK_GAS_LIMIT, Head, Replay},
};

/// One call of a batch.
#[derive(Debug, Deserialize)]
struct Call {
    to: Option<Address>,
    input: Option<Bytes>,
    data: Option<Bytes>,
}

/// An unsigned transaction as JSON. Fields that change nothing here are ignored, like `value`: the
/// chain has no native token.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct CallRequest {
    from: Option<Address>,
    to: Option<Address>,
    input: Option<Bytes>,
    data: Option<Bytes>,
    gas: Option<U64>,
    gas_price: Option<U128>,
    max_fee_per_gas: Option<U128>,
    nonce_key: Option<U256>,
    nonce: Option<U64>,
    valid_before: Option<U64>,
    calls: Option<Vec<Call>>,
    fee_token: Option<Address>,
    fee_payer: Option<FeePayer>,
    key_authorization: Option<SignedKeyAuthorization>,
    /// The access key that will sign.
    key_id: Option<Address>,
    /// Announces a sponsor whose address only the signed envelope reveals.
    fee_payer_signature: Option<Signature>,
}

/// Either the sponsor's address or, as `true`, that there will be one.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(untagged)]
enum FeePayer {
    Address(Address),
    Sponsored(bool),
}

impl CallRequest {
    /// Whether the request deploys code instead of calling an address.
    pub(crate) fn is_create(&self) -> bool {
        match &self.calls {
            Some(calls) if calls.is_empty() => self.to.is_none(),
            Some(calls) => calls.iter().any(|call| call.to.is_none()),
            None => self.to.is_none(),
        }
    }

    /// The message to simulate. With a price it is charged for, as the real transaction would be.
    ///
    /// # Errors
    /// -32003 if the payer cannot afford the gas it offers to pay for; -32603 for an expiring nonce
    /// without an end.
    pub(crate) fn message(self, ledger: &Ledger, head: Head) -> Result<Message, RpcError> {
        let sender = self.from.unwrap_or_default();
        let tempo = self.calls.is_some() || self.nonce_key.is_some();
        let one = |call: Call| {
            let input = call.input.or(call.data).unwrap_or_default();
            (call.to.unwrap_or_default(), input)
        };
        let batch = self.calls.unwrap_or_default();
        // As a node builds it: what is named beside the batch comes last.
        let beside = (batch.is_empty() || self.to.is_some()).then_some(Call {
            to: self.to,
            input: self.input,
            data: self.data,
        });
        let calls: Vec<_> = batch.into_iter().chain(beside).map(one).collect();
        let replay = match self.nonce_key {
            Some(TEMPO_EXPIRING_NONCE_KEY) if self.valid_before.is_none() => {
                let text = "expiring nonce transaction requires valid_before to be set";
                return Err(RpcError::new(-32603, text));
            }
            Some(TEMPO_EXPIRING_NONCE_KEY) => Replay::Expiring {
                id: Default::default(),
                valid_before: 0,
            },
            key => Replay::Sequence {
                key: key.unwrap_or_default(),
                nonce: self.nonce.unwrap_or_default().to(),
            },
        };
        let gas_limit = self
            .gas
            .map_or(BLOCK_GAS_LIMIT, |gas| gas.to::<u64>().min(BLOCK_GAS_LIMIT));
        let price = self
            .max_fee_per_gas
            .or(self.gas_price)
            .unwrap_or_default()
            .to::<u128>();
        let payer = match (self.fee_payer, self.fee_payer_signature) {
            (Some(FeePayer::Address(payer)), _) => Some(payer),
            (Some(FeePayer::Sponsored(true)), _) | (_, Some(_)) => None,
            _ => Some(sender),
        };
        let fee = match payer {
            Some(payer) if price > 0 => {
                if price < u128::from(head.base_fee) {
                    return Err(RpcError::rejected(
                        "max fee per gas less than block base fee",
                    ));
                }
                let token = resolve_fee_token(ledger, self.fee_token, payer, &calls);
                if ledger.balance(token, payer) < calc_gas_balance_spending(gas_limit, price) {
                    return Err(RpcError::rejected(
                        "Insufficient funds for gas * price + value",
                    ));
                }
                Some(Payment {
                    token,
                    payer,
                    price: u128::from(head.base_fee),
                })
            }
            _ => None,
        };
        // A plain read is not a transaction and has no nonce to begin.
        let intrinsic = if tempo || fee.is_some() || self.from.is_some() {
            intrinsic_gas(ledger, sender, replay, &calls)
        } else {
            0
        };
        let grant = match self.key_authorization {
            Some(signed) => {
                Some(Grant::carried(&signed, sender, head.chain_id).map_err(RpcError::rejected)?)
            }
            None => None,
        };
        // Limits count only for a key that there is: whoever asks may not have added it yet.
        let key = self.key_id.filter(|key| {
            keychain::is_active(ledger, head.now, sender, *key)
                || grant.as_ref().is_some_and(|grant| grant.key == *key)
        });
        let key = key.unwrap_or_default();
        let intrinsic = intrinsic.saturating_add(grant.as_ref().map_or(0, Grant::gas));
        // Not yet signed, it has no hash of its own; any will do to see whether it would succeed.
        let context = keccak256(calls.iter().fold(sender.to_vec(), |said, (_, input)| {
            [&said, input.as_ref()].concat()
        }));
        Ok(Message {
            sender,
            calls,
            intrinsic,
            gas_limit,
            context,
            key,
            grant,
            fee,
        })
    }
}
