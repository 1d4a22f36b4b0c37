//! JSON-RPC over HTTP, with a deadline on every call and errors that do not name the endpoint.
//!
//! Written out because the rail calls eight methods with fixed shapes, while alloy's provider stack
//! adds its network, transport and RPC type crates, and fillers that would sign and retry on their
//! own. What settles money must not be sent twice by a middleware.

use std::{fmt, time::Duration};

use reqwest::Url;
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::{Value, json};

/// A node's answer, or none.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RpcError {
    /// No connection came about, so the node has got nothing.
    #[error("the node cannot be reached: {0}")]
    Unreached(String),
    /// Nobody knows whether the node acted: a timeout, an answer cut short.
    #[error("the node did not answer: {0}")]
    Transport(String),
    /// The node or something before it answered with an HTTP error.
    #[error("the node's endpoint answered with HTTP status {0}")]
    Status(u16),
    /// The answer is no JSON-RPC response, or its result has another shape.
    #[error("the node's answer to {0} cannot be read")]
    Unreadable(&'static str),
    /// The node is of no use here.
    #[error("the node is on chain {is}, `chain_id` says {configured}")]
    OtherChain {
        /// Its EIP-155 id.
        is: u64,
        /// The one that is paid on.
        configured: u64,
    },
    /// The node says no.
    #[error(transparent)]
    Refused(Refused),
}

impl RpcError {
    /// Whether it is certain that no node has got the call.
    pub(crate) fn was_not_sent(&self) -> bool {
        matches!(self, Self::Unreached(_) | Self::OtherChain { .. })
    }
}

/// A JSON-RPC error object.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, thiserror::Error)]
#[error("the node refuses with code {code}: {message}")]
pub(crate) struct Refused {
    pub(crate) code: i64,
    #[serde(default)]
    pub(crate) message: String,
    /// Revert data, where there is some.
    #[serde(default)]
    pub(crate) data: Option<Value>,
}

#[derive(Deserialize)]
struct Response {
    #[serde(default)]
    id: Value,
    error: Option<Refused>,
    /// `null` is an answer ("there is no such receipt"); a missing member is none.
    #[serde(default, deserialize_with = "present")]
    result: Option<Value>,
}

fn present<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(from).map(Some)
}

impl Response {
    fn read<T: DeserializeOwned>(self, method: &'static str) -> Result<T, RpcError> {
        let unreadable = || RpcError::Unreadable(method);
        match (self.error, self.result) {
            (Some(refused), _) => Err(RpcError::Refused(refused)),
            (None, Some(result)) => serde_json::from_value(result).map_err(|_| unreadable()),
            (None, None) => Err(unreadable()),
        }
    }
}

/// A method and its parameters.
pub(crate) type Call = (&'static str, Value);

fn request(id: u8, (method, params): Call) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params })
}

/// One endpoint. Clones share its connections.
#[derive(Clone)]
pub(crate) struct Rpc {
    http: reqwest::Client,
    url: Url,
}

impl fmt::Debug for Rpc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Rpc([redacted])")
    }
}

impl Rpc {
    /// An endpoint at `url`. Does not connect.
    ///
    /// # Errors
    /// What is wrong with it, without repeating it: a URL may hold an API key.
    pub(crate) fn new(url: &str) -> Result<Self, String> {
        let parsed = Url::parse(url)
            .map_err(|e| format!("is no URL ({e}); give one such as https://rpc.tempo.xyz"))?;
        if !matches!(parsed.scheme(), "http" | "https") {
            let scheme = parsed.scheme();
            return Err(format!(
                "has the scheme `{scheme}`; give an http or https URL"
            ));
        }
        let http = reqwest::Client::builder()
            // A redirected POST would be a second submission to somebody else.
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|_| "cannot be used: no TLS client can be made here".to_owned())?;
        Ok(Self { http, url: parsed })
    }

    /// Calls `method` once and reads its result; no answer within `deadline` is an error.
    pub(crate) async fn call<T: DeserializeOwned>(
        &self,
        method: &'static str,
        params: Value,
        deadline: Duration,
    ) -> Result<T, RpcError> {
        let body = self.post(&request(1, (method, params)), deadline).await?;
        let response: Response =
            serde_json::from_slice(&body).map_err(|_| RpcError::Unreadable(method))?;
        response.read(method)
    }

    /// Makes several calls in one request, which one node is likely to answer. `None` if the endpoint
    /// takes one call at a time.
    pub(crate) async fn batch(
        &self,
        calls: &[Call],
        deadline: Duration,
    ) -> Result<Option<Vec<Result<Value, RpcError>>>, RpcError> {
        let first = calls.first().map_or("", |(method, _)| *method);
        let numbered = calls.iter().cloned().zip(1..);
        let batch = numbered.map(|(call, id)| request(id, call)).collect();
        let body = match self.post(&Value::Array(batch), deadline).await {
            Err(RpcError::Status(400)) => return Ok(None),
            body => body?,
        };
        let Ok(mut answers) = serde_json::from_slice::<Vec<Response>>(&body) else {
            return match serde_json::from_slice::<Response>(&body) {
                Ok(response) if response.error.is_some() => Ok(None),
                _ => Err(RpcError::Unreadable(first)),
            };
        };
        // A batch may be answered in any order.
        let mut take = |id: u8, method| {
            let at = answers.iter().position(|answer| answer.id == json!(id));
            let at = at.ok_or(RpcError::Unreadable(method))?;
            Ok(answers.swap_remove(at).read(method))
        };
        let numbered = calls.iter().zip(1..);
        let all: Result<Vec<_>, _> = numbered
            .map(|((method, _), id)| take(id, *method))
            .collect();
        all.map(Some)
    }

    async fn post(&self, body: &Value, deadline: Duration) -> Result<Vec<u8>, RpcError> {
        // The text of a reqwest error ends with the URL unless it is taken out.
        let transport = |e: reqwest::Error| match e.is_connect() {
            true => RpcError::Unreached(describe(&e.without_url())),
            false => RpcError::Transport(describe(&e.without_url())),
        };
        let response = self
            .http
            .post(self.url.clone())
            .timeout(deadline)
            .json(body)
            .send()
            .await
            .map_err(transport)?;
        let status = response.status();
        if !status.is_success() {
            return Err(RpcError::Status(status.as_u16()));
        }
        Ok(response.bytes().await.map_err(transport)?.into())
    }
}

/// An error and its causes in one line: "error sending request" alone says nothing.
fn describe(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |e| e.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects: an API key in a URL reaches neither errors nor logs.
    #[tokio::test]
    async fn errors_do_not_name_the_endpoint() {
        let rpc = Rpc::new("http://user:hunter2@127.0.0.1:9/v2/k3y").unwrap();
        let error = rpc
            .call::<Value>("eth_chainId", json!([]), Duration::from_secs(5))
            .await;
        let error = error.unwrap_err();
        for text in [format!("{error} {error:?}"), format!("{rpc:?}")] {
            assert!(!text.contains("hunter2") && !text.contains("k3y"), "{text}");
        }
    }

    #[test]
    fn urls_that_are_none() {
        for (url, says) in [
            ("", "no URL"),
            ("localhost:8545", "scheme"),
            ("ws://x", "scheme"),
        ] {
            assert!(Rpc::new(url).unwrap_err().contains(says), "{url}");
        }
    }
}
