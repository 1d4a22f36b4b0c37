//! Requirements of the drafts, with no type of the wire crate in between.

use std::sync::Arc;

use axum::{body::Body, http::Method as Verb};
use base64::{
    Engine as _,
    engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD},
};
use serde_json::{Value, json};

use crate::common::{NEW, OLD, credential, parameters, present, request, send, shop};

/// Protects: names, encodings and the flat map of `opaque`, as a peer without this crate reads
/// them.
#[tokio::test]
async fn a_challenge_is_spelled_as_drafted() {
    let shop = shop(&[OLD], &Arc::default());
    let mut ask = request(Verb::POST, "/ask");
    *ask.body_mut() = Body::from("why?");
    for request in [request(Verb::GET, "/joke"), ask] {
        let response = send(&shop, request).await;
        assert_eq!(response.status(), 402);
        let challenge = parameters(&response);
        let text = |name: &str| challenge[name].as_str().unwrap();
        for name in challenge.keys() {
            assert!(name.bytes().all(|b| b.is_ascii_lowercase()), "{name}");
        }
        assert!(!text("id").is_empty());
        assert_eq!(text("realm"), "shop.example");
        assert!(text("method").bytes().all(|b| b.is_ascii_lowercase()));
        assert_eq!(text("intent"), "charge", "a registered intent");
        for name in ["request", "opaque"] {
            let Some(encoded) = challenge.get(name).and_then(Value::as_str) else {
                assert_eq!(name, "opaque", "a request is always there");
                continue;
            };
            let decoded = URL_SAFE_NO_PAD.decode(encoded).unwrap();
            let value: Value = serde_json::from_slice(&decoded).unwrap();
            // Sorted members and no spaces; these objects hold no number and only ASCII, so
            // that is all there is to canonical JSON.
            assert_eq!(serde_json::to_string(&value).unwrap().as_bytes(), decoded);
            if name == "opaque" {
                let members = value.as_object().unwrap();
                assert!(members.values().all(Value::is_string), "{value}");
            }
        }
        let expires = text("expires").as_bytes();
        assert!(expires.len() >= 20 && expires[10] == b'T' && expires.ends_with(b"Z"));
    }
}

/// Protects: peers that are newer than this, and peers that pad.
#[tokio::test]
async fn what_is_unknown_is_passed_over() {
    let shop = shop(&[OLD], &Arc::default());
    for (n, padded) in [false, true].into_iter().enumerate() {
        let mut challenge = parameters(&send(&shop, request(Verb::GET, "/joke")).await);
        challenge.insert("x-new".into(), json!({ "of": ["a", "later", "draft"] }));
        let mut credential = credential(challenge, &format!("good-{n}"));
        credential["x-new"] = json!(1);
        credential["payload"]["x-new"] = json!(null);
        // One length of three needs no padding.
        let mut token = URL_SAFE.encode(credential.to_string());
        while padded && !token.ends_with('=') {
            let more = credential["x-new"].as_u64().unwrap() * 10;
            credential["x-new"] = json!(more);
            token = URL_SAFE.encode(credential.to_string());
        }
        if !padded {
            token = token.trim_end_matches('=').to_owned();
        }
        assert_eq!(present(&shop, &token).await, 200, "padded: {padded}");
    }
}

/// Protects: a restart with a new secret does not turn away who is about to pay.
#[tokio::test]
async fn a_new_secret_leaves_open_challenges_payable() {
    let disk = Arc::default();
    let before = shop(&[OLD], &disk);
    let mut tokens = Vec::new();
    for n in 0..2 {
        let challenge = parameters(&send(&before, request(Verb::GET, "/joke")).await);
        let credential = credential(challenge, &format!("good-{n}")).to_string();
        tokens.push(URL_SAFE_NO_PAD.encode(credential));
    }
    let after = shop(&[NEW, OLD], &disk);
    assert_eq!(present(&after, &tokens[0]).await, 200);
    let replayed = present(&after, &tokens[0]).await;
    assert_eq!(replayed, 403, "used is used under any secret");
    let forgotten = shop(&[NEW], &disk);
    assert_eq!(present(&forgotten, &tokens[1]).await, 402);
}

/// Protects: 402 is for what has a price.
#[tokio::test]
async fn what_is_not_sold_is_not_asked_for() {
    let shop = shop(&[OLD], &Arc::default());
    for (verb, path, status) in [(Verb::GET, "/nothing", 404), (Verb::GET, "/free", 200)] {
        let response = send(&shop, request(verb, path)).await;
        assert_eq!(response.status(), status, "{path}");
        assert!(!response.headers().contains_key("www-authenticate"));
        assert!(!response.headers().contains_key("payment-receipt"));
    }
}

/// Protects: no cache keeps a challenge, or hands one payer's response to another.
#[tokio::test]
async fn what_is_cached_is_neither_a_402_nor_shared() {
    let shop = shop(&[OLD], &Arc::default());
    let get = send(&shop, request(Verb::GET, "/joke")).await;
    let mut malformed = request(Verb::GET, "/joke");
    let header = "Payment !!!".parse().unwrap();
    malformed.headers_mut().insert("authorization", header);
    let malformed = send(&shop, malformed).await;
    let head = send(&shop, request(Verb::HEAD, "/joke")).await;
    for response in [&get, &malformed, &head] {
        assert_eq!(response.status(), 402);
        assert_eq!(response.headers()["cache-control"], "no-store");
    }
    let credential = credential(parameters(&get), "good").to_string();
    let token = URL_SAFE_NO_PAD.encode(credential);
    let mut paying = request(Verb::GET, "/joke");
    let header = format!("Payment {token}").parse().unwrap();
    paying.headers_mut().insert("authorization", header);
    let paid = send(&shop, paying).await;
    assert_eq!(paid.status(), 200);
    assert_eq!(paid.headers()["cache-control"], "private");
}
