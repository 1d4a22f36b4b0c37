//! Several endpoints of one chain.

use std::sync::Arc;

use alloy::primitives::U256;
use farebox_core::{Method, Outcome, Refusal};
use farebox_sandbox_tempo::{Chain, ChainConfig, Fault};
use serde_json::json;

use crate::net::{Net, RECIPIENT, RICH, config, hash, reference};

const SYNC: &str = "eth_sendRawTransactionSync";

async fn chain(chain_id: u64) -> Chain {
    let config = ChainConfig {
        chain_id,
        ..ChainConfig::default()
    };
    Chain::start(config).await.unwrap()
}

/// A rail that asks `first` and then `second`. Payments are made on `second`.
fn over(first: &str, second: &Chain) -> Net {
    let mut config = config(first);
    config["fallback_rpc_urls"] = json!([second.url()]);
    let rail: Arc<dyn Method> = (farebox_tempo::CHARGE.build)(&config).unwrap();
    Net {
        rail,
        ..Net::at(&second.url())
    }
}

/// Protects: an endpoint that is away, whether or not it was there at the start.
#[tokio::test]
async fn a_payment_goes_through_whoever_answers() {
    let second = chain(1337).await;
    let first = chain(1337).await;
    let net = over(&first.url(), &second);
    net.rail.connect().await.unwrap();
    drop(first);
    let before = net.balance(RECIPIENT).await;
    let order = net.order("0.01").await;
    assert_eq!(
        reference(net.settle(&order).await),
        hash(&order).to_string()
    );
    assert_eq!(net.balance(RECIPIENT).await, before + U256::from(10_000));
    let asked = second.total_calls();
    let credential = net.pay(net.challenge("0.01").await, RICH).await.unwrap();
    let paid = second.total_calls();
    assert!(paid > asked);
    let order = net.verify(&credential).await.unwrap();
    reference(net.settle(&order).await);
    // The chain id is known by now.
    assert_eq!(second.total_calls() - paid, 2);
}

/// Protects: a node in trouble is not the last word on what another one can say.
#[tokio::test]
async fn what_one_cannot_read_another_can() {
    let (first, second) = (chain(1337).await, chain(1337).await);
    let net = over(&first.url(), &second);
    net.rail.connect().await.unwrap();
    for outage in [
        Fault::Disconnect,
        Fault::Status(503),
        Fault::error(-32005, "rate limit exceeded"),
        Fault::error(-32603, "Internal error"),
    ] {
        let credential = net.pay(net.challenge("0.01").await, RICH).await.unwrap();
        first.fail_next("eth_call", 1, outage.clone());
        drop(net.verify(&credential).await.unwrap());
        // Whoever answered is asked first from now on; this turns back.
        second.fail_next("eth_call", 1, outage);
        drop(net.verify(&credential).await.unwrap());
    }
    // Four more are the wallet's, which reads what it holds.
    assert_eq!((first.calls("eth_call"), second.calls("eth_call")), (8, 12));
}

/// Protects: what may have been broadcast is not broadcast again through somebody else.
#[tokio::test]
async fn nothing_is_sent_twice_unseen() {
    for lost in [Fault::Disconnect, Fault::Status(502)] {
        let (first, second) = (chain(1337).await, chain(1337).await);
        let net = over(&first.url(), &second);
        let credential = {
            let payer = Net::at(&second.url());
            payer
                .pay(payer.challenge("0.01").await, RICH)
                .await
                .unwrap()
        };
        let order = net.verify(&credential).await.unwrap();
        first.fail_next(SYNC, 1, lost);
        assert_eq!(net.settle(&order).await, Outcome::Unknown);
        assert_eq!((first.calls(SYNC), second.calls(SYNC)), (1, 0));
        assert_eq!(second.calls("eth_sendRawTransaction"), 0);
    }
}

/// Protects: "no receipt" from an endpoint that lags does not make another one's refusal final.
#[tokio::test]
async fn a_refusal_is_not_final_where_another_endpoint_may_know_more() {
    let (first, second) = (chain(1337).await, chain(1337).await);
    let net = over(&first.url(), &second);
    let credential = net.pay(net.challenge("0.01").await, RICH).await.unwrap();
    let order = net.verify(&credential).await.unwrap();
    first.fail_next(SYNC, 1, Fault::error(-32003, "transaction expired"));
    assert_eq!(net.settle(&order).await, Outcome::Unknown);
}

/// Protects: a receipt from another chain is worth nothing, whenever the endpoint turns up.
#[tokio::test]
async fn an_endpoint_on_another_chain_is_not_believed() {
    let (wrong, right) = (chain(4217).await, chain(1337).await);
    let net = over(&wrong.url(), &right);
    let fault = net.rail.connect().await.unwrap_err();
    assert!(fault.to_string().contains("4217"), "{fault}");
    // Nobody connected: it is found all the same, and the other endpoint does the work.
    let net = over(&wrong.url(), &right);
    let order = net.order("0.01").await;
    reference(net.settle(&order).await);
    assert_eq!(wrong.total_calls(), wrong.calls("eth_chainId"));
    // Alone it serves nobody.
    let alone = Net::at(&wrong.url());
    let credential = net.pay(net.challenge("0.01").await, RICH).await.unwrap();
    assert!(matches!(
        alone.verify(&credential).await,
        Err(Refusal::Fault(_))
    ));
    assert_eq!(alone.settle(&order).await, Outcome::Unknown);
    assert_eq!(alone.lookup(&order).await, Outcome::Unknown);
}

/// Protects: an endpoint that hangs costs its deadline once, not at every call.
#[tokio::test]
async fn an_endpoint_that_hangs_is_asked_last() {
    let (first, second) = (chain(1337).await, chain(1337).await);
    let net = over(&first.url(), &second);
    net.rail.connect().await.unwrap();
    let credential = net.pay(net.challenge("0.01").await, RICH).await.unwrap();
    first.fail_next("eth_call", 100, Fault::Hang);
    drop(net.verify(&credential).await.unwrap());
    drop(net.verify(&credential).await.unwrap());
    assert_eq!(first.calls("eth_call"), 1);
}
