//! The way to Stripe: our own transport under async-stripe's requests.

use std::{fmt, time::Duration};

use farebox_core::Secret;
use reqwest::{
    Method, StatusCode,
    header::{CONTENT_TYPE, HeaderValue},
};
use serde::Deserialize;
use serde_json::Value;
use stripe_client_core::{RequestBuilder, StripeMethod};
use stripe_shared::PaymentIntentStatus;
use url::Url;

use crate::{config::is_loopback, order::Order};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// One account's connection.
pub(crate) struct Api {
    http: reqwest::Client,
    /// With `/v1`, without a slash at the end.
    base: String,
    key: Secret,
    version: String,
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Api")
            .field("base", &self.base)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

/// A call that brought no answer: whether Stripe acted on it is not known.
#[derive(Debug, thiserror::Error)]
#[error("Stripe did not answer: {0}")]
pub(crate) struct NoAnswer(reqwest::Error);

/// An answer, whatever it says.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    /// `Idempotent-Replayed`: this is the answer to an earlier call under the same key.
    pub(crate) replayed: bool,
    /// For Stripe's support and the seller's dashboard.
    pub(crate) request_id: String,
    body: Vec<u8>,
}

impl Answer {
    /// The body, read as `T`.
    pub(crate) fn read<'a, T: Deserialize<'a>>(&'a self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(&self.body)
    }

    /// The error object, or an empty one if the body holds none.
    pub(crate) fn error(&self) -> ApiError {
        #[derive(Deserialize)]
        struct Body {
            error: ApiError,
        }
        self.read::<Body>()
            .map(|body| body.error)
            .unwrap_or_default()
    }
}

/// What is used of Stripe's error object. async-stripe's `ApiErrors` reads whole PaymentIntents, of
/// one version of the API; a field that a preview renamed must not hide what became of the money.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct ApiError {
    #[serde(rename = "type", default)]
    pub(crate) kind: String,
    pub(crate) code: Option<String>,
    pub(crate) decline_code: Option<String>,
    pub(crate) param: Option<String>,
    /// Stripe's own words, for the seller.
    pub(crate) message: Option<String>,
    pub(crate) payment_intent: Option<Intent>,
}

/// What is used of a PaymentIntent.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Intent {
    pub(crate) id: String,
    pub(crate) amount: u64,
    pub(crate) currency: String,
    status: String,
    /// Unix seconds, where it says.
    pub(crate) created: Option<i64>,
    #[serde(default)]
    metadata: Value,
    application_fee_amount: Option<u64>,
    transfer_data: Option<Value>,
}

impl Intent {
    /// Whether the platform kept a fee.
    pub(crate) fn has_fee(&self) -> bool {
        self.application_fee_amount.is_some_and(|fee| fee > 0)
    }

    /// Whether the money went on to another account.
    pub(crate) fn has_transfer(&self) -> bool {
        self.transfer_data.is_some()
    }

    pub(crate) fn status(&self) -> PaymentIntentStatus {
        match self.status.parse() {
            Ok(status) => status,
            Err(never) => match never {},
        }
    }

    pub(crate) fn metadata(&self, key: &str) -> Option<&str> {
        self.metadata.get(key)?.as_str()
    }
}

/// A search result.
#[derive(Debug, Deserialize)]
pub(crate) struct Page<T> {
    pub(crate) data: Vec<T>,
    #[serde(default)]
    pub(crate) has_more: bool,
}

/// What is believed of a search's hit.
#[derive(Debug, Deserialize)]
pub(crate) struct Hit {
    pub(crate) id: String,
}

impl Api {
    pub(crate) fn new(
        key: &Secret,
        base: &Url,
        version: &str,
        timeout: Duration,
    ) -> Result<Self, reqwest::Error> {
        let mut http = reqwest::Client::builder()
            .timeout(timeout)
            .connect_timeout(CONNECT_TIMEOUT.min(timeout))
            // The API does not redirect, and a key must not follow where somebody else points.
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("farebox/", env!("CARGO_PKG_VERSION")));
        if is_loopback(base) {
            // A proxy from the environment cannot reach this machine's loopback.
            http = http.no_proxy();
        }
        Ok(Self {
            http: http.build()?,
            base: format!("{}/v1", base.as_str().trim_end_matches('/')),
            key: key.clone(),
            version: version.to_owned(),
        })
    }

    /// The `Stripe-Version` of every call but a charge's.
    pub(crate) fn version(&self) -> &str {
        &self.version
    }

    /// Sends a request once, for the connected account that charges, if one does.
    pub(crate) async fn send(
        &self,
        request: RequestBuilder,
        account: Option<&str>,
    ) -> Result<Answer, NoAnswer> {
        self.send_as(&self.version, request, account, None).await
    }

    /// Sends an order's charge once, in the order's version.
    pub(crate) async fn charge(&self, order: &Order, key: &str) -> Result<Answer, NoAnswer> {
        let account = order.settlement.account.as_deref();
        self.send_as(&order.api_version, order.request(), account, Some(key))
            .await
    }

    /// Sends a request that makes something, under a key: the same call again makes nothing more.
    pub(crate) async fn mint(
        &self,
        request: RequestBuilder,
        account: Option<&str>,
        key: &str,
    ) -> Result<Answer, NoAnswer> {
        self.send_as(&self.version, request, account, Some(key))
            .await
    }

    /// Sends a request under an idempotency key, once.
    pub(crate) async fn send_once(
        &self,
        version: &str,
        request: RequestBuilder,
        account: Option<&str>,
        key: &str,
    ) -> Result<Answer, NoAnswer> {
        self.send_as(version, request, account, Some(key)).await
    }

    async fn send_as(
        &self,
        version: &str,
        request: RequestBuilder,
        account: Option<&str>,
        key: Option<&str>,
    ) -> Result<Answer, NoAnswer> {
        let method = match request.method {
            StripeMethod::Get => Method::GET,
            StripeMethod::Post => Method::POST,
            StripeMethod::Delete => Method::DELETE,
        };
        let mut url = format!("{}{}", self.base, request.path);
        if let Some(query) = &request.query {
            url.push('?');
            url.push_str(query);
        }
        let mut call = self
            .http
            .request(method, url)
            .basic_auth(self.key.expose(), None::<&str>)
            .header("stripe-version", version);
        if let Some(account) = account {
            call = call.header("stripe-account", account);
        }
        if let Some(key) = key {
            call = call.header("idempotency-key", key);
        }
        if let Some(body) = request.body {
            let form = HeaderValue::from_static("application/x-www-form-urlencoded");
            call = call.header(CONTENT_TYPE, form).body(body);
        }
        // A query can name what was paid; the log has the request id instead.
        let lost = |error: reqwest::Error| NoAnswer(error.without_url());
        let reply = call.send().await.map_err(lost)?;
        let header = |name: &str| reply.headers().get(name).and_then(|v| v.to_str().ok());
        let status = reply.status();
        let replayed = header("idempotent-replayed") == Some("true");
        let request_id = header("request-id").unwrap_or("unknown").to_owned();
        let body = reply.bytes().await.map_err(lost)?.to_vec();
        Ok(Answer {
            status,
            replayed,
            request_id,
            body,
        })
    }
}
