//! From a request to permission to serve, and from the handler's response to the one that leaves.

use bytes::Bytes;
use farebox_core::{
    Fault,
    wire::{BodyDigest, Problem, ProblemDetails},
};
use farebox_engine::{Admission, Gate, Inbound, Serving};
use http::{HeaderValue, Request, Response, StatusCode, request::Parts};
use http_body::Body;

use super::{
    BODY_LIMIT, answer,
    body::{self, BodyError, Buffered},
    extract::Payment,
    headers::{self, Presented},
};
use crate::{PAYMENT_RECEIPT, credential_header};

/// How requests reach the server. Challenges and credentials must travel over TLS, or not leave
/// the machine (draft-httpauth-payment, Transport Security).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Transport {
    /// Over TLS, ended by this process or by a proxy in front of it, or from this machine only. The
    /// operator's word, and the default: a service cannot see how it is reached.
    #[default]
    Declared,
    /// From this machine only, checked by axum's `ConnectInfo<SocketAddr>` on each request. Anyone
    /// else, and anyone where the server records no peer, gets 403 without a challenge.
    #[cfg(feature = "axum")]
    Loopback,
}

/// What a paid service can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Settings {
    /// The largest body that is read before anything is paid, in bytes; [`BODY_LIMIT`] unless set.
    pub body_limit: usize,
    /// How requests reach the server.
    pub transport: Transport,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            body_limit: BODY_LIMIT,
            transport: Transport::default(),
        }
    }
}

/// A request that is paid for.
#[derive(Debug)]
#[must_use = "serve the request, then conclude"]
pub struct Admitted<B> {
    /// The request for the handler: its body as it came, its payment credential taken out, and a
    /// [`Payment`] among its extensions.
    pub request: Request<B>,
    /// The lease to [`conclude`].
    pub serving: Serving,
}

/// Reads a request and the payment it presents. Either it is paid for, or the error is the answer.
///
/// # Errors
/// The response to send instead of serving; see the table in [`super`].
pub async fn admit<B>(
    gate: &Gate,
    settings: &Settings,
    request: Request<B>,
) -> Result<Admitted<B>, Response<Bytes>>
where
    B: Body + From<Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (mut parts, body) = request.into_parts();
    let presented = headers::take_credential(&mut parts.headers, &credential_header(gate.header()));
    if !may_travel(settings.transport, &parts) {
        return Err(answer::simple(
            &Problem::Forbidden,
            "Payments are taken over TLS only.",
        ));
    }
    let buffered = body::read(&parts.headers, body, settings.body_limit).await;
    let buffered = buffered.map_err(|error| match error {
        BodyError::TooLarge => {
            let limit = settings.body_limit;
            let detail = format!("A paid request's body may have at most {limit} bytes.");
            answer::simple(&Problem::BodyTooLarge, &detail)
        }
        BodyError::Broken => answer::simple(
            &Problem::BadRequest,
            "The request's body could not be read.",
        ),
    })?;
    let bytes = match &buffered {
        Buffered::Bytes(bytes) if !bytes.is_empty() => Some(bytes),
        _ => None,
    };
    let digest = bytes.map(|bytes| BodyDigest::of(bytes));
    let accept = headers::accept(&parts.headers);
    let inbound = Inbound {
        method: parts.method.as_str(),
        target: parts
            .uri
            .path_and_query()
            .map_or("/", |target| target.as_str()),
        body: bytes.map(AsRef::as_ref),
        digest: digest.as_ref(),
        accept: accept.as_ref(),
        idempotency_key: None,
        realm: None,
    };
    let credential = match presented {
        Presented::One(credential) => *credential,
        Presented::Nothing => {
            let detail = "This resource is paid for. Pay one of the challenges and retry with \
                          the credential.";
            let details = ProblemDetails::new(&Problem::PaymentRequired, detail);
            return Err(Box::pin(answer::challenge(gate, &inbound, details)).await);
        }
        Presented::Malformed(why) => {
            let details = ProblemDetails::new(&Problem::MalformedCredential, why);
            return Err(Box::pin(answer::challenge(gate, &inbound, details)).await);
        }
        Presented::Several => {
            let detail = "The request carries more than one Payment credential; send one.";
            return Err(answer::simple(&Problem::BadRequest, detail));
        }
    };
    let source = credential.source.clone();
    let serving = match Box::pin(gate.present(credential, &inbound)).await {
        Ok(Admission::Serve(serving)) => serving,
        // No key is passed on, so nothing was kept.
        Ok(_) => {
            let fault = Fault::new("a response was kept that nobody asked for");
            return Err(answer::fault(gate.route(), &fault));
        }
        Err(refused) => return Err(Box::pin(answer::refused(gate, &inbound, refused)).await),
    };
    parts.extensions.insert(Payment::new(&serving, source));
    let body = match buffered {
        Buffered::None(body) => body,
        Buffered::Bytes(bytes) => B::from(bytes),
    };
    Ok(Admitted {
        request: Request::from_parts(parts, body),
        serving,
    })
}

#[cfg_attr(
    not(feature = "axum"),
    expect(unused_variables, reason = "only axum records the peer")
)]
fn may_travel(transport: Transport, parts: &Parts) -> bool {
    match transport {
        Transport::Declared => true,
        #[cfg(feature = "axum")]
        Transport::Loopback => {
            use axum::extract::ConnectInfo;
            let peer = parts.extensions.get::<ConnectInfo<std::net::SocketAddr>>();
            peer.is_some_and(|ConnectInfo(peer)| peer.ip().to_canonical().is_loopback())
        }
    }
}

/// Closes the lease as the handler's response says. 2xx, 3xx and an upgrade are service, recorded
/// before the response leaves; anything else gives the payment back, so that the same credential
/// may collect it.
pub async fn conclude<R: From<Bytes>>(
    gate: &Gate,
    serving: Serving,
    mut response: Response<R>,
) -> Response<R> {
    // An upstream's receipt is not ours to pass on.
    response.headers_mut().remove(PAYMENT_RECEIPT);
    let status = response.status();
    let served =
        status.is_success() || status.is_redirection() || status == StatusCode::SWITCHING_PROTOCOLS;
    if !served {
        give_back(gate, serving).await;
        return response;
    }
    let receipt = match serving.delivered(None).await {
        Ok(receipt) => receipt,
        Err(fault) => return answer::fault(gate.route(), &fault).map(R::from),
    };
    if !status.is_success() {
        return response;
    }
    let header = receipt.to_header().map_err(|error| error.to_string());
    let header = header.and_then(|text| HeaderValue::try_from(text).map_err(|e| e.to_string()));
    match header {
        Ok(header) => {
            response.headers_mut().insert(PAYMENT_RECEIPT, header);
        }
        Err(error) => tracing::error!(route = gate.route(), error, "a receipt cannot be sent"),
    }
    headers::make_private(response.headers_mut());
    response
}

/// The handler did not serve.
pub(crate) async fn give_back(gate: &Gate, serving: Serving) {
    if let Err(fault) = serving.failed().await {
        // The lease lapses by itself, so this only delays the next try.
        tracing::warn!(route = gate.route(), %fault, "an unserved payment was not given back");
    }
}
