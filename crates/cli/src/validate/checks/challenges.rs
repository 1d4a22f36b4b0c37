//! What every challenge holds, whatever its rail.

use std::collections::BTreeSet;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;

use crate::validate::{
    Check, Finding,
    Level::*,
    Round, Verdict, ensure,
    probe::Site,
    read::{Seen, canonical, instant, object},
    skip,
};

pub(crate) const CHECKS: &[Check] = &[
    Check::look("challenge-id", &["CORE-9"], Must, id),
    Check::look(
        "challenge-ids-differ",
        &["CHG-8", "CORE-11"],
        Must,
        ids_differ,
    ),
    Check::look("challenge-realm", &["CORE-13"], Must, realm),
    Check::look("challenge-method", &["CORE-14"], Must, method),
    Check::look("challenge-intent", &["CORE-15"], Must, intent),
    Check::look("challenge-request", &["CORE-16", "CHG-2"], Must, request),
    Check::look(
        "challenge-canonical",
        &["CORE-16", "CHG-2"],
        Must,
        request_is_canonical,
    ),
    Check::look("challenge-expires", &["CORE-20", "CORE-21"], Must, expires),
    Check::look("challenge-opaque", &["CORE-23"], Must, opaque),
    Check::look("challenge-digest", &["CORE-17"], Should, digest),
    Check::look(
        "challenge-digest-matches",
        &["CORE-18"],
        Must,
        digest_matches,
    ),
    Check::look("challenge-size", &["CORE-44"], Should, size),
];

/// Applies a rule to each challenge and names the one that breaks it.
pub(super) fn each(site: &Site, rule: impl Fn(&Seen) -> Verdict) -> Verdict {
    site.first()?;
    let mut round = Round::default();
    for challenge in &site.challenges {
        let verdict = rule(challenge).map_err(|finding| {
            let named = |why| format!("{}: {why}", challenge.offer());
            match finding {
                Finding::Wrong(why) => Finding::Wrong(named(why)),
                Finding::Warn(why) => Finding::Warn(named(why)),
                skip => skip,
            }
        });
        round.add(verdict)?;
    }
    round.end()
}

/// A parameter that is there and not empty.
fn required<'a>(challenge: &'a Seen, name: &str) -> Result<&'a str, Finding> {
    let value = challenge.get(name).filter(|value| !value.is_empty());
    value.ok_or_else(|| Finding::Wrong(format!("no {name}")))
}

fn id(site: &Site) -> Verdict {
    each(site, |challenge| required(challenge, "id").map(drop))
}

/// Single use needs ids that are nobody else's.
fn ids_differ(site: &Site) -> Verdict {
    let (again, _) = site.again.challenges();
    site.first()?;
    let all: Vec<&str> = (site.challenges.iter().chain(&again))
        .filter_map(|challenge| challenge.get("id"))
        .collect();
    let distinct: BTreeSet<&str> = all.iter().copied().collect();
    ensure(all.len() == distinct.len(), || {
        format!(
            "{} challenges of two requests have {} ids",
            all.len(),
            distinct.len()
        )
    })
}

fn realm(site: &Site) -> Verdict {
    each(site, |challenge| required(challenge, "realm").map(drop))?;
    let realms: BTreeSet<_> = site.challenges.iter().map(|c| c.get("realm")).collect();
    if realms.len() > 1 {
        return Err(Finding::Warn(
            "the challenges name different realms".to_owned(),
        ));
    }
    let host = site.request.url.host_str().unwrap_or_default();
    let realm = realms.into_iter().flatten().next().unwrap_or_default();
    // A server on its developer's machine may have its public name already.
    let local = site.is_local();
    match local || realm.contains(host) || host.ends_with(realm) {
        true => Ok(()),
        false => Err(Finding::Warn(format!(
            "the realm {realm:?} does not name {host}, and wallets may refuse it"
        ))),
    }
}

fn method(site: &Site) -> Verdict {
    each(site, |challenge| {
        let method = required(challenge, "method")?;
        let wide = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b":_-".contains(&b);
        ensure(method.bytes().all(wide), || {
            format!("the method {method:?} is not lower-case letters")
        })?;
        match method.bytes().all(|b| b.is_ascii_lowercase()) {
            true => Ok(()),
            false => Err(Finding::Warn(format!(
                "the method {method:?} holds more than letters, which not every client reads"
            ))),
        }
    })
}

fn intent(site: &Site) -> Verdict {
    each(site, |challenge| {
        let intent = required(challenge, "intent")?;
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        ensure(intent.bytes().all(allowed), || {
            format!("the intent {intent:?} is not letters, digits and hyphens")
        })?;
        match intent {
            "charge" | "session" | "subscription" => Ok(()),
            _ => Err(Finding::Warn(format!(
                "the intent {intent:?} is not registered"
            ))),
        }
    })
}

fn request(site: &Site) -> Verdict {
    each(site, |challenge| {
        let text = required(challenge, "request")?;
        object(text)
            .map(drop)
            .map_err(|why| Finding::Wrong(format!("the request is {why}")))
    })
}

fn request_is_canonical(site: &Site) -> Verdict {
    each(site, |challenge| match challenge.get("request") {
        Some(text) if object(text).is_ok() => ensure(canonical(text), || {
            "the request's JSON is not canonical (RFC 8785)".to_owned()
        }),
        _ => skip("a request cannot be read"),
    })
}

fn expires(site: &Site) -> Verdict {
    each(site, |challenge| {
        let Some(text) = challenge.get("expires") else {
            return Err(Finding::Warn(
                "no expires, without which some clients refuse".to_owned(),
            ));
        };
        let at = instant(text).map_err(Finding::Wrong)?;
        ensure(at > OffsetDateTime::now_utc(), || {
            format!("lapsed on arrival: {text}")
        })
    })
}

/// A flat object of strings, written like the request.
fn opaque(site: &Site) -> Verdict {
    if site.challenges.iter().all(|c| c.get("opaque").is_none()) {
        return skip("no challenge has one");
    }
    each(site, |challenge| {
        let Some(text) = challenge.get("opaque") else {
            return Ok(());
        };
        let members = object(text).map_err(|why| Finding::Wrong(format!("opaque is {why}")))?;
        ensure(members.values().all(Value::is_string), || {
            "opaque holds more than strings".to_owned()
        })?;
        ensure(canonical(text), || {
            "the JSON of opaque is not canonical".to_owned()
        })
    })
}

fn digest(site: &Site) -> Verdict {
    if site.request.body.as_ref().is_none_or(Vec::is_empty) {
        return skip("the request has no body; -d gives it one");
    }
    each(site, |challenge| required(challenge, "digest").map(drop))
}

/// RFC 9530's spelling, or the deployed one without colons.
fn digest_matches(site: &Site) -> Verdict {
    if site.challenges.iter().all(|c| c.get("digest").is_none()) {
        return skip("no challenge has a digest");
    }
    let hash = STANDARD.encode(Sha256::digest(
        site.request.body.as_deref().unwrap_or_default(),
    ));
    each(site, |challenge| {
        let Some(digest) = challenge.get("digest") else {
            return Ok(());
        };
        let given = digest.strip_prefix("sha-256=").unwrap_or_default();
        ensure(given.trim_matches(':') == hash, || {
            format!("the digest {digest:?} is not the SHA-256 of the body")
        })
    })
}

fn size(site: &Site) -> Verdict {
    each(site, |challenge| {
        let size = challenge.size;
        ensure(size < 8 * 1024, || format!("{size} bytes of header"))
    })
}
