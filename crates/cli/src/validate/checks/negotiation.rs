//! `Accept-Payment`: what the client would rather pay.

use std::collections::BTreeSet;

use http::HeaderName;

use crate::validate::{
    Asking, Check, Finding,
    Level::*,
    ensure,
    probe::{Answer, Site},
    read::Seen,
    skip,
};

pub(crate) const CHECKS: &[Check] = &[
    Check::ask("accept-excludes", &["CORE-33"], Should, excludes),
    Check::ask("accept-ranks", &["CORE-34"], Should, ranks),
    Check::ask("accept-specific", &["CORE-36"], Should, specific),
    Check::ask("accept-malformed", &["CORE-38"], Should, malformed),
    Check::ask(
        "accept-nothing-matches",
        &["CORE-38"],
        Should,
        nothing_matches,
    ),
];

const ACCEPT_PAYMENT: HeaderName = HeaderName::from_static("accept-payment");

/// The offers in order, each once.
fn offers(challenges: &[Seen]) -> Vec<String> {
    let mut known = BTreeSet::new();
    let all = challenges.iter().map(Seen::offer);
    all.filter(|offer| known.insert(offer.clone())).collect()
}

/// The offers of the unpaid answer, of which there must be two to choose between.
fn choice(site: &Site) -> Result<Vec<String>, Finding> {
    let offers = offers(&site.challenges);
    if offers.len() < 2 {
        return skip("fewer than two offers to choose between");
    }
    Ok(offers)
}

async fn preferring(site: &Site, value: &str) -> Result<Vec<String>, Finding> {
    let what = format!("Accept-Payment: {value}");
    let answer = site.send_with(ACCEPT_PAYMENT, &[value], &what).await?;
    offered(&answer)
}

fn offered(answer: &Answer) -> Result<Vec<String>, Finding> {
    let (challenges, _) = answer.challenges();
    ensure(!challenges.is_empty(), || {
        format!(
            "{}: answered {} without a challenge",
            answer.what, answer.status
        )
    })?;
    Ok(offers(&challenges))
}

fn excludes(site: &Site) -> Asking<'_> {
    Box::pin(async move {
        let offers = choice(site)?;
        let unwanted = &offers[0];
        let left = preferring(site, &format!("{unwanted};q=0, */*")).await?;
        ensure(!left.contains(unwanted), || {
            format!("{unwanted} is offered at q=0")
        })
    })
}

fn ranks(site: &Site) -> Asking<'_> {
    Box::pin(async move {
        let offers = choice(site)?;
        let wanted = &offers[offers.len() - 1];
        let ranked = preferring(site, &format!("*/*;q=0.1, {wanted};q=0.9")).await?;
        ensure(ranked.first() == Some(wanted), || {
            format!(
                "{wanted} is wanted most and stands behind {:?}",
                ranked.first()
            )
        })
    })
}

/// `tempo/charge` says more than `tempo/*`, wherever it stands.
fn specific(site: &Site) -> Asking<'_> {
    Box::pin(async move {
        let offers = choice(site)?;
        let unwanted = &offers[0];
        let method = unwanted.split('/').next().unwrap_or_default();
        let left = preferring(site, &format!("{method}/*, {unwanted};q=0, */*;q=0.5")).await?;
        ensure(!left.contains(unwanted), || {
            format!("{unwanted} is offered at q=0 because {method}/* is wanted")
        })
    })
}

/// What cannot be read changes nothing.
fn malformed(site: &Site) -> Asking<'_> {
    Box::pin(async move {
        site.first()?;
        let found = preferring(site, "///;q=7,,;;=").await?;
        ensure(found == offers(&site.challenges), || {
            format!("the offers changed to {found:?}")
        })
    })
}

fn nothing_matches(site: &Site) -> Asking<'_> {
    Box::pin(async move {
        site.first()?;
        let found = preferring(site, "barter/charge").await?;
        ensure(found == offers(&site.challenges), || {
            format!("the offers changed to {found:?}")
        })
    })
}
