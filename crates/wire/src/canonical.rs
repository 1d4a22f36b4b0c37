//! Canonical JSON (RFC 8785).
//!
//! What servers write is nearly always canonical as serde_json prints it:
//! compact, members in order, integers. Printing and checking that takes a
//! quarter of the time of the general serializer, which handles the rest.

use std::borrow::Cow;
use std::fmt;

use serde::Serialize;
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// The largest integer that RFC 8785 §3.2.2.3 writes as it is, 2⁵³.
const MAX_INTEGER: u64 = 1 << 53;

pub(crate) fn to_string<T: Serialize>(value: &T) -> serde_json::Result<String> {
    let text = serde_json::to_string(value)?;
    // serde_json and RFC 8785 escape strings alike, so order and numbers are what can differ.
    match serde_json::from_str::<Canonical>(&text) {
        Ok(Canonical) => Ok(text),
        Err(_) => serde_json_canonicalizer::to_string(value),
    }
}

/// Reads only text that is canonical, given that serde_json wrote it.
struct Canonical;

const NOT_CANONICAL: &str = "not canonical";

impl<'de> Deserialize<'de> for Canonical {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(CanonicalVisitor)
    }
}

struct CanonicalVisitor;

impl<'de> Visitor<'de> for CanonicalVisitor {
    type Value = Canonical;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("canonical JSON")
    }
    fn visit_bool<E>(self, _: bool) -> Result<Canonical, E> {
        Ok(Canonical)
    }
    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Canonical, E> {
        if number <= MAX_INTEGER {
            Ok(Canonical)
        } else {
            Err(E::custom(NOT_CANONICAL))
        }
    }
    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Canonical, E> {
        self.visit_u64(number.unsigned_abs())
    }
    fn visit_str<E>(self, _: &str) -> Result<Canonical, E> {
        Ok(Canonical)
    }
    fn visit_unit<E>(self) -> Result<Canonical, E> {
        Ok(Canonical)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Canonical, A::Error> {
        while seq.next_element::<Canonical>()?.is_some() {}
        Ok(Canonical)
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Canonical, A::Error> {
        let mut previous: Option<Key<'de>> = None;
        while let Some((key, Canonical)) = map.next_entry::<Key<'de>, Canonical>()? {
            if previous.is_some_and(|previous| !previous.is_before(&key)) {
                return Err(de::Error::custom(NOT_CANONICAL));
            }
            previous = Some(key);
        }
        Ok(Canonical)
    }
}

struct Key<'a>(Cow<'a, str>);

impl Key<'_> {
    /// RFC 8785 §3.2.3: by UTF-16 code units, which is byte order within ASCII.
    fn is_before(&self, other: &Self) -> bool {
        if self.0.is_ascii() && other.0.is_ascii() {
            self.0 < other.0
        } else {
            self.0.encode_utf16().lt(other.0.encode_utf16())
        }
    }
}

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;
        impl<'de> Visitor<'de> for KeyVisitor {
            type Value = Key<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a member name")
            }
            fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Self::Value, E> {
                Ok(Key(Cow::Borrowed(name)))
            }
            fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
                Ok(Key(Cow::Owned(name.to_owned())))
            }
        }
        deserializer.deserialize_str(KeyVisitor)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    #[derive(Serialize)]
    struct Unordered {
        b: f64,
        a: u64,
    }

    #[test]
    fn both_ways_to_write_agree() {
        for value in [
            json!({}),
            json!({"b": [1, {"z": null, "a": true}], "a": "\u{8}\t\n\u{c}\r\"\\/\u{0}\u{1f}\u{7f}é🚌"}),
            json!({"\u{e000}": 1, "\u{10000}": 2}),
            json!({"n": [0, -1, 1u64 << 53, (1u64 << 53) + 1, u64::MAX, i64::MIN]}),
            json!({"f": [1.0, -0.0, 1e21, 1e-7, 0.1]}),
        ] {
            let expected = serde_json_canonicalizer::to_string(&value).unwrap();
            assert_eq!(to_string(&value).unwrap(), expected);
        }
        let unordered = Unordered { b: 10.0, a: 1 };
        assert_eq!(to_string(&unordered).unwrap(), r#"{"a":1,"b":10}"#);
    }

    #[test]
    fn what_has_no_canonical_form_is_refused() {
        assert!(to_string(&std::collections::HashMap::from([((), 1)])).is_err());
    }

    proptest! {
        #[test]
        fn agrees_on_any_members(members in prop::collection::btree_map(any::<String>(), any::<(String, i64, f64)>(), 0..5)) {
            let value = json!(members);
            prop_assert_eq!(to_string(&value).unwrap(), serde_json_canonicalizer::to_string(&value).unwrap());
            let shuffled = Value::from_iter(members.into_iter().rev().map(|(k, v)| (k, json!(v.0))));
            prop_assert_eq!(to_string(&shuffled).unwrap(), serde_json_canonicalizer::to_string(&shuffled).unwrap());
        }
    }
}
