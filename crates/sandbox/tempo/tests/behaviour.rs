//! One suite of behaviours for two chains: this crate's, and anvil in Tempo mode when
//! `FAREBOX_ANVIL` names its binary. What passes on both is what the sandbox may claim.
#![allow(clippy::unwrap_used, reason = "tests may panic")]

mod peer;

use std::num::NonZeroU64;

use alloy::{
    consensus::{
        ReceiptWithBloom, Sealable, SignableTransaction, TxEip1559, transaction::TxHashRef,
    },
    eips::eip2718::Encodable2718,
    primitives::{B256, Bytes, TxKind, U64, U256, address, hex, keccak256},
    rpc::types::{Header, Log, TransactionReceipt},
    signers::{SignerSync, local::PrivateKeySigner},
    sol_types::{SolCall, SolError, SolEvent},
};
use farebox_sandbox_tempo::{ALPHA_USD, BETA_USD, PATH_USD};
use peer::*;
use serde_json::{Value, json};
use tempo_contracts::precompiles::{
    IFeeManager, INonce, ITIP20, NONCE_PRECOMPILE_ADDRESS, TIP_FEE_MANAGER_ADDRESS,
};
use tempo_primitives::{TempoHeader, TempoReceipt, TempoTxEnvelope};

/// Runs each behaviour against a sandbox chain of its own, and all of them against one anvil.
macro_rules! behaviours {
    ($($name:ident),* $(,)?) => {
        mod sandbox {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $name() {
                    super::$name(&super::Peer::sandbox().await).await;
                }
            )*
        }

        #[tokio::test(flavor = "multi_thread")]
        async fn anvil() {
            let Ok(path) = std::env::var("FAREBOX_ANVIL") else {
                println!("skipped: anvil (set FAREBOX_ANVIL)");
                return;
            };
            let peer = Peer::anvil(&path).await;
            $(
                println!("anvil: {}", stringify!($name));
                $name(&peer).await;
            )*
        }
    };
}

behaviours![
    names_itself,
    answers_batches_and_unknown_methods,
    describes_its_tokens,
    memo_transfer_moves_money_and_logs_twice,
    receipt_transaction_and_block_agree,
    rust_clients_can_parse_the_replies,
    logs_are_found_by_memo,
    wrong_chain_is_refused,
    expired_window_is_refused,
    broke_payer_is_refused,
    garbage_is_refused,
    overdraft_is_included_as_failed,
    simulated_overdraft_reverts_with_the_real_error,
    batch_is_all_or_nothing,
    same_bytes_move_money_once,
    sponsor_pays_the_fee,
    forged_sponsor_is_refused,
    sponsored_envelope_cannot_be_replayed_with_another_fee,
    allowance_is_needed_and_used_up,
    nobody_and_tokens_cannot_be_paid,
    protocol_nonce_counts,
    nonce_keys_count_apart,
    plain_ethereum_transaction_pays_too,
    estimate_is_enough,
    preferred_fee_token_is_used,
];

const MEMO: B256 = B256::repeat_byte(0xcd);

async fn names_itself(peer: &Peer) {
    assert_eq!(peer.ok("eth_chainId", json!([])).await, "0x539");
    assert_eq!(peer.ok("net_version", json!([])).await, "1337");
    assert!(peer.ok("web3_clientVersion", json!([])).await.is_string());
    assert!(number(&peer.ok("eth_gasPrice", json!([])).await) > 0);
    let code = peer.ok("eth_getCode", json!([PATH_USD, "latest"])).await;
    assert_eq!(code, "0xef", "precompiles carry a marker");
    let history = peer
        .ok("eth_feeHistory", json!(["0x1", "latest", [50.0]]))
        .await;
    assert_eq!(
        history["baseFeePerGas"].as_array().map(Vec::len),
        Some(2),
        "{history}"
    );
}

async fn answers_batches_and_unknown_methods(peer: &Peer) {
    let batch = json!([
        {"jsonrpc":"2.0","id":1,"method":"eth_chainId"},
        {"jsonrpc":"2.0","id":"two","method":"eth_noSuchThing","params":[]},
    ]);
    let replies = peer.send(&batch).await.unwrap();
    assert_eq!(replies[0], json!({"jsonrpc":"2.0","id":1,"result":"0x539"}));
    assert_eq!(
        (&replies[1]["id"], &replies[1]["error"]["code"]),
        (&json!("two"), &json!(-32601))
    );
    let missing = peer
        .call("eth_getTransactionReceipt", json!([]))
        .await
        .unwrap_err();
    assert_eq!(missing["code"], -32602);
    let unknown = peer.ok("eth_getTransactionReceipt", json!([MEMO])).await;
    assert_eq!(unknown, Value::Null);
}

async fn describes_its_tokens(peer: &Peer) {
    // The real chain writes pathUSD, anvil PathUSD.
    let symbol = peer.view(PATH_USD, ITIP20::symbolCall {}).await;
    assert!(symbol.eq_ignore_ascii_case("pathUSD"), "{symbol}");
    assert_eq!(peer.view(ALPHA_USD, ITIP20::nameCall {}).await, "AlphaUSD");
    assert_eq!(peer.view(PATH_USD, ITIP20::decimalsCall {}).await, 6);
    assert_eq!(peer.view(PATH_USD, ITIP20::currencyCall {}).await, "USD");
    let supply = peer.view(PATH_USD, ITIP20::totalSupplyCall {}).await;
    assert!(supply >= U256::from(u64::MAX), "{supply}");
    // An address in the token range that is no token, and a function no token has.
    for (to, data, error) in [
        (
            address!("0x20c0000000000000000000000000000000009999"),
            "0x313ce567",
            "0x1c72fad4",
        ),
        (PATH_USD, "0x12345678", "0xaa4bc69a"),
    ] {
        let refused = peer
            .call("eth_call", json!([{ "to": to, "data": data }]))
            .await
            .unwrap_err();
        assert_eq!(refused["code"], 3);
        assert!(
            refused["data"].as_str().unwrap().starts_with(error),
            "{refused}"
        );
    }
}

async fn memo_transfer_moves_money_and_logs_twice(peer: &Peer) {
    let ((from, key), (to, _)) = (account(3), account(4));
    let before = (
        peer.balance(PATH_USD, from).await,
        peer.balance(PATH_USD, to).await,
    );
    let tx = peer
        .transaction(vec![transfer_with_memo(to, 10_000, MEMO)])
        .await;
    let receipt = peer.settle(&sign(tx, &key)).await;
    let after = (
        peer.balance(PATH_USD, from).await,
        peer.balance(PATH_USD, to).await,
    );
    assert_eq!(before.0 - after.0, U256::from(10_000));
    assert_eq!(after.1 - before.1, U256::from(10_000));

    let logs = receipt["logs"].as_array().unwrap();
    assert_eq!(logs.len(), 3, "transfer, memo, fee: {receipt}");
    let (from_topic, to_topic) = (from.into_word(), to.into_word());
    let plain = json!([ITIP20::Transfer::SIGNATURE_HASH, from_topic, to_topic]);
    let memo = json!([
        ITIP20::TransferWithMemo::SIGNATURE_HASH,
        from_topic,
        to_topic,
        MEMO
    ]);
    assert_eq!((&logs[0]["topics"], &logs[1]["topics"]), (&plain, &memo));
    for log in &logs[..2] {
        assert_eq!(log["address"], json!(PATH_USD));
        assert_eq!(log["data"], json!(B256::from(U256::from(10_000))));
    }
    let fee_topics = json!([
        ITIP20::Transfer::SIGNATURE_HASH,
        from_topic,
        TIP_FEE_MANAGER_ADDRESS.into_word()
    ]);
    assert_eq!(logs[2]["topics"], fee_topics);
    assert_eq!(
        logs[2]["address"],
        json!(ALPHA_USD),
        "the fee token the transaction named"
    );
}

async fn receipt_transaction_and_block_agree(peer: &Peer) {
    let ((from, key), (to, _)) = (account(3), account(4));
    let tx = peer.transaction(vec![transfer(to, 1)]).await;
    let raw = sign(tx, &key);
    let receipt = peer.settle(&raw).await;
    let hash = json!(keccak256(&raw));
    assert_eq!(receipt["transactionHash"], hash);
    assert_eq!(receipt["type"], "0x76");
    assert_eq!(
        (&receipt["from"], &receipt["feePayer"]),
        (&json!(from), &json!(from))
    );
    assert_eq!(receipt["to"], json!(PATH_USD));
    assert_eq!(receipt["contractAddress"], Value::Null);
    assert!(number(&receipt["gasUsed"]) > 21_000);
    assert!(number(&receipt["effectiveGasPrice"]) > 0);
    assert_eq!(receipt["logsBloom"].as_str().unwrap().len(), 2 + 512);

    let again = peer.ok("eth_getTransactionReceipt", json!([hash])).await;
    assert_eq!(again, receipt, "both methods give the same receipt");
    let found = peer.ok("eth_getTransactionByHash", json!([hash])).await;
    assert_eq!(
        (&found["hash"], &found["from"], &found["type"]),
        (&hash, &json!(from), &json!("0x76"))
    );
    assert_eq!(found["calls"][0]["to"], json!(PATH_USD));
    let block = peer
        .ok(
            "eth_getBlockByNumber",
            json!([receipt["blockNumber"], false]),
        )
        .await;
    assert_eq!(block["hash"], receipt["blockHash"]);
    assert!(
        block["transactions"].as_array().unwrap().contains(&hash),
        "{block}"
    );
    let same = peer
        .ok("eth_getBlockByHash", json!([receipt["blockHash"], false]))
        .await;
    assert_eq!(same["number"], receipt["blockNumber"]);
    let timestamp = number(&block["timestamp"]);
    assert!(
        timestamp.abs_diff(now()) < 30,
        "the wall clock: {timestamp}"
    );
    assert_eq!(number(&block["timestampMillis"]) / 1000, timestamp);
    assert!(peer.quantity("eth_blockNumber", json!([])).await >= number(&receipt["blockNumber"]));
}

/// The types behind `tempo-alloy`'s receipt and header.
async fn rust_clients_can_parse_the_replies(peer: &Peer) {
    type Receipt = TransactionReceipt<ReceiptWithBloom<TempoReceipt<Log>>>;
    let tx = peer
        .transaction(vec![transfer_with_memo(account(4).0, 1, MEMO)])
        .await;
    let reply = peer.settle(&sign(tx, &account(3).1)).await;
    let receipt: Receipt = serde_json::from_value(reply.clone()).unwrap();
    assert!(receipt.inner.receipt.success);
    assert_eq!(json!(receipt.transaction_hash), reply["transactionHash"]);
    assert_eq!(receipt.logs().len(), 3);
    let block = peer
        .ok("eth_getBlockByHash", json!([receipt.block_hash, true]))
        .await;
    let header: Header<TempoHeader> = serde_json::from_value(block.clone()).unwrap();
    if peer.chain.is_some() {
        // anvil hashes the Ethereum part of the header only.
        assert_eq!(header.inner.hash_slow(), header.hash);
    }
    let tx: TempoTxEnvelope = serde_json::from_value(block["transactions"][0].clone()).unwrap();
    assert_eq!(*tx.tx_hash(), receipt.transaction_hash);
}

async fn logs_are_found_by_memo(peer: &Peer) {
    let memo = B256::repeat_byte(0x5a);
    let ((_, key), (to, _)) = (account(3), account(4));
    let tx = peer
        .transaction(vec![transfer_with_memo(to, 1, memo)])
        .await;
    let receipt = peer.settle(&sign(tx, &key)).await;
    let filter = json!([{ "address": PATH_USD, "fromBlock": "0x0", "toBlock": "latest",
        "topics": [null, null, [to.into_word()], memo] }]);
    let logs = peer.ok("eth_getLogs", filter).await;
    assert_eq!(logs.as_array().map(Vec::len), Some(1), "{logs}");
    assert_eq!(logs[0]["transactionHash"], receipt["transactionHash"]);
    let elsewhere =
        json!([{ "address": BETA_USD, "fromBlock": "0x0", "topics": [null, null, null, memo] }]);
    assert_eq!(peer.ok("eth_getLogs", elsewhere).await, json!([]));
}

async fn wrong_chain_is_refused(peer: &Peer) {
    let mut tx = peer.transaction(vec![transfer(account(4).0, 1)]).await;
    tx.chain_id = 4217;
    let error = peer.submit(&sign(tx, &account(3).1)).await.unwrap_err();
    assert_eq!(error["code"], -32003);
    assert!(
        error["message"].as_str().unwrap().contains("chain id"),
        "{error}"
    );
}

async fn expired_window_is_refused(peer: &Peer) {
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

async fn broke_payer_is_refused(peer: &Peer) {
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

async fn garbage_is_refused(peer: &Peer) {
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

async fn overdraft_is_included_as_failed(peer: &Peer) {
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

async fn simulated_overdraft_reverts_with_the_real_error(peer: &Peer) {
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

async fn batch_is_all_or_nothing(peer: &Peer) {
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

async fn same_bytes_move_money_once(peer: &Peer) {
    let ((_, key), (to, _)) = (account(3), account(4));
    let before = peer.balance(PATH_USD, to).await;
    let tx = peer.transaction(vec![transfer(to, 100)]).await;
    let raw = sign(tx, &key);
    let receipt = peer.settle(&raw).await;
    // Either the receipt it already has or a refusal: anvil does one or the other, by its timing.
    match peer.submit(&raw).await {
        Ok(again) => assert_eq!(again["transactionHash"], receipt["transactionHash"]),
        Err(error) => assert!(error.to_string().contains("already"), "{error}"),
    }
    let refused = peer
        .call("eth_sendRawTransaction", json!([raw]))
        .await
        .unwrap_err();
    assert!(
        refused["message"].as_str().unwrap().contains("already"),
        "{refused}"
    );
    assert_eq!(peer.balance(PATH_USD, to).await - before, U256::from(100));
}

async fn sponsor_pays_the_fee(peer: &Peer) {
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
async fn forged_sponsor_is_refused(peer: &Peer) {
    let ((_, key), (to, _), (_, sponsor_key)) = (account(3), account(4), account(5));
    let mut tx = peer.transaction(vec![transfer(to, 9)]).await;
    tx.fee_token = None;
    let other = tx.signature_hash();
    tx.fee_payer_signature = Some(sponsor_key.sign_hash_sync(&other).unwrap());
    assert!(peer.submit(&sign(tx, &key)).await.is_err());
}

/// The replay id leaves the sponsor out, so a second sponsor cannot make it a second payment.
async fn sponsored_envelope_cannot_be_replayed_with_another_fee(peer: &Peer) {
    if peer.chain.is_none() {
        // anvil waits for the duplicate until its timeout; the money still moves once.
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

async fn allowance_is_needed_and_used_up(peer: &Peer) {
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

async fn nobody_and_tokens_cannot_be_paid(peer: &Peer) {
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

async fn protocol_nonce_counts(peer: &Peer) {
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

async fn nonce_keys_count_apart(peer: &Peer) {
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

async fn plain_ethereum_transaction_pays_too(peer: &Peer) {
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

async fn estimate_is_enough(peer: &Peer) {
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
async fn preferred_fee_token_is_used(peer: &Peer) {
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
