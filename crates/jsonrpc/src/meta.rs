//! Credentials and receipts in `_meta`.

use farebox_wire::{Credential, Receipt};
use serde_json::{Map, Value};

use crate::{Request, Response};

/// The member of a request's `_meta` that holds a credential.
pub const CREDENTIAL: &str = "org.paymentauth/credential";

/// The member of a response's `_meta` that holds a receipt.
pub const RECEIPT: &str = "org.paymentauth/receipt";

/// The member of a tool result's `_meta` that asks for payment, where a peer's tools cannot answer
/// with an error. Read, never written.
pub const PAYMENT_REQUIRED_RESULT: &str = "org.paymentauth/payment-required";

/// The member of a request's `_meta` that is to JSON-RPC what `Idempotency-Key` is to HTTP. The draft
/// has none, and peers that do not know it pass it over.
pub const IDEMPOTENCY_KEY: &str = "io.github.farebox/idempotency-key";

/// The longest key, in bytes, inclusive.
const MAX_KEY_BYTES: usize = 255;

/// Where `_meta` stands. Servers read both places, and answer in the one that was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// At the message's root: JSON-RPC in general.
    Root,
    /// In `params`, and for responses in `result`: MCP.
    Nested,
}

impl Placement {
    /// Where a client puts the credential for a method.
    #[must_use]
    pub fn of(method: &str) -> Self {
        match method {
            "tools/call" | "resources/read" | "prompts/get" => Self::Nested,
            _ => Self::Root,
        }
    }

    /// Puts a credential into a request. Parameters that are no object leave only the root.
    pub fn put_credential(self, credential: Value, request: &mut Request) {
        self.put(CREDENTIAL, credential, request);
    }

    pub(crate) fn put(self, name: &str, value: Value, request: &mut Request) {
        let nested = match (self, &mut request.params) {
            (Self::Nested, Some(Value::Object(params))) => nested(params),
            _ => None,
        };
        let meta = nested.unwrap_or(&mut request.meta);
        meta.insert(name.to_owned(), value);
    }

    /// Puts a receipt into a successful response. A result that is no object leaves only the root.
    pub fn put_receipt(self, receipt: Value, response: &mut Response) {
        let nested = match (self, &mut response.outcome) {
            (Self::Nested, Ok(Value::Object(result))) => nested(result),
            _ => None,
        };
        let meta = nested.unwrap_or(&mut response.meta);
        meta.insert(RECEIPT.to_owned(), receipt);
    }
}

/// The `_meta` of an object, made if there is none; `None` if it is no object.
fn nested(object: &mut Map<String, Value>) -> Option<&mut Map<String, Value>> {
    let meta = object
        .entry("_meta")
        .or_insert_with(|| Value::Object(Map::new()));
    if meta.is_null() {
        *meta = Value::Object(Map::new());
    }
    meta.as_object_mut()
}

/// What a request presents.
#[derive(Debug)]
#[non_exhaustive]
pub enum Presented {
    /// No credential.
    Nothing,
    /// One, and where it stood.
    One(Box<Credential>, Placement),
    /// One that cannot be read; the text says why and repeats nothing of it.
    Malformed(String),
    /// Two that differ.
    Several,
}

impl Presented {
    /// Takes the credential out of a request, so that nothing downstream can log it.
    pub fn take(request: &mut Request) -> Self {
        match take(CREDENTIAL, request) {
            (None, None) => Self::Nothing,
            (Some(root), Some(nested)) if root != nested => Self::Several,
            (_, Some(nested)) => Self::read(&nested, Placement::Nested),
            (Some(root), None) => Self::read(&root, Placement::Root),
        }
    }

    /// Takes the credential out of an MCP request's `params._meta`.
    pub fn take_nested(meta: &mut Map<String, Value>) -> Self {
        match meta.remove(CREDENTIAL) {
            Some(credential) => Self::read(&credential, Placement::Nested),
            None => Self::Nothing,
        }
    }

    fn read(value: &Value, placement: Placement) -> Self {
        match Credential::from_value(value) {
            Ok(credential) => Self::One(Box::new(credential), placement),
            Err(error) => Self::Malformed(error.to_string()),
        }
    }
}

/// Takes a member of `_meta` out of the root and out of the params.
fn take(name: &str, request: &mut Request) -> (Option<Value>, Option<Value>) {
    let params = request.params.as_mut().and_then(Value::as_object_mut);
    let nested = params.and_then(|params| {
        let meta = params.get_mut("_meta")?.as_object_mut()?;
        meta.remove(name)
    });
    (request.meta.remove(name), nested)
}

/// Takes the [`IDEMPOTENCY_KEY`] out of a request. One that is no string of 1 to 255 bytes counts as
/// none.
pub fn take_key(request: &mut Request) -> Option<String> {
    let (root, nested) = take(IDEMPOTENCY_KEY, request);
    usable(nested.or(root))
}

/// [`take_key`] for an MCP request's `params._meta`.
pub fn take_nested_key(meta: &mut Map<String, Value>) -> Option<String> {
    usable(meta.remove(IDEMPOTENCY_KEY))
}

fn usable(key: Option<Value>) -> Option<String> {
    match key {
        Some(Value::String(key)) if (1..=MAX_KEY_BYTES).contains(&key.len()) => Some(key),
        _ => None,
    }
}

/// The receipt in a response's `_meta`; `None` if there is none, or none that can be read.
///
/// `reference` is optional here and not over HTTP; where it is absent the challenge's id stands in.
#[must_use]
pub fn receipt(meta: &Map<String, Value>) -> Option<Receipt> {
    let mut receipt = meta.get(RECEIPT)?.as_object()?.clone();
    if !receipt.contains_key("reference") {
        let id = receipt.get("challengeId")?.clone();
        receipt.insert("reference".to_owned(), id);
    }
    serde_json::from_value(receipt.into()).ok()
}

/// Takes receipts out of a response: only who was paid may give one.
pub fn strip_receipt(response: &mut Response) {
    response.meta.remove(RECEIPT);
    let result = response.outcome.as_mut().ok();
    let meta = result
        .and_then(|result| result.get_mut("_meta"))
        .and_then(Value::as_object_mut);
    if let Some(meta) = meta {
        meta.remove(RECEIPT);
    }
}
