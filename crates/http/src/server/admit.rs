//! From a request to permission to serve.

use bytes::Bytes;
use farebox_core::wire::{BodyDigest, Problem};
use farebox_engine::{Admission, Gate, Refused};
use http::{
    Method, Request, Response,
    header::{ACCESS_CONTROL_REQUEST_METHOD, ORIGIN},
    request::Parts,
};
use http_body::Body;

#[cfg(feature = "page")]
use super::page::{self, Page};
use super::{
    BODY_LIMIT, REPLY_LIMIT, answer,
    asked::{Asked, manages, target},
    body::{self, BodyError, Buffered},
    conclude::{Ticket, give_back, replay},
    extract::Payment,
    headers::{self, Presented},
    key,
    limit::ChallengeLimit,
    manage::managed,
    metered::Metered,
    stream::Pace,
    transport::Transport,
};
use crate::{Hosts, credential_header};

/// What a paid service can be told.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Settings {
    /// The largest body that is read before anything is paid, in bytes; [`BODY_LIMIT`] unless set.
    pub body_limit: usize,
    /// The largest response that is kept under an `Idempotency-Key`, in bytes of its body;
    /// [`REPLY_LIMIT`] unless set.
    pub reply_limit: usize,
    /// How requests reach the server.
    pub transport: Transport,
    /// The hosts that are realms of their own. A request for one of them is challenged under its
    /// name, and must be paid for under it; any other is under the engine's realm.
    pub hosts: Hosts,
    /// How many challenges one client may leave unpaid; `None` for as many as it likes.
    pub challenges: Option<ChallengeLimit>,
    /// How metered streams behave while nothing is to be sent.
    pub pace: Pace,
    /// The page that browsers get; `None` where they get what programs get.
    #[cfg(feature = "page")]
    pub page: Option<Page>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            body_limit: BODY_LIMIT,
            reply_limit: REPLY_LIMIT,
            transport: Transport::default(),
            hosts: Hosts::default(),
            challenges: None,
            pace: Pace::default(),
            #[cfg(feature = "page")]
            page: None,
        }
    }
}

/// A request that is paid for.
#[derive(Debug)]
#[must_use = "serve the request, then conclude"]
pub struct Admitted<B> {
    /// The request for the handler: its body as it came, its payment credential taken out, and a
    /// [`Payment`] among its extensions; a [`Metered`] too, where a session pays.
    pub request: Request<B>,
    /// What to [`conclude`](super::conclude).
    pub ticket: Ticket,
}

/// Reads a request and the payment it presents. Either it is paid for, or the error is the answer:
/// a refusal, or the response that was given before under the same `Idempotency-Key`.
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
    let decided = decide(gate, settings, request).await;
    decided.map_err(|answer| ours(settings, answer))
}

/// Marks an answer that is no handler's, where a page's script must tell them apart.
pub(super) fn ours(settings: &Settings, answer: Response<Bytes>) -> Response<Bytes> {
    #[cfg(feature = "page")]
    if settings.page.is_some() {
        return page::mark(answer);
    }
    let _ = settings;
    answer
}

async fn decide<B>(
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
    if is_preflight(&parts) {
        return Err(answer::simple(
            &Problem::Forbidden,
            "Pages of other origins may not ask here.",
        ));
    }
    let realm = realm(settings, &parts).map_err(|why| insecure(gate, why))?;
    #[cfg(feature = "page")]
    if settings.page.is_some()
        && let Some(answer) = page::asks(&parts)
    {
        return Err(answer);
    }
    let key = key::read(&parts.headers).map_err(|why| answer::simple(&Problem::BadRequest, why))?;
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
    let asked = Asked {
        manages: manages(gate, &parts, bytes.is_some()),
        method: parts.method.clone(),
        target: target(&parts),
        digest: bytes.map(|bytes| BodyDigest::of(bytes)),
        body: bytes.cloned(),
        accept: headers::accept(&parts.headers),
        key: key.map(|key| key.into_owned()),
        realm: realm.map(str::to_owned),
        client: settings
            .challenges
            .as_ref()
            .map(|limit| limit.client(&parts, &settings.transport)),
    };
    let inbound = asked.inbound();
    let credential = match presented {
        Presented::One(credential) => *credential,
        Presented::Nothing => {
            if let Some(answer) = count(settings, &asked) {
                return Err(answer);
            }
            #[cfg(feature = "page")]
            if let Some(page) = &settings.page {
                return Err(Box::pin(page::challenge(page, gate, &parts, &inbound)).await);
            }
            let kind = &Problem::PaymentRequired;
            return Err(answer::challenge(gate, &inbound, kind, answer::PAY).await);
        }
        Presented::Malformed(why) => {
            if let Some(answer) = count(settings, &asked) {
                return Err(answer);
            }
            let kind = &Problem::MalformedCredential;
            return Err(answer::challenge(gate, &inbound, kind, &why).await);
        }
        Presented::Several => {
            let detail = "The request carries more than one Payment credential; send one.";
            return Err(answer::simple(&Problem::BadRequest, detail));
        }
    };
    #[cfg(feature = "page")]
    if let Some(page) = settings.page.as_ref().filter(|_| page::prepares(&parts)) {
        let prepared = page::prepare(page, gate, settings, &parts, &asked, credential);
        return Err(match Box::pin(prepared).await {
            Ok(answer) => answer,
            Err(refused) => refuse(gate, settings, &asked, refused).await,
        });
    }
    let source = credential.source.clone();
    let serving = match Box::pin(gate.present(credential, &inbound)).await {
        Ok(Admission::Serve(serving)) => serving,
        Ok(Admission::Managed(done)) => {
            paid(settings, &asked);
            #[cfg(feature = "page")]
            if let Some(page) = &settings.page {
                page::paid(page, settings, &parts, &asked);
            }
            return Err(managed(gate, done));
        }
        Ok(Admission::Replay(reply)) => return Err(replay(gate.route(), reply)),
        Ok(_) => return Err(answer::fault(gate.route(), &unknown_admission())),
        Err(refused) => return Err(refuse(gate, settings, &asked, refused).await),
    };
    let metered = match serving.meter() {
        None => None,
        Some(meter) => match meter.reserve(1).await {
            Ok(charge) => Some(Metered::new(meter.clone(), charge, settings.pace)),
            Err(error) => {
                let refused = meter.refused(error);
                give_back(gate, serving).await;
                return Err(refuse(gate, settings, &asked, refused).await);
            }
        },
    };
    #[cfg(feature = "page")]
    if let Some(page) = &settings.page {
        page::paid(page, settings, &parts, &asked);
    }
    // A session's handler may still find that it is not.
    if metered.is_none() {
        paid(settings, &asked);
    }
    parts.extensions.insert(Payment::new(&serving, source));
    if let Some(metered) = &metered {
        parts.extensions.insert(metered.clone());
    }
    let body = match buffered {
        Buffered::None(body) => body,
        Buffered::Bytes(bytes) => B::from(bytes),
    };
    Ok(Admitted {
        request: Request::from_parts(parts, body),
        ticket: Ticket::new(serving, metered, asked),
    })
}

/// The answer to a refusal, whose challenges count where they are counted.
pub(super) async fn refuse(
    gate: &Gate,
    settings: &Settings,
    asked: &Asked,
    refused: Refused,
) -> Response<Bytes> {
    if let Refused::Payment(_) = &refused
        && let Some(answer) = count(settings, asked)
    {
        return answer;
    }
    Box::pin(answer::refuse(gate, &asked.inbound(), refused)).await
}

/// Counts a challenge that is about to go out, where they are counted. The answer is for one too many.
fn count(settings: &Settings, asked: &Asked) -> Option<Response<Bytes>> {
    let (limit, client) = (settings.challenges.as_ref()?, asked.client.as_ref()?);
    limit.count(client).err().map(answer::too_many)
}

/// A challenge that went out was paid.
pub(super) fn paid(settings: &Settings, asked: &Asked) {
    if let (Some(limit), Some(client)) = (&settings.challenges, &asked.client) {
        limit.paid(client);
    }
}

/// The realm that a request is under, where it may carry payment at all; or why it may not.
pub(crate) fn realm<'a>(
    settings: &'a Settings,
    parts: &Parts,
) -> Result<Option<&'a str>, &'static str> {
    let host = settings.transport.admit(parts)?;
    Ok(host.and_then(|host| settings.hosts.realm(&host)))
}

/// The answer to a request that may not carry payment.
pub(crate) fn insecure(gate: &Gate, why: &str) -> Response<Bytes> {
    tracing::warn!(route = gate.route(), why, "a request may not carry payment");
    answer::simple(&Problem::Forbidden, "Payments are taken over TLS only.")
}

fn unknown_admission() -> farebox_core::Fault {
    farebox_core::Fault::new("the engine answers in a way that HTTP does not know")
}

/// A browser's question whether a page of another origin may ask. It carries no credential and is
/// never paid for; who lets such pages in puts [`cors`](crate::cors()) outside the payment layer,
/// which answers it first.
fn is_preflight(parts: &Parts) -> bool {
    parts.method == Method::OPTIONS
        && parts.headers.contains_key(ORIGIN)
        && parts.headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}
