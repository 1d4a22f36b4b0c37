//! A server whose answers to payment are scripted.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode},
    response::{IntoResponse, Response},
    routing::any,
};
use farebox_core::wire::{Challenge, Encoded, Timestamp};
use serde_json::json;

use crate::support::serve;

/// A server that asks for payment and answers what it is paid with by a script.
#[derive(Default)]
pub struct Script {
    pub answers: Mutex<Vec<Reply>>,
    pub presented: Mutex<Vec<HeaderValue>>,
    pub asked: AtomicUsize,
    pub challenge: Mutex<Option<Make>>,
}

pub type Reply = fn() -> Response;

/// Turns the usual challenge into what is sent.
pub type Make = fn(Challenge) -> HeaderValue;

pub fn challenge() -> Challenge {
    Challenge {
        id: "c1".into(),
        realm: "script".into(),
        method: "token".into(),
        intent: "charge".into(),
        request: Encoded::encode(&json!({ "amount": "5", "currency": "pts" })).unwrap(),
        expires: Some(Timestamp::now().plus(Duration::from_secs(60))),
        digest: None,
        description: None,
        opaque: None,
        header: None,
    }
}

pub fn header(challenge: &Challenge) -> HeaderValue {
    challenge.to_header().unwrap().parse().unwrap()
}

pub async fn scripted(State(script): State<Arc<Script>>, headers: HeaderMap) -> Response {
    let payment = ["authorization", "payment-authorization"]
        .into_iter()
        .find_map(|name| {
            headers
                .get(name)
                .filter(|value| value.as_bytes().starts_with(b"Payment "))
        });
    if let Some(value) = payment {
        script.presented.lock().unwrap().push(value.clone());
        let mut answers = script.answers.lock().unwrap();
        let answer = if answers.is_empty() {
            None
        } else {
            Some(answers.remove(0))
        };
        return answer.map_or_else(|| "served".into_response(), |answer| answer());
    }
    script.asked.fetch_add(1, SeqCst);
    let make = script.challenge.lock().unwrap().unwrap_or(|c| header(&c));
    (
        StatusCode::PAYMENT_REQUIRED,
        [("www-authenticate", make(challenge()))],
    )
        .into_response()
}

pub async fn script(answers: &[Reply]) -> (Arc<Script>, String) {
    let script = Arc::new(Script::default());
    *script.answers.lock().unwrap() = answers.to_vec();
    let router = Router::new()
        .fallback(any(scripted))
        .with_state(script.clone());
    (script, format!("http://{}/", serve(router).await))
}
