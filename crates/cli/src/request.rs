//! Requests by curl's names, and the wallets and limits to pay for them with.

use std::{io::Read as _, path::Path};

use farebox::{
    Amount, Budget, Limit,
    config::{Wallets, from_env, tables},
    wire::{AmountError, Challenge},
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use reqwest::{Client, RequestBuilder, Url, redirect::Policy};
use serde_json::{Map, Value};

use crate::{args::Request, failure::Failure};

/// A client that goes nowhere it was not sent: no redirects, as with curl.
pub(crate) fn client() -> Result<Client, Failure> {
    client_with(HeaderMap::new())
}

/// The same, with headers that every request has.
pub(crate) fn client_with(headers: HeaderMap) -> Result<Client, Failure> {
    Client::builder()
        .default_headers(headers)
        .redirect(Policy::none())
        .user_agent(concat!("farebox/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(Failure::general)
}

/// A request that can be sent more than once.
#[derive(Clone, Debug)]
pub(crate) struct Prepared {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Option<Vec<u8>>,
}

impl Prepared {
    pub(crate) fn new(request: &Request) -> Result<Self, Failure> {
        let url = Self::parse_url(&request.url)?;
        let body = request.data.as_deref().map(data).transpose()?;
        let method = match &request.method {
            Some(text) => text
                .parse()
                .map_err(|_| Failure::usage("-X is no HTTP method; give one such as GET"))?,
            None if body.is_some() => Method::POST,
            None => Method::GET,
        };
        let mut headers = headers(&request.headers)?;
        if body.is_some() && !headers.contains_key(header::CONTENT_TYPE) {
            let form = HeaderValue::from_static("application/x-www-form-urlencoded");
            headers.insert(header::CONTENT_TYPE, form);
        }
        Ok(Self {
            method,
            url,
            headers,
            body,
        })
    }

    pub(crate) fn parse_url(text: &str) -> Result<Url, Failure> {
        Url::parse(text)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
            .ok_or_else(|| Failure::usage("the URL must start with http:// or https://"))
    }

    pub(crate) fn on(&self, client: &Client) -> RequestBuilder {
        let request = client.request(self.method.clone(), self.url.clone());
        let request = request.headers(self.headers.clone());
        match &self.body {
            Some(body) => request.body(body.clone()),
            None => request,
        }
    }
}

/// `Name: value`, each.
pub(crate) fn headers(texts: &[String]) -> Result<HeaderMap, Failure> {
    let mut headers = HeaderMap::new();
    for text in texts {
        // Without the text: it may hold a token.
        let wrong = || Failure::usage("-H is no header; give `Name: value`");
        let (name, value) = text.split_once(':').ok_or_else(wrong)?;
        let name: HeaderName = name.trim().parse().map_err(|_| wrong())?;
        let value: HeaderValue = value.trim().parse().map_err(|_| wrong())?;
        headers.append(name, value);
    }
    Ok(headers)
}

fn data(text: &str) -> Result<Vec<u8>, Failure> {
    match text.strip_prefix('@') {
        None => Ok(text.as_bytes().to_vec()),
        Some("-") => {
            let mut body = Vec::new();
            std::io::stdin().read_to_end(&mut body)?;
            Ok(body)
        }
        Some(path) => std::fs::read(path)
            .map_err(|error| Failure::usage(format!("cannot read the body {path}: {error}"))),
    }
}

/// The challenges of a response; those that cannot be read are left out.
pub(crate) fn challenges(headers: &HeaderMap) -> Vec<Challenge> {
    let values = headers.get_all(header::WWW_AUTHENTICATE);
    let found = Challenge::parse_all(values.iter().map(HeaderValue::as_bytes));
    found.into_iter().filter_map(Result::ok).collect()
}

/// Wallets from a file and the environment, those of `rail` only if one is named. What the
/// environment says wins, key by key.
pub(crate) fn wallets(file: Option<&Path>, rail: Option<&str>) -> Result<Wallets, Failure> {
    let registry = farebox::registry().map_err(Failure::general)?;
    let (mut found, mut source) = (Map::new(), "the environment".to_owned());
    if let Some(path) = file {
        source = format!("{} and the environment", path.display());
        let text = std::fs::read_to_string(path).map_err(|error| {
            Failure::usage(format!(
                "cannot read the wallets {}: {error}",
                path.display()
            ))
        })?;
        found = tables(&text).map_err(|invalid| Failure::invalid(path.display(), &invalid))?;
    }
    for (name, table) in from_env(variables(), &registry) {
        match (found.get_mut(&name), table) {
            (Some(Value::Object(known)), Value::Object(table)) => known.extend(table),
            (_, table) => drop(found.insert(name, table)),
        }
    }
    if let Some(rail) = rail {
        let wanted = rail.split('/').next().unwrap_or(rail);
        found.retain(|name, _| name == wanted);
    }
    let wallets = Wallets::from_tables(found, &registry)
        .map_err(|invalid| Failure::invalid(source, &invalid))?;
    Ok(match rail {
        Some(rail) => wallets.only(rail),
        None => wallets,
    })
}

fn variables() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

/// The most that may be paid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Max {
    flag: &'static str,
    amount: String,
    currency: Option<String>,
}

/// What may be spent without being asked: a unit of a currency.
const DEFAULT_MAX: &str = "1";
const DEFAULT_MAX_SAT: &str = "1000";

impl Max {
    pub(crate) fn all(texts: &[String]) -> Result<Vec<Self>, Failure> {
        Self::of("--max", texts)
    }

    /// The limits that a flag gives.
    pub(crate) fn of(flag: &'static str, texts: &[String]) -> Result<Vec<Self>, Failure> {
        texts.iter().map(|text| Self::parse(flag, text)).collect()
    }

    /// `0.05`, `0.50usd`, `100sat`, or with a colon before a currency that starts with a digit.
    fn parse(flag: &'static str, text: &str) -> Result<Self, Failure> {
        let wrong = || {
            Failure::usage(format!(
                "{flag} {text}: give a decimal and a currency or none: 0.05, 0.50usd, 100sat, \
                 0.05:0x20c0…"
            ))
        };
        let end = text
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(text.len());
        let (amount, rest) = text.split_at(end);
        let currency = rest.strip_prefix(':').unwrap_or(rest).to_ascii_lowercase();
        // No currency has this many decimals, so only the spelling can be wrong here.
        let spelling = Amount::from_decimal(amount, u8::MAX);
        if matches!(spelling, Err(AmountError::NotADecimal))
            || currency.starts_with(|c: char| !c.is_ascii_alphanumeric())
            || rest == ":"
        {
            return Err(wrong());
        }
        let currency = (!currency.is_empty()).then_some(currency);
        Ok(Self {
            flag,
            amount: amount.to_owned(),
            currency,
        })
    }

    /// In base units; `decimals` is the currency's.
    fn units(&self, decimals: u8) -> Result<Amount, Failure> {
        Amount::from_decimal(&self.amount, decimals).map_err(|error| {
            let (flag, amount) = (self.flag, &self.amount);
            let currency = self.currency.as_deref().unwrap_or_default();
            Failure::usage(format!("{flag} {amount}{currency}: {error}"))
        })
    }
}

/// A budget over the currencies that `challenges` ask for.
pub(crate) fn budget(challenges: &[Challenge], max: &[Max]) -> Result<Budget, Failure> {
    let mut limits: Vec<(String, Limit)> = Vec::new();
    for challenge in challenges {
        let currency = challenge.request.value()["currency"]
            .as_str()
            .map(str::to_ascii_lowercase);
        let Some(currency) = currency.filter(|c| limits.iter().all(|(known, _)| known != c)) else {
            continue;
        };
        if let Some(amount) = most(&currency, max)? {
            limits.push((
                currency.clone(),
                Limit::per_request(&currency, amount).total(amount),
            ));
        }
    }
    Ok(Budget::new(limits.into_iter().map(|(_, limit)| limit)))
}

/// The most that may be paid in `currency`, base units. `None` if nothing may.
pub(crate) fn most(currency: &str, max: &[Max]) -> Result<Option<Amount>, Failure> {
    if let Some(max) = chosen(currency, max) {
        return said(currency, max);
    }
    let amount = match (max.is_empty(), currency) {
        (true, "sat") => DEFAULT_MAX_SAT,
        (true, _) => DEFAULT_MAX,
        (false, _) => return Ok(None),
    };
    let units = |decimals| Amount::from_decimal(amount, decimals).ok();
    Ok(decimals(currency).and_then(units))
}

/// What is said of `currency`, base units. `None` if nothing is.
pub(crate) fn named(currency: &str, amounts: &[Max]) -> Result<Option<Amount>, Failure> {
    chosen(currency, amounts).map_or(Ok(None), |amount| said(currency, amount))
}

/// What names the currency, or else what names none.
fn chosen<'a>(currency: &str, amounts: &'a [Max]) -> Option<&'a Max> {
    let named = amounts
        .iter()
        .find(|amount| amount.currency.as_deref() == Some(currency));
    named.or_else(|| amounts.iter().find(|amount| amount.currency.is_none()))
}

fn said(currency: &str, amount: &Max) -> Result<Option<Amount>, Failure> {
    match (decimals(currency), &amount.currency) {
        (Some(decimals), Some(_)) => amount.units(decimals).map(Some),
        // A currency nobody here knows: whoever names it means its base units.
        (None, Some(_)) => amount.units(0).map(Some),
        // Meant for another currency, where it is none of this one.
        (Some(decimals), None) => Ok(amount.units(decimals).ok()),
        (None, None) => Ok(None),
    }
}

/// Digits after a currency's point.
pub(crate) fn decimals(currency: &str) -> Option<u8> {
    if currency == "sat" {
        return Some(0);
    }
    // Every TIP-20 token has six.
    let token = currency
        .strip_prefix("0x")
        .is_some_and(|hex| hex.len() == 40);
    if token {
        return Some(6);
    }
    let known = iso_currency::Currency::from_code(&currency.to_ascii_uppercase())?;
    known
        .exponent()
        .and_then(|digits| u8::try_from(digits).ok())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may panic")]
mod tests {
    use super::*;

    const TOKEN: &str = "0x20c0000000000000000000000000000000000000";

    fn max(texts: &[&str]) -> Vec<Max> {
        texts
            .iter()
            .map(|text| Max::parse("--max", text).unwrap())
            .collect()
    }

    fn units(currency: &str, texts: &[&str]) -> Option<u128> {
        most(currency, &max(texts)).unwrap().map(Amount::get)
    }

    #[test]
    fn a_limit_is_in_the_usual_unit_of_its_currency() {
        assert_eq!(units("usd", &["0.05"]), Some(5));
        assert_eq!(units(TOKEN, &["0.05"]), Some(50_000));
        assert_eq!(units("usd", &["0.50usd", "0.05"]), Some(50));
        assert_eq!(units("sat", &["100sat"]), Some(100));
        assert_eq!(units(TOKEN, &[&format!("0.05:{TOKEN}")]), Some(50_000));
        assert_eq!(units("points", &["7points"]), Some(7));
    }

    /// Protects: what was not allowed is not spent.
    #[test]
    fn a_currency_without_a_limit_is_not_spent() {
        assert_eq!(units("usd", &["100sat"]), None);
        assert_eq!(units("points", &["0.05"]), None);
        assert_eq!(units("points", &[]), None);
        // Not five hundredths of a sat rounded to something.
        assert_eq!(units("sat", &["0.05"]), None);
        assert!(most("usd", &max(&["0.001usd"])).is_err());
    }

    #[test]
    fn without_a_limit_little_is_spent() {
        assert_eq!(units("usd", &[]), Some(100));
        assert_eq!(units("sat", &[]), Some(1000));
        assert_eq!(units(TOKEN, &[]), Some(1_000_000));
    }

    #[test]
    fn a_limit_that_is_none_is_refused() {
        for bad in [
            "", "usd", "-1", "+1", "1e3", "0x10", "1.usd", "1,5", "1:", "1::usd", ".5",
        ] {
            let parsed = Max::parse("--max", bad);
            let read_as_limit = parsed.as_ref().is_ok_and(|max| max.currency.is_none());
            assert!(!read_as_limit, "{bad}: {parsed:?}");
        }
        for bad in ["", "-1", "1:"] {
            assert!(Max::parse("--max", bad).is_err(), "{bad}");
        }
    }
}
