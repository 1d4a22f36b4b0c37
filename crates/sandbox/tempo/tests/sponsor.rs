//! The fee payer that is asked over the wire.
#![allow(clippy::unwrap_used, reason = "tests may panic")]

mod peer;

use std::num::NonZeroU64;

use alloy::{
    eips::eip2718::Encodable2718,
    primitives::{Bytes, U256},
    signers::SignerSync,
};
use farebox_sandbox_tempo::{ALPHA_USD, PATH_USD};
use peer::*;
use serde_json::{Value, json};
use tempo_primitives::{
    TempoSignature, TempoTransaction,
    transaction::{FEE_PAYER_SIGNATURE_MARKER, PrimitiveSignature},
};

/// Asks the sponsor's endpoint.
async fn fill(peer: &Peer, request: &Value) -> Value {
    let body = json!({"jsonrpc":"2.0","id":1,"method":"eth_fillTransaction","params":[request]});
    let response = reqwest::Client::new()
        .post(peer.chain().sponsor_url())
        .json(&body)
        .send()
        .await
        .unwrap();
    response.json().await.unwrap()
}

fn request(amount: u64) -> Value {
    let call = transfer(account(4).0, amount);
    json!({
        "type": "0x76",
        "from": account(3).0,
        "calls": [{ "to": call.to, "data": call.input, "value": "0x" }],
        "feePayer": true,
        "nonce": "0x0",
        "nonceKey": U256::MAX,
        "validBefore": format!("0x{:x}", now() + 25),
    })
}

/// What comes back can be signed and broadcast, and the sponsor pays the fee.
#[tokio::test(flavor = "multi_thread")]
async fn it_completes_and_pays() {
    let peer = Peer::sandbox().await;
    let ((from, key), (to, _)) = (account(3), account(4));
    let sponsor = peer.chain().sponsor();
    for (amount, token) in [(5, None), (6, Some(ALPHA_USD))] {
        let mut asked = request(amount);
        if let Some(token) = token {
            asked["feeToken"] = json!(token);
        }
        let reply = fill(&peer, &asked).await;
        let filled = reply["result"]["tx"].clone();
        let tx: TempoTransaction = serde_json::from_value(filled).unwrap();
        let token = token.unwrap_or(PATH_USD);
        assert_eq!(tx.fee_token, Some(token));
        assert!(tx.gas_limit < 400_000, "the gas it takes: {}", tx.gas_limit);
        // The sender signs without the fee, as if nobody had chosen it yet.
        let mut unsponsored = tx.clone();
        unsponsored.fee_token = None;
        unsponsored.fee_payer_signature = Some(FEE_PAYER_SIGNATURE_MARKER);
        let hash = unsponsored.signature_hash();
        let raw: Bytes = serde_json::from_value(reply["result"]["raw"].clone()).unwrap();
        assert_eq!(alloy::primitives::keccak256(&raw), hash);
        let signature = PrimitiveSignature::Secp256k1(key.sign_hash_sync(&hash).unwrap());
        let raw = tx
            .into_signed(TempoSignature::Primitive(signature))
            .encoded_2718();
        let of = |token, owner| peer.chain().balance(token, owner);
        let before = (of(PATH_USD, from), of(PATH_USD, to), of(token, sponsor));
        let receipt = peer.settle(&raw.into()).await;
        assert_eq!(receipt["feePayer"], json!(sponsor));
        assert_eq!(before.0 - of(PATH_USD, from), u128::from(amount));
        assert_eq!(of(PATH_USD, to) - before.1, u128::from(amount));
        assert!(of(token, sponsor) < before.2, "the sponsor paid nothing");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_signs_nothing_that_fails_or_was_not_asked_for() {
    let peer = Peer::sandbox().await;
    let mut overdraft = request(1);
    overdraft["calls"][0]["data"] = json!(transfer_too_much(account(4).0).input);
    assert_eq!(fill(&peer, &overdraft).await["error"]["code"], 3);
    for (field, value) in [
        ("feePayer", json!(false)),
        ("from", Value::Null),
        ("calls", json!([])),
        ("chainId", json!("0x1")),
    ] {
        let mut bad = request(1);
        bad[field] = value;
        let reply = fill(&peer, &bad).await;
        assert_eq!(reply["error"]["code"], -32602, "{field}: {reply}");
    }
    let mut no_token = request(1);
    no_token["feeToken"] = json!(account(4).0);
    assert_eq!(fill(&peer, &no_token).await["error"]["code"], -32003);
    // The node itself sponsors nobody.
    let error = peer
        .call("eth_fillTransaction", json!([request(1)]))
        .await
        .unwrap_err();
    assert_eq!(error["code"], -32601);
}

/// A window that is given stays as given: the sender has signed it, or will.
#[tokio::test(flavor = "multi_thread")]
async fn it_changes_nothing_that_was_given() {
    let peer = Peer::sandbox().await;
    let mut asked = request(1);
    asked["gas"] = json!("0x70000");
    asked["maxFeePerGas"] = json!("0x77359400");
    asked["maxPriorityFeePerGas"] = json!("0x3b9aca00");
    asked["validAfter"] = json!("0x7");
    let reply = fill(&peer, &asked).await;
    let tx: TempoTransaction = serde_json::from_value(reply["result"]["tx"].clone()).unwrap();
    assert_eq!(tx.gas_limit, 0x70000);
    assert_eq!(tx.max_fee_per_gas, 2_000_000_000);
    assert_eq!(tx.max_priority_fee_per_gas, 1_000_000_000);
    assert_eq!(tx.valid_after, NonZeroU64::new(7));
    assert_eq!((tx.nonce_key, tx.nonce), (U256::MAX, 0));
}
