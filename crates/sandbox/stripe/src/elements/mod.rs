//! What a browser asks: a stand-in for Stripe.js, and PaymentMethods for test cards.
//!
//! A test card's PaymentMethod is the one of Stripe's that behaves like it, `pm_card_visa` for
//! 4242 4242 4242 4242, so nothing is remembered and no card number is kept.

use std::sync::Arc;

use axum::{
    body::Bytes,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use crate::{Shared, error::ApiError, form::Form};

/// Where the stand-in is; Stripe's own is at the same path of its host.
pub(crate) const SCRIPT_PATH: &str = "/v3/";

/// Stripe's test cards (docs.stripe.com/testing).
const CARDS: [(&str, &str, &str); 8] = [
    ("4242424242424242", "pm_card_visa", "visa"),
    ("5555555555554444", "pm_card_mastercard", "mastercard"),
    ("4000000000000002", "pm_card_chargeDeclined", "visa"),
    (
        "4000000000009995",
        "pm_card_chargeDeclinedInsufficientFunds",
        "visa",
    ),
    ("4000000000009987", "pm_card_chargeDeclinedLostCard", "visa"),
    (
        "4000000000000069",
        "pm_card_chargeDeclinedExpiredCard",
        "visa",
    ),
    (
        "4000000000000119",
        "pm_card_chargeDeclinedProcessingError",
        "visa",
    ),
    ("4000002500003155", "pm_card_authenticationRequired", "visa"),
];

/// The stand-in for Stripe.js.
pub(crate) async fn script() -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/javascript; charset=utf-8"),
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
    ];
    (headers, include_str!("stripe.js")).into_response()
}

/// `POST /v1/payment_methods`, by publishable key, from any page.
pub(crate) async fn create(State(shared): State<Arc<Shared>>, body: Bytes) -> Response {
    let (status, body) = match method(&shared, &body) {
        Ok(method) => (200, method),
        Err(error) => (error.status, error.body()),
    };
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
    ];
    (status, headers, body.to_string()).into_response()
}

fn method(shared: &Shared, body: &[u8]) -> Result<Value, ApiError> {
    let form = Form::parse(body)?;
    // A publishable key is no secret.
    if form.get("key") != Some(&shared.publishable_key) {
        return Err(ApiError::unauthorized("Invalid API Key provided."));
    }
    form.only(&["key", "type", "card[number]", "card[exp]", "card[cvc]"])?;
    let digits = |name: &str| -> String {
        let text = form.get(name).unwrap_or_default();
        text.chars().filter(char::is_ascii_digit).collect()
    };
    let number = digits("card[number]");
    let wrong = |code, message| Err(ApiError::card(code, None, message));
    let Some((_, id, brand)) = CARDS.iter().find(|(card, ..)| *card == number) else {
        return match number.len() {
            0..16 => wrong("incomplete_number", "Your card number is incomplete."),
            _ => wrong(
                "incorrect_number",
                "This is no test card. Try 4242 4242 4242 4242.",
            ),
        };
    };
    if digits("card[exp]").len() != 4 {
        return wrong(
            "incomplete_expiry",
            "Your card's expiration date is incomplete.",
        );
    }
    if digits("card[cvc]").len() < 3 {
        return wrong("incomplete_cvc", "Your card's security code is incomplete.");
    }
    Ok(json!({
        "id": id,
        "object": "payment_method",
        "type": "card",
        "billing_details": {},
        "card": crate::model::card(brand, &number[12..]),
        "created": shared.now(),
        "livemode": false,
    }))
}
