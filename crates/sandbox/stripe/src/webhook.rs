//! Webhooks: what happens to PaymentIntents and refunds, signed and sent to whoever asked for it.

use std::{sync::Arc, time::Duration};

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::Shared;

/// How often an event is sent until somebody takes it. Stripe goes on for days.
const ATTEMPTS: usize = 40;

/// The pause between two attempts. Stripe's grow to hours.
const PAUSE: Duration = Duration::from_millis(250);

/// An event that is yet to be sent.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    id: String,
    kind: &'static str,
    body: Value,
}

impl Event {
    pub(crate) fn new(kind: &'static str, object: Value, account: Option<&str>, now: u64) -> Self {
        let id = crate::object_id("evt");
        let mut body = json!({
            "id": id,
            "object": "event",
            "api_version": "2026-07-29.preview",
            "created": now,
            "data": { "object": object },
            "livemode": false,
            "pending_webhooks": 1,
            "request": { "id": null, "idempotency_key": null },
            "type": kind,
        });
        if let Some(account) = account {
            body["account"] = account.into();
        }
        Self { id, kind, body }
    }
}

/// Where events go.
#[derive(Clone)]
pub(crate) struct Endpoint {
    pub(crate) url: String,
    pub(crate) secret: String,
}

/// An event that was sent, or is being sent.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sent {
    /// Its id, `evt_…`.
    pub id: String,
    /// `payment_intent.succeeded`.
    pub kind: String,
    /// The event itself.
    pub body: Value,
    /// The statuses of the answers so far; 0 where there was none.
    pub answers: Vec<u16>,
}

/// `t=…,v1=…` for a body that is sent at `at`.
pub(crate) fn signature(secret: &str, at: u64, body: &str) -> String {
    let mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes());
    // HMAC takes a key of any length.
    let code = mac.map(|mac| mac.chain_update(format!("{at}.{body}")).finalize());
    let code = code.map(|code| hex::encode(code.into_bytes()));
    format!("t={at},v1={}", code.unwrap_or_default())
}

impl Shared {
    fn answered(&self, event: &str, status: u16) {
        let mut sent = self.sent();
        if let Some(record) = sent.iter_mut().find(|sent| sent.id == event) {
            record.answers.push(status);
        }
    }

    /// Sends what has happened since the last time, each event on a task of its own.
    pub(crate) fn send_events(self: &Arc<Self>) {
        let Some(endpoint) = self.endpoint().clone() else {
            return;
        };
        let events = std::mem::take(&mut self.ledger().events);
        for event in events {
            let shared = Arc::downgrade(self);
            self.sent().push(Sent {
                id: event.id.clone(),
                kind: event.kind.to_owned(),
                body: event.body.clone(),
                answers: Vec::new(),
            });
            let endpoint = endpoint.clone();
            tokio::spawn(async move {
                let http = reqwest::Client::builder()
                    .no_proxy()
                    .timeout(Duration::from_secs(60))
                    .build();
                let Ok(http) = http else { return };
                for _ in 0..ATTEMPTS {
                    // The sandbox may be gone by now.
                    let Some(now) = shared.upgrade().map(|shared| shared.now()) else {
                        return;
                    };
                    let body = event.body.to_string();
                    let call = http
                        .post(&endpoint.url)
                        .header("stripe-signature", signature(&endpoint.secret, now, &body))
                        .header("content-type", "application/json; charset=utf-8")
                        .body(body);
                    let status = call
                        .send()
                        .await
                        .map_or(0, |answer| answer.status().as_u16());
                    let Some(shared) = shared.upgrade() else {
                        return;
                    };
                    shared.answered(&event.id, status);
                    drop(shared);
                    if (200..300).contains(&status) {
                        return;
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects: receivers are tried with the published scheme. The value is OpenSSL's.
    #[test]
    fn the_signature_is_hmac_sha256_of_time_and_body() {
        let signed = signature("whsec_new", 1_800_000_000, "{}");
        assert_eq!(
            signed,
            "t=1800000000,v1=1986deab7895a14a054fddb484fae2a14b005d2d05f7c0337957417e34d10bfe"
        );
    }
}
