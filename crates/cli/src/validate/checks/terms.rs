//! What challenges ask for: the charge intent's members, and those of the rails that have drafts.

use serde_json::{Map, Value};

use super::challenges::each;
use crate::validate::{
    Check, Finding,
    Level::*,
    Verdict, ensure,
    probe::Site,
    read::{Seen, is_amount},
    skip,
};

pub(crate) const CHECKS: &[Check] = &[
    Check::look("amount", &["CHG-1"], Must, amount),
    Check::look("currency", &["CHG-1"], Must, currency),
    Check::look("one-expiry", &["CHG-3"], Must, one_expiry),
    Check::look("tempo-terms", &["TCHG-1"], Must, tempo),
    Check::look("stripe-terms", &["STC-1"], Must, stripe),
    Check::look("stripe-connect", &["STC-8"], Must, stripe_connect),
    Check::look("lightning-terms", &["LNC-2", "LNC-3"], Must, lightning),
    Check::look("lightning-own-invoice", &["LNC-5"], Must, own_invoice),
];

type Terms = Map<String, Value>;

/// Applies a rule to the request of each challenge that `applies`.
fn terms(
    site: &Site,
    applies: impl Fn(&Seen) -> bool,
    rule: impl Fn(&Terms) -> Verdict,
) -> Verdict {
    site.first()?;
    if !site.challenges.iter().any(&applies) {
        return skip("no such offer");
    }
    each(site, |challenge| match challenge.request() {
        _ if !applies(challenge) => Ok(()),
        Ok(request) => rule(&request),
        Err(why) => Err(Finding::Wrong(format!("the request is {why}"))),
    })
}

fn priced(challenge: &Seen) -> bool {
    matches!(challenge.get("intent"), Some("charge" | "session"))
}

fn of(method: &'static str) -> impl Fn(&Seen) -> bool {
    move |challenge| {
        challenge.get("method") == Some(method) && challenge.get("intent") == Some("charge")
    }
}

fn text<'a>(members: &'a Terms, name: &str) -> &'a str {
    members
        .get(name)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

fn details(request: &Terms) -> Terms {
    match request.get("methodDetails") {
        Some(Value::Object(details)) => details.clone(),
        _ => Terms::new(),
    }
}

fn amount(site: &Site) -> Verdict {
    terms(site, priced, |request| {
        ensure(is_amount(text(request, "amount")), || {
            let given = request.get("amount").cloned().unwrap_or_default();
            format!("the amount {given} is not a text of digits")
        })
    })
}

fn currency(site: &Site) -> Verdict {
    terms(site, priced, |request| {
        ensure(!text(request, "currency").is_empty(), || {
            "no currency".to_owned()
        })
    })
}

fn one_expiry(site: &Site) -> Verdict {
    terms(site, priced, |request| {
        ensure(!request.contains_key("expires"), || {
            "the request repeats the challenge's expiry".to_owned()
        })
    })
}

fn is_address(text: &str) -> bool {
    let hex = text.strip_prefix("0x").unwrap_or_default();
    hex.len() == 40 && hex.bytes().all(|b| b.is_ascii_hexdigit())
}

fn tempo(site: &Site) -> Verdict {
    terms(site, of("tempo"), |request| {
        for name in ["currency", "recipient"] {
            let given = text(request, name);
            ensure(is_address(given), || {
                format!("the {name} {given:?} is no address")
            })?;
        }
        Ok(())
    })
}

fn stripe(site: &Site) -> Verdict {
    terms(site, of("stripe"), |request| {
        let currency = text(request, "currency");
        ensure(currency.len() == 3, || {
            format!("the currency {currency:?} is no ISO 4217 code")
        })?;
        let details = details(request);
        ensure(!text(&details, "networkId").is_empty(), || {
            "no networkId".to_owned()
        })?;
        let types = details.get("paymentMethodTypes").and_then(Value::as_array);
        ensure(types.is_some_and(|types| !types.is_empty()), || {
            "no paymentMethodTypes".to_owned()
        })
    })
}

fn stripe_connect(site: &Site) -> Verdict {
    const CONNECT: [&str; 6] = [
        "applicationFeeAmount",
        "destination",
        "onBehalfOf",
        "stripeAccount",
        "transferData",
        "transferGroup",
    ];
    terms(site, of("stripe"), |request| {
        let details = details(request);
        let has = |name: &&&str| request.contains_key(**name) || details.contains_key(**name);
        let found = CONNECT.iter().find(has);
        ensure(found.is_none(), || {
            format!("a Connect parameter: {found:?}")
        })
    })
}

fn lightning(site: &Site) -> Verdict {
    terms(site, of("lightning"), |request| {
        let (amount, currency) = (text(request, "amount"), text(request, "currency"));
        ensure(
            currency == "sat" && is_amount(amount) && amount != "0",
            || format!("{amount:?} {currency:?} is no number of sat"),
        )?;
        let details = details(request);
        let invoice = text(&details, "invoice");
        ensure(invoice.to_ascii_lowercase().starts_with("ln"), || {
            "no invoice".to_owned()
        })?;
        let hash = text(&details, "paymentHash");
        let hex = hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit());
        ensure(hash.is_empty() || hex, || {
            "the paymentHash is no hash".to_owned()
        })
    })
}

/// Who pays an invoice that somebody else was shown pays for them.
fn own_invoice(site: &Site) -> Verdict {
    terms(site, of("lightning"), |_| Ok(()))?;
    let (again, _) = site.again.challenges();
    let all = site.challenges.iter().chain(&again);
    let mut invoices: Vec<String> = all
        .filter(|challenge| of("lightning")(challenge))
        .filter_map(|challenge| challenge.request().ok())
        .map(|request| text(&details(&request), "invoice").to_ascii_lowercase())
        .collect();
    let count = invoices.len();
    invoices.sort_unstable();
    invoices.dedup();
    ensure(invoices.len() == count, || {
        "two challenges have one invoice".to_owned()
    })
}
