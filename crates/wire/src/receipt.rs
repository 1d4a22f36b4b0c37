//! Receipts: what a paid response carries.

use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::canonical;
use crate::encoded::{decode_base64, encode_base64};
use crate::offer::check_method;
use crate::{FormatError, ParseError, Timestamp};

/// The longest accepted `Payment-Receipt` value in bytes, inclusive.
const MAX_RECEIPT_BYTES: usize = 64 * 1024;

/// The members of a receipt that the protocol itself defines.
const OWN: [&str; 4] = ["status", "method", "timestamp", "reference"];

/// The only outcome a receipt can state (draft-httpauth-payment §Receipt
/// Status Semantics): failures have no receipt.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Success {
    /// Paid.
    #[default]
    Success,
}

/// A payment receipt (draft-httpauth-payment §Payment-Receipt Header).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// Always success.
    pub status: Success,
    /// The rail that was used.
    pub method: String,
    /// When the payment was accepted.
    pub timestamp: Timestamp,
    /// The rail's name for the payment, such as a transaction hash.
    pub reference: String,
    /// Members a rail or the server adds (`challengeId`, `externalId`, …). They
    /// survive a round trip; the protocol's own names are ignored here.
    pub extra: Map<String, Value>,
}

impl Receipt {
    /// A receipt without extra members.
    #[must_use]
    pub fn new(
        method: impl Into<String>,
        reference: impl Into<String>,
        timestamp: Timestamp,
    ) -> Self {
        Self {
            status: Success::Success,
            method: method.into(),
            timestamp,
            reference: reference.into(),
            extra: Map::new(),
        }
    }

    /// Adds an extra member.
    #[must_use]
    pub fn with(mut self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        self.extra.insert(key.into(), value.into());
        self
    }

    /// The `Payment-Receipt` value: base64url of canonical JSON.
    ///
    /// # Errors
    /// If a parser would refuse it.
    pub fn to_header(&self) -> Result<String, FormatError> {
        self.check()?;
        let json =
            canonical::to_string(self).map_err(|error| FormatError::Json(error.to_string()))?;
        let header = encode_base64(json.as_bytes());
        if header.len() > MAX_RECEIPT_BYTES {
            return Err(FormatError::TooLarge {
                limit: MAX_RECEIPT_BYTES,
            });
        }
        Ok(header)
    }

    /// Reads a `Payment-Receipt` value.
    ///
    /// # Errors
    /// If it is too long, not base64url of a JSON object, lacks a member, or
    /// states anything but success.
    pub fn parse(header_value: &str) -> Result<Self, ParseError> {
        let text = header_value.trim_ascii();
        if text.len() > MAX_RECEIPT_BYTES {
            return Err(ParseError::TooLarge {
                field: "receipt",
                limit: MAX_RECEIPT_BYTES,
            });
        }
        let invalid = |reason| ParseError::invalid("receipt", reason);
        let json = decode_base64(text).ok_or(invalid("is not base64url"))?;
        let members: Map<String, Value> =
            serde_json::from_slice(&json).map_err(|_| invalid("is not a JSON object"))?;
        Self::from_members(members)
    }

    fn from_members(mut members: Map<String, Value>) -> Result<Self, ParseError> {
        let mut text = |name| match members.remove(name) {
            Some(Value::String(text)) => Ok(text),
            Some(_) => Err(ParseError::invalid(name, "is not a string")),
            None => Err(ParseError::Missing(name)),
        };
        if text("status")? != "success" {
            return Err(ParseError::invalid("status", "is not `success`"));
        }
        let receipt = Self {
            status: Success::Success,
            method: text("method")?,
            timestamp: Timestamp::parse_as("timestamp", &text("timestamp")?)?,
            reference: text("reference")?,
            extra: members,
        };
        receipt.check()?;
        Ok(receipt)
    }

    fn check(&self) -> Result<(), ParseError> {
        check_method(&self.method)?;
        if self.reference.is_empty() {
            return Err(ParseError::invalid("reference", "must not be empty"));
        }
        Ok(())
    }
}

impl Serialize for Receipt {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.check().map_err(S::Error::custom)?;
        let extra = self
            .extra
            .iter()
            .map(|(key, value)| (key.as_str(), Member::Extra(value)));
        let own = [
            ("status", "success"),
            ("method", &self.method),
            ("timestamp", self.timestamp.as_str()),
            ("reference", &self.reference),
        ];
        let mut members: Vec<_> = extra.filter(|(key, _)| !OWN.contains(key)).collect();
        members.extend(own.map(|(key, value)| (key, Member::Own(value))));
        members.sort_unstable_by_key(|(key, _)| *key);
        serializer.collect_map(members)
    }
}

#[derive(Serialize)]
#[serde(untagged)]
enum Member<'a> {
    Own(&'a str),
    Extra(&'a Value),
}

impl<'de> Deserialize<'de> for Receipt {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let members = Map::deserialize(deserializer)?;
        Self::from_members(members).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extra_members_cannot_replace_the_protocols_own() {
        let at = Timestamp::from_unix_millis(0);
        let receipt = Receipt::new("tempo", "0xab", at)
            .with("status", "failed")
            .with("reference", "0xcd")
            .with("externalId", "order-1");
        let read = Receipt::parse(&receipt.to_header().unwrap()).unwrap();
        assert_eq!(
            (read.status, read.reference.as_str()),
            (Success::Success, "0xab")
        );
        assert_eq!(read.extra["externalId"], "order-1");
        assert_eq!(read.extra.len(), 1);
    }

    #[test]
    fn what_a_client_would_refuse_is_not_written() {
        let at = Timestamp::from_unix_millis(0);
        assert!(Receipt::new("tempo", "", at.clone()).to_header().is_err());
        assert!(Receipt::new("Tempo", "0xab", at).to_header().is_err());
    }
}
