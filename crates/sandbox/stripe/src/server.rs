//! HTTP: routes, keys, idempotency, delivery.

use std::{collections::BTreeMap, convert::Infallible, sync::Arc};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Path, Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header, request::Parts},
    response::Response,
    routing::{get, post},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use hyper_util::rt::TokioIo;
use subtle::ConstantTimeEq as _;
use tokio::{net::TcpListener, task::JoinSet};
use tower::ServiceExt as _;

use crate::{
    Recorded, Shared, elements,
    error::ApiError,
    fault::Fault,
    form::Form,
    ledger::{Answer, Call, Claim},
};

const BODY_LIMIT: usize = 64 * 1024;
const TOKEN_FIELD: &str = "shared_payment_granted_token";

pub(crate) fn router(shared: Arc<Shared>) -> Router {
    fn plain(
        call: Call,
    ) -> impl Fn(State<Arc<Shared>>, Request) -> Running + Clone + Send + 'static {
        move |State(shared), request| Box::pin(run(shared, Some(call.clone()), request))
    }
    fn of(
        call: fn(String) -> Call,
    ) -> impl Fn(State<Arc<Shared>>, Path<String>, Request) -> Running + Clone + Send + 'static
    {
        move |State(shared), Path(id), request| Box::pin(run(shared, Some(call(id)), request))
    }
    Router::new()
        .route(
            "/v1/test_helpers/shared_payment/granted_tokens",
            post(plain(Call::Grant)),
        )
        .route(
            "/v1/test_helpers/shared_payment/granted_tokens/{id}/revoke",
            post(of(Call::Revoke)),
        )
        .route(
            "/v1/shared_payment/granted_tokens/{id}",
            get(of(Call::Token)),
        )
        .route("/v1/shared_payment/issued_tokens", post(plain(Call::Issue)))
        .route(
            "/v1/shared_payment/issued_tokens/{id}/revoke",
            post(of(Call::Withdraw)),
        )
        .route(
            "/v1/payment_intents",
            post(plain(Call::CreateIntent)).get(plain(Call::ListIntents)),
        )
        .route(
            "/v1/payment_intents/search",
            get(plain(Call::SearchIntents)),
        )
        .route("/v1/payment_intents/{id}", get(of(Call::Intent)))
        .route(
            "/v1/payment_intents/{id}/cancel",
            post(of(Call::CancelIntent)),
        )
        .route(
            "/v1/refunds",
            post(plain(Call::CreateRefund)).get(plain(Call::ListRefunds)),
        )
        .route("/v1/refunds/{id}", get(of(Call::Refund)))
        .route("/v1/balance", get(plain(Call::Balance)))
        .route(elements::SCRIPT_PATH, get(elements::script))
        .route("/v1/payment_methods", post(elements::create))
        .route("/v1/payment_methods/{id}", get(of(Call::Method)))
        .method_not_allowed_fallback(unrecognized)
        .fallback(unrecognized)
        .with_state(shared)
}

type Running = std::pin::Pin<Box<dyn Future<Output = Response> + Send>>;

async fn unrecognized(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    run(shared, None, request).await
}

/// How an answer travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Delivery {
    Send,
    Hang,
    Drop,
}

/// Marks a response that must not be sent: the connection breaks instead.
#[derive(Clone, Copy, Debug)]
struct BreakConnection;

#[derive(Debug, thiserror::Error)]
#[error("the connection is broken on purpose")]
struct Broken;

/// Serves connections until the task is aborted.
pub(crate) async fn serve(listener: TcpListener, router: Router) -> Infallible {
    // Dropped with this task, and every connection with it.
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok((stream, _)) = listener.accept().await else {
            // Out of file descriptors, say: let others close theirs.
            tokio::task::yield_now().await;
            continue;
        };
        let router = router.clone();
        let service =
            hyper::service::service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
                let router = router.clone();
                async move {
                    let response = match router.oneshot(request).await {
                        Ok(response) => response,
                        Err(never) => match never {},
                    };
                    match response.extensions().get::<BreakConnection>() {
                        Some(BreakConnection) => Err(Broken),
                        None => Ok(response),
                    }
                }
            });
        connections.spawn(async move {
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service);
            // A peer that goes away, or a fault that was asked for: neither is news.
            drop(connection.await);
        });
    }
}

async fn run(shared: Arc<Shared>, call: Option<Call>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let request_id = crate::object_id("req");
    let work = async {
        let body = axum::body::to_bytes(body, BODY_LIMIT)
            .await
            .map_err(|_| ApiError::invalid("The request body could not be read."))?;
        let worker = Arc::clone(&shared);
        // On a task of its own: Stripe finishes what it began, whether or not the caller stays.
        let work = async move {
            let done = worker.work(call, &parts, &body).await;
            worker.send_events();
            done
        };
        let done = tokio::spawn(work).await;
        done.unwrap_or_else(|_| Err(ApiError::internal()))
    };
    let (answer, replayed, delivery) = match work.await {
        Ok(done) => done,
        Err(error) => {
            let answer = Answer {
                status: error.status,
                body: error.body(),
            };
            (answer, false, Delivery::Send)
        }
    };
    if delivery == Delivery::Hang {
        std::future::pending::<()>().await;
    }
    let mut response = Response::new(Body::from(answer.body.to_string()));
    *response.status_mut() =
        StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    if let Ok(id) = HeaderValue::from_str(&request_id) {
        headers.insert("request-id", id);
    }
    if replayed {
        headers.insert("idempotent-replayed", HeaderValue::from_static("true"));
    }
    if matches!(answer.status, 409 | 429) {
        headers.insert("stripe-should-retry", HeaderValue::from_static("true"));
    }
    if delivery == Delivery::Drop {
        response.extensions_mut().insert(BreakConnection);
    }
    response
}

type Done = Result<(Answer, bool, Delivery), ApiError>;

impl Shared {
    async fn work(&self, call: Option<Call>, parts: &Parts, body: &Bytes) -> Done {
        let encoded = match parts.method {
            Method::GET => parts.uri.query().unwrap_or_default().as_bytes(),
            _ => body,
        };
        let form = Form::parse(encoded);
        self.record(parts, form.as_ref().ok());
        self.authorize(&parts.headers)?;
        let form = form?;
        let Some(call) = call else {
            return Err(ApiError::unrecognized(
                parts.method.as_str(),
                parts.uri.path(),
            ));
        };
        if let Some(fault) = self.next_fault(&call, Fault::at_the_door) {
            return match fault {
                Fault::Conflict => Err(ApiError::conflict()),
                Fault::RateLimited => Err(ApiError::rate_limited()),
                _ => {
                    let error = ApiError::internal();
                    let answer = Answer {
                        status: error.status,
                        body: error.body(),
                    };
                    Ok((answer, false, Delivery::Drop))
                }
            };
        }
        let account = account(&parts.headers)?;
        let key = match parts.method {
            Method::POST => idempotency_key(&parts.headers)?,
            _ => None,
        };
        // Keys are kept for each account.
        let key = key.map(|key| format!("{} {key}", account.unwrap_or_default()));
        let key = key.as_deref();
        if let Some(key) = key {
            let fingerprint = format!("{} {:?}", parts.uri.path(), form.fields());
            if let Claim::Replay(answer) = self.ledger().claim(key, &fingerprint, self.now())? {
                return Ok((answer, true, Delivery::Send));
            }
        }
        if !self.latency.is_zero() {
            tokio::time::sleep(self.latency).await;
        }
        let fault = self.next_fault(&call, |_| true);
        if let Some(Fault::Slow(span)) = &fault {
            tokio::time::sleep(*span).await;
        }
        let (answer, executed) = self.execute(&call, &form, account, fault.as_ref());
        if let Some(key) = key {
            let mut ledger = self.ledger();
            if executed {
                ledger.keep(key, answer.clone())
            } else {
                ledger.release(key)
            }
        }
        let delivery = match fault {
            Some(Fault::HangAfterCommit) => Delivery::Hang,
            Some(Fault::DropAfterCommit) => Delivery::Drop,
            _ => Delivery::Send,
        };
        Ok((answer, false, delivery))
    }

    /// The answer, and whether the endpoint began its work.
    fn execute(
        &self,
        call: &Call,
        form: &Form,
        account: Option<&str>,
        fault: Option<&Fault>,
    ) -> (Answer, bool) {
        let result = match fault {
            Some(Fault::ErrorBeforeCommit) => Err(ApiError::internal()),
            _ => self
                .ledger()
                .execute(call, form, account, fault, self.now()),
        };
        let result = match (result, fault) {
            (Ok(_), Some(Fault::ErrorAfterCommit)) => Err(ApiError::internal()),
            (result, _) => result,
        };
        match result {
            Ok(body) => (Answer { status: 200, body }, true),
            Err(error) => (
                Answer {
                    status: error.status,
                    body: error.body(),
                },
                error.executed,
            ),
        }
    }

    /// Stripe takes the key as a bearer token or as the user name of Basic.
    fn authorize(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        let Some(value) = headers
            .get(header::AUTHORIZATION)
            .and_then(|v| v.to_str().ok())
        else {
            return Err(ApiError::unauthorized("You did not provide an API key."));
        };
        let key = match value.split_once(' ') {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => {
                Some(token.trim().to_owned())
            }
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("basic") => STANDARD
                .decode(token.trim())
                .ok()
                .and_then(|bytes| String::from_utf8(bytes).ok())
                .and_then(|text| text.split_once(':').map(|(user, _)| user.to_owned())),
            _ => None,
        };
        match key {
            Some(key) if bool::from(key.as_bytes().ct_eq(self.secret_key.as_bytes())) => Ok(()),
            _ => Err(ApiError::unauthorized("Invalid API Key provided.")),
        }
    }

    fn record(&self, parts: &Parts, form: Option<&Form>) {
        let headers = parts
            .headers
            .iter()
            .filter(|(name, _)| *name != header::AUTHORIZATION)
            .filter_map(|(name, value)| {
                Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))
            })
            .collect();
        let mut form: BTreeMap<String, String> =
            form.map(|form| form.fields().clone()).unwrap_or_default();
        for (name, value) in &mut form {
            if name.contains(TOKEN_FIELD) {
                *value = "[redacted]".to_owned();
            }
        }
        self.requests().push(Recorded {
            method: parts.method.to_string(),
            path: redact(parts.uri.path()),
            headers,
            form,
        });
    }
}

/// A path without the tokens in it.
fn redact(path: &str) -> String {
    let show = |segment| match segment {
        token if str::starts_with(token, "spt_") => "[redacted]",
        other => other,
    };
    path.split('/').map(show).collect::<Vec<_>>().join("/")
}

/// The connected account that a platform acts for.
fn account(headers: &HeaderMap) -> Result<Option<&str>, ApiError> {
    let Some(value) = headers.get("stripe-account") else {
        return Ok(None);
    };
    match value.to_str() {
        Ok(account) if account.starts_with("acct_") => Ok(Some(account)),
        _ => Err(ApiError::unauthorized(
            "The Stripe-Account is no connected account.",
        )),
    }
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, ApiError> {
    let Some(value) = headers.get("idempotency-key") else {
        return Ok(None);
    };
    match value.to_str() {
        Ok(key) if !key.is_empty() && key.len() <= 255 => Ok(Some(key)),
        _ => Err(ApiError::invalid(
            "Idempotency keys are 1 to 255 characters.",
        )),
    }
}
