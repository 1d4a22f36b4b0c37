//! Money that moves: batches, sponsors, allowances, nonces, fees.

use alloy::{
    consensus::{SignableTransaction, TxEip1559},
    eips::eip2718::Encodable2718,
    primitives::{Bytes, TxKind, U64, U256},
    signers::SignerSync,
    sol_types::{SolError, SolEvent},
};
use farebox_sandbox_tempo::{ALPHA_USD, BETA_USD, PATH_USD};
use serde_json::json;
use tempo_contracts::precompiles::{
    IFeeManager, INonce, ITIP20, NONCE_PRECOMPILE_ADDRESS, TIP_FEE_MANAGER_ADDRESS,
};

use crate::{MEMO, peer::*};

pub(crate) async fn batch_is_all_or_nothing(peer: &Peer) {
    let ((from, key), (to, _)) = (account(3), account(4));
    let before = peer.balance(PATH_USD, from).await;
    let tx = peer
        .transaction(vec![transfer(to, 5), transfer_too_much(to)])
        .await;
    let receipt = peer.submit(&sign(tx, &key)).await.unwrap();
    assert_eq!(receipt["status"], "0x0");
    assert_eq!(peer.balance(PATH_USD, from).await, before);
    let tx = peer
        .transaction(vec![transfer(to, 5), transfer_with_memo(to, 7, MEMO)])
        .await;
    let receipt = peer.settle(&sign(tx, &key)).await;
    assert_eq!(
        receipt["logs"].as_array().map(Vec::len),
        Some(4),
        "{receipt}"
    );
    assert_eq!(before - peer.balance(PATH_USD, from).await, U256::from(12));
}

pub(crate) async fn same_bytes_move_money_once(peer: &Peer) {
    let ((_, key), (to, _)) = (account(3), account(4));
    let before = peer.balance(PATH_USD, to).await;
    let tx = peer.transaction(vec![transfer(to, 100)]).await;
    let raw = sign(tx, &key);
    let receipt = peer.settle(&raw).await;
    // Answered with what it already has, or refused: anvil does one or the other, by its timing.
    match peer.submit(&raw).await {
        Ok(again) => assert_eq!(again["transactionHash"], receipt["transactionHash"]),
        Err(error) => assert!(error.to_string().contains("already"), "{error}"),
    }
    match peer.call("eth_sendRawTransaction", json!([raw])).await {
        Ok(hash) => assert_eq!(hash, receipt["transactionHash"]),
        Err(error) => assert!(error.to_string().contains("already"), "{error}"),
    }
    assert_eq!(peer.balance(PATH_USD, to).await - before, U256::from(100));
}

pub(crate) async fn sponsor_pays_the_fee(peer: &Peer) {
    let ((from, key), (to, _), (sponsor, sponsor_key)) = (account(3), account(4), account(5));
    let fees = (
        peer.balance(ALPHA_USD, from).await,
        peer.balance(ALPHA_USD, sponsor).await,
    );
    let before = peer.balance(PATH_USD, from).await;
    let tx = peer
        .transaction(vec![transfer_with_memo(to, 9, MEMO)])
        .await;
    let receipt = peer.settle(&sign_sponsored(tx, &key, &sponsor_key)).await;
    assert_eq!(receipt["from"], json!(from));
    if peer.chain.is_some() {
        // anvil 1.7.1 charges the sponsor and writes down the sender.
        assert_eq!(receipt["feePayer"], json!(sponsor));
    }
    assert_eq!(before - peer.balance(PATH_USD, from).await, U256::from(9));
    assert_eq!(
        peer.balance(ALPHA_USD, from).await,
        fees.0,
        "the sender pays no fee"
    );
    let paid = fees.1 - peer.balance(ALPHA_USD, sponsor).await;
    let cost = number(&receipt["gasUsed"]) * number(&receipt["effectiveGasPrice"]);
    assert_eq!(
        paid,
        U256::from(cost.div_ceil(1_000_000_000_000)),
        "gas times price, rounded up"
    );
}

/// A signature over anything but this transaction and this sender recovers to a stranger.
pub(crate) async fn forged_sponsor_is_refused(peer: &Peer) {
    let ((_, key), (to, _), (_, sponsor_key)) = (account(3), account(4), account(5));
    let mut tx = peer.transaction(vec![transfer(to, 9)]).await;
    tx.fee_token = None;
    let other = tx.signature_hash();
    tx.fee_payer_signature = Some(sponsor_key.sign_hash_sync(&other).unwrap());
    assert!(peer.submit(&sign(tx, &key)).await.is_err());
}

/// The replay id leaves the sponsor out, so a second sponsor cannot make it a second payment.
pub(crate) async fn sponsored_envelope_cannot_be_replayed_with_another_fee(peer: &Peer) {
    if peer.chain.is_none() {
        println!("skipped on anvil: it answers a duplicate only after its own timeout");
        return;
    }
    let ((_, key), (to, _)) = (account(3), account(4));
    let before = peer.balance(PATH_USD, to).await;
    let tx = peer.transaction(vec![transfer(to, 11)]).await;
    peer.settle(&sign_sponsored(tx.clone(), &key, &account(5).1))
        .await;
    let refused = peer
        .submit(&sign_sponsored(tx, &key, &account(6).1))
        .await
        .unwrap_err();
    assert_eq!(refused["code"], -32003);
    assert_eq!(peer.balance(PATH_USD, to).await - before, U256::from(11));
}

pub(crate) async fn allowance_is_needed_and_used_up(peer: &Peer) {
    let ((owner, owner_key), (spender, spender_key), (to, _)) =
        (account(6), account(7), account(8));
    let pull = || {
        path_usd(ITIP20::transferFromCall {
            from: owner,
            to,
            amount: U256::from(40),
        })
    };
    let request = json!([{ "from": spender, "to": PATH_USD, "data": pull().input }]);
    let error = peer.call("eth_call", request).await.unwrap_err();
    assert_eq!(
        error["data"],
        json!(Bytes::from(ITIP20::InsufficientAllowance {}.abi_encode()))
    );

    let approve = path_usd(ITIP20::approveCall {
        spender,
        amount: U256::from(60),
    });
    let receipt = peer
        .settle(&sign(peer.transaction(vec![approve]).await, &owner_key))
        .await;
    let topics = json!([
        ITIP20::Approval::SIGNATURE_HASH,
        owner.into_word(),
        spender.into_word()
    ]);
    assert_eq!(receipt["logs"][0]["topics"], topics);
    let before = peer.balance(PATH_USD, to).await;
    peer.settle(&sign(peer.transaction(vec![pull()]).await, &spender_key))
        .await;
    assert_eq!(peer.balance(PATH_USD, to).await - before, U256::from(40));
    let left = peer
        .view(PATH_USD, ITIP20::allowanceCall { owner, spender })
        .await;
    assert_eq!(left, U256::from(20));
}

pub(crate) async fn nobody_and_tokens_cannot_be_paid(peer: &Peer) {
    for to in [Default::default(), ALPHA_USD] {
        let request =
            json!([{ "from": account(3).0, "to": PATH_USD, "data": transfer(to, 1).input }]);
        let error = peer.call("eth_call", request).await.unwrap_err();
        assert_eq!(
            error["data"],
            json!(Bytes::from(ITIP20::InvalidRecipient {}.abi_encode()))
        );
    }
}

pub(crate) async fn protocol_nonce_counts(peer: &Peer) {
    let (from, key) = account(9);
    let count = || peer.quantity("eth_getTransactionCount", json!([from, "latest"]));
    let first = count().await;
    for nonce in first..first + 2 {
        let mut tx = peer.transaction(vec![transfer(account(4).0, 1)]).await;
        (tx.nonce_key, tx.nonce, tx.valid_before) = (U256::ZERO, nonce, None);
        peer.settle(&sign(tx, &key)).await;
    }
    assert_eq!(count().await, first + 2);
    assert_eq!(
        peer.quantity("eth_getTransactionCount", json!([from, "pending"]))
            .await,
        first + 2
    );
}

pub(crate) async fn nonce_keys_count_apart(peer: &Peer) {
    let (from, key) = account(8);
    let nonce_key = U256::from(77);
    for nonce in 0..2 {
        let mut tx = peer.transaction(vec![transfer(account(4).0, 1)]).await;
        (tx.nonce_key, tx.nonce, tx.valid_before) = (nonce_key, nonce, None);
        peer.settle(&sign(tx, &key)).await;
    }
    let call = INonce::getNonceCall {
        account: from,
        nonceKey: nonce_key,
    };
    assert_eq!(peer.view(NONCE_PRECOMPILE_ADDRESS, call).await, 2);
}

pub(crate) async fn plain_ethereum_transaction_pays_too(peer: &Peer) {
    let ((from, key), (to, _)) = (account(7), account(4));
    let before = peer.balance(PATH_USD, to).await;
    let tx = TxEip1559 {
        chain_id: 1337,
        nonce: peer
            .quantity("eth_getTransactionCount", json!([from, "latest"]))
            .await,
        gas_limit: 1_000_000,
        max_fee_per_gas: u128::from(peer.quantity("eth_gasPrice", json!([])).await) * 2,
        max_priority_fee_per_gas: 1_000_000_000,
        to: TxKind::Call(PATH_USD),
        input: transfer(to, 3).input,
        ..TxEip1559::default()
    };
    let signature = key.sign_hash_sync(&tx.signature_hash()).unwrap();
    let raw = Bytes::from(tx.into_signed(signature).encoded_2718());
    let receipt = peer.settle(&raw).await;
    assert_eq!(
        (&receipt["type"], &receipt["feePayer"]),
        (&json!("0x2"), &json!(from))
    );
    assert_eq!(peer.balance(PATH_USD, to).await - before, U256::from(3));
}

pub(crate) async fn estimate_is_enough(peer: &Peer) {
    let ((from, key), (to, _)) = (account(3), account(4));
    let calls = vec![transfer_with_memo(to, 2, MEMO), transfer(to, 1)];
    let request = json!([{ "from": from, "type": "0x76", "nonceKey": U256::MAX,
        "validBefore": U64::from(now() + 25), "calls": calls }]);
    let gas = peer.quantity("eth_estimateGas", request).await;
    let mut tx = peer.transaction(calls).await;
    tx.gas_limit = gas;
    peer.settle(&sign(tx, &key)).await;
}

/// Account 1 prefers BetaUSD: a payment of 1 leaves its pathUSD lighter by exactly 1.
pub(crate) async fn preferred_fee_token_is_used(peer: &Peer) {
    let ((from, key), (to, _)) = (account(1), account(4));
    let preferred = peer
        .view(
            TIP_FEE_MANAGER_ADDRESS,
            IFeeManager::userTokensCall { user: from },
        )
        .await;
    assert_eq!(preferred, BETA_USD);
    let before = (
        peer.balance(PATH_USD, from).await,
        peer.balance(BETA_USD, from).await,
    );
    let mut tx = peer.transaction(vec![transfer(to, 1)]).await;
    tx.fee_token = None;
    peer.settle(&sign(tx, &key)).await;
    assert_eq!(before.0 - peer.balance(PATH_USD, from).await, U256::from(1));
    assert!(peer.balance(BETA_USD, from).await < before.1);
}
