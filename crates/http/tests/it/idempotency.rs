//! A reply that got lost is given again under its `Idempotency-Key`: one payment, one handler run.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    http::{HeaderMap, Request, StatusCode, header::AUTHORIZATION},
    response::{AppendHeaders, IntoResponse, Response},
    routing::post,
};
use farebox_core::wire::{Challenge, Credential};
use farebox_http::{PayExt, PayOptions, PaymentLayer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tower::ServiceExt;

use crate::support::{Answer, Shop, pay, serve};

const KEY: &str = "\"8e03978e-40d5-43e8-bc93-6894a57f9324\"";

/// A route whose handler answers as it is told to, and counts.
struct Desk {
    shop: Shop,
    router: Router,
    calls: Arc<AtomicUsize>,
}

impl Desk {
    async fn new(answer: fn(Bytes) -> Response) -> Self {
        let shop = Shop::open().await;
        let layer = PaymentLayer::new(shop.gate("POST /order")).reply_limit(64);
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = calls.clone();
        let handler = move |body: Bytes| {
            counted.fetch_add(1, SeqCst);
            async move { answer(body) }
        };
        let router = Router::new().route("/order", post(handler).route_layer(layer));
        Self {
            shop,
            router,
            calls,
        }
    }

    async fn send(&self, body: &'static str, headers: &[(&str, &str)]) -> Answer {
        let mut request = Request::post("/order").body(Body::from(body)).unwrap();
        for (name, value) in headers {
            let name: axum::http::HeaderName = name.parse().unwrap();
            request.headers_mut().append(name, value.parse().unwrap());
        }
        Answer::of_response(self.router.clone().oneshot(request).await.unwrap()).await
    }

    async fn challenge(&self, body: &'static str) -> Challenge {
        self.send(body, &[]).await.challenge("token")
    }

    async fn order(&self, credential: &Credential, body: &'static str, key: &str) -> Answer {
        let credential = credential.to_header().unwrap();
        let mut headers = vec![(AUTHORIZATION.as_str(), credential.as_str())];
        if !key.is_empty() {
            headers.push(("idempotency-key", key));
        }
        self.send(body, &headers).await
    }

    fn calls(&self) -> usize {
        self.calls.load(SeqCst)
    }
}

fn created(body: Bytes) -> Response {
    let headers = AppendHeaders([
        ("location", "/orders/7"),
        ("x-several", "1"),
        ("x-several", "2"),
        ("cache-control", "max-age=60"),
        ("set-cookie", "session=secret"),
        ("connection", "x-hop"),
        ("x-hop", "1"),
        ("payment-receipt", "forged"),
    ]);
    (StatusCode::CREATED, headers, body).into_response()
}

/// Protects: the same request under the same key gets the same response and receipt, and the
/// handler does not run again.
#[tokio::test]
async fn a_repeated_request_gets_the_recorded_response() {
    let desk = Desk::new(created).await;
    let credential = pay(&desk.challenge("tea").await, "good-1");
    let first = desk.order(&credential, "tea", KEY).await;
    assert_eq!((first.status, first.body.as_str()), (201, "tea"));
    assert_eq!(first.header("idempotent-replayed"), "");
    // Without quotes it is the same key.
    for key in [KEY, KEY.trim_matches('"')] {
        let again = desk.order(&credential, "tea", key).await;
        assert_eq!((again.status, again.body.as_str()), (201, "tea"));
        assert_eq!(again.header("idempotent-replayed"), "true");
        assert_eq!(again.header("location"), "/orders/7");
        let several: Vec<_> = again.headers.get_all("x-several").iter().collect();
        assert_eq!(several, ["1", "2"]);
        assert_eq!(again.header("cache-control"), "private, max-age=60");
        assert_eq!(
            again.header("payment-receipt"),
            first.header("payment-receipt")
        );
        for gone in ["set-cookie", "connection", "x-hop"] {
            assert!(!again.headers.contains_key(gone), "{gone}");
        }
    }
    assert_eq!((desk.calls(), desk.shop.moved()), (1, 1));
}

/// Protects: a key is for one request, and a replay without it stays refused.
#[tokio::test]
async fn another_request_under_the_key_is_a_conflict() {
    let desk = Desk::new(created).await;
    let credential = pay(&desk.challenge("tea").await, "good-1");
    assert_eq!(desk.order(&credential, "tea", KEY).await.status, 201);
    let other = desk.order(&credential, "coffee", KEY).await;
    assert_eq!(other.status, 422, "{other:?}");
    assert_eq!(desk.order(&credential, "tea", "").await.status, 403);
    assert_eq!(desk.order(&credential, "tea", "other").await.status, 403);
    // A key of another payer's is another key.
    let mine = pay(&desk.challenge("coffee").await, "good-2");
    let served = desk.order(&mine, "coffee", KEY).await;
    assert_eq!((served.status, served.body.as_str()), (201, "coffee"));
    assert_eq!((desk.calls(), desk.shop.moved()), (2, 2));
}

/// Protects: who could not be replayed to is told so before money moves.
#[tokio::test]
async fn an_unusable_key_is_a_bad_request() {
    let desk = Desk::new(created).await;
    let credential = pay(&desk.challenge("tea").await, "good-1");
    for bad in ["", "\"", "a b", "a,b"] {
        let header = credential.to_header().unwrap();
        for headers in [
            &[("idempotency-key", bad)][..],
            &[("idempotency-key", bad), ("authorization", &header)],
        ] {
            let answer = desk.send("tea", headers).await;
            assert_eq!(
                (answer.status, answer.kind().as_str()),
                (400, "bad-request")
            );
            assert!(answer.body.contains("Idempotency-Key"));
        }
    }
    assert_eq!((desk.calls(), desk.shop.moved()), (0, 0));
}

/// Two chunks whose length nobody announces.
fn streamed(_: Bytes) -> Response {
    struct Stream(u8);
    impl http_body::Body for Stream {
        type Data = Bytes;
        type Error = Infallible;
        fn poll_frame(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
            std::task::Poll::Ready(self.0.checked_sub(1).map(|left| {
                self.0 = left;
                Ok(http_body::Frame::data(Bytes::from_static(b"tick ")))
            }))
        }
    }
    Response::new(Body::new(Stream(2)))
}

fn long(_: Bytes) -> Response {
    "x".repeat(65).into_response()
}

fn redirect(_: Bytes) -> Response {
    let headers = [
        ("location", "/orders/7"),
        ("cache-control", "public, max-age=60"),
        ("cdn-cache-control", "max-age=60"),
    ];
    (StatusCode::PERMANENT_REDIRECT, headers).into_response()
}

/// Protects: what streams or is too long arrives whole and is not kept; repeating it is refused,
/// never charged.
#[tokio::test]
async fn what_is_not_kept_is_refused_as_used() {
    for (handler, length) in [(streamed as fn(Bytes) -> Response, 10), (long, 65)] {
        let desk = Desk::new(handler).await;
        let credential = pay(&desk.challenge("tea").await, "good-1");
        let first = desk.order(&credential, "tea", KEY).await;
        assert_eq!((first.status, first.body.len()), (200, length));
        let again = desk.order(&credential, "tea", KEY).await;
        assert_eq!(
            (again.status, again.kind().as_str()),
            (403, "verification-failed")
        );
        assert_eq!((desk.calls(), desk.shop.moved()), (1, 1));
    }
}

/// Protects: a redirect is repeated like any other service; a failure is not kept at all.
#[tokio::test]
async fn redirects_are_kept_and_failures_are_not() {
    let desk = Desk::new(redirect).await;
    let credential = pay(&desk.challenge("tea").await, "good-1");
    for _ in 0..2 {
        let answer = desk.order(&credential, "tea", KEY).await;
        assert_eq!(
            (answer.status, answer.header("location")),
            (308, "/orders/7")
        );
        // A shared cache would hand it out unpaid.
        assert_eq!(answer.header("cache-control"), "private, max-age=60");
        assert_eq!(answer.header("cdn-cache-control"), "");
    }
    assert_eq!(desk.calls(), 1);
    let shop = Shop::open().await;
    let credential = pay(&shop.challenge("/joke", "token").await, "good-1");
    let get = || {
        let request = reqwest::Client::new().get(shop.url("/joke"));
        let request = request.header("idempotency-key", KEY);
        Answer::of(request.header(AUTHORIZATION, credential.to_header().unwrap()))
    };
    shop.desk.status.store(500, SeqCst);
    assert_eq!(get().await.status, 500);
    shop.desk.status.store(200, SeqCst);
    let served = get().await;
    assert_eq!(
        (served.status, served.header("idempotent-replayed")),
        (200, "")
    );
    assert_eq!(get().await.header("idempotent-replayed"), "true");
    assert_eq!((shop.calls(), shop.moved()), (2, 1));
}

/// A body that says how long it is, and breaks off.
fn broken(_: Bytes) -> Response {
    struct Broken;
    impl http_body::Body for Broken {
        type Data = Bytes;
        type Error = std::io::Error;
        fn poll_frame(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, std::io::Error>>> {
            std::task::Poll::Ready(Some(Err(std::io::Error::other("10.0.0.7 hung up"))))
        }
        fn size_hint(&self) -> http_body::SizeHint {
            http_body::SizeHint::with_exact(5)
        }
    }
    Response::new(Body::new(Broken))
}

/// Protects: half a response is neither kept nor counted as service.
#[tokio::test]
async fn a_response_that_breaks_off_is_a_failure() {
    let desk = Desk::new(broken).await;
    let credential = pay(&desk.challenge("tea").await, "good-1");
    for calls in 1..=2 {
        let answer = desk.order(&credential, "tea", KEY).await;
        assert_eq!(
            (answer.status, answer.kind().as_str()),
            (500, "internal-payment-error")
        );
        assert_eq!((desk.calls(), desk.shop.moved()), (calls, 1));
    }
}

/// Passes connections on to `upstream`, and cuts the first that answers with a receipt before its
/// first byte gets through.
async fn cutting(upstream: std::net::SocketAddr) -> (std::net::SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, cuts) = (
        listener.local_addr().unwrap(),
        Arc::new(AtomicUsize::new(0)),
    );
    let counted = cuts.clone();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let cuts = counted.clone();
            tokio::spawn(async move {
                let mut far = TcpStream::connect(upstream).await.unwrap();
                let (mut up, mut down) = ([0; 16384], [0; 16384]);
                loop {
                    tokio::select! {
                        read = near.read(&mut up) => match read {
                            Ok(n) if n > 0 => far.write_all(&up[..n]).await.unwrap(),
                            _ => return,
                        },
                        read = far.read(&mut down) => match read {
                            Ok(n) if n > 0 => {
                                let paid = down[..n].windows(15).any(|w| w == b"payment-receipt");
                                if paid && cuts.fetch_add(1, SeqCst) == 0 {
                                    return;
                                }
                                near.write_all(&down[..n]).await.unwrap();
                            }
                            _ => return,
                        },
                    }
                }
            });
        }
    });
    (address, cuts)
}

/// Protects: a payer whose reply was cut off gets the resource all the same, and pays once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_reply_is_given_again_to_who_paid() {
    for body in ["", "why?"] {
        let shop = Shop::open().await;
        let (address, cuts) = cutting(shop.address).await;
        let client = reqwest::Client::new();
        let request = match body {
            "" => client.get(format!("http://{address}/joke")),
            body => client.post(format!("http://{address}/ask")).body(body),
        };
        let options = PayOptions::default().max_wait(Duration::from_secs(1));
        let purse = shop.purse();
        let response = request.pay_with(&purse, options).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["idempotent-replayed"], "true");
        assert!(response.headers().contains_key("payment-receipt"));
        assert_eq!(response.text().await.unwrap(), format!("token|{body}"));
        assert_eq!(cuts.load(SeqCst), 2, "cut once, then answered");
        assert_eq!((shop.calls(), shop.moved()), (1, 1));
        assert_eq!(shop.bank.minted.load(SeqCst), 1);
    }
}

/// Protects: every presentation of one payment goes under one key, the caller's own if it has one.
#[tokio::test]
async fn the_client_names_its_payment_by_one_key() {
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let heard = seen.clone();
    let shop = Shop::open().await;
    let record = move |request: Request<Body>, next: axum::middleware::Next| {
        heard.lock().unwrap().push(request.headers().clone());
        next.run(request)
    };
    let router = shop.router().layer(axum::middleware::from_fn(record));
    let address = serve(router).await;
    let purse = shop.purse();
    let client = reqwest::Client::new();
    let ask = || client.get(format!("http://{address}/joke"));
    let keys = |headers: &[HeaderMap]| -> Vec<Option<String>> {
        let key = |h: &HeaderMap| Some(h.get("idempotency-key")?.to_str().unwrap().to_owned());
        headers.iter().map(key).collect()
    };
    shop.desk.status.store(500, SeqCst);
    let quick = PayOptions::default()
        .attempts(2)
        .max_wait(Duration::from_secs(1));
    let error = ask().pay_with(&purse, quick.clone()).await.unwrap_err();
    let farebox_http::PayError::OutcomeUnknown(lost) = error else {
        panic!("{error}")
    };
    shop.desk.status.store(200, SeqCst);
    let response = ask().present(lost.payment, quick.clone()).await.unwrap();
    assert_eq!(response.status(), 200);
    let first = keys(&std::mem::take(&mut *seen.lock().unwrap()));
    assert_eq!(first.len(), 4);
    let key = first[1].clone().unwrap();
    assert!(key.starts_with('"') && key.ends_with('"'), "{key}");
    assert_eq!(
        first,
        [
            None,
            Some(key.clone()),
            Some(key.clone()),
            Some(key.clone())
        ]
    );
    ask().pay_with(&purse, quick.clone()).await.unwrap();
    let second = keys(&std::mem::take(&mut *seen.lock().unwrap()));
    assert_ne!(
        second[1].as_ref(),
        Some(&key),
        "another payment, another key"
    );
    let own = ask().header("idempotency-key", "mine");
    own.pay_with(&purse, quick).await.unwrap();
    let third = keys(&std::mem::take(&mut *seen.lock().unwrap()));
    assert_eq!(third, [Some("mine".to_owned()), Some("mine".to_owned())]);
}
