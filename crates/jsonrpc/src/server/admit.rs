//! From a call to permission to serve, and from the handler's outcome to the one that leaves.

use farebox_core::{
    Answer, Fault,
    wire::{AcceptPayment, Problem, Receipt},
};
use farebox_engine::{Admission, Gate, Inbound, Kept, Meter, Reply, Serving};
use serde_json::{Map, Value};

use super::answer;
use crate::{ErrorObject, Operation, Presented};

/// The payment behind a call, for its handler.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Payment {
    /// The receipt that leaves with the result.
    pub receipt: Receipt,
    /// The channel behind it, where the payment is part of a session. The call costs one unit, held
    /// before the handler runs; what the handler spends here comes on top.
    pub meter: Option<Meter>,
    /// Who the payer says it is, a DID; as true as the rail's proof makes it.
    pub source: Option<String>,
}

/// A call that is paid for.
#[derive(Debug)]
#[must_use]
pub enum Admitted {
    /// Serve it, then [`conclude`].
    Serve(Box<Serving>, Payment),
    /// Answer with this result, and do not run the handler: the call was served before, under the
    /// same key, or its credential asks for no service (a session's top-up or close).
    Replay {
        /// The result as it was, or what the rail says of the action; an empty object otherwise.
        result: Value,
        /// The receipt that goes with it.
        receipt: Value,
    },
}

/// Drives what a call presents to permission to serve it.
///
/// `key` is what [`take_key`](crate::take_key) found. `accept` is what the client can pay with,
/// where it said so; see [`accept`](crate::accept).
///
/// # Errors
/// The error to answer with instead of serving; see the table in [`super`].
pub async fn admit(
    gate: &Gate,
    operation: &Operation,
    presented: Presented,
    key: Option<&str>,
    accept: Option<&AcceptPayment>,
) -> Result<Admitted, ErrorObject> {
    let inbound = Inbound {
        method: operation.method(),
        target: operation.scope(),
        body: operation.body().map(str::as_bytes),
        digest: operation.digest(),
        accept,
        idempotency_key: key,
        ..Inbound::default()
    };
    let credential = match presented {
        Presented::One(credential, _) => *credential,
        Presented::Nothing => {
            let detail = "This operation is paid for. Pay one of the challenges and call again \
                          with the credential.";
            return Err(answer::ask(gate, &inbound, &Problem::PaymentRequired, detail).await);
        }
        Presented::Malformed(why) => {
            return Err(answer::invalid(&Problem::MalformedCredential, &why));
        }
        Presented::Several => {
            let detail = "The request carries two credentials that differ; send one.";
            return Err(answer::invalid(&Problem::BadRequest, detail));
        }
    };
    let source = credential.source.clone();
    match Box::pin(gate.present(credential, &inbound)).await {
        Ok(Admission::Serve(mut serving)) => {
            if let Err(error) = serving.reserve(1).await {
                let refused = match serving.meter() {
                    Some(meter) => meter.refused(error),
                    None => error.into(),
                };
                give_back(gate, serving).await;
                return Err(answer::refused(gate, &inbound, refused).await);
            }
            let payment = Payment {
                receipt: serving.receipt().clone(),
                meter: serving.meter().cloned(),
                source,
            };
            Ok(Admitted::Serve(Box::new(serving), payment))
        }
        Ok(Admission::Managed(managed)) => {
            let receipt = serde_json::to_value(&managed.receipt);
            let result = match managed.answer {
                Answer::Json(result) => result,
                _ => Value::Object(Map::new()),
            };
            receipt.map_or_else(
                |_| Err(unreadable(gate)),
                |receipt| Ok(Admitted::Replay { result, receipt }),
            )
        }
        Ok(Admission::Replay(reply)) => match replay(&reply) {
            Some(replay) => Ok(replay),
            None => Err(unreadable(gate)),
        },
        Ok(_) => Err(unreadable(gate)),
        Err(refused) => Err(answer::refused(gate, &inbound, refused).await),
    }
}

fn replay(reply: &Reply) -> Option<Admitted> {
    let result = serde_json::from_slice(&reply.body).ok()?;
    let receipt = serde_json::to_value(&reply.receipt).ok()?;
    Some(Admitted::Replay { result, receipt })
}

fn unreadable(gate: &Gate) -> ErrorObject {
    answer::fault(gate.route(), &Fault::new("reading a result that was kept"))
}

/// The largest result that is kept for a call repeated under its key, in bytes.
const KEPT: usize = 1024 * 1024;

/// Closes the lease. A call that was `served` is recorded before its result leaves, and has a
/// receipt; otherwise the payment is given back, so that the same credential may collect it.
///
/// Where the call came with a key ([`Serving::keyed`]), `result` is kept for whoever repeats it, up
/// to a megabyte.
///
/// # Errors
/// The error to answer with instead of the result: the delivery could not be recorded.
pub async fn conclude(
    gate: &Gate,
    serving: Box<Serving>,
    served: bool,
    result: Option<Vec<u8>>,
) -> Result<Option<Value>, ErrorObject> {
    if !served {
        give_back(gate, *serving).await;
        return Ok(None);
    }
    let kept = result.filter(|body| body.len() <= KEPT).map(|body| Kept {
        status: 200,
        headers: Vec::new(),
        body,
    });
    let answered = serving.delivered(kept).await;
    let receipt = answered.map(|answered| answered.receipt);
    let receipt = receipt.map_err(|fault| answer::fault(gate.route(), &fault))?;
    match serde_json::to_value(receipt) {
        Ok(receipt) => Ok(Some(receipt)),
        Err(error) => {
            tracing::error!(route = gate.route(), %error, "a receipt cannot be sent");
            Ok(None)
        }
    }
}

/// The handler did not serve.
async fn give_back(gate: &Gate, serving: Serving) {
    if let Err(fault) = serving.failed().await {
        // The lease lapses by itself, so this only delays the next try.
        tracing::warn!(route = gate.route(), %fault, "an unserved payment was not given back");
    }
}
