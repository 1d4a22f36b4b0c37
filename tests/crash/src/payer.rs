//! A payer that pays once and asks until it is served.

use std::time::{Duration, Instant};

use farebox::{
    client::{Budget, ClientError, Limit, Origin, Purse},
    wire::{Amount, Challenge, Receipt},
};
use farebox_sandbox_tempo::PATH_USD;
use http::{
    HeaderValue, StatusCode,
    header::{AUTHORIZATION, WWW_AUTHENTICATE},
};

use crate::{Problem, World, world::path};

/// How long a payer keeps asking, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(300);

/// How long it waits for an answer. A request that hangs longer is one whose reply was lost.
const ANSWER: Duration = Duration::from_secs(60);

/// How long it waits between two tries: less than the server asks for, so that it comes at bad
/// moments too.
const PAUSE: Duration = Duration::from_millis(100);

/// One payer on one rail.
#[derive(Clone, Debug)]
pub struct Payer {
    client: reqwest::Client,
    purse: Purse,
    rail: String,
    address: String,
}

/// A credential that is paid for, and the key of the request it is for.
#[derive(Clone)]
pub struct Presented {
    credential: String,
    key: Option<String>,
    url: String,
}

/// What a payer got in the end.
#[derive(Clone, Debug)]
pub struct Bought {
    /// What the upstream answered.
    pub body: String,
    /// The receipt.
    pub receipt: Receipt,
    /// How often it had to ask.
    pub tries: usize,
    /// How long it took from the first try with the credential.
    pub waited: Duration,
}

impl Payer {
    /// A payer with the wallet of `rail`, asking at `address`.
    pub fn new(world: &World, rail: &str, address: &str) -> Result<Self, Problem> {
        let currencies = [
            PATH_USD.to_string().to_lowercase(),
            "usd".into(),
            "sat".into(),
        ];
        let budget = Budget::new(currencies.map(|c| Limit::per_request(c, Amount::new(20_000))));
        let purse = world
            .wallets()
            .iter()
            .filter(|(name, _)| *name == rail)
            .fold(Purse::new(budget), |purse, (_, payer)| {
                purse.payer(payer.clone())
            });
        Self::with(purse, rail, address)
    }

    /// A payer who pays with `purse` for `/rail` at `address`.
    pub fn with(purse: Purse, rail: &str, address: &str) -> Result<Self, Problem> {
        Ok(Self {
            client: reqwest::Client::builder().timeout(ANSWER).build()?,
            purse,
            rail: rail.to_owned(),
            address: address.to_owned(),
        })
    }

    fn url(&self) -> String {
        format!("http://{}{}", self.address, path(&self.rail))
    }

    /// Gets a challenge and pays it. `keyed`: with an `Idempotency-Key` for the request.
    pub async fn pay(&self, keyed: bool) -> Result<Presented, Problem> {
        let deadline = Instant::now() + PATIENCE;
        let port = self.address.rsplit(':').next().ok_or("no port")?.parse()?;
        let origin = Origin::new("http", "127.0.0.1", port);
        loop {
            let challenges = self.challenges().await;
            if !challenges.is_empty() {
                let payment = match self.purse.pay(&challenges, &origin).await {
                    Ok(payment) => payment,
                    // Nothing was paid; a stand-in was too busy to say what it needs.
                    Err(ClientError::NothingPayable(_)) if Instant::now() < deadline => continue,
                    Err(error) => return Err(error.into()),
                };
                let credential = payment.credential().to_header()?;
                payment.accepted(None);
                return Ok(Presented {
                    credential,
                    key: keyed.then(|| format!("{:032x}", fastrand::u128(..))),
                    url: self.url(),
                });
            }
            if Instant::now() > deadline {
                return Err(format!("{}: nobody asks for money", self.rail).into());
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// One request without a credential.
    pub async fn ask(&self) -> Result<reqwest::Response, reqwest::Error> {
        self.client.get(self.url()).send().await
    }

    async fn challenges(&self) -> Vec<Challenge> {
        let Ok(response) = self.ask().await else {
            return Vec::new();
        };
        if response.status() != StatusCode::PAYMENT_REQUIRED {
            return Vec::new();
        }
        let headers = response.headers().get_all(WWW_AUTHENTICATE);
        Challenge::parse_all(headers.iter().map(HeaderValue::as_bytes))
            .into_iter()
            .flatten()
            .collect()
    }

    /// One try with the credential.
    pub async fn present(&self, paid: &Presented) -> Result<reqwest::Response, reqwest::Error> {
        let mut request = self
            .client
            .get(&paid.url)
            .header(AUTHORIZATION, &paid.credential);
        if let Some(key) = &paid.key {
            request = request.header("idempotency-key", format!("\"{key}\""));
        }
        request.send().await
    }

    /// Presents until there is a 200. Any other answer than "come again" is a payer that was
    /// cheated.
    pub async fn collect(&self, paid: &Presented) -> Result<Bought, Problem> {
        match self.served(paid).await? {
            Some(bought) => Ok(bought),
            None => Err(format!("{}: paid, and asked to pay again", self.rail).into()),
        }
    }

    /// Presents until there is a 200. `None`: no money moved, pay again.
    async fn served(&self, paid: &Presented) -> Result<Option<Bought>, Problem> {
        let started = Instant::now();
        let mut tries = 0;
        loop {
            tries += 1;
            if let Ok(response) = self.present(paid).await {
                let status = response.status();
                let receipt = response.headers().get("payment-receipt").cloned();
                let challenged = response.headers().contains_key(WWW_AUTHENTICATE);
                let Ok(body) = response.text().await else {
                    continue;
                };
                match (status, receipt) {
                    (StatusCode::OK, Some(receipt)) => {
                        return Ok(Some(Bought {
                            body,
                            receipt: Receipt::parse(receipt.to_str()?)?,
                            tries,
                            waited: started.elapsed(),
                        }));
                    }
                    (status, _) if status.is_server_error() && !challenged => {}
                    (StatusCode::PAYMENT_REQUIRED, None) if challenged => return Ok(None),
                    (status, receipt) => {
                        return Err(format!(
                            "{}: paid, and got {status} (challenge: {challenged}, receipt: {}) \
                             at try {tries}: {body}",
                            self.rail,
                            receipt.is_some(),
                        )
                        .into());
                    }
                }
            }
            if started.elapsed() > PATIENCE {
                return Err(format!("{}: paid, and not served at try {tries}", self.rail).into());
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Presents until the payment is refused with a fresh challenge: no money moved.
    pub async fn refused(&self, paid: &Presented) -> Result<(), Problem> {
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            if let Ok(response) = self.present(paid).await {
                let status = response.status();
                if status == StatusCode::PAYMENT_REQUIRED {
                    return Ok(());
                }
                if !status.is_server_error() {
                    return Err(format!("{}: declined, and got {status}", self.rail).into());
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
        Err(format!("{}: nobody says that it was declined", self.rail).into())
    }

    /// Pays and collects, as [`finish`](Self::finish) does.
    pub async fn buy(&self) -> Result<Bought, Problem> {
        self.finish(self.pay(true).await?).await
    }

    /// Collects. Pays again where the server says that no money moved (one that is killed often
    /// enough, or is without its store for long, may miss the window of a transaction, which is
    /// 25 s): if it did, the books will show.
    pub async fn finish(&self, mut paid: Presented) -> Result<Bought, Problem> {
        for _ in 0..5 {
            if let Some(bought) = self.served(&paid).await? {
                return Ok(bought);
            }
            paid = self.pay(true).await?;
        }
        Err(format!("{}: asked to pay again and again", self.rail).into())
    }
}

impl Presented {
    /// The same, to be presented at another address.
    #[must_use]
    pub fn at(&self, address: &str) -> Self {
        let path = self.url.splitn(4, '/').nth(3).unwrap_or_default();
        Self {
            url: format!("http://{address}/{path}"),
            ..self.clone()
        }
    }
}

impl std::fmt::Debug for Presented {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Presented")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}
