//! Credentials: a client's answer to a challenge.

use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::auth_params::{Content, SCHEME, elements, latin1};
use crate::canonical;
use crate::challenge::ChallengeWire;
use crate::encoded::{Object, decode_base64, encode_base64};
use crate::error::redact;
use crate::{Challenge, CredentialError, FormatError, PayloadError};

/// The longest accepted `Authorization` value in bytes, inclusive; checked
/// before anything is parsed.
pub const MAX_CREDENTIAL_BYTES: usize = 64 * 1024;

/// The proof of payment, a JSON object whose schema belongs to the rail.
///
/// It can hold preimages, tokens and signatures, so `Debug` shows nothing and
/// no error repeats any of it.
#[derive(Clone)]
pub struct Payload(Box<RawValue>);

impl Payload {
    /// A payload from a rail's type, as canonical JSON (RFC 8785).
    ///
    /// # Errors
    /// If the value is not a JSON object.
    pub fn from_value<T: Serialize>(value: &T) -> Result<Self, PayloadError> {
        let json = canonical::to_string(value)
            .map_err(|_| PayloadError("the payload cannot be written as JSON".to_owned()))?;
        let raw = RawValue::from_string(json).map_err(|error| PayloadError(redact(&error)))?;
        Self::from_raw(raw)
    }

    /// The payload as the rail's type.
    ///
    /// # Errors
    /// If it has another form; the text names missing fields, never values.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, PayloadError> {
        serde_json::from_str(self.get()).map_err(|error| PayloadError(redact(&error)))
    }

    /// The JSON text.
    #[must_use]
    pub fn get(&self) -> &str {
        self.0.get()
    }

    fn from_raw(raw: Box<RawValue>) -> Result<Self, PayloadError> {
        if raw.get().starts_with('{') {
            Ok(Self(raw))
        } else {
            Err(PayloadError("the payload is not a JSON object".to_owned()))
        }
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Payload([redacted])")
    }
}

impl Serialize for Payload {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        Self::from_raw(raw).map_err(serde::de::Error::custom)
    }
}

/// A payment credential (draft-httpauth-payment §Credentials). `Debug` shows
/// only which challenge it answers.
#[derive(Clone, Serialize, Deserialize)]
pub struct Credential {
    /// The challenge, echoed as it was received.
    pub challenge: Challenge,
    /// The proof of payment.
    pub payload: Payload,
    /// Who pays, as a DID such as `did:pkh:eip155:…`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

/// The three members before their rules are applied, so that a failure in the
/// challenge can be explained. The payload is not looked into, so it cannot leak.
#[derive(Deserialize)]
struct CredentialWire<'a> {
    #[serde(borrow)]
    challenge: Object<ChallengeWire<'a>>,
    payload: Box<RawValue>,
    source: Option<String>,
}

impl Credential {
    /// The `Authorization` value: `Payment` and one base64url token.
    ///
    /// # Errors
    /// If the challenge breaks its rules or the header would be longer than a
    /// server accepts ([`MAX_CREDENTIAL_BYTES`]).
    pub fn to_header(&self) -> Result<String, FormatError> {
        self.challenge.check()?;
        let json = serde_json::to_vec(self).map_err(|e| FormatError::Json(redact(&e)))?;
        let mut header = String::with_capacity(SCHEME.len() + 1 + json.len().div_ceil(3) * 4);
        header.push_str(SCHEME);
        header.push(' ');
        header.push_str(&encode_base64(&json));
        if header.len() > MAX_CREDENTIAL_BYTES {
            return Err(FormatError::TooLarge {
                limit: MAX_CREDENTIAL_BYTES,
            });
        }
        Ok(header)
    }

    /// Reads a credential header's value. `None` if it holds no `Payment`
    /// credential; other schemes may stand beside one.
    ///
    /// # Errors
    /// If the value is too long, holds several `Payment` credentials, or one
    /// that cannot be read.
    pub fn parse(header_value: &[u8]) -> Result<Option<Self>, CredentialError> {
        if header_value.len() > MAX_CREDENTIAL_BYTES {
            return Err(CredentialError::TooLarge);
        }
        let text = latin1(header_value);
        let mut payments = elements(&text).filter(|e| e.scheme.eq_ignore_ascii_case(SCHEME));
        let Some(payment) = payments.next() else {
            return Ok(None);
        };
        if payments.next().is_some() {
            return Err(CredentialError::Multiple);
        }
        let malformed = |why: &str| CredentialError::Malformed(why.to_owned());
        let token = match payment.content {
            Ok(Content::Token68(token)) => token,
            // A token with one `=` of padding reads as a parameter without value.
            Ok(Content::Params(params)) => match params.as_slice() {
                [(token, value)] if value.is_empty() => token,
                _ => return Err(malformed("the scheme takes one base64url token")),
            },
            Err(_) => return Err(malformed("the scheme takes one base64url token")),
        };
        let json = decode_base64(token).ok_or_else(|| malformed("not base64url"))?;
        Self::from_json(&json).map(Some)
    }

    /// Reads a credential from a JSON transport, with errors that are safe to
    /// show; those of `Deserialize` can quote the payload.
    ///
    /// # Errors
    /// As [`Credential::parse`].
    pub fn from_value(value: &serde_json::Value) -> Result<Self, CredentialError> {
        let json = value.to_string();
        if json.len() > MAX_CREDENTIAL_BYTES {
            return Err(CredentialError::TooLarge);
        }
        Self::from_json(json.as_bytes())
    }

    fn from_json(json: &[u8]) -> Result<Self, CredentialError> {
        let unreadable = |error| CredentialError::Malformed(redact(&error));
        let json = std::str::from_utf8(json)
            .map_err(|_| CredentialError::Malformed("not UTF-8".to_owned()))?;
        if !json.trim_ascii_start().starts_with('{') {
            // serde would also take the members from an array.
            return Err(CredentialError::Malformed("not a JSON object".to_owned()));
        }
        let wire: CredentialWire<'_> = serde_json::from_str(json).map_err(unreadable)?;
        let challenge = wire
            .challenge
            .0
            .into_challenge()
            .map_err(|error| CredentialError::Malformed(format!("challenge: {error}")))?;
        Ok(Self {
            challenge,
            payload: Payload::from_raw(wire.payload)
                .map_err(|error| CredentialError::Malformed(error.0))?,
            source: wire.source,
        })
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential")
            .field("challenge", &self.challenge.id)
            .field("offer", &format_args!("{}", self.challenge.offer()))
            .finish_non_exhaustive()
    }
}
