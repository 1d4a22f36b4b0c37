//! Configuration of both sides: read, checked all at once, turned into a connection.

mod rail;
mod wallet;

use std::time::Duration;

use farebox_core::{Invalid, Issue, Secret, SecretSource};
use url::{Host, Url};

use crate::api::Api;

pub use rail::Config;
pub use wallet::WalletConfig;

/// Where Stripe is, unless the configuration says otherwise.
pub(crate) const API_BASE: &str = "https://api.stripe.com";
/// The version of the API in which tokens go by the names this crate uses.
pub(crate) const API_VERSION: &str = "2026-07-29.preview";
/// How long one call may take. Stripe's own limit is about 80 seconds.
const TIMEOUT: u64 = 30;

pub(crate) fn api_base() -> String {
    API_BASE.to_owned()
}

pub(crate) fn api_version() -> String {
    API_VERSION.to_owned()
}

pub(crate) const fn timeout() -> u64 {
    TIMEOUT
}

pub(crate) fn connect(
    secret_key: &SecretSource,
    prefixes: &[&str],
    api_base: &str,
    api_version: &str,
    timeout: u64,
    issues: &mut Vec<Issue>,
) -> Option<Api> {
    let key = note(read_key(secret_key, prefixes), issues);
    let base = note(read_base(api_base), issues);
    let version = note(read_version(api_version), issues);
    if !(1..=120).contains(&timeout) {
        let problem = format!("is {timeout}; give whole seconds from 1 to 120");
        issues.push(Issue::new("timeout", problem));
    }
    match Api::new(&key?, &base?, version?, Duration::from_secs(timeout)) {
        Ok(api) => Some(api),
        Err(error) => {
            issues.push(Issue::new("api_base", format!("no HTTP client: {error}")));
            None
        }
    }
}

fn note<T>(result: Result<T, Issue>, issues: &mut Vec<Issue>) -> Option<T> {
    result.map_err(|issue| issues.push(issue)).ok()
}

/// Issues that are known not to be empty.
pub(crate) fn invalid(issues: Vec<Issue>) -> Invalid {
    match Invalid::unless_empty(issues) {
        Err(invalid) => invalid,
        Ok(()) => Invalid::new("", "the configuration cannot be used"),
    }
}

fn read_key(source: &SecretSource, prefixes: &[&str]) -> Result<Secret, Issue> {
    let key = source.read("secret_key")?;
    let text = key.expose();
    let known = prefixes
        .iter()
        .any(|p| text.len() > p.len() && text.starts_with(p));
    if known && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Ok(key);
    }
    let hint = if text.starts_with("pk_") {
        " (this is a publishable key)"
    } else if ["sk_live_", "rk_live_"]
        .iter()
        .any(|live| text.starts_with(live))
    {
        // Only the wallet of test cards refuses those.
        " (this is a live key, which pays with tokens = \"issued\")"
    } else {
        ""
    };
    let prefixes = prefixes.join("… or ");
    Err(Issue::new(
        "secret_key",
        format!("is no key that fits; give one like {prefixes}…{hint}"),
    ))
}

/// Plain http would show the key and the tokens to the network.
fn read_base(text: &str) -> Result<Url, Issue> {
    let issue = |problem: &str| Err(Issue::new("api_base", format!("`{text}` {problem}")));
    let Ok(url) = Url::parse(text) else {
        return issue("is no URL; give https://host, or http://127.0.0.1:port");
    };
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Issue::new(
            "api_base",
            "holds a user name; give the key as secret_key",
        ));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return issue("has a query or a fragment; give the base only");
    }
    match url.scheme() {
        "https" if url.host().is_some() => Ok(url),
        "http" if is_loopback(&url) => Ok(url),
        "http" => issue("is plain http to another host; use https"),
        _ => issue("is no http address; give https://host"),
    }
}

pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

fn read_version(text: &str) -> Result<&str, Issue> {
    let date = text.split('.').next().unwrap_or_default();
    let is_date = date.len() == 10
        && date.bytes().enumerate().all(|(n, b)| match n {
            4 | 7 => b == b'-',
            _ => b.is_ascii_digit(),
        });
    if is_date
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'))
    {
        return Ok(text);
    }
    let problem = format!("`{text}` is no version; give one like \"{API_VERSION}\"");
    Err(Issue::new("api_version", problem))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects: keys and tokens never travel in the clear.
    #[test]
    fn only_loopback_may_be_plain_http() {
        for good in [
            "https://api.stripe.com",
            "http://127.0.0.1:1",
            "http://[::1]:1",
            "http://localhost:1",
        ] {
            assert!(read_base(good).is_ok(), "{good}");
        }
        for bad in [
            "http://api.stripe.com",
            "http://localhost.example.com",
            "http://127.0.0.1.nip.io",
            "ftp://127.0.0.1",
            "api.stripe.com",
            "https://sk_test_1@api.stripe.com",
            "https://api.stripe.com?x=1",
            "",
        ] {
            assert!(read_base(bad).is_err(), "{bad}");
        }
    }
}
