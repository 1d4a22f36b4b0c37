//! The answer to a request that nobody paid for.

use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use crate::request::Prepared;
use crate::validate::{
    Asking, Check, Finding,
    Level::*,
    Verdict, ensure,
    probe::{PROBLEMS, Site},
    skip,
};

pub(crate) const CHECKS: &[Check] = &[
    Check::look("unpaid-status", &["CORE-1"], Must, status),
    Check::look("challenge-present", &["CORE-1", "CORE-2"], Must, present),
    Check::look("challenge-syntax", &["CORE-2", "CORE-43"], Must, syntax),
    Check::look("transport", &["CORE-48"], Must, transport),
    Check::look("unpaid-no-store", &["CORE-59"], Must, no_store),
    Check::look("unpaid-no-receipt", &["CORE-32"], Must, no_receipt),
    Check::look("problem-body", &["CORE-40"], Should, problem_body),
    Check::look("problem-status", &["CORE-40"], Should, problem_status),
    Check::look("problem-type", &["CORE-40"], Should, problem_type),
    Check::look("cookies", &["CORE-50"], Must, cookies),
    Check::ask("head", &["CORE-2", "CORE-54"], Must, head),
    Check::ask("preflight", &["CORE-7"], Should, preflight),
    Check::ask("browser-readable", &["CORE-1"], Should, browser),
];

fn status(site: &Site) -> Verdict {
    let status = site.unpaid.status;
    ensure(status == StatusCode::PAYMENT_REQUIRED, || {
        format!("answered {status}; is the URL paid for, and the method right?")
    })
}

fn present(site: &Site) -> Verdict {
    ensure(!site.challenges.is_empty(), || {
        "no Payment challenge that can be read".to_owned()
    })
}

/// The grammar of RFC 9110, names in lower case, none twice.
fn syntax(site: &Site) -> Verdict {
    ensure(site.unreadable.is_empty(), || site.unreadable.join("; "))?;
    site.first()?;
    for challenge in &site.challenges {
        let mut names: Vec<&str> = challenge.names().collect();
        names.sort_unstable();
        let offer = challenge.offer();
        let twice = names.windows(2).find(|pair| pair[0] == pair[1]);
        ensure(twice.is_none(), || {
            format!("{offer}: a parameter stands twice")
        })?;
        let upper = names
            .iter()
            .find(|name| name.bytes().any(|b| b.is_ascii_uppercase()));
        ensure(upper.is_none(), || {
            format!("{offer}: the parameter name {upper:?} is not in lower case")
        })?;
    }
    Ok(())
}

fn transport(site: &Site) -> Verdict {
    let tls = site.request.url.scheme() == "https";
    ensure(tls || site.is_local() || site.challenges.is_empty(), || {
        "challenges are issued over plain HTTP".to_owned()
    })
}

fn no_store(site: &Site) -> Verdict {
    ensure(site.unpaid.caches("no-store"), || {
        let given = site.unpaid.text("cache-control");
        format!("Cache-Control is {given:?}")
    })
}

fn no_receipt(site: &Site) -> Verdict {
    ensure(site.unpaid.receipt().is_none(), || {
        "a receipt without a payment".to_owned()
    })
}

fn problem_body(site: &Site) -> Verdict {
    let kind = site.unpaid.text("content-type");
    ensure(kind.starts_with("application/problem+json"), || {
        format!("the body's type is {kind:?}")
    })?;
    ensure(site.unpaid.json().is_some(), || {
        "the body is not a JSON object".to_owned()
    })
}

fn problem_status(site: &Site) -> Verdict {
    let Some(body) = site.unpaid.json() else {
        return skip("the body is not JSON");
    };
    let status = site.unpaid.status.as_u16();
    ensure(body.get("status") == Some(&status.into()), || {
        format!(
            "the body says {:?} in an answer {status}",
            body.get("status")
        )
    })
}

fn problem_type(site: &Site) -> Verdict {
    if site.unpaid.json().is_none() {
        return skip("the body is not JSON");
    }
    let found = site.unpaid.problem();
    ensure(found == "payment-required", || {
        format!("the type is {found:?} and not {PROBLEMS}payment-required")
    })
}

/// Nobody needs an account, and nothing that is worth money becomes a cookie.
fn cookies(site: &Site) -> Verdict {
    let ids: Vec<&str> = site
        .challenges
        .iter()
        .filter_map(|challenge| challenge.get("id").filter(|id| !id.is_empty()))
        .collect();
    let values = site.unpaid.headers.get_all(header::SET_COOKIE).iter();
    let cookies: Vec<String> = values
        .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        .collect();
    for cookie in &cookies {
        let holds = cookie.to_ascii_lowercase().contains("payment ")
            || ids.iter().any(|id| cookie.contains(id));
        ensure(!holds, || {
            "a cookie holds a challenge or a credential".to_owned()
        })?;
    }
    match cookies.is_empty() {
        true => Ok(()),
        false => Err(Finding::Warn(
            "a cookie is set before anything is paid".to_owned(),
        )),
    }
}

/// HEAD gives nothing away, and its 402 has challenges too.
fn head(site: &Site) -> Asking<'_> {
    Box::pin(async move {
        let request = Prepared {
            method: Method::HEAD,
            body: None,
            ..site.request.clone()
        };
        let answer = site.send(&request, HeaderMap::new(), "HEAD").await?;
        ensure(answer.receipt().is_none(), || {
            "a receipt without a payment".to_owned()
        })?;
        ensure(answer.body.is_empty(), || {
            "a body in answer to HEAD".to_owned()
        })?;
        let asks = !answer.challenges().0.is_empty();
        ensure(
            answer.status != StatusCode::PAYMENT_REQUIRED || asks,
            || "a 402 without a challenge".to_owned(),
        )?;
        match answer.status.is_success() {
            true => Err(Finding::Warn(format!("answered {} unpaid", answer.status))),
            false => Ok(()),
        }
    })
}

/// A browser asks by OPTIONS whether it may ask, and never with a credential.
fn preflight(site: &Site) -> Asking<'_> {
    Box::pin(async move {
        let mut headers = HeaderMap::new();
        headers.insert(
            header::ORIGIN,
            HeaderValue::from_static("https://agent.example"),
        );
        let method = HeaderValue::from_str(site.request.method.as_str());
        let method = method.map_err(|error| Finding::Skip(error.to_string()))?;
        headers.insert(header::ACCESS_CONTROL_REQUEST_METHOD, method);
        headers.insert(
            header::ACCESS_CONTROL_REQUEST_HEADERS,
            HeaderValue::from_static("authorization"),
        );
        let request = Prepared {
            method: Method::OPTIONS,
            body: None,
            ..site.request.clone()
        };
        let answer = site.send(&request, headers, "OPTIONS").await?;
        ensure(answer.status != StatusCode::PAYMENT_REQUIRED, || {
            "a preflight is asked for money, which no browser can give it".to_owned()
        })
    })
}

/// Where pages of other origins may read the 402, they may read its challenges.
fn browser(site: &Site) -> Asking<'_> {
    Box::pin(async move {
        let answer = site
            .send_with(
                header::ORIGIN,
                &["https://agent.example"],
                "a page of another origin",
            )
            .await?;
        let origin = answer.text("access-control-allow-origin");
        if origin.is_empty() {
            return skip("no Access-Control-Allow-Origin: not meant for browsers");
        }
        let exposed = answer
            .text("access-control-expose-headers")
            .to_ascii_lowercase();
        let exposes = |name| exposed.split(',').any(|e| e.trim() == name);
        let all = exposes("*") || (exposes("www-authenticate") && exposes("payment-receipt"));
        ensure(all, || {
            "Access-Control-Expose-Headers names not both WWW-Authenticate and Payment-Receipt"
                .to_owned()
        })
    })
}
