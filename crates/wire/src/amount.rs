//! Amounts in base units.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::AmountError;

/// An amount in a currency's base units (cents, satoshi, 10⁻⁶ of a stablecoin).
///
/// Written as a decimal string (draft-payment-intent-charge §Required Fields)
/// and read strictly: what a lenient reader would call 16 or 1000 is an error.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Amount(u128);

impl Amount {
    /// No base units.
    pub const ZERO: Self = Self(0);

    /// An amount of base units.
    #[must_use]
    pub const fn new(base_units: u128) -> Self {
        Self(base_units)
    }

    /// The number of base units.
    #[must_use]
    pub const fn get(self) -> u128 {
        self.0
    }

    /// Whether this is nothing.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// The sum, unless it exceeds 128 bits.
    #[must_use]
    pub const fn checked_add(self, other: Self) -> Option<Self> {
        match self.0.checked_add(other.0) {
            Some(sum) => Some(Self(sum)),
            None => None,
        }
    }

    /// The difference, unless it would be negative.
    #[must_use]
    pub const fn checked_sub(self, other: Self) -> Option<Self> {
        match self.0.checked_sub(other.0) {
            Some(difference) => Some(Self(difference)),
            None => None,
        }
    }

    /// Reads base units: ASCII digits, no leading zero except in `0`.
    ///
    /// # Errors
    /// For any other text, and above 128 bits.
    pub fn parse(text: &str) -> Result<Self, AmountError> {
        let leading_zero = text.len() > 1 && text.starts_with('0');
        if leading_zero || !is_digits(text) {
            return Err(AmountError::NotAnInteger);
        }
        text.parse().map(Self).map_err(|_| AmountError::TooLarge)
    }

    /// Reads a human amount of a currency with `decimals` digits after the
    /// point: `0.01` with 6 is 10000 base units.
    ///
    /// # Errors
    /// If the text is not digits with at most one point between digits, has
    /// more digits after it than `decimals`, or exceeds 128 bits.
    pub fn from_decimal(text: &str, decimals: u8) -> Result<Self, AmountError> {
        let (whole, fraction) = match text.split_once('.') {
            Some((whole, fraction)) if is_digits(fraction) => (whole, fraction),
            Some(_) => return Err(AmountError::NotADecimal),
            None => (text, ""),
        };
        let leading_zero = whole.len() > 1 && whole.starts_with('0');
        if leading_zero || !is_digits(whole) {
            return Err(AmountError::NotADecimal);
        }
        let Some(missing) = usize::from(decimals).checked_sub(fraction.len()) else {
            return Err(AmountError::TooPrecise { decimals });
        };
        let digits = whole.bytes().chain(fraction.bytes()).map(|b| b - b'0');
        digits
            .chain(std::iter::repeat_n(0, missing))
            .try_fold(0u128, |sum, digit| {
                sum.checked_mul(10)?.checked_add(u128::from(digit))
            })
            .map(Self)
            .ok_or(AmountError::TooLarge)
    }

    /// The human amount in a currency with `decimals` digits after the point,
    /// without trailing zeros: 10000 with 6 is `0.01`.
    #[must_use]
    pub fn to_decimal(self, decimals: u8) -> String {
        let decimals = usize::from(decimals);
        let digits = format!("{:0>width$}", self.0, width = decimals + 1);
        let (whole, fraction) = digits.split_at(digits.len() - decimals);
        match fraction.trim_end_matches('0') {
            "" => whole.to_owned(),
            fraction => format!("{whole}.{fraction}"),
        }
    }
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Amount {
    type Err = AmountError;

    fn from_str(text: &str) -> Result<Self, AmountError> {
        Self::parse(text)
    }
}

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_units_are_plain_digits() {
        for (text, units) in [
            ("0", 0),
            ("1", 1),
            ("10000", 10_000),
            ("340282366920938463463374607431768211455", u128::MAX),
        ] {
            assert_eq!(Amount::parse(text), Ok(Amount::new(units)));
            assert_eq!(Amount::new(units).to_string(), text);
        }
    }

    #[test]
    fn lenient_spellings_are_refused() {
        for bad in [
            "", " 1", "1 ", "+1", "-1", "00", "01", "0x10", "1_000", "1,000", "1e3", "1.0", ".",
            "٣", "１", "NaN", "inf",
        ] {
            assert_eq!(Amount::parse(bad), Err(AmountError::NotAnInteger), "{bad}");
        }
        let over = "340282366920938463463374607431768211456";
        assert_eq!(Amount::parse(over), Err(AmountError::TooLarge));
    }

    #[test]
    fn human_amounts_scale_exactly() {
        for (text, decimals, units, back) in [
            ("0.01", 6, 10_000, "0.01"),
            ("0", 6, 0, "0"),
            ("0.000001", 6, 1, "0.000001"),
            ("1.50", 2, 150, "1.5"),
            ("21", 0, 21, "21"),
            ("100", 2, 10_000, "100"),
            (
                "340282366920938463463374607431768.211455",
                6,
                u128::MAX,
                "340282366920938463463374607431768.211455",
            ),
        ] {
            let amount = Amount::from_decimal(text, decimals).unwrap();
            assert_eq!(amount.get(), units);
            assert_eq!(amount.to_decimal(decimals), back);
        }
        assert_eq!(Amount::from_decimal("0", 255), Ok(Amount::ZERO));
        assert_eq!(Amount::from_decimal("1", 39), Err(AmountError::TooLarge));
        assert_eq!(Amount::new(1).to_decimal(255).len(), 257);
    }

    #[test]
    fn malformed_human_amounts_are_refused_with_the_rule() {
        for bad in [
            "", ".", "1.", ".5", "+1", "-0.1", "1e3", "0x10", "1.2.3", "1,5", "01", "0.1a",
        ] {
            let error = Amount::from_decimal(bad, 6).unwrap_err();
            assert_eq!(error, AmountError::NotADecimal, "{bad}");
        }
        let error = Amount::from_decimal("0.001", 2).unwrap_err();
        assert_eq!(error, AmountError::TooPrecise { decimals: 2 });
        assert!(error.to_string().contains("at most 2 digits"));
    }

    #[test]
    fn arithmetic_never_wraps() {
        let (one, max) = (Amount::new(1), Amount::new(u128::MAX));
        assert_eq!(max.checked_add(one), None);
        assert_eq!(Amount::ZERO.checked_sub(one), None);
        assert_eq!(
            one.checked_add(one).and_then(|two| two.checked_sub(one)),
            Some(one)
        );
    }

    #[test]
    fn json_is_a_string_and_never_a_number() {
        assert_eq!(serde_json::to_string(&Amount::new(7)).unwrap(), "\"7\"");
        assert_eq!(
            serde_json::from_str::<Amount>("\"7\"").unwrap(),
            Amount::new(7)
        );
        assert!(serde_json::from_str::<Amount>("7").is_err());
        assert!(serde_json::from_str::<Amount>("\"07\"").is_err());
    }
}
