//! A shop on the test rail, and credentials for it as a peer without this repository writes them.

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    http::{Method as Verb, Request, Response},
    routing::{get, post},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use farebox_core::{Charge, ChargeTerms, Method, Offer, Typed, compose};
use farebox_engine::{Clock, Engine, MemoryStore};
use farebox_http::PaymentLayer;
use farebox_testkit::{Bank, Fuse, FusedStore, TestRail};
use farebox_wire::SecretRing;
use serde_json::{Map, Value, json};
use tower::ServiceExt;

pub(crate) const REALM: &str = "shop.example";
pub(crate) const OLD: &str = "0123456789abcdef0123456789abcdef";
pub(crate) const NEW: &str = "another secret, of thirty-two bytes";

/// A shop that sells at `/joke` and `/ask`, whose challenges are made with the first secret.
///
/// The store outlives the shop, so challenges do.
pub(crate) fn shop(secrets: &[&str], disk: &Arc<MemoryStore>) -> Router {
    let engine = engine(secrets, disk, Clock::system());
    let rail = rail(true);
    let paid = |route: &str| {
        let offer = Offer::new::<Charge>(rail.clone(), ChargeTerms::amount("5")).unwrap();
        PaymentLayer::new(engine.gate(route, compose([offer]).unwrap()).unwrap())
    };
    Router::new()
        .route("/joke", get(|| async { "a joke" }).layer(paid("GET /joke")))
        .route(
            "/ask",
            post(|| async { "an answer" }).layer(paid("POST /ask")),
        )
        .route("/free", get(|| async { "for nothing" }))
}

/// An engine whose challenges outlive it as its disk does.
pub(crate) fn engine(secrets: &[&str], disk: &Arc<MemoryStore>, clock: Clock) -> Engine {
    let secrets = SecretRing::new(secrets.iter().map(|s| (*s).into())).unwrap();
    let store = FusedStore::new(disk.clone(), Fuse::endless());
    let builder = Engine::builder(REALM, secrets, Arc::new(store));
    builder.clock(clock).build().unwrap()
}

/// The test rail, whose proof is the payment or authorises one.
pub(crate) fn rail(prepaid: bool) -> Arc<dyn Method> {
    let (bank, fuse) = (Arc::new(Bank::default()), Fuse::endless());
    let rail = match prepaid {
        true => TestRail::prepaid(bank, fuse),
        false => TestRail::settling(bank, fuse),
    };
    Arc::new(Typed::<TestRail, Charge>::new(rail))
}

pub(crate) async fn send(shop: &Router, request: Request<Body>) -> Response<Body> {
    shop.clone().oneshot(request).await.unwrap()
}

pub(crate) fn request(verb: Verb, path: &str) -> Request<Body> {
    let request = Request::builder().method(verb).uri(path);
    request.body(Body::empty()).unwrap()
}

/// The parameters of the one challenge of a response, as they stand in the header.
pub(crate) fn parameters(response: &Response<Body>) -> Map<String, Value> {
    parameters_of(response.headers()["www-authenticate"].to_str().unwrap())
}

/// The parameters of a challenge, as they stand in a header.
pub(crate) fn parameters_of(line: &str) -> Map<String, Value> {
    let list = line.strip_prefix("Payment ").unwrap();
    let pairs = list.split(", ").map(|pair| {
        let (name, value) = pair.split_once('=').unwrap();
        let value = value.strip_prefix('"').unwrap().strip_suffix('"').unwrap();
        (name.to_owned(), json!(value))
    });
    pairs.collect()
}

/// The object within a base64url parameter.
pub(crate) fn decoded(encoded: &Value) -> Value {
    let bytes = URL_SAFE_NO_PAD.decode(encoded.as_str().unwrap()).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

/// A credential for these parameters, before it is encoded.
pub(crate) fn credential(challenge: Map<String, Value>, token: &str) -> Value {
    json!({ "challenge": challenge, "payload": { "token": token } })
}

/// What goes into the header for these parameters.
pub(crate) fn header(challenge: Map<String, Value>, token: &str) -> String {
    let credential = credential(challenge, token).to_string();
    format!("Payment {}", URL_SAFE_NO_PAD.encode(credential))
}

pub(crate) async fn present(shop: &Router, token: &str) -> u16 {
    let mut request = request(Verb::GET, "/joke");
    let header = format!("Payment {token}").parse().unwrap();
    request.headers_mut().insert("authorization", header);
    send(shop, request).await.status().as_u16()
}

/// A response's problem body.
pub(crate) async fn problem(response: Response<Body>) -> Value {
    assert_eq!(
        response.headers()["content-type"],
        "application/problem+json"
    );
    let body = axum::body::to_bytes(response.into_body(), usize::MAX).await;
    serde_json::from_slice(&body.unwrap()).unwrap()
}
