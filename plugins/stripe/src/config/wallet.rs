//! `[wallets.stripe]`: the payer's side.

use farebox_core::{Invalid, Issue, SecretSource};
use serde::Deserialize;

use super::{api_base, api_version, connect, invalid, timeout};
use crate::{
    api::Api,
    issued::IssuedTokens,
    wallet::{ConfiguredTokens, TestHelperTokens},
};

const TEST: &str = "test";
const ISSUED: &str = "issued";
/// Stripe's test card.
const TEST_CARD: &str = "pm_card_visa";

/// The keys of a wallet: the payer's side.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct WalletConfig {
    /// The secret key of the account that makes the tokens. In test mode, `sk_test_…` or
    /// `rk_test_…`, unless they are issued; then `sk_…`, or an `rk_…` that may issue tokens.
    pub secret_key: SecretSource,
    /// How the tokens are made: `test` (default), by Stripe's test helper, in test mode only and
    /// without money; or `issued`, by the account itself, an agent's, from a payment method it holds.
    #[serde(default = "test")]
    pub tokens: String,
    /// What the tokens charge, `pm_…`. Needed where they are issued; otherwise a test method,
    /// `pm_card_visa` unless said.
    pub payment_method: Option<String>,
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

fn test() -> String {
    TEST.to_owned()
}

impl WalletConfig {
    /// A wallet of test cards, with every other key at its default.
    #[must_use]
    pub fn new(secret_key: SecretSource) -> Self {
        Self {
            secret_key,
            tokens: test(),
            payment_method: None,
            api_base: api_base(),
            api_version: api_version(),
            timeout: timeout(),
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
        self.payment_method = Some(payment_method.into());
        self
    }

    /// With tokens that the account issues itself, from one of its payment methods.
    #[must_use]
    pub fn issued(mut self, payment_method: impl Into<String>) -> Self {
        self.tokens = ISSUED.to_owned();
        self.payment_method(payment_method)
    }

    pub(crate) fn check(self) -> Result<ConfiguredTokens, Invalid> {
        match self.tokens.as_str() {
            TEST => self.check_test().map(ConfiguredTokens::Test),
            ISSUED => self.check_issued().map(ConfiguredTokens::Issued),
            other => {
                let problem = format!(
                    "`{other}` is unknown; give \"test\" for tokens of Stripe's test helper, or \
                     \"issued\" for the account's own"
                );
                let mut issues = vec![Issue::new("tokens", problem)];
                // What is wrong with the rest, whichever it is to be.
                let prefixes = ["sk_", "rk_"];
                drop(connect(
                    &self.secret_key,
                    &prefixes,
                    &self.api_base,
                    &self.api_version,
                    self.timeout,
                    &mut issues,
                ));
                Err(invalid(issues))
            }
        }
    }

    pub(crate) fn check_issued(self) -> Result<IssuedTokens, Invalid> {
        let problem =
            "is no payment method; give one of the account that issues the tokens, `pm_…`";
        let (api, payment_method) = self.connected(&["sk_", "rk_"], "", problem)?;
        Ok(IssuedTokens::with(api, payment_method))
    }

    pub(crate) fn check_test(self) -> Result<TestHelperTokens, Invalid> {
        let problem =
            "is no payment method; give one of Stripe's test methods, like \"pm_card_visa\"";
        let (api, payment_method) =
            self.connected(&["sk_test_", "rk_test_"], TEST_CARD, problem)?;
        Ok(TestHelperTokens::with(api, payment_method))
    }

    /// The API under a key of these kinds, and the payment method: `usual` unless one is said.
    fn connected(
        self,
        keys: &[&str],
        usual: &str,
        problem: &'static str,
    ) -> Result<(Api, String), Invalid> {
        let mut issues = Vec::new();
        let payment_method = self.payment_method.unwrap_or_else(|| usual.to_owned());
        if !payment_method.starts_with("pm_") {
            issues.push(Issue::new("payment_method", problem));
        }
        let api = connect(
            &self.secret_key,
            keys,
            &self.api_base,
            &self.api_version,
            self.timeout,
            &mut issues,
        );
        match api {
            Some(api) if issues.is_empty() => Ok((api, payment_method)),
            _ => Err(invalid(issues)),
        }
    }
}

#[cfg(test)]
mod tests {
    use farebox_core::Secret;
    use serde_json::{Value, json};

    use super::*;

    fn check(config: Value) -> Result<ConfiguredTokens, Invalid> {
        farebox_core::config::read::<WalletConfig>(&config)?.check()
    }

    fn said(config: Value) -> String {
        check(config).unwrap_err().to_string()
    }

    /// Protects: the wallet of test cards never touches a live account.
    #[test]
    fn a_live_key_mints_no_test_tokens() {
        let wallet = |key: &str| WalletConfig::new(SecretSource::Text(Secret::new(key)));
        assert!(wallet("sk_live_1").check().is_err());
        assert!(wallet("sk_test_1").check().is_ok());
        assert!(wallet("sk_test_1").payment_method("4242").check().is_err());
        let hint = said(json!({ "secret_key": "sk_live_1" }));
        assert!(hint.contains("tokens = \"issued\""), "{hint}");
        assert!(!hint.contains("live_1"), "{hint}");
    }

    /// Protects: an agent's own tokens take a live key, and always the method they charge.
    #[test]
    fn issued_tokens_are_a_setting() {
        let config = json!({
            "secret_key": "rk_live_1", "tokens": "issued", "payment_method": "pm_1",
        });
        assert!(matches!(check(config), Ok(ConfiguredTokens::Issued(_))));
        let config = json!({ "secret_key": "sk_test_1", "tokens": "test" });
        assert!(matches!(check(config), Ok(ConfiguredTokens::Test(_))));
    }

    /// Protects: whoever sets it up fixes everything in one go, and hears which key and how.
    #[test]
    fn each_problem_names_its_key_and_the_remedy() {
        let text = said(json!({ "secret_key": "pk_live_1", "tokens": "issued", "timeout": 0 }));
        for words in [
            "secret_key",
            "sk_… or rk_…",
            "payment_method",
            "`pm_…`",
            "timeout",
        ] {
            assert!(text.contains(words), "{words}: {text}");
        }
        let text = said(json!({ "secret_key": "sk_1", "tokens": "live", "api_base": "x" }));
        for words in ["tokens", "\"test\"", "\"issued\"", "api_base"] {
            assert!(text.contains(words), "{words}: {text}");
        }
        let text = said(json!({ "secret_key": "sk_test_1", "token": "issued" }));
        assert!(text.contains("tokens"), "{text}");
    }
}
