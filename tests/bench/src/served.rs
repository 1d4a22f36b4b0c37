//! A paid route behind axum, in process: the 402, and the paid request. The rail is a stub on both
//! sides, which takes a token for good once; the rest is what each library does for its users.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{Router, body::Body, response::Response, routing::get};
use farebox_core::{Offer, Typed, compose, prelude::*};
use farebox_engine::{Engine, MemoryStore};
use farebox_http::{Payment, PaymentLayer};
use farebox_wire::{Challenge as WireChallenge, Credential, Payload};
use http::{Request, StatusCode, header};
use http_body_util::BodyExt as _;
use mpp::{
    server::{
        Mpp, StripeChargeMethod, StripeConfig,
        axum::{ChallengeOptions, ChargeChallenger, ChargeConfig, MppCharge, WithReceipt},
        stripe,
    },
    store::Store as _,
};
use tokio::runtime::Runtime;
use tower::ServiceExt as _;

use crate::{
    Comparison, Work,
    codec::{REALM, SECRET, ring},
};

const PRICE: &str = "0.10";
const NETWORK: &str = "profile_1";
const BODY: &str = "paid";

pub(crate) fn all() -> Vec<Comparison> {
    vec![
        Comparison {
            name: "axum: 402",
            ours: unpaid(our_app),
            theirs: unpaid(their_app),
            target: Some(3.0),
        },
        Comparison {
            name: "axum: paid 200",
            ours: paid(our_app),
            theirs: paid(their_app),
            target: Some(3.0),
        },
    ]
}

fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().build().expect("a runtime")
}

fn request() -> http::request::Builder {
    Request::get("/joke").header(header::HOST, REALM)
}

/// Serves the requests and reads the answers; the time for both.
fn serve(
    runtime: &Runtime,
    app: &Router,
    requests: Vec<Request<Body>>,
    expected: StatusCode,
) -> (Duration, Vec<Response<()>>) {
    runtime.block_on(async {
        let mut answers = Vec::with_capacity(requests.len());
        let start = Instant::now();
        for request in requests {
            let answer = app.clone().oneshot(request).await.expect("infallible");
            let (parts, body) = answer.into_parts();
            body.collect().await.expect("a body");
            answers.push(Response::from_parts(parts, ()));
        }
        let took = start.elapsed();
        assert!(answers.iter().all(|answer| answer.status() == expected));
        (took, answers)
    })
}

fn unpaid(app: fn() -> Router) -> Work {
    let runtime = runtime();
    let app = app();
    Box::new(move |count| {
        let requests = (0..count).map(|_| request().body(Body::empty()).expect("a request"));
        let (took, _) = serve(
            &runtime,
            &app,
            requests.collect(),
            StatusCode::PAYMENT_REQUIRED,
        );
        took
    })
}

/// Each request pays a challenge of its own with a token of its own.
fn paid(app: fn() -> Router) -> Work {
    let runtime = runtime();
    let app = app();
    let mut tokens = 0u64;
    Box::new(move |count| {
        let requests = (0..count).map(|_| request().body(Body::empty()).expect("a request"));
        let (_, answers) = serve(
            &runtime,
            &app,
            requests.collect(),
            StatusCode::PAYMENT_REQUIRED,
        );
        let requests: Vec<_> = answers
            .iter()
            .map(|answer| {
                tokens += 1;
                let challenge = answer.headers()[header::WWW_AUTHENTICATE]
                    .to_str()
                    .expect("text");
                let credential = credential(challenge, &format!("spt_{tokens}"));
                let request = request().header(header::AUTHORIZATION, credential);
                request.body(Body::empty()).expect("a request")
            })
            .collect();
        let (took, answers) = serve(&runtime, &app, requests, StatusCode::OK);
        assert!(
            answers
                .iter()
                .all(|a| a.headers().contains_key("payment-receipt"))
        );
        took
    })
}

fn credential(challenge: &str, token: &str) -> String {
    let payload = Token {
        spt: token.to_owned(),
    };
    let credential = Credential {
        challenge: WireChallenge::parse_one(challenge).expect("a challenge"),
        payload: Payload::from_value(&payload).expect("an object"),
        source: None,
    };
    credential.to_header().expect("a credential")
}

#[derive(Serialize, Deserialize)]
struct Token {
    spt: String,
}

// Farebox.

struct Stub;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Details {
    network_id: String,
    payment_method_types: Vec<String>,
}

impl Rail<Charge> for Stub {
    const METHOD: &'static str = "stripe";
    type Details = Details;
    type Payload = Token;
    type Settler = NoSettler;

    async fn quote(&self, terms: &ChargeTerms) -> Result<Quote<Charge, Details>, NoQuote> {
        let amount = Amount::from_decimal(&terms.amount, 2)
            .map_err(|e| Fault::new("reading an amount").caused_by(e))?;
        let request = ChargeRequest {
            amount,
            currency: "usd".to_owned(),
            recipient: None,
            description: terms.description.clone(),
            external_id: terms.external_id.clone(),
        };
        let details = Details {
            network_id: NETWORK.to_owned(),
            payment_method_types: vec!["card".to_owned()],
        };
        Ok(Quote::new(request, details))
    }

    async fn verify(
        &self,
        _: &Presented<'_>,
        _: &Ask<Charge, Details>,
        payload: Token,
    ) -> Result<Plan<Once, Never>, Refusal> {
        Ok(Plan::paid(ProofKey::of("stripe", &payload.spt), "pi_1"))
    }

    fn settler(&self) -> &NoSettler {
        &NoSettler
    }
}

fn our_app() -> Router {
    let engine = Engine::builder(REALM, ring(), Arc::new(MemoryStore::new()))
        .build()
        .expect("an engine");
    let method = Arc::new(Typed::<Stub, Charge>::new(Stub));
    let offer = Offer::new::<Charge>(method, ChargeTerms::amount(PRICE)).expect("an offer");
    let gate = engine
        .gate("GET /joke", compose([offer]).expect("offers"))
        .expect("a gate");
    async fn handler(payment: Payment) -> &'static str {
        assert_eq!(payment.receipt.reference, "pi_1");
        BODY
    }
    Router::new().route("/joke", get(handler).layer(PaymentLayer::new(gate)))
}

// mpp: its own Stripe server issues; a stub takes the token, remembering it in its own store. The
// glue between the two does what the library's own does for the methods it ships.

#[derive(Clone)]
struct TheirStub(Arc<mpp::MemoryStore>);

impl mpp::ChargeMethod for TheirStub {
    fn method(&self) -> &str {
        "stripe"
    }

    fn verify(
        &self,
        credential: &mpp::PaymentCredential,
        _: &mpp::ChargeRequest,
    ) -> impl Future<Output = Result<mpp::Receipt, mpp::VerificationError>> + Send {
        let token = credential.payload_as::<Token>();
        async move {
            let token = token.map_err(|e| mpp::VerificationError::new(e.to_string()))?;
            let new = self.0.put_if_absent(&token.spt, true.into()).await;
            match new {
                Ok(true) => Ok(mpp::Receipt::success("stripe", "pi_1")),
                Ok(false) => Err(mpp::VerificationError::credential_replayed("used")),
                Err(e) => Err(mpp::VerificationError::internal(e.to_string())),
            }
        }
    }
}

struct Glue {
    issuer: Mpp<StripeChargeMethod>,
    verifier: Mpp<TheirStub>,
}

type Verifying<E> = std::pin::Pin<Box<dyn Future<Output = Result<mpp::Receipt, E>> + Send>>;

impl ChargeChallenger for Glue {
    fn challenge(
        &self,
        amount: &str,
        options: ChallengeOptions,
    ) -> Result<mpp::PaymentChallenge, String> {
        self.issuer.challenge(amount, options)
    }

    fn verify_payment(&self, _: &str) -> Verifying<String> {
        Box::pin(async { Err("the extractor verifies for a route".to_owned()) })
    }

    fn verify_payment_for_route_with_realm(
        &self,
        credential: &str,
        amount: &str,
        scope: Option<serde_json::Value>,
        _: Option<&[u8]>,
        realm: Option<&str>,
    ) -> Verifying<mpp::MppError> {
        let options = ChallengeOptions {
            mppx_scope: scope,
            request_realm: realm.map(str::to_owned),
            ..ChallengeOptions::default()
        };
        let prepared = mpp::parse_authorization(credential).and_then(|credential| {
            let expected = self
                .issuer
                .challenge(amount, options)
                .map_err(mpp::MppError::Internal)?;
            let expected: mpp::ChargeRequest = expected.request.decode()?;
            Ok((credential, expected))
        });
        let verifier = self.verifier.clone();
        Box::pin(async move {
            let (credential, expected) = prepared?;
            let verified = verifier.verify_credential_with_expected_request(&credential, &expected);
            Ok(verified.await?)
        })
    }
}

struct Price;

impl ChargeConfig for Price {
    fn amount() -> &'static str {
        PRICE
    }
}

fn their_app() -> Router {
    let config = StripeConfig {
        secret_key: "sk_test_none",
        network_id: NETWORK,
        payment_method_types: &["card"],
        currency: "usd",
        decimals: 2,
    };
    let builder = stripe(config).realm(REALM).secret_key(SECRET);
    let stub = TheirStub(Arc::new(mpp::MemoryStore::new()));
    let glue = Glue {
        issuer: Mpp::create_stripe(builder).expect("a server"),
        verifier: Mpp::new(stub, REALM, SECRET),
    };
    async fn handler(charge: MppCharge<Price>) -> WithReceipt<&'static str> {
        assert_eq!(charge.receipt.reference, "pi_1");
        WithReceipt {
            receipt: charge.receipt,
            body: BODY,
        }
    }
    let state: Arc<dyn ChargeChallenger> = Arc::new(glue);
    Router::new().route("/joke", get(handler)).with_state(state)
}
