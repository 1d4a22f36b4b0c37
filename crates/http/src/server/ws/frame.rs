//! The frames of a paid WebSocket: JSON in text messages, told apart by `mpp`.

use serde::Serialize;
use serde_json::Value;

/// What a client sends.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame {
    /// A credential, as it would stand in an `Authorization` header.
    Authorization(String),
    /// It wants to know what it has spent, to close its session.
    CloseRequest,
    /// Not the protocol's: for the handler.
    Other(String),
}

/// A frame that says it is the protocol's and cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a payment frame cannot be read")]
pub struct Unreadable;

impl Frame {
    /// Reads a text message.
    ///
    /// # Errors
    /// Where it has a member `mpp` and is no frame that a client sends.
    pub fn parse(text: String) -> Result<Self, Unreadable> {
        let Ok(Value::Object(mut members)) = serde_json::from_str(&text) else {
            return Ok(Self::Other(text));
        };
        let Some(kind) = members.remove("mpp") else {
            return Ok(Self::Other(text));
        };
        match (kind.as_str(), members.remove("authorization")) {
            (Some("authorization"), Some(Value::String(credential))) => {
                Ok(Self::Authorization(credential))
            }
            (Some("payment-close-request"), _) => Ok(Self::CloseRequest),
            _ => Err(Unreadable),
        }
    }
}

/// What the server sends.
#[derive(Serialize)]
#[serde(tag = "mpp", rename_all = "kebab-case")]
pub(crate) enum Sent<'a> {
    /// A piece of the stream.
    Message { data: &'a str },
    /// What a credential was answered with, and the last word of a stream.
    PaymentReceipt { data: Value },
    /// What was spent, for whoever asked to close.
    PaymentCloseReady { data: Value },
    /// Nothing was accepted, and why.
    PaymentError { status: u16, message: &'a str },
}

impl Sent<'_> {
    pub(crate) fn text(&self) -> String {
        // Texts, numbers and values that were JSON before: this does not fail.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// A rail's own event, under its own name.
pub(crate) fn event(name: &str, data: &Value) -> String {
    serde_json::json!({ "mpp": name, "data": data }).to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Protects: the frames as deployed clients send them, and that nothing else is one.
    #[test]
    fn frames_are_read() {
        let other = |text: &str| Ok(Frame::Other(text.to_owned()));
        for (text, expected) in [
            (
                r#"{"mpp":"authorization","authorization":"Payment e30"}"#,
                Ok(Frame::Authorization("Payment e30".to_owned())),
            ),
            (
                r#"{"mpp":"payment-close-request"}"#,
                Ok(Frame::CloseRequest),
            ),
            (r#"{"mpp":"authorization"}"#, Err(Unreadable)),
            (
                r#"{"mpp":"authorization","authorization":7}"#,
                Err(Unreadable),
            ),
            (r#"{"mpp":"message","data":"x"}"#, Err(Unreadable)),
            (r#"{"mpp":7}"#, Err(Unreadable)),
            (r#"{"data":"x"}"#, other(r#"{"data":"x"}"#)),
            ("[1]", other("[1]")),
            ("hello", other("hello")),
            ("", other("")),
        ] {
            assert_eq!(Frame::parse(text.to_owned()), expected, "{text}");
        }
    }

    /// Protects: the frames as deployed clients read them.
    #[test]
    fn frames_are_written() {
        let frames = [
            (
                Sent::Message { data: "a\"\n" }.text(),
                json!({"mpp": "message", "data": "a\"\n"}),
            ),
            (
                Sent::PaymentReceipt {
                    data: json!({"a": 1}),
                }
                .text(),
                json!({"mpp": "payment-receipt", "data": {"a": 1}}),
            ),
            (
                Sent::PaymentCloseReady { data: json!({}) }.text(),
                json!({"mpp": "payment-close-ready", "data": {}}),
            ),
            (
                Sent::PaymentError {
                    status: 402,
                    message: "no",
                }
                .text(),
                json!({"mpp": "payment-error", "status": 402, "message": "no"}),
            ),
            (
                event("payment-need-voucher", &json!({"deposit": "1"})),
                json!({"mpp": "payment-need-voucher", "data": {"deposit": "1"}}),
            ),
        ];
        for (text, expected) in frames {
            assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), expected);
        }
    }
}
