//! A shop with two rails, a scriptable handler, and requests to it.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, AtomicU16, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{HeaderMap, Request, StatusCode, header::AUTHORIZATION},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use farebox_client::{Budget, Limit, Purse};
use farebox_core::{
    Offer, Store, Typed, compose,
    prelude::*,
    wire::{Credential, Payload, ProblemDetails, Receipt, SecretRing, Timestamp},
};
use farebox_engine::{Clock, Engine, EngineBuilder, Gate, MemoryStore};
use farebox_http::{Payment, PaymentLayer};
use farebox_testkit::{Proxy, Switch};
use serde_json::json;

use crate::rails::{Bank, Minter, PrepaidRail, TokenRail};

pub const REALM: &str = "shop.example";

/// How long what must come is waited for: as long as any machine may need.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What the handler saw and what it should do.
#[derive(Default)]
pub struct Desk {
    pub calls: AtomicUsize,
    pub status: AtomicU16,
    pub seen: Mutex<Vec<HeaderMap>>,
}

/// A shop on loopback.
pub struct Shop {
    pub bank: Arc<Bank>,
    pub desk: Arc<Desk>,
    pub now: Arc<AtomicI64>,
    pub store: Arc<Proxy<MemoryStore, Switch>>,
    pub engine: Engine,
    methods: Vec<Arc<dyn farebox_core::Method>>,
    pub address: SocketAddr,
}

async fn joke(
    State(desk): State<Arc<Desk>>,
    payment: Payment,
    headers: HeaderMap,
    body: String,
) -> Response {
    desk.calls.fetch_add(1, SeqCst);
    desk.seen.lock().unwrap().push(headers);
    let status = StatusCode::from_u16(desk.status.load(SeqCst)).unwrap_or(StatusCode::OK);
    let text = format!("{}|{}", payment.receipt.method, body);
    (
        status,
        [
            ("cache-control", "public, max-age=60"),
            ("payment-receipt", "forged"),
        ],
        text,
    )
        .into_response()
}

impl Shop {
    pub async fn open() -> Self {
        Self::waiting(PATIENCE).await
    }

    /// One that waits so long for a settlement.
    pub async fn waiting(patience: Duration) -> Self {
        let bank = Arc::new(Bank::default());
        let now = Arc::new(AtomicI64::new(Timestamp::now().unix_millis()));
        let clock = now.clone();
        let store = Arc::new(Proxy::new(Arc::default(), Switch::default()));
        let clock = Clock::from_fn(move || clock.load(SeqCst));
        let engine = builder(REALM, store.clone(), clock)
            .settle_deadline(patience)
            .build()
            .unwrap();
        let methods: Vec<Arc<dyn farebox_core::Method>> = vec![
            Arc::new(Typed::<_, Charge>::new(TokenRail(bank.clone()))),
            Arc::new(Typed::<_, Charge>::new(PrepaidRail(bank.clone()))),
        ];
        let desk = Arc::new(Desk::default());
        let mut shop = Self {
            bank,
            desk,
            now,
            store,
            engine,
            methods,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
        };
        let router = shop.router();
        shop.address = serve(router).await;
        shop
    }

    pub fn router(&self) -> Router {
        let paid = |route: &str| PaymentLayer::new(self.gate(route));
        Router::new()
            .route("/joke", get(joke).layer(paid("GET /joke")))
            .route("/poem", get(joke).layer(paid("GET /poem")))
            .route("/ask", post(joke).layer(paid("POST /ask")))
            .with_state(self.desk.clone())
    }

    pub fn gate(&self, route: &str) -> Gate {
        self.gate_of(&self.engine, route)
    }

    pub fn gate_of(&self, engine: &Engine, route: &str) -> Gate {
        let offers = self
            .methods
            .iter()
            .map(|method| Offer::new::<Charge>(method.clone(), ChargeTerms::amount("5")).unwrap());
        engine.gate(route, compose(offers).unwrap()).unwrap()
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn purse(&self) -> Purse {
        let limit = Limit::per_request("pts", Amount::new(10)).total(Amount::new(1000));
        let now = self.now.clone();
        Purse::new(Budget::new([limit]))
            .wallet::<Charge, _>(Minter::<false>(self.bank.clone()))
            .wallet::<Charge, _>(Minter::<true>(self.bank.clone()))
            .clock(move || Timestamp::from_unix_millis(now.load(SeqCst)))
    }

    pub fn moved(&self) -> usize {
        self.bank.moved.load(SeqCst)
    }

    pub fn calls(&self) -> usize {
        self.desk.calls.load(SeqCst)
    }

    /// Waits, with a deadline, for what another task is about to do.
    pub async fn until(&self, what: impl Fn(&Self) -> bool) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !what(self) {
            assert!(tokio::time::Instant::now() < deadline, "it did not happen");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// A challenge for `path`, on `rail`.
    pub async fn challenge(&self, path: &str, rail: &str) -> Challenge {
        let client = reqwest::Client::new();
        let request = match path {
            "/ask" => client.post(self.url(path)).body("why?"),
            _ => client.get(self.url(path)),
        };
        Answer::of(request).await.challenge(rail)
    }

    pub async fn get(&self, path: &str, credential: &Credential) -> Answer {
        let request = reqwest::Client::new().get(self.url(path));
        Answer::of(request.header(AUTHORIZATION, credential.to_header().unwrap())).await
    }
}

fn builder(realm: &str, store: Arc<dyn Store>, clock: Clock) -> EngineBuilder {
    let secrets = SecretRing::new(["0123456789abcdef0123456789abcdef".to_owned().into()]).unwrap();
    Engine::builder(realm, secrets, store).clock(clock)
}

pub fn engine(realm: &str, store: Arc<dyn Store>, clock: Clock) -> Engine {
    let builder = builder(realm, store, clock);
    builder.settle_deadline(PATIENCE).build().unwrap()
}

pub async fn serve(router: Router) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    address
}

pub fn pay(challenge: &Challenge, token: &str) -> Credential {
    let payload = Payload::from_value(&json!({ "token": token })).unwrap();
    Credential {
        challenge: challenge.clone(),
        payload,
        source: None,
    }
}

/// A response, checked for what holds of every response of a paid route.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: String,
}

impl Answer {
    pub async fn of(request: reqwest::RequestBuilder) -> Self {
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Self {
            status,
            headers,
            body: response.text().await.unwrap(),
        }
        .checked()
    }

    pub async fn of_response(response: Response) -> Self {
        let (parts, body) = response.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        let body = String::from_utf8(body.to_vec()).unwrap();
        Self {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body,
        }
        .checked()
    }

    fn checked(self) -> Self {
        let challenges = self.headers.get_all("www-authenticate").iter().count();
        assert_eq!(
            challenges > 0,
            matches!(self.status, 402 | 410),
            "challenges on 402 and 410 and nowhere else: {self:?}"
        );
        let receipt = self.headers.contains_key("payment-receipt");
        assert_eq!(
            receipt,
            (200..300).contains(&self.status),
            "receipts on 2xx only: {self:?}"
        );
        if let Some(problem) = self.problem() {
            assert_eq!(problem.status, self.status);
            assert_eq!(self.header("cache-control"), "no-store");
            assert_eq!(problem.challenge_id.is_some(), challenges > 0);
            for secret in ["10.0.0.7", "/var/lib", "good-"] {
                assert!(!self.body.contains(secret), "internals in {self:?}");
            }
        }
        self
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    pub fn problem(&self) -> Option<ProblemDetails> {
        let kind = self.headers.get("content-type")?;
        (kind == "application/problem+json").then(|| serde_json::from_str(&self.body).unwrap())
    }

    /// The last part of the problem type.
    pub fn kind(&self) -> String {
        let problem = self.problem().unwrap();
        problem
            .problem_type
            .trim_start_matches("https://paymentauth.org/problems/")
            .to_owned()
    }

    pub fn challenges(&self) -> Vec<Challenge> {
        let lines = self.headers.get_all("www-authenticate").iter();
        lines
            .map(|line| Challenge::parse_one(line.to_str().unwrap()).unwrap())
            .collect()
    }

    pub fn challenge(&self, rail: &str) -> Challenge {
        self.challenges()
            .into_iter()
            .find(|c| c.method == rail)
            .unwrap()
    }

    pub fn receipt(&self) -> Receipt {
        Receipt::parse(self.header("payment-receipt")).unwrap()
    }

    /// Refused with a fresh challenge, as `kind`.
    #[track_caller]
    pub fn is_refused(&self, kind: &str, old: &Challenge) {
        assert_eq!((self.status, self.kind().as_str()), (402, kind), "{self:?}");
        assert!(self.challenges().iter().all(|fresh| fresh.id != old.id));
    }
}

pub fn empty_get(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).unwrap()
}
