//! One payment: what it opens, and what it must not open.

use std::{sync::Arc, time::Duration};

use farebox::{
    client::{Origin, Purse},
    config::Wallets,
    wire::Receipt,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header::RETRY_AFTER};
use reqwest::Url;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;

use crate::validate::{
    Check, Finding,
    Level::*,
    Verdict, ensure,
    probe::{Answer, Site, credential_header},
    read::{Seen, instant, object},
    skip,
};
use crate::{
    args::Validate,
    failure::Failure,
    request::{Max, Prepared, budget, challenges, wallets},
};

pub(crate) const CHECKS: &[Check] = &[
    Check::look("paid-opens", &["CHG-7"], Must, opens),
    Check::look("receipt-present", &["CORE-30"], Should, receipt_present),
    Check::look("receipt", &["CORE-31"], Must, receipt),
    Check::look(
        "receipt-tempo",
        &["TCHG-15", "TCHG-24"],
        Must,
        tempo_receipt,
    ),
    Check::look("receipt-stripe", &["STC-11"], Must, stripe_receipt),
    Check::look("receipt-lightning", &["LNC-20"], Must, lightning_receipt),
    Check::look("paid-private", &["CORE-60"], Must, private),
    Check::look("replay", &["CORE-53", "CHG-8"], Must, replay),
    Check::look("other-route", &["CORE-4"], Must, other_route),
    Check::look("other-body", &["CORE-18"], Must, other_body),
];

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
    challenge: Seen,
    /// What was paid, for the summary.
    pub(crate) cost: Value,
    /// Before the credential was used: on another route, and with another body.
    other_route: Result<Arc<Answer>, Finding>,
    other_body: Result<Arc<Answer>, Finding>,
    answer: Arc<Answer>,
    /// The same credential again.
    replay: Result<Arc<Answer>, Finding>,
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
        let unpaid = |why: String| Finding::Wrong(format!("nothing was paid: {why}"));
        let fresh = site
            .send(&site.request, HeaderMap::new(), "the request to pay for")
            .await?;
        let found = challenges(&fresh.headers);
        let budget = budget(&found, &self.max).map_err(|failure| unpaid(failure.message))?;
        let purse = wallets
            .iter()
            .fold(Purse::new(budget), |purse, (_, payer)| {
                purse.payer(payer.clone())
            });
        let url = &site.request.url;
        let host = url.host_str().unwrap_or_default();
        let port = url.port_or_known_default().unwrap_or_default();
        let origin = Origin::new(url.scheme(), host, port);
        let payment = match purse.pay(&found, &origin).await {
            Ok(payment) => payment,
            Err(error) => return Err(unpaid(error.to_string())),
        };
        let cost = payment.cost();
        let offer = payment.offer().to_string();
        let cost = json!({ "offer": offer, "amount": cost.amount, "currency": cost.currency });
        let paid = &payment.credential().challenge;
        let name = credential_header(paid.header.map(|header| header.as_str()));
        let (seen, _) = fresh.challenges();
        let challenge = seen
            .into_iter()
            .find(|seen| seen.get("id") == Some(&paid.id));
        let credential = payment.credential().to_header();
        let credential = credential
            .ok()
            .and_then(|text| HeaderValue::from_str(&text).ok());
        let (Some(challenge), Some(mut credential)) = (challenge, credential) else {
            payment.unknown();
            return Err(Finding::Wrong(
                "paid, and the credential fits no header".to_owned(),
            ));
        };
        credential.set_sensitive(true);
        let with = Credential { name, credential };

        let other_route = self.elsewhere(site, &with).await;
        let other_body = with.other_body(site, &challenge).await;
        let answer = with.present(site).await;
        let replay = with
            .send(site, &site.request, "the same credential again")
            .await;
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
            other_route,
            other_body,
            answer: answer?,
            replay,
        })
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

struct Credential {
    name: HeaderName,
    credential: HeaderValue,
}

impl Credential {
    async fn send(
        &self,
        site: &Site,
        request: &Prepared,
        what: &str,
    ) -> Result<Arc<Answer>, Finding> {
        let headers = HeaderMap::from_iter([(self.name.clone(), self.credential.clone())]);
        site.send_free(request, headers, what).await
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
            let answer = self.send(site, &site.request, "the paid request").await;
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

fn opens(site: &Site) -> Verdict {
    let paid = site.paid.as_ref().map_err(Clone::clone)?;
    let status = paid.answer.status;
    let elsewhere = [&paid.other_route, &paid.other_body];
    if !status.is_success() && elsewhere.iter().any(|tried| served(tried)) {
        return skip("what was paid for was served elsewhere");
    }
    ensure(status.is_success(), || {
        format!("paid, and answered {status} ({})", paid.answer.problem())
    })
}

fn served(tried: &Result<Arc<Answer>, Finding>) -> bool {
    tried
        .as_ref()
        .is_ok_and(|answer| answer.status.is_success())
}

/// The payment, if there was one; that there was none is said once.
fn paid(site: &Site) -> Result<&Paid, Finding> {
    let none = || Finding::Skip("nothing was paid".to_owned());
    site.paid.as_ref().map_err(|_| none())
}

fn receipt_present(site: &Site) -> Verdict {
    let paid = paid(site)?;
    if !paid.answer.status.is_success() {
        return skip("the payment opened nothing");
    }
    ensure(paid.answer.receipt().is_some(), || {
        "no Payment-Receipt".to_owned()
    })
}

/// The receipt's members.
fn members(paid: &Paid) -> Result<Map<String, Value>, Finding> {
    match paid.answer.receipt() {
        None => skip("no receipt"),
        Some(text) => object(text).map_err(|why| Finding::Wrong(format!("the receipt is {why}"))),
    }
}

fn text<'a>(members: &'a Map<String, Value>, name: &str) -> &'a str {
    members
        .get(name)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

fn receipt(site: &Site) -> Verdict {
    let paid = paid(site)?;
    let receipt = members(paid)?;
    let status = text(&receipt, "status");
    ensure(status == "success", || format!("the status is {status:?}"))?;
    let (method, wanted) = (text(&receipt, "method"), paid.challenge.get("method"));
    ensure(Some(method) == wanted, || {
        format!("the method is {method:?}, and {wanted:?} was paid")
    })?;
    ensure(!text(&receipt, "reference").is_empty(), || {
        "no reference".to_owned()
    })?;
    let at = instant(text(&receipt, "timestamp"))
        .map_err(|why| Finding::Wrong(format!("the timestamp {why}")))?;
    match (OffsetDateTime::now_utc() - at).abs() < time::Duration::minutes(10) {
        true => Ok(()),
        false => Err(Finding::Warn(format!(
            "the timestamp {at} is not of today's clock"
        ))),
    }
}

/// The receipt of a charge on this rail, the challenge's request, and the reference.
fn charged(site: &Site, method: &str) -> Result<(Map<String, Value>, String), Finding> {
    let paid = paid(site)?;
    let of = |name| paid.challenge.get(name);
    if of("method") != Some(method) || of("intent") != Some("charge") {
        return skip(format!("not paid on {method}/charge"));
    }
    let reference = text(&members(paid)?, "reference").to_owned();
    let request = paid.challenge.request().map_err(Finding::Skip)?;
    Ok((request, reference))
}

fn is_hash(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// A transaction, or for nothing paid the challenge.
fn tempo_receipt(site: &Site) -> Verdict {
    let (request, reference) = charged(site, "tempo")?;
    let challenge = paid(site)?.challenge.get("id").unwrap_or_default();
    let fits = match text(&request, "amount") {
        "0" => reference == challenge,
        _ => reference.strip_prefix("0x").is_some_and(is_hash),
    };
    ensure(fits, || format!("the reference is {reference:?}"))
}

fn stripe_receipt(site: &Site) -> Verdict {
    let (_, reference) = charged(site, "stripe")?;
    ensure(reference.starts_with("pi_"), || {
        format!("the reference {reference:?} is no PaymentIntent")
    })
}

/// The payment's hash and the challenge, and never the preimage.
fn lightning_receipt(site: &Site) -> Verdict {
    let (request, reference) = charged(site, "lightning")?;
    let paid = paid(site)?;
    let hash = request
        .get("methodDetails")
        .map(|details| &details["paymentHash"]);
    let hash = hash.and_then(Value::as_str).unwrap_or_default();
    let hashed = hex(&reference).map(|bytes| Sha256::digest(bytes).to_vec());
    ensure(hashed.is_none() || hashed != hex(hash), || {
        "the reference is the preimage".to_owned()
    })?;
    ensure(
        is_hash(&reference) && (hash.is_empty() || reference == hash),
        || format!("the reference {reference:?} is not the payment hash"),
    )?;
    let named = text(&members(paid)?, "challengeId").to_owned();
    ensure(paid.challenge.get("id") == Some(named.as_str()), || {
        format!("the challengeId is {named:?}")
    })
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes().chunks(2);
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    digits.map(byte).collect()
}

fn private(site: &Site) -> Verdict {
    let paid = paid(site)?;
    if paid.answer.receipt().is_none() {
        return skip("no receipt");
    }
    ensure(paid.answer.caches("private"), || {
        format!("Cache-Control is {:?}", paid.answer.text("cache-control"))
    })?;
    match paid.answer.caches("public") {
        false => Ok(()),
        true => Err(Finding::Warn("Cache-Control says `public` too".to_owned())),
    }
}

/// No resource and no receipt; a 403 without a challenge, because a payer whose reply was lost
/// would pay a new challenge for one thing twice.
fn replay(site: &Site) -> Verdict {
    let paid = paid(site)?;
    if !paid.answer.status.is_success() {
        return skip("the payment opened nothing");
    }
    let replay = paid.replay.as_ref().map_err(Clone::clone)?;
    unserved(replay)?;
    let asks = !replay.challenges().0.is_empty();
    match (replay.status, asks) {
        (StatusCode::FORBIDDEN, false) => Ok(()),
        (status, true) => Err(Finding::Warn(format!(
            "answered {status} with a challenge: a payer whose reply was lost pays twice"
        ))),
        (status, false) => Err(Finding::Warn(format!("answered {status}, and not 403"))),
    }
}

fn unserved(answer: &Answer) -> Verdict {
    ensure(!answer.status.is_success(), || {
        format!("served ({})", answer.status)
    })?;
    ensure(answer.receipt().is_none(), || "got a receipt".to_owned())
}

fn other_route(site: &Site) -> Verdict {
    misplaced(&paid(site)?.other_route)
}

fn other_body(site: &Site) -> Verdict {
    misplaced(&paid(site)?.other_body)
}

/// Refused as a challenge that is not for this request.
fn misplaced(tried: &Result<Arc<Answer>, Finding>) -> Verdict {
    let answer = tried.as_ref().map_err(Clone::clone)?;
    unserved(answer)?;
    match (answer.status, answer.problem().as_str()) {
        (StatusCode::PAYMENT_REQUIRED, "invalid-challenge") => Ok(()),
        (status, problem) => Err(Finding::Warn(format!(
            "answered {status} ({problem}), and not 402 (invalid-challenge)"
        ))),
    }
}
