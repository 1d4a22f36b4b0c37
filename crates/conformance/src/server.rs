//! Checking a credential against a route, up to where a rail would look at the proof.
//!
//! A gate of the engine binds its routes and offers into challenges of its own. The suite brings
//! its own challenges, so the same rules are applied here one by one, with the same functions.

use farebox::{
    Receipt,
    rails::{stripe, tempo},
    wire::{Challenge, Credential, Encoded, Timestamp, is_challenge_id},
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::{
    codec::shown_receipt,
    protocol::{Answer, Kind, failed, read},
};

/// What the suite's pretended rail answers.
const REFERENCE: &str = "conformance-receipt";
const PAID_AT: &str = "2026-01-29T12:00:00Z";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Route {
    realm: String,
    secret_key: String,
    method: String,
    intent: String,
    request: Map<String, Value>,
    /// What the pretended rail refuses with.
    verification_error: Option<String>,
    credential: Value,
}

pub(crate) fn verify(input: &Value) -> Answer {
    let route: Route = read(Kind::VerificationError, input)?;
    Ok(match check(&route) {
        Err(kind) => json!({ "ok": false, "errorType": kind }),
        Ok(()) => {
            let at = Timestamp::parse(PAID_AT).map_err(failed(Kind::UnknownError))?;
            let receipt = Receipt::new(route.method, REFERENCE, at);
            json!({ "ok": true, "receipt": shown_receipt(&receipt) })
        }
    })
}

fn check(route: &Route) -> Result<(), &'static str> {
    let credential =
        Credential::from_value(&route.credential).map_err(|_| "malformed_credential")?;
    let challenge = &credential.challenge;
    if !is_challenge_id(route.secret_key.as_bytes(), challenge) || !route.asks_for(challenge) {
        return Err("invalid_challenge");
    }
    // A challenge without an end is none of a server's.
    let expires = challenge.expires.as_ref().ok_or("invalid_challenge")?;
    if expires.unix_millis() <= Timestamp::now().unix_millis() {
        return Err("payment_expired");
    }
    if !has_form(&credential) {
        return Err("malformed_credential");
    }
    match route.verification_error.as_deref() {
        None | Some("") => Ok(()),
        Some(_) => Err("verification_failed"),
    }
}

impl Route {
    /// Whether the challenge is for what this route asks now. Nothing is read from the echo but
    /// to be compared.
    fn asks_for(&self, challenge: &Challenge) -> bool {
        self.realm == challenge.realm
            && self.method == challenge.method
            && self.intent == challenge.intent
            && same(&self.request, &challenge.request)
            // Such a route binds no body and keeps nothing with the challenge.
            && challenge.digest.is_none()
            && challenge.opaque.is_none()
    }
}

/// The same terms. A description is for people: it is never a reason to refuse.
fn same(now: &Map<String, Value>, issued: &Encoded) -> bool {
    let terms = |request: &Map<String, Value>| {
        let mut terms = request.clone();
        terms.remove("description");
        Encoded::encode(&terms)
    };
    let Value::Object(issued) = issued.value() else {
        return false;
    };
    match (terms(now), terms(&issued)) {
        (Ok(now), Ok(issued)) => now == issued,
        _ => false,
    }
}

/// Whether the payload has the form of its rail, where the rail is one of ours.
fn has_form(credential: &Credential) -> bool {
    let Challenge { method, intent, .. } = &credential.challenge;
    let payload = &credential.payload;
    match (method.as_str(), intent.as_str()) {
        ("tempo", "charge") => payload.decode::<tempo::Payload>().is_ok(),
        ("stripe", "charge") => payload.decode::<stripe::Payload>().is_ok(),
        _ => true,
    }
}
