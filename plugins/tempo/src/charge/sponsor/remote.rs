//! A fee payer behind a URL: a service that fills in who pays the fee (`eth_fillTransaction`).
//!
//! What it sends back is not used but for its signature and the token that it pays in: the
//! transaction that is broadcast is the one that was sent there.

use std::time::Duration;

use alloy::{
    consensus::crypto::secp256k1::recover_signer,
    primitives::{Address, Signature, U64, U128, U256},
};
use farebox_core::{Fault, Refusal, Rejection};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tempo_primitives::TempoTransaction;

use crate::{
    charge::sponsor::is_usual,
    explain::senders_fault,
    rpc::{Rpc, RpcError},
};

/// For the service's answer.
const DEADLINE: Duration = Duration::from_secs(5);

/// The service.
#[derive(Clone, Debug)]
pub(crate) struct Remote {
    pub(crate) rpc: Rpc,
    /// The account that must sign; any that can pay, if left out.
    pub(crate) pinned: Option<Address>,
}

/// What the service gives.
#[derive(Debug)]
pub(crate) struct Filled {
    pub(crate) payer: Address,
    pub(crate) token: Address,
    pub(crate) signature: Signature,
}

#[derive(Deserialize)]
struct Answer {
    tx: Map<String, Value>,
}

impl Remote {
    /// Asks for a signature over `tx`, which `sender` has signed.
    ///
    /// # Errors
    /// A rejection if the service says that the payment would fail. A fault if it is away, answers
    /// for another transaction, or signs for nobody.
    pub(crate) async fn fill(
        &self,
        tx: &TempoTransaction,
        sender: Address,
    ) -> Result<Filled, Refusal> {
        let sent = request(tx, sender);
        let answer: Answer = self
            .rpc
            .call("eth_fillTransaction", json!([sent]), DEADLINE)
            .await
            .map_err(refusal)?;
        if let Some(member) = changed(&answer.tx, &sent) {
            return Err(wrong(format!("`{member}` is not what was sent")).into());
        }
        let token: Option<Address> = member(&answer.tx, "feeToken");
        let token = token.filter(|token| is_usual(*token, tx.chain_id));
        let token =
            token.ok_or_else(|| wrong("its fee token is none of this chain's usual ones"))?;
        let signature = signature(&answer.tx).ok_or_else(|| wrong("it gives no signature"))?;
        let mut whole = tx.clone();
        whole.fee_token = Some(token);
        let hash = whole.fee_payer_signature_hash(sender);
        let payer = recover_signer(&signature, hash)
            .map_err(|_| wrong("nobody can have made its signature"))?;
        if payer == sender || self.pinned.is_some_and(|pinned| pinned != payer) {
            return Err(wrong("its signature is not the fee payer's").into());
        }
        Ok(Filled {
            payer,
            token,
            signature,
        })
    }
}

fn wrong(why: impl Into<String>) -> Fault {
    Fault::unavailable("the fee payer's service answers for something else").caused_by(why.into())
}

fn refusal(error: RpcError) -> Refusal {
    let why = match &error {
        RpcError::Refused(refused) => senders_fault(refused),
        _ => None,
    };
    match why {
        Some(text) => Rejection::verification(format!(
            "the payment would fail where its fee is paid: {text}"
        ))
        .into(),
        None => Fault::unavailable("asking the fee payer's service")
            .caused_by(error)
            .into(),
    }
}

/// The transaction as deployed services read it.
fn request(tx: &TempoTransaction, from: Address) -> Value {
    let quantity = |n: u128| json!(U128::from(n));
    let calls = tx.calls.iter();
    let calls = calls.map(|call| json!({ "to": call.to.to(), "data": call.input, "value": "0x0" }));
    let mut request = json!({
        "type": "0x76",
        "feePayer": true,
        "from": from,
        "chainId": U64::from(tx.chain_id),
        "calls": calls.collect::<Vec<_>>(),
        "gas": U64::from(tx.gas_limit),
        "maxFeePerGas": quantity(tx.max_fee_per_gas),
        "maxPriorityFeePerGas": quantity(tx.max_priority_fee_per_gas),
        "nonce": U64::from(tx.nonce),
        "nonceKey": tx.nonce_key,
    });
    for (name, bound) in [
        ("validBefore", tx.valid_before),
        ("validAfter", tx.valid_after),
    ] {
        if let Some(bound) = bound {
            request[name] = quantity(bound.get().into());
        }
    }
    if let Some(authorization) = &tx.key_authorization {
        request["keyAuthorization"] = json!(authorization);
    }
    request
}

/// The first member that came back as something else than it was sent.
fn changed(tx: &Map<String, Value>, sent: &Value) -> Option<&'static str> {
    const NUMBERS: [&str; 8] = [
        "chainId",
        "gas",
        "maxFeePerGas",
        "maxPriorityFeePerGas",
        "nonce",
        "nonceKey",
        "validBefore",
        "validAfter",
    ];
    let there = |name: &str| tx.get(name).filter(|value| !value.is_null());
    let number = |value: &Value| -> Option<U256> { U256::deserialize(value).ok() };
    let differs = |name: &&str| {
        there(name).is_some_and(|back| {
            // What was not sent is zero.
            let sent = sent.get(*name).map_or(Some(U256::ZERO), number);
            number(back) != sent
        })
    };
    if let Some(name) = NUMBERS.into_iter().find(differs) {
        return Some(name);
    }
    let address = |value: &Value| -> Option<Address> { Address::deserialize(value).ok() };
    if there("from").is_some_and(|back| address(back) != address(&sent["from"])) {
        return Some("from");
    }
    let calls = there("calls").is_some_and(|back| calls(back) != calls(&sent["calls"]));
    calls.then_some("calls")
}

/// Targets and data, however they are spelt; `None` for what is no list of calls, or moves a native
/// value.
fn calls(list: &Value) -> Option<Vec<(Address, alloy::primitives::Bytes)>> {
    let call = |call: &Value| {
        // Nodes write both, and null in one of them.
        let data = ["data", "input"]
            .into_iter()
            .find_map(|name| call.get(name).filter(|data| !data.is_null()));
        let to = Address::deserialize(call.get("to")?).ok()?;
        let value = call.get("value").and_then(Value::as_str).unwrap_or("0x");
        let nothing = value
            .trim_start_matches("0x")
            .bytes()
            .all(|digit| digit == b'0');
        let data = alloy::primitives::Bytes::deserialize(data?).ok()?;
        nothing.then_some((to, data))
    };
    list.as_array()?.iter().map(call).collect()
}

fn member<T: for<'de> Deserialize<'de>>(tx: &Map<String, Value>, name: &str) -> Option<T> {
    T::deserialize(tx.get(name)?).ok()
}

/// Its parts as quantities; the parity as `yParity` or `v`, a number or its digits.
fn signature(tx: &Map<String, Value>) -> Option<Signature> {
    let parts = tx.get("feePayerSignature")?;
    let word = |name: &str| U256::deserialize(parts.get(name)?).ok();
    let parity = ["yParity", "v"].into_iter().find_map(&word)?;
    let odd = match parity.try_into().ok()? {
        0u64 | 27 => false,
        1 | 28 => true,
        _ => return None,
    };
    Some(Signature::new(word("r")?, word("s")?, odd))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects: an answer for another transaction is found out, however it is spelt.
    #[test]
    fn what_was_changed_is_named() {
        let to = Address::repeat_byte(7);
        let tx = TempoTransaction {
            chain_id: 1337,
            gas_limit: 21_000,
            calls: vec![tempo_primitives::transaction::Call {
                to: to.into(),
                value: U256::ZERO,
                input: vec![1, 2].into(),
            }],
            ..TempoTransaction::default()
        };
        let sent = request(&tx, Address::repeat_byte(1));
        let same = json!({ "gas": "0x5208", "chainId": 1337, "validAfter": null, "from": Address::repeat_byte(1),
            "calls": [{ "to": to, "input": "0x0102", "value": "0x" }] });
        assert_eq!(changed(same.as_object().unwrap(), &sent), None);
        for (back, name) in [
            (json!({ "gas": "0x5209" }), "gas"),
            (json!({ "gas": "much" }), "gas"),
            (json!({ "validAfter": "0x1" }), "validAfter"),
            (json!({ "from": to }), "from"),
            (json!({ "calls": [] }), "calls"),
            (
                json!({ "calls": [{ "to": to, "data": "0x0103" }] }),
                "calls",
            ),
            (
                json!({ "calls": [{ "to": to, "data": "0x0102", "value": "0x1" }] }),
                "calls",
            ),
        ] {
            assert_eq!(
                changed(back.as_object().unwrap(), &sent),
                Some(name),
                "{back}"
            );
        }
    }
}
