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
    Client::builder()
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
        let mut headers = HeaderMap::new();
        for text in &request.headers {
            // Without the text: it may hold a token.
            let wrong = || Failure::usage("-H is no header; give `Name: value`");
            let (name, value) = text.split_once(':').ok_or_else(wrong)?;
            let name: HeaderName = name.trim().parse().map_err(|_| wrong())?;
            let value: HeaderValue = value.trim().parse().map_err(|_| wrong())?;
            headers.append(name, value);
        }
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
    amount: String,
    currency: Option<String>,
}

/// What may be spent without being asked: a unit of a currency.
const DEFAULT_MAX: &str = "1";
const DEFAULT_MAX_SAT: &str = "1000";

impl Max {
    pub(crate) fn all(texts: &[String]) -> Result<Vec<Self>, Failure> {
        texts.iter().map(|text| Self::parse(text)).collect()
    }

    /// `0.05`, `0.50usd`, `100sat`, or with a colon before a currency that starts with a digit.
    pub(crate) fn parse(text: &str) -> Result<Self, Failure> {
        let wrong = || {
            Failure::usage(format!(
                "--max {text}: give a decimal and a currency or none: 0.05, 0.50usd, 100sat, \
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
            amount: amount.to_owned(),
            currency,
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
fn most(currency: &str, max: &[Max]) -> Result<Option<Amount>, Failure> {
    let named = max.iter().find(|m| m.currency.as_deref() == Some(currency));
    let chosen = named.or_else(|| max.iter().find(|m| m.currency.is_none()));
    let amount = match (chosen, max.is_empty(), currency) {
        (Some(max), ..) => &max.amount,
        (None, true, "sat") => DEFAULT_MAX_SAT,
        (None, true, _) => DEFAULT_MAX,
        (None, false, _) => return Ok(None),
    };
    let decimals = match (decimals(currency), named) {
        (Some(decimals), _) => decimals,
        // A currency nobody here knows: whoever names it means its base units.
        (None, Some(_)) => 0,
        (None, None) => return Ok(None),
    };
    match Amount::from_decimal(amount, decimals) {
        Ok(amount) => Ok(Some(amount)),
        Err(_) if named.is_none() => Ok(None),
        Err(error) => Err(Failure::usage(format!("--max {amount}{currency}: {error}"))),
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
        texts.iter().map(|text| Max::parse(text).unwrap()).collect()
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
            let parsed = Max::parse(bad);
            let read_as_limit = parsed.as_ref().is_ok_and(|max| max.currency.is_none());
            assert!(!read_as_limit, "{bad}: {parsed:?}");
        }
        assert!(Max::parse("").is_err() && Max::parse("-1").is_err() && Max::parse("1:").is_err());
    }
}
