//! Everything around the server under test.

use std::{
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use axum::{Router, extract::State, routing::get};
use farebox::config::Wallets;
use farebox_sandbox_lightning::Lightning;
use farebox_sandbox_stripe::{Stripe, StripeConfig};
use farebox_sandbox_tempo::{Chain, PATH_USD, dev_account};
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;

use crate::{Problem, books::Moved};

/// The rails, each with the price of its route: `/tempo` costs 0.01 pathUSD, and so on.
pub const RAILS: [(&str, &str); 4] = [
    ("tempo/charge", "0.01"),
    ("stripe/charge", "0.50"),
    ("lightning/charge", "21"),
    ("proof/charge", "0"),
];

/// Base units of a payment to `/tempo`.
const TEMPO_UNITS: u128 = 10_000;

/// The stand-ins, an upstream and wallets. Dropping it stops them.
#[derive(Debug)]
pub struct World {
    tempo: Chain,
    /// Public for the faults it can be told.
    pub stripe: Stripe,
    lightning: Lightning,
    wallets: Wallets,
    upstream: String,
    served: Arc<AtomicUsize>,
    before: u128,
}

impl World {
    /// Starts everything on free ports of this machine.
    pub async fn start() -> Result<Self, Problem> {
        Self::with(StripeConfig::default()).await
    }

    /// The same with a Stripe of another kind.
    pub async fn with(stripe: StripeConfig) -> Result<Self, Problem> {
        let tempo = Chain::start(Default::default()).await?;
        let stripe = Stripe::start(stripe).await?;
        let lightning = Lightning::start(Default::default()).await?;
        let (payer, key) = account(1)?;
        // The agent is not to run out of money before the test is over.
        tempo.mint(PATH_USD, payer.parse()?, 1_000_000_000_000);
        let agent = lightning.agent();
        let tables = json!({
            "tempo": { "private_key": key, "rpc_url": tempo.url(), "chain_id": tempo.chain_id() },
            "proof": { "private_key": key },
            "stripe": { "secret_key": stripe.secret_key(), "api_base": stripe.url() },
            "lightning": {
                "backend": "lnd",
                "endpoint": agent.endpoint(),
                "tls_cert": { "file": agent.tls_cert_path() },
                "macaroon": { "file": agent.admin_macaroon_path() },
                "network": "regtest",
            },
        });
        let wallets = Wallets::from_tables(table(tables), &farebox::registry()?)?;
        let served = Arc::new(AtomicUsize::new(0));
        let upstream = upstream(served.clone()).await?;
        let before = tempo.balance(PATH_USD, account(2)?.0.parse()?);
        Ok(Self {
            tempo,
            stripe,
            lightning,
            wallets,
            upstream,
            served,
            before,
        })
    }

    /// What buys, by rail.
    #[must_use]
    pub fn wallets(&self) -> &Wallets {
        &self.wallets
    }

    /// The configuration of a server that sells one route per rail, `/tempo` and so on.
    pub fn config(&self, listen: u16, store: &str, timing: Value) -> Result<Value, Problem> {
        let seller = self.lightning.seller();
        let recipient = account(2)?.0;
        let routes: Vec<Value> = RAILS
            .iter()
            .map(|(rail, amount)| {
                let mut offer = json!({ "rail": rail, "amount": amount });
                if *rail == "stripe/charge" {
                    offer["currency"] = json!("usd");
                }
                json!({ "path": path(rail), "upstream": self.upstream, "offers": [offer] })
            })
            .collect();
        Ok(json!({
            "listen": format!("127.0.0.1:{listen}"),
            "realm": "127.0.0.1",
            "secrets": ["a secret for tests only, of more than 32 bytes"],
            "store": store,
            "timing": timing,
            "rails": {
                "tempo": {
                    "rpc_url": self.tempo.url(),
                    "chain_id": self.tempo.chain_id(),
                    "currency": PATH_USD.to_string(),
                    "recipient": recipient,
                },
                "proof": {
                    "chain_id": self.tempo.chain_id(),
                    "currency": PATH_USD.to_string(),
                    "recipient": recipient,
                },
                "stripe": {
                    "secret_key": self.stripe.secret_key(),
                    "network_id": "internal",
                    "payment_method_types": ["card"],
                    "api_base": self.stripe.url(),
                },
                "lightning": {
                    "backend": "lnd",
                    "endpoint": seller.endpoint(),
                    "tls_cert": { "file": seller.tls_cert_path() },
                    "macaroon": { "file": seller.invoice_macaroon_path() },
                    "network": "regtest",
                },
            },
            "routes": routes,
        }))
    }

    /// How many payments the rails carried out so far. Proofs move nothing.
    pub fn moved(&self) -> Result<Moved, Problem> {
        let balance = self.tempo.balance(PATH_USD, account(2)?.0.parse()?);
        let units = balance - self.before;
        if !units.is_multiple_of(TEMPO_UNITS) {
            return Err(format!("{units} base units are no number of payments").into());
        }
        Ok(Moved {
            tempo: usize::try_from(units / TEMPO_UNITS)?,
            stripe: self.stripe.charged().len(),
            lightning: self.lightning.seller().settled().len(),
        })
    }

    /// How often the upstream served.
    #[must_use]
    pub fn served(&self) -> usize {
        self.served.load(SeqCst)
    }
}

/// The path that `rail` pays for: `/tempo`.
#[must_use]
pub(crate) fn path(rail: &str) -> String {
    format!("/{}", rail.split('/').next().unwrap_or(rail))
}

pub(crate) fn table(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(table) => table,
        _ => Map::new(),
    }
}

/// A development account: its address and its key.
pub(crate) fn account(index: usize) -> Result<(String, String), Problem> {
    let (address, key) = dev_account(index).ok_or("no such development account")?;
    Ok((address.to_string(), key.to_bytes().to_string()))
}

/// Answers every path with the number of the run, after a moment in which it can be killed.
pub(crate) async fn upstream(served: Arc<AtomicUsize>) -> Result<String, Problem> {
    async fn serve(State(served): State<Arc<AtomicUsize>>) -> String {
        tokio::time::sleep(Duration::from_millis(fastrand::u64(0..20))).await;
        format!("run {}\n", served.fetch_add(1, SeqCst) + 1)
    }
    let app = Router::new().fallback(get(serve)).with_state(served);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(format!("http://{address}"))
}
