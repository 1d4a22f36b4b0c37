//! Ways of calling.

use std::{error::Error, future::Future};

use serde_json::{Map, Value};

use crate::{ErrorObject, Placement, Request, Response, operation::is_delivery};

/// A call that can be made more than once, each time with another credential or none.
pub trait Call: Send {
    /// What comes back on success.
    type Result: Send;
    /// How the transport fails.
    type Error: Error + Send + Sync + 'static;

    /// Makes the call. These members go into its `_meta`, and not into any log: a credential under
    /// [`CREDENTIAL`](crate::CREDENTIAL), and what goes with it.
    ///
    /// # Errors
    /// There was no answer. An error that the server sent is a [`Reply`].
    fn send(
        &mut self,
        meta: &Map<String, Value>,
    ) -> impl Future<Output = Result<Reply<Self::Result>, Self::Error>> + Send;

    /// Whether the connection is gone for good, so that calling again cannot help.
    fn is_gone(&self) -> bool {
        false
    }
}

/// What a server answered.
#[derive(Debug)]
#[non_exhaustive]
pub struct Reply<T> {
    /// The result or the error.
    pub outcome: Result<T, ErrorObject>,
    /// The `_meta` of the result and of the message.
    pub meta: Map<String, Value>,
    /// A result that delivers: not a tool's that says `isError`, nor one that asks for more input.
    pub delivers: bool,
}

impl<T> Reply<T> {
    /// An answer.
    pub fn new(outcome: Result<T, ErrorObject>, meta: Map<String, Value>, delivers: bool) -> Self {
        Self {
            outcome,
            meta,
            delivers,
        }
    }
}

/// A JSON-RPC request and a function that sends one and waits for its response. A second attempt
/// has the same `id`; give it another in the function if the transport asks for that.
#[derive(Debug)]
pub struct Exchange<F> {
    request: Request,
    placement: Placement,
    send: F,
}

impl<F> Exchange<F> {
    /// The credential goes into `params._meta` for MCP's operations and to the root for others.
    pub fn new(request: Request, send: F) -> Self {
        let placement = Placement::of(&request.method);
        Self {
            request,
            placement,
            send,
        }
    }

    /// Puts the credential elsewhere.
    #[must_use]
    pub fn placing(mut self, placement: Placement) -> Self {
        self.placement = placement;
        self
    }
}

impl<F, Fut, E> Call for Exchange<F>
where
    F: FnMut(Request) -> Fut + Send,
    Fut: Future<Output = Result<Response, E>> + Send,
    E: Error + Send + Sync + 'static,
{
    type Result = Value;
    type Error = E;

    async fn send(&mut self, meta: &Map<String, Value>) -> Result<Reply<Value>, E> {
        let mut request = self.request.clone();
        for (name, value) in meta {
            self.placement.put(name, value.clone(), &mut request);
        }
        let response = (self.send)(request).await?;
        let mut meta = response.meta;
        let mut delivers = false;
        if let Ok(result) = &response.outcome {
            let nested = result.get("_meta").and_then(Value::as_object);
            meta.extend(nested.cloned().unwrap_or_default());
            delivers = is_delivery(result);
        }
        Ok(Reply::new(response.outcome, meta, delivers))
    }
}
