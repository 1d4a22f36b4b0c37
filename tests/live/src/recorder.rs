//! An HTTP proxy that remembers what went through it: payments on their way to a server, calls on
//! their way to a chain.

use std::{
    net::Ipv4Addr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::{
    Router,
    body::{self, Body},
    extract::{Request, State},
    response::Response,
};
use reqwest::{
    StatusCode,
    header::{AUTHORIZATION, CONTENT_LENGTH, HeaderMap, TRANSFER_ENCODING, WWW_AUTHENTICATE},
};
use serde_json::Value;
use tokio::{net::TcpListener, sync::oneshot};

use crate::Problem;

/// The largest body that passes.
const LIMIT: usize = 1 << 20;

/// A request and its answer.
#[derive(Clone)]
pub struct Exchange {
    /// The credential, if there was one.
    pub authorization: Option<String>,
    /// The request's body.
    pub body: Vec<u8>,
    /// The answer's status.
    pub status: u16,
    /// The answer's headers.
    pub headers: HeaderMap,
}

impl std::fmt::Debug for Exchange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exchange")
            .field("paid", &self.authorization.is_some())
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

impl Exchange {
    /// Whether the answer asks for a payment.
    #[must_use]
    pub fn challenged(&self) -> bool {
        self.headers.contains_key(WWW_AUTHENTICATE)
    }

    /// The JSON-RPC methods that were called, in order; a batch is several.
    #[must_use]
    pub fn methods(&self) -> Vec<String> {
        let calls = match serde_json::from_slice(&self.body) {
            Ok(Value::Array(calls)) => calls,
            Ok(call) => vec![call],
            Err(_) => Vec::new(),
        };
        calls
            .iter()
            .filter_map(|call| call["method"].as_str().map(str::to_owned))
            .collect()
    }
}

/// The proxy. It ends with its handle.
#[derive(Debug)]
pub struct Recorder {
    /// `http://127.0.0.1:…`, without a path.
    pub origin: String,
    seen: Seen,
    _stop: oneshot::Sender<()>,
}

type Seen = Arc<Mutex<Vec<Exchange>>>;

#[derive(Clone)]
struct Way {
    client: reqwest::Client,
    to: String,
    seen: Seen,
}

impl Recorder {
    /// In front of the server at `origin`.
    pub fn in_front_of(origin: &str) -> Result<Self, Problem> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?;
        let here = format!("http://{}", listener.local_addr()?);
        let seen = Seen::default();
        let way = Way {
            client: reqwest::Client::builder()
                .redirect(reqwest::redirect::Policy::none())
                .build()?,
            to: origin.to_owned(),
            seen: seen.clone(),
        };
        let app = Router::new().fallback(forward).with_state(way);
        let (stop, stopped) = oneshot::channel::<()>();
        std::thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = axum::serve(listener, app) => {}
                    _ = stopped => {}
                }
            });
        });
        Ok(Self {
            origin: here,
            seen,
            _stop: stop,
        })
    }

    /// What went through since the last time.
    pub fn take(&self) -> Vec<Exchange> {
        std::mem::take(&mut *lock(&self.seen))
    }
}

fn lock(seen: &Seen) -> MutexGuard<'_, Vec<Exchange>> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn forward(State(way): State<Way>, request: Request) -> Response {
    match way.pass(request).await {
        Ok(answer) => answer,
        Err(_) => {
            let mut answer = Response::new(Body::empty());
            *answer.status_mut() = StatusCode::BAD_GATEWAY;
            answer
        }
    }
}

impl Way {
    async fn pass(&self, request: Request) -> Result<Response, Problem> {
        let (parts, sent) = request.into_parts();
        let sent = body::to_bytes(sent, LIMIT).await?;
        let authorization = parts.headers.get(AUTHORIZATION);
        let authorization = authorization.and_then(|value| value.to_str().ok());
        let authorization = authorization.map(str::to_owned);
        let answer = self
            .client
            .request(parts.method, format!("{}{}", self.to, parts.uri))
            .headers(parts.headers)
            .body(sent.clone())
            .send()
            .await?;
        let (status, mut headers) = (answer.status(), answer.headers().clone());
        let body = answer.bytes().await?;
        lock(&self.seen).push(Exchange {
            authorization,
            body: sent.into(),
            status: status.as_u16(),
            headers: headers.clone(),
        });
        // The body is in one piece now.
        headers.remove(TRANSFER_ENCODING);
        headers.remove(CONTENT_LENGTH);
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        Ok(response)
    }
}
