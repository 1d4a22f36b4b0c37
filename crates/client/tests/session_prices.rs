//! Calls of different prices on one channel: each is signed for by its own.
#![allow(clippy::unwrap_used, reason = "tests may panic")]

mod support;

use std::sync::Arc;

use farebox_client::session::{Call, DepositLimit, Sessions};
use farebox_core::wire::{Challenge, Encoded};
use serde_json::Value;
use support::{Coins, Seller as _, Server, budget, coins, memory, origin, sessions};

/// What the server asks at a resource where a unit costs this.
fn priced(server: &Server, unit: u128) -> Challenge {
    let mut challenge = server.challenge();
    let mut request: Value = challenge.request.decode().unwrap();
    request["amount"] = unit.to_string().into();
    challenge.request = Encoded::encode(&request).unwrap();
    challenge
}

/// A call for a unit at this price, by a server that counts in ones.
async fn call(sessions: &Sessions, server: &Arc<Server>, unit: u128) -> Call {
    let mut call = sessions
        .begin(&[priced(server, unit)], &origin(), "/")
        .unwrap();
    loop {
        let presentation = call.next(&**server).await.unwrap();
        let answer = server.take(presentation.credential(), unit);
        if call.answered(presentation, answer).await.unwrap() {
            return call;
        }
    }
}

/// Protects: what a stream has received is collected at the stream's own price, not at that of the
/// call that signs next, and no deposit is topped up for more.
#[tokio::test]
async fn a_call_signs_for_a_stream_at_the_streams_price() {
    // The stream's price, the call's, and how many events the stream has not paid for yet.
    for (stream, other, owed) in [(1, 100, 5), (1, 100, 0), (100, 1, 2), (100, 1, 0)] {
        let server = Server::new(1, 400);
        let wallet = Coins::new(&server.chain);
        let sessions = sessions(&wallet, &memory(), 10_000);
        let streaming = call(&sessions, &server, stream).await;
        let counter = streaming.counter();
        // The first was paid for with the call.
        for _ in 0..=owed {
            counter.event();
        }
        let done = call(&sessions, &server, other).await;
        let due = stream * (owed + 1) + other;
        let channel = sessions.channels().await.unwrap().remove(0);
        let case = format!("{stream}, {other}, {owed}");
        assert_eq!(channel.due, coins(due), "{case}");
        assert_eq!(wallet.most_signed(), due, "{case}");
        assert_eq!(server.chain.only().1.deposit, 400, "{case}");
        drop((streaming, done));
    }
}

/// Protects: a stream that sends what nobody asked for is not paid by the calls beside it beyond
/// what one call may cost.
#[tokio::test]
async fn others_pay_no_more_for_a_stream_than_it_may_cost() {
    let server = Server::new(1, 100);
    let wallet = Coins::new(&server.chain);
    let limit = DepositLimit::new("coin", coins(100)).per_call(coins(5));
    let sessions = Sessions::new(budget(100), memory())
        .wallet(wallet.clone())
        .limit(limit);
    let flooding = call(&sessions, &server, 1).await;
    let counter = flooding.counter();
    for _ in 0..50 {
        counter.event();
    }
    let done = call(&sessions, &server, 1).await;
    assert_eq!(wallet.most_signed(), 5 + 1);
    drop((flooding, done));
}
