//! Which operations have a price.

use std::{collections::HashMap, sync::Arc};

use farebox_core::wire::{AcceptPayment, OfferId};
use farebox_engine::Gate;
use serde_json::{Map, Value};

use super::admit::{Admitted, Payment, admit, conclude};
use crate::{
    ErrorObject, Id, Message, Operation, Placement, Presented, Request, Response,
    operation::is_delivery, strip_receipt, take_key,
};

/// Why gates make no tariff.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TariffError {
    /// Two prices for one operation.
    #[error("{0:?} has two gates; one gate with several offers gives a choice")]
    Twice(String),
    /// A route such as `GET /joke`, which no operation has.
    #[error(
        "{0:?} is no operation; name a method, `tools/call NAME`, `resources/read URI` or \
         `prompts/get NAME`"
    )]
    NoOperation(String),
}

/// Gates by the operation they stand before. Clones are handles to the same gates.
#[derive(Clone, Debug, Default)]
pub struct Tariff {
    gates: HashMap<String, Arc<Gate>>,
}

impl Tariff {
    /// A tariff of gates, each for the operation that its route names.
    ///
    /// # Errors
    /// If two are for one operation, or one is for none.
    pub fn new<G: Into<Arc<Gate>>>(
        gates: impl IntoIterator<Item = G>,
    ) -> Result<Self, TariffError> {
        let mut tariff = Self::default();
        for gate in gates {
            let gate = gate.into();
            let route = gate.route().to_owned();
            let named = ["tools/call ", "resources/read ", "prompts/get "];
            let operation = match named.iter().find_map(|method| route.strip_prefix(method)) {
                Some(name) => !name.is_empty(),
                None => !route.is_empty() && !route.contains(' '),
            };
            if !operation {
                return Err(TariffError::NoOperation(route));
            }
            if tariff.gates.insert(route.clone(), gate).is_some() {
                return Err(TariffError::Twice(route));
            }
        }
        Ok(tariff)
    }

    /// The gate before an operation: its own, or else its method's.
    #[must_use]
    pub fn gate(&self, operation: &Operation) -> Option<&Arc<Gate>> {
        let own = self.gates.get(operation.scope());
        own.or_else(|| self.gates.get(operation.method()))
    }

    /// What can be paid with here, for [`capability`](crate::capability). In MCP it goes into
    /// `capabilities.experimental.payment` of the `initialize` result; over a WebSocket it may be
    /// the parameters of a `payment.capabilities` notification.
    #[must_use]
    pub fn capability(&self) -> Map<String, Value> {
        let mut offers: Vec<OfferId> = self
            .gates
            .values()
            .flat_map(|gate| gate.offers().iter().map(farebox_core::Offer::id))
            .collect();
        offers.sort();
        crate::capability(offers)
    }

    /// Answers one message, of at most [`MAX_MESSAGE_BYTES`](crate::MAX_MESSAGE_BYTES). `None`:
    /// there is nothing to answer, to a notification or a response. `handler` runs for what is free
    /// or paid for, and for free notifications.
    pub async fn serve<H>(
        &self,
        message: &[u8],
        accept: Option<&AcceptPayment>,
        handler: H,
    ) -> Option<String>
    where
        H: AsyncFnOnce(Request, Option<Payment>) -> Result<Value, ErrorObject>,
    {
        let response = match Message::parse(message) {
            Ok(Message::Request(request)) => self.answer(request, accept, handler).await?,
            Ok(Message::Response(_)) => return None,
            Err(refusal) => refusal,
        };
        // JSON values only, so this does not fail.
        serde_json::to_string(&response).ok()
    }

    /// [`serve`](Self::serve) for a request that was parsed already.
    pub async fn answer<H>(
        &self,
        mut request: Request,
        accept: Option<&AcceptPayment>,
        handler: H,
    ) -> Option<Response>
    where
        H: AsyncFnOnce(Request, Option<Payment>) -> Result<Value, ErrorObject>,
    {
        let operation = Operation::new(&request.method, request.params.as_ref());
        let id = request.id.clone();
        let Some(gate) = self.gate(&operation) else {
            let outcome = handler(request, None).await;
            return id.map(|id| respond(id, outcome));
        };
        let Some(id) = id else {
            tracing::debug!(
                route = gate.route(),
                "a paid operation came as a notification"
            );
            return None;
        };
        let (presented, key) = (Presented::take(&mut request), take_key(&mut request));
        let placement = match &presented {
            Presented::One(_, placement) => *placement,
            _ => Placement::of(&request.method),
        };
        let admitted = admit(gate, &operation, presented, key.as_deref(), accept).await;
        let (serving, payment) = match admitted {
            Ok(Admitted::Serve(serving, payment)) => (serving, payment),
            Ok(Admitted::Replay { result, receipt }) => {
                let mut response = respond(id, Ok(result));
                placement.put_receipt(receipt, &mut response);
                return Some(response);
            }
            Err(error) => return Some(respond(id, Err(error))),
        };
        let mut response = respond(id.clone(), handler(request, Some(payment)).await);
        // An upstream's receipt is not ours to pass on.
        strip_receipt(&mut response);
        let result = response.outcome.as_ref().ok();
        let kept = result.filter(|_| serving.keyed());
        let kept = kept.and_then(|result| serde_json::to_vec(result).ok());
        let served = result.is_some_and(is_delivery);
        match conclude(gate, serving, served, kept).await {
            Ok(Some(receipt)) => placement.put_receipt(receipt, &mut response),
            Ok(None) => {}
            Err(error) => response = respond(id, Err(error)),
        }
        Some(response)
    }
}

fn respond(id: Id, outcome: Result<Value, ErrorObject>) -> Response {
    Response {
        id,
        outcome,
        meta: Map::new(),
    }
}
