//! The suite, and what only a chain that misbehaves on demand can show.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use alloy::{
    primitives::{Address, B256, Signature, U256},
    signers::Signer,
};
use farebox_core::{
    Budget, Limit, Outcome, PayError, Payer, Paying, Refusal, SecretSource, Step, TypedPayer,
    prelude::*,
};
use farebox_sandbox_tempo::{Chain, ChainConfig, Fault};
use farebox_tempo::{TempoWallet, WalletConfig};
use serde_json::json;

use crate::{
    ground::Ground,
    net::{Net, RECIPIENT, RICH, config, hash, key, reference},
    suite,
};

const SYNC: &str = "eth_sendRawTransactionSync";

async fn start() -> (Ground, Net) {
    let chain = Ground::start().await;
    let net = Net::at(&chain.url());
    (chain, net)
}

#[tokio::test]
async fn the_suite() {
    let (chain, net) = start().await;
    suite::all(&net).await;
    let order = net.order("0.01").await;
    chain.advance_clock(Duration::from_secs(120)).await;
    suite::an_order_that_was_never_included_is_declined_in_the_end(&net, &order).await;
}

/// Protects: nodes that answer a known transaction with an error instead of its receipt.
#[tokio::test]
async fn the_suite_on_a_node_that_refuses_what_it_knows() {
    let config = ChainConfig {
        refuse_known: true,
        ..ChainConfig::default()
    };
    let chain = Chain::start(config).await.unwrap();
    suite::all(&Net::at(&chain.url())).await;
}

/// Protects: two calls per charge, one to verify and one to settle; none to quote.
#[tokio::test]
async fn a_charge_costs_two_calls() {
    let (chain, net) = start().await;
    net.rail.connect().await.unwrap();
    assert_eq!(chain.total_calls(), 1, "the chain id");
    let challenge = net.challenge("0.01").await;
    assert_eq!(chain.total_calls(), 1, "a quote needs no chain");
    let credential = net.pay(challenge, RICH).await.unwrap();
    let paid = chain.total_calls();
    let order = net.verify(&credential).await.unwrap();
    assert_eq!(chain.total_calls() - paid, 1);
    reference(net.settle(&order).await);
    assert_eq!(chain.total_calls() - paid, 2);
}

/// Protects: a lost answer is not taken for a lost payment, nor sent as a second one.
#[tokio::test]
async fn a_lost_answer_is_unknown_until_it_is_looked_up() {
    for lost in [Fault::Disconnect, Fault::Status(502)] {
        let (chain, net) = start().await;
        let before = net.balance(RECIPIENT).await;
        let order = net.order("0.01").await;
        chain.lose_reply(SYNC, 1, lost);
        assert_eq!(net.settle(&order).await, Outcome::Unknown);
        assert_eq!(
            reference(net.lookup(&order).await),
            hash(&order).to_string()
        );
        assert_eq!(net.balance(RECIPIENT).await, before + U256::from(10_000));
        assert_eq!(chain.calls(SYNC), 1);
    }
}

/// Protects: an error after inclusion ("already known", an internal error) is checked against the
/// chain before anybody is told that the payment failed.
#[tokio::test]
async fn an_error_after_inclusion_is_looked_up_at_once() {
    let (chain, net) = start().await;
    for text in [
        "already known",
        "insufficient funds for gas * price + value",
    ] {
        let order = net.order("0.01").await;
        chain.lose_reply(SYNC, 1, Fault::error(-32000, text));
        assert_eq!(
            reference(net.settle(&order).await),
            hash(&order).to_string()
        );
    }
}

/// Protects: only a refusal that names its reason declines; a node in trouble does not.
#[tokio::test]
async fn an_unexplained_refusal_is_unknown() {
    let (chain, net) = start().await;
    let order = net.order("0.01").await;
    chain.fail_next(SYNC, 1, Fault::error(-32603, "Internal error"));
    assert_eq!(net.settle(&order).await, Outcome::Unknown);
    chain.fail_next(SYNC, 1, Fault::error(-32003, "intrinsic gas too low"));
    match net.settle(&order).await {
        Outcome::Declined(why) => assert!(why.detail.contains("gas limit"), "{}", why.detail),
        other => panic!("{other:?}"),
    }
}

/// Protects: a refusal that the same bytes can outgrow is not the end of them.
#[tokio::test]
async fn what_is_refused_now_may_be_included_later() {
    let (chain, net) = start().await;
    for text in [
        "insufficient funds for gas * price + value",
        "insufficient fee token balance: have 1",
        "max fee per gas less than block base fee",
        "valid_before (9) is more than 30 seconds from now",
    ] {
        let order = net.order("0.01").await;
        chain.fail_next(SYNC, 1, Fault::error(-32003, text));
        assert_eq!(net.settle(&order).await, Outcome::Unknown, "{text}");
        let outcome = suite::in_the_end(&net, &order).await;
        assert_eq!(reference(outcome), hash(&order).to_string());
    }
}

/// Protects: a transaction that is in a block is "expired" too, so no refusal is final unseen.
#[tokio::test]
async fn a_refusal_that_cannot_be_checked_is_not_final() {
    let (chain, net) = start().await;
    let order = net.order("0.01").await;
    reference(net.settle(&order).await);
    chain.fail_next(SYNC, 1, Fault::error(-32003, "transaction expired"));
    chain.fail_next("eth_getTransactionReceipt", 100, Fault::Status(503));
    assert_eq!(net.settle(&order).await, Outcome::Unknown);
}

/// Protects: a transaction that no block takes holds up nobody who looks it up.
#[tokio::test]
async fn a_lookup_sends_without_waiting() {
    let (chain, net) = start().await;
    let order = net.order("0.01").await;
    chain.pause_mining().await;
    assert_eq!(net.lookup(&order).await, Outcome::Unknown);
    assert_eq!(chain.calls(SYNC), 0);
    assert_eq!(chain.calls("eth_sendRawTransaction"), 1);
}

/// Protects: nodes without EIP-7966.
#[tokio::test]
async fn a_node_without_the_synchronous_call_is_polled() {
    let (chain, net) = start().await;
    let order = net.order("0.01").await;
    chain.fail_next(SYNC, 1, Fault::error(-32601, "Method not found"));
    assert_eq!(
        reference(net.settle(&order).await),
        hash(&order).to_string()
    );
    assert_eq!(chain.calls("eth_sendRawTransaction"), 1);
}

/// Protects: an outage is never the payer's fault, and a lookup during one decides nothing.
#[tokio::test]
async fn an_outage_is_a_fault_that_passes() {
    let (chain, net) = start().await;
    let credential = net.pay(net.challenge("0.01").await, RICH).await.unwrap();
    let order = net.verify(&credential).await.unwrap();
    for outage in [
        Fault::Disconnect,
        Fault::Status(503),
        Fault::error(-32603, "Internal error"),
        Fault::error(-32005, "rate limit exceeded"),
        Fault::error(-32601, "Method not found"),
        Fault::error(-32000, "API key expired"),
        Fault::error(-32000, "missing signature in auth token"),
        Fault::error(-32000, "daily gas for upstream fees exhausted"),
        Fault::error(-32603, "database reverted to read-only mode"),
        Fault::error(-32003, "upstream overloaded"),
    ] {
        chain.fail_next("eth_call", 1, outage.clone());
        match net.verify(&credential).await {
            Err(Refusal::Fault(fault)) => {
                assert!(fault.retry_after().is_some());
                assert!(!fault.to_string().contains(&chain.url()), "{fault}");
            }
            other => panic!("{outage:?}: {other:?}"),
        }
        chain.fail_next("eth_getTransactionReceipt", 1, outage);
        assert_eq!(net.lookup(&order).await, Outcome::Unknown);
    }
    drop(chain);
    assert!(matches!(
        net.verify(&credential).await,
        Err(Refusal::Fault(_))
    ));
    assert_eq!(net.settle(&order).await, Outcome::Unknown);
    assert_eq!(net.lookup(&order).await, Outcome::Unknown);
}

/// Protects: an order in the pool of a chain that stands still is neither lost nor declined.
#[tokio::test]
async fn a_chain_that_stands_still_is_waited_for() {
    let (chain, net) = start().await;
    let order = net.order("0.01").await;
    chain.pause_mining().await;
    chain.fail_next(SYNC, 1, Fault::error(-32601, "Method not found"));
    let send = net.settle(&order);
    let resume = async {
        while chain.calls("eth_getTransactionReceipt") == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        chain.resume_mining().await;
    };
    let (outcome, ()) = tokio::join!(send, resume);
    assert_eq!(reference(outcome), hash(&order).to_string());
}

/// Protects: a wrong chain stops the start, an endpoint that is away does not.
#[tokio::test]
async fn the_chain_id_is_compared_at_the_start() {
    let (chain, net) = start().await;
    net.rail.connect().await.unwrap();
    let mut other = config(&chain.url());
    other["chain_id"] = 4217.into();
    let rail = (farebox_tempo::CHARGE.build)(&other).unwrap();
    let fault = rail.connect().await.unwrap_err();
    assert!(fault.to_string().contains("4217"), "{fault}");
    drop(chain);
    net.rail.connect().await.unwrap();
}

/// Protects: the fee, which no budget sees.
#[tokio::test]
async fn a_wallet_does_not_pay_any_fee() {
    let config = ChainConfig {
        base_fee: 1_000_000_000_000,
        ..ChainConfig::default()
    };
    let chain = Chain::start(config).await.unwrap();
    let net = Net::at(&chain.url());
    match net.pay(net.challenge("0.01").await, RICH).await {
        Err(PayError::NotPaid(fault)) => assert!(fault.to_string().contains("fee is too high")),
        other => panic!("{:?}", other.map(|_| ())),
    }
}

/// A remote signer that never answers. Time stands still until then, so that it can be let pass.
#[derive(Debug)]
struct Silent;

#[async_trait::async_trait]
impl Signer for Silent {
    async fn sign_hash(&self, _: &B256) -> alloy::signers::Result<Signature> {
        tokio::time::pause();
        std::future::pending().await
    }
    fn address(&self) -> Address {
        key(RICH).address()
    }
    fn chain_id(&self) -> Option<u64> {
        None
    }
    fn set_chain_id(&mut self, _: Option<u64>) {}
}

/// Protects: a signer that hangs holds neither the request nor its budget for good.
#[tokio::test]
async fn a_signer_that_does_not_answer_is_given_up() {
    let (chain, net) = start().await;
    let wallet = TempoWallet::new(WalletConfig {
        private_key: Some(SecretSource::Text(Secret::new(RICH))),
        rpc_url: Some(chain.url().as_str().into()),
        chain_id: Some(1337),
        ..WalletConfig::default()
    });
    let payer = TypedPayer::<_, Charge>::new(wallet.unwrap().with_signer(Silent));
    let challenge = net.challenge("0.01").await;
    let cx = Paying::new(&challenge, None);
    let price = payer.price(&cx).unwrap();
    let limit = Limit::per_request(price.currency.clone(), price.amount);
    let (approved, _reservation) = Budget::new([limit]).approve(price).unwrap();
    let paid = tokio::time::timeout(Duration::from_secs(60), payer.pay(&cx, approved));
    match paid.await.unwrap() {
        Err(PayError::NotPaid(fault)) => assert!(fault.to_string().contains("signer"), "{fault}"),
        other => panic!("{:?}", other.map(|_| ())),
    }
}

/// A key that is elsewhere: it sees hashes, and gives signatures.
#[derive(Debug)]
struct Remote(Arc<Mutex<Vec<B256>>>);

#[async_trait::async_trait]
impl Signer for Remote {
    async fn sign_hash(&self, hash: &B256) -> alloy::signers::Result<Signature> {
        self.0.lock().unwrap().push(*hash);
        key(RICH).sign_hash(hash).await
    }
    fn address(&self) -> Address {
        key(RICH).address()
    }
    fn chain_id(&self) -> Option<u64> {
        None
    }
    fn set_chain_id(&mut self, _: Option<u64>) {}
}

/// Protects: a wallet without a key in this process pays whatever one with a key pays, one
/// signature each, and cannot be given both.
#[tokio::test]
async fn a_remote_signer_pays() {
    let (chain, net) = start().await;
    let config = || WalletConfig {
        rpc_url: Some(chain.url().as_str().into()),
        chain_id: Some(1337),
        ..WalletConfig::default()
    };
    let hashes = Arc::<Mutex<Vec<B256>>>::default();
    let wallet = TempoWallet::signing(config(), Remote(Arc::clone(&hashes))).unwrap();
    let payer: Arc<dyn Payer> = Arc::new(TypedPayer::<_, Charge>::new(wallet));
    let before = net.balance(RECIPIENT).await;
    for (number, terms) in [
        json!({ "amount": "0.01" }),
        json!({ "amount": "0.01", "modes": ["push"] }),
        json!({ "amount": "0" }),
    ]
    .into_iter()
    .enumerate()
    {
        let challenge = net.challenge_for(&terms).await;
        let credential = net.pay_with(challenge, Arc::clone(&payer)).await.unwrap();
        let plan = net.plan(&credential).await.unwrap();
        if let Step::Settle(order) = plan.step {
            reference(net.settle(&order).await);
        }
        assert_eq!(hashes.lock().unwrap().len(), number + 1);
    }
    assert_eq!(net.balance(RECIPIENT).await, before + U256::from(20_000));
    let both = WalletConfig {
        private_key: Some(SecretSource::Text(Secret::new(RICH))),
        ..config()
    };
    let invalid = TempoWallet::signing(both, Remote(hashes)).unwrap_err();
    assert!(invalid.to_string().contains("leave it out"), "{invalid}");
}

/// Protects: whoever pays somebody for the first time is told why that takes more gas.
#[tokio::test]
async fn a_first_balance_is_explained() {
    let ground = Ground::start().await;
    let net = Net::at(&ground.url());
    let mut challenge = net.challenge("0.01").await;
    let mut request = challenge.request.value();
    let stranger = Address::repeat_byte(0x78);
    request["recipient"] = json!(stranger);
    challenge.request = crate::net::request(&request);
    let mut tx = crate::net::paying(&challenge, 10_000);
    tx.gas_limit = 100_000;
    let memo = farebox_tempo::memo::attribution(&challenge);
    tx.calls = vec![crate::net::call(stranger, 10_000, memo)];
    let credential = crate::net::Credential {
        payload: crate::net::transaction(&crate::net::sign(tx, RICH).await),
        source: None,
        challenge,
    };
    let text = crate::net::detail(net.verify(&credential).await.unwrap_err());
    assert!(text.contains("first balance of a recipient"), "{text}");
}
