//! Asking a server, and keeping what it answered.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use reqwest::Client;
use serde_json::{Map, Value, json};

use super::{Finding, pay::Paid, read, read::Seen};
use crate::{failure::Failure, request::Prepared};

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is kept of a body, in bytes.
const BODY: usize = 256 * 1024;

/// A word that every forged payload carries, and that no answer may repeat.
pub(crate) const CANARY: &str = "farebox-validate-canary-7c1f";

/// What a server answered.
#[derive(Debug)]
pub(crate) struct Answer {
    /// What was asked, for messages: `a forged id`.
    pub(crate) what: String,
    /// Whether a success is right: a good credential came along, or nothing is sold there.
    pub(crate) free: bool,
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The challenges, and what is wrong with those that cannot be read.
    pub(crate) fn challenges(&self) -> (Vec<Seen>, Vec<String>) {
        let values = self.headers.get_all(header::WWW_AUTHENTICATE);
        read::challenges(values.iter().map(HeaderValue::as_bytes))
    }

    pub(crate) fn text(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }

    pub(crate) fn receipt(&self) -> Option<&str> {
        let value = self.headers.get("payment-receipt")?;
        Some(value.to_str().unwrap_or_default())
    }

    /// Whether `Cache-Control` holds this directive.
    pub(crate) fn caches(&self, directive: &str) -> bool {
        let values = self.headers.get_all(header::CACHE_CONTROL);
        let mut given = values.iter().filter_map(|value| value.to_str().ok());
        given.any(|value| {
            let mut directives = value.split(',').map(str::trim);
            directives.any(|given| given.eq_ignore_ascii_case(directive))
        })
    }

    /// The body, if it is a JSON object.
    pub(crate) fn json(&self) -> Option<Map<String, Value>> {
        serde_json::from_slice(&self.body).ok()
    }

    /// The last part of the problem's type: `invalid-challenge`.
    pub(crate) fn problem(&self) -> String {
        let body = self.json().unwrap_or_default();
        let uri = body
            .get("type")
            .and_then(Value::as_str)
            .unwrap_or("about:blank");
        let named = uri.strip_prefix(PROBLEMS);
        named.unwrap_or(uri).to_owned()
    }
}

/// Where the protocol's problem types are.
pub(crate) const PROBLEMS: &str = "https://paymentauth.org/problems/";

/// A server under test, and all that it has answered.
pub(crate) struct Site {
    pub(crate) client: Client,
    pub(crate) request: Prepared,
    /// The answers to the request as it is, without a credential.
    pub(crate) unpaid: Arc<Answer>,
    pub(crate) again: Arc<Answer>,
    /// What the first of them asks for.
    pub(crate) challenges: Vec<Seen>,
    pub(crate) unreadable: Vec<String>,
    /// What became of a payment, once it was tried.
    pub(crate) paid: Result<Paid, Finding>,
    log: Log,
}

#[derive(Default)]
struct Log(Mutex<Vec<Arc<Answer>>>);

impl Site {
    /// Asks twice without a credential.
    pub(crate) async fn open(client: Client, request: Prepared) -> Result<Self, Failure> {
        let log = Log::default();
        let ask = async |what: &str| {
            let answer = exchange(&client, &request, HeaderMap::new(), what, false).await;
            answer
                .map(|answer| log.keep(answer))
                .map_err(Failure::general)
        };
        let unpaid = ask("the unpaid request").await?;
        let again = ask("the second unpaid request").await?;
        let (challenges, unreadable) = unpaid.challenges();
        Ok(Self {
            client,
            request,
            unpaid,
            again,
            challenges,
            unreadable,
            paid: Err(Finding::Skip("nothing was paid".to_owned())),
            log,
        })
    }

    /// Everything answered so far.
    pub(crate) fn answers(&self) -> Vec<Arc<Answer>> {
        let kept = self.log.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.clone()
    }

    /// Sends a request with these headers in place of its own of the same names. An answer that
    /// does not come is the server's mistake.
    pub(crate) async fn send(
        &self,
        request: &Prepared,
        headers: HeaderMap,
        what: &str,
    ) -> Result<Arc<Answer>, Finding> {
        let answer = exchange(&self.client, request, headers, what, false).await;
        Ok(self.log.keep(answer.map_err(Finding::Wrong)?))
    }

    /// The same with a good credential, or where nothing is sold: a success is right.
    pub(crate) async fn send_free(
        &self,
        request: &Prepared,
        headers: HeaderMap,
        what: &str,
    ) -> Result<Arc<Answer>, Finding> {
        let answer = exchange(&self.client, request, headers, what, true).await;
        Ok(self.log.keep(answer.map_err(Finding::Wrong)?))
    }

    /// The request with a header of these values.
    pub(crate) async fn send_with(
        &self,
        name: HeaderName,
        values: &[&str],
        what: &str,
    ) -> Result<Arc<Answer>, Finding> {
        let mut headers = HeaderMap::new();
        for value in values {
            let value = HeaderValue::from_str(value);
            let value = value.map_err(|_| Finding::Skip("the value fits no header".to_owned()))?;
            headers.append(&name, value);
        }
        self.send(&self.request, headers, what).await
    }

    /// The request with a credential of these members.
    pub(crate) async fn present(
        &self,
        challenge: Map<String, Value>,
        what: &str,
    ) -> Result<Arc<Answer>, Finding> {
        let name = credential_header(challenge.get("header").and_then(Value::as_str));
        let payload = json!({ "type": "none", "note": CANARY });
        let credential = Map::from_iter([
            ("challenge".to_owned(), challenge.into()),
            ("payload".to_owned(), payload),
        ]);
        let value = format!("Payment {}", read::encode(credential));
        self.send_with(name, &[&value], what).await
    }

    /// Whether the host is this machine by name or address.
    pub(crate) fn is_local(&self) -> bool {
        let host = self.request.url.host_str().unwrap_or_default();
        host == "localhost" || host == "[::1]" || host.starts_with("127.")
    }

    /// The first challenge, or why nothing can be forged.
    pub(crate) fn first(&self) -> Result<&Seen, Finding> {
        let none = || Finding::Skip("no challenge was read".to_owned());
        self.challenges.first().ok_or_else(none)
    }
}

impl Log {
    fn keep(&self, answer: Answer) -> Arc<Answer> {
        let answer = Arc::new(answer);
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push(answer.clone());
        answer
    }
}

/// Where a challenge wants its credential.
pub(crate) fn credential_header(named: Option<&str>) -> HeaderName {
    match named {
        Some(name) if name.eq_ignore_ascii_case("payment-authorization") => {
            HeaderName::from_static("payment-authorization")
        }
        _ => header::AUTHORIZATION,
    }
}

async fn exchange(
    client: &Client,
    request: &Prepared,
    headers: HeaderMap,
    what: &str,
    free: bool,
) -> Result<Answer, String> {
    // Without the URL: it is the same in every message, and may hold a password.
    let failed = |error: reqwest::Error| format!("{what}: no answer: {}", error.without_url());
    let sent = request.on(client).headers(headers).timeout(PATIENCE).send();
    let mut response = sent.await.map_err(failed)?;
    let (status, headers) = (response.status(), response.headers().clone());
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        body.extend_from_slice(&chunk);
        if body.len() > BODY {
            body.truncate(BODY);
            break;
        }
    }
    Ok(Answer {
        what: what.to_owned(),
        free,
        status,
        headers,
        body,
    })
}
