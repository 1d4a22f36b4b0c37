//! Shared Payment Tokens, and the parameter that carries them.

use std::fmt;

use farebox_core::{Issue, Secret};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A Shared Payment Token, `spt_…`: whoever holds it and the seller's key can charge it once.
///
/// `Debug` does not show it, and its memory is wiped when it is dropped.
#[derive(Clone)]
pub struct SharedPaymentToken(Secret);

impl SharedPaymentToken {
    /// Takes a token's text. It is not checked here; see [`is_well_formed`](Self::is_well_formed).
    pub fn new(text: impl Into<String>) -> Self {
        Self(Secret::new(text))
    }

    /// Whether it is `spt_` and 1 to 251 letters, digits or underscores.
    pub fn is_well_formed(&self) -> bool {
        let text = self.expose();
        let id = text.strip_prefix("spt_").unwrap_or_default();
        !id.is_empty()
            && text.len() <= 255
            && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    }

    /// The text. Keep it out of logs.
    pub fn expose(&self) -> &str {
        self.0.expose()
    }
}

impl fmt::Debug for SharedPaymentToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedPaymentToken([redacted])")
    }
}

impl Serialize for SharedPaymentToken {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.expose())
    }
}

impl<'de> Deserialize<'de> for SharedPaymentToken {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}

/// Which PaymentIntent parameter carries the token. Stripe has renamed it twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TokenParameter {
    /// `shared_payment_granted_token`, what the deployed SDKs send.
    #[serde(rename = "shared_payment_granted_token")]
    TopLevel,
    /// `payment_method_data[shared_payment_granted_token]`, since 2026-04-22.preview.
    PaymentMethodData,
}

impl TokenParameter {
    /// Its name in configuration.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::TopLevel => "shared_payment_granted_token",
            Self::PaymentMethodData => "payment_method_data",
        }
    }

    /// The form field, percent-encoded.
    pub(crate) fn field(self) -> &'static str {
        match self {
            Self::TopLevel => "shared_payment_granted_token",
            Self::PaymentMethodData => "payment_method_data%5Bshared_payment_granted_token%5D",
        }
    }

    pub(crate) fn parse(text: &str) -> Result<Self, Issue> {
        [Self::TopLevel, Self::PaymentMethodData].into_iter().find(|p| p.key() == text).ok_or_else(|| {
            Issue::new(
                "token_parameter",
                format!("`{text}` is unknown; give shared_payment_granted_token or payment_method_data"),
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes() {
        for good in [
            "spt_1",
            "spt_1Rabc_DEF",
            &format!("spt_{}", "a".repeat(251)),
        ] {
            assert!(SharedPaymentToken::new(good).is_well_formed(), "{good}");
        }
        let long = format!("spt_{}", "a".repeat(252));
        for bad in [
            "",
            "spt_",
            "spt",
            "pm_1",
            "spt_a b",
            "spt_a&b=c",
            "spt_ä",
            "spt_a\n",
            &long,
        ] {
            assert!(!SharedPaymentToken::new(bad).is_well_formed(), "{bad}");
        }
    }

    /// Protects: a token in a struct that is logged stays unread.
    #[test]
    fn debug_hides_it() {
        assert!(!format!("{:?}", SharedPaymentToken::new("spt_123")).contains("123"));
    }
}
