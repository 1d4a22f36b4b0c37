//! The pair `method/intent`.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::ParseError;

/// What is offered, negotiated and dispatched: a rail and what a payment on it
/// means, written `tempo/charge`.
///
/// Ordered by method, then intent.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OfferId {
    /// The rail: a lowercase letter, then lowercase letters, digits, `:`, `_`, `-`.
    pub method: Cow<'static, str>,
    /// What the payment means: letters of either case, digits, `_`, `-`.
    pub intent: Cow<'static, str>,
}

impl OfferId {
    /// An offer kind known at compile time. Not checked; use [`FromStr`] for
    /// text that comes from elsewhere.
    #[must_use]
    pub const fn new(method: &'static str, intent: &'static str) -> Self {
        Self {
            method: Cow::Borrowed(method),
            intent: Cow::Borrowed(intent),
        }
    }

    /// An offer kind from owned parts. Not checked.
    #[must_use]
    pub fn parts(method: impl Into<String>, intent: impl Into<String>) -> Self {
        Self {
            method: Cow::Owned(method.into()),
            intent: Cow::Owned(intent.into()),
        }
    }
}

impl fmt::Display for OfferId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.method, self.intent)
    }
}

impl FromStr for OfferId {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let (method, intent) = text
            .split_once('/')
            .ok_or(ParseError::Syntax("an offer is written method/intent"))?;
        check_method(method)?;
        check_intent(intent)?;
        Ok(Self::parts(method, intent))
    }
}

impl Serialize for OfferId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for OfferId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<'de, str>::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// Method identifiers as deployed: wider than the draft's `1*LOWERALPHA`
/// (§Method Identifier Format), and still free of `|`.
pub(crate) fn check_method(method: &str) -> Result<(), ParseError> {
    let bytes = method.as_bytes();
    let tail = |b: &u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b':' | b'_' | b'-');
    if bytes.first().is_some_and(u8::is_ascii_lowercase) && bytes.iter().all(tail) {
        Ok(())
    } else {
        Err(ParseError::invalid(
            "method",
            "must be a lowercase letter followed by lowercase letters, digits, `:`, `_` or `-`",
        ))
    }
}

/// Intent identifiers (draft-httpauth-payment §Intent Identifiers, plus `_` as
/// deployed). Case is kept: the challenge id binds it.
pub(crate) fn check_intent(intent: &str) -> Result<(), ParseError> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    if !intent.is_empty() && intent.bytes().all(allowed) {
        Ok(())
    } else {
        Err(ParseError::invalid(
            "intent",
            "must be letters, digits, `_` or `-`",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_round_trips() {
        let offer: OfferId = "tempo/charge".parse().unwrap();
        assert_eq!(offer, OfferId::new("tempo", "charge"));
        assert_eq!(offer, OfferId::parts("tempo", "charge"));
        assert_eq!(offer.to_string(), "tempo/charge");
        let json = serde_json::to_string(&offer).unwrap();
        assert_eq!(json, "\"tempo/charge\"");
        assert_eq!(serde_json::from_str::<OfferId>(&json).unwrap(), offer);
    }

    #[test]
    fn identifiers_that_could_confuse_the_binding_are_refused() {
        for bad in [
            "",
            "tempo",
            "/charge",
            "tempo/",
            "Tempo/charge",
            "1tempo/charge",
            "te|mpo/charge",
            "tempo/cha|rge",
            "tempo/charge/x",
            "tempo/ch arge",
            "tempo/chärge",
            "*/charge",
        ] {
            assert!(bad.parse::<OfferId>().is_err(), "{bad}");
        }
        for good in ["a/B", "x402:exact/charge", "card_2-b/Up_To-1"] {
            assert!(good.parse::<OfferId>().is_ok(), "{good}");
        }
    }
}
