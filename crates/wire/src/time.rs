//! Instants with the text they came in.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::ParseError;

// RFC 3339 has four-digit years: 0000-01-01 to 9999-12-31, in Unix milliseconds.
const MIN_MILLIS: i64 = -62_167_219_200_000;
const MAX_MILLIS: i64 = 253_402_300_799_999;

/// An RFC 3339 instant, in Unix milliseconds, that keeps its received text.
///
/// The challenge id covers the text, so two spellings of one instant are not
/// equal. Ordered by instant, then text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    millis: i64,
    text: String,
}

impl Timestamp {
    /// The instant as `2026-01-01T00:05:00.000Z`; years are kept within 0000 to 9999.
    #[must_use]
    pub fn from_unix_millis(millis: i64) -> Self {
        let millis = millis.clamp(MIN_MILLIS, MAX_MILLIS);
        let at = OffsetDateTime::from_unix_timestamp(millis.div_euclid(1000))
            .unwrap_or(OffsetDateTime::UNIX_EPOCH);
        let fields = [
            (0..4, i64::from(at.year())),
            (5..7, i64::from(u8::from(at.month()))),
            (8..10, i64::from(at.day())),
            (11..13, i64::from(at.hour())),
            (14..16, i64::from(at.minute())),
            (17..19, i64::from(at.second())),
            (20..23, millis.rem_euclid(1000)),
        ];
        // By hand: every challenge has one, and `format!` showed in the profile.
        let mut text = *b"0000-00-00T00:00:00.000Z";
        for (place, mut number) in fields {
            for digit in text[place].iter_mut().rev() {
                *digit += (number % 10) as u8;
                number /= 10;
            }
        }
        let text = String::from_utf8(text.to_vec()).unwrap_or_default();
        Self { millis, text }
    }

    /// The system clock's time.
    #[must_use]
    pub fn now() -> Self {
        let millis = match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_millis()).unwrap_or(i64::MAX),
            Err(before) => {
                i64::try_from(before.duration().as_millis()).map_or(i64::MIN, std::ops::Neg::neg)
            }
        };
        Self::from_unix_millis(millis)
    }

    /// Reads an RFC 3339 `date-time`: `T` between date and time, an offset or
    /// `Z`. Digits below the millisecond are kept in the text only.
    ///
    /// # Errors
    /// If the text is not such a date-time.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        Self::parse_as("expires", text)
    }

    pub(crate) fn parse_as(field: &'static str, text: &str) -> Result<Self, ParseError> {
        let error = ParseError::invalid(field, "is not an RFC 3339 date-time");
        // The `time` crate takes any byte between date and time.
        if !matches!(text.as_bytes().get(10), Some(b'T' | b't')) {
            return Err(error);
        }
        let at = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| error.clone())?;
        let millis = at.unix_timestamp_nanos().div_euclid(1_000_000);
        Ok(Self {
            millis: i64::try_from(millis).map_err(|_| error)?,
            text: text.to_owned(),
        })
    }

    /// Milliseconds since 1970-01-01T00:00:00Z.
    #[must_use]
    pub const fn unix_millis(&self) -> i64 {
        self.millis
    }

    /// The text as received or formatted.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// This instant and a while, at most the end of the year 9999.
    #[must_use]
    pub fn plus(&self, duration: Duration) -> Self {
        let millis = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Self::from_unix_millis(self.millis.saturating_add(millis))
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Timestamp({})", self.text)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse_as("timestamp", &text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_milliseconds_in_utc() {
        let at = Timestamp::from_unix_millis(1_767_225_900_000);
        assert_eq!(at.as_str(), "2026-01-01T00:05:00.000Z");
        assert_eq!(
            at.plus(Duration::from_millis(1)).as_str(),
            "2026-01-01T00:05:00.001Z"
        );
        assert_eq!(
            Timestamp::from_unix_millis(-1).as_str(),
            "1969-12-31T23:59:59.999Z"
        );
        assert_eq!(Timestamp::parse(at.as_str()).unwrap(), at);
    }

    #[test]
    fn extremes_neither_panic_nor_leave_the_grammar() {
        for millis in [i64::MIN, i64::MAX, MIN_MILLIS, MAX_MILLIS] {
            let at = Timestamp::from_unix_millis(millis);
            assert_eq!(Timestamp::parse(at.as_str()).unwrap(), at);
        }
        let end = Timestamp::from_unix_millis(MAX_MILLIS);
        assert_eq!(end.plus(Duration::MAX), end);
    }

    #[test]
    fn received_text_is_kept() {
        for (text, millis) in [
            ("2026-01-29T12:00:00Z", 1_769_688_000_000),
            ("2026-01-29T13:00:00+01:00", 1_769_688_000_000),
            ("2026-01-29t12:00:00.1239z", 1_769_688_000_123),
            ("2026-01-29T12:00:00.5-00:00", 1_769_688_000_500),
        ] {
            let at = Timestamp::parse(text).unwrap();
            assert_eq!((at.as_str(), at.unix_millis()), (text, millis));
            assert_eq!(serde_json::to_string(&at).unwrap(), format!("\"{text}\""));
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for bad in [
            "",
            "now",
            "2026-01-29",
            "2026-01-29T12:00:00",
            "2026-01-29 12:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-02-30T00:00:00Z",
            "2026-01-29T24:00:00Z",
            "2026-01-29T12:00Z",
            "2026-01-29T12:00:00.Z",
            "2026-1-29T12:00:00Z",
            "+2026-01-29T12:00:00Z",
            "2026-01-29T12:00:00Z ",
            " 2026-01-29T12:00:00Z",
            "2026-01-29T12:00:00+0100",
            "1769688000",
            "Jan 29 2026 12:00",
            "2026-01-29|12:00:00Z",
        ] {
            assert!(Timestamp::parse(bad).is_err(), "{bad}");
        }
    }
}
