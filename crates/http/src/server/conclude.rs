//! From the handler's response to the one that leaves.

use bytes::Bytes;
use farebox_core::{Attachment, Fault, wire::Receipt};
use farebox_engine::{Gate, Kept, Reply, Serving};
use http::{
    HeaderMap, HeaderName, HeaderValue, Response, StatusCode,
    header::{
        CONNECTION, DATE, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, SET_COOKIE, TE, TRAILER,
        TRANSFER_ENCODING, UPGRADE,
    },
    response::Parts,
};
use http_body::Body;
use http_body_util::BodyExt;

#[cfg(feature = "page")]
use super::page::FAREBOX_PAGE;
use super::{
    admit::{self, Settings},
    answer,
    asked::Asked,
    headers,
    metered::{Bill, Closed, Instead, Metered},
};
use crate::{IDEMPOTENT_REPLAYED, PAYMENT_RECEIPT};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What is owed for a request that is being served.
#[derive(Debug)]
#[must_use = "conclude it with the handler's response"]
pub struct Ticket {
    serving: Serving,
    metered: Option<Metered>,
    asked: Asked,
}

impl Ticket {
    pub(crate) fn new(serving: Serving, metered: Option<Metered>, asked: Asked) -> Self {
        Self {
            serving,
            metered,
            asked,
        }
    }

    /// The lease on the payment.
    pub fn serving(&self) -> &Serving {
        &self.serving
    }

    /// The handler gave no response: nothing was served.
    pub(crate) async fn give_back(self, gate: &Gate) {
        if let Some(metered) = &self.metered {
            release(gate, metered).await;
        }
        give_back(gate, self.serving).await;
    }
}

/// Closes the lease as the handler's response says. 2xx, 3xx and an upgrade are service, recorded
/// before the response leaves; anything else gives the payment back, so that the same credential
/// may collect it.
///
/// Where the request came with an `Idempotency-Key`, the response is kept for whoever repeats it.
/// Its body must say how long it is, and be no longer than [`Settings::reply_limit`]; what streams
/// is passed on as it comes, and a repeated request is then refused as used. Neither `Set-Cookie`
/// nor trailers are kept.
///
/// What a session owes for the request is recorded before the response leaves, and its receipt says
/// how its channel stands then.
pub async fn conclude<R>(
    gate: &Gate,
    settings: &Settings,
    ticket: Ticket,
    response: Response<R>,
) -> Response<R>
where
    R: Body + From<Bytes>,
    R::Error: Into<BoxError>,
{
    let Ticket {
        mut serving,
        metered,
        asked,
    } = ticket;
    let (mut parts, body) = response.into_parts();
    if let Some(refused) = parts.extensions.get::<Instead>().and_then(Instead::take) {
        if let Some(metered) = &metered {
            release(gate, metered).await;
        }
        give_back(gate, serving).await;
        let answer = admit::refuse(gate, settings, &asked, refused).await;
        return admit::ours(settings, answer).map(R::from);
    }
    if metered.is_some() {
        admit::paid(settings, &asked);
    }
    // An upstream's receipt is not ours to pass on, nor is its word for a refusal.
    parts.headers.remove(PAYMENT_RECEIPT);
    #[cfg(feature = "page")]
    parts.headers.remove(FAREBOX_PAGE);
    let status = parts.status;
    let served =
        status.is_success() || status.is_redirection() || status == StatusCode::SWITCHING_PROTOCOLS;
    if !served {
        if let Some(metered) = &metered {
            release(gate, metered).await;
        }
        give_back(gate, serving).await;
        return Response::from_parts(parts, body);
    }
    let (body, kept) = if serving.keyed() && may_keep(status, &body, settings.reply_limit) {
        let read: Result<_, BoxError> = body.collect().await.map_err(Into::into);
        match read {
            Ok(read) => {
                let bytes = read.to_bytes();
                let kept = keep(&parts, &bytes);
                (R::from(bytes), Some(kept))
            }
            Err(error) => {
                // Nothing has left yet, so this is a handler that failed.
                tracing::warn!(route = gate.route(), error, "a response broke off");
                if let Some(metered) = &metered {
                    release(gate, metered).await;
                }
                give_back(gate, serving).await;
                let fault = Fault::new("reading the handler's response");
                return answer::fault(gate.route(), &fault).map(R::from);
            }
        }
    } else {
        (body, None)
    };
    let bill = match metered.as_ref().map(Metered::close) {
        None => None,
        Some(Closed::Billed(bill)) => Some(bill),
        // Spent with the delivery, and before anything leaves.
        Some(Closed::Held(charge)) => match serving.hold(charge).await {
            Ok(()) => None,
            Err(fault) => {
                give_back(gate, serving).await;
                return answer::fault(gate.route(), &fault).map(R::from);
            }
        },
    };
    let meter = serving.meter().cloned();
    let answered = match serving.delivered(kept).await {
        Ok(answered) => answered,
        Err(fault) => return answer::fault(gate.route(), &fault).map(R::from),
    };
    let answered = match (bill, meter) {
        (
            Some(Bill {
                state: Some(state),
                served,
            }),
            Some(meter),
        ) => meter.answered(&state, &served),
        _ => answered,
    };
    let (receipt, attachments) = (&answered.receipt, &answered.attachments);
    finish(
        gate.route(),
        status,
        &mut parts.headers,
        receipt,
        attachments,
    );
    Response::from_parts(parts, body)
}

/// What was held back for the request is the payer's again.
async fn release(gate: &Gate, metered: &Metered) {
    let Closed::Held(charge) = metered.close() else {
        return;
    };
    if let Err(error) = charge.release().await {
        // It lapses by itself.
        tracing::warn!(route = gate.route(), %error, "what a request holds was not given back");
    }
}

/// What makes a response a paid one: no shared cache may give it to anybody else, and where it is a
/// success it has a receipt, and what the rail sends with it.
pub(crate) fn finish(
    route: &str,
    status: StatusCode,
    headers: &mut HeaderMap,
    receipt: &Receipt,
    attachments: &[Attachment],
) {
    headers::make_private(headers);
    if !status.is_success() {
        return;
    }
    let header = receipt.to_header().map_err(|error| error.to_string());
    let header = header.and_then(|text| HeaderValue::try_from(text).map_err(|e| e.to_string()));
    match header {
        Ok(header) => {
            headers.insert(PAYMENT_RECEIPT, header);
        }
        Err(error) => tracing::error!(route, error, "a receipt cannot be sent"),
    }
    for Attachment { name, value, .. } in attachments {
        let named = HeaderName::from_bytes(name.as_bytes());
        match (named, HeaderValue::from_str(value)) {
            (Ok(name), Ok(value)) => drop(headers.insert(name, value)),
            _ => tracing::error!(route, name, "what goes with a receipt cannot be sent"),
        }
    }
}

/// The handler did not serve.
pub(crate) async fn give_back(gate: &Gate, serving: Serving) {
    if let Err(fault) = serving.failed().await {
        // The lease lapses by itself, so this only delays the next try.
        tracing::warn!(route = gate.route(), %fault, "an unserved payment was not given back");
    }
}

fn may_keep<R: Body>(status: StatusCode, body: &R, limit: usize) -> bool {
    let limit = u64::try_from(limit).unwrap_or(u64::MAX);
    let length = body.size_hint().exact();
    status != StatusCode::SWITCHING_PROTOCOLS && length.is_some_and(|length| length <= limit)
}

/// What concerns one connection (RFC 9110, 7.6.1), one moment, or a session whose secret has no
/// business in a store.
const NOT_KEPT: [HeaderName; 11] = [
    CONNECTION,
    DATE,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    SET_COOKIE,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

fn keep(parts: &Parts, body: &Bytes) -> Kept {
    let connection = headers::tokens(&parts.headers, &CONNECTION);
    let kept = parts.headers.iter().filter(|(name, _)| {
        let named = connection
            .iter()
            .any(|token| token.eq_ignore_ascii_case(name.as_str().as_bytes()));
        !named && !NOT_KEPT.contains(name)
    });
    Kept {
        status: parts.status.as_u16(),
        headers: kept
            .map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()))
            .collect(),
        body: body.to_vec(),
    }
}

/// The response that was given before, with its receipt, marked as a repetition.
pub(crate) fn replay(route: &str, reply: Reply) -> Response<Bytes> {
    let restored = restore(&reply);
    let (Ok(status), Some(headers)) = (StatusCode::from_u16(reply.status), restored) else {
        return answer::fault(route, &Fault::new("restoring a kept response"));
    };
    let (mut parts, body) = Response::new(Bytes::from(reply.body)).into_parts();
    (parts.status, parts.headers) = (status, headers);
    finish(route, status, &mut parts.headers, &reply.receipt, &[]);
    parts
        .headers
        .insert(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
    Response::from_parts(parts, body)
}

fn restore(reply: &Reply) -> Option<HeaderMap> {
    let mut headers = HeaderMap::with_capacity(reply.headers.len() + 3);
    for (name, value) in &reply.headers {
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        headers.append(name, HeaderValue::from_bytes(value).ok()?);
    }
    Some(headers)
}
