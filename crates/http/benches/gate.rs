//! A paid route behind axum, in process: `cargo bench -p farebox-http`. The rail takes any token,
//! once; the rest is what every request goes through.
#![allow(clippy::unwrap_used, reason = "a benchmark may panic")]

use std::sync::Arc;

use axum::{Router, body::Body, response::Response, routing::get};
use divan::Bencher;
use farebox_core::{Offer, Typed, compose, prelude::*, wire};
use farebox_engine::{Engine, MemoryStore};
use farebox_http::{Look, Page, PaymentLayer};
use http::{Request, StatusCode, header};
use http_body_util::BodyExt as _;
use tokio::runtime::Runtime;
use tower::ServiceExt as _;

fn main() {
    divan::main();
}

struct Tokens;

#[derive(Serialize, Deserialize)]
struct Details {}

#[derive(Serialize, Deserialize)]
struct Token {
    token: String,
}

impl Rail<Charge> for Tokens {
    const METHOD: &'static str = "token";
    type Details = Details;
    type Payload = Token;
    type Settler = NoSettler;

    async fn quote(&self, terms: &ChargeTerms) -> Result<Quote<Charge, Details>, NoQuote> {
        let amount = Amount::from_decimal(&terms.amount, 2)
            .map_err(|e| Fault::new("reading an amount").caused_by(e))?;
        let request = terms.request(amount, "usd");
        Ok(Quote::new(request, Details {}))
    }

    async fn verify(
        &self,
        _: &Presented<'_>,
        _: &Ask<Charge, Details>,
        payload: Token,
    ) -> Result<Plan<Once, Never>, Refusal> {
        Ok(Plan::paid(ProofKey::of("token", &payload.token), "t-1"))
    }

    fn settler(&self) -> &NoSettler {
        &NoSettler
    }

    fn page(&self, _: &Challenge, _: &Ask<Charge, Details>) -> Option<PagePart> {
        Some(PagePart::new("Token", "$0.10").html("<p>{{ price }}</p>"))
    }
}

fn app() -> Router {
    app_with(|layer| layer)
}

fn app_with(change: impl FnOnce(PaymentLayer) -> PaymentLayer) -> Router {
    let ring = wire::SecretRing::new(["0123456789abcdef0123456789abcdef".into()]).unwrap();
    let engine = Engine::builder("api.example.com", ring, Arc::new(MemoryStore::new()))
        .build()
        .unwrap();
    let method = Arc::new(Typed::<Tokens, Charge>::new(Tokens));
    let offer = Offer::new::<Charge>(method, ChargeTerms::amount("0.10")).unwrap();
    let gate = engine.gate("GET /joke", compose([offer]).unwrap()).unwrap();
    Router::new().route(
        "/joke",
        get(|| async { "a joke" }).layer(change(PaymentLayer::new(gate))),
    )
}

fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().build().unwrap()
}

fn unpaid() -> Request<Body> {
    let request = Request::get("/joke").header(header::HOST, "api.example.com");
    request.body(Body::empty()).unwrap()
}

async fn answer(app: &Router, request: Request<Body>, expected: StatusCode) -> Response<()> {
    let (parts, body) = app.clone().oneshot(request).await.unwrap().into_parts();
    body.collect().await.unwrap();
    assert_eq!(parts.status, expected);
    Response::from_parts(parts, ())
}

/// Asked without a credential.
#[divan::bench]
fn payment_required(bencher: Bencher<'_, '_>) {
    let (runtime, app) = (runtime(), app());
    bencher.with_inputs(unpaid).bench_local_values(|request| {
        runtime.block_on(answer(&app, request, StatusCode::PAYMENT_REQUIRED))
    });
}

fn with_page() -> Router {
    let page = Page::new(Look::new().title("Example")).unwrap();
    app_with(|layer| layer.page(page))
}

/// Asked by a program, where a browser would get a page.
#[divan::bench]
fn payment_required_beside_a_page(bencher: Bencher<'_, '_>) {
    let (runtime, app) = (runtime(), with_page());
    let asked = || {
        let mut request = unpaid();
        let anything = header::HeaderValue::from_static("application/json, */*;q=0.5");
        request.headers_mut().insert(header::ACCEPT, anything);
        request
    };
    bencher.with_inputs(asked).bench_local_values(|request| {
        runtime.block_on(answer(&app, request, StatusCode::PAYMENT_REQUIRED))
    });
}

/// Asked by a browser.
#[divan::bench]
fn page(bencher: Bencher<'_, '_>) {
    let (runtime, app) = (runtime(), with_page());
    let asked = || {
        let mut request = unpaid();
        let browser = header::HeaderValue::from_static("text/html, */*;q=0.8");
        request.headers_mut().insert(header::ACCEPT, browser);
        request
    };
    bencher.with_inputs(asked).bench_local_values(|request| {
        runtime.block_on(answer(&app, request, StatusCode::PAYMENT_REQUIRED))
    });
}

/// Paid for, each with a token of its own; asking is not counted.
#[divan::bench]
fn paid(bencher: Bencher<'_, '_>) {
    let (runtime, app) = (runtime(), app());
    let mut tokens = 0u64;
    let paying = || {
        tokens += 1;
        let asked = runtime.block_on(answer(&app, unpaid(), StatusCode::PAYMENT_REQUIRED));
        let challenge = asked.headers()[header::WWW_AUTHENTICATE].to_str().unwrap();
        let token = format!("t-{tokens}");
        let credential = wire::Credential {
            challenge: wire::Challenge::parse_one(challenge).unwrap(),
            payload: wire::Payload::from_value(&Token { token }).unwrap(),
            source: None,
        };
        let mut request = unpaid();
        let value = credential.to_header().unwrap().parse().unwrap();
        request.headers_mut().insert(header::AUTHORIZATION, value);
        request
    };
    bencher
        .with_inputs(paying)
        .bench_local_values(|request| runtime.block_on(answer(&app, request, StatusCode::OK)));
}
