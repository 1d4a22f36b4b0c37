//! What a client does with what servers send; numbers are those of `spec/edge-cases.toml`.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use axum::{
    Router,
    http::{HeaderMap, HeaderValue, StatusCode},
    response::{IntoResponse, Response},
    routing::any,
};
use farebox_client::{Approved, Budget, ClientError, Cost, Limit, Payer, Purse, Reason};
use farebox_core::{
    Paid, PayError as WalletError, Paying,
    wire::{Amount, Challenge, Encoded, OfferId, Payload, Timestamp},
};
use farebox_http::{PayError, PayExt, PayMiddleware};
use reqwest::ResponseBuilderExt as _;
use serde_json::json;

/// Pays one point, with nothing, whatever is asked.
struct Pauper;

#[async_trait]
impl Payer for Pauper {
    fn offer(&self) -> OfferId {
        OfferId::new("test", "charge")
    }

    fn price(&self, _: &Paying<'_>) -> Result<Cost, WalletError> {
        Ok(Cost {
            amount: Amount::new(1),
            currency: "pts".into(),
            recipient: None,
        })
    }

    async fn funded(&self, _: &Cost) -> bool {
        true
    }

    async fn pay(&self, _: &Paying<'_>, _: Approved) -> Result<Paid<Payload>, WalletError> {
        Ok(Paid::new(Payload::from_value(&json!({})).unwrap()))
    }
}

fn purse() -> Purse {
    let limit = Limit::per_request("pts", Amount::new(1));
    Purse::new(Budget::new([limit])).payer(Arc::new(Pauper))
}

fn challenge(id: &str) -> Challenge {
    Challenge {
        id: id.into(),
        realm: "shop.example".into(),
        method: "test".into(),
        intent: "charge".into(),
        request: Encoded::encode(&json!({ "amount": "1", "currency": "pts" })).unwrap(),
        expires: Some(Timestamp::now().plus(Duration::from_secs(60))),
        digest: None,
        description: None,
        opaque: None,
        header: None,
    }
}

type Log = Arc<Mutex<Vec<HeaderMap>>>;

/// A server that sends these lines until it is paid, and remembers the headers of all requests.
async fn asking(lines: Vec<String>) -> (String, Log) {
    let log = Log::default();
    let seen = log.clone();
    let answer = move |headers: HeaderMap| {
        let paid = headers.contains_key("authorization");
        seen.lock().unwrap().push(headers);
        let lines = lines.clone();
        async move {
            if paid {
                return "served".into_response();
            }
            let mut response = StatusCode::PAYMENT_REQUIRED.into_response();
            for line in lines {
                let line = HeaderValue::from_str(&line).unwrap();
                response.headers_mut().append("www-authenticate", line);
            }
            response
        }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let router = Router::new().fallback(any(answer));
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (url, log)
}

/// 19: next to it in the list, or in a header of its own.
#[tokio::test]
async fn one_bad_challenge_does_not_hide_a_good_one() {
    let good = challenge("good").to_header().unwrap();
    let bad = [
        r#"Payment id="", realm="r", method="test", intent="charge", request="e30""#,
        r#"Payment id="bad", realm="r", method="test", intent="charge", request="!""#,
        "Payment",
    ];
    for bad in bad {
        for lines in [
            vec![bad.to_owned(), good.clone()],
            vec![format!("{bad}, {good}")],
            vec![format!("{good}, {bad}")],
        ] {
            let (url, log) = asking(lines.clone()).await;
            let response = reqwest::Client::new().get(url).pay(&purse()).await;
            assert_eq!(response.unwrap().status(), 200, "{lines:?}");
            assert_eq!(log.lock().unwrap().len(), 2);
        }
    }
}

/// 20: another header might be written to a log, or sent on to other hosts.
#[tokio::test]
async fn credentials_are_not_steered_into_other_headers() {
    let good = challenge("good").to_header().unwrap();
    for name in ["Cookie", "X-Api-Key", "Authorization", ""] {
        let (url, log) = asking(vec![format!("{good}, header=\"{name}\"")]).await;
        let error = reqwest::Client::new().get(url).pay(&purse()).await;
        assert!(matches!(error, Err(PayError::Unreadable(_))), "{name}");
        let log = log.lock().unwrap();
        assert_eq!(log.len(), 1, "{name}: nothing was presented");
    }
}

/// 143: a client beside one that pays, and one whose default headers say that it would.
#[tokio::test]
async fn only_what_was_told_to_pay_pays() {
    let (url, log) = asking(vec![challenge("c").to_header().unwrap()]).await;
    let mut headers = HeaderMap::new();
    headers.insert("accept-payment", HeaderValue::from_static("test/charge"));
    let client = reqwest::Client::builder().default_headers(headers);
    let client = client.build().unwrap();
    let _paying = reqwest_middleware::ClientBuilder::new(client.clone())
        .with(PayMiddleware::new(purse()))
        .build();
    let response = client.get(&url).send().await.unwrap();
    assert_eq!(response.status(), 402);
    assert_eq!(log.lock().unwrap().len(), 1);
    assert_eq!(client.get(url).pay(&purse()).await.unwrap().status(), 200);
}

/// 143, 154: the caller's own word on what a request accepts binds the purse, and not the server
/// alone.
#[tokio::test]
async fn a_request_is_paid_as_its_own_header_says() {
    for (accept, paid) in [
        ("test/charge", true),
        ("*/charge;q=0.1, other/*", true),
        ("other/*", false),
        ("test/*;q=0, */*", false),
        // What a server takes for absent is absent.
        ("test", true),
    ] {
        let (url, log) = asking(vec![challenge("c").to_header().unwrap()]).await;
        let request = reqwest::Client::new().get(url);
        let request = request.header("accept-payment", accept);
        let (purse, presented) = (purse(), if paid { 2 } else { 1 });
        match request.pay(&purse).await {
            Ok(response) => assert!(paid && response.status() == 200, "{accept}"),
            Err(PayError::Client(ClientError::NothingPayable(why))) => {
                assert!(
                    !paid && matches!(why[0].reason, Reason::NotWanted),
                    "{accept}"
                );
            }
            Err(error) => panic!("{accept}: {error}"),
        }
        let log = log.lock().unwrap();
        assert_eq!(log.len(), presented, "{accept}");
        assert!(
            log.iter()
                .all(|headers| headers["accept-payment"] == accept)
        );
        assert_eq!(purse.budget().spent("pts"), Amount::new(u128::from(paid)));
    }
}

/// Answers like a server that was reached under `url`.
struct Reached(&'static str);

#[async_trait]
impl reqwest_middleware::Middleware for Reached {
    async fn handle(
        &self,
        request: reqwest::Request,
        _: &mut axum::http::Extensions,
        _: reqwest_middleware::Next<'_>,
    ) -> reqwest_middleware::Result<reqwest::Response> {
        let paid = request.headers().contains_key("authorization");
        let url = self.0.parse().unwrap();
        let response = axum::http::Response::builder().url(url);
        let response = match paid {
            true => response.status(200),
            false => response
                .status(402)
                .header("www-authenticate", challenge("c").to_header().unwrap()),
        };
        Ok(response.body(String::new()).unwrap().into())
    }
}

/// 169: a redirect that only drops the scheme's own port leads nowhere else.
#[tokio::test]
async fn a_port_that_is_meant_is_the_one_that_is_written() {
    for (asked, reached, same) in [
        ("https://shop.example:443/", "https://shop.example/", true),
        ("https://shop.example/", "https://shop.example:443/", true),
        ("http://localhost:80/", "http://localhost/", true),
        ("https://shop.example/", "https://shop.example:8443/", false),
        ("http://localhost/", "http://localhost:443/", false),
    ] {
        let client = reqwest_middleware::ClientBuilder::new(reqwest::Client::new())
            .with(PayMiddleware::new(purse()))
            .with(Reached(reached))
            .build();
        let answer: Result<Response, _> = match client.get(asked).send().await {
            Ok(response) => Ok(response.status().into_response()),
            Err(reqwest_middleware::Error::Middleware(error)) => Err(error),
            Err(error) => panic!("{error}"),
        };
        match answer {
            Ok(response) => assert!(same && response.status() == 200, "{asked} {reached}"),
            Err(error) => {
                let error = error.downcast_ref::<PayError<reqwest_middleware::Error>>();
                let elsewhere = matches!(
                    error,
                    Some(PayError::Client(ClientError::Redirected { .. }))
                );
                assert!(!same && elsewhere, "{asked} {reached}: {error:?}");
            }
        }
    }
}
