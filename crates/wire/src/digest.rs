//! Request body digests.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

use crate::ParseError;
use crate::encoded::decode_base64;

const PREFIX: &str = "sha-256=";

/// The SHA-256 of a request body, `sha-256=:<base64>:` (RFC 9530 §2).
///
/// Deployed peers leave the colons out, so both spellings are read and are
/// equal; the received one is kept, since the challenge id covers it.
#[derive(Clone)]
pub struct BodyDigest(String);

impl BodyDigest {
    /// The digest of a body.
    #[must_use]
    pub fn of(body: &[u8]) -> Self {
        Self(format!(
            "{PREFIX}:{}:",
            STANDARD.encode(Sha256::digest(body))
        ))
    }

    /// Reads a digest with or without the colons.
    ///
    /// # Errors
    /// If it is not `sha-256=` and base64.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let valid = encoded(text).is_some_and(|inner| {
            !inner.is_empty() && inner.len() <= 128 && decode_base64(inner).is_some()
        });
        if valid {
            Ok(Self(text.to_owned()))
        } else {
            Err(ParseError::invalid(
                "digest",
                "must be `sha-256=:` base64 `:`",
            ))
        }
    }

    /// Whether this is the digest of `body`.
    #[must_use]
    pub fn matches(&self, body: &[u8]) -> bool {
        self.hash() == Sha256::digest(body).as_slice()
    }

    /// The text as received or computed.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn hash(&self) -> Vec<u8> {
        encoded(&self.0).and_then(decode_base64).unwrap_or_default()
    }
}

fn encoded(text: &str) -> Option<&str> {
    let value = text.strip_prefix(PREFIX)?;
    match value.strip_prefix(':') {
        Some(inner) => inner.strip_suffix(':'),
        None => Some(value),
    }
}

impl PartialEq for BodyDigest {
    fn eq(&self, other: &Self) -> bool {
        self.hash() == other.hash()
    }
}

impl Eq for BodyDigest {}

impl fmt::Debug for BodyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BodyDigest({})", self.0)
    }
}

impl Serialize for BodyDigest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for BodyDigest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // A published example: the body `{"q":1}`, without colons.
    const BARE: &str = "sha-256=auD2YARtrc9f6EYsDgCgYttMjWe+gvQJjF6kII0ZsHY=";
    const COLONS: &str = "sha-256=:auD2YARtrc9f6EYsDgCgYttMjWe+gvQJjF6kII0ZsHY=:";

    #[test]
    fn both_spellings_are_one_digest() {
        let (bare, colons) = (
            BodyDigest::parse(BARE).unwrap(),
            BodyDigest::parse(COLONS).unwrap(),
        );
        assert_eq!(bare, colons);
        assert_eq!((bare.as_str(), colons.as_str()), (BARE, COLONS));
        assert_eq!(BodyDigest::of(br#"{"q":1}"#).as_str(), COLONS);
        assert!(bare.matches(br#"{"q":1}"#) && colons.matches(br#"{"q":1}"#));
        assert!(!bare.matches(br#"{"q":2}"#) && !bare.matches(b""));
    }

    #[test]
    fn a_digest_of_another_length_matches_nothing() {
        let short = BodyDigest::parse("sha-256=:AAAA:").unwrap();
        assert!(!short.matches(b""));
        assert_ne!(short, BodyDigest::of(b""));
    }

    #[test]
    fn other_forms_are_refused() {
        for bad in [
            "",
            "sha-256",
            "sha-256=",
            "sha-256=::",
            "sha-256=:AAAA",
            "sha-256=AAAA:",
            "sha-512=:AAAA:",
            "SHA-256=:AAAA:",
            "sha-256=:AA|A:",
            "sha-256=:AA AA:",
            "sha-256=:AAAA:, sha-512=:AAAA:",
        ] {
            assert!(BodyDigest::parse(bad).is_err(), "{bad}");
        }
    }
}
