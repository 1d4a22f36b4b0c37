//! The loop: ask, pay once, present until there is an answer.

use std::{error::Error, time::Duration};

use farebox_client::{Origin, Payment, Purse};
use farebox_core::wire::{
    AcceptPayment, BodyDigest, Challenge, Credential, CredentialHeader, FormatError, ParseError,
    ProblemDetails,
};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode,
    header::{CONTENT_TYPE, InvalidHeaderValue, RETRY_AFTER, WWW_AUTHENTICATE},
};
use reqwest::{Request, Response, Url};

use super::{
    error::{Failure, NotAccepted, OutcomeUnknown, PayError},
    ext::{PayOptions, ReceiptExt},
};
use crate::{ACCEPT_PAYMENT, IDEMPOTENCY_KEY, credential_header};

/// Sends requests: a client, or the rest of a middleware chain.
pub(crate) trait Transport: Send {
    type Error: Error + Send + Sync + 'static;

    fn send(
        &mut self,
        request: Request,
    ) -> impl Future<Output = Result<Response, Self::Error>> + Send;
}

impl Transport for reqwest::Client {
    type Error = reqwest::Error;

    async fn send(&mut self, request: Request) -> Result<Response, reqwest::Error> {
        self.execute(request).await
    }
}

/// Sends a request and pays for it if asked to.
pub(crate) async fn pay<T: Transport>(
    transport: &mut T,
    request: Request,
    purse: &Purse,
    options: &PayOptions,
) -> Result<Response, PayError<T::Error>> {
    // What the caller wrote there is meant for us as well. Servers pass over one that is malformed.
    let own = accepted(request.headers());
    let restricted = own.map(|accept| purse.accepting(accept));
    let purse = restricted.as_ref().unwrap_or(purse);
    let asked = ask(transport, request, purse.accept(), options).await?;
    match asked {
        Asked::Served(response) => Ok(response),
        Asked::Owed(owed) => {
            let payment = purse.pay(&owed.payable, &owed.origin).await?;
            present(transport, owed.again, payment, options).await
        }
    }
}

/// What a request without a credential came to.
pub(crate) enum Asked {
    /// It needed none.
    Served(Response),
    /// It did.
    Owed(Box<Owed>),
}

/// A request that costs something.
pub(crate) struct Owed {
    /// The request to send with a credential.
    pub(crate) again: Request,
    /// What it can be paid by.
    pub(crate) payable: Vec<Challenge>,
    /// Whoever asks for it.
    pub(crate) origin: Origin,
    /// The head of the 402.
    pub(crate) headers: HeaderMap,
}

/// Sends a request that may turn out to cost something.
pub(crate) async fn ask<T: Transport>(
    transport: &mut T,
    mut request: Request,
    accept: Option<AcceptPayment>,
    options: &PayOptions,
) -> Result<Asked, PayError<T::Error>> {
    let accept = accept.and_then(|a| HeaderValue::try_from(a.to_string()).ok());
    if let Some(accept) = accept {
        request
            .headers_mut()
            .entry(ACCEPT_PAYMENT)
            .or_insert(accept);
    }
    let asked = request.url().clone();
    let again = request.try_clone();
    let mut response = transport.send(request).await.map_err(PayError::Request)?;
    if response.status() != StatusCode::PAYMENT_REQUIRED {
        return Ok(Asked::Served(response));
    }
    let found = challenges(response.headers());
    if found.is_empty() {
        // Some other use of 402.
        return Ok(Asked::Served(response));
    }
    let reached = response.url().clone();
    let origin = origin(&asked).followed_to(self::origin(&reached))?;
    let mut again = again.ok_or(PayError::StreamedBody)?;
    if without_fragment(&asked) != without_fragment(&reached)
        && !matches!(*again.method(), Method::GET | Method::HEAD)
    {
        return Err(PayError::RedirectedMethod(reached));
    }
    let payable = payable(found, &again, options)?;
    // What is left unread closes the connection.
    read(&mut response).await;
    let headers = response.headers().clone();
    *again.url_mut() = reached;
    Ok(Asked::Owed(Box::new(Owed {
        again,
        payable,
        origin,
        headers,
    })))
}

/// Presents a payment until there is an answer to it.
pub(crate) async fn present<T: Transport>(
    transport: &mut T,
    mut request: Request,
    payment: Payment,
    options: &PayOptions,
) -> Result<Response, PayError<T::Error>> {
    let unknown = |payment, failure, retry_after| {
        let lost = OutcomeUnknown {
            payment,
            failure,
            retry_after,
        };
        Err(PayError::OutcomeUnknown(Box::new(lost)))
    };
    match credential(payment.credential()) {
        Ok((name, value)) => {
            if let Ok(key) = key(&value) {
                let headers = request.headers_mut();
                headers.entry(IDEMPOTENCY_KEY).or_insert(key);
            }
            // Instead of whatever the caller had there.
            request.headers_mut().insert(name, value);
        }
        Err(error) => return unknown(payment, Failure::Credential(error), None),
    };
    let mut attempt = 0;
    loop {
        attempt += 1;
        let this = request.try_clone().ok_or(PayError::StreamedBody)?;
        let (failure, retry_after) = match transport.send(this).await {
            Ok(response) if response.status().is_server_error() => (
                Failure::Status(response.status()),
                retry_after(response.headers()),
            ),
            Ok(response) => return answered(response, payment).await,
            Err(error) => (Failure::Request(error), None),
        };
        tracing::debug!(attempt, %failure, "a paid request has no answer yet");
        let wait = retry_after.unwrap_or_else(|| backoff(attempt).min(options.max_wait));
        if attempt >= options.attempts || wait > options.max_wait {
            return unknown(payment, failure, retry_after);
        }
        tokio::time::sleep(wait).await;
    }
}

async fn answered<E: Error + 'static>(
    mut response: Response,
    payment: Payment,
) -> Result<Response, PayError<E>> {
    let status = response.status();
    if status == StatusCode::PAYMENT_REQUIRED {
        let problem = problem(&mut response).await;
        return Err(PayError::NotAccepted(Box::new(NotAccepted {
            payment,
            problem,
        })));
    }
    if status.is_client_error() {
        payment.not_accepted();
    } else {
        payment.accepted(response.receipt().as_ref());
    }
    Ok(response)
}

/// What the request itself says that it accepts.
pub(crate) fn accepted(headers: &HeaderMap) -> Option<AcceptPayment> {
    let values = headers.get_all(ACCEPT_PAYMENT).iter();
    let values: Vec<&[u8]> = values.map(HeaderValue::as_bytes).collect();
    AcceptPayment::parse_bytes(&values.join(&b", "[..])).ok()
}

/// Everything the response asks for. Servers write header text in ISO-8859-1.
pub(crate) fn challenges(headers: &HeaderMap) -> Vec<Result<Challenge, ParseError>> {
    Challenge::parse_all(
        headers
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .map(HeaderValue::as_bytes),
    )
}

/// The challenges that this request could answer.
pub(crate) fn payable<E: Error + 'static>(
    found: Vec<Result<Challenge, ParseError>>,
    request: &Request,
    options: &PayOptions,
) -> Result<Vec<Challenge>, PayError<E>> {
    let mut why = PayError::OtherBody;
    let mut payable = Vec::new();
    let body = request
        .body()
        .and_then(reqwest::Body::as_bytes)
        .unwrap_or_default();
    for challenge in found {
        match challenge {
            Err(error) => {
                tracing::debug!(%error, "a challenge cannot be read");
                if matches!(why, PayError::OtherBody) {
                    why = PayError::Unreadable(error);
                }
            }
            Ok(challenge) if challenge.digest.as_ref().is_some_and(|d| !d.matches(body)) => {}
            Ok(challenge) if is_leaky(&challenge, options) => {
                why = PayError::LeakyHeader;
            }
            Ok(challenge) => payable.push(challenge),
        }
    }
    if payable.is_empty() {
        Err(why)
    } else {
        Ok(payable)
    }
}

/// Whether its credential goes into a header that reqwest would carry to another host.
pub(crate) fn is_leaky(challenge: &Challenge, options: &PayOptions) -> bool {
    challenge.header == Some(CredentialHeader::PaymentAuthorization) && !options.no_redirects
}

pub(crate) fn credential(
    credential: &Credential,
) -> Result<(HeaderName, HeaderValue), FormatError> {
    let header = credential
        .challenge
        .header
        .unwrap_or(CredentialHeader::Authorization);
    let text = credential.to_header()?;
    let value = HeaderValue::try_from(text);
    let mut value = value.map_err(|_| ParseError::Syntax("the credential is no header text"))?;
    value.set_sensitive(true);
    Ok((credential_header(header), value))
}

/// Under which a server that got the credential and whose answer was lost may give it again. It is
/// the credential's own, so that presenting it later goes under the same one.
pub(crate) fn key(credential: &HeaderValue) -> Result<HeaderValue, InvalidHeaderValue> {
    let digest = BodyDigest::of(credential.as_bytes());
    HeaderValue::try_from(format!("\"{}\"", digest.as_str()))
}

pub(crate) fn origin(url: &Url) -> Origin {
    let port = url.port_or_known_default().unwrap_or_default();
    Origin::new(url.scheme(), url.host_str().unwrap_or_default(), port)
}

pub(crate) fn without_fragment(url: &Url) -> Url {
    let mut url = url.clone();
    url.set_fragment(None);
    url
}

/// Seconds only: a date would need the server's clock.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers
        .get(RETRY_AFTER)?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()?;
    Some(Duration::from_secs(seconds))
}

/// 0.25 s, 0.5 s, 1 s, …
pub(crate) fn backoff(attempt: u32) -> Duration {
    Duration::from_millis(250).saturating_mul(1 << (attempt - 1).min(16))
}

/// The problem details of a response, where it carries any.
pub(crate) async fn problem(response: &mut Response) -> Option<ProblemDetails> {
    let kind = response.headers().get(CONTENT_TYPE)?.to_str().ok()?;
    if !kind
        .to_ascii_lowercase()
        .starts_with("application/problem+json")
    {
        return None;
    }
    let body = read(response).await;
    serde_json::from_slice(&body).ok()
}

/// The body, as far as it is short.
pub(crate) async fn read(response: &mut Response) -> Vec<u8> {
    const SHORT: usize = 64 * 1024;
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        body.extend_from_slice(&chunk);
        if body.len() > SHORT {
            break;
        }
    }
    body
}
