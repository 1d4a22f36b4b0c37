//! A Farebox server that sells to browsers, with its sandbox.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use axum::{
    Router,
    http::{StatusCode, header},
    response::IntoResponse as _,
    routing::get,
};
use farebox::{
    OfferSpec, Server,
    http::{Look, Page},
};
use farebox_sandbox_lightning::Lightning;
use farebox_sandbox_stripe::{Stripe, StripeConfig};
use farebox_sandbox_tempo::{Chain, PATH_USD, dev_account};
use serde_json::json;
use tokio::net::TcpListener;

/// Which rails a shop offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rails {
    /// Cards.
    Card,
    /// Cards, Lightning and Tempo.
    All,
}

/// A running shop. `/joke` costs half a dollar.
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
    /// How many more requests the handler fails.
    pub failures: Arc<AtomicUsize>,
    served: Arc<AtomicUsize>,
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
        let stripe = Stripe::start(config).await.unwrap();
        let lightning = Lightning::start(Default::default()).await.unwrap();
        let chain = Chain::start(Default::default()).await.unwrap();
        let seller = lightning.seller();
        let builder = Server::builder("127.0.0.1")
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
        let paid = server
            .paid("GET /joke", offers)
            .unwrap()
            .page(Page::new(Look::new()).unwrap());
        let (served, failures) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (count, fail) = (served.clone(), failures.clone());
        let joke = move || async move {
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
        let app = Router::new().route("/joke", get(joke).route_layer(paid));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self {
            url,
            stripe,
            lightning,
            chain,
            failures,
            served,
        }
    }

    /// The joke's address.
    pub fn joke(&self) -> String {
        format!("{}/joke", self.url)
    }

    /// How often it was told.
    pub fn served(&self) -> usize {
        self.served.load(SeqCst)
    }
}
