//! Requests, many at once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Instant,
};

use farebox::{
    client::{Budget, Limit, Origin, Purse},
    config::Wallets,
    wire::{Amount, Challenge},
};
use farebox_sandbox_tempo::{Chain, PATH_USD, dev_account};
use http::{
    HeaderValue, StatusCode,
    header::{AUTHORIZATION, WWW_AUTHENTICATE},
};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::{Problem, server::Servers};

/// Whose credentials are presented.
pub(crate) const RAILS: [&str; 2] = ["proof", "tempo"];

/// Requests at once.
const AT_ONCE: usize = 32;

/// An agent with money for all of it.
pub(crate) struct Client {
    http: reqwest::Client,
    wallets: Wallets,
}

impl Client {
    pub(crate) fn new(chain: &Chain) -> Result<Self, Problem> {
        let (payer, key) = dev_account(1).ok_or("no such account")?;
        chain.mint(PATH_USD, payer, 1_000_000_000_000);
        let key = key.to_bytes().to_string();
        let tables = json!({
            "tempo": { "private_key": key, "rpc_url": chain.url(), "chain_id": chain.chain_id() },
            "proof": { "private_key": key },
        });
        let Value::Object(tables) = tables else {
            return Err("no tables".into());
        };
        Ok(Self {
            http: reqwest::Client::new(),
            wallets: Wallets::from_tables(tables, &farebox::registry()?)?,
        })
    }

    /// Requests a second, without a credential.
    pub(crate) async fn requests(
        &self,
        servers: &Servers,
        path: &str,
        count: usize,
    ) -> Result<f64, Problem> {
        let expected = match path {
            "/free" => StatusCode::OK,
            _ => StatusCode::PAYMENT_REQUIRED,
        };
        let url = |n: usize| {
            let server = &servers.addresses[n % servers.addresses.len()];
            (format!("http://{server}{path}"), None)
        };
        self.rate((0..count).map(url).collect(), expected).await
    }

    /// Paid requests a second. Each has a credential of its own, made beforehand.
    pub(crate) async fn paid(
        &self,
        servers: &Servers,
        rail: &str,
        count: usize,
    ) -> Result<f64, Problem> {
        let limit = Limit::per_request(PATH_USD.to_string().to_lowercase(), Amount::new(10_000));
        let name = format!("{rail}/charge");
        let purse = self
            .wallets
            .iter()
            .filter(|(wallet, _)| *wallet == name)
            .fold(Purse::new(Budget::new([limit])), |purse, (_, payer)| {
                purse.payer(payer.clone())
            });
        let mut requests = Vec::with_capacity(count);
        for n in 0..count {
            let server = &servers.addresses[n % servers.addresses.len()];
            let url = format!("http://{server}/{rail}");
            let asked = self.http.get(&url).send().await?;
            let headers = asked.headers().get_all(WWW_AUTHENTICATE);
            let challenges: Vec<Challenge> =
                Challenge::parse_all(headers.iter().map(HeaderValue::as_bytes))
                    .into_iter()
                    .collect::<Result<_, _>>()?;
            let port = server.rsplit(':').next().ok_or("no port")?.parse()?;
            let origin = Origin::new("http", "127.0.0.1", port);
            let payment = purse.pay(&challenges, &origin).await?;
            let credential = payment.credential().to_header()?;
            payment.accepted(None);
            // A process other than the one that asked, where there are several.
            let other = &servers.addresses[(n + 1) % servers.addresses.len()];
            requests.push((format!("http://{other}/{rail}"), Some(credential)));
        }
        self.rate(requests, StatusCode::OK).await
    }

    async fn rate(
        &self,
        requests: Vec<(String, Option<String>)>,
        expected: StatusCode,
    ) -> Result<f64, Problem> {
        let (requests, next) = (Arc::new(requests), Arc::new(AtomicUsize::new(0)));
        let started = Instant::now();
        let mut workers = JoinSet::new();
        for _ in 0..AT_ONCE {
            let (http, requests, next) = (self.http.clone(), requests.clone(), next.clone());
            workers.spawn(async move {
                while let Some((url, credential)) = requests.get(next.fetch_add(1, Relaxed)) {
                    let mut request = http.get(url);
                    if let Some(credential) = credential {
                        request = request.header(AUTHORIZATION, credential);
                    }
                    let response = request.send().await?;
                    let status = response.status();
                    let body = response.text().await?;
                    if status != expected {
                        return Err::<(), Problem>(format!("{url}: {status}: {body}").into());
                    }
                }
                Ok(())
            });
        }
        while let Some(worker) = workers.join_next().await {
            worker??;
        }
        Ok(requests.len() as f64 / started.elapsed().as_secs_f64())
    }
}
