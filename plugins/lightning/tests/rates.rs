//! Prices in a currency, over the sandbox's LND.
#![allow(clippy::unwrap_used, reason = "helpers of tests, outside any #[test]")]

mod common;

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use common::{method, rail, seller_config};
use farebox_core::{ChargeTerms, Fault, Method, NoQuote};
use farebox_lightning::{Lightning, Rate};
use farebox_wire::Timestamp;
use serde_json::{Value, json};

fn terms(amount: &str, currency: &str) -> Value {
    serde_json::to_value(ChargeTerms::amount(amount).currency(currency)).unwrap()
}

async fn sats(method: &Arc<dyn Method>, amount: &str) -> Result<Value, NoQuote> {
    let quote = method.quote(&terms(amount, "usd")).await?;
    let request = quote.request.value();
    assert_eq!(request["currency"], "sat", "the wire knows sats only");
    Ok(request["amount"].clone())
}

fn keys(method: &Arc<dyn Method>, terms: &Value) -> Vec<String> {
    match method.check(terms) {
        Ok(()) => Vec::new(),
        Err(problems) => problems.issues().iter().map(|i| i.key.clone()).collect(),
    }
}

/// The price is fixed with the challenge, which lapses with its rate.
#[tokio::test]
async fn a_function_says_what_a_bitcoin_costs() {
    let ln = common::start().await;
    let holds = Duration::from_secs(120);
    let source = move |_: &str| {
        let rate = Rate::new("50000", Timestamp::now().plus(holds));
        rate.ok_or_else(|| Fault::new("a rate"))
    };
    let rail = method(rail(ln.seller()).rates(Arc::new(source)));
    assert!(keys(&rail, &terms("0.0123", "usd")).is_empty());
    assert_eq!(keys(&rail, &terms("0", "usd")), ["amount"]);
    let before = Timestamp::now();
    assert_eq!(sats(&rail, "0.0123").await.unwrap(), "25", "rounded up");
    let quote = rail.quote(&terms("1", "usd")).await.unwrap();
    let until = quote.not_after.unwrap();
    // An invoice counts whole seconds, as does what is left of the rate, which was asked for before.
    assert!(
        until > before.plus(holds - Duration::from_secs(2)),
        "{until:?}"
    );
    assert!(until <= Timestamp::now().plus(holds), "{until:?}");
    // Sats are sats all the same.
    let quote = rail.quote(&terms("21", "sat")).await.unwrap();
    assert_eq!(quote.request.value()["amount"], "21");
}

/// Without a source there are only sats; a source that is away passes, and nothing is minted.
#[tokio::test]
async fn no_rate_no_quote() {
    let ln = common::start().await;
    let plain = method(rail(ln.seller()));
    assert_eq!(keys(&plain, &terms("1", "usd")), ["currency"]);
    assert!(matches!(sats(&plain, "1").await, Err(NoQuote::Declined(_))));
    let away = |_: &str| Err(Fault::unavailable("asking"));
    let away = method(rail(ln.seller()).rates(Arc::new(away)));
    assert!(matches!(sats(&away, "1").await, Err(NoQuote::Fault(f)) if f.retry_after().is_some()));
    assert_eq!(ln.seller().invoice_count(), 0);
}

/// Answers one request after the other with a body, and says what was asked for.
fn answering(bodies: [&'static str; 3]) -> (String, std::thread::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let serving = std::thread::spawn(move || {
        let answer = |body: &str| {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = [0; 4_096];
            let read = stream.read(&mut asked).unwrap();
            let length = body.len();
            write!(
                stream,
                "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
            )
            .unwrap();
            let text = String::from_utf8_lossy(&asked[..read]).into_owned();
            text.lines().next().unwrap_or_default().to_owned()
        };
        bodies.map(answer).into()
    });
    (url, serving)
}

/// What is no price is no quote; a price is asked for once.
#[tokio::test]
async fn a_url_says_what_a_bitcoin_costs() {
    let ln = common::start().await;
    let (url, serving) = answering([
        "<html>",
        r#"{"data":{"usd":{"price":-5}}}"#,
        r#"{"data":{"usd":{"price":64250.5}}}"#,
    ]);
    let rates = json!({
        "url": format!("{url}/btc?in={{currency}}"), "pointer": "/data/{currency}/price",
        "currencies": ["usd"], "valid_for": 600,
    });
    let mut config = seller_config(ln.seller());
    config.rates = Some(serde_json::from_value(rates).unwrap());
    let rail = method(Lightning::new(config).unwrap());
    assert_eq!(keys(&rail, &terms("1", "eur")), ["currency"]);
    for _ in 0..2 {
        assert!(matches!(sats(&rail, "0.01").await, Err(NoQuote::Fault(_))));
    }
    for _ in 0..3 {
        assert_eq!(sats(&rail, "0.01").await.unwrap(), "16");
    }
    let asked = serving.join().unwrap();
    assert_eq!(asked, vec!["GET /btc?in=usd HTTP/1.1"; 3]);
}

/// Everything wrong is reported at once, each with its key.
#[tokio::test]
async fn wrong_rates_are_found_at_startup() {
    let ln = common::start().await;
    let rates = json!({ "url": "ftp://x", "pointer": "price", "currencies": [], "valid_for": 5 });
    let mut config = seller_config(ln.seller());
    config.rates = Some(serde_json::from_value(rates).unwrap());
    let problems = Lightning::new(config).unwrap_err();
    let keys: Vec<_> = problems.issues().iter().map(|i| i.key.as_str()).collect();
    assert_eq!(
        keys,
        [
            "rates.url",
            "rates.pointer",
            "rates.currencies",
            "rates.valid_for"
        ]
    );
}
