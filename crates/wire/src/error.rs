//! Error types. None of them carries a received value, so they can be logged and shown.

use std::borrow::Cow;

/// Why received text is not the protocol value it should be.
///
/// The text never repeats the received value: it may be a credential.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseError {
    /// The header does not follow the grammar of RFC 9110 §11.
    #[error("{0}")]
    Syntax(&'static str),
    /// A required parameter is absent.
    #[error("`{0}` is missing")]
    Missing(&'static str),
    /// A parameter occurs twice; names are compared without regard to case.
    #[error("parameter `{0}` occurs more than once")]
    Duplicate(Cow<'static, str>),
    /// A parameter's value is not allowed.
    #[error("`{field}` {reason}")]
    Invalid {
        /// The parameter or member.
        field: &'static str,
        /// What is wrong with it, as the rest of a sentence that starts with the field.
        reason: &'static str,
    },
    /// A value exceeds its limit.
    #[error("`{field}` is longer than {limit} bytes")]
    TooLarge {
        /// The parameter or member.
        field: &'static str,
        /// The largest accepted length in bytes.
        limit: usize,
    },
}

impl ParseError {
    pub(crate) const fn invalid(field: &'static str, reason: &'static str) -> Self {
        Self::Invalid { field, reason }
    }
}

/// Why a value cannot be written: its text would be refused by a parser.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// A field holds what the grammar does not allow.
    #[error("cannot be written: {0}")]
    Invalid(#[from] ParseError),
    /// A field cannot be written as JSON.
    #[error("cannot be written as JSON: {0}")]
    Json(String),
    /// The header would be longer than a peer has to accept.
    #[error("the header would be longer than {limit} bytes")]
    TooLarge {
        /// The largest length in bytes.
        limit: usize,
    },
}

/// Why a value cannot become an [`Encoded`](crate::Encoded).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// The value cannot be written as canonical JSON.
    #[error("cannot be written as canonical JSON: {0}")]
    Json(String),
    /// The value is JSON, but not an object.
    #[error("must be a JSON object")]
    NotAnObject,
    /// The encoded text would be longer than a peer accepts.
    #[error("the encoded text is longer than {limit} bytes")]
    TooLarge {
        /// The largest length in bytes.
        limit: usize,
    },
}

/// Why an `Authorization` value is not one payment credential.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialError {
    /// There is a `Payment` credential, but it cannot be read. The text says
    /// why without repeating any of it.
    #[error("malformed Payment credential: {0}")]
    Malformed(String),
    /// More than one `Payment` credential in one header.
    #[error("more than one Payment credential")]
    Multiple,
    /// The header exceeds [`MAX_CREDENTIAL_BYTES`](crate::MAX_CREDENTIAL_BYTES).
    #[error(
        "the credential header is longer than {} bytes",
        crate::MAX_CREDENTIAL_BYTES
    )]
    TooLarge,
}

/// Why a payload does not have the form a rail expects. Never shows payload data.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PayloadError(pub(crate) String);

/// Why text is not an amount.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AmountError {
    /// Not a whole number of base units.
    #[error(
        "an amount is ASCII digits without sign, separator, exponent or leading zero, like 10000"
    )]
    NotAnInteger,
    /// Not a decimal number.
    #[error(
        "an amount is ASCII digits, optionally with a point and digits after it, like 10 or 0.01"
    )]
    NotADecimal,
    /// More digits after the point than the currency has.
    #[error("an amount in this currency has at most {decimals} digits after the point")]
    TooPrecise {
        /// Digits the currency has after the point.
        decimals: u8,
    },
    /// More than 128 bits of base units.
    #[error("an amount is at most {} base units", u128::MAX)]
    TooLarge,
}

/// Why a set of secrets cannot bind challenges.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SecretError {
    /// No secret at all.
    #[error("at least one challenge secret is needed")]
    Empty,
    /// A secret is too short to resist guessing.
    #[error(
        "challenge secret {index} has {len} bytes; at least {} are needed",
        crate::MIN_SECRET_BYTES
    )]
    TooShort {
        /// Position in the list, from 0.
        index: usize,
        /// Its length in bytes.
        len: usize,
    },
}

/// What a `serde_json` error may say about data that can be secret.
///
/// serde quotes the offending value in most messages; the names of missing and
/// duplicate fields come from our types and are safe.
pub(crate) fn redact(error: &serde_json::Error) -> String {
    let text = error.to_string();
    if text.starts_with("missing field") || text.starts_with("duplicate field") {
        return text;
    }
    let what = match error.classify() {
        serde_json::error::Category::Data => "JSON has a member of the wrong type or value",
        _ => "not valid JSON",
    };
    format!("{what} at line {} column {}", error.line(), error.column())
}
