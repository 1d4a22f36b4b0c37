//! What an endpoint may answer that proves nothing.

use std::sync::Arc;

use farebox_core::{Outcome, StoredOrder};
use farebox_sandbox_tempo::{Chain, ChainConfig};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::net::{Net, hash};

type Answer = Arc<dyn Fn(&Value) -> Value + Send + Sync>;

/// An endpoint that answers each request body, a single call or a batch, with `answer`.
async fn endpoint(answer: impl Fn(&Value) -> Value + Send + Sync + 'static) -> Net {
    let answer: Answer = Arc::new(answer);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(serve(stream, Arc::clone(&answer)));
        }
    });
    Net::at(&url)
}

async fn serve(mut stream: TcpStream, answer: Answer) {
    let mut request = Vec::new();
    let body: Value = loop {
        let mut part = [0; 4096];
        let read = stream.read(&mut part).await.unwrap();
        assert_ne!(read, 0, "a whole request");
        request.extend_from_slice(&part[..read]);
        let text = String::from_utf8_lossy(&request);
        let body = text.split_once("\r\n\r\n").map(|(_, body)| body);
        if let Some(Ok(body)) = body.map(serde_json::from_str) {
            break body;
        }
    };
    // Before anything else a node is asked which chain it is on.
    let body = match body["method"] == "eth_chainId" {
        true => reply(&body, Some(json!("0x539"))),
        false => answer(&body),
    };
    let body = body.to_string();
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body.as_bytes()).await.unwrap();
}

/// One call's answer, with a result or without any.
fn reply(call: &Value, result: Option<Value>) -> Value {
    let mut reply = json!({ "jsonrpc": "2.0", "id": call["id"] });
    if let Some(result) = result {
        reply["result"] = result;
    }
    reply
}

/// The latest block's time, and a word on the receipt.
fn chain_at(time: u64, receipt: Option<Value>) -> impl Fn(&Value) -> Value {
    move |call| match call["method"].as_str().unwrap() {
        "eth_getBlockByNumber" => reply(call, Some(json!({ "timestamp": format!("{time:#x}") }))),
        "eth_getTransactionReceipt" => reply(call, receipt.clone()),
        method => panic!("{method}"),
    }
}

/// A batch answered back to front, as a server is free to do.
fn batch(one: impl Fn(&Value) -> Value) -> impl Fn(&Value) -> Value {
    move |body| body.as_array().unwrap().iter().rev().map(&one).collect()
}

fn no_batches(one: impl Fn(&Value) -> Value) -> impl Fn(&Value) -> Value {
    move |body| match body {
        Value::Array(_) => json!({
            "jsonrpc": "2.0", "id": null, "error": { "code": -32600, "message": "no batches" },
        }),
        call => one(call),
    }
}

/// An order that a chain could include, and the end of its window.
async fn order() -> (Chain, StoredOrder, u64) {
    let chain = Chain::start(ChainConfig::default()).await.unwrap();
    let order = Net::at(&chain.url()).order("0.01").await;
    let fields: Value = serde_json::from_str(order.as_str()).unwrap();
    let end = fields["valid_before"].as_u64().unwrap();
    (chain, order, end)
}

fn declined(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Declined(why) if why.detail.contains("valid_before"))
}

/// Protects: "no receipt" from a node that lags is not the end of a transaction that another node
/// behind the same endpoint has in a block already.
#[tokio::test]
async fn nodes_that_are_apart_do_not_decline_a_payment() {
    let (_chain, order, end) = order().await;
    for (time, certain) in [
        (end, false),
        (end + 5, false),
        (end + 59, false),
        (end + 60, true),
    ] {
        let nobody = Some(Value::Null);
        for net in [
            endpoint(batch(chain_at(time, nobody.clone()))).await,
            endpoint(no_batches(chain_at(time, nobody.clone()))).await,
        ] {
            let outcome = net.lookup(&order).await;
            assert_eq!(declined(&outcome), certain, "{}: {outcome:?}", time - end);
            assert!(certain || outcome == Outcome::Unknown, "{outcome:?}");
        }
    }
}

/// Protects: an answer without a result is not the answer "no receipt".
#[tokio::test]
async fn an_empty_answer_declines_nothing() {
    let (_chain, order, end) = order().await;
    for net in [
        endpoint(batch(chain_at(end + 600, None))).await,
        endpoint(no_batches(chain_at(end + 600, None))).await,
        endpoint(|_| json!([])).await,
        endpoint(|_| json!({})).await,
    ] {
        assert_eq!(net.lookup(&order).await, Outcome::Unknown);
    }
}

/// Protects: a receipt of success that does not show the transfer is a receipt in doubt, not a
/// payment that failed.
#[tokio::test]
async fn success_without_its_log_is_unknown() {
    let (_chain, order, _) = order().await;
    for logs in [None, Some(json!([]))] {
        let mut receipt = json!({ "transactionHash": hash(&order), "status": "0x1" });
        if let Some(logs) = logs {
            receipt["logs"] = logs;
        }
        let net = endpoint(move |call| reply(call, Some(receipt.clone()))).await;
        assert_eq!(net.settle(&order).await, Outcome::Unknown);
    }
}
