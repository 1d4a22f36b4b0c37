//! What a handler learns about the payment.

use farebox_core::wire::Receipt;
use farebox_engine::{Meter, Serving};

/// The payment behind a request, for handlers under a [`PaymentLayer`](super::PaymentLayer): an
/// axum extractor, and an extension of the request for everyone else.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Payment {
    /// The receipt that leaves with a 2xx.
    pub receipt: Receipt,
    /// The channel to spend, where the payment is part of a session.
    pub meter: Option<Meter>,
    /// Who the payer says it is, a DID. It is as true as the rail's proof makes it: a rail that
    /// recovers the payer compares the two, others do not look at it.
    pub source: Option<String>,
}

impl Payment {
    pub(crate) fn new(serving: &Serving, source: Option<String>) -> Self {
        Self {
            receipt: serving.receipt().clone(),
            meter: serving.meter().cloned(),
            source,
        }
    }
}

#[cfg(feature = "axum")]
mod axum_extractor {
    use axum::{extract::FromRequestParts, http::request::Parts, response::Response};
    use farebox_core::Fault;

    use super::Payment;
    use crate::server::answer;

    impl<S: Sync> FromRequestParts<S> for Payment {
        /// A route without the layer is a mistake of the server's author: 500.
        type Rejection = Response;

        async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Response> {
            parts.extensions.get::<Self>().cloned().ok_or_else(|| {
                let fault =
                    Fault::new("a handler takes a Payment, but its route has no PaymentLayer");
                answer::fault(parts.uri.path(), &fault).map(Into::into)
            })
        }
    }
}
