//! What was asked, for an answer that is only found out after the handler has run.

use bytes::Bytes;
use farebox_core::wire::{AcceptPayment, BodyDigest};
use farebox_engine::{Gate, Inbound};
use http::{Method, request::Parts};

/// A request as far as payment is concerned, owned.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) target: String,
    pub(crate) body: Option<Bytes>,
    pub(crate) digest: Option<BodyDigest>,
    pub(crate) accept: Option<AcceptPayment>,
    pub(crate) key: Option<String>,
    pub(crate) realm: Option<String>,
    /// It asks for no service; see [`manages`].
    pub(crate) manages: bool,
    /// Who asks, where challenges are counted.
    pub(crate) client: Option<String>,
}

impl Asked {
    /// Of a WebSocket: as its HTTP form is asked.
    #[cfg(feature = "ws")]
    pub(crate) fn socket(parts: &Parts, realm: Option<String>) -> Self {
        Self {
            method: Method::GET,
            target: target(parts),
            body: None,
            digest: None,
            accept: None,
            key: None,
            realm,
            manages: false,
            client: None,
        }
    }

    pub(crate) fn inbound(&self) -> Inbound<'_> {
        Inbound {
            method: self.method.as_str(),
            target: &self.target,
            body: self.body.as_deref(),
            digest: self.digest.as_ref(),
            accept: self.accept.as_ref(),
            idempotency_key: self.key.as_deref(),
            realm: self.realm.as_deref(),
            manages: self.manages,
        }
    }
}

pub(crate) fn target(parts: &Parts) -> String {
    let target = parts.uri.path_and_query();
    target.map_or("/", |target| target.as_str()).to_owned()
}

/// Whether a request asks for no service, but only presents a voucher, a top-up or a close: `HEAD`,
/// and `POST` without a body. Where the route itself is a `POST`, one with a query asks for service,
/// as deployed clients expect.
pub(crate) fn manages(gate: &Gate, parts: &Parts, body: bool) -> bool {
    let asked = body || gate.route().starts_with("POST ") && parts.uri.query().is_some();
    let bare = match parts.method {
        Method::HEAD => true,
        Method::POST => !asked,
        _ => false,
    };
    bare && gate
        .offers()
        .iter()
        .any(|offer| !offer.method().intent().single_use())
}
