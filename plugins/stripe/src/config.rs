//! Configuration of both sides: read, checked all at once, turned into a connection.

use std::{collections::BTreeMap, time::Duration};

use farebox_core::{Invalid, Issue, Secret, SecretSource};
use farebox_wire::Amount;
use serde::Deserialize;
use url::{Host, Url};

use crate::{
    api::Api,
    connect::{Connect, ConnectConfig},
    currency::Currency,
    page::{PageConfig, STRIPE_JS},
    refund::RefundPolicy,
    token::TokenParameter,
};

/// Where Stripe is, unless the configuration says otherwise.
pub(crate) const API_BASE: &str = "https://api.stripe.com";
/// The version of the API in which tokens go by the names this crate uses.
pub(crate) const API_VERSION: &str = "2026-07-29.preview";
/// How long one call may take. Stripe's own limit is about 80 seconds.
const TIMEOUT: u64 = 30;

/// The keys under `[rails.stripe]`: the seller's side.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Config {
    /// The account's secret key, `sk_…`, or a restricted one, `rk_…`, that may write PaymentIntents
    /// and read Shared Payment Tokens.
    pub secret_key: SecretSource,
    /// The Business Network profile that payers grant their tokens to.
    pub network_id: String,
    /// Which payment methods a token may stand for. Default `["card"]`.
    #[serde(default = "card")]
    pub payment_method_types: Vec<String>,
    /// Where the API is: https, or http on loopback. Default `https://api.stripe.com`.
    #[serde(default = "api_base")]
    pub api_base: String,
    /// The `Stripe-Version` of every call. Default `2026-07-29.preview`.
    #[serde(default = "api_version")]
    pub api_version: String,
    /// Which PaymentIntent parameter carries the token: `shared_payment_granted_token` (default),
    /// or `payment_method_data`, for the member of the same name there.
    #[serde(default = "token_parameter")]
    pub token_parameter: String,
    /// Smallest charges by currency, decimals, where they differ from Stripe's table: an account
    /// that settles in another currency has others.
    #[serde(default)]
    pub minimums: BTreeMap<String, String>,
    /// How charges are settled over Stripe Connect, for platforms.
    pub connect: Option<ConnectConfig>,
    /// The signing secrets of webhooks, `whsec_…`, any of which may have signed. Empty, and no call
    /// is taken.
    #[cfg(feature = "webhooks")]
    #[serde(default)]
    pub webhook_secrets: Vec<SecretSource>,
    /// How old a webhook may be, seconds. Default 300.
    #[cfg(feature = "webhooks")]
    #[serde(default = "crate::webhook::tolerance")]
    pub webhook_tolerance: u32,
    /// How long one call may take, seconds. Default 30.
    #[serde(default = "timeout")]
    pub timeout: u64,
    /// The account's publishable key, `pk_…`: with it, browsers get a page to pay on by card.
    pub publishable_key: Option<String>,
    /// Where that page has Stripe.js from. Default `https://js.stripe.com/v3/`.
    #[serde(default = "stripe_js")]
    pub stripe_js: String,
}

/// The keys of a wallet that mints test tokens: the payer's side.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct WalletConfig {
    /// A secret key in test mode, `sk_test_…` or `rk_test_…`.
    pub secret_key: SecretSource,
    /// What the tokens charge. Default `pm_card_visa`, Stripe's test card.
    #[serde(default = "test_card")]
    pub payment_method: String,
    /// Where the API is: https, or http on loopback. Default `https://api.stripe.com`.
    #[serde(default = "api_base")]
    pub api_base: String,
    /// The `Stripe-Version` of every call. Default `2026-07-29.preview`.
    #[serde(default = "api_version")]
    pub api_version: String,
    /// How long one call may take, seconds. Default 30.
    #[serde(default = "timeout")]
    pub timeout: u64,
}

fn card() -> Vec<String> {
    vec!["card".to_owned()]
}

pub(crate) fn api_base() -> String {
    API_BASE.to_owned()
}

pub(crate) fn api_version() -> String {
    API_VERSION.to_owned()
}

fn token_parameter() -> String {
    TokenParameter::TopLevel.key().to_owned()
}

fn stripe_js() -> String {
    STRIPE_JS.to_owned()
}

fn test_card() -> String {
    "pm_card_visa".to_owned()
}

pub(crate) const fn timeout() -> u64 {
    TIMEOUT
}

/// A checked [`Config`].
pub(crate) struct Checked {
    pub(crate) api: Api,
    pub(crate) network_id: String,
    pub(crate) payment_method_types: Vec<String>,
    pub(crate) token_parameter: TokenParameter,
    pub(crate) minimums: BTreeMap<String, Amount>,
    pub(crate) connect: Connect,
    pub(crate) page: Option<PageConfig>,
    pub(crate) refunds: RefundPolicy,
    #[cfg(feature = "webhooks")]
    pub(crate) webhooks: crate::webhook::Webhooks,
}

impl Config {
    /// A seller's account, with every other key at its default.
    #[must_use]
    pub fn new(secret_key: SecretSource, network_id: impl Into<String>) -> Self {
        Self {
            secret_key,
            network_id: network_id.into(),
            payment_method_types: card(),
            api_base: api_base(),
            api_version: api_version(),
            token_parameter: token_parameter(),
            minimums: BTreeMap::new(),
            connect: None,
            #[cfg(feature = "webhooks")]
            webhook_secrets: Vec::new(),
            #[cfg(feature = "webhooks")]
            webhook_tolerance: crate::webhook::tolerance(),
            timeout: TIMEOUT,
            publishable_key: None,
            stripe_js: stripe_js(),
        }
    }

    /// At another address: the sandbox's.
    #[must_use]
    pub fn api_base(mut self, api_base: impl Into<String>) -> Self {
        self.api_base = api_base.into();
        self
    }

    /// With a page that browsers can pay on by card.
    #[must_use]
    pub fn publishable_key(mut self, key: impl Into<String>) -> Self {
        self.publishable_key = Some(key.into());
        self
    }

    /// With Stripe.js from elsewhere: the sandbox's.
    #[must_use]
    pub fn stripe_js(mut self, url: impl Into<String>) -> Self {
        self.stripe_js = url.into();
        self
    }

    pub(crate) fn check(self) -> Result<Checked, Invalid> {
        let mut issues = Vec::new();
        if self.network_id.trim().is_empty() {
            issues.push(Issue::new(
                "network_id",
                "is empty; give the Business Network profile that tokens are granted to",
            ));
        }
        if self.payment_method_types.is_empty()
            || self
                .payment_method_types
                .iter()
                .any(|kind| kind.trim().is_empty())
        {
            issues.push(Issue::new(
                "payment_method_types",
                "names no type; give [\"card\"]",
            ));
        }
        let token_parameter = note(TokenParameter::parse(&self.token_parameter), &mut issues);
        let mut minimums = BTreeMap::new();
        for (code, text) in &self.minimums {
            match Currency::parse(code).and_then(|c| Ok((c.code().to_owned(), c.read(text)?))) {
                Ok((code, amount)) => drop(minimums.insert(code, amount)),
                Err(problem) => issues.push(Issue::new(format!("minimums.{code}"), problem)),
            }
        }
        let refunds = self.connect.as_ref().map(|connect| connect.refund);
        let settling = match self.connect {
            Some(config) => config.check(&mut issues).map(Connect::Policy),
            None => Some(Connect::None),
        };
        let page = PageConfig::check(
            self.publishable_key.as_deref(),
            &self.stripe_js,
            &self.secret_key,
            &mut issues,
        );
        #[cfg(feature = "webhooks")]
        let webhooks = crate::webhook::Webhooks::check(
            &self.webhook_secrets,
            self.webhook_tolerance,
            &mut issues,
        );
        let api = connect(
            &self.secret_key,
            &["sk_", "rk_"],
            &self.api_base,
            &self.api_version,
            self.timeout,
            &mut issues,
        );
        match (api, token_parameter, settling) {
            (Some(api), Some(token_parameter), Some(connect)) if issues.is_empty() => Ok(Checked {
                connect,
                page,
                refunds: refunds.unwrap_or_default(),
                #[cfg(feature = "webhooks")]
                webhooks,
                api,
                network_id: self.network_id,
                payment_method_types: self.payment_method_types,
                token_parameter,
                minimums,
            }),
            _ => Err(invalid(issues)),
        }
    }
}

impl WalletConfig {
    /// A wallet of test cards, with every other key at its default.
    #[must_use]
    pub fn new(secret_key: SecretSource) -> Self {
        Self {
            secret_key,
            payment_method: test_card(),
            api_base: api_base(),
            api_version: api_version(),
            timeout: TIMEOUT,
        }
    }

    /// At another address: the sandbox's.
    #[must_use]
    pub fn api_base(mut self, api_base: impl Into<String>) -> Self {
        self.api_base = api_base.into();
        self
    }

    /// Charging another payment method: `pm_card_chargeDeclined`.
    #[must_use]
    pub fn payment_method(mut self, payment_method: impl Into<String>) -> Self {
        self.payment_method = payment_method.into();
        self
    }

    pub(crate) fn check(self) -> Result<(Api, String), Invalid> {
        let mut issues = Vec::new();
        if !self.payment_method.starts_with("pm_") {
            issues.push(Issue::new(
                "payment_method",
                "is no payment method; give one of Stripe's test methods, like \"pm_card_visa\"",
            ));
        }
        let api = connect(
            &self.secret_key,
            &["sk_test_", "rk_test_"],
            &self.api_base,
            &self.api_version,
            self.timeout,
            &mut issues,
        );
        match api {
            Some(api) if issues.is_empty() => Ok((api, self.payment_method)),
            _ => Err(invalid(issues)),
        }
    }
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
    use serde_json::{Value, json};

    fn check(config: Value) -> Result<Checked, Invalid> {
        farebox_core::config::read::<Config>(&config)?.check()
    }

    #[test]
    fn the_example_is_a_configuration() {
        let text = include_str!("example.toml")
            .replace("{ env = \"STRIPE_SECRET_KEY\" }", "\"sk_test_1\"");
        let config: Config = toml::from_str(&text).unwrap();
        let checked = config.check().unwrap();
        assert_eq!(checked.payment_method_types, ["card"]);
        // And so is what it has as comments.
        let all = text.replace("\n# ", "\n");
        assert!(toml::from_str::<Config>(&all).unwrap().check().is_ok());
    }

    /// Protects: a seller fixes everything in one go.
    #[test]
    fn every_problem_is_reported_at_once() {
        let Err(invalid) = check(json!({
            "secret_key": "pk_test_1",
            "network_id": "",
            "payment_method_types": [],
            "api_base": "http://api.stripe.com",
            "api_version": "latest",
            "token_parameter": "spt",
            "minimums": { "usd": "0x10", "xyz": "1" },
            "timeout": 0,
        })) else {
            panic!("accepted");
        };
        let keys: Vec<&str> = invalid
            .issues()
            .iter()
            .map(|issue| issue.key.as_str())
            .collect();
        let expected = [
            "network_id",
            "payment_method_types",
            "token_parameter",
            "minimums.usd",
            "minimums.xyz",
            "secret_key",
            "api_base",
            "api_version",
            "timeout",
        ];
        assert_eq!(keys, expected);
        assert!(!invalid.to_string().contains("pk_test_1"));
    }

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

    /// Protects: the wallet of test cards never touches a live account.
    #[test]
    fn a_live_key_mints_no_test_tokens() {
        let wallet = |key: &str| WalletConfig::new(SecretSource::Text(Secret::new(key)));
        assert!(wallet("sk_live_1").check().is_err());
        assert!(wallet("sk_test_1").check().is_ok());
        assert!(wallet("sk_test_1").payment_method("4242").check().is_err());
    }
}
