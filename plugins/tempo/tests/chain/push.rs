//! Push mode: the payer broadcasts, the server reads the receipt.

use std::sync::Mutex;

use alloy::{
    primitives::{Address, B256, TxKind, U256},
    signers::Signer as _,
};
use farebox_core::{Refusal, Step, TypedPayer, prelude::*};
use farebox_sandbox_tempo::Fault;
use farebox_tempo::{Broadcaster, TempoWallet, TokenCall, WalletConfig};
use farebox_wire::Payload;
use serde_json::json;
use tempo_primitives::transaction::Call;

use crate::ground::Ground;
use crate::net::{
    Credential, Net, POOR, RECIPIENT, RICH, broadcast, call, detail, key, paying, sign, wallet,
};

pub(crate) async fn all(net: &Net) {
    a_payment_that_was_broadcast_counts_once(net).await;
    a_wallet_pushes_where_nothing_else_is_taken(net).await;
    a_wallet_that_can_only_broadcast_pushes(net).await;
    a_hash_that_nobody_knows_may_come_again(net).await;
    a_payment_for_another_challenge_is_spent(net).await;
    a_transaction_that_does_not_pay_is_refused(net).await;
    a_reverted_transaction_pays_nothing(net).await;
    a_hash_is_its_payers(net).await;
}

pub(crate) fn pushed(challenge: &Challenge, hash: B256) -> Credential {
    Credential {
        challenge: challenge.clone(),
        payload: Payload::from_value(&json!({ "type": "hash", "hash": hash })).unwrap(),
        source: None,
    }
}

fn reference(plan: &farebox_core::OncePlan) -> String {
    match &plan.step {
        Step::Paid { reference } => reference.clone(),
        Step::Settle(_) => panic!("it is paid already"),
    }
}

/// Protects: the hash on the receipt, and one key for one transaction however it is handed over.
async fn a_payment_that_was_broadcast_counts_once(net: &Net) {
    let challenge = net.challenge("0.01").await;
    let raw = sign(paying(&challenge, 10_000), RICH).await;
    let pulled = Credential {
        challenge: challenge.clone(),
        payload: crate::net::transaction(&raw),
        source: None,
    };
    let pulled = net.plan(&pulled).await.unwrap();
    let before = net.balance(RECIPIENT).await;
    let hash = broadcast(net, raw).await;
    let plan = net.plan(&pushed(&challenge, hash)).await.unwrap();
    assert_eq!(reference(&plan), hash.to_string());
    assert_eq!(net.balance(RECIPIENT).await, before + U256::from(10_000));
    let [key] = plan.proofs.as_slice() else {
        panic!("one key: {:?}", plan.proofs)
    };
    assert!(pulled.proofs.contains(key), "the same key in both modes");
}

async fn a_wallet_pushes_where_nothing_else_is_taken(net: &Net) {
    let terms = json!({ "amount": "0.01", "modes": ["push"] });
    let before = net.balance(RECIPIENT).await;
    let challenge = net.challenge_for(&terms).await;
    let credential = net.pay(challenge, RICH).await.unwrap();
    assert_eq!(net.balance(RECIPIENT).await, before + U256::from(10_000));
    let payload: serde_json::Value = credential.payload.decode().unwrap();
    assert_eq!(payload["type"], "hash");
    let plan = net.plan(&credential).await.unwrap();
    assert_eq!(payload["hash"], reference(&plan));
}

/// A custodian: it has the key, and gives nobody a signature.
#[derive(Debug)]
struct Custodian {
    url: String,
    sent: Mutex<Vec<TokenCall>>,
}

#[async_trait::async_trait]
impl Broadcaster for Custodian {
    fn address(&self) -> Address {
        key(RICH).address()
    }

    async fn send(&self, calls: &[TokenCall], until: u64) -> Result<B256, PayError> {
        self.sent.lock().unwrap().extend_from_slice(calls);
        let net = Net::at(&self.url);
        let mut tx = paying(&net.challenge("0").await, 0);
        tx.valid_before = std::num::NonZeroU64::new(until);
        tx.calls = calls
            .iter()
            .map(|call| Call {
                to: TxKind::Call(call.to),
                value: U256::ZERO,
                input: call.input.clone(),
            })
            .collect();
        Ok(broadcast(&net, sign(tx, RICH).await).await)
    }
}

fn custodial(net: &Net) -> TypedPayer<TempoWallet, Charge> {
    let custodian = Custodian {
        url: net.url.clone(),
        sent: Mutex::default(),
    };
    let config = WalletConfig {
        rpc_url: Some(net.url.as_str().into()),
        chain_id: Some(1337),
        ..WalletConfig::default()
    };
    TypedPayer::new(TempoWallet::broadcasting(config, custodian).unwrap())
}

async fn a_wallet_that_can_only_broadcast_pushes(net: &Net) {
    let payer = std::sync::Arc::new(custodial(net));
    let challenge = net.challenge("0.01").await;
    let credential = net.pay_with(challenge, payer.clone()).await.unwrap();
    drop(net.plan(&credential).await.unwrap());
    let pull = json!({ "amount": "0.01", "modes": ["pull"] });
    match net.pay_with(net.challenge_for(&pull).await, payer).await {
        Err(PayError::Unsupported(why)) => assert!(why.contains("can only broadcast"), "{why}"),
        other => panic!("{:?}", other.map(|_| ())),
    }
}

/// Protects: a payer whose transaction is not in a block yet is not asked to pay again.
async fn a_hash_that_nobody_knows_may_come_again(net: &Net) {
    let challenge = net.challenge("0.01").await;
    let unknown = pushed(&challenge, B256::repeat_byte(0x5a));
    match net.plan(&unknown).await {
        Err(Refusal::Fault(fault)) => assert!(fault.retry_after().is_some(), "{fault}"),
        other => panic!("{other:?}"),
    }
}

/// Protects: who paid for another challenge is told so, and gets none that asks for money again.
async fn a_payment_for_another_challenge_is_spent(net: &Net) {
    let (paid, other) = (net.challenge("0.01").await, net.challenge("0.01").await);
    let hash = broadcast(net, sign(paying(&paid, 10_000), RICH).await).await;
    match net.plan(&pushed(&other, hash)).await {
        Err(Refusal::Rejected(why)) => {
            assert!(
                why.spent && why.detail.contains("another challenge"),
                "{why:?}"
            );
        }
        verdict => panic!("{verdict:?}"),
    }
    drop(net.plan(&pushed(&paid, hash)).await.unwrap());
}

async fn a_transaction_that_does_not_pay_is_refused(net: &Net) {
    let challenge = net.challenge("0.01").await;
    let memo = farebox_tempo::memo::attribution(&challenge);
    for (to, amount, memo, says) in [
        (RECIPIENT, 9_999, memo, "no transfer of 10000"),
        (
            Address::repeat_byte(0x42),
            10_000,
            memo,
            "no transfer of 10000",
        ),
        (RECIPIENT, 10_000, B256::ZERO, "no attribution memo"),
    ] {
        let mut tx = paying(&challenge, 10_000);
        tx.calls = vec![call(to, amount, memo)];
        let hash = broadcast(net, sign(tx, RICH).await).await;
        let text = detail(net.plan(&pushed(&challenge, hash)).await.unwrap_err());
        assert!(text.contains(says), "{says}: {text}");
    }
}

/// Protects: a hash in a block is no payment by itself.
async fn a_reverted_transaction_pays_nothing(net: &Net) {
    let challenge = net.challenge("0.01").await;
    let memo = farebox_tempo::memo::attribution(&challenge);
    let mut tx = paying(&challenge, 10_000);
    // The second call fails, and takes the first back.
    tx.calls.push(call(RECIPIENT, u64::MAX, memo));
    let hash = broadcast(net, sign(tx, RICH).await).await;
    let text = detail(net.plan(&pushed(&challenge, hash)).await.unwrap_err());
    assert!(text.contains("reverted"), "{text}");
}

/// Protects: nobody pays with what somebody else has broadcast, nor by paying himself.
async fn a_hash_is_its_payers(net: &Net) {
    let challenge = net.challenge("0.01").await;
    let hash = broadcast(net, sign(paying(&challenge, 10_000), RICH).await).await;
    let source = |chain: u64, secret| {
        let address = key(secret).address();
        Some(format!("did:pkh:eip155:{chain}:{address}"))
    };
    for (source, says) in [
        (source(1337, POOR), "no transfer of 10000"),
        (source(1, RICH), "another chain"),
        (Some("alice".to_owned()), "cannot be read"),
    ] {
        let credential = Credential {
            source,
            ..pushed(&challenge, hash)
        };
        let text = detail(net.plan(&credential).await.unwrap_err());
        assert!(text.contains(says), "{says}: {text}");
    }
    let own = Credential {
        source: source(1337, RICH),
        ..pushed(&challenge, hash)
    };
    drop(net.plan(&own).await.unwrap());

    let seller = "5de4111afa1a4b94908f83103eb1f1706367c2e68ca870fc3fb9a804cdab365a";
    let challenge = net.challenge("0.01").await;
    let hash = broadcast(net, sign(paying(&challenge, 10_000), seller).await).await;
    let text = detail(net.plan(&pushed(&challenge, hash)).await.unwrap_err());
    assert!(text.contains("same account"), "{text}");
}

/// Protects: one call per push charge.
#[tokio::test]
async fn a_push_charge_costs_one_call() {
    let chain = Ground::start().await;
    let net = Net::at(&chain.url());
    net.rail.connect().await.unwrap();
    let terms = json!({ "amount": "0.01", "modes": ["push"] });
    let challenge = net.challenge_for(&terms).await;
    let credential = net.pay(challenge, RICH).await.unwrap();
    let paid = chain.total_calls();
    drop(net.plan(&credential).await.unwrap());
    assert_eq!(chain.total_calls() - paid, 1);
}

/// Protects: an outage while a hash is read is nobody's fault but ours.
#[tokio::test]
async fn an_outage_refuses_no_hash() {
    let chain = Ground::start().await;
    let net = Net::at(&chain.url());
    let challenge = net.challenge("0.01").await;
    let hash = broadcast(&net, sign(paying(&challenge, 10_000), RICH).await).await;
    for outage in [
        Fault::Disconnect,
        Fault::Status(503),
        Fault::error(-32005, "rate limit exceeded"),
    ] {
        chain.fail_next("eth_getTransactionReceipt", 1, outage);
        match net.plan(&pushed(&challenge, hash)).await {
            Err(Refusal::Fault(fault)) => assert!(fault.retry_after().is_some()),
            other => panic!("{other:?}"),
        }
    }
    drop(net.plan(&pushed(&challenge, hash)).await.unwrap());
}

/// Protects: a broadcast whose answer got lost is presented, and not made or paid again.
#[tokio::test]
async fn a_lost_answer_loses_no_payment() {
    const SYNC: &str = "eth_sendRawTransactionSync";
    let terms = json!({ "amount": "0.01", "modes": ["push"] });
    for lost in [
        Fault::Disconnect,
        Fault::Status(502),
        Fault::error(-32000, "already known"),
    ] {
        let chain = Ground::start().await;
        let net = Net::at(&chain.url());
        let before = net.balance(RECIPIENT).await;
        chain.lose_reply(SYNC, 1, lost);
        let credential = net
            .pay(net.challenge_for(&terms).await, RICH)
            .await
            .unwrap();
        drop(net.plan(&credential).await.unwrap());
        assert_eq!(net.balance(RECIPIENT).await, before + U256::from(10_000));
        assert_eq!(chain.calls(SYNC), 1);
        assert_eq!(chain.calls("eth_sendRawTransaction"), 0);
    }
    let chain = Ground::start().await;
    let net = Net::at(&chain.url());
    let payer = wallet(&net.url, RICH);
    let challenge = net.challenge_for(&terms).await;
    chain.fail_next(SYNC, 1, Fault::error(-32003, "intrinsic gas too low"));
    chain.fail_next("eth_getTransactionReceipt", 100, Fault::Status(503));
    // Refused for good, but nobody can say that it is not in a block.
    let credential = net.pay_with(challenge, payer).await.unwrap();
    assert!(matches!(
        net.plan(&credential).await,
        Err(Refusal::Fault(_))
    ));
}

/// Protects: a hash of a transaction that never existed is asked about for as long as one could
/// still be included, and no longer.
#[tokio::test]
async fn a_hash_that_never_existed_is_refused_in_the_end() {
    let chain = Ground::start().await;
    let net = Net::at(&chain.url());
    let mut challenge = net.challenge("0.01").await;
    let unknown = B256::repeat_byte(0x5a);
    // Over for a while, but not for so long that a node cannot be behind.
    let ago =
        |seconds: i64| Timestamp::from_unix_millis(Timestamp::now().unix_millis() - seconds * 1000);
    challenge.expires = Some(ago(30));
    let before = chain.total_calls();
    assert!(matches!(
        net.plan(&pushed(&challenge, unknown)).await,
        Err(Refusal::Fault(_))
    ));
    assert_eq!(chain.total_calls() - before, 2, "the chain id and one look");
    // The chain's clock is that of its last block.
    challenge.expires = Some(ago(62));
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    let text = loop {
        match net.plan(&pushed(&challenge, unknown)).await.unwrap_err() {
            Refusal::Fault(fault) => assert!(std::time::Instant::now() < deadline, "{fault}"),
            refused => break detail(refused),
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    };
    assert!(text.contains("no block has this transaction"), "{text}");
    // The chain's own clock decides, and an outage does not.
    chain.fail_next("eth_getBlockByNumber", 1, Fault::Status(503));
    assert!(matches!(
        net.plan(&pushed(&challenge, unknown)).await,
        Err(Refusal::Fault(_))
    ));
    // What was paid for it in time is honoured however late it is seen.
    let mut paid = net.challenge("0.01").await;
    let hash = broadcast(&net, sign(paying(&paid, 10_000), RICH).await).await;
    paid.expires = Some(ago(62));
    drop(net.plan(&pushed(&paid, hash)).await.unwrap());
}

/// Protects: a node that does not take a payment for a moment is asked again; one that never does
/// leaves nothing behind, so the client may pay otherwise.
#[tokio::test]
async fn a_broadcast_that_is_refused_is_tried_again_and_then_not_paid() {
    const SYNC: &str = "eth_sendRawTransactionSync";
    let terms = json!({ "amount": "0.01", "modes": ["push"] });
    let refused = || Fault::error(-32003, "max fee per gas less than block base fee");
    let chain = Ground::start().await;
    let net = Net::at(&chain.url());
    let before = net.balance(RECIPIENT).await;
    chain.fail_next(SYNC, 2, refused());
    let challenge = net.challenge_for(&terms).await;
    let credential = net.pay(challenge, RICH).await.unwrap();
    drop(net.plan(&credential).await.unwrap());
    assert_eq!(chain.calls(SYNC), 3);
    assert_eq!(net.balance(RECIPIENT).await, before + U256::from(10_000));

    chain.fail_next(SYNC, 100, refused());
    let challenge = net.challenge_for(&terms).await;
    match net.pay(challenge, RICH).await {
        Err(PayError::NotPaid(fault)) => assert!(fault.to_string().contains("gas"), "{fault}"),
        other => panic!("{:?}", other.map(|_| ())),
    }
    assert_eq!(chain.calls(SYNC), 7);
    assert_eq!(net.balance(RECIPIENT).await, before + U256::from(10_000));
}
