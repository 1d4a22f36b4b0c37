//! From a call to permission to serve, and from the handler's outcome to the one that leaves.

use farebox_core::{
    Fault,
    wire::{AcceptPayment, Problem, Receipt},
};
use farebox_engine::{Admission, Gate, Inbound, Meter, Serving};
use serde_json::Value;

use super::answer;
use crate::{ErrorObject, Operation, Presented};

/// The payment behind a call, for its handler.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Payment {
    /// The receipt that leaves with the result.
    pub receipt: Receipt,
    /// The channel to spend, where the payment is part of a session.
    pub meter: Option<Meter>,
    /// Who the payer says it is, a DID; as true as the rail's proof makes it.
    pub source: Option<String>,
}

/// Drives what a call presents to permission to serve it.
///
/// `accept` is what the client can pay with, where it said so; see [`accept`](crate::accept).
///
/// # Errors
/// The error to answer with instead of serving; see the table in [`super`].
pub async fn admit(
    gate: &Gate,
    operation: &Operation,
    presented: Presented,
    accept: Option<&AcceptPayment>,
) -> Result<(Serving, Payment), ErrorObject> {
    let inbound = Inbound {
        method: operation.method(),
        target: operation.scope(),
        body: operation.body().map(str::as_bytes),
        digest: operation.digest(),
        accept,
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
    let admission = match Box::pin(gate.present(credential, &inbound)).await {
        Ok(admission) => admission,
        Err(refused) => return Err(answer::refused(gate, &inbound, refused).await),
    };
    let Admission::Serve(serving) = admission else {
        // Only an `Idempotency-Key` has a response repeated, and JSON-RPC has none.
        let fault = Fault::new("a response was repeated for a call without a key");
        return Err(answer::fault(gate.route(), &fault));
    };
    let payment = Payment {
        receipt: serving.receipt().clone(),
        meter: serving.meter().cloned(),
        source,
    };
    Ok((serving, payment))
}

/// Closes the lease. A call that was `served` is recorded before its result leaves, and has a
/// receipt; otherwise the payment is given back, so that the same credential may collect it.
///
/// # Errors
/// The error to answer with instead of the result: the delivery could not be recorded.
pub async fn conclude(
    gate: &Gate,
    serving: Serving,
    served: bool,
) -> Result<Option<Value>, ErrorObject> {
    if !served {
        if let Err(fault) = serving.failed().await {
            // The lease lapses by itself, so this only delays the next try.
            tracing::warn!(route = gate.route(), %fault, "an unserved payment was not given back");
        }
        return Ok(None);
    }
    let receipt = serving.delivered(None).await;
    let receipt = receipt.map_err(|fault| answer::fault(gate.route(), &fault))?;
    match serde_json::to_value(receipt) {
        Ok(receipt) => Ok(Some(receipt)),
        Err(error) => {
            tracing::error!(route = gate.route(), %error, "a receipt cannot be sent");
            Ok(None)
        }
    }
}
