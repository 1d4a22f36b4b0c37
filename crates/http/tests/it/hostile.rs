//! Whatever a stranger sends is answered with a 4xx: no panic, no 5xx, no service.

use axum::{
    body::Body,
    http::{HeaderValue, Request},
};
use farebox_core::wire::{Credential, Payload};
use farebox_http::{ChallengeLimit, Network, PaymentLayer, Transport};
use proptest::prelude::*;
use serde_json::json;
use tower::ServiceExt;

use crate::support::{Answer, Shop, empty_get, pay, serve};

async fn ask(router: &axum::Router, name: &'static str, value: &[u8]) -> Option<Answer> {
    let value = HeaderValue::from_bytes(value).ok()?;
    let mut request = empty_get("/joke");
    request.headers_mut().insert(name, value);
    Some(Answer::of_response(router.clone().oneshot(request).await.unwrap()).await)
}

/// Header values that come close to being credentials.
fn credentials() -> impl Strategy<Value = Vec<u8>> {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    let bytes = prop::collection::vec(any::<u8>(), 0..200);
    let scheme = prop_oneof![
        Just("Payment "),
        Just("payment\t"),
        Just("Payment"),
        Just(", Payment ")
    ];
    let json = "\\{\"(challenge|payload|x)\":(\\{\\}|null|\\{\"id\":\"[a-z|]{0,9}\"\\}|[0-9]{1,30}|\\[\\])\\}";
    let token = prop_oneof![
        bytes.clone(),
        bytes
            .clone()
            .prop_map(|bytes| URL_SAFE_NO_PAD.encode(bytes).into_bytes()),
        json.prop_map(|text| URL_SAFE_NO_PAD.encode(text).into_bytes()),
        "[ -~]{0,100}".prop_map(String::into_bytes),
    ];
    prop_oneof![
        bytes,
        (scheme, token).prop_map(|(scheme, token)| [scheme.as_bytes(), &token].concat()),
    ]
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

#[test]
fn random_headers_are_client_errors() {
    let runtime = runtime();
    let shop = runtime.block_on(Shop::open());
    let router = shop.router();
    proptest!(ProptestConfig::with_cases(600), |(value in credentials())| {
        for name in ["authorization", "accept-payment", "payment-authorization"] {
            if let Some(answer) = runtime.block_on(ask(&router, name, &value)) {
                prop_assert!((400..500).contains(&answer.status), "{}", answer.status);
            }
        }
    });
    assert_eq!((shop.calls(), shop.moved()), (0, 0));
}

/// Flips one byte of a good credential: nothing but the original is ever served.
#[test]
fn altered_credentials_are_client_errors() {
    let runtime = runtime();
    let shop = runtime.block_on(Shop::open());
    let router = shop.router();
    let good = runtime.block_on(shop.challenge("/joke", "token"));
    let header = pay(&good, "bad-on-purpose")
        .to_header()
        .unwrap()
        .into_bytes();
    proptest!(ProptestConfig::with_cases(400), |(at in 8..header.len(), byte in 0x20u8..0x7f)| {
        let mut altered = header.clone();
        altered[at] = byte;
        let answer = runtime.block_on(ask(&router, "authorization", &altered)).unwrap();
        prop_assert!((400..500).contains(&answer.status), "{}", answer.status);
    });
    assert_eq!((shop.calls(), shop.moved()), (0, 0));
}

/// Protects: credentials well over 4 KiB are read, those over the limit refused.
#[tokio::test]
async fn long_credentials_are_read_up_to_the_limit() {
    let shop = Shop::open().await;
    let challenge = shop.challenge("/joke", "token").await;
    let padded = |bytes: usize| {
        let payload = json!({ "token": "good-1", "padding": "x".repeat(bytes) });
        let payload = Payload::from_value(&payload).unwrap();
        Credential {
            challenge: challenge.clone(),
            payload,
            source: None,
        }
        .to_header()
    };
    assert!(padded(80 * 1024).is_err());
    let long = format!("Payment {}", "x".repeat(70 * 1024));
    let router = shop.router();
    let answer = ask(&router, "authorization", long.as_bytes())
        .await
        .unwrap();
    answer.is_refused("malformed-credential", &challenge);
    let long = padded(20 * 1024).unwrap();
    let answer = ask(&router, "authorization", long.as_bytes())
        .await
        .unwrap();
    assert_eq!(answer.status, 200);
}

/// Protects: a server that is told to take payments from this machine only sees who asks.
#[tokio::test]
async fn payments_from_elsewhere_are_refused_where_the_peer_is_checked() {
    use axum::extract::ConnectInfo;
    let shop = Shop::open().await;
    let layer = PaymentLayer::new(shop.gate("GET /near")).transport(Transport::Loopback);
    let route = axum::routing::get(|| async { "near" }).layer(layer);
    let router = axum::Router::new().route("/near", route);
    for (peer, status) in [
        (None, 403),
        (Some("192.0.2.1:9"), 403),
        (Some("127.0.0.1:9"), 402),
        (Some("[::1]:9"), 402),
        (Some("[::ffff:127.0.0.1]:9"), 402),
    ] {
        let mut request = Request::get("/near").body(Body::empty()).unwrap();
        if let Some(peer) = peer {
            let peer: std::net::SocketAddr = peer.parse().unwrap();
            request.extensions_mut().insert(ConnectInfo(peer));
        }
        let response = router.clone().oneshot(request).await.unwrap();
        assert_eq!(
            Answer::of_response(response).await.status,
            status,
            "{peer:?}"
        );
    }
}

/// Protects: the layer works over other bodies than axum's.
#[tokio::test]
async fn any_service_over_http_types_can_be_paid() {
    use http_body_util::{BodyExt, Full};
    use tower::{Layer, service_fn};
    type Plain = Full<bytes::Bytes>;
    let shop = Shop::open().await;
    let inner = service_fn(|request: Request<Plain>| async move {
        Ok::<_, std::convert::Infallible>(axum::http::Response::new(request.into_body()))
    });
    let service = PaymentLayer::new(shop.gate("POST /echo")).layer(inner);
    let ask = || Request::post("/echo").body(Plain::from("hello")).unwrap();
    let response = service.clone().oneshot(ask()).await.unwrap();
    assert_eq!(response.status(), 402);
    let line = response.headers()["www-authenticate"].to_str().unwrap();
    let challenge = farebox_core::wire::Challenge::parse_one(line).unwrap();
    let mut paid = ask();
    let header = pay(&challenge, "good-1").to_header().unwrap();
    paid.headers_mut()
        .insert("authorization", header.parse().unwrap());
    let response = service.oneshot(paid).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(
        response.into_body().collect().await.unwrap().to_bytes(),
        "hello"
    );
}

/// Protects: a rail whose challenges cost its seller something from those who never pay, and those
/// who pay from them.
#[tokio::test]
async fn challenges_left_unpaid_are_limited_for_each_client() {
    let shop = Shop::open().await;
    let client = |parts: &axum::http::request::Parts| {
        let named = parts.headers.get("x-client")?;
        Some(named.to_str().ok()?.to_owned())
    };
    let limit = ChallengeLimit::new(2, std::time::Duration::from_secs(3_600), client);
    let layer = PaymentLayer::new(shop.gate("GET /joke")).limit_challenges(limit);
    let route = axum::routing::get(|| async { "a joke" }).layer(layer);
    let address = serve(axum::Router::new().route("/joke", route)).await;
    let get = |client: &str| {
        let request = reqwest::Client::new().get(format!("http://{address}/joke"));
        request.header("x-client", client)
    };
    let first = Answer::of(get("a")).await.challenge("token");
    assert_eq!(Answer::of(get("a")).await.status, 402);
    let answer = Answer::of(get("a")).await;
    assert_eq!(answer.status, 429);
    assert!(answer.challenges().is_empty());
    let seconds: u32 = answer.header("retry-after").parse().unwrap();
    assert!((1..=3_600).contains(&seconds));
    assert_eq!(Answer::of(get("b")).await.status, 402);

    // A credential is looked at all the same; one that does not hold gets no fresh challenge.
    let bad = pay(&first, "bad").to_header().unwrap();
    let answer = Answer::of(get("a").header("authorization", bad)).await;
    assert_eq!(answer.status, 429);
    let good = pay(&first, "good-1").to_header().unwrap();
    let answer = Answer::of(get("a").header("authorization", good)).await;
    assert_eq!(answer.status, 200);
    // What is paid for no longer counts.
    assert_eq!(Answer::of(get("a")).await.status, 402);
    assert_eq!(Answer::of(get("a")).await.status, 429);
}

/// Protects: payers behind one proxy from each other, where nobody has said who a client is; and the
/// count from what a client says of itself.
#[tokio::test]
async fn clients_behind_a_trusted_proxy_are_told_apart() {
    use axum::extract::ConnectInfo;
    use std::net::SocketAddr;

    let shop = Shop::open().await;
    let hour = std::time::Duration::from_secs(3_600);
    let layer = PaymentLayer::new(shop.gate("GET /joke"))
        .transport(Transport::proxied(Network::parse("10.0.0.0/8")))
        .limit_challenges(ChallengeLimit::by_peer(1, hour));
    let route = axum::routing::get(|| async { "a joke" }).layer(layer);
    let router = axum::Router::new().route("/joke", route);
    let ask = async |peer: &str, came_from: &str| {
        let peer: SocketAddr = peer.parse().unwrap();
        let request = Request::get("/joke")
            .extension(ConnectInfo(peer))
            .header("x-forwarded-for", came_from)
            .header("x-forwarded-proto", "https")
            .body(axum::body::Body::empty());
        let answer = router.clone().oneshot(request.unwrap()).await;
        answer.unwrap().status().as_u16()
    };
    let proxy = "10.0.0.1:443";
    assert_eq!(ask(proxy, "192.0.2.1").await, 402);
    assert_eq!(ask(proxy, "192.0.2.2").await, 402, "another client");
    assert_eq!(ask("10.0.0.2:443", "192.0.2.1").await, 429, "another proxy");
    assert_eq!(
        ask(proxy, "192.0.2.3, 192.0.2.1").await,
        429,
        "its own words"
    );
    // This machine is no proxy, so nobody else's address counts.
    assert_eq!(ask("127.0.0.1:9", "").await, 402);
    assert_eq!(ask("127.0.0.1:9", "").await, 429);
}
