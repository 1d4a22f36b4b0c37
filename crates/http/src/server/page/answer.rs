//! The page over HTTP.

use bytes::Bytes;
use farebox_core::wire::{Credential, Problem};
use farebox_engine::{Gate, Inbound, Refused};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode,
    header::{
        ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, VARY,
        X_CONTENT_TYPE_OPTIONS,
    },
    request::Parts,
};
use serde::Deserialize;

use super::{
    Page,
    accept::prefers_html,
    render::{Asked, Rendered, Way},
};
use crate::server::{Settings, answer, asked as server};

/// What the page's script asks for beside the resource; and in an answer, that it is the payment
/// layer's refusal.
pub(in crate::server) const FAREBOX_PAGE: HeaderName = HeaderName::from_static("farebox-page");
/// What a browser says that fetches a worker's script.
const SERVICE_WORKER: HeaderName = HeaderName::from_static("service-worker");
const WORKER_QUERY: &str = "farebox-worker";

/// The answer to what a browser asks of the page itself: its worker.
pub(in crate::server) fn asks(parts: &Parts) -> Option<Response<Bytes>> {
    let script = parts.headers.get(SERVICE_WORKER)? == "script";
    let worker = script && parts.method == Method::GET && parts.uri.query() == Some(WORKER_QUERY);
    worker.then(worker_script)
}

fn worker_script() -> Response<Bytes> {
    const SCRIPT: &str = concat!(include_str!("attempt.js"), "\n", include_str!("worker.js"));
    let mut response = Response::new(Bytes::from_static(SCRIPT.as_bytes()));
    let policy = HeaderValue::from_static("default-src 'none'; connect-src 'self'");
    set(
        response.headers_mut(),
        "text/javascript; charset=utf-8",
        policy,
    );
    response
}

/// Whether a request wants a payload prepared, and not the resource.
pub(in crate::server) fn prepares(parts: &Parts) -> bool {
    parts
        .headers
        .get(FAREBOX_PAGE)
        .is_some_and(|asked| asked == "prepare")
}

/// Has a rail make a payload out of what the page has collected.
///
/// # Errors
/// The refusal, to be answered as any other is.
pub(in crate::server) async fn prepare(
    page: &Page,
    gate: &Gate,
    settings: &Settings,
    parts: &Parts,
    asked: &server::Asked,
    credential: Credential,
) -> Result<Response<Bytes>, Refused> {
    let preparation = gate.preparation(credential, &asked.inbound())?;
    // Only who has a challenge of ours counts.
    if let Err(retry_after) = page.0.limit.count(&client(page, settings, parts, asked)) {
        return Ok(answer::too_many(retry_after));
    }
    let payload = preparation.make().await?;
    let mut response = Response::new(Bytes::from(payload.get().to_owned()));
    let policy = HeaderValue::from_static("default-src 'none'");
    set(response.headers_mut(), "application/json", policy);
    Ok(response)
}

/// Who asks, as the page's own limit names a client if it was given one, else as the layer's does.
fn client(page: &Page, settings: &Settings, parts: &Parts, asked: &server::Asked) -> String {
    let named = asked.client.clone().filter(|_| !page.0.names_clients);
    named.unwrap_or_else(|| page.0.limit.client(parts, &settings.transport))
}

/// Somebody has paid, so what was prepared for them does not count.
pub(in crate::server) fn paid(
    page: &Page,
    settings: &Settings,
    parts: &Parts,
    asked: &server::Asked,
) {
    page.0.limit.paid(&client(page, settings, parts, asked));
}

/// Marks a refusal as the payment layer's own, which the page's script then believes.
pub(in crate::server) fn mark(mut answer: Response<Bytes>) -> Response<Bytes> {
    if answer.status().is_client_error() || answer.status().is_server_error() {
        let refused = HeaderValue::from_static("refused");
        answer.headers_mut().insert(FAREBOX_PAGE, refused);
    }
    answer
}

/// The answer to a request without a credential: a page, where one is wanted and can be had.
pub(in crate::server) async fn challenge(
    page: &Page,
    gate: &Gate,
    parts: &Parts,
    inbound: &Inbound<'_>,
) -> Response<Bytes> {
    let html = prefers_html(&parts.headers);
    let issued = answer::issue(gate, inbound, &Problem::PaymentRequired, answer::PAY).await;
    let (mut response, challenges) = issued;
    vary(response.headers_mut());
    if !html {
        return response;
    }
    let realm = challenges
        .first()
        .map_or("", |c| c.realm.as_str())
        .to_owned();
    let ways = Way::all(gate, challenges);
    let paying = response.status() == StatusCode::PAYMENT_REQUIRED;
    if paying && ways.is_empty() {
        return response;
    }
    let refusal = (!paying).then(|| serde_json::from_slice::<Refusal>(response.body()).ok());
    let refusal = refusal.flatten();
    let asked = Asked {
        realm: &realm,
        method: inbound.method,
        path: parts.uri.path(),
        problem: refusal
            .as_ref()
            .map(|r| (r.title.as_str(), r.detail.as_str())),
    };
    match page.render(&asked, &ways) {
        Ok(rendered) => show(&mut response, rendered),
        Err(fault) => tracing::error!(route = gate.route(), %fault, "a page was not shown"),
    }
    response
}

/// What a page says of a refusal that paying does not mend.
#[derive(Deserialize)]
struct Refusal {
    title: String,
    detail: String,
}

fn vary(headers: &mut HeaderMap) {
    headers.append(VARY, HeaderValue::from(ACCEPT));
}

/// Puts a page in the place of a problem.
fn show(response: &mut Response<Bytes>, Rendered { html, policy }: Rendered) {
    let Ok(policy) = HeaderValue::try_from(policy) else {
        tracing::error!("a page's policy cannot be sent");
        return;
    };
    *response.body_mut() = Bytes::from(html);
    set(response.headers_mut(), "text/html; charset=utf-8", policy);
}

fn set(headers: &mut HeaderMap, kind: &'static str, policy: HeaderValue) {
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CONTENT_SECURITY_POLICY, policy);
    for (name, value) in [
        (CACHE_CONTROL, "no-store"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // Stripe.js wants to know which site it is on, and nobody which page.
        (REFERRER_POLICY, "strict-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
}
