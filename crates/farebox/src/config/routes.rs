//! `[[routes]]`: what is paid for, and at what price.

use std::{collections::BTreeSet, sync::Arc};

use farebox_core::{Issue, Offer, config::did_you_mean};
use farebox_engine::Gate;
use farebox_wire::{Amount, AmountError};
use serde_json::Value;

use super::section::{Section, wrong};
use crate::{
    builder::Draft,
    server::{OfferSpec, gate},
    stand_in::unconfigured,
};

const ROUTE: &[&str] = &["path", "method", "upstream", "respond", "offers"];
const OFFER: &[&str] = &[
    "rail",
    "amount",
    "currency",
    "recipient",
    "description",
    "external_id",
];
const METHODS: &[&str] = &["GET", "POST", "PUT", "PATCH", "DELETE"];
const PATH: &str = "give a path such as \"/joke\" or \"/files/{name}\"";
const OFFERS: &str = "give a list such as [{ rail = \"tempo/charge\", amount = \"0.01\" }]";
const AMOUNT: &str = "give a decimal in quotes, such as \"0.01\"";

/// A paid route.
#[derive(Debug)]
#[non_exhaustive]
pub struct Route {
    /// The HTTP method, upper case.
    pub method: String,
    /// The path, with `{name}` for a segment and `{*name}` for the rest.
    pub path: String,
    /// Who answers.
    pub answer: Answer,
    /// The offers.
    pub gate: Arc<Gate>,
}

impl Route {
    /// Whether a session can pay for it: then vouchers, top-ups and closes come to it as `POST`,
    /// whatever its method is.
    pub fn offers_sessions(&self) -> bool {
        let mut offers = self.gate.offers().iter();
        offers.any(|offer| !offer.method().intent().single_use())
    }
}

/// Who answers a request that was paid for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Answer {
    /// A server behind this one: scheme, host and port, and a path to put in front.
    Upstream(String),
    /// This text.
    Respond(String),
    /// Code.
    Handler,
}

pub(super) fn read(
    routes: Vec<Value>,
    draft: &Draft,
    gateway: bool,
    issues: &mut Vec<Issue>,
) -> Vec<Route> {
    if routes.is_empty() && gateway {
        issues.push(Issue::new(
            "routes",
            "is missing; give at least one table `[[routes]]`",
        ));
    }
    let mut paths = matchit::Router::new();
    let (mut scopes, mut known_paths) = (BTreeSet::new(), BTreeSet::new());
    let mut read = Vec::new();
    for (n, value) in routes.into_iter().enumerate() {
        let at = format!("routes[{n}]");
        let mut table = Section::open(value, &at, ROUTE, issues);
        let method = method(&mut table, issues);
        let path = path(&mut table, issues);
        let answer = answer(&mut table, gateway, issues);
        let scope = format!("{method} {}", path.as_deref().unwrap_or_default());
        if let Some(path) = &path {
            if !scopes.insert(scope.clone()) {
                let problem = format!("{method} {path} is there twice; drop one of the two");
                issues.push(Issue::new(table.path("path"), problem));
            } else if known_paths.insert(path.clone())
                && let Err(error) = paths.insert(path.clone(), ())
            {
                issues.push(Issue::new(table.path("path"), format!("{error}; {PATH}")));
            }
        }
        let offers = offers(&mut table, draft, issues);
        table.finish(issues);
        let (Some(engine), Some(path), Some(answer), Some(offers)) =
            (&draft.engine, path, answer, offers)
        else {
            continue;
        };
        match gate(engine, scope, offers) {
            Ok(gate) => read.push(Route {
                method,
                path,
                answer,
                gate: Arc::new(gate),
            }),
            Err(invalid) => issues.extend(invalid.under(&at).into_issues()),
        }
    }
    read
}

fn method(table: &mut Section, issues: &mut Vec<Issue>) -> String {
    let shape = "give an HTTP method such as \"GET\"";
    let Some(text) = table.text("method", shape, issues) else {
        return "GET".to_owned();
    };
    if !METHODS.contains(&text.as_str()) {
        let hint = did_you_mean(&text.to_ascii_uppercase(), METHODS);
        let problem = format!("`{text}` is no method that can be paid for{hint}");
        issues.push(Issue::new(table.path("method"), problem));
    }
    text
}

/// A path that axum's router takes.
fn path(table: &mut Section, issues: &mut Vec<Issue>) -> Option<String> {
    let before = issues.len();
    let Some(path) = table.text("path", PATH, issues) else {
        if issues.len() == before {
            issues.push(Issue::new(
                table.path("path"),
                format!("is missing; {PATH}"),
            ));
        }
        return None;
    };
    let old_style = path
        .split('/')
        .any(|segment| segment.starts_with([':', '*']));
    if !path.starts_with('/') || old_style || path.contains(['?', '#']) {
        issues.push(Issue::new(
            table.path("path"),
            format!("`{path}` is no path; {PATH}"),
        ));
        return None;
    }
    Some(path)
}

fn answer(table: &mut Section, gateway: bool, issues: &mut Vec<Issue>) -> Option<Answer> {
    let before = issues.len();
    let shape = "give the URL of the server to pass paid requests to, \"http://127.0.0.1:9000\"";
    let upstream = table.text("upstream", shape, issues);
    let respond = table.text("respond", "give the text to answer with", issues);
    match (upstream, respond) {
        (Some(_), Some(_)) => {
            let problem = "`upstream` and `respond` are both there; keep one of them";
            issues.push(Issue::new(table.path("upstream"), problem));
            None
        }
        (Some(url), None) => {
            let rest = url
                .strip_prefix("http://")
                .or_else(|| url.strip_prefix("https://"));
            let host = rest.map(|rest| rest.split('/').next().unwrap_or_default());
            let good = host.is_some_and(|h| !h.is_empty() && !h.contains('@'));
            if !good || url.contains(['?', '#', ' ']) {
                // Not the URL: it may hold a password.
                issues.push(Issue::new(
                    table.path("upstream"),
                    format!("is no such URL; {shape}"),
                ));
                return None;
            }
            Some(Answer::Upstream(url.trim_end_matches('/').to_owned()))
        }
        (None, Some(text)) => Some(Answer::Respond(text)),
        (None, None) if gateway && issues.len() == before => {
            let problem = "answers nothing; give `upstream = \"http://127.0.0.1:9000\"` or \
                           `respond = \"text\"`";
            issues.push(Issue::new(table.path(""), problem));
            None
        }
        (None, None) => Some(Answer::Handler),
    }
}

fn offers(table: &mut Section, draft: &Draft, issues: &mut Vec<Issue>) -> Option<Vec<Offer>> {
    let before = issues.len();
    let list = table.list("offers", OFFERS, issues).unwrap_or_default();
    if list.is_empty() && issues.len() == before {
        let problem = format!("is missing or empty; {OFFERS}");
        issues.push(Issue::new(table.path("offers"), problem));
    }
    let (mut offers, mut whole) = (Vec::new(), true);
    for (n, value) in list.into_iter().enumerate() {
        let at = table.path(&format!("offers[{n}]"));
        if let Some(spec) = spec(value, &at, issues) {
            match offer(spec, &at, draft, issues) {
                Some(offer) => offers.push(offer),
                // Its rail is broken, which has been said: the offer is not missing.
                None => whole = false,
            }
        }
    }
    (whole && issues.len() == before).then_some(offers)
}

/// An offer's rail and terms, as far as they can be read without the rail.
fn spec(value: Value, at: &str, issues: &mut Vec<Issue>) -> Option<OfferSpec> {
    let before = issues.len();
    let mut table = Section::open(value, at, OFFER, issues);
    if issues.len() > before {
        return None;
    }
    let shape = "give a rail and an intent, such as \"tempo/charge\"";
    let rail = table.text("rail", shape, issues);
    if rail.is_none() && issues.len() == before {
        issues.push(Issue::new(
            table.path("rail"),
            format!("is missing; {shape}"),
        ));
    }
    let amount = table.take("amount");
    match (rail, amount) {
        (Some(rail), None) => {
            let terms = table.rest();
            let unknown = terms
                .keys()
                .map(|key| Issue::unknown_key(key, OFFER).under(at));
            // The rail will say that there is no amount; only here it is known what was meant.
            issues.extend(unknown.filter(|i| i.problem.contains("mean `amount`")));
            Some(OfferSpec { rail, terms })
        }
        (Some(rail), Some(Value::String(amount))) => Some(
            OfferSpec {
                rail,
                terms: table.rest(),
            }
            .with("amount", amount),
        ),
        // A float cannot hold money, and TOML writes 0.1 as one.
        (_, Some(amount)) if !amount.is_string() => {
            issues.push(Issue::new(table.path("amount"), wrong(&amount, AMOUNT)));
            None
        }
        // Its rail would know the other keys.
        _ => {
            table.finish(issues);
            None
        }
    }
}

fn offer(spec: OfferSpec, at: &str, draft: &Draft, issues: &mut Vec<Issue>) -> Option<Offer> {
    if let Some(method) = draft.methods.get(&spec.rail) {
        return spec.on(method.clone(), at, issues);
    }
    let rail_at = format!("{at}.rail");
    let stand_in = match draft.registry.get(&spec.rail) {
        Err(error) => {
            issues.push(Issue::new(rail_at, error.to_string()));
            None
        }
        Ok(plugin) => match draft.broken.get(plugin.name) {
            Some(stand_in) => stand_in.clone(),
            None => {
                let (name, rail) = (plugin.name, plugin.rail());
                let problem = format!("`{name}` is not configured; add the table `[rails.{rail}]`");
                issues.push(Issue::new(rail_at, problem));
                unconfigured(plugin)
            }
        },
    };
    match stand_in {
        Some(method) => drop(spec.on(method, at, issues)),
        None => amount(&spec, at, issues),
    }
    None
}

/// What can be said about an amount whose rail is not there to say it.
fn amount(spec: &OfferSpec, at: &str, issues: &mut Vec<Issue>) {
    let at = format!("{at}.amount");
    match spec.terms.get("amount").and_then(Value::as_str) {
        None => issues.push(Issue::new(at, format!("is missing; {AMOUNT}"))),
        Some(text) => {
            // No currency has this many decimals, so only the spelling can be wrong.
            if let Err(error @ AmountError::NotADecimal) = Amount::from_decimal(text, u8::MAX) {
                issues.push(Issue::new(at, format!("`{text}`: {error}; {AMOUNT}")));
            }
        }
    }
}
