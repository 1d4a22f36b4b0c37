//! What a test may ask of the sandbox that no real chain does on demand.
#![allow(clippy::unwrap_used, reason = "tests may panic")]

mod peer;

use std::time::{Duration, Instant};

use alloy::primitives::{B256, U256, keccak256};
use farebox_sandbox_tempo::{ChainConfig, Fault, PATH_USD, THETA_USD};
use peer::*;
use serde_json::{Value, json};

const SYNC: &str = "eth_sendRawTransactionSync";

/// A reply lost after inclusion: the worst moment for a payer to be left in the dark.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_reply_leaves_the_money_moved() {
    let peer = Peer::sandbox().await;
    let ((_, key), (to, _)) = (account(3), account(4));
    let before = peer.chain().balance(PATH_USD, to);
    for (fault, moved) in [
        (Fault::Disconnect, 1),
        (Fault::error(-32603, "timeout"), 2),
        (Fault::Status(502), 3),
    ] {
        peer.chain().lose_reply(SYNC, 1, fault);
        let raw = sign(peer.transaction(vec![transfer(to, 1)]).await, &key);
        let body = json!({"jsonrpc":"2.0","id":1,"method":SYNC,"params":[raw]});
        let reply = peer.send(&body).await;
        assert!(reply.is_err() || reply.unwrap()["error"].is_object());
        assert_eq!(peer.chain().balance(PATH_USD, to) - before, moved);
        let receipt = peer
            .ok("eth_getTransactionReceipt", json!([keccak256(&raw)]))
            .await;
        assert_eq!(receipt["status"], "0x1", "and the receipt can be asked for");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_call_has_no_effect_and_the_next_one_passes() {
    let peer = Peer::sandbox().await;
    let ((_, key), (to, _)) = (account(3), account(4));
    let before = peer.chain().balance(PATH_USD, to);
    let raw = sign(peer.transaction(vec![transfer(to, 1)]).await, &key);
    peer.chain()
        .fail_next(SYNC, 2, Fault::error(-32005, "limit exceeded"));
    for _ in 0..2 {
        assert_eq!(peer.submit(&raw).await.unwrap_err()["code"], -32005);
    }
    assert_eq!(peer.chain().balance(PATH_USD, to), before);
    peer.settle(&raw).await;
    assert_eq!(peer.chain().calls(SYNC), 3, "refused calls count");
    assert!(peer.chain().total_calls() > 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hanging_call_holds_only_its_own_caller() {
    let peer = Peer::sandbox().await;
    peer.chain().fail_next("eth_chainId", 1, Fault::Hang);
    let waits = peer.call("eth_chainId", json!([]));
    assert!(
        tokio::time::timeout(Duration::from_millis(200), waits)
            .await
            .is_err()
    );
    assert_eq!(peer.ok("eth_chainId", json!([])).await, "0x539");
    peer.chain().fail_next("eth_chainId", 1, Fault::Hang);
    peer.chain().clear_faults();
    assert_eq!(peer.ok("eth_chainId", json!([])).await, "0x539");
}

#[tokio::test(flavor = "multi_thread")]
async fn paused_mining_keeps_transactions_pending() {
    let peer = Peer::sandbox().await;
    let ((from, key), (to, _)) = (account(3), account(4));
    peer.chain().pause_mining();
    let mut tx = peer.transaction(vec![transfer(to, 1)]).await;
    (tx.nonce_key, tx.valid_before) = (U256::ZERO, None);
    let raw = sign(tx, &key);
    let hash = peer.ok("eth_sendRawTransaction", json!([raw])).await;
    let pending = peer.ok("eth_getTransactionByHash", json!([hash])).await;
    assert_eq!(
        (&pending["hash"], &pending["blockHash"]),
        (&hash, &Value::Null)
    );
    assert_eq!(
        peer.ok("eth_getTransactionReceipt", json!([hash])).await,
        Value::Null
    );
    assert_eq!(
        peer.quantity("eth_getTransactionCount", json!([from, "pending"]))
            .await,
        1
    );
    assert_eq!(
        peer.quantity("eth_getTransactionCount", json!([from, "latest"]))
            .await,
        0
    );
    let late = peer.call(SYNC, json!([raw, 50])).await.unwrap_err();
    assert!(
        late["message"].as_str().unwrap().contains("timeout"),
        "{late}"
    );

    peer.chain().resume_mining();
    let receipt = peer.ok("eth_getTransactionReceipt", json!([hash])).await;
    assert_eq!(receipt["status"], "0x1");
}

/// A window that closes while a transaction waits drops it: it can never be included.
#[tokio::test(flavor = "multi_thread")]
async fn a_pending_transaction_expires_with_the_clock() {
    let peer = Peer::sandbox().await;
    let ((_, key), (to, _)) = (account(3), account(4));
    let before = peer.chain().balance(PATH_USD, to);
    peer.chain().pause_mining();
    let raw = sign(peer.transaction(vec![transfer(to, 1)]).await, &key);
    let hash = peer.ok("eth_sendRawTransaction", json!([raw])).await;
    peer.chain().advance_clock(Duration::from_secs(60));
    peer.chain().resume_mining();
    assert_eq!(
        peer.ok("eth_getTransactionByHash", json!([hash])).await,
        Value::Null
    );
    assert_eq!(peer.chain().balance(PATH_USD, to), before);
    assert!(peer.submit(&raw).await.is_err(), "too late now");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_that_opens_later_is_waited_for() {
    let peer = Peer::sandbox().await;
    let mut tx = peer.transaction(vec![transfer(account(4).0, 1)]).await;
    tx.valid_after = std::num::NonZeroU64::new(now() + 15);
    let raw = sign(tx, &account(3).1);
    let hash = peer.ok("eth_sendRawTransaction", json!([raw])).await;
    assert_eq!(
        peer.ok("eth_getTransactionReceipt", json!([hash])).await,
        Value::Null
    );
    peer.chain().advance_clock(Duration::from_secs(20));
    assert_eq!(
        peer.ok("eth_getTransactionReceipt", json!([hash])).await["status"],
        "0x1"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nonce_gap_is_waited_for() {
    let peer = Peer::sandbox().await;
    let (from, key) = account(3);
    let mut hashes = Vec::new();
    for nonce in [1, 0] {
        let mut tx = peer.transaction(vec![transfer(account(4).0, 1)]).await;
        (tx.nonce_key, tx.nonce, tx.valid_before) = (U256::ZERO, nonce, None);
        hashes.push(
            peer.ok("eth_sendRawTransaction", json!([sign(tx, &key)]))
                .await,
        );
    }
    let first = peer
        .ok("eth_getTransactionReceipt", json!([hashes[1]]))
        .await;
    let second = peer
        .ok("eth_getTransactionReceipt", json!([hashes[0]]))
        .await;
    assert!(number(&first["blockNumber"]) < number(&second["blockNumber"]));
    let mut low = peer.transaction(vec![transfer(account(4).0, 2)]).await;
    (low.nonce_key, low.nonce, low.valid_before) = (U256::ZERO, 0, None);
    let refused = peer.submit(&sign(low, &key)).await.unwrap_err();
    assert_eq!(refused["message"], "nonce too low");
    assert_eq!(
        peer.quantity("eth_getTransactionCount", json!([from, "latest"]))
            .await,
        2
    );
}

/// Expiring nonces have rules of their own, which anvil enforces by waiting for ever.
#[tokio::test(flavor = "multi_thread")]
async fn expiring_nonces_are_short_lived_and_numberless() {
    let peer = Peer::sandbox().await;
    for (valid_before, nonce) in [(None, 0), (Some(now() + 100), 0), (Some(now() + 20), 1)] {
        let mut tx = peer.transaction(vec![transfer(account(4).0, 1)]).await;
        (tx.valid_before, tx.nonce) = (valid_before.and_then(std::num::NonZeroU64::new), nonce);
        let refused = peer.submit(&sign(tx, &account(3).1)).await.unwrap_err();
        assert!(
            refused["message"]
                .as_str()
                .unwrap()
                .contains("expiring nonce"),
            "{refused}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn gas_below_the_intrinsic_cost_is_refused_and_below_the_real_one_fails() {
    let peer = Peer::sandbox().await;
    let ((from, key), (to, _)) = (account(3), account(4));
    let before = peer.chain().balance(PATH_USD, from);
    let mut tx = peer.transaction(vec![transfer(to, 1)]).await;
    tx.gas_limit = 30_000;
    assert_eq!(
        peer.submit(&sign(tx.clone(), &key)).await.unwrap_err()["code"],
        -32003
    );
    tx.gas_limit = 40_000;
    let receipt = peer.submit(&sign(tx, &key)).await.unwrap();
    assert_eq!(
        (&receipt["status"], &receipt["gasUsed"]),
        (&json!("0x0"), &json!("0x9c40"))
    );
    assert_eq!(peer.chain().balance(PATH_USD, from), before);
}

/// What a batch may spend leaves room for its own fee, as when the node takes the fee first.
#[tokio::test(flavor = "multi_thread")]
async fn the_fee_cannot_be_spent_by_the_calls() {
    let peer = Peer::sandbox().await;
    let (from, key) = account(3);
    let mut tx = peer
        .transaction(vec![transfer(account(4).0, u64::MAX)])
        .await;
    tx.fee_token = Some(PATH_USD);
    let receipt = peer.submit(&sign(tx, &key)).await.unwrap();
    assert_eq!(receipt["status"], "0x0");
    assert!(peer.chain().balance(PATH_USD, from) < u128::from(u64::MAX));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_simulation_with_a_price_needs_a_payer_with_money() {
    let peer = Peer::sandbox().await;
    let ((from, _), (to, _)) = (account(3), account(4));
    let broke = keccak256("nobody");
    let broke = alloy::primitives::Address::from_word(broke);
    let ask = |from, payer: Value| {
        json!([{ "from": from, "calls": [transfer(to, 0)], "gas": "0xf4240",
            "maxFeePerGas": "0x174876e800", "feePayer": payer }])
    };
    assert_eq!(
        peer.ok("eth_call", ask(from, Value::Null)).await,
        "0x0000000000000000000000000000000000000000000000000000000000000001"
    );
    assert_eq!(
        peer.call("eth_call", ask(broke, Value::Null))
            .await
            .unwrap_err()["code"],
        -32003
    );
    assert!(
        peer.call("eth_call", ask(broke, json!(from))).await.is_ok(),
        "a sponsor pays"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_come_by_themselves() {
    let beat = ChainConfig {
        block_time: Duration::from_millis(5),
        ..ChainConfig::default()
    };
    let peer = Peer::sandbox_with(beat).await;
    let deadline = Instant::now() + Duration::from_secs(10);
    while peer.chain().block_number() < 5 {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let last = peer.ok("eth_getBlockByNumber", json!(["0x5", true])).await;
    let parent = peer.ok("eth_getBlockByNumber", json!(["0x4", true])).await;
    assert_eq!(last["parentHash"], parent["hash"]);
    assert!(number(&last["timestampMillis"]) > number(&parent["timestampMillis"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_can_refuse_what_it_knows() {
    let strict = ChainConfig {
        refuse_known: true,
        chain_id: 42431,
        ..ChainConfig::default()
    };
    let peer = Peer::sandbox_with(strict).await;
    let mut tx = peer.transaction(vec![transfer(account(4).0, 1)]).await;
    tx.chain_id = 42431;
    let raw = sign(tx, &account(3).1);
    peer.settle(&raw).await;
    let refused = peer.submit(&raw).await.unwrap_err();
    assert_eq!(refused["message"], "transaction already imported");

    let lenient = Peer::sandbox().await;
    let tx = lenient.transaction(vec![transfer(account(4).0, 1)]).await;
    let raw = sign(tx, &account(3).1);
    assert_eq!(lenient.settle(&raw).await, lenient.settle(&raw).await);
    let refused = lenient
        .call("eth_sendRawTransaction", json!([raw]))
        .await
        .unwrap_err();
    assert_eq!(
        refused["message"], "transaction already imported",
        "only the sync method answers"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_faucet_and_the_fee_preference_take_effect() {
    let peer = Peer::sandbox().await;
    let signer =
        alloy::signers::local::PrivateKeySigner::from_bytes(&B256::repeat_byte(7)).unwrap();
    let me = signer.address();
    peer.chain().mint(PATH_USD, me, 500);
    peer.chain().mint(THETA_USD, me, 1_000_000);
    peer.chain().prefer_fee_token(me, THETA_USD);
    let mut tx = peer.transaction(vec![transfer(account(4).0, 500)]).await;
    tx.fee_token = None;
    peer.settle(&sign(tx, &signer)).await;
    assert_eq!(peer.chain().balance(PATH_USD, me), 0);
    assert!(peer.chain().balance(THETA_USD, me) < 1_000_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_the_chain_closes_the_port() {
    let mut peer = Peer::sandbox().await;
    assert_eq!(peer.ok("eth_chainId", json!([])).await, "0x539");
    drop(peer.chain.take());
    let ask = json!({"jsonrpc":"2.0","id":1,"method":"eth_chainId"});
    let deadline = Instant::now() + Duration::from_secs(10);
    while peer.send(&ask).await.is_ok() {
        assert!(Instant::now() < deadline);
        tokio::task::yield_now().await;
    }
}
