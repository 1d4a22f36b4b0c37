//! One payment: what it opens, and what it must not open.

use std::sync::Arc;

use http::StatusCode;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;

use crate::validate::{
    Check, Finding,
    Level::*,
    Verdict, ensure,
    pay::Paid,
    probe::{Answer, Site},
    read::{instant, object},
    skip,
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
    Check::look("underpaid", &["CHG-7", "CORE-11"], Must, underpaid),
    Check::look("replay", &["CORE-53", "CHG-8"], Must, replay),
    Check::look("replay-with-key", &["CORE-55"], Should, replay_with_key),
    Check::look("other-route", &["CORE-4"], Must, other_route),
    Check::look("other-body", &["CORE-18"], Must, other_body),
];

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

/// Who repeats a request under its key gets the first answer, and pays nothing more.
fn replay_with_key(site: &Site) -> Verdict {
    let paid = paid(site)?;
    if !paid.answer.status.is_success() {
        return skip("the payment opened nothing");
    }
    let keyed = paid.keyed.as_ref().map_err(Clone::clone)?;
    let (first, again) = (paid.answer.status, keyed.status);
    ensure(first == again, || {
        format!("answered {first}, and then {again} under the same Idempotency-Key")
    })?;
    ensure(paid.answer.body == keyed.body, || {
        "answered with another body under the same Idempotency-Key".to_owned()
    })
}

fn unserved(answer: &Answer) -> Verdict {
    ensure(!answer.status.is_success(), || {
        format!("served ({})", answer.status)
    })?;
    ensure(answer.receipt().is_none(), || "got a receipt".to_owned())
}

fn underpaid(site: &Site) -> Verdict {
    misplaced(&paid(site)?.underpaid)
}

fn other_route(site: &Site) -> Verdict {
    misplaced(&paid(site)?.other_route)
}

fn other_body(site: &Site) -> Verdict {
    misplaced(&paid(site)?.other_body)
}

/// Refused as a challenge that was not issued, or not for this request.
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
