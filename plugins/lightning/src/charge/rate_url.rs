//! Rates from a URL.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use farebox_core::{Fault, Issue};
use farebox_wire::Timestamp;
use serde_json::Value;

use crate::charge::rate::{Rate, RateSource};
use crate::config::RatesConfig;

/// How long an answer may take.
const DEADLINE: Duration = Duration::from_secs(5);
/// The largest answer that is read, bytes.
const MAX_ANSWER: usize = 1024 * 1024;
const PLACEHOLDER: &str = "{currency}";

struct RateUrl {
    client: reqwest::Client,
    config: RatesConfig,
}

/// A source as configured, or everything wrong with it.
pub(crate) fn source(config: &RatesConfig) -> Result<Arc<dyn RateSource>, Vec<Issue>> {
    let mut issues = Vec::new();
    let mut note = |key: &str, problem: &str| issues.push(Issue::new(key, problem));
    let asked = config.url.replace(PLACEHOLDER, "usd");
    if !reqwest::Url::parse(&asked).is_ok_and(|url| matches!(url.scheme(), "http" | "https")) {
        let problem = "is no http:// or https:// URL; give one such as \
                       \"https://rates.example/{currency}\"";
        note("rates.url", problem);
    }
    if !config.pointer.is_empty() && !config.pointer.starts_with('/') {
        note(
            "rates.pointer",
            "is no JSON pointer; give one like \"/price\"",
        );
    }
    let is_name =
        |name: &String| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase());
    if config.currencies.is_empty() || !config.currencies.iter().all(is_name) {
        note(
            "rates.currencies",
            "is no list of names in lower case; give one such as [\"usd\", \"eur\"]",
        );
    }
    if config.valid_for < 60 {
        note(
            "rates.valid_for",
            "is less than 60 seconds; give 60 or more",
        );
    }
    let client = reqwest::Client::builder().timeout(DEADLINE).build();
    match client {
        Ok(client) if issues.is_empty() => Ok(Arc::new(RateUrl {
            client,
            config: config.clone(),
        })),
        Ok(_) => Err(issues),
        Err(_) => Err(vec![Issue::new("rates.url", "no HTTP client can be made")]),
    }
}

#[async_trait]
impl RateSource for RateUrl {
    fn knows(&self, currency: &str) -> bool {
        self.config.currencies.iter().any(|known| known == currency)
    }

    async fn rate(&self, currency: &str) -> Result<Rate, Fault> {
        let away = || Fault::unavailable("asking what a bitcoin costs");
        let url = self.config.url.replace(PLACEHOLDER, currency);
        // A URL may hold a key, so it is in no text.
        let failed = |e: reqwest::Error| away().caused_by(e.without_url());
        let answer = self.client.get(url).send().await.map_err(failed)?;
        let mut answer = answer.error_for_status().map_err(failed)?;
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(failed)? {
            body.extend_from_slice(&chunk);
            if body.len() > MAX_ANSWER {
                return Err(away());
            }
        }
        let answer: Value = serde_json::from_slice(&body).map_err(|e| away().caused_by(e))?;
        let pointer = self.config.pointer.replace(PLACEHOLDER, currency);
        let price = match answer.pointer(&pointer) {
            Some(Value::String(price)) => price.clone(),
            Some(Value::Number(price)) => price.to_string(),
            _ => {
                return Err(Fault::unavailable(
                    "finding the price of a bitcoin in an answer",
                ));
            }
        };
        let valid_until = Timestamp::now().plus(Duration::from_secs(self.config.valid_for));
        let rate = Rate::new(&price, valid_until);
        rate.ok_or_else(|| Fault::unavailable("reading the price of a bitcoin"))
    }
}
