//! JSON-RPC over HTTP, with a deadline on every call and errors that do not name the endpoint.
//!
//! Written out because the rail calls eight methods with fixed shapes, while alloy's provider stack
//! adds its network, transport and RPC type crates, and fillers that would sign and retry on their
//! own. What settles money must not be sent twice by a middleware.

use std::{fmt, time::Duration};

use reqwest::Url;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

/// A node's answer, or none.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RpcError {
    /// Nobody knows whether the node acted: no connection, a timeout, an answer cut short.
    #[error("the node did not answer: {0}")]
    Transport(String),
    /// The node or something before it answered with an HTTP error.
    #[error("the node's endpoint answered with HTTP status {0}")]
    Status(u16),
    /// The answer is no JSON-RPC response, or its result has another shape.
    #[error("the node's answer to {0} cannot be read")]
    Unreadable(&'static str),
    /// The node says no.
    #[error(transparent)]
    Refused(Refused),
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
    error: Option<Refused>,
    #[serde(default)]
    result: Option<Value>,
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
        let request = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        // The text of a reqwest error ends with the URL unless it is taken out.
        let transport = |e: reqwest::Error| RpcError::Transport(describe(&e.without_url()));
        let response = self
            .http
            .post(self.url.clone())
            .timeout(deadline)
            .json(&request)
            .send()
            .await
            .map_err(transport)?;
        let status = response.status();
        if !status.is_success() {
            return Err(RpcError::Status(status.as_u16()));
        }
        let body = response.bytes().await.map_err(transport)?;
        let unreadable = |_| RpcError::Unreadable(method);
        let response: Response = serde_json::from_slice(&body).map_err(unreadable)?;
        match response.error {
            Some(refused) => Err(RpcError::Refused(refused)),
            None => serde_json::from_value(response.result.unwrap_or_default()).map_err(unreadable),
        }
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
