//! Credentials that nobody paid for: each is refused, by name, with something new to pay.

use std::collections::BTreeSet;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{StatusCode, header};
use serde_json::{Map, Value, json};
use time::{Duration, format_description::well_known::Rfc3339};

use crate::validate::{
    Asking, Check, Finding,
    Level::*,
    Round, Verdict, ensure,
    probe::{Answer, CANARY, Site, credential_header},
    read::{Seen, encode, instant, object},
    skip,
};

pub(crate) const CHECKS: &[Check] = &[
    Check::ask("forged-id", &["CORE-4", "CORE-11"], Must, id),
    Check::ask("forged-amount", &["CORE-11", "CHG-7"], Must, amount),
    Check::ask("forged-realm", &["CORE-11"], Must, realm),
    Check::ask("forged-expires", &["CORE-11"], Must, expires),
    Check::ask("forged-lapsed", &["CORE-4"], Must, lapsed),
    Check::ask("forged-opaque", &["CORE-25"], Should, opaque),
    Check::ask("forged-digest", &["CORE-11", "CORE-18"], Must, digest),
    Check::ask("forged-swapped-id", &["CORE-11"], Must, swapped),
    Check::ask("forged-method", &["CORE-4"], Must, method),
    Check::ask("forged-proof", &["CORE-5", "CHG-9"], Must, proof),
    Check::ask("malformed-base64", &["CORE-3", "CORE-28"], Must, not_base64),
    Check::ask("malformed-json", &["CORE-3", "CORE-28"], Must, not_json),
    Check::ask("malformed-members", &["CORE-3", "CORE-29"], Must, members),
    Check::ask("large-credential", &["CORE-46"], Must, large),
    Check::ask("oversized-credential", &["CORE-3"], Must, oversized),
    Check::ask("two-credentials", &["CORE-62"], Should, two),
];

const INVALID: &[&str] = &["invalid-challenge"];
const LAPSED: &[&str] = &["payment-expired", "invalid-challenge"];
const MALFORMED: &[&str] = &["malformed-credential"];
/// A proof may be unreadable before it is wrong.
const UNPROVED: &[&str] = &["verification-failed", "malformed-credential"];

/// 402, a challenge that is new, no receipt, and a problem type that fits.
fn refused(site: &Site, answer: &Answer, types: &[&str]) -> Verdict {
    let what = &answer.what;
    ensure(answer.receipt().is_none(), || {
        format!("{what}: got a receipt")
    })?;
    ensure(answer.status == StatusCode::PAYMENT_REQUIRED, || {
        format!("{what}: answered {}, and not 402", answer.status)
    })?;
    fresh(site, answer)?;
    let found = answer.problem();
    // A rail may have types of its own.
    let own = found.contains('/') && !found.starts_with("http");
    match types.contains(&found.as_str()) || (own && types == UNPROVED) {
        true => Ok(()),
        false => Err(Finding::Warn(format!(
            "{what}: the problem's type is {found:?} and not {}",
            types.join(" or ")
        ))),
    }
}

fn fresh(site: &Site, answer: &Answer) -> Verdict {
    let what = &answer.what;
    let (challenges, _) = answer.challenges();
    ensure(!challenges.is_empty(), || {
        format!("{what}: no challenge to go on with")
    })?;
    let known: BTreeSet<_> = site.challenges.iter().map(|c| c.get("id")).collect();
    ensure(
        challenges.iter().all(|c| !known.contains(&c.get("id"))),
        || format!("{what}: the challenge is not a new one"),
    )
}

/// Presents the first challenge after a change.
fn changed<'a>(
    site: &'a Site,
    what: &'static str,
    types: &'static [&'static str],
    change: impl Fn(&Seen, &mut Map<String, Value>) -> Verdict + Send + 'a,
) -> Asking<'a> {
    Box::pin(async move {
        let challenge = site.first()?;
        let mut echo = challenge.echo();
        change(challenge, &mut echo)?;
        let answer = site.present(echo, what).await?;
        refused(site, &answer, types)
    })
}

fn set(echo: &mut Map<String, Value>, name: &str, value: impl Into<Value>) {
    echo.insert(name.to_owned(), value.into());
}

fn id(site: &Site) -> Asking<'_> {
    changed(site, "a forged id", INVALID, |_, echo| {
        // As long as an HMAC-SHA256, and nobody's.
        set(echo, "id", URL_SAFE_NO_PAD.encode([7; 32]));
        Ok(())
    })
}

/// The same challenge for less, on every offer.
fn amount(site: &Site) -> Asking<'_> {
    Box::pin(async move {
        site.first()?;
        let (mut round, mut tried) = (Round::default(), false);
        for challenge in &site.challenges {
            let Ok(mut request) = challenge.request() else {
                continue;
            };
            let less = match request.get("amount").and_then(Value::as_str) {
                None => continue,
                Some("1") => "2",
                Some(_) => "1",
            };
            set(&mut request, "amount", less);
            let mut echo = challenge.echo();
            set(&mut echo, "request", encode(request));
            let what = format!("an altered amount of {}", challenge.offer());
            let answer = site.present(echo, &what).await?;
            round.add(refused(site, &answer, INVALID))?;
            tried = true;
        }
        if tried {
            round.end()
        } else {
            skip("no challenge has an amount")
        }
    })
}

fn realm(site: &Site) -> Asking<'_> {
    changed(site, "an altered realm", INVALID, |_, echo| {
        set(echo, "realm", "elsewhere.example");
        Ok(())
    })
}

fn expires(site: &Site) -> Asking<'_> {
    changed(site, "a prolonged challenge", INVALID, |challenge, echo| {
        let later = moved(challenge, Duration::hours(1))?;
        set(echo, "expires", later);
        Ok(())
    })
}

fn lapsed(site: &Site) -> Asking<'_> {
    changed(site, "a lapsed challenge", LAPSED, |challenge, echo| {
        let earlier = moved(challenge, -Duration::days(30))?;
        set(echo, "expires", earlier);
        Ok(())
    })
}

fn moved(challenge: &Seen, by: Duration) -> Result<String, Finding> {
    let Some(text) = challenge.get("expires") else {
        return skip("the challenge does not expire");
    };
    let at = instant(text).map_err(Finding::Skip)? + by;
    at.format(&Rfc3339)
        .map_err(|error| Finding::Skip(error.to_string()))
}

fn opaque(site: &Site) -> Asking<'_> {
    changed(site, "an altered opaque", INVALID, |challenge, echo| {
        let mut members = match challenge.get("opaque") {
            Some(text) => object(text).map_err(Finding::Skip)?,
            None => Map::new(),
        };
        set(&mut members, "added", "yes");
        set(echo, "opaque", encode(members));
        Ok(())
    })
}

fn digest(site: &Site) -> Asking<'_> {
    changed(site, "an altered digest", INVALID, |challenge, echo| {
        if challenge.get("digest").is_none() {
            return skip("the challenge has no digest");
        }
        set(
            echo,
            "digest",
            "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:",
        );
        Ok(())
    })
}

/// The id of one challenge with the terms of another.
fn swapped(site: &Site) -> Asking<'_> {
    changed(
        site,
        "the id of another challenge",
        INVALID,
        |challenge, echo| {
            let others = site.challenges.iter().skip(1);
            let mut others = others.filter(|c| c.get("request") != challenge.get("request"));
            let Some(id) = others.next().and_then(|other| other.get("id")) else {
                return skip("one challenge only");
            };
            set(echo, "id", id);
            Ok(())
        },
    )
}

/// A rail that nobody has: 400, or a challenge that was never issued.
fn method(site: &Site) -> Asking<'_> {
    Box::pin(async move {
        let mut echo = site.first()?.echo();
        set(&mut echo, "method", "barter");
        let answer = site.present(echo, "an unknown method").await?;
        match (answer.status, answer.problem().as_str()) {
            (StatusCode::BAD_REQUEST, "method-unsupported") => Ok(()),
            _ => refused(site, &answer, INVALID),
        }
    })
}

/// A challenge as it was issued with a proof of nothing, on every offer.
fn proof(site: &Site) -> Asking<'_> {
    Box::pin(async move {
        site.first()?;
        let mut round = Round::default();
        for challenge in &site.challenges {
            let what = format!("a proof of nothing for {}", challenge.offer());
            let answer = site.present(challenge.echo(), &what).await?;
            round.add(refused(site, &answer, UNPROVED))?;
        }
        round.end()
    })
}

/// Sends a header's value as it is.
async fn raw(site: &Site, values: &[&str], what: &str) -> Result<std::sync::Arc<Answer>, Finding> {
    let name = credential_header(site.first()?.get("header"));
    site.send_with(name, values, what).await
}

fn not_base64(site: &Site) -> Asking<'_> {
    Box::pin(async move {
        let mut round = Round::default();
        for value in ["Payment !!!!", "Payment a=b", "PAYMENT e30"] {
            let answer = raw(site, &[value], &format!("the credential {value:?}")).await?;
            round.add(refused(site, &answer, MALFORMED))?;
        }
        round.end()
    })
}

fn not_json(site: &Site) -> Asking<'_> {
    Box::pin(async move {
        let mut round = Round::default();
        for text in [
            "{",
            "[]",
            "null",
            "\"text\"",
            "{\"challenge\":1,\"payload\":2}",
        ] {
            let value = format!("Payment {}", URL_SAFE_NO_PAD.encode(text));
            let answer = raw(site, &[&value], &format!("a credential of {text}")).await?;
            round.add(refused(site, &answer, MALFORMED))?;
        }
        round.end()
    })
}

/// Half a credential, and a challenge without its id.
fn members(site: &Site) -> Asking<'_> {
    Box::pin(async move {
        let echo = site.first()?.echo();
        let mut nameless = echo.clone();
        nameless.remove("id");
        let halves = [
            ("no payload", json!({ "challenge": echo })),
            ("no challenge", json!({ "payload": { "note": CANARY } })),
            ("no id", json!({ "challenge": nameless, "payload": {} })),
        ];
        let mut round = Round::default();
        for (what, credential) in halves {
            let value = format!("Payment {}", URL_SAFE_NO_PAD.encode(credential.to_string()));
            let answer = raw(site, &[&value], &format!("a credential with {what}")).await?;
            round.add(refused(site, &answer, MALFORMED))?;
        }
        round.end()
    })
}

fn padded(challenge: &Seen, bytes: usize) -> String {
    let credential = json!({
        "challenge": challenge.echo(),
        "payload": { "type": "none", "note": CANARY, "padding": "x".repeat(bytes) },
    });
    format!("Payment {}", URL_SAFE_NO_PAD.encode(credential.to_string()))
}

/// More than 4 KB is read: it is refused for its proof and not for its size.
fn large(site: &Site) -> Asking<'_> {
    Box::pin(async move {
        let value = padded(site.first()?, 4 * 1024);
        let what = format!("a credential of {} bytes", value.len());
        let answer = raw(site, &[&value], &what).await?;
        refused(site, &answer, UNPROVED)
    })
}

/// 96 KB may be refused by whoever reads headers first, and harm nobody.
fn oversized(site: &Site) -> Asking<'_> {
    Box::pin(async move {
        let value = padded(site.first()?, 72 * 1024);
        let answer = match raw(site, &[&value], "a credential of 96 KB").await {
            Ok(answer) => answer,
            Err(Finding::Wrong(why)) => return Err(Finding::Warn(why)),
            Err(other) => return Err(other),
        };
        match answer.status.as_u16() {
            400 | 413 | 431 => ensure(answer.receipt().is_none(), || "got a receipt".to_owned()),
            402 => fresh(site, &answer),
            _ => Err(Finding::Wrong(format!("answered {}", answer.status))),
        }
    })
}

fn two(site: &Site) -> Asking<'_> {
    Box::pin(async move {
        let challenge = site.first()?;
        let (one, other) = (padded(challenge, 1), padded(challenge, 2));
        let name = credential_header(challenge.get("header"));
        let what = "two credentials";
        let lines = site.send_with(name.clone(), &[&one, &other], what).await?;
        // On one line they are a list to some servers and one broken credential to others.
        let list = format!("{one}, {other}");
        let line = match name {
            header::AUTHORIZATION => site.send_with(name, &[&list], what).await?,
            _ => lines.clone(),
        };
        for answer in [lines, line] {
            ensure(answer.status == StatusCode::BAD_REQUEST, || {
                format!("{what}: answered {}, and not 400", answer.status)
            })?;
        }
        Ok(())
    })
}
