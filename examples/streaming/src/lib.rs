//! A chat endpoint that is paid for by the token.
//!
//! `GET /chat?tokens=100` streams server-sent events, and the same address as a WebSocket streams
//! messages. A session pays for either: each token is charged before it is sent, a payer whose
//! balance is exhausted is told so and may go on, and the last thing said is a receipt.

pub mod model;

use axum::{Router, extract::Query, response::IntoResponse, routing::get};
use farebox::http::{Metered, PaymentLayer, ws::Call};
use serde::Deserialize;

#[derive(Deserialize)]
struct Ask {
    #[serde(default = "hundred")]
    tokens: usize,
}

fn hundred() -> usize {
    100
}

async fn chat(Query(ask): Query<Ask>, session: Metered) -> impl IntoResponse {
    session.events(model::tokens(ask.tokens))
}

/// The endpoint behind `paid`.
///
/// The layer stands around the whole method router and not only the `GET` handler: vouchers, top-ups
/// and closes come as `POST` without a body to the same address, and never reach the handler.
pub fn app(paid: PaymentLayer) -> Router {
    let paid = paid.websocket(|call: Call| {
        let ask = Query::<Ask>::try_from_uri(&call.uri);
        model::tokens(ask.map_or_else(|_| hundred(), |Query(ask)| ask.tokens))
    });
    Router::new().route("/chat", get(chat).layer(paid))
}
