//! `Accept-Payment`: which offers a client would rather pay.

use std::fmt;

use crate::auth_params::latin1;
use crate::offer::{check_intent, check_method};
use crate::{OfferId, ParseError};

/// A client's preferences: ranges `method/intent`, each part possibly `*`, with
/// a weight (draft-httpauth-payment §Client Payment Preferences; weights as in
/// RFC 9110 §12.4.2).
///
/// An absent header means that everything is welcome; that case has no value here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcceptPayment {
    ranges: Vec<Range>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Range {
    /// `None` is `*`.
    method: Option<String>,
    intent: Option<String>,
    /// Thousandths, 0 to 1000.
    quality: u16,
}

const RULE: ParseError =
    ParseError::Syntax("Accept-Payment is a list of method/intent with optional ;q=0.5");

impl AcceptPayment {
    /// Reads a header value. A malformed one is an error as a whole; servers
    /// then act as if it were absent.
    ///
    /// # Errors
    /// If a range or weight does not follow the grammar, or there is no range.
    pub fn parse(value: &str) -> Result<Self, ParseError> {
        let elements = value.split(',').map(trim).filter(|e| !e.is_empty());
        let ranges = elements.map(Range::parse).collect::<Result<Vec<_>, _>>()?;
        if ranges.is_empty() {
            return Err(RULE);
        }
        Ok(Self { ranges })
    }

    /// [`AcceptPayment::parse`] for raw header octets.
    ///
    /// # Errors
    /// As [`AcceptPayment::parse`].
    pub fn parse_bytes(value: &[u8]) -> Result<Self, ParseError> {
        Self::parse(&latin1(value))
    }

    /// Preferences from ranges such as `tempo/*` and weights in thousandths.
    ///
    /// # Errors
    /// If a range does not follow the grammar, a weight exceeds 1000, or there is no range.
    pub fn from_ranges<'a>(
        ranges: impl IntoIterator<Item = (&'a str, u16)>,
    ) -> Result<Self, ParseError> {
        let ranges = ranges
            .into_iter()
            .map(|(range, quality)| match quality {
                0..=1000 => Range::new(range, quality),
                _ => Err(RULE),
            })
            .collect::<Result<Vec<_>, _>>()?;
        if ranges.is_empty() {
            return Err(RULE);
        }
        Ok(Self { ranges })
    }

    /// The weight of an offer in thousandths, by the most specific range that
    /// covers it; among equally specific ones the first. 0 means not wanted,
    /// which includes offers that no range covers.
    #[must_use]
    pub fn quality(&self, offer: &OfferId) -> u16 {
        let mut best = (0, 0);
        for range in &self.ranges {
            if let Some(specificity) = range.covers(offer)
                && specificity > best.0
            {
                best = (specificity, range.quality);
            }
        }
        best.1
    }

    /// The wanted ones of `offers`, heaviest first; equal weights keep the
    /// server's order. If none is wanted, all of them unchanged: the client may
    /// still choose to pay one.
    pub fn rank<T>(&self, offers: Vec<T>, id: impl Fn(&T) -> OfferId) -> Vec<T> {
        let mut weighed: Vec<_> = offers
            .into_iter()
            .map(|offer| (self.quality(&id(&offer)), offer))
            .collect();
        if weighed.iter().any(|(quality, _)| *quality > 0) {
            weighed.retain(|(quality, _)| *quality > 0);
            weighed.sort_by_key(|(quality, _)| std::cmp::Reverse(*quality));
        }
        weighed.into_iter().map(|(_, offer)| offer).collect()
    }
}

fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

impl Range {
    fn new(range: &str, quality: u16) -> Result<Self, ParseError> {
        let (method, intent) = range.split_once('/').ok_or(RULE)?;
        let part = |text: &str, check: fn(&str) -> Result<(), ParseError>| match text {
            "*" => Ok(None),
            _ => check(text).map(|()| Some(text.to_owned())),
        };
        Ok(Self {
            method: part(method, check_method)?,
            intent: part(intent, check_intent)?,
            quality,
        })
    }

    fn parse(element: &str) -> Result<Self, ParseError> {
        let Some((range, weight)) = element.split_once(';') else {
            return Self::new(element, 1000);
        };
        let (name, value) = trim(weight).split_once('=').ok_or(RULE)?;
        if !name.eq_ignore_ascii_case("q") {
            return Err(RULE);
        }
        Self::new(trim(range), parse_quality(value).ok_or(RULE)?)
    }

    /// How closely the range describes the offer, from 1 (`*/*`) to 4; `None` if not at all.
    fn covers(&self, offer: &OfferId) -> Option<u8> {
        let part = |wanted: &Option<String>, given: &str, worth| match wanted {
            None => Some(0),
            Some(wanted) => (wanted == given).then_some(worth),
        };
        Some(1 + part(&self.method, &offer.method, 2)? + part(&self.intent, &offer.intent, 1)?)
    }
}

/// `0` or `1` with up to three digits after a point, at most 1 (RFC 9110 §12.4.2).
fn parse_quality(text: &str) -> Option<u16> {
    let (whole, fraction) = match text.split_once('.') {
        Some(parts) => parts,
        None => (text, ""),
    };
    if fraction.len() > 3 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let thousandths = format!("{fraction:0<3}").parse::<u16>().ok()?;
    match (whole, thousandths) {
        ("0", thousandths) => Some(thousandths),
        ("1", 0) => Some(1000),
        _ => None,
    }
}

impl fmt::Display for AcceptPayment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, range) in self.ranges.iter().enumerate() {
            let separator = if i == 0 { "" } else { ", " };
            let method = range.method.as_deref().unwrap_or("*");
            let intent = range.intent.as_deref().unwrap_or("*");
            write!(f, "{separator}{method}/{intent}")?;
            match range.quality {
                1000.. => {}
                0 => f.write_str(";q=0")?,
                q => write!(f, ";q=0.{}", format!("{q:03}").trim_end_matches('0'))?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offers(ids: &[&str]) -> Vec<OfferId> {
        ids.iter().map(|id| id.parse().unwrap()).collect()
    }

    fn ranked(header: &str, ids: &[&str]) -> Vec<String> {
        let accept = AcceptPayment::parse(header).unwrap();
        let ranked = accept.rank(offers(ids), Clone::clone);
        ranked.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_most_specific_range_decides() {
        let accept =
            AcceptPayment::parse("*/*;q=0.1, */charge;q=0.2, tempo/*;q=0.3, tempo/charge").unwrap();
        for (offer, quality) in [
            ("tempo/charge", 1000),
            ("tempo/session", 300),
            ("stripe/charge", 200),
            ("stripe/session", 100),
        ] {
            assert_eq!(accept.quality(&offer.parse().unwrap()), quality, "{offer}");
        }
    }

    #[test]
    fn ranking_is_stable_and_drops_what_is_not_wanted() {
        let all = ["tempo/charge", "stripe/charge", "lightning/charge"];
        assert_eq!(ranked("*/*", &all), all);
        assert_eq!(
            ranked("tempo/charge;q=0.5, */*;q=0.9", &all),
            ["stripe/charge", "lightning/charge", "tempo/charge"]
        );
        assert_eq!(
            ranked("*/*, tempo/*;Q=0", &all),
            ["stripe/charge", "lightning/charge"]
        );
        assert_eq!(ranked("stripe/charge", &all), ["stripe/charge"]);
    }

    #[test]
    fn matching_nothing_changes_nothing() {
        let all = ["tempo/charge", "stripe/charge"];
        assert_eq!(ranked("card/charge", &all), all);
        assert_eq!(ranked("*/*;q=0", &all), all);
    }

    #[test]
    fn other_grammars_are_refused() {
        for bad in [
            "",
            ",",
            ";;;",
            "tempo",
            "tempo/charge;q",
            "tempo/charge;q=",
            "tempo/charge;q=.5",
            "tempo/charge;q=1e-1",
            "tempo/charge;q=+0.5",
            "tempo/charge;q=0.1234",
            "tempo/charge;q=1.001",
            "tempo/charge;q=2",
            "tempo/charge;q=0.5;x=1",
            "tempo/charge;v=1",
            "Tempo/charge",
            "/charge",
            "tempo/",
            "tempo/charge stripe/charge",
            "tempo/charge;q =1",
            "te*/charge",
        ] {
            assert!(AcceptPayment::parse(bad).is_err(), "{bad}");
        }
        assert!(AcceptPayment::from_ranges([("tempo/*", 1001)]).is_err());
        assert!(AcceptPayment::from_ranges([]).is_err());
    }

    #[test]
    fn text_form_round_trips() {
        for (text, canonical) in [
            (
                "tempo/charge, stripe/*;q=0.25",
                "tempo/charge, stripe/*;q=0.25",
            ),
            (
                " ,a:b_1-c/Up_To ; q=0.000,\t*/*;Q=1.000,",
                "a:b_1-c/Up_To;q=0, */*",
            ),
            ("x/y;q=0.010", "x/y;q=0.01"),
            ("x/y;q=0.", "x/y;q=0"),
        ] {
            let accept = AcceptPayment::parse(text).unwrap();
            assert_eq!(accept.to_string(), canonical);
            assert_eq!(AcceptPayment::parse(canonical).unwrap(), accept);
        }
        let built = AcceptPayment::from_ranges([("tempo/charge", 1000), ("*/*", 5)]).unwrap();
        assert_eq!(built.to_string(), "tempo/charge, */*;q=0.005");
    }
}
