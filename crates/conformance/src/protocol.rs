//! The suite's envelope.

use std::{fmt::Display, time::Duration};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

/// What went wrong, by the suite's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(clippy::enum_variant_names, reason = "the suite's names")]
pub(crate) enum Kind {
    ParseError,
    FormatError,
    EncodingError,
    GenerationError,
    VerificationError,
    HttpError,
    UnsupportedOperation,
    UnknownError,
}

/// An operation that failed.
#[derive(Debug)]
pub(crate) struct Failure {
    kind: Kind,
    message: String,
}

impl Failure {
    pub(crate) fn new(kind: Kind, message: impl Display) -> Self {
        Self {
            kind,
            message: message.to_string(),
        }
    }
}

/// What an operation comes to.
pub(crate) type Answer = Result<Value, Failure>;

/// For `map_err`: a failure of this kind, in the error's own words.
pub(crate) fn failed<E: Display>(kind: Kind) -> impl Fn(E) -> Failure {
    move |error| Failure::new(kind, error)
}

/// The answer as it is written.
pub(crate) fn response(answer: Answer) -> Value {
    match answer {
        Ok(value) => json!({ "ok": true, "value": value }),
        Err(Failure { kind, message }) => {
            json!({ "ok": false, "error": { "type": kind, "message": message } })
        }
    }
}

/// A request to the adapter.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) op: String,
    pub(crate) input: Value,
    pub(crate) timeout: Duration,
}

const TIMEOUT: Duration = Duration::from_secs(30);

impl Request {
    pub(crate) fn read(text: &str) -> Result<Self, Failure> {
        #[derive(Deserialize)]
        struct Envelope {
            schema: u32,
            op: String,
            input: Value,
            #[serde(default)]
            context: Option<Context>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Context {
            timeout_ms: Option<u64>,
        }
        let envelope: Envelope = serde_json::from_str(text)
            .map_err(|error| Failure::new(Kind::UnknownError, format!("not a request: {error}")))?;
        if envelope.schema != 1 {
            let text = format!("there is no schema {}; this is 1", envelope.schema);
            return Err(Failure::new(Kind::UnknownError, text));
        }
        let timeout = envelope.context.and_then(|context| context.timeout_ms);
        Ok(Self {
            op: envelope.op,
            input: envelope.input,
            timeout: timeout.map_or(TIMEOUT, Duration::from_millis),
        })
    }
}

/// An operation's input.
pub(crate) fn read<T: DeserializeOwned>(kind: Kind, input: &Value) -> Result<T, Failure> {
    T::deserialize(input)
        .map_err(|error| Failure::new(kind, format!("the input cannot be read: {error}")))
}
