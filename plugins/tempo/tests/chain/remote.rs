//! A fee payer behind a URL. The sandbox chain answers as such a service, for anvil too.

use alloy::{
    primitives::{Address, U256, address},
    signers::Signer as _,
};
use farebox_core::{Refusal, prelude::*};
use farebox_sandbox_tempo::{Chain, ChainConfig, Fault};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    net::{Net, RECIPIENT, RICH, TOKEN, config, counted, key, reference},
    suite::give,
};

/// Development account 9, whose fee the service pays with.
const SERVICE: Address = address!("0xa0Ee7A142d267C1f36714E4a8F75612F20a79720");

fn behind(net: &Net, url: &str, more: &Value) -> Result<Net, Invalid> {
    let mut config = config(&net.url);
    config["fee_payer"] = json!({ "url": url });
    for (key, value) in more.as_object().unwrap() {
        config["fee_payer"][key] = value.clone();
    }
    let rail = (farebox_tempo::CHARGE.build)(&config)?;
    let (url, rail) = (net.url.clone(), counted(rail));
    Ok(Net { url, rail })
}

async fn service() -> Chain {
    Chain::start(ChainConfig::default()).await.unwrap()
}

/// Protects: the price and nothing else from the payer, the fee from the service's account.
pub(crate) async fn all(net: &Net) {
    let service = service().await;
    let payer = "4444444444444444444444444444444444444444444444444444444444444444";
    give(net, payer, 10_000).await;
    // The service tries what it pays for, on its own chain.
    service.mint(TOKEN, key(payer).address(), 10_000);
    let pinned = json!({ "account": SERVICE });
    let net = behind(net, &service.sponsor_url(), &pinned).unwrap();
    let (seller, fees) = (net.balance(RECIPIENT).await, net.balance(SERVICE).await);
    let credential = net.pay(net.challenge("0.01").await, payer).await.unwrap();
    let order = net.verify(&credential).await.unwrap();
    assert_eq!(service.calls("eth_fillTransaction"), 1);
    assert_eq!(service.total_calls(), 1, "it broadcasts nothing");
    reference(net.settle(&order).await);
    assert_eq!(net.balance(key(payer).address()).await, U256::ZERO);
    assert_eq!(net.balance(RECIPIENT).await, seller + U256::from(10_000));
    assert!(net.balance(SERVICE).await < fees);
}

/// Stands before a service and spoils what it answers.
async fn spoilt(service: &Chain, spoil: fn(&mut Value)) -> String {
    let upstream = service.sponsor_url();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1/s3cret", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut bytes = vec![0; 65_536];
            let mut read = 0;
            let body = loop {
                read += stream.read(&mut bytes[read..]).await.unwrap();
                let text = String::from_utf8_lossy(&bytes[..read]).into_owned();
                let Some((head, body)) = text.split_once("\r\n\r\n") else {
                    continue;
                };
                let head = head.to_ascii_lowercase();
                let length = head.split("content-length: ").nth(1).unwrap();
                let length: usize = length.split("\r\n").next().unwrap().parse().unwrap();
                if body.len() >= length {
                    break body.to_owned();
                }
            };
            let post = reqwest::Client::new().post(&upstream).body(body);
            let post = post.header("content-type", "application/json");
            let mut answer: Value = post.send().await.unwrap().json().await.unwrap();
            spoil(&mut answer["result"]["tx"]);
            let body = answer.to_string();
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n", body.len());
            let reply = format!("{head}connection: close\r\n\r\n{body}");
            stream.write_all(reply.as_bytes()).await.unwrap();
        }
    });
    url
}

/// Protects: what comes back pays for what was sent, or for nothing; and no URL is told.
#[tokio::test]
async fn an_answer_for_something_else_is_not_used() {
    let (chain, service) = (service().await, service().await);
    let plain = Net::at(&chain.url());
    // One for each: a sponsored transaction is not taken for long.
    let paid = async || {
        let net = behind(&plain, &service.sponsor_url(), &json!({})).unwrap();
        net.pay(net.challenge("0.01").await, RICH).await.unwrap()
    };
    type Spoil = fn(&mut Value);
    let cases: [(Spoil, &str); 9] = [
        (|tx| tx["calls"][0]["data"] = json!("0xdead"), "calls"),
        (|tx| tx["calls"] = json!([]), "calls"),
        (|tx| tx["from"] = json!(RECIPIENT), "from"),
        (|tx| tx["chainId"] = json!("0x1"), "chainId"),
        (|tx| tx["validBefore"] = json!("0x1"), "validBefore"),
        (|tx| tx["gas"] = json!("0x1"), "gas"),
        (|tx| tx["feeToken"] = json!(RECIPIENT), "fee token"),
        (|tx| tx["feePayerSignature"] = Value::Null, "no signature"),
        // Signed by nobody who has anything.
        (
            |tx| tx["feePayerSignature"]["r"] = json!("0x1234"),
            "fund it",
        ),
    ];
    for (spoil, says) in cases {
        let url = spoilt(&service, spoil).await;
        let net = behind(&plain, &url, &json!({})).unwrap();
        match net.verify(&paid().await).await {
            Err(Refusal::Fault(fault)) => {
                let text = format!("{fault} {fault:?}");
                let nobody = text.contains("nobody can have made");
                assert!(
                    text.contains(says) || says == "fund it" && nobody,
                    "{says}: {text}"
                );
                assert!(!text.contains("s3cret"), "{text}");
            }
            other => panic!("{says}: {other:?}"),
        }
    }
    let other = json!({ "account": RECIPIENT });
    let net = behind(&plain, &service.sponsor_url(), &other).unwrap();
    match net.verify(&paid().await).await {
        Err(Refusal::Fault(fault)) => {
            assert!(fault.to_string().contains("not the fee payer's"), "{fault}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(chain.calls("eth_sendRawTransactionSync"), 0);
}

/// Protects: a service that is away is nobody's fault but ours, and one that says that the payment
/// would fail is believed.
#[tokio::test]
async fn a_service_that_does_not_sign() {
    let (chain, service) = (service().await, service().await);
    let net = behind(&Net::at(&chain.url()), &service.sponsor_url(), &json!({})).unwrap();
    let paid = async || net.pay(net.challenge("0.01").await, RICH).await.unwrap();
    let fill = "eth_fillTransaction";
    for outage in [
        Fault::Disconnect,
        Fault::Status(401),
        Fault::error(-32601, "Method not found"),
        Fault::error(-32000, "policy denied"),
        // The service's own purse.
        Fault::error(-32003, "insufficient funds for gas * price + value"),
        Fault::error(-32003, "insufficient fee token balance: have 1, need 2"),
        Fault::error(-32003, "nonce too low"),
    ] {
        service.fail_next(fill, 1, outage);
        match net.verify(&paid().await).await {
            Err(Refusal::Fault(fault)) => assert!(fault.retry_after().is_some(), "{fault}"),
            other => panic!("{other:?}"),
        }
    }
    for lies in [
        Fault::error(3, "execution reverted"),
        Fault::error(-32003, "Tempo tx valid_before (1) must be > current time"),
    ] {
        service.fail_next(fill, 1, lies);
        match net.verify(&paid().await).await {
            Err(Refusal::Rejected(why)) => assert!(why.detail.contains("would fail"), "{why:?}"),
            other => panic!("{other:?}"),
        }
    }
    drop(net.verify(&paid().await).await.unwrap());
}

#[tokio::test]
async fn a_url_and_a_key_are_one_too_many() {
    let chain = service().await;
    let net = Net::at(&chain.url());
    let both = json!({ "private_key": RICH, "fee_token": RECIPIENT });
    let invalid = behind(&net, "http://fees.example", &both).err().unwrap();
    let text = invalid.to_string();
    assert!(text.contains("fee_payer.private_key"), "{text}");
    assert!(text.contains("fee_payer.fee_token"), "{text}");
    let invalid = behind(&net, "ws://user:hunter2@x", &json!({}))
        .err()
        .unwrap();
    let text = invalid.to_string();
    assert!(
        text.contains("fee_payer.url") && !text.contains("hunter2"),
        "{text}"
    );
}
