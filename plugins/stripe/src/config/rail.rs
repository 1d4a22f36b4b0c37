//! `[rails.stripe]`: the seller's side.

use std::collections::BTreeMap;

use farebox_core::{Invalid, Issue, SecretSource};
use farebox_wire::Amount;
use serde::Deserialize;

use super::{api_base, api_version, connect, invalid, note, timeout};
use crate::{
    api::Api,
    connect::{Connect, ConnectConfig},
    currency::Currency,
    page::{PageConfig, STRIPE_JS},
    refund::RefundPolicy,
    token::TokenParameter,
};

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

fn card() -> Vec<String> {
    vec!["card".to_owned()]
}

fn token_parameter() -> String {
    TokenParameter::TopLevel.key().to_owned()
}

fn stripe_js() -> String {
    STRIPE_JS.to_owned()
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
            timeout: timeout(),
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn check(config: Value) -> Result<Checked, Invalid> {
        farebox_core::config::read::<Config>(&config)?.check()
    }

    #[test]
    fn the_example_is_a_configuration() {
        let text = include_str!("../example.toml")
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
}
