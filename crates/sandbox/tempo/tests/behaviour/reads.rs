//! What the chain says about itself and what happened on it.

use alloy::{
    consensus::{ReceiptWithBloom, Sealable, transaction::TxHashRef},
    primitives::{B256, U256, address, keccak256},
    rpc::types::{Header, Log, TransactionReceipt},
    sol_types::SolEvent,
};
use farebox_sandbox_tempo::{ALPHA_USD, BETA_USD, PATH_USD};
use serde_json::{Value, json};
use tempo_contracts::precompiles::{ITIP20, TIP_FEE_MANAGER_ADDRESS};
use tempo_primitives::{TempoHeader, TempoReceipt, TempoTxEnvelope};

use crate::{MEMO, peer::*};

pub(crate) async fn names_itself(peer: &Peer) {
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

pub(crate) async fn answers_batches_and_unknown_methods(peer: &Peer) {
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

pub(crate) async fn describes_its_tokens(peer: &Peer) {
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

pub(crate) async fn memo_transfer_moves_money_and_logs_twice(peer: &Peer) {
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

pub(crate) async fn receipt_transaction_and_block_agree(peer: &Peer) {
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
pub(crate) async fn rust_clients_can_parse_the_replies(peer: &Peer) {
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

pub(crate) async fn logs_are_found_by_memo(peer: &Peer) {
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
