//! Whose reference a Stripe receipt carries.

use farebox::{
    Charge, Receipt,
    core::Ask,
    rails::stripe::Payload,
    wire::{self, Encoded, Problem, Timestamp},
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::{
    codec::shown_receipt,
    protocol::{Answer, Kind, failed, read},
};

/// When the suite's PaymentIntents succeed.
const PAID_AT: &str = "2026-01-29T12:00:30Z";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Input {
    request: Value,
    payload: Value,
    payment_intent: PaymentIntent,
}

#[derive(Deserialize)]
struct PaymentIntent {
    id: String,
    status: String,
    #[serde(default)]
    replayed: bool,
}

pub(crate) fn external_id_binding(input: &Value) -> Answer {
    let input: Input = read(Kind::VerificationError, input)?;
    let reference = match bound(&input) {
        Ok(reference) => reference,
        Err(kind) => return Ok(json!({ "ok": false, "errorType": kind })),
    };
    let at = Timestamp::parse(PAID_AT).map_err(failed(Kind::UnknownError))?;
    let mut receipt = Receipt::new("stripe", input.payment_intent.id, at);
    if let Some(reference) = reference {
        receipt = receipt.with("externalId", reference);
    }
    Ok(json!({ "ok": true, "receipt": shown_receipt(&receipt) }))
}

fn bound(input: &Input) -> Result<Option<String>, &'static str> {
    const INVALID: &str = "invalid_challenge";
    const FAILED: &str = "verification_failed";
    let request = Encoded::encode(&input.request).map_err(|_| INVALID)?;
    let ask: Ask<Charge, Map<String, Value>> = Ask::decode(&request).map_err(|_| INVALID)?;
    let payload = wire::Payload::from_value(&input.payload).map_err(|_| FAILED)?;
    let payload: Payload = payload.decode().map_err(|_| FAILED)?;
    let reference =
        payload
            .reference(&ask.request)
            .map_err(|rejection| match rejection.problem {
                Problem::InvalidChallenge => INVALID,
                _ => FAILED,
            })?;
    // The suite claims nothing before it charges, as the engine does; so an answer that Stripe
    // repeats is of somebody's earlier payment.
    if input.payment_intent.replayed || input.payment_intent.status != "succeeded" {
        return Err(FAILED);
    }
    Ok(reference.map(str::to_owned))
}
