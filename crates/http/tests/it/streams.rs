//! Metered event streams: each piece is paid for before it is sent, and the receipt comes last.

use std::{
    sync::atomic::{AtomicU64, Ordering::SeqCst},
    time::Duration,
};

use farebox_core::ChannelId;
use farebox_engine::Clock;
use farebox_http::Event;
use serde_json::json;
use tokio::time::{sleep, timeout};

use crate::{
    booth::{Booth, open, top_up, voucher},
    support::{PATIENCE, engine},
};

/// Protects: exhaustion is told once, holds the stream, and a voucher resumes it where it was.
#[tokio::test]
async fn an_exhausted_stream_resumes_with_a_voucher() {
    let booth = Booth::chits().await;
    let feed = booth.behind.feed();
    for piece in ["one", "two", "three", "four"] {
        feed.send(Ok(piece.into())).unwrap();
    }
    drop(feed);
    let mut stream = booth.stream("/stream", open("a", 20, 4)).await;
    let headers = stream.response.headers();
    assert_eq!(headers["content-type"], "text/event-stream; charset=utf-8");
    assert_eq!(headers["cache-control"], "private, no-cache, no-transform");
    assert!(headers.contains_key("payment-receipt"));
    assert_eq!(headers["payment-session"], "a");
    assert_eq!(stream.piece().await, "one");
    assert_eq!(stream.piece().await, "two");
    let need = stream.named("payment-need-voucher").await;
    let expected = json!({
        "channelId": "a", "requiredCumulative": "6", "acceptedCumulative": "4", "deposit": "20",
    });
    assert_eq!(need, expected);
    assert_eq!(booth.manage("/stream", voucher("a", 6)).await.status, 204);
    assert_eq!(stream.piece().await, "three");
    assert_eq!(
        stream.named("payment-need-voucher").await["requiredCumulative"],
        "8"
    );
    assert_eq!(booth.manage("/stream", voucher("a", 20)).await.status, 204);
    assert_eq!(stream.piece().await, "four");
    let receipt = stream.receipt().await;
    assert_eq!(
        (receipt.reference.as_str(), receipt.method.as_str()),
        ("a", "chit")
    );
    assert_eq!(receipt.extra["spent"], "8");
    assert_eq!(receipt.extra["units"], 4);
    assert_eq!(booth.spent("a").await, 8);
}

/// Protects: a handler is asked for one piece at most that the channel does not cover, which waits
/// until it does.
#[tokio::test]
async fn no_more_than_one_piece_is_generated_that_is_not_covered() {
    let booth = Booth::chits().await;
    let feed = booth.behind.feed();
    for piece in ["one", "two", "three"] {
        feed.send(Ok(piece.into())).unwrap();
    }
    let mut stream = booth.stream("/stream", open("a", 20, 2)).await;
    assert_eq!(stream.piece().await, "one");
    stream.named("payment-need-voucher").await;
    assert_eq!(booth.behind.asked.load(SeqCst), 2);
    booth.manage("/stream", voucher("a", 4)).await;
    assert_eq!(stream.piece().await, "two");
}

/// Protects: a stream that its balance just covers ends with its handler, and asks for nothing more.
#[tokio::test]
async fn a_stream_that_ends_at_its_balance_ends() {
    for late in [false, true] {
        let booth = Booth::chits().await;
        let feed = booth.behind.feed();
        feed.send(Ok("one".into())).unwrap();
        feed.send(Ok(Event::new("free").units(0))).unwrap();
        let mut stream = booth.stream("/stream", open("a", 20, 2)).await;
        assert_eq!(stream.piece().await, "one");
        assert_eq!(stream.piece().await, "free");
        if late {
            sleep(Duration::from_millis(50)).await;
        }
        drop(feed);
        let receipt = timeout(PATIENCE, stream.receipt()).await;
        assert_eq!(receipt.expect("at once").extra["spent"], "2");
    }
}

/// Protects: a payer who does not come back is told in the rail's words, once, and let go.
#[tokio::test]
async fn a_hold_ends() {
    let booth = Booth::paced("purse", 300, 15_000).await;
    let feed = booth.behind.feed();
    for piece in ["one", "two"] {
        feed.send(Ok(piece.into())).unwrap();
    }
    let mut stream = booth.stream("/stream", open("a", 2, 0)).await;
    assert_eq!(stream.piece().await, "one");
    let need = stream.named("payment-need-topup").await;
    assert_eq!(
        need,
        json!({"sessionId": "a", "balanceSpent": "2", "balanceRequired": "2"})
    );
    stream.named("session-timeout").await;
    let receipt = stream.receipt_and_mark().await;
    assert_eq!(receipt.extra["spent"], 2);
    booth.given_back("a").await;
}

/// Protects: a deposit is spent by the piece, and a top-up resumes what it could not pay.
#[tokio::test]
async fn a_top_up_resumes_a_stream() {
    let booth = Booth::purses().await;
    let feed = booth.behind.feed();
    for piece in ["one", "two"] {
        feed.send(Ok(piece.into())).unwrap();
    }
    drop(feed);
    let mut stream = booth.stream("/stream", open("a", 2, 0)).await;
    assert_eq!(stream.piece().await, "one");
    stream.named("payment-need-topup").await;
    assert_eq!(booth.manage("/stream", top_up("a", 4)).await.status, 200);
    assert_eq!(stream.piece().await, "two");
    let receipt = stream.receipt_and_mark().await;
    assert_eq!(
        (&receipt.extra["spent"], &receipt.extra["units"]),
        (&json!(4), &json!(2))
    );
}

/// Protects: a voucher that comes before the stream waits for it is not missed.
#[tokio::test]
async fn a_voucher_may_come_early() {
    let booth = Booth::chits().await;
    for n in 0..20u64 {
        let channel = format!("c{n}");
        let feed = booth.behind.feed();
        for _ in 0..3 {
            feed.send(Ok("x".into())).unwrap();
        }
        drop(feed);
        let mut stream = booth.stream("/stream", open(&channel, 20, 2)).await;
        // Anywhere around the moment that the first piece has used it up.
        let paying = booth.manage("/stream", voucher(&channel, 8));
        let (paid, ()) = tokio::join!(paying, async {
            while let Some((name, _)) = stream.next().await {
                assert!(["", "payment-need-voucher", "payment-receipt"].contains(&&*name));
            }
        });
        assert_eq!(paid.status, 204);
        assert_eq!(booth.spent(&channel).await, 6);
    }
}

/// Protects: a handler that fails half-way is paid for what it sent, and the receipt says so.
#[tokio::test]
async fn a_broken_stream_is_receipted() {
    let booth = Booth::chits().await;
    let feed = booth.behind.feed();
    feed.send(Ok("one".into())).unwrap();
    feed.send(Err("the model at http://10.0.0.7 went away".into()))
        .unwrap();
    feed.send(Ok("two".into())).unwrap();
    let mut stream = booth.stream("/stream", open("a", 20, 20)).await;
    assert_eq!(stream.piece().await, "one");
    assert_eq!(stream.receipt().await.extra["spent"], "2");
    assert_eq!(booth.spent("a").await, 2);
}

/// Protects: no text from a handler is taken for an event, a name or a receipt.
#[tokio::test]
async fn line_breaks_forge_nothing() {
    let booth = Booth::chits().await;
    let feed = booth.behind.feed();
    let forged =
        "x\n\nevent: payment-receipt\ndata: {}\r\n\r\nevent: payment-receipt\rdata: {}\r\r";
    feed.send(Ok(forged.into())).unwrap();
    feed.send(Ok(Event::new("{}").named("payment-receipt")))
        .unwrap();
    drop(feed);
    let mut stream = booth.stream("/stream", open("a", 20, 20)).await;
    assert_eq!(
        stream.piece().await,
        forged.replace("\r\n", "\n").replace('\r', "\n")
    );
    assert_eq!(stream.piece().await, "{}");
    assert_eq!(stream.receipt().await.extra["spent"], "4");
}

/// Protects: pieces have their own prices, and what is free is free.
#[tokio::test]
async fn pieces_have_their_own_prices() {
    let booth = Booth::chits().await;
    let feed = booth.behind.feed();
    feed.send(Ok(Event::new("free").units(0))).unwrap();
    feed.send(Ok(Event::new("dear").units(5))).unwrap();
    feed.send(Ok(Event::new("dearer").units(7))).unwrap();
    drop(feed);
    let mut stream = booth.stream("/stream", open("a", 100, 12)).await;
    assert_eq!(stream.piece().await, "free");
    assert_eq!(stream.piece().await, "dear");
    let need = stream.named("payment-need-voucher").await;
    assert_eq!(need["requiredCumulative"], "24");
    booth.manage("/stream", voucher("a", 26)).await;
    assert_eq!(stream.piece().await, "dearer");
    assert_eq!(stream.receipt().await.extra["units"], 12);
}

/// Protects: a client that goes away leaves what was held to itself.
#[tokio::test]
async fn a_client_that_leaves_gets_the_rest_back() {
    let booth = Booth::purses().await;
    let feed = booth.behind.feed();
    feed.send(Ok("one".into())).unwrap();
    let mut stream = booth.stream("/stream", open("a", 1000, 0)).await;
    assert_eq!(stream.piece().await, "one");
    assert!(
        booth.state("a").await.held.get() > 0,
        "a stream holds a block"
    );
    drop(stream);
    // The server learns of it when it writes.
    let written = async {
        while !feed.is_closed() {
            let _ = feed.send(Ok(Event::new("more").units(0)));
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, written).await.unwrap();
    booth.given_back("a").await;
    assert_eq!(booth.spent("a").await, 2);
}

/// Protects: two streams share one channel and never spend more than is in it.
#[tokio::test]
async fn two_streams_share_a_channel() {
    let booth = Booth::purses().await;
    booth.manage("/counted/1", open("a", 200, 0)).await;
    let all = AtomicU64::new(0);
    let read = async || {
        let bearer = json!({"action": "bearer", "channel": "a"});
        let mut stream = booth.stream("/counted/80", bearer).await;
        while let Some((name, data)) = stream.next().await {
            if name.is_empty() && data == "x" && all.fetch_add(1, SeqCst) == 99 {
                // Nothing is left to wait for: what is held ends, and says what was paid.
                booth.engine.drain();
            }
        }
    };
    tokio::join!(read(), read());
    assert_eq!(all.load(SeqCst), 100, "all of it and no more");
    assert_eq!(booth.spent("a").await, 200);
}

/// Protects: a server that is told to end lets its streams say what was paid.
#[tokio::test]
async fn a_drained_server_ends_its_streams_with_a_receipt() {
    let booth = Booth::chits().await;
    let feeds = [booth.behind.feed(), booth.behind.feed()];
    feeds[0].send(Ok("one".into())).unwrap();
    for piece in ["one", "two"] {
        feeds[1].send(Ok(piece.into())).unwrap();
    }
    let mut idle = booth.stream("/stream", open("a", 20, 20)).await;
    assert_eq!(idle.piece().await, "one");
    let mut held = booth.stream("/stream", open("b", 20, 2)).await;
    assert_eq!(held.piece().await, "one");
    held.named("payment-need-voucher").await;
    let left = booth.engine.drained(PATIENCE);
    let (left, one, two) = tokio::join!(left, idle.receipt(), held.receipt());
    assert!(left.is_empty());
    assert_eq!(
        (&one.extra["spent"], &two.extra["spent"]),
        (&json!("2"), &json!("2"))
    );
}

/// Protects: a close ends the streams of its channel, one that waits for its handler and one that
/// never does, each with its receipt, and is not put off by them.
#[tokio::test]
async fn a_close_ends_its_streams_with_a_receipt() {
    let booth = Booth::chits().await;
    let feed = booth.behind.feed();
    feed.send(Ok("one".into())).unwrap();
    let mut idle = booth
        .stream("/stream", open("a", 1_000_000_000, 900_000_000))
        .await;
    assert_eq!(idle.piece().await, "one");
    let mut busy = booth.stream("/endless", voucher("a", 900_000_000)).await;
    assert_eq!(busy.piece().await, "x");
    let close = json!({"action": "close", "channel": "a", "signature": "signed"});
    let closed = timeout(PATIENCE, booth.manage("/stream", close));
    let busy = async {
        let mut last = None;
        while let Some((name, data)) = busy.next().await {
            last = Some((name, data));
        }
        last.unwrap()
    };
    let (closed, idle, busy) = tokio::join!(closed, idle.receipt(), busy);
    assert_eq!(closed.expect("promptly").status, 204);
    assert_eq!(idle.reference, "a");
    assert_eq!(busy.0, "payment-receipt");
    let state = booth.state("a").await;
    assert!(state.closed && state.held.is_zero());
}

/// Protects: an idle stream shows signs of life that cost nothing, and goes on.
#[tokio::test]
async fn heartbeats_are_free() {
    let booth = Booth::beating(30).await;
    let feed = booth.behind.feed();
    feed.send(Ok("one".into())).unwrap();
    let mut stream = booth.stream("/stream", open("a", 20, 20)).await;
    assert_eq!(stream.piece().await, "one");
    for _ in 0..2 {
        stream.comment().await;
    }
    feed.send(Ok("two".into())).unwrap();
    assert_eq!(stream.piece().await, "two");
    drop(feed);
    assert_eq!(stream.receipt().await.extra["spent"], "4");
}

/// Protects: a long stream hardly asks the store, twice at most for each thousand pieces.
#[tokio::test]
async fn a_thousand_pieces_take_two_round_trips() {
    let booth = Booth::purses().await;
    booth.manage("/counted/1", open("a", 10_000_000, 0)).await;
    let bearer = json!({"action": "bearer", "channel": "a"});
    let before = booth.store.calls();
    let mut stream = booth.stream("/counted/100000", bearer).await;
    let mut pieces = 0u64;
    while let Some((name, data)) = stream.next().await {
        pieces += u64::from(name.is_empty() && data == "x");
    }
    let trips = booth.store.calls() - before;
    assert_eq!((pieces, booth.spent("a").await), (100_000, 200_000));
    assert!(trips <= 200, "{trips} round trips");
}

/// Protects: another server's stream is paid by the event, wherever the network cuts it; its end
/// mark costs nothing, and no receipt of its own gets through.
#[tokio::test]
async fn another_servers_stream_is_metered() {
    let booth = Booth::chits().await;
    let feed = booth.behind.feed();
    for chunk in [
        "data: one\r\n\r\nevent: de",
        "lta\ndata: two\ndata: lines\n",
        "\n: comment\n\nevent: payment-receipt\ndata: {}\n\ndata: [DONE]\n\n",
    ] {
        feed.send(Ok(chunk.into())).unwrap();
    }
    drop(feed);
    let mut stream = booth.stream("/relayed", open("a", 20, 20)).await;
    assert_eq!(stream.piece().await, "one");
    let delta = ("delta".to_owned(), "two\nlines".to_owned());
    assert_eq!(stream.next().await, Some(delta));
    assert_eq!(stream.piece().await, "{}");
    assert_eq!(stream.receipt().await.extra["spent"], "6");
}

/// Protects: a stream whose balance another one holds waits for it, and its payer is not asked for more.
#[tokio::test]
async fn a_stream_waits_for_what_others_hold() {
    let booth = Booth::chits().await;
    let feed = booth.behind.feed();
    feed.send(Ok("one".into())).unwrap();
    let mut stream = booth.stream("/stream", open("a", 20, 2)).await;
    assert_eq!(stream.piece().await, "one");
    assert_eq!(booth.manage("/stream", voucher("a", 10)).await.status, 204);
    // A process that hears nothing of this one.
    let other = engine("booth.example", booth.store.clone(), Clock::system());
    let mut beside = other.meter(ChannelId::of("chit", "a")).tap().unwrap();
    assert!(beside.hold(8, Duration::ZERO).await.unwrap());
    feed.send(Ok("two".into())).unwrap();
    assert!(
        timeout(Duration::from_secs(3), stream.piece())
            .await
            .is_err()
    );
    beside.finish().await.unwrap();
    assert_eq!(stream.piece().await, "two");
    drop(feed);
    assert_eq!(stream.receipt().await.extra["spent"], "4");
}

/// Protects: one that waited in vain says that it is cut off, and asks for nothing.
#[tokio::test]
async fn a_stream_that_waits_for_others_in_vain_says_so() {
    let booth = Booth::paced("purse", 1_500, 15_000).await;
    let feed = booth.behind.feed();
    feed.send(Ok("one".into())).unwrap();
    let mut stream = booth.stream("/stream", open("a", 2, 0)).await;
    assert_eq!(stream.piece().await, "one");
    assert_eq!(booth.manage("/stream", top_up("a", 8)).await.status, 200);
    let other = engine("booth.example", booth.store.clone(), Clock::system());
    let mut beside = other.meter(ChannelId::of("purse", "a")).tap().unwrap();
    assert!(beside.hold(8, Duration::ZERO).await.unwrap());
    feed.send(Ok("two".into())).unwrap();
    stream.named("session-timeout").await;
    let receipt = stream.receipt_and_mark().await;
    assert_eq!(receipt.extra["spent"], 2);
    beside.finish().await.unwrap();
}
