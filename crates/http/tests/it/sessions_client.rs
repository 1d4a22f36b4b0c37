//! Requests and event streams that are paid from a session, with a server written for the test.

use std::{sync::atomic::Ordering, time::Duration};

use farebox_client::session::SessionError;
use farebox_http::{EventStream, PayOptions, ReceiptExt, SessionCallError};
use http::HeaderValue;

use crate::{
    shop::{Running, Script, coins, open, open_with},
    support::PATIENCE,
};

async fn all(stream: &mut EventStream) -> (u32, Option<SessionCallError>) {
    let mut events = 0;
    while let Some(event) = stream.recv().await {
        match event {
            Ok(_) => events += 1,
            Err(error) => return (events, Some(error)),
        }
    }
    (events, None)
}

/// Protects: plain requests: 402, deposit, retry, then vouchers at once, a top-up, and a close that
/// brings the rest back.
#[tokio::test]
async fn requests_are_paid_from_a_session() {
    let shop = open(Script::Honest(0), 30).await;
    for n in 1..=15 {
        let response = shop.client.send(shop.get("/joke")).await.unwrap();
        assert_eq!(response.receipt().unwrap().extra["spent"], n.to_string());
        assert_eq!(response.text().await.unwrap(), "ha");
    }
    let (id, books) = shop.books();
    assert_eq!((books.spent, books.accepted, books.deposit), (15, 15, 20));
    let asked = shop.shop.asked.load(Ordering::SeqCst);
    assert_eq!(
        asked, 2,
        "the opening's challenge, and one for all vouchers"
    );
    let closed = shop.client.close_all().await.unwrap();
    assert_eq!(closed.len(), 1);
    assert_eq!((closed[0].spent, closed[0].refunded), (coins(15), coins(5)));
    assert_eq!(closed[0].channel, id);
    assert_eq!(shop.sessions().budget().spent("coin"), coins(15));
}

/// Protects: a stream is paid event by event while it is read, over top-ups, and its receipt is
/// checked and kept.
#[tokio::test]
async fn a_stream_is_paid_as_it_comes() {
    let shop = open(Script::Honest(150), 1_000).await;
    let mut stream = shop.client.events(shop.get("/stream")).await.unwrap();
    let first = stream.recv().await.unwrap().unwrap();
    assert_eq!(first.data, "token 1");
    let (rest, error) = all(&mut stream).await;
    assert!(error.is_none(), "{error:?}");
    assert_eq!(rest, 149);
    assert_eq!(stream.receipt().unwrap().extra["spent"], "150");
    let (_, books) = shop.books();
    assert_eq!((books.spent, shop.wallet.most_signed()), (150, 150));
    assert_eq!(shop.wallet.vouchers.load(Ordering::SeqCst), 149);
    // The next one goes on where this one ended.
    let mut stream = shop.client.events(shop.get("/stream")).await.unwrap();
    assert_eq!(all(&mut stream).await.0, 150);
    assert_eq!(shop.books().1.spent, 300);
    let closed = &shop.client.close_all().await.unwrap()[0];
    assert_eq!(closed.spent, coins(300));
}

/// Protects: what a request says it accepts is all that it is paid by, whatever paid for the one
/// before it.
#[tokio::test]
async fn a_request_that_accepts_no_session_is_paid_from_none() {
    let shop = open(Script::Honest(0), 30).await;
    let other = || {
        let mut request = shop.get("/joke");
        let charges = HeaderValue::from_static("coins/charge, coins/session;q=0");
        request.headers_mut().insert("accept-payment", charges);
        request
    };
    for spent in 0..3 {
        let error = shop.client.send(other()).await.unwrap_err();
        let nothing = matches!(
            &error,
            SessionCallError::Session(SessionError::NothingPayable(_))
        );
        assert!(nothing, "{error}");
        assert_eq!(shop.wallet.most_signed(), spent);
        shop.client.send(shop.get("/joke")).await.unwrap();
    }
}

/// Protects: where streams hold the balance, the call waits, pays nothing for being told so, and is
/// served by what it had signed.
#[tokio::test]
async fn a_balance_that_streams_hold_is_waited_for() {
    let shop = open(Script::Honest(0), 10).await;
    shop.client.send(shop.get("/joke")).await.unwrap();
    shop.shop.busy.store(2, Ordering::SeqCst);
    let response = shop.client.send(shop.get("/joke")).await.unwrap();
    assert_eq!(response.text().await.unwrap(), "ha");
    let (_, books) = shop.books();
    assert_eq!((books.spent, books.accepted, books.deposit), (2, 2, 10));
    // Who does not want to wait that long hears of it, and owes nothing either.
    let options = PayOptions::default().max_wait(Duration::from_millis(500));
    let hasty = shop.client.clone().options(options);
    shop.shop.busy.store(1, Ordering::SeqCst);
    let busy = hasty.send(shop.get("/joke")).await.unwrap_err();
    assert!(
        matches!(&busy, SessionCallError::Session(SessionError::Busy { .. })),
        "{busy}"
    );
    shop.client.send(shop.get("/joke")).await.unwrap();
    let closed = shop.client.close_all().await.unwrap();
    assert_eq!((shop.wallet.most_signed(), closed[0].spent), (3, coins(3)));
}

/// Protects: signing ahead saves round trips and costs no more than was spent.
#[tokio::test]
async fn signing_ahead_saves_messages() {
    let shop = open(Script::Honest(100), 1_000).await;
    let sessions = shop.sessions().clone().ahead(20);
    let client = farebox_http::SessionClient::new(reqwest::Client::new(), sessions);
    let mut stream = client.events(shop.get("/stream")).await.unwrap();
    assert_eq!(all(&mut stream).await.0, 100);
    assert!(shop.wallet.vouchers.load(Ordering::SeqCst) <= 6);
    assert!(shop.wallet.most_signed() <= 120);
    let closed = &client.close_all().await.unwrap()[0];
    assert_eq!(closed.spent, coins(100));
}

/// Protects: streams and requests at once share the channel and are all served.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn streams_at_once_share_one_channel() {
    let shop = open(Script::Honest(30), 10_000).await;
    let mut calls = tokio::task::JoinSet::new();
    for n in 0..16 {
        let client = shop.client.clone();
        let (stream, joke) = (shop.get("/stream"), shop.get("/joke"));
        calls.spawn(async move {
            if n % 2 == 0 {
                let mut stream = client.events(stream).await.unwrap();
                let (events, error) = all(&mut stream).await;
                assert!(error.is_none(), "{error:?}");
                assert_eq!(events, 30);
            } else {
                for _ in 0..10 {
                    let again = joke.try_clone().unwrap();
                    assert!(client.send(again).await.unwrap().status().is_success());
                }
            }
        });
    }
    while let Some(done) = calls.join_next().await {
        done.unwrap();
    }
    let (_, books) = shop.books();
    assert_eq!(books.spent, 8 * 30 + 8 * 10);
    assert!(shop.wallet.most_signed() <= books.spent + 16);
}

/// Protects: a resource that knows no POST gets its payment messages by HEAD.
#[tokio::test]
async fn a_resource_without_post_is_paid() {
    let shop = open_with(Script::Honest(25), 1_000, true).await;
    let mut stream = shop.client.events(shop.get("/stream")).await.unwrap();
    let (events, error) = all(&mut stream).await;
    assert!(error.is_none(), "{error:?}");
    assert_eq!(events, 25);
    shop.client.close_all().await.unwrap();
}

/// Protects: a stream that is dropped ends, and what it did not deliver is not due.
#[tokio::test]
async fn a_dropped_stream_costs_what_it_delivered() {
    let shop = open(Script::Honest(100_000), 1_000).await;
    let mut stream = shop.client.events(shop.get("/stream")).await.unwrap();
    for _ in 0..5 {
        stream.recv().await.unwrap().unwrap();
    }
    drop(stream);
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        let channel = &shop.sessions().channels().await.unwrap()[0];
        // What was under way when it was dropped may have come too, but no more than may wait.
        if channel.due <= coins(45) && shop.shop.managed.load(Ordering::SeqCst) > 3 {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "{channel:?}");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

/// Protects: a stream that is not read while it pays keeps nobody from the channel.
#[tokio::test]
async fn a_stream_that_nobody_reads_blocks_no_close() {
    let shop = open(Script::Stalls, 1_000).await;
    let mut stream = shop.client.events(shop.get("/stream")).await.unwrap();
    assert_eq!(stream.recv().await.unwrap().unwrap().data, "token 1");
    let deadline = std::time::Instant::now() + PATIENCE;
    while shop.shop.managed.load(Ordering::SeqCst) == 0 {
        assert!(std::time::Instant::now() < deadline, "it pays");
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    // It is answered once the close waits for it, so that nothing else is paid before.
    let closing = tokio::time::timeout(PATIENCE, shop.client.close_all());
    let (closed, ()) = tokio::join!(biased; closing, async { shop.shop.gate.add_permits(1) });
    let closed = closed.expect("it ends").unwrap();
    assert_eq!((closed[0].spent, closed[0].refunded), (coins(1), coins(9)));
    assert_eq!(shop.wallet.most_signed(), 2);
    // What came is there when it is read.
    assert_eq!(stream.recv().await.unwrap().unwrap().data.len(), 64 * 1024);
}

/// Protects: a deposit whose answer got lost is presented again until it is known.
#[tokio::test]
async fn a_lost_answer_to_a_deposit_is_asked_for_again() {
    let shop = open(Script::Honest(0), 30).await;
    shop.shop.server.lose_after.store(1, Ordering::SeqCst);
    let response = shop.client.send(shop.get("/joke")).await.unwrap();
    assert!(response.status().is_success());
    assert_eq!(shop.shop.server.chain.opens(), 1);
    // Of a voucher it is left to the caller, since the request may have been served.
    shop.shop.server.lose_before.store(1, Ordering::SeqCst);
    let lost = shop.client.send(shop.get("/joke")).await;
    assert!(matches!(lost, Err(SessionCallError::Lost(_))));
    shop.client.send(shop.get("/joke")).await.unwrap();
    assert_eq!(shop.shop.server.chain.opens(), 1);
}

async fn liar(script: &str, max_deposit: u128) -> (Running, u32, SessionCallError) {
    let shop = open(Script::Fixed(script.to_owned()), max_deposit).await;
    let mut stream = shop.client.events(shop.get("/stream")).await.unwrap();
    let reading = all(&mut stream);
    let reading = tokio::time::timeout(PATIENCE, reading);
    let (events, error) = reading.await.expect("it ends");
    (shop, events, error.expect("it is noticed"))
}

fn need(required: &str) -> String {
    format!(
        "event: payment-need-voucher\ndata: {{\"channelId\":\"{{channel}}\",\"requiredCumulative\":\
         \"{required}\",\"acceptedCumulative\":\"0\",\"deposit\":\"10\"}}\n\n"
    )
}

/// Protects: whatever a stream says, no more is signed than what it delivered and one step.
#[tokio::test]
async fn lying_streams_get_one_step() {
    let event = "data: x\n\n";
    for (name, script, most) in [
        ("asks for all", format!("{event}{}", need("10")), 1),
        (
            "asks past the deposit",
            format!("{event}{}", need("1000")),
            1,
        ),
        ("asks for nonsense", format!("{event}{}", need("-1")), 1),
        (
            "asks for ever",
            format!("{event}{}", need("2").repeat(5_000)),
            2,
        ),
        (
            "asks less and less",
            format!("{event}{}", need("0").repeat(5_000)),
            2,
        ),
        (
            "another channel",
            format!("{event}{}", need("2").replace("{channel}", "c77")),
            1,
        ),
        (
            "no JSON",
            "event: payment-need-voucher\ndata: {\n\n".to_owned(),
            1,
        ),
        (
            "gives up",
            "event: session-timeout\ndata: {}\n\n".to_owned(),
            1,
        ),
    ] {
        let (shop, _, error) = liar(&script, 1_000).await;
        assert!(shop.wallet.most_signed() <= most, "{name}: {error}");
        assert_eq!(shop.shop.server.chain.only().1.deposit, 10, "{name}");
    }
}

/// Protects: a flood of events is bounded by what the channel may hold, and an endless event by the
/// limit on events.
#[tokio::test]
async fn floods_are_bounded() {
    let mut flood = "data: x\n\n".repeat(200);
    for required in 2..200 {
        flood.push_str(&need(&required.to_string()));
        flood.push_str("data: y\n\n");
    }
    flood.push_str("event: session-timeout\ndata: {}\n\n");
    let (shop, _, error) = liar(&flood, 25).await;
    assert!(shop.wallet.most_signed() <= 25, "{error}");
    assert!(shop.shop.server.chain.only().1.deposit <= 25);
    let endless = format!("data: {}", "x".repeat(2 * 1024 * 1024));
    let (_, _, error) = liar(&endless, 25).await;
    assert!(
        matches!(error, SessionCallError::TooLarge { .. }),
        "{error}"
    );
}

/// Protects: a forged terminal receipt is reported, and text in an event's data is no receipt.
#[tokio::test]
async fn forged_receipts_are_reported() {
    let receipt = |accepted: u32, spent: u32| {
        format!(
            "event: payment-receipt\ndata: {{\"method\":\"coins\",\"status\":\"success\",\
             \"reference\":\"{{channel}}\",\"timestamp\":\"2026-01-01T00:00:00Z\",\"channelId\":\
             \"{{channel}}\",\"acceptedCumulative\":\"{accepted}\",\"spent\":\"{spent}\"}}\n\n"
        )
    };
    let (_, _, error) = liar(&format!("data: x\n\n{}", receipt(9, 1)), 100).await;
    let session = |error| match error {
        SessionCallError::Session(error) => error,
        other => panic!("{other}"),
    };
    assert!(matches!(session(error), SessionError::FalseReceipt { .. }));
    let (_, events, error) = liar(&format!("data: x\n\n{}", receipt(1, 7)), 100).await;
    assert_eq!(events, 1);
    assert!(matches!(session(error), SessionError::Overcharged { .. }));
    let hidden = format!("data: x\ndata: {}", receipt(9, 9).replace('\n', " "));
    let (_, events, _) = liar(&format!("{hidden}\n\n{}", need("99")), 100).await;
    assert_eq!(events, 1, "it is text");
}

/// Protects: what is no stream is given back, paid and served.
#[tokio::test]
async fn what_is_no_stream_is_given_back() {
    let shop = open(Script::Honest(0), 30).await;
    let refused = shop.client.events(shop.get("/joke")).await;
    let Err(SessionCallError::NotEvents(response)) = refused else {
        panic!("it is no stream");
    };
    assert_eq!(response.text().await.unwrap(), "ha");
}
