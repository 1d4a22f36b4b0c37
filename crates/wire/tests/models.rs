//! What is bound, ranked and counted, against models that are too simple to be wrong.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use farebox_wire::{
    AcceptPayment, Amount, BodyDigest, Challenge, Encoded, OfferId, SecretRing, Timestamp,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use serde_json::json;

fn ring() -> SecretRing {
    SecretRing::new(["0123456789abcdef0123456789abcdef".into()]).unwrap()
}

/// Text full of separators, so that two lists of slots often join to the same bytes.
fn slot() -> impl Strategy<Value = String> {
    vec(
        prop::sample::select(vec!["|", "a", "tempo", "charge", "e30"]),
        0..4,
    )
    .prop_map(|parts| parts.concat())
}

prop_compose! {
    fn challenge()(
        realm in slot(),
        method in slot(),
        intent in slot(),
        request in prop::sample::select(vec!["e30", "e30=", "eyJhIjoiYnxjIn0"]),
        expires in option::of(0i64..2),
        digest in option::of(0u8..2),
        opaque in option::of(0u8..2),
    ) -> Challenge {
        Challenge {
            id: String::new(),
            realm,
            method,
            intent,
            request: Encoded::parse(request).unwrap(),
            expires: expires.map(Timestamp::from_unix_millis),
            digest: digest.map(|byte| BodyDigest::of(&[byte])),
            description: None,
            opaque: opaque.map(|n| Encoded::encode(&json!({ "n": n })).unwrap()),
            header: None,
        }
    }
}

/// The bound parameters, each by itself.
fn slots(challenge: &Challenge) -> [String; 7] {
    [
        challenge.realm.clone(),
        challenge.method.clone(),
        challenge.intent.clone(),
        challenge.request.as_str().to_owned(),
        challenge
            .expires
            .as_ref()
            .map_or_else(String::new, ToString::to_string),
        challenge
            .digest
            .as_ref()
            .map_or_else(String::new, |d| d.as_str().to_owned()),
        challenge
            .opaque
            .as_ref()
            .map_or_else(String::new, |o| o.as_str().to_owned()),
    ]
}

/// How closely a range describes an offer, by the words of the draft.
fn closeness(range: &str, offer: &str) -> Option<u8> {
    let (method, intent) = offer.split_once('/').unwrap();
    [
        (format!("{method}/{intent}"), 4),
        (format!("{method}/*"), 3),
        (format!("*/{intent}"), 2),
        ("*/*".to_owned(), 1),
    ]
    .into_iter()
    .find_map(|(form, worth)| (form == range).then_some(worth))
}

/// Decimal digits, most significant first, without leading zeros.
type Digits = Vec<u8>;

fn digits(text: &str) -> Digits {
    let all: Digits = text.bytes().map(|b| b - b'0').collect();
    let zeros = all.iter().take_while(|&&d| d == 0).count();
    all[zeros..].to_vec()
}

/// Addition as it is taught in school.
fn add(a: &Digits, b: &Digits) -> Digits {
    let (mut sum, mut carry) = (Vec::new(), 0);
    let digit = |n: &Digits, i: usize| n.len().checked_sub(i + 1).map_or(0, |at| n[at]);
    for i in 0..a.len().max(b.len()) {
        let here = digit(a, i) + digit(b, i) + carry;
        sum.push(here % 10);
        carry = here / 10;
    }
    sum.push(carry);
    sum.reverse();
    let zeros = sum.iter().take_while(|&&d| d == 0).count();
    sum[zeros..].to_vec()
}

fn larger(a: &Digits, b: &Digits) -> bool {
    (a.len(), a) > (b.len(), b)
}

/// Amounts near the edges as well as anywhere.
fn units() -> impl Strategy<Value = u128> {
    prop_oneof![
        any::<u128>(),
        0..1000u128,
        (0..1000u128).prop_map(|n| u128::MAX - n)
    ]
}

proptest! {
    /// Protects: a separator in a field never lets the id of one challenge stand for another.
    #[test]
    fn slots_are_not_confused(a in challenge(), b in challenge()) {
        let (mut issued, mut other) = (a, b);
        ring().sign(&mut issued);
        other.id = issued.id.clone();
        let same = slots(&issued) == slots(&other);
        prop_assert!(!ring().verify(&other) || same);
        // What a parser would let through verifies for itself.
        let sound = Challenge { id: "x".into(), ..issued.clone() }.check().is_ok();
        prop_assert!(!sound || ring().verify(&issued));
    }

    /// Protects: the ranking is by weight of the closest range, stable, and never empties a list.
    #[test]
    fn ranking_agrees_with_the_drafts_words(
        ranges in vec(("(\\*|a|b)/(\\*|x|y)", 0u16..=4), 1..6),
        offers in vec("(a|b|c)/(x|y)", 0..6),
    ) {
        let weighed: Vec<_> = ranges.iter().map(|(r, q)| (r.as_str(), q * 250)).collect();
        let accept = AcceptPayment::from_ranges(weighed.clone()).unwrap();
        let weight = |offer: &str| {
            let mut best = (0, 0);
            for (range, weight) in &weighed {
                match closeness(range, offer) {
                    Some(close) if close > best.0 => best = (close, *weight),
                    _ => {}
                }
            }
            best.1
        };
        let mut expected: Vec<(usize, String)> = Vec::new();
        for quality in (1..=1000).rev() {
            for (i, offer) in offers.iter().enumerate() {
                if weight(offer) == quality {
                    expected.push((i, offer.clone()));
                }
            }
        }
        if expected.is_empty() {
            expected = offers.iter().cloned().enumerate().collect();
        }
        let given: Vec<(usize, String)> = offers.iter().cloned().enumerate().collect();
        let ranked = accept.rank(given, |(_, offer)| offer.parse::<OfferId>().unwrap());
        prop_assert_eq!(ranked, expected);
    }

    /// Protects: money neither wraps nor rounds.
    #[test]
    fn amounts_agree_with_digits(a in units(), b in units(), decimals in 0u8..40) {
        let (x, y) = (digits(&a.to_string()), digits(&b.to_string()));
        let max = digits(&u128::MAX.to_string());
        let sum = Amount::new(a).checked_add(Amount::new(b));
        let model = add(&x, &y);
        prop_assert_eq!(sum.is_none(), larger(&model, &max));
        if let Some(sum) = sum {
            prop_assert_eq!(digits(&sum.to_string()), model);
        }
        let difference = Amount::new(a).checked_sub(Amount::new(b));
        prop_assert_eq!(difference.is_none(), larger(&y, &x));
        if let Some(difference) = difference {
            prop_assert_eq!(add(&digits(&difference.to_string()), &y), x.clone());
        }
        // A decimal is the same digits with a point among them.
        let decimal = Amount::new(a).to_decimal(decimals);
        let (whole, fraction) = decimal.split_once('.').unwrap_or((&decimal, ""));
        let padded = format!("{whole}{fraction:0<width$}", width = usize::from(decimals));
        prop_assert_eq!(digits(&padded), x);
    }
}
