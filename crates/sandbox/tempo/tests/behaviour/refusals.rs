//! What the chain will not take, and what it takes and fails.

use std::num::NonZeroU64;

use alloy::{
    primitives::{B256, Bytes, U256, hex},
    signers::local::PrivateKeySigner,
    sol_types::{SolCall, SolError},
};
use farebox_sandbox_tempo::{ALPHA_USD, PATH_USD};
use serde_json::json;
use tempo_contracts::precompiles::ITIP20;

use crate::peer::*;

pub(crate) async fn wrong_chain_is_refused(peer: &Peer) {
    let mut tx = peer.transaction(vec![transfer(account(4).0, 1)]).await;
    tx.chain_id = 4217;
    let error = peer.submit(&sign(tx, &account(3).1)).await.unwrap_err();
    assert_eq!(error["code"], -32003);
    assert!(
        error["message"].as_str().unwrap().contains("chain id"),
        "{error}"
    );
}

pub(crate) async fn expired_window_is_refused(peer: &Peer) {
    for seconds_ago in [0, 5] {
        let mut tx = peer.transaction(vec![transfer(account(4).0, 1)]).await;
        tx.valid_before = NonZeroU64::new(now() - seconds_ago);
        let error = peer.submit(&sign(tx, &account(3).1)).await.unwrap_err();
        assert!(
            error["message"].as_str().unwrap().contains("valid_before"),
            "{error}"
        );
    }
}

pub(crate) async fn broke_payer_is_refused(peer: &Peer) {
    let broke = PrivateKeySigner::from_bytes(&B256::repeat_byte(0x11)).unwrap();
    let tx = peer.transaction(vec![transfer(account(4).0, 1)]).await;
    let error = peer.submit(&sign(tx, &broke)).await.unwrap_err();
    assert!(
        error["message"]
            .as_str()
            .unwrap()
            .contains("fee token balance"),
        "{error}"
    );
}

pub(crate) async fn garbage_is_refused(peer: &Peer) {
    let tx = peer.transaction(vec![transfer(account(4).0, 1)]).await;
    let raw = sign(tx, &account(3).1);
    for bad in [
        Bytes::new(),
        Bytes::from(hex!("76deadbeef")),
        raw.slice(..raw.len() - 1),
    ] {
        let error = peer.submit(&bad).await.unwrap_err();
        assert_eq!(error["code"], -32602, "{error}");
    }
}

pub(crate) async fn overdraft_is_included_as_failed(peer: &Peer) {
    let ((from, key), (to, _)) = (account(3), account(4));
    let before = (
        peer.balance(PATH_USD, from).await,
        peer.balance(ALPHA_USD, from).await,
    );
    let tx = peer.transaction(vec![transfer_too_much(to)]).await;
    let receipt = peer.submit(&sign(tx, &key)).await.unwrap();
    assert_eq!(receipt["status"], "0x0");
    assert_eq!(
        receipt["logs"].as_array().map(Vec::len),
        Some(1),
        "only the fee: {receipt}"
    );
    assert_eq!(peer.balance(PATH_USD, from).await, before.0);
    assert!(
        peer.balance(ALPHA_USD, from).await < before.1,
        "a failure costs gas"
    );
}

pub(crate) async fn simulated_overdraft_reverts_with_the_real_error(peer: &Peer) {
    let ((from, _), (to, _)) = (account(3), account(4));
    let available = peer.balance(PATH_USD, from).await;
    let required = U256::from(1) << 100;
    let data = Bytes::from(
        ITIP20::transferCall {
            to,
            amount: required,
        }
        .abi_encode(),
    );
    let request = json!([{ "from": from, "to": PATH_USD, "data": data }]);
    let revert = ITIP20::InsufficientBalance {
        available,
        required,
        token: PATH_USD,
    }
    .abi_encode();
    for method in ["eth_call", "eth_estimateGas"] {
        let error = peer.call(method, request.clone()).await.unwrap_err();
        assert_eq!(
            (&error["code"], &error["data"]),
            (&json!(3), &json!(Bytes::from(revert.clone())))
        );
        assert!(
            error["message"]
                .as_str()
                .unwrap()
                .starts_with("execution reverted"),
            "{error}"
        );
    }
    assert_eq!(
        peer.balance(PATH_USD, from).await,
        available,
        "a simulation moves nothing"
    );
}
