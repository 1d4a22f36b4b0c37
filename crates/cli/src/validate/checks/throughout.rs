//! What holds for every answer, checked over all of them at the end.

use http::StatusCode;

use crate::validate::{
    Check,
    Level::*,
    Verdict, ensure,
    probe::{Answer, CANARY, Site},
};

pub(crate) const CHECKS: &[Check] = &[
    Check::look(
        "never-served-unpaid",
        &["CORE-54", "CHG-9"],
        Must,
        never_served,
    ),
    Check::look("never-5xx", &["CORE-1", "CORE-3"], Must, never_5xx),
    Check::look(
        "every-402-challenges",
        &["CORE-2"],
        Must,
        every_402_challenges,
    ),
    Check::look("every-402-no-store", &["CORE-59"], Must, every_402_no_store),
    Check::look(
        "no-receipt-on-errors",
        &["CORE-32"],
        Must,
        no_receipt_on_errors,
    ),
    Check::look("no-internals", &["CORE-51"], Must, no_internals),
    Check::look("no-echo", &["CORE-50"], Must, no_echo),
];

/// Names the first answer that breaks a rule.
fn all(site: &Site, rule: impl Fn(&Answer) -> bool, broken: &str) -> Verdict {
    match site.answers().iter().find(|answer| !rule(answer)) {
        None => Ok(()),
        Some(answer) => ensure(false, || format!("{}: {broken}", answer.what)),
    }
}

fn never_served(site: &Site) -> Verdict {
    // A preflight is not a request for the resource, and HEAD has a check of its own.
    let asks = |answer: &Answer| !matches!(answer.what.as_str(), "OPTIONS" | "HEAD");
    let rule = |a: &Answer| a.free || !asks(a) || !a.status.is_success();
    all(site, rule, "was served without a payment")
}

fn never_5xx(site: &Site) -> Verdict {
    // A method that a server does not know is 501, and a settlement that takes its time 503.
    let rule = |a: &Answer| {
        !a.status.is_server_error()
            || a.status == StatusCode::NOT_IMPLEMENTED
            || (a.free && a.status == StatusCode::SERVICE_UNAVAILABLE)
    };
    all(site, rule, "a server's error")
}

fn every_402_challenges(site: &Site) -> Verdict {
    let rule =
        |a: &Answer| a.status != StatusCode::PAYMENT_REQUIRED || !a.challenges().0.is_empty();
    all(site, rule, "a 402 without a challenge")
}

fn every_402_no_store(site: &Site) -> Verdict {
    let rule = |a: &Answer| a.status != StatusCode::PAYMENT_REQUIRED || a.caches("no-store");
    all(site, rule, "a 402 that may be stored")
}

fn no_receipt_on_errors(site: &Site) -> Verdict {
    let rule = |a: &Answer| a.status.is_success() || a.receipt().is_none();
    all(site, rule, "a receipt on an error")
}

/// What no stranger should learn: where the source is, and what is secret.
const INTERNALS: [&str; 13] = [
    "panicked at",
    "stack backtrace",
    "RUST_BACKTRACE",
    "Traceback (most recent call last)",
    "node_modules/",
    "    at Object.",
    "goroutine 1 [",
    ".rs:",
    "/home/",
    "sk_live_",
    "sk_test_",
    "PRIVATE KEY-----",
    "macaroon=",
];

fn no_internals(site: &Site) -> Verdict {
    for answer in site.answers() {
        // What was paid for may say what it likes.
        if answer.status.is_success() {
            continue;
        }
        let body = String::from_utf8_lossy(&answer.body);
        let found = INTERNALS.iter().find(|sign| body.contains(**sign));
        ensure(found.is_none(), || {
            format!("{}: the body holds {found:?}", answer.what)
        })?;
    }
    Ok(())
}

fn no_echo(site: &Site) -> Verdict {
    let quiet = |answer: &Answer| !String::from_utf8_lossy(&answer.body).contains(CANARY);
    all(
        site,
        quiet,
        "the credential's payload comes back in the body",
    )
}
