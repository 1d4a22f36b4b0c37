//! Refusals as errors.

use std::time::Duration;

use farebox_core::{
    Fault,
    wire::{BALANCE_HELD, Problem, ProblemDetails},
};
use farebox_engine::{Gate, Inbound, Refused};
use serde_json::{Map, Value, json};

use crate::{Ask, ErrorObject, INTERNAL_ERROR, INVALID_PARAMS, PaymentError};

/// The answer to a refused presentation, with fresh challenges where paying would help.
pub(crate) async fn refused(gate: &Gate, inbound: &Inbound<'_>, refused: Refused) -> ErrorObject {
    match refused {
        Refused::Payment(rejection) => {
            tracing::debug!(
                route = gate.route(),
                detail = rejection.detail,
                "payment rejected"
            );
            let members = &rejection.members;
            ask_with(
                gate,
                inbound,
                &rejection.problem,
                &rejection.detail,
                members,
            )
            .await
        }
        Refused::Request(rejection) | Refused::Conflict(rejection) => {
            invalid(&rejection.problem, &rejection.detail)
        }
        Refused::Spent(rejection) => {
            let mut error = PaymentError::new(&rejection.problem, &rejection.detail, Vec::new());
            if let Some(problem) = &mut error.problem {
                problem.status = 403;
            }
            error.to_error()
        }
        Refused::Pending { retry_after } => {
            let detail = "The payment is being processed. Call again with the same credential; \
                          do not pay again.";
            unavailable(detail, retry_after)
        }
        Refused::Busy { retry_after } => {
            let detail = "Streams hold the balance that would pay for this. Nothing was served or \
                          spent. Call again with the same credential; do not pay again.";
            let problem = Problem::session(BALANCE_HELD);
            internal(&problem, detail, Some(seconds(retry_after)))
        }
        Refused::Fault(error) => fault(gate.route(), &error),
    }
}

/// An error with fresh challenges; an internal one if no rail can quote.
pub(crate) async fn ask(
    gate: &Gate,
    inbound: &Inbound<'_>,
    problem: &Problem,
    detail: &str,
) -> ErrorObject {
    ask_with(gate, inbound, problem, detail, &Map::new()).await
}

async fn ask_with(
    gate: &Gate,
    inbound: &Inbound<'_>,
    problem: &Problem,
    detail: &str,
    members: &Map<String, Value>,
) -> ErrorObject {
    let challenges = match gate.challenges(inbound).await {
        Ok(challenges) => challenges,
        Err(error) => return fault(gate.route(), &error),
    };
    let mut asks = Vec::with_capacity(challenges.len());
    for challenge in challenges {
        let offer = challenge.offer();
        match Ask::new(challenge) {
            Ok(ask) => asks.push(ask),
            Err(error) => tracing::error!(%offer, %error, "a challenge cannot be sent"),
        }
    }
    if asks.is_empty() {
        return fault(gate.route(), &Fault::new("writing challenges"));
    }
    let mut error = PaymentError::new(problem, detail, asks);
    if let Some(problem) = &mut error.problem {
        problem.extra.clone_from(members);
    }
    error.to_error()
}

/// The credential is wrong in a way that paying does not mend.
pub(crate) fn invalid(problem: &Problem, detail: &str) -> ErrorObject {
    let data = json!({ "detail": detail, "problem": ProblemDetails::new(problem, detail) });
    ErrorObject::new(INVALID_PARAMS, "Invalid params").with(data)
}

/// Our own failure. What it was goes to the log and never to the payer.
pub(crate) fn fault(route: &str, fault: &Fault) -> ErrorObject {
    tracing::error!(route, %fault, "payment failed on our side");
    match fault.retry_after() {
        Some(retry_after) => {
            let detail = "Payments cannot be processed right now. If you have paid, call again \
                          with the same credential; do not pay again.";
            unavailable(detail, retry_after)
        }
        None => {
            let detail = "The payment could not be processed. If you have paid, call again with \
                          the same credential; do not pay again.";
            internal(&Problem::Internal, detail, None)
        }
    }
}

fn unavailable(detail: &str, retry_after: Duration) -> ErrorObject {
    let wait = Some(seconds(retry_after));
    internal(&Problem::TemporarilyUnavailable, detail, wait)
}

fn seconds(retry_after: Duration) -> u64 {
    let seconds = retry_after.as_secs() + u64::from(retry_after.subsec_nanos() > 0);
    seconds.max(1)
}

fn internal(problem: &Problem, detail: &str, retry_after: Option<u64>) -> ErrorObject {
    let details = ProblemDetails::new(problem, detail);
    let mut data = json!({ "httpStatus": details.status, "problem": details });
    if let Some(seconds) = retry_after {
        data["retryAfter"] = seconds.into();
    }
    ErrorObject::new(INTERNAL_ERROR, "Internal error").with(data)
}
