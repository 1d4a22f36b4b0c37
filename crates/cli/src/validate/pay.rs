//! Paying once, and presenting the credential in every place that says something.

use std::{sync::Arc, time::Duration};

use farebox::{
    client::{Origin, Payment, Purse},
    config::Wallets,
    wire::{Challenge, Encoded, Receipt},
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header::RETRY_AFTER};
use reqwest::Url;
use serde_json::{Value, json};

use super::{
    Finding,
    probe::{Answer, Site, credential_header},
    read::Seen,
    skip,
};
use crate::{
    args::Validate,
    failure::Failure,
    request::{Max, Prepared, budget, challenges, wallets},
};

/// How often a credential is presented while the server says that it is not done, or nothing.
const ATTEMPTS: u32 = 5;

/// Whether to pay, with what, and where else to try.
pub(crate) struct Paying {
    wallets: Option<Wallets>,
    max: Vec<Max>,
    other: Option<Url>,
}

/// What a payment led to.
pub(crate) struct Paid {
    pub(crate) challenge: Seen,
    /// What was paid, for the summary.
    pub(crate) cost: Value,
    /// A payment of less than was asked, for a challenge that says so.
    pub(crate) underpaid: Result<Arc<Answer>, Finding>,
    /// Before the credential was used: on another route, and with another body.
    pub(crate) other_route: Result<Arc<Answer>, Finding>,
    pub(crate) other_body: Result<Arc<Answer>, Finding>,
    pub(crate) answer: Arc<Answer>,
    /// The same credential again, and again with the `Idempotency-Key` that it first came with.
    pub(crate) replay: Result<Arc<Answer>, Finding>,
    pub(crate) keyed: Result<Arc<Answer>, Finding>,
}

impl Paying {
    pub(crate) fn new(args: &Validate, request: &Prepared) -> Result<Self, Failure> {
        let other = match &args.other {
            None => None,
            Some(text) => {
                let other = Prepared::parse_url(text)?;
                if other.origin() != request.url.origin() {
                    // A credential is as good as money.
                    return Err(Failure::usage("--other must be at the same origin as URL"));
                }
                Some(other)
            }
        };
        let wallet = &args.wallet;
        let wallets = match args.pay {
            true => Some(wallets(wallet.wallet.as_deref(), wallet.rail.as_deref())?),
            false => None,
        };
        let max = Max::all(&wallet.max)?;
        Ok(Self {
            wallets,
            max,
            other,
        })
    }

    /// Pays one challenge and presents the credential: where it does not belong, where it does, and
    /// there again.
    pub(crate) async fn pay(&self, site: &Site) -> Result<Paid, Finding> {
        let Some(wallets) = &self.wallets else {
            return skip("nothing was paid; --pay pays once");
        };
        let origin = origin(site);
        let underpaid = self.underpay(site, wallets, &origin).await;
        let fresh = ask(site).await?;
        let found = challenges(&fresh.headers);
        let purse = self.purse(wallets, &found)?;
        let payment = match purse.pay(&found, &origin).await {
            Ok(payment) => payment,
            Err(error) => return Err(unpaid(&error)),
        };
        let cost = payment.cost();
        let offer = payment.offer().to_string();
        let cost = json!({ "offer": offer, "amount": cost.amount, "currency": cost.currency });
        let paid = &payment.credential().challenge;
        let (seen, _) = fresh.challenges();
        let challenge = seen
            .into_iter()
            .find(|seen| seen.get("id") == Some(&paid.id));
        let (Some(challenge), Ok(with)) = (challenge, Credential::of(&payment)) else {
            payment.unknown();
            return Err(Finding::Wrong(
                "paid, and the credential fits no header".to_owned(),
            ));
        };

        let other_route = self.elsewhere(site, &with).await;
        let other_body = with.other_body(site, &challenge).await;
        let answer = with.present(site).await;
        let replay = with
            .send(site, &site.request, "the same credential again")
            .await;
        let keyed = with.send_keyed(site, "the same request again").await;
        match &answer {
            Ok(answer) if answer.status.is_success() => {
                let receipt = answer.receipt().and_then(|text| Receipt::parse(text).ok());
                payment.accepted(receipt.as_ref());
            }
            Ok(answer) if answer.status.is_client_error() => payment.not_accepted(),
            _ => payment.unknown(),
        }
        Ok(Paid {
            challenge,
            cost,
            underpaid,
            other_route,
            other_body,
            answer: answer?,
            replay,
            keyed,
        })
    }

    fn purse(&self, wallets: &Wallets, found: &[Challenge]) -> Result<Purse, Finding> {
        let budget = budget(found, &self.max).map_err(|failure| unpaid(&failure.message))?;
        let wallets = wallets.iter();
        Ok(wallets.fold(Purse::new(budget), |purse, (_, payer)| {
            purse.payer(payer.clone())
        }))
    }

    /// Pays one base unit where more is asked, or for a challenge prolonged where no less can be
    /// paid: with a proof as good as any, for a challenge that was never issued.
    async fn underpay(
        &self,
        site: &Site,
        wallets: &Wallets,
        origin: &Origin,
    ) -> Result<Arc<Answer>, Finding> {
        let fresh = ask(site).await?;
        let found: Vec<Challenge> = challenges(&fresh.headers)
            .into_iter()
            .filter_map(altered)
            .collect();
        let purse = self.purse(wallets, &found)?;
        let payment = match purse.pay(&found, origin).await {
            Ok(payment) => payment,
            Err(error) => return skip(format!("the wallet pays no altered challenge: {error}")),
        };
        let answer = match Credential::of(&payment) {
            Ok(with) => with.send(site, &site.request, "a payment of less").await,
            Err(finding) => Err(finding),
        };
        payment.not_accepted();
        answer
    }

    async fn elsewhere(&self, site: &Site, with: &Credential) -> Result<Arc<Answer>, Finding> {
        let Some(url) = self.other.clone() else {
            return skip("no other paid URL of this server is known; --other names one");
        };
        let other = Prepared {
            url,
            ..site.request.clone()
        };
        let asked = site.send(&other, HeaderMap::new(), "the other URL").await;
        match asked {
            Ok(asked) if asked.status == StatusCode::PAYMENT_REQUIRED => {
                with.send(site, &other, "the credential at the other URL")
                    .await
            }
            _ => skip("--other asks for no payment"),
        }
    }
}

fn unpaid(why: &dyn std::fmt::Display) -> Finding {
    Finding::Wrong(format!("nothing was paid: {why}"))
}

fn origin(site: &Site) -> Origin {
    let url = &site.request.url;
    let host = url.host_str().unwrap_or_default();
    let port = url.port_or_known_default().unwrap_or_default();
    Origin::new(url.scheme(), host, port)
}

async fn ask(site: &Site) -> Result<Arc<Answer>, Finding> {
    let what = "the request to pay for";
    site.send(&site.request, HeaderMap::new(), what).await
}

/// The challenge with other terms and the same id.
fn altered(mut challenge: Challenge) -> Option<Challenge> {
    let mut request = challenge.request.value();
    match request["amount"].as_str() {
        Some("0" | "1") | None => {
            challenge.expires = Some(challenge.expires?.plus(Duration::from_secs(60)));
        }
        Some(_) => {
            request["amount"] = "1".into();
            challenge.request = Encoded::encode(&request).ok()?;
        }
    }
    Some(challenge)
}

struct Credential {
    name: HeaderName,
    credential: HeaderValue,
    key: HeaderValue,
}

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// A key that nobody has used.
fn key() -> Result<HeaderValue, Finding> {
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes).map_err(|error| Finding::Skip(error.to_string()))?;
    let key: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    HeaderValue::from_str(&key).map_err(|error| Finding::Skip(error.to_string()))
}

impl Credential {
    fn of(payment: &Payment) -> Result<Self, Finding> {
        let credential = payment.credential();
        let fits = |text: &String| HeaderValue::from_str(text).ok();
        let value = credential.to_header().ok().as_ref().and_then(fits);
        let mut value =
            value.ok_or_else(|| Finding::Wrong("the credential fits no header".to_owned()))?;
        value.set_sensitive(true);
        let header = credential.challenge.header.map(|header| header.as_str());
        Ok(Self {
            name: credential_header(header),
            credential: value,
            key: key()?,
        })
    }

    async fn send(
        &self,
        site: &Site,
        request: &Prepared,
        what: &str,
    ) -> Result<Arc<Answer>, Finding> {
        let headers = HeaderMap::from_iter([(self.name.clone(), self.credential.clone())]);
        let mut request = request.clone();
        request.headers.remove(IDEMPOTENCY_KEY);
        site.send_free(&request, headers, what).await
    }

    async fn send_keyed(&self, site: &Site, what: &str) -> Result<Arc<Answer>, Finding> {
        let headers = HeaderMap::from_iter([
            (self.name.clone(), self.credential.clone()),
            (IDEMPOTENCY_KEY, self.key.clone()),
        ]);
        site.send_free(&site.request, headers, what).await
    }

    async fn other_body(&self, site: &Site, challenge: &Seen) -> Result<Arc<Answer>, Finding> {
        let Some(mut body) = site.request.body.clone().filter(|body| !body.is_empty()) else {
            return skip("the request has no body; -d gives it one");
        };
        if challenge.get("digest").is_none() {
            return skip("the challenge is not bound to the body");
        }
        body.extend_from_slice(b" and more");
        let other = Prepared {
            body: Some(body),
            ..site.request.clone()
        };
        self.send(site, &other, "the credential with another body")
            .await
    }

    /// Until the server knows: a lost answer and a 503 mean the same credential again.
    async fn present(&self, site: &Site) -> Result<Arc<Answer>, Finding> {
        let mut attempt = 1;
        loop {
            let answer = self.send_keyed(site, "the paid request").await;
            let wait = match &answer {
                Ok(answer) if answer.status == StatusCode::SERVICE_UNAVAILABLE => {
                    answer.text(RETRY_AFTER.as_str()).parse().unwrap_or(1)
                }
                Ok(_) => return answer,
                Err(_) => 1,
            };
            if attempt == ATTEMPTS {
                return answer;
            }
            attempt += 1;
            tokio::time::sleep(Duration::from_secs(wait.clamp(1, 10))).await;
        }
    }
}
