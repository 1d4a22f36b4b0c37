//! `[[routes]]`: what is paid for, and at what price.

use std::{collections::BTreeSet, sync::Arc};

use farebox_core::{Invalid, Issue, Method, Offer, Plugin, config::did_you_mean};
use farebox_engine::Gate;
use farebox_wire::{Amount, AmountError};
use serde_json::Value;

use super::section::{Section, wrong};
use crate::{
    builder::Draft,
    server::{OfferSpec, gate},
};

const ROUTE: &[&str] = &["path", "method", "upstream", "respond", "offers"];
const OFFER: &[&str] = &["rail", "amount", "currency", "recipient", "description", "external_id"];
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
        issues.push(Issue::new("routes", "is missing; give at least one table `[[routes]]`"));
    }
    let mut stand_ins = StandIns { draft, seen: Vec::new() };
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
        let offers = offers(&mut table, draft, &mut stand_ins, issues);
        table.finish(issues);
        let (Some(engine), Some(path), Some(answer), Some(offers)) =
            (&draft.engine, path, answer, offers)
        else {
            continue;
        };
        match gate(engine, scope, offers) {
            Ok(gate) => read.push(Route { method, path, answer, gate: Arc::new(gate) }),
            Err(invalid) => issues.extend(invalid.under(&at).into_issues()),
        }
    }
    read
}

fn method(table: &mut Section, issues: &mut Vec<Issue>) -> String {
    let shape = "give an HTTP method such as \"GET\"";
    let Some(text) = table.text("method", shape, issues) else { return "GET".to_owned() };
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
            issues.push(Issue::new(table.path("path"), format!("is missing; {PATH}")));
        }
        return None;
    };
    let old_style = path.split('/').any(|segment| segment.starts_with([':', '*']));
    if !path.starts_with('/') || old_style || path.contains(['?', '#']) {
        issues.push(Issue::new(table.path("path"), format!("`{path}` is no path; {PATH}")));
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
            let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
            let host = rest.map(|rest| rest.split('/').next().unwrap_or_default());
            let good = host.is_some_and(|h| !h.is_empty() && !h.contains('@'));
            if !good || url.contains(['?', '#', ' ']) {
                // Not the URL: it may hold a password.
                issues.push(Issue::new(table.path("upstream"), format!("is no such URL; {shape}")));
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

fn offers(
    table: &mut Section,
    draft: &Draft,
    stand_ins: &mut StandIns<'_>,
    issues: &mut Vec<Issue>,
) -> Option<Vec<Offer>> {
    let before = issues.len();
    let list = table.list("offers", OFFERS, issues).unwrap_or_default();
    if list.is_empty() && issues.len() == before {
        let problem = format!("is missing or empty; {OFFERS}");
        issues.push(Issue::new(table.path("offers"), problem));
    }
    let mut offers = Vec::new();
    for (n, value) in list.into_iter().enumerate() {
        let at = table.path(&format!("offers[{n}]"));
        if let Some(spec) = spec(value, &at, issues) {
            offers.extend(offer(spec, &at, draft, stand_ins, issues));
        }
    }
    (issues.len() == before).then_some(offers)
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
    if let Some(amount) = table.take("amount") {
        // A float cannot hold money, and TOML writes 0.1 as one.
        let Value::String(amount) = amount else {
            issues.push(Issue::new(table.path("amount"), wrong(&amount, AMOUNT)));
            return None;
        };
        let rail = rail?;
        let spec = OfferSpec { rail, terms: table.rest() };
        return Some(spec.with("amount", amount));
    }
    match rail {
        Some(rail) => Some(OfferSpec { rail, terms: table.rest() }),
        None if issues.len() == before => {
            issues.push(Issue::new(table.path("rail"), format!("is missing; {shape}")));
            table.finish(issues);
            None
        }
        None => None,
    }
}

fn offer(
    spec: OfferSpec,
    at: &str,
    draft: &Draft,
    stand_ins: &mut StandIns<'_>,
    issues: &mut Vec<Issue>,
) -> Option<Offer> {
    if let Some(method) = draft.methods.get(&spec.rail) {
        return spec.on(method.clone(), at, issues);
    }
    let rail_at = format!("{at}.rail");
    match draft.registry.get(&spec.rail) {
        Err(error) => issues.push(Issue::new(rail_at, error.to_string())),
        Ok(plugin) if !draft.broken.contains_key(plugin.name) => {
            let problem = format!(
                "`{}` is not configured; add the table `[rails.{}]`",
                plugin.name,
                plugin.rail()
            );
            issues.push(Issue::new(rail_at, problem));
        }
        Ok(_) => {}
    }
    match stand_ins.of(&spec.rail) {
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

/// Rails in the place of those whose configuration is wrong, so that their offers are checked all
/// the same and not only in the next round. Nothing is ever served by them.
struct StandIns<'a> {
    draft: &'a Draft,
    seen: Vec<(String, Option<Arc<dyn Method>>)>,
}

impl StandIns<'_> {
    fn of(&mut self, name: &str) -> Option<Arc<dyn Method>> {
        if let Some((_, known)) = self.seen.iter().find(|(seen, _)| seen == name) {
            return known.clone();
        }
        let plugin = self.draft.registry.get(name).ok();
        let method = plugin.and_then(|plugin| self.build(plugin));
        self.seen.push((name.to_owned(), method.clone()));
        method
    }

    /// The rail's own configuration, with what is wrong taken from the rail's example.
    fn build(&self, plugin: &Plugin) -> Option<Arc<dyn Method>> {
        let example: Value = toml::from_str(plugin.example).ok()?;
        let Some((config, invalid)) = self.draft.broken.get(plugin.name) else {
            return (plugin.build)(&example).ok();
        };
        let mut patched = config.as_object()?.clone();
        for key in wrong_keys(invalid) {
            match example.get(key) {
                Some(value) => patched.insert(key.to_owned(), value.clone()),
                None => patched.remove(key),
            };
        }
        (plugin.build)(&Value::Object(patched)).ok()
    }
}

fn wrong_keys(invalid: &Invalid) -> impl Iterator<Item = &str> {
    invalid.issues().iter().filter_map(|issue| issue.key.split(['.', '[']).next())
}
