//! Refusals as responses.

use std::{borrow::Cow, sync::LazyLock, time::Duration};

use bytes::Bytes;
use farebox_core::{
    Fault, Rejection,
    wire::{BALANCE_HELD, Challenge, Problem},
};
use farebox_engine::{Gate, Inbound, Refused};
use http::{
    HeaderValue, Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
};
use serde::Serialize;
use serde_json::{Map, Value};

/// The answer to a refusal, with fresh challenges where paying would help. For handlers too, whose
/// [`Meter`](farebox_engine::Meter) refuses: `refuse(&gate, &inbound, error.into())`.
pub async fn refuse(gate: &Gate, inbound: &Inbound<'_>, refused: Refused) -> Response<Bytes> {
    match refused {
        Refused::Payment(rejection) => {
            tracing::debug!(
                route = gate.route(),
                detail = rejection.detail,
                "payment rejected"
            );
            // 402, or 410 where a session's channel is gone and a fresh challenge opens another.
            let (kind, detail) = (&rejection.problem, &rejection.detail);
            issue_with(gate, inbound, kind, detail, &rejection.members)
                .await
                .0
        }
        Refused::Request(rejection) => with_status(StatusCode::BAD_REQUEST, &rejection),
        Refused::Conflict(rejection) => with_status(StatusCode::UNPROCESSABLE_ENTITY, &rejection),
        Refused::Spent(rejection) => with_status(StatusCode::FORBIDDEN, &rejection),
        Refused::Pending { retry_after } => {
            let detail = "The payment is being processed. Retry with the same credential; do not \
                          pay again.";
            unavailable(detail, retry_after)
        }
        Refused::Busy { retry_after } => {
            let detail = "Streams hold the balance that would pay for this. Nothing was served or \
                          spent. Retry with the same credential; do not pay again.";
            wait(&Problem::session(BALANCE_HELD), detail, retry_after)
        }
        Refused::Fault(error) => fault(gate.route(), &error),
    }
}

/// A 402 (or 410) with fresh challenges. If no rail can quote it is a 5xx, since a 402 must carry
/// one.
pub(crate) async fn challenge(
    gate: &Gate,
    inbound: &Inbound<'_>,
    kind: &Problem,
    detail: &str,
) -> Response<Bytes> {
    issue(gate, inbound, kind, detail).await.0
}

/// The same, with the challenges that it carries; none where it is a 5xx.
pub(crate) async fn issue(
    gate: &Gate,
    inbound: &Inbound<'_>,
    kind: &Problem,
    detail: &str,
) -> (Response<Bytes>, Vec<Challenge>) {
    issue_with(gate, inbound, kind, detail, &Map::new()).await
}

async fn issue_with(
    gate: &Gate,
    inbound: &Inbound<'_>,
    kind: &Problem,
    detail: &str,
    members: &Map<String, Value>,
) -> (Response<Bytes>, Vec<Challenge>) {
    let challenges = match gate.challenges(inbound).await {
        Ok(challenges) => challenges,
        // Every request of a planned restart ends here: nobody needs to be woken.
        Err(error) if gate.is_draining() => {
            tracing::debug!(
                route = gate.route(),
                "no challenge, because the server drains"
            );
            return (for_now(error.retry_after()), Vec::new());
        }
        Err(error) => return (fault(gate.route(), &error), Vec::new()),
    };
    let (mut first, mut values) = (None, Vec::with_capacity(challenges.len()));
    for challenge in &challenges {
        match header_value(challenge) {
            Ok(value) => {
                first.get_or_insert(challenge.id.as_str());
                values.push(value);
            }
            Err(error) => {
                tracing::error!(offer = %challenge.offer(), %error, "a challenge cannot be sent");
            }
        }
    }
    if values.is_empty() {
        let error = Fault::new("writing challenges");
        return (fault(gate.route(), &error), Vec::new());
    }
    let mut response = problem(status_of(kind), kind, detail, first, members);
    for value in values {
        response.headers_mut().append(WWW_AUTHENTICATE, value);
    }
    (response, challenges)
}

fn header_value(challenge: &Challenge) -> Result<HeaderValue, Box<dyn std::error::Error>> {
    Ok(HeaderValue::try_from(challenge.to_header()?)?)
}

fn with_status(status: StatusCode, rejection: &Rejection) -> Response<Bytes> {
    let (kind, detail) = (&rejection.problem, &rejection.detail);
    problem(status, kind, detail, None, &rejection.members)
}

/// Our own failure. What it was goes to the log and never to the payer.
pub(crate) fn fault(route: &str, fault: &Fault) -> Response<Bytes> {
    tracing::error!(route, %fault, "payment failed on our side");
    for_now(fault.retry_after())
}

/// 503 if it passes, 500 if not.
fn for_now(retry_after: Option<Duration>) -> Response<Bytes> {
    match retry_after {
        Some(retry_after) => {
            let detail = "Payments cannot be processed right now. If you have paid, retry with \
                          the same credential; do not pay again.";
            unavailable(detail, retry_after)
        }
        None => {
            let detail = "The payment could not be processed. If you have paid, retry with the \
                          same credential; do not pay again.";
            simple(&Problem::Internal, detail)
        }
    }
}

/// More challenges than one client may leave unpaid.
pub(crate) fn too_many(retry_after: Duration) -> Response<Bytes> {
    let detail = "Too many challenges were left unpaid. Pay one of them, or come back later.";
    wait(&Problem::TooManyRequests, detail, retry_after)
}

fn unavailable(detail: &str, retry_after: Duration) -> Response<Bytes> {
    wait(&Problem::TemporarilyUnavailable, detail, retry_after)
}

fn wait(kind: &Problem, detail: &str, retry_after: Duration) -> Response<Bytes> {
    let mut response = simple(kind, detail);
    let seconds = retry_after.as_secs() + u64::from(retry_after.subsec_nanos() > 0);
    response
        .headers_mut()
        .insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
    response
}

/// A refusal without challenges.
pub(crate) fn simple(kind: &Problem, detail: &str) -> Response<Bytes> {
    problem(status_of(kind), kind, detail, None, &Map::new())
}

fn status_of(kind: &Problem) -> StatusCode {
    StatusCode::from_u16(kind.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// A problem's body (RFC 9457), as `ProblemDetails` has it, without copies of its texts.
#[derive(Serialize)]
struct Details<'a> {
    #[serde(rename = "type")]
    problem_type: Cow<'a, str>,
    title: Cow<'a, str>,
    status: u16,
    detail: &'a str,
    #[serde(rename = "challengeId", skip_serializing_if = "Option::is_none")]
    challenge_id: Option<&'a str>,
    #[serde(flatten)]
    members: &'a Map<String, Value>,
}

/// The detail of the answer to a request without a credential.
pub(crate) const PAY: &str = "This resource is paid for. Pay one of the challenges and retry with \
                              the credential.";

fn body(
    status: u16,
    kind: &Problem,
    detail: &str,
    challenge_id: Option<&str>,
    members: &Map<String, Value>,
) -> Vec<u8> {
    /// The most frequent body, all of which but the challenge is always the same.
    static START: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let kind = Problem::PaymentRequired;
        let mut start = body(kind.status(), &kind, PAY, None, &Map::new());
        start.pop();
        start.extend_from_slice(br#","challengeId":"#);
        start
    });
    let mut text = Vec::with_capacity(384);
    let written = match (kind, challenge_id) {
        (Problem::PaymentRequired, Some(id)) if detail == PAY && members.is_empty() => {
            text.extend_from_slice(&START);
            let written = serde_json::to_writer(&mut text, id);
            text.push(b'}');
            written
        }
        _ => {
            let details = Details {
                problem_type: kind.type_uri(),
                title: kind.title(),
                status,
                detail,
                challenge_id,
                members,
            };
            serde_json::to_writer(&mut text, &details)
        }
    };
    // Texts and a number: this does not fail, and an empty body is still a valid answer.
    if written.is_err() {
        text.clear();
    }
    text
}

fn problem(
    status: StatusCode,
    kind: &Problem,
    detail: &str,
    challenge_id: Option<&str>,
    members: &Map<String, Value>,
) -> Response<Bytes> {
    let body = body(status.as_u16(), kind, detail, challenge_id, members);
    let mut response = Response::new(Bytes::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.reserve(4);
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/problem+json"),
    );
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use farebox_core::wire::ProblemDetails;
    use serde_json::json;

    use super::*;

    /// Protects: what is written in two ways here is what the protocol's own type would write.
    #[test]
    fn bodies_are_problem_details() {
        for (kind, detail) in [
            (Problem::PaymentRequired, PAY),
            (Problem::PaymentRequired, "another \"text\""),
            (Problem::VerificationFailed, PAY),
            (Problem::rail("token", "torn-token"), "torn"),
            (Problem::Forbidden, "no"),
        ] {
            for id in [None, Some("c\"1")] {
                let mut details = ProblemDetails::new(&kind, detail);
                details.challenge_id = id.map(str::to_owned);
                for members in [json!({}), json!({ "requiredTopUp": "5" })] {
                    details.extra = members.as_object().unwrap().clone();
                    let expected = serde_json::to_vec(&details).unwrap();
                    let written = body(kind.status(), &kind, detail, id, &details.extra);
                    assert_eq!(written, expected, "{kind:?}");
                }
            }
        }
    }
}
