//! Paying over HTTP: once, to whom was asked, and never again while the outcome is open.

use std::{
    sync::{Arc, Mutex, atomic::Ordering::SeqCst},
    time::Duration,
};

use axum::{
    Router,
    extract::Request,
    http::{HeaderMap, HeaderValue, StatusCode, header::AUTHORIZATION},
    response::{IntoResponse, Redirect, Response},
    routing::any,
};
use farebox_client::ClientError;
use farebox_core::wire::{Amount, BodyDigest, Challenge, CredentialHeader, Receipt, Timestamp};
use farebox_http::{PayError, PayExt, PayMiddleware, PayOptions, ReceiptExt, client::Failure};
use tokio::{io::AsyncReadExt, net::TcpListener};

use crate::{
    script::{Make, Script, challenge, header, script, scripted},
    support::{Shop, serve},
};

fn quick() -> PayOptions {
    PayOptions::default()
        .attempts(3)
        .max_wait(Duration::from_secs(1))
}

fn internal_error() -> Response {
    (StatusCode::INTERNAL_SERVER_ERROR, [("retry-after", "0")]).into_response()
}

/// Protects: the whole way, on each rail, with receipt and books on both sides.
#[tokio::test]
async fn pays_once_and_reads_the_receipt() {
    let shop = Shop::open().await;
    let client = reqwest::Client::new();
    let purse = shop.purse();
    let response = client.get(shop.url("/joke")).pay(&purse).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(
        response.receipt().unwrap().method,
        "token",
        "the server's order"
    );
    let prefers = farebox_core::wire::AcceptPayment::parse("prepaid/*, token/*;q=0.1").unwrap();
    let purse = purse.prefer(prefers);
    let response = client
        .post(shop.url("/ask"))
        .body("why?")
        .pay(&purse)
        .await
        .unwrap();
    assert_eq!(
        response.receipt().unwrap().method,
        "prepaid",
        "the purse's order"
    );
    assert_eq!(response.text().await.unwrap(), "prepaid|why?");
    assert_eq!((shop.calls(), shop.moved()), (2, 2));
    assert_eq!(purse.budget().spent("pts"), Amount::new(10));
}

/// Protects: a free response and a foreign 402 are handed through.
#[tokio::test]
async fn responses_that_ask_for_nothing_are_handed_through() {
    let shop = Shop::open().await;
    let router = Router::new()
        .route("/free", any(|| async { "free" }))
        .route(
            "/other",
            any(|| async {
                (
                    StatusCode::PAYMENT_REQUIRED,
                    [("www-authenticate", "Other x=1")],
                )
            }),
        );
    let address = serve(router).await;
    let client = reqwest::Client::new();
    for (path, status) in [("free", 200), ("other", 402)] {
        let url = format!("http://{address}/{path}");
        let response = client.get(url).pay(&shop.purse()).await.unwrap();
        assert_eq!(response.status(), status);
        assert!(response.receipt().is_none());
    }
    let refused = client
        .get("http://127.0.0.1:1/")
        .pay(&shop.purse())
        .await
        .unwrap_err();
    assert!(matches!(refused, PayError::Request(_)));
    assert_eq!(shop.moved(), 0);
}

/// Protects: a 5xx after paying is answered with the very same credential, and no new payment.
#[tokio::test]
async fn a_5xx_after_paying_is_retried_with_the_same_credential() {
    let shop = Shop::open().await;
    let (script, url) = script(&[internal_error, internal_error]).await;
    let request = reqwest::Client::new().get(url).bearer_auth("replaced");
    let response = request.pay_with(&shop.purse(), quick()).await.unwrap();
    assert_eq!(response.text().await.unwrap(), "served");
    let presented = script.presented.lock().unwrap();
    assert_eq!(presented.len(), 3);
    assert!(presented.iter().all(|value| value == presented[0]));
    assert_eq!(
        (script.asked.load(SeqCst), shop.bank.minted.load(SeqCst)),
        (1, 1)
    );
}

/// Protects: an outcome that stays open keeps its credential, which can be presented later.
#[tokio::test]
async fn an_open_outcome_keeps_the_payment() {
    let shop = Shop::open().await;
    let (script, url) = script(&[internal_error, internal_error, internal_error]).await;
    let client = reqwest::Client::new();
    let purse = shop.purse();
    let error = client
        .get(&url)
        .pay_with(&purse, quick())
        .await
        .unwrap_err();
    let text = format!("{error} {error:?}");
    let PayError::OutcomeUnknown(lost) = error else {
        panic!("{error}")
    };
    assert!(matches!(lost.failure, Failure::Status(status) if status == 500));
    assert!(!text.contains("good-"), "{text}");
    assert_eq!(purse.budget().spent("pts"), Amount::new(5));
    let response = client
        .get(&url)
        .present(lost.payment, quick())
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(script.presented.lock().unwrap().len(), 4);
    assert_eq!(shop.bank.minted.load(SeqCst), 1);
}

/// Protects: a server that asks for a long wait is left alone.
#[tokio::test]
async fn a_long_retry_after_ends_the_call() {
    let shop = Shop::open().await;
    let busy = || (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "3600")]).into_response();
    let (script, url) = script(&[busy]).await;
    let error = reqwest::Client::new()
        .get(url)
        .pay_with(&shop.purse(), quick())
        .await
        .unwrap_err();
    let PayError::OutcomeUnknown(lost) = error else {
        panic!("{error}")
    };
    assert_eq!(lost.retry_after, Some(Duration::from_secs(3600)));
    assert_eq!(script.presented.lock().unwrap().len(), 1);
}

/// Protects: a reply lost on the way is asked for again with the same credential.
#[tokio::test]
async fn a_lost_reply_is_asked_for_again() {
    let shop = Shop::open().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let presented = Arc::new(Mutex::new(Vec::new()));
    let log = presented.clone();
    let end = "\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut text = String::new();
            let mut buffer = [0; 4096];
            while !text.contains("\r\n\r\n") {
                let n = socket.read(&mut buffer).await.unwrap();
                if n == 0 {
                    break;
                }
                text.push_str(std::str::from_utf8(&buffer[..n]).unwrap());
            }
            let line = text
                .lines()
                .find(|line| line.starts_with("authorization: "));
            let answer = match line {
                Some(line) => {
                    let mut log = log.lock().unwrap();
                    log.push(line.to_owned());
                    if log.len() < 3 {
                        String::new()
                    } else {
                        format!("HTTP/1.1 200 OK{end}")
                    }
                }
                None => {
                    let challenge = challenge().to_header().unwrap();
                    format!("HTTP/1.1 402 Pay\r\nwww-authenticate: {challenge}{end}")
                }
            };
            // An empty answer is a connection closed after the request was taken.
            let _ = tokio::io::AsyncWriteExt::write_all(&mut socket, answer.as_bytes()).await;
        }
    });
    let response = reqwest::Client::new()
        .get(url)
        .pay_with(&shop.purse(), quick())
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
    let presented = presented.lock().unwrap();
    assert!(presented.len() == 3 && presented.iter().all(|line| *line == presented[0]));
    assert_eq!(shop.bank.minted.load(SeqCst), 1);
}

/// Protects: a fresh 402 after paying is an error that says why, and is never paid.
#[tokio::test]
async fn a_second_402_is_never_paid() {
    let shop = Shop::open().await;
    shop.bank.declines.store(true, SeqCst);
    let purse = shop.purse();
    let error = reqwest::Client::new()
        .get(shop.url("/joke"))
        .pay(&purse)
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("the token was revoked"),
        "{error}"
    );
    assert!(matches!(error, PayError::NotAccepted(_)));
    assert_eq!(shop.bank.minted.load(SeqCst), 1);
    assert_eq!(
        purse.budget().spent("pts"),
        Amount::new(5),
        "a server's word gives nothing back"
    );
}

/// Protects: other 4xx after paying are the caller's to read.
#[tokio::test]
async fn a_4xx_after_paying_is_a_response() {
    let shop = Shop::open().await;
    let (_, url) = script(&[|| StatusCode::FORBIDDEN.into_response()]).await;
    let response = reqwest::Client::new()
        .get(url)
        .pay(&shop.purse())
        .await
        .unwrap();
    assert_eq!(response.status(), 403);
}

/// Protects: the credential goes to the URL that asked, on the same origin; another origin is
/// never paid, nor is a method that a redirect may have changed.
#[tokio::test]
async fn redirects_are_paid_on_the_same_origin_only() {
    let shop = Shop::open().await;
    let target = shop.url("/joke");
    let elsewhere =
        Router::new().route("/away", any(|| async move { Redirect::temporary(&target) }));
    let elsewhere = serve(elsewhere).await;
    let client = reqwest::Client::new();
    let url = format!("http://{elsewhere}/away");
    let error = client.get(url).pay(&shop.purse()).await.unwrap_err();
    assert!(
        matches!(error, PayError::Client(ClientError::Redirected { .. })),
        "{error}"
    );

    let script = Arc::new(Script::default());
    let log = Arc::new(Mutex::new(Vec::new()));
    let seen = log.clone();
    let router = Router::new()
        .route("/old", any(|| async { Redirect::temporary("/new") }))
        .route("/new", any(scripted))
        .with_state(script.clone())
        .layer(axum::middleware::map_request(move |request: Request| {
            let paid = request.headers().contains_key(AUTHORIZATION);
            seen.lock()
                .unwrap()
                .push((request.uri().path().to_owned(), paid));
            async move { request }
        }));
    let address = serve(router).await;
    let url = format!("http://{address}/old#part");
    let error = client
        .post(&url)
        .body("x")
        .pay(&shop.purse())
        .await
        .unwrap_err();
    assert!(matches!(error, PayError::RedirectedMethod(_)), "{error}");
    assert_eq!(shop.bank.minted.load(SeqCst), 0);
    log.lock().unwrap().clear();
    assert_eq!(
        client.get(&url).pay(&shop.purse()).await.unwrap().status(),
        200
    );
    let hops = log.lock().unwrap().clone();
    let expected = [("/old", false), ("/new", false), ("/new", true)];
    assert_eq!(hops, expected.map(|(path, paid)| (path.to_owned(), paid)));
}

/// Protects: a stream fails only when payment comes up, and before anything is paid.
#[tokio::test]
async fn a_streamed_body_fails_on_a_402_only() {
    let shop = Shop::open().await;
    let stream = || reqwest::Body::wrap(http_body_util::Full::new(bytes::Bytes::from("why?")));
    let client = reqwest::Client::new();
    let error = client
        .post(shop.url("/ask"))
        .body(stream())
        .pay(&shop.purse())
        .await
        .unwrap_err();
    assert!(matches!(error, PayError::StreamedBody), "{error}");
    let free = serve(Router::new().fallback(any(|body: String| async move { body }))).await;
    let response = client
        .post(format!("http://{free}/"))
        .body(stream())
        .pay(&shop.purse())
        .await;
    assert_eq!(response.unwrap().text().await.unwrap(), "why?");
    assert_eq!(shop.moved(), 0);
}

/// Protects: what cannot be answered is not paid: unreadable, for another body, or steered into a
/// header that could leak.
#[tokio::test]
async fn challenges_that_cannot_be_answered_are_not_paid() {
    let shop = Shop::open().await;
    let client = reqwest::Client::new();
    let (script, url) = script(&[]).await;
    let set = |make: Make| *script.challenge.lock().unwrap() = Some(make);
    set(|_| HeaderValue::from_static("Payment id=\"\", realm=\"x\""));
    let error = client.get(&url).pay(&shop.purse()).await.unwrap_err();
    assert!(matches!(error, PayError::Unreadable(_)), "{error}");
    set(|c| {
        header(&Challenge {
            digest: Some(BodyDigest::of(b"other")),
            ..c
        })
    });
    let error = client
        .post(&url)
        .body("mine")
        .pay(&shop.purse())
        .await
        .unwrap_err();
    assert!(matches!(error, PayError::OtherBody), "{error}");
    set(|c| {
        header(&Challenge {
            expires: Some(Timestamp::from_unix_millis(0)),
            ..c
        })
    });
    let error = client.get(&url).pay(&shop.purse()).await.unwrap_err();
    assert!(
        matches!(error, PayError::Client(ClientError::NothingPayable(_))),
        "{error}"
    );
    set(|c| {
        header(&Challenge {
            header: Some(CredentialHeader::PaymentAuthorization),
            ..c
        })
    });
    let error = client.get(&url).pay(&shop.purse()).await.unwrap_err();
    assert!(matches!(error, PayError::LeakyHeader), "{error}");
    assert_eq!(shop.bank.minted.load(SeqCst), 0);

    let settled = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
    let request = settled.build().unwrap().get(&url).bearer_auth("mine");
    let options = quick().client_follows_no_redirects();
    let response = request.pay_with(&shop.purse(), options).await.unwrap();
    assert_eq!(response.text().await.unwrap(), "served");
    // Octets beyond ASCII, an unknown parameter and another scheme do not stand in the way.
    set(|c| {
        let text = c.to_header().unwrap();
        let line = [
            b"Basic realm=\"caf\xe9\", ",
            text.as_bytes(),
            b", x=\"\xff\"",
        ]
        .concat();
        HeaderValue::from_bytes(&line).unwrap()
    });
    assert_eq!(
        client.get(&url).pay(&shop.purse()).await.unwrap().status(),
        200
    );
}

/// Protects: the purse's rails are announced, and the caller's own header is left alone.
#[tokio::test]
async fn accept_payment_is_sent() {
    let shop = Shop::open().await;
    let echo = |headers: HeaderMap| async move {
        headers
            .get("accept-payment")
            .map_or(String::new(), |v| v.to_str().unwrap().to_owned())
    };
    let url = format!("http://{}/", serve(Router::new().fallback(any(echo))).await);
    let client = reqwest::Client::new();
    let sent = client
        .get(&url)
        .pay(&shop.purse())
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    assert_eq!(sent, "token/charge, prepaid/charge");
    let own = client
        .get(&url)
        .header("accept-payment", "x/y")
        .pay(&shop.purse())
        .await
        .unwrap();
    assert_eq!(own.text().await.unwrap(), "x/y");
}

/// Protects: the middleware does what the call does, and its errors can be told apart.
#[tokio::test]
async fn the_middleware_pays() {
    let shop = Shop::open().await;
    let pay = PayMiddleware::new(shop.purse()).options(quick());
    let client = reqwest_middleware::ClientBuilder::new(reqwest::Client::new())
        .with(pay)
        .build();
    let response = client.get(shop.url("/joke")).send().await.unwrap();
    assert_eq!((response.status().as_u16(), shop.moved()), (200, 1));
    let receipt: Receipt = response.receipt().unwrap();
    assert_eq!(receipt.reference, "ref-token");
    shop.bank.declines.store(true, SeqCst);
    let error = client.get(shop.url("/joke")).send().await.unwrap_err();
    let reqwest_middleware::Error::Middleware(source) = error else {
        panic!("{error}")
    };
    let pay_error = source.downcast_ref::<PayError<reqwest_middleware::Error>>();
    assert!(matches!(pay_error, Some(PayError::NotAccepted(_))));
    let unreachable = client.get("http://127.0.0.1:1/").send().await.unwrap_err();
    assert!(matches!(unreachable, reqwest_middleware::Error::Reqwest(_)));
}
