//! JSON-RPC 2.0 messages.

use serde::{Deserialize, Deserializer, Serialize, Serializer, ser::SerializeMap as _};
use serde_json::{Map, Number, Value};

use crate::{INVALID_REQUEST, PARSE_ERROR};

/// The longest message that is parsed, in bytes, inclusive, unless a server sets another limit.
pub const MAX_MESSAGE_BYTES: usize = 2 * 1024 * 1024;

/// What a response is matched by.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Id {
    /// A number, in the words it came in.
    Number(Number),
    /// A string.
    String(String),
    /// `null`. In a response: the request's could not be read.
    Null,
}

impl From<u64> for Id {
    fn from(id: u64) -> Self {
        Self::Number(id.into())
    }
}

/// One message. A batch is none: neither the draft nor MCP has them.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Message {
    /// A request or a notification.
    Request(Request),
    /// An answer.
    Response(Response),
}

/// A request, or a notification where it has no `id`. `Debug` leaves `_meta` and `params` out:
/// they can hold a credential.
#[derive(Clone, PartialEq)]
pub struct Request {
    /// `None` makes it a notification, which has no answer and cannot be paid for.
    pub id: Option<Id>,
    /// What to do.
    pub method: String,
    /// With what: an object or an array.
    pub params: Option<Value>,
    /// `_meta` at the message's root.
    pub meta: Map<String, Value>,
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq)]
pub struct Response {
    /// The request's.
    pub id: Id,
    /// `result` or `error`.
    pub outcome: Result<Value, ErrorObject>,
    /// `_meta` at the message's root.
    pub meta: Map<String, Value>,
}

/// Why there is no result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[error("{message} ({code})")]
pub struct ErrorObject {
    /// What kind of failure.
    pub code: i64,
    /// One sentence.
    #[serde(default)]
    pub message: String,
    /// More, if there is any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Value>,
}

impl ErrorObject {
    /// An error without data.
    pub fn new(code: i64, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            data: None,
        }
    }

    /// With data.
    #[must_use]
    pub fn with(mut self, data: impl Into<Value>) -> Self {
        self.data = Some(data.into());
        self
    }
}

/// A member that may be absent, be `null` or have a value: for `id` and `result` these differ.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

#[derive(Deserialize)]
struct Wire {
    jsonrpc: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    id: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    method: Option<Value>,
    params: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    result: Option<Value>,
    error: Option<Value>,
    #[serde(rename = "_meta")]
    meta: Option<Value>,
}

impl Message {
    /// Reads a message of at most [`MAX_MESSAGE_BYTES`].
    ///
    /// # Errors
    /// The response to send instead: `-32700` for what is not JSON, `-32600` for what is no single
    /// message or is too long, which is found out before anything is parsed.
    pub fn parse(text: &[u8]) -> Result<Self, Response> {
        Self::parse_at_most(MAX_MESSAGE_BYTES, text)
    }

    /// [`parse`](Self::parse) with another limit in bytes, inclusive.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    pub fn parse_at_most(limit: usize, text: &[u8]) -> Result<Self, Response> {
        if text.len() > limit {
            let why = format!("the message is longer than {limit} bytes");
            return Err(refuse(Id::Null, INVALID_REQUEST, why));
        }
        let value = crate::json::parse(text)
            .map_err(|_| refuse(Id::Null, PARSE_ERROR, "not JSON".to_owned()))?;
        Self::from_value(value)
    }

    /// Reads a message that was parsed already.
    ///
    /// # Errors
    /// As [`parse`](Self::parse), `-32600` only.
    pub fn from_value(value: Value) -> Result<Self, Response> {
        let invalid = |id: &Id, why: &str| refuse(id.clone(), INVALID_REQUEST, why.to_owned());
        match value {
            Value::Object(_) => {}
            Value::Array(_) => return Err(invalid(&Id::Null, "batches are not accepted")),
            _ => return Err(invalid(&Id::Null, "a message is an object")),
        }
        // Every member is a `Value` here, so only its form can be wrong, which is said below.
        let wire: Wire = serde_json::from_value(value)
            .map_err(|_| invalid(&Id::Null, "a message is an object"))?;
        let id: Option<Id> = wire
            .id
            .map(serde_json::from_value)
            .transpose()
            .map_err(|_| invalid(&Id::Null, "`id` is a number, a string or null"))?;
        let known = id.clone().unwrap_or(Id::Null);
        if wire.jsonrpc.as_ref().and_then(Value::as_str) != Some("2.0") {
            return Err(invalid(&known, "`jsonrpc` is \"2.0\""));
        }
        let meta = match wire.meta {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(meta)) => meta,
            Some(_) => return Err(invalid(&known, "`_meta` is an object")),
        };
        match (wire.method, wire.result, wire.error) {
            (Some(Value::String(method)), None, None) => {
                if !matches!(
                    wire.params,
                    None | Some(Value::Object(_) | Value::Array(_) | Value::Null)
                ) {
                    return Err(invalid(&known, "`params` is an object or an array"));
                }
                let params = wire.params.filter(|params| !params.is_null());
                Ok(Self::Request(Request {
                    id,
                    method,
                    params,
                    meta,
                }))
            }
            (None, Some(result), None) => Ok(Self::Response(Response {
                id: known,
                outcome: Ok(result),
                meta,
            })),
            (None, None, Some(error)) => match serde_json::from_value(error) {
                Ok(error) => Ok(Self::Response(Response {
                    id: known,
                    outcome: Err(error),
                    meta,
                })),
                Err(_) => Err(invalid(&known, "`error` has a code")),
            },
            _ => Err(invalid(
                &known,
                "a message has one of `method`, `result` and `error`",
            )),
        }
    }
}

fn refuse(id: Id, code: i64, why: String) -> Response {
    Response {
        id,
        outcome: Err(ErrorObject::new(code, why)),
        meta: Map::new(),
    }
}

impl Request {
    /// A request.
    pub fn new(id: impl Into<Id>, method: impl Into<String>, params: Option<Value>) -> Self {
        Self {
            id: Some(id.into()),
            method: method.into(),
            params,
            meta: Map::new(),
        }
    }
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request")
            .field("id", &self.id)
            .field("method", &self.method)
            .finish_non_exhaustive()
    }
}

impl Serialize for Request {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("jsonrpc", "2.0")?;
        if let Some(id) = &self.id {
            map.serialize_entry("id", id)?;
        }
        map.serialize_entry("method", &self.method)?;
        if let Some(params) = &self.params {
            map.serialize_entry("params", params)?;
        }
        if !self.meta.is_empty() {
            map.serialize_entry("_meta", &self.meta)?;
        }
        map.end()
    }
}

impl Serialize for Response {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("jsonrpc", "2.0")?;
        map.serialize_entry("id", &self.id)?;
        match &self.outcome {
            Ok(result) => map.serialize_entry("result", result)?,
            Err(error) => map.serialize_entry("error", error)?,
        }
        if !self.meta.is_empty() {
            map.serialize_entry("_meta", &self.meta)?;
        }
        map.end()
    }
}
