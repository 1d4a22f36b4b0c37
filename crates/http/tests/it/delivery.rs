//! Money moves once and the resource is served once, whatever goes wrong in between.

use std::{
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};

use axum::{
    body::Body,
    http::{Request, header::AUTHORIZATION},
    middleware::{Next, from_fn},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};
use tower::ServiceExt;

use crate::support::{Answer, PATIENCE, Shop, pay, serve};

/// Protects: of 64 callers with one credential one is served, and money moves once.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_of_many_parallel_callers_is_served() {
    for rail in ["token", "prepaid"] {
        let shop = Shop::open().await;
        let challenge = shop.challenge("/joke", rail).await;
        let header = pay(&challenge, "good-1").to_header().unwrap();
        let (client, url) = (reqwest::Client::new(), shop.url("/joke"));
        let mut callers = JoinSet::new();
        for _ in 0..64 {
            let request = client.get(&url).header(AUTHORIZATION, &header);
            callers.spawn(Answer::of(request));
        }
        let answers = callers.join_all().await;
        let with = |status| answers.iter().filter(|a| a.status == status).count();
        assert_eq!(with(200), 1, "{rail}");
        assert_eq!(
            with(403) + with(503),
            63,
            "the others are told to wait or that it is spent"
        );
        assert_eq!(shop.calls(), 1);
        assert_eq!(shop.moved(), usize::from(rail == "token"));
        let late = shop.get("/joke", &pay(&challenge, "good-1")).await;
        assert_eq!(
            (late.status, late.kind().as_str()),
            (403, "verification-failed")
        );
    }
}

/// Protects: who paid and got a 500 collects with the same credential, at no further charge.
#[tokio::test]
async fn a_failed_handler_gives_the_payment_back() {
    let shop = Shop::open().await;
    for (n, rail) in ["token", "prepaid"].into_iter().enumerate() {
        let credential = pay(&shop.challenge("/joke", rail).await, "good-1");
        for status in [500, 404] {
            shop.desk.status.store(status, SeqCst);
            assert_eq!(shop.get("/joke", &credential).await.status, status);
        }
        shop.desk.status.store(200, SeqCst);
        let answer = shop.get("/joke", &credential).await;
        assert_eq!(
            (answer.status, answer.receipt().method.as_str()),
            (200, rail)
        );
        assert_eq!(shop.get("/joke", &credential).await.status, 403);
        assert_eq!(shop.calls(), 3 * (n + 1));
    }
    assert_eq!(shop.moved(), 1);
}

/// Protects: a redirect is service, and has no receipt.
#[tokio::test]
async fn a_redirect_is_delivered_without_a_receipt() {
    let shop = Shop::open().await;
    let credential = pay(&shop.challenge("/joke", "token").await, "good-1");
    shop.desk.status.store(303, SeqCst);
    assert_eq!(shop.get("/joke", &credential).await.status, 303);
    assert_eq!(shop.get("/joke", &credential).await.status, 403);
}

/// Protects: a client that hangs up while money moves cannot stop it, and collects later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disconnect_during_settlement_loses_nothing() {
    let shop = Shop::open().await;
    let credential = pay(&shop.challenge("/joke", "token").await, "good-1");
    shop.bank.held.store(true, SeqCst);
    let open = Arc::new(());
    let held = open.clone();
    let router = shop
        .router()
        .layer(from_fn(move |request: Request<Body>, next: Next| {
            let held = held.clone();
            async move {
                let response = next.run(request).await;
                drop(held);
                response
            }
        }));
    let idle = Arc::strong_count(&open);
    let mut socket = TcpStream::connect(serve(router).await).await.unwrap();
    let header = credential.to_header().unwrap();
    let text = format!("GET /joke HTTP/1.1\r\nhost: shop\r\nauthorization: {header}\r\n\r\n");
    socket.write_all(text.as_bytes()).await.unwrap();
    tokio::time::timeout(PATIENCE, shop.bank.begun.notified())
        .await
        .unwrap();
    drop(socket);
    // Until the server has noticed, and dropped what it was doing for the request.
    shop.until(|_| Arc::strong_count(&open) == idle).await;
    shop.bank.held.store(false, SeqCst);
    shop.bank.release.notify_one();
    shop.until(|shop| shop.moved() == 1).await;
    let mut answer = shop.get("/joke", &credential).await;
    // The settlement may be a write away from being recorded.
    while answer.status == 503 {
        answer = shop.get("/joke", &credential).await;
    }
    assert_eq!(answer.status, 200);
    assert_eq!((shop.calls(), shop.moved()), (1, 1));
}

/// Protects: a slow settlement is 503 at the deadline, goes on, and can then be collected.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_settlement_goes_on_after_the_answer() {
    let shop = Shop::waiting(Duration::from_millis(300)).await;
    let credential = pay(&shop.challenge("/joke", "token").await, "good-1");
    shop.bank.held.store(true, SeqCst);
    assert_eq!(shop.get("/joke", &credential).await.status, 503);
    shop.bank.held.store(false, SeqCst);
    shop.bank.release.notify_one();
    shop.until(|shop| shop.moved() == 1).await;
    while shop.get("/joke", &credential).await.status == 503 {}
    assert_eq!((shop.calls(), shop.moved()), (1, 1));
}

/// Protects: the handler gets the body that was paid for, and no other body can be sent with the
/// credential.
#[tokio::test]
async fn a_body_is_bound_to_its_challenge() {
    let shop = Shop::open().await;
    let challenge = shop.challenge("/ask", "token").await;
    assert!(challenge.digest.as_ref().unwrap().matches(b"why?"));
    let header = pay(&challenge, "good-1").to_header().unwrap();
    let post = |body: &'static str| {
        let request = reqwest::Client::new().post(shop.url("/ask")).body(body);
        Answer::of(request.header(AUTHORIZATION, &header))
    };
    for other in ["how?", ""] {
        let answer = post(other).await;
        answer.is_refused("invalid-challenge", &challenge);
        let fresh = answer.challenge("token").digest;
        assert_eq!(
            fresh.is_some(),
            !other.is_empty(),
            "the fresh one binds the body at hand"
        );
    }
    assert_eq!(post("why?").await.body, "token|why?");
    assert_eq!((shop.calls(), shop.moved()), (1, 1));
}

/// Protects: a body over the limit is refused before anything is paid, announced or not.
#[tokio::test]
async fn large_bodies_are_refused_before_payment() {
    let shop = Shop::open().await;
    let limit = farebox_http::server::BODY_LIMIT;
    let challenge = shop.challenge("/ask", "token").await;
    let header = pay(&challenge, "good-1").to_header().unwrap();
    let send = async |body: Body| {
        let request = Request::post("/ask")
            .header(AUTHORIZATION, &header)
            .body(body)
            .unwrap();
        Answer::of_response(shop.router().oneshot(request).await.unwrap())
            .await
            .status
    };
    assert_eq!(send(Body::from(vec![b'x'; limit + 1])).await, 413);
    assert_eq!(send(Body::new(Chunks(limit / 65536 + 1))).await, 413);
    assert_eq!((shop.calls(), shop.moved()), (0, 0));
    assert_eq!(
        send(Body::new(Chunks(limit / 65536))).await,
        402,
        "it fits, and is another body"
    );
    // Announced over a socket: answered without a byte of it.
    let mut socket = TcpStream::connect(shop.address).await.unwrap();
    let text = format!(
        "POST /ask HTTP/1.1\r\nhost: shop\r\ncontent-length: {}\r\n\r\n",
        limit + 1
    );
    socket.write_all(text.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    socket.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 413");
}

/// So many chunks of 64 KiB, of unannounced length.
struct Chunks(usize);

impl http_body::Body for Chunks {
    type Data = bytes::Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<bytes::Bytes>, Self::Error>>> {
        std::task::Poll::Ready(self.0.checked_sub(1).map(|left| {
            self.0 = left;
            Ok(http_body::Frame::data(bytes::Bytes::from_static(
                &[b'x'; 65536],
            )))
        }))
    }
}

/// Protects: the handler cannot log what pays, and other credentials reach it.
#[tokio::test]
async fn the_handler_never_sees_the_credential() {
    let shop = Shop::open().await;
    let header = pay(&shop.challenge("/joke", "token").await, "good-1")
        .to_header()
        .unwrap();
    let request = reqwest::Client::new().get(shop.url("/joke"));
    let request = request.bearer_auth("me").header(AUTHORIZATION, header);
    assert_eq!(Answer::of(request).await.status, 200);
    let seen = shop.desk.seen.lock().unwrap();
    let values: Vec<_> = seen[0].get_all(AUTHORIZATION).iter().collect();
    assert_eq!(values, ["Bearer me"]);
}
