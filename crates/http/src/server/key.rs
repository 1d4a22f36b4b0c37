//! `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header): a string in quotes. Deployed
//! clients leave the quotes out, and mean the same key.

use std::borrow::Cow;

use http::HeaderMap;

use crate::IDEMPOTENCY_KEY;

/// The longest key, in bytes.
const MAX: usize = 255;

const WHY: &str = "The Idempotency-Key cannot be used: send one, of 1 to 255 visible ASCII \
                   characters, in quotes.";

/// The request's key, if it has one; or why it is none.
pub(super) fn read(headers: &HeaderMap) -> Result<Option<Cow<'_, str>>, &'static str> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(WHY);
    }
    let key = value.to_str().ok().and_then(|text| parse(text.trim()));
    key.map(Some).ok_or(WHY)
}

fn parse(text: &str) -> Option<Cow<'_, str>> {
    let key = match text.strip_prefix('"') {
        Some(rest) => unescape(rest.strip_suffix('"')?)?,
        // A comma would be two keys.
        None if text.contains(['"', ',', '\\']) => return None,
        None => text.into(),
    };
    let visible = key.bytes().all(|b| b.is_ascii_graphic());
    (visible && (1..=MAX).contains(&key.len())).then_some(key)
}

/// The inside of a structured field's string (RFC 9651): only `"` and `\` are escaped.
fn unescape(inside: &str) -> Option<Cow<'_, str>> {
    if !inside.contains(['"', '\\']) {
        return Some(inside.into());
    }
    let (mut text, mut chars) = (String::with_capacity(inside.len()), inside.chars());
    while let Some(char) = chars.next() {
        match char {
            '"' => return None,
            '\\' => text.push(chars.next().filter(|c| matches!(c, '"' | '\\'))?),
            other => text.push(other),
        }
    }
    Some(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects: one key has one meaning, with quotes and without, and what is no key is refused.
    #[test]
    fn keys_are_read_strictly() {
        let long = "k".repeat(255);
        for (given, key) in [
            ("\"8e03978e-40d5\"", Some("8e03978e-40d5")),
            ("8e03978e-40d5", Some("8e03978e-40d5")),
            ("  a  ", Some("a")),
            (r#""a\"b\\c""#, Some(r#"a"b\c"#)),
            ("\"a,b\"", Some("a,b")),
            (&long, Some(long.as_str())),
            (&format!("{long}k"), None),
            ("", None),
            ("\"\"", None),
            ("\"", None),
            ("\"a", None),
            ("a\"", None),
            ("\"a\"b\"", None),
            ("\"a\";p=1", None),
            (r#""a\n""#, None),
            (r#""a\""#, None),
            ("a,b", None),
            ("\"a\", \"b\"", None),
            ("a b", None),
            ("\"a b\"", None),
        ] {
            assert_eq!(parse(given.trim()).as_deref(), key, "{given}");
        }
        let mut headers = HeaderMap::new();
        assert_eq!(read(&headers), Ok(None));
        for bad in [&b"a\tb"[..], b"\xff"] {
            headers.insert(IDEMPOTENCY_KEY, http::HeaderValue::from_bytes(bad).unwrap());
            assert!(read(&headers).is_err());
        }
        headers.insert(IDEMPOTENCY_KEY, "a".parse().unwrap());
        headers.append(IDEMPOTENCY_KEY, "a".parse().unwrap());
        assert!(read(&headers).is_err(), "two are two");
    }
}
