//! A Farebox server that sells to browsers, with its sandbox.

use std::sync::{
    Arc,
    atomic::{AtomicI64, AtomicUsize, Ordering::SeqCst},
};

use axum::{
    Router,
    extract::Request,
    http::{StatusCode, header},
    middleware::{Next, from_fn, map_response},
    response::IntoResponse as _,
    routing::{get, post},
};
use farebox::{
    Budget, Limit, OfferSpec, Server,
    core::Paying,
    engine::Clock,
    http::{Look, Page},
    wire::Challenge,
};
use farebox_sandbox_lightning::Lightning;
use farebox_sandbox_stripe::{Stripe, StripeConfig};
use farebox_sandbox_tempo::{Chain, PATH_USD, dev_account};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::watch};

use crate::goods;

/// Which rails a shop offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rails {
    /// Cards.
    Card,
    /// Cards, Lightning and Tempo.
    All,
}

/// A running shop. `/joke` costs half a dollar, and so do `/file`, a download that takes a while,
/// `/sound`, `/away`, which leads to `/there`, and `/bare`, the joke whose receipt gets lost.
/// `/joke/free` and `/there` are free, and `/worker.js` is the site's own service worker.
#[derive(Debug)]
pub struct Shop {
    /// Its address, without a slash at the end.
    pub url: String,
    /// The Stripe of the sandbox.
    pub stripe: Stripe,
    /// Its Lightning nodes.
    pub lightning: Lightning,
    /// Its chain.
    pub chain: Chain,
    /// By how many milliseconds the server's clock is ahead of the system's.
    pub ahead: Arc<AtomicI64>,
    /// How many more requests the handler fails.
    pub failures: Arc<AtomicUsize>,
    /// Before a payment is looked at.
    pub entrance: Door,
    /// Between a payment and what it buys.
    pub till: Door,
    left: Arc<AtomicUsize>,
    served: Arc<AtomicUsize>,
}

/// A place where payments wait while it is closed.
#[derive(Clone, Debug)]
pub struct Door(Arc<watch::Sender<bool>>);

impl Door {
    fn new() -> Self {
        Self(Arc::new(watch::Sender::new(true)))
    }

    /// Whoever comes waits.
    pub fn close(&self) {
        self.0.send_replace(false);
    }

    /// All go on.
    pub fn open(&self) {
        self.0.send_replace(true);
    }

    async fn pass(&self) {
        // The sender is here.
        drop(self.0.subscribe().wait_for(|open| *open).await);
    }
}

/// What is sold.
pub const JOKE: &str = "Why did the chicken cross the road?";

impl Shop {
    /// A shop with these rails.
    pub async fn open(rails: Rails) -> Self {
        Self::with(rails, StripeConfig::default()).await
    }

    /// The same, with a Stripe that behaves so.
    pub async fn with(rails: Rails, config: StripeConfig) -> Self {
        Self::looking(rails, config, Look::new().title("Corner Shop")).await
    }

    /// The same, with a page that looks so.
    pub async fn looking(rails: Rails, config: StripeConfig, look: Look) -> Self {
        let stripe = Stripe::start(config).await.unwrap();
        let lightning = Lightning::start(Default::default()).await.unwrap();
        let chain = Chain::start(Default::default()).await.unwrap();
        let seller = lightning.seller();
        let ahead = Arc::new(AtomicI64::new(0));
        let offset = ahead.clone();
        let system = Clock::system();
        let clock = Clock::from_fn(move || system.millis() + offset.load(SeqCst));
        let builder = Server::builder("127.0.0.1")
            .engine(move |engine| engine.clock(clock))
            .secret("a secret of 32 bytes, only for tests")
            .store("memory:")
            .rail(
                "stripe",
                json!({
                    "secret_key": stripe.secret_key(),
                    "network_id": "internal",
                    "api_base": stripe.url(),
                    "publishable_key": stripe.publishable_key(),
                    "stripe_js": stripe.stripe_js(),
                }),
            )
            .rail(
                "lightning",
                json!({
                    "backend": "lnd",
                    "endpoint": seller.endpoint(),
                    "tls_cert": { "file": seller.tls_cert_path() },
                    "macaroon": { "file": seller.invoice_macaroon_path() },
                    "network": "regtest",
                }),
            )
            .rail(
                "tempo",
                json!({
                    "rpc_url": chain.url(),
                    "chain_id": chain.chain_id(),
                    "currency": PATH_USD.to_string(),
                    "recipient": dev_account(2).unwrap().0.to_string(),
                }),
            );
        let server = builder.build().unwrap();
        let card = OfferSpec::new("stripe/charge", "0.50")
            .currency("usd")
            .description("A joke");
        let offers = match rails {
            Rails::Card => vec![card],
            Rails::All => vec![
                card,
                OfferSpec::new("lightning/charge", "21"),
                OfferSpec::new("tempo/charge", "0.01"),
            ],
        };
        let page = Page::new(look).unwrap();
        let paid = |route: &str| {
            let paid = server.paid(route, offers.clone()).unwrap();
            paid.page(page.clone())
        };
        let (served, failures) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (entrance, till) = (Door::new(), Door::new());
        let (count, fail, paid_for) = (served.clone(), failures.clone(), till.clone());
        let joke = move || async move {
            paid_for.pass().await;
            let fails = fail.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1));
            if fails.is_ok() {
                return StatusCode::BAD_GATEWAY.into_response();
            }
            count.fetch_add(1, SeqCst);
            // A page with a policy and a script of its own.
            let headers = [
                (header::CONTENT_TYPE, "text/html; charset=utf-8"),
                (header::CONTENT_SECURITY_POLICY, "script-src 'nonce-joke'"),
            ];
            let page = format!(
                "<!doctype html><title>Joke</title><p>{JOKE}</p><p id=end></p>\
                 <script nonce=joke>end.textContent = 'To get to the other side.'</script>"
            );
            (headers, page).into_response()
        };
        let left = Arc::new(AtomicUsize::new(0));
        let (leaving, entrance_of_app) = (left.clone(), entrance.clone());
        let app = Router::new()
            .route("/joke", get(joke.clone()).route_layer(paid("GET /joke")))
            .route("/joke/free", get(goods::free))
            .route("/worker.js", get(goods::worker))
            .route(
                "/bare",
                get(joke)
                    .route_layer(paid("GET /bare"))
                    .layer(map_response(goods::without_receipt)),
            )
            .route("/file", get(goods::file).route_layer(paid("GET /file")))
            .route("/sound", get(goods::sound).route_layer(paid("GET /sound")))
            .route("/away", get(goods::away).route_layer(paid("GET /away")))
            .route("/there", get(|| async { "You are there." }))
            .route(
                "/left",
                post(async move || {
                    leaving.fetch_add(1, SeqCst);
                }),
            )
            .layer(from_fn(move |request: Request, next: Next| {
                let entrance = entrance_of_app.clone();
                let has = |name| request.headers().contains_key(name);
                // What only prepares a payment has a credential, too.
                let pays =
                    (has("authorization") || has("payment-authorization")) && !has("farebox-page");
                async move {
                    if pays {
                        entrance.pass().await;
                    }
                    next.run(request).await
                }
            }));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self {
            url,
            stripe,
            lightning,
            chain,
            ahead,
            failures,
            entrance,
            till,
            left,
            served,
        }
    }

    /// The joke's address.
    pub fn joke(&self) -> String {
        format!("{}/joke", self.url)
    }

    /// Has a wallet on the sandbox pay a challenge of the page, and gives the payload that proves it.
    pub async fn pay(&self, rail: &str, challenge: &Value) -> Value {
        let (plugin, config) = match rail {
            "lightning" => {
                let agent = self.lightning.agent();
                let config = json!({
                    "backend": "lnd",
                    "endpoint": agent.endpoint(),
                    "tls_cert": { "file": agent.tls_cert_path() },
                    "macaroon": { "file": agent.admin_macaroon_path() },
                    "network": "regtest",
                });
                (&farebox::rails::lightning::CHARGE, config)
            }
            _ => {
                let (_, key) = dev_account(1).unwrap();
                let config = json!({
                    "private_key": key.to_bytes().to_string(),
                    "rpc_url": self.chain.url(),
                    "chain_id": self.chain.chain_id(),
                });
                (&farebox::rails::tempo::CHARGE, config)
            }
        };
        let challenge: Challenge = serde_json::from_value(challenge.clone()).unwrap();
        let wallet = plugin.wallet.unwrap()(&config).unwrap();
        let cx = Paying::new(&challenge, None);
        let cost = wallet.price(&cx).unwrap();
        let limit = Limit::per_request(cost.currency.clone(), cost.amount);
        let (approved, reservation) = Budget::new([limit]).approve(cost).unwrap();
        reservation.commit();
        wallet
            .pay(&cx, approved)
            .await
            .unwrap()
            .payload
            .decode()
            .unwrap()
    }

    /// Sends a signed transaction to the chain, and gives its hash once it is in a block.
    pub async fn broadcast(&self, raw: &str) -> String {
        let call = json!({
            "jsonrpc": "2.0", "id": 1, "method": "eth_sendRawTransactionSync", "params": [raw],
        });
        let answer = reqwest::Client::new().post(self.chain.url()).json(&call);
        let answer: Value = answer.send().await.unwrap().json().await.unwrap();
        answer["result"]["transactionHash"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    /// The account that [`pay`](Self::pay) pays from on the chain.
    pub fn payer(&self) -> String {
        dev_account(1).unwrap().0.to_string()
    }

    /// How many pages have said at `/left` that they are being left.
    pub fn left(&self) -> usize {
        self.left.load(SeqCst)
    }

    /// How often it was told.
    pub fn served(&self) -> usize {
        self.served.load(SeqCst)
    }
}
