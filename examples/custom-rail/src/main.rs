//! A shop that takes gift cards, and a customer who has some.
#![allow(clippy::print_stdout, reason = "a command's output is its purpose")]

use std::{collections::BTreeMap, error::Error, sync::Mutex};

use axum::{Router, routing::get};
use custom_rail::{CHARGE, Card};
use farebox::{core::prelude::*, prelude::*};
use serde_json::json;
use tokio::net::TcpListener;

/// A wallet of cards; each is handed out once.
struct Cards(Mutex<Vec<String>>);

impl Wallet<Charge> for Cards {
    const METHOD: &'static str = "giftcard";
    type Details = BTreeMap<String, String>;
    type Payload = Card;

    fn price(&self, _: &Paying<'_>, ask: &Ask<Charge, Self::Details>) -> Result<Cost, PayError> {
        let ChargeRequest {
            amount, currency, ..
        } = ask.request.clone();
        Ok(Cost {
            amount,
            currency,
            recipient: None,
        })
    }

    async fn pay(
        &self,
        _: &Paying<'_>,
        _: Ask<Charge, Self::Details>,
        _: Approved,
    ) -> Result<Paid<Card>, PayError> {
        let code = self.0.lock().ok().and_then(|mut cards| cards.pop());
        let code = code.ok_or_else(|| PayError::NotPaid(Fault::new("no card is left")))?;
        Ok(Paid::new(Card { code }))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let server = Server::builder("127.0.0.1")
        .secret("a secret of 32 bytes, only for examples")
        .store("memory:")
        .plugin(&CHARGE)
        .rail("giftcard", json!({ "AAAA": 500, "BBBB": 500 }))
        .build()?;
    let paid = server.paid("GET /joke", [("giftcard/charge", "4.50")])?;
    let app = Router::new().route("/joke", get(|| async { "a joke\n" }).route_layer(paid));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/joke", listener.local_addr()?);
    tokio::spawn(async move { axum::serve(listener, app).await });

    let cards = Cards(Mutex::new(vec!["AAAA".into(), "BBBB".into()]));
    let limit = Limit::per_request("usd", Amount::new(500));
    let purse = Purse::new(Budget::new([limit])).wallet(cards);
    for _ in 0..2 {
        let response = reqwest::Client::new().get(&url).pay(&purse).await?;
        let receipt = response.receipt().ok_or("no receipt")?;
        print!(
            "{} {}: {}",
            receipt.method,
            receipt.reference,
            response.text().await?
        );
    }
    Ok(())
}
