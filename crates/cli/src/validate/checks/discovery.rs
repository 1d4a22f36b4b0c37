//! `/openapi.json`, where there is one: a hint that must not mislead.

use std::sync::Arc;

use http::{HeaderMap, Method, StatusCode};
use serde_json::{Map, Value};

use crate::request::Prepared;
use crate::validate::{
    Asking, Check, Finding,
    Level::*,
    ensure,
    probe::{Answer, Site},
    read::is_amount,
    skip,
};

pub(crate) const CHECKS: &[Check] = &[
    Check::ask("discovery-document", &["DISC-1", "DISC-2"], Must, document),
    Check::ask("discovery-operation", &["DISC-3"], Must, operation),
    Check::ask("discovery-offers", &["DISC-6", "DISC-7"], Must, offers),
    Check::ask("discovery-closed", &["DISC-8"], Should, closed),
    Check::ask("discovery-402", &["DISC-9"], Must, declares_402),
    Check::ask("discovery-agrees", &["DISC-14"], Must, agrees),
    Check::ask("discovery-caching", &["DISC-11"], Should, caching),
    Check::ask("discovery-cors", &["DISC-12"], Should, cors),
];

type Object = Map<String, Value>;

const WHAT: &str = "/openapi.json";

/// The document's answer; asked for once.
async fn fetched(site: &Site) -> Result<Arc<Answer>, Finding> {
    let known = site
        .answers()
        .into_iter()
        .find(|answer| answer.what == WHAT);
    let answer = match known {
        Some(answer) => answer,
        None => {
            let mut url = site.request.url.clone();
            url.set_path(WHAT);
            url.set_query(None);
            let request = Prepared {
                method: Method::GET,
                url,
                headers: HeaderMap::new(),
                body: None,
            };
            site.send_free(&request, HeaderMap::new(), WHAT).await?
        }
    };
    match answer.status {
        StatusCode::OK => Ok(answer),
        status => skip(format!("no document: answered {status}")),
    }
}

fn parsed(answer: &Answer) -> Result<Object, Finding> {
    let wrong = || Finding::Wrong("the document is not a JSON object".to_owned());
    answer.json().ok_or_else(wrong)
}

fn document(site: &Site) -> Asking<'_> {
    Box::pin(async move {
        let document = parsed(&*fetched(site).await?)?;
        let version = document
            .get("openapi")
            .and_then(Value::as_str)
            .unwrap_or_default();
        ensure(version.starts_with("3."), || {
            format!("openapi is {version:?}, and not 3.x")
        })?;
        let info = document.get("info");
        let has = |name| info.is_some_and(|info| info[name].is_string());
        ensure(has("title") && has("version"), || {
            "info has no title and version".to_owned()
        })?;
        let paths = document.get("paths").and_then(Value::as_object);
        ensure(paths.is_some_and(|paths| !paths.is_empty()), || {
            "no paths".to_owned()
        })
    })
}

/// The operation of this URL: the literal path, or a template that fits.
async fn find(site: &Site) -> Result<Object, Finding> {
    let document = parsed(&*fetched(site).await?)?;
    let paths = document.get("paths").and_then(Value::as_object);
    let path = site.request.url.path();
    let found = paths.and_then(|paths| {
        let fitting = || paths.iter().find(|(template, _)| fits(template, path));
        paths.get(path).or_else(|| fitting().map(|(_, item)| item))
    });
    let method = site.request.method.as_str().to_ascii_lowercase();
    match found.map(|item| &item[method.as_str()]) {
        Some(Value::Object(operation)) => Ok(operation.clone()),
        _ => Err(Finding::Wrong(format!(
            "the document has no {method} {path}"
        ))),
    }
}

/// `/a/{name}` fits `/a/b`; a name at the end may stand for several segments.
fn fits(template: &str, path: &str) -> bool {
    let (template, path): (Vec<_>, Vec<_>) =
        (template.split('/').collect(), path.split('/').collect());
    let named = |segment: &str| segment.starts_with('{') && segment.ends_with('}');
    let open = template.last().is_some_and(|last| named(last)) && path.len() > template.len();
    (path.len() == template.len() || open)
        && (template.iter().zip(&path)).all(|(known, given)| known == given || named(known))
}

/// The operation's offers; the short form is one offer.
async fn listed(site: &Site) -> Result<Vec<Object>, Finding> {
    let operation = find(site).await?;
    let Some(Value::Object(info)) = operation.get("x-payment-info") else {
        return Err(Finding::Wrong(
            "the operation has no x-payment-info".to_owned(),
        ));
    };
    let offers = match info.get("offers") {
        None => vec![info.clone()],
        Some(offers) => {
            let objects = offers.as_array().into_iter().flatten();
            objects.filter_map(Value::as_object).cloned().collect()
        }
    };
    ensure(!offers.is_empty(), || {
        "x-payment-info has no offers".to_owned()
    })?;
    Ok(offers)
}

fn operation(site: &Site) -> Asking<'_> {
    Box::pin(async move { listed(site).await.map(drop) })
}

/// Past the check that says so, what is missing is no news.
fn given<T>(found: Result<T, Finding>) -> Result<T, Finding> {
    found.map_err(|finding| match finding {
        Finding::Wrong(why) => Finding::Skip(why),
        other => other,
    })
}

fn text<'a>(members: &'a Object, name: &str) -> &'a str {
    members
        .get(name)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

fn offers(site: &Site) -> Asking<'_> {
    Box::pin(async move {
        for offer in given(listed(site).await)? {
            let named = !text(&offer, "method").is_empty() && !text(&offer, "intent").is_empty();
            ensure(named, || "an offer without method or intent".to_owned())?;
            let amount = offer.get("amount");
            let good = match amount {
                Some(Value::Null) => true,
                Some(Value::String(amount)) => is_amount(amount),
                _ => false,
            };
            ensure(good, || {
                format!("the amount {amount:?} is neither digits nor null")
            })?;
        }
        Ok(())
    })
}

fn closed(site: &Site) -> Asking<'_> {
    const KNOWN: [&str; 5] = ["intent", "method", "amount", "currency", "description"];
    Box::pin(async move {
        for offer in given(listed(site).await)? {
            let unknown = offer.keys().find(|key| !KNOWN.contains(&key.as_str()));
            ensure(unknown.is_none(), || {
                format!("an offer has the member {unknown:?}")
            })?;
        }
        Ok(())
    })
}

fn declares_402(site: &Site) -> Asking<'_> {
    Box::pin(async move {
        let operation = given(find(site).await)?;
        let responses = operation.get("responses");
        ensure(
            responses.is_some_and(|responses| responses["402"].is_object()),
            || "the operation declares no 402".to_owned(),
        )
    })
}

/// Every offer of the document is in the live 402 at the same price, and the other way round.
fn agrees(site: &Site) -> Asking<'_> {
    Box::pin(async move {
        let listed = given(listed(site).await)?;
        site.first()?;
        let mut live = Vec::new();
        for challenge in &site.challenges {
            let Ok(request) = challenge.request() else {
                return skip("a request cannot be read");
            };
            let price = ["amount", "currency"].map(|name| text(&request, name).to_lowercase());
            live.push((challenge.offer(), price));
        }
        for offer in &listed {
            let name = format!("{}/{}", text(offer, "method"), text(offer, "intent"));
            // A price that is not said cannot be wrong.
            let same = |known: &str, member: &str| match offer.get(member) {
                None | Some(Value::Null) => true,
                Some(given) => given
                    .as_str()
                    .is_some_and(|given| given.to_lowercase() == known),
            };
            let holds = live.iter().any(|(known, [amount, currency])| {
                *known == name && same(amount, "amount") && same(currency, "currency")
            });
            ensure(holds, || {
                format!("no challenge is {name} at the document's price")
            })?;
        }
        let names: Vec<String> = listed
            .iter()
            .map(|offer| format!("{}/{}", text(offer, "method"), text(offer, "intent")))
            .collect();
        // The document's schema knows two intents.
        let known = |offer: &str| offer.ends_with("/charge") || offer.ends_with("/session");
        match live
            .iter()
            .find(|(offer, _)| known(offer) && !names.contains(offer))
        {
            None => Ok(()),
            Some((offer, _)) => Err(Finding::Warn(format!(
                "{offer} is challenged and not in the document"
            ))),
        }
    })
}

fn caching(site: &Site) -> Asking<'_> {
    Box::pin(async move {
        let answer = fetched(site).await?;
        ensure(!answer.text("cache-control").is_empty(), || {
            "no Cache-Control".to_owned()
        })
    })
}

fn cors(site: &Site) -> Asking<'_> {
    Box::pin(async move {
        let answer = fetched(site).await?;
        ensure(answer.text("access-control-allow-origin") == "*", || {
            "pages of other origins may not read it".to_owned()
        })
    })
}

#[cfg(test)]
mod tests {
    use super::fits;

    #[test]
    fn templates_fit_paths() {
        assert!(fits("/a/{x}/c", "/a/b/c") && fits("/a/{rest}", "/a/b/c"));
        assert!(!fits("/a/{x}/c", "/a/b/d") && !fits("/a/{x}", "/a") && !fits("/{x}/c", "/a/c/d"));
    }
}
