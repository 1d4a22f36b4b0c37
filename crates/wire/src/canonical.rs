//! Canonical JSON (RFC 8785).
//!
//! What servers write is nearly always canonical as serde_json prints it, up to
//! the order of members: compact, integers, plain names. Checking and sorting
//! that text takes a fraction of the time of the general serializer, which
//! handles the rest.

use std::borrow::Cow;

use serde::Serialize;

/// The largest integer that RFC 8785 §3.2.2.3 writes as it is, 2⁵³.
const MAX_INTEGER: u64 = 1 << 53;

pub(crate) fn to_string<T: Serialize>(value: &T) -> serde_json::Result<String> {
    let text = serde_json::to_string(value)?;
    match (Reader { text: &text, at: 0 }).value() {
        Some(Cow::Owned(sorted)) => Ok(sorted),
        Some(Cow::Borrowed(_)) => Ok(text),
        None => serde_json_canonicalizer::to_string(value),
    }
}

/// Reads text that serde_json printed, and gives up on whatever may have another
/// canonical form than the printed one.
struct Reader<'a> {
    text: &'a str,
    at: usize,
}

type Member<'a> = (&'a str, Cow<'a, str>);

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip(&mut self, class: impl Fn(u8) -> bool) {
        let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
        self.at += rest.iter().take_while(|&&b| class(b)).count();
    }

    fn since(&self, start: usize) -> Option<&'a str> {
        self.text.get(start..self.at)
    }

    /// The next value with its members in order; borrowed if they are so already.
    fn value(&mut self) -> Option<Cow<'a, str>> {
        let start = self.at;
        match self.peek()? {
            b'{' => return self.object(),
            b'[' => return self.array(),
            b'"' => drop(self.string()?),
            b'-' | b'0'..=b'9' => self.integer()?,
            _ => self.skip(|b| b.is_ascii_lowercase()),
        }
        self.since(start)
            .filter(|text| !text.is_empty())
            .map(Cow::Borrowed)
    }

    /// Strings are escaped alike, except where raw JSON was printed as it came.
    fn string(&mut self) -> Option<&'a str> {
        self.at += 1;
        let start = self.at;
        loop {
            self.skip(|b| !matches!(b, b'"' | b'\\'));
            if self.peek()? == b'"' {
                self.at += 1;
                return self.text.get(start..self.at - 1);
            }
            self.at += 1;
            if matches!(self.peek()?, b'/' | b'u') {
                return None;
            }
            self.at += 1;
        }
    }

    fn integer(&mut self) -> Option<()> {
        let start = self.at;
        self.skip(|b| b == b'-');
        self.skip(|b| b.is_ascii_digit());
        let digits = self.since(start).filter(|digits| *digits != "-0")?;
        let number: i64 = digits.parse().ok()?;
        let more = matches!(self.peek(), Some(b'.' | b'e' | b'E'));
        (number.unsigned_abs() <= MAX_INTEGER && !more).then_some(())
    }

    fn array(&mut self) -> Option<Cow<'a, str>> {
        let start = self.at;
        let mut items: Vec<Cow<'a, str>> = Vec::new();
        self.list(b']', |reader| {
            items.push(reader.value()?);
            Some(())
        })?;
        if items.iter().all(|item| matches!(item, Cow::Borrowed(_))) {
            return self.since(start).map(Cow::Borrowed);
        }
        Some(format!("[{}]", items.join(",")).into())
    }

    fn object(&mut self) -> Option<Cow<'a, str>> {
        let start = self.at;
        let mut members: Vec<Member<'a>> = Vec::new();
        self.list(b'}', |reader| {
            let name = (reader.peek()? == b'"').then(|| reader.string())??;
            // RFC 8785 §3.2.3 sorts what names mean, by UTF-16 code units: byte order within ASCII.
            if !name.is_ascii() || name.contains('\\') || reader.peek()? != b':' {
                return None;
            }
            reader.at += 1;
            members.push((name, reader.value()?));
            Some(())
        })?;
        let printed = members
            .iter()
            .all(|(_, value)| matches!(value, Cow::Borrowed(_)));
        if printed && members.is_sorted_by(|a, b| a.0 < b.0) {
            return self.since(start).map(Cow::Borrowed);
        }
        members.sort_unstable_by_key(|(name, _)| *name);
        if members.array_windows().any(|[a, b]| a.0 == b.0) {
            return None;
        }
        let mut text = String::with_capacity(self.at - start);
        for (name, value) in members {
            text.push_str(if text.is_empty() { "{\"" } else { ",\"" });
            text.push_str(name);
            text.push_str("\":");
            text.push_str(&value);
        }
        text.push('}');
        Some(text.into())
    }

    /// From an opening bracket past the closing one.
    fn list(&mut self, close: u8, mut item: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.at += 1;
        if self.peek()? == close {
            self.at += 1;
            return Some(());
        }
        loop {
            item(self)?;
            let next = self.peek()?;
            self.at += 1;
            match next {
                b',' => {}
                _ if next == close => return Some(()),
                _ => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

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

    /// Serialises as a map in the order given.
    struct Members<T>(Vec<(String, T)>);

    impl<T: Serialize> Serialize for Members<T> {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
        }
    }

    fn members<T: Clone + std::fmt::Debug>(
        value: impl Strategy<Value = T>,
    ) -> impl Strategy<Value = Members<T>>
    where
        Members<T>: std::fmt::Debug,
    {
        let name = prop_oneof!["[a-z$\"\\\\]{0,3}", any::<String>()];
        let map = prop::collection::hash_map(name, value, 0..5);
        map.prop_map(|map| Members(map.into_iter().collect()))
    }

    impl<T> std::fmt::Debug for Members<T> {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.debug_list().entries(self.0.iter().map(|m| &m.0)).finish()
        }
    }

    proptest! {
        #[test]
        fn agrees_on_any_members(inner in members(any::<(String, i64, f64)>()), outer in members(any::<Vec<bool>>())) {
            let value = (&inner, Members(vec![("b".to_owned(), &outer), ("a".to_owned(), &outer)]));
            prop_assert_eq!(to_string(&value).unwrap(), serde_json_canonicalizer::to_string(&value).unwrap());
        }

        #[test]
        fn agrees_where_nothing_but_order_matters(inner in members(any::<(String, i32)>()), outer in members(any::<Vec<bool>>())) {
            let value = Members(vec![("b".to_owned(), json!(0)), ("a".to_owned(), serde_json::to_value(&inner).unwrap())]);
            let value = (value, outer);
            prop_assert_eq!(to_string(&value).unwrap(), serde_json_canonicalizer::to_string(&value).unwrap());
        }
    }

    /// Raw JSON is printed as its author spelled it, which is seldom canonical.
    #[test]
    fn raw_json_is_not_taken_for_canonical() {
        for raw in [
            "{\"a\": 1}",
            "[1 ]",
            "\"\\u0041\"",
            "\"\\/\"",
            "1.0",
            "-0",
            "{\"\\u0061\":1}",
        ] {
            let raw = serde_json::value::RawValue::from_string(raw.to_owned()).unwrap();
            assert!(to_string(&raw).is_err(), "{raw}");
        }
    }
}
