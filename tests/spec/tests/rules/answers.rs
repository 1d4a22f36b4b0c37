//! Answers that no rail of this repository provokes; numbers are those of `spec/edge-cases.toml`.

use std::sync::Arc;

use axum::{Router, http::Method as Verb, routing::get};
use farebox_core::{Method, Offer, Typed, compose, prelude::*};
use farebox_engine::Clock;
use farebox_http::PaymentLayer;
use serde_json::{Map, Value};

use crate::common::{OLD, decoded, engine, header, parameters, problem, rail, request, send};

/// A rail that takes any voucher for a channel that nobody has opened.
#[derive(Default)]
pub(crate) struct Vouchers(NoSettler);

#[derive(Deserialize)]
pub(crate) struct Token {
    token: String,
}

impl Rail<Session> for Vouchers {
    const METHOD: &'static str = "vouchers";
    type Details = Map<String, Value>;
    type Payload = Token;
    type Settler = NoSettler;

    async fn quote(&self, terms: &SessionTerms) -> Result<Quote<Session, Self::Details>, NoQuote> {
        let request = terms.request(
            Amount::parse(&terms.amount).map_err(|e| Fault::new("terms").caused_by(e))?,
            "usd",
        );
        Ok(Quote::new(request, Map::new()))
    }

    async fn verify(
        &self,
        _: &Presented<'_>,
        _: &Ask<Session, Self::Details>,
        payload: Token,
    ) -> Result<Plan<Channel, Never>, Refusal> {
        let channel = ChannelId::of("vouchers", &payload.token);
        Ok(Plan::advance(channel, Voucher::to(Amount::new(1))))
    }

    fn settler(&self) -> &NoSettler {
        &self.0
    }
}

fn selling(offer: Offer) -> Router {
    let engine = engine(&[OLD], &Arc::default(), Clock::system());
    let gate = engine.gate("GET /joke", compose([offer]).unwrap()).unwrap();
    let joke = get(|| async { "a joke" }).layer(PaymentLayer::new(gate));
    Router::new().route("/joke", joke)
}

/// 54: gone is not "pay for this again": a fresh challenge opens another channel.
#[tokio::test]
async fn a_channel_that_is_gone_is_410() {
    let method: Arc<dyn Method> = Arc::new(Typed::<Vouchers, Session>::new(Vouchers::default()));
    let terms = SessionTerms {
        amount: "1".into(),
        unit: "token".into(),
        ..SessionTerms::default()
    };
    let shop = selling(Offer::new::<Session>(method, terms).unwrap());
    let issued = parameters(&send(&shop, request(Verb::GET, "/joke")).await);
    let mut paying = request(Verb::GET, "/joke");
    let header = header(issued.clone(), "c").parse().unwrap();
    paying.headers_mut().insert("authorization", header);
    let gone = send(&shop, paying).await;
    assert_eq!(gone.status(), 410);
    assert_eq!(gone.headers()["cache-control"], "no-store");
    assert!(!gone.headers().contains_key("payment-receipt"));
    let fresh = parameters(&gone);
    assert_ne!(fresh["id"], issued["id"]);
    let problem = problem(gone).await;
    let kind = problem["type"].as_str().unwrap();
    assert!(kind.ends_with("/session/channel-not-found"), "{kind}");
    assert_eq!(problem["challengeId"], fresh["id"]);
}

/// A rail whose author gave it a name that no header can carry.
struct Misnamed(NoSettler);

impl Rail<Charge> for Misnamed {
    const METHOD: &'static str = "no method\r\nSet-Cookie: a=b";
    type Details = Map<String, Value>;
    type Payload = Token;
    type Settler = NoSettler;

    async fn quote(&self, terms: &ChargeTerms) -> Result<Quote<Charge, Self::Details>, NoQuote> {
        let request = terms.request(Amount::new(5), "usd");
        Ok(Quote::new(request, Map::new()))
    }

    async fn verify(
        &self,
        _: &Presented<'_>,
        _: &Ask<Charge, Self::Details>,
        _: Token,
    ) -> Result<Plan<Once, Never>, Refusal> {
        Err(Rejection::verification("nothing can be presented to it").into())
    }

    fn settler(&self) -> &NoSettler {
        &self.0
    }
}

/// 55: neither a header that breaks off nor a 402 without a challenge.
#[tokio::test]
async fn what_fits_no_header_is_a_500() {
    let method = Arc::new(Typed::<Misnamed, Charge>::new(Misnamed(NoSettler)));
    let shop = selling(Offer::new::<Charge>(method, ChargeTerms::amount("5")).unwrap());
    let mut malformed = request(Verb::GET, "/joke");
    let header = "Payment !!!".parse().unwrap();
    malformed.headers_mut().insert("authorization", header);
    for request in [request(Verb::GET, "/joke"), malformed] {
        let answer = send(&shop, request).await;
        assert_eq!(answer.status(), 500);
        for name in ["www-authenticate", "set-cookie", "payment-receipt"] {
            assert!(!answer.headers().contains_key(name), "{name}");
        }
        let problem = problem(answer).await;
        assert!(problem.get("challengeId").is_none());
        let kind = problem["type"].as_str().unwrap();
        assert!(kind.ends_with("/internal-payment-error"), "{kind}");
    }
}

/// 55: text in several lines is sold all the same, and starts no header of its own.
#[tokio::test]
async fn a_description_in_lines_is_written_in_one() {
    let text = "a joke\r\nSet-Cookie: a=b\nand more";
    let terms = ChargeTerms::amount("5").description(text);
    let shop = selling(Offer::new::<Charge>(rail(true), terms).unwrap());
    let asked = send(&shop, request(Verb::GET, "/joke")).await;
    assert!(!asked.headers().contains_key("set-cookie"));
    let issued = parameters(&asked);
    assert_eq!(issued["description"], "a joke  Set-Cookie: a=b and more");
    assert_eq!(decoded(&issued["request"])["description"], text);
    let mut paying = request(Verb::GET, "/joke");
    let header = header(issued, "t").parse().unwrap();
    paying.headers_mut().insert("authorization", header);
    assert_eq!(send(&shop, paying).await.status(), 200);
}
