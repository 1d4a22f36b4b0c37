//! Reading what a server sent, with eyes of its own: nothing here is shared with the code that
//! Farebox writes and reads headers with, so that a mistake there is not overlooked here.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// A challenge as it was written: its parameters, unquoted, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    params: Vec<(String, String)>,
    /// Octets of the header value it stood in.
    pub(crate) size: usize,
}

impl Seen {
    /// A parameter's value; that of its first occurrence.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let found = self.params.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.params.iter().map(|(name, _)| name.as_str())
    }

    /// `tempo/charge`, for messages.
    pub(crate) fn offer(&self) -> String {
        let part = |name| self.get(name).unwrap_or("?");
        format!("{}/{}", part("method"), part("intent"))
    }

    /// The request, decoded.
    pub(crate) fn request(&self) -> Result<Map<String, Value>, String> {
        object(self.get("request").ok_or("there is none")?)
    }

    /// All parameters, as a credential repeats them.
    pub(crate) fn echo(&self) -> Map<String, Value> {
        let members = self.params.iter();
        members
            .map(|(name, value)| (name.clone(), value.clone().into()))
            .collect()
    }
}

/// The Payment challenges of `WWW-Authenticate` values, and what is wrong with those that cannot be
/// read.
pub(crate) fn challenges<'a>(
    values: impl IntoIterator<Item = &'a [u8]>,
) -> (Vec<Seen>, Vec<String>) {
    let (mut found, mut unreadable) = (Vec::new(), Vec::new());
    for value in values {
        let size = value.len();
        let elements = match std::str::from_utf8(value) {
            Ok(text) => elements(text),
            Err(_) => Err("a header that is not text".to_owned()),
        };
        match elements {
            Ok(elements) => found.extend(elements.into_iter().filter_map(|(scheme, params)| {
                let payment = scheme.eq_ignore_ascii_case("payment");
                payment.then_some(Seen { params, size })
            })),
            Err(why) => unreadable.push(why),
        }
    }
    (found, unreadable)
}

type Element = (String, Vec<(String, String)>);

/// RFC 9110, 11.6.1: schemes, each with a token or parameters.
fn elements(text: &str) -> Result<Vec<Element>, String> {
    let mut at = Cursor(text);
    let mut found: Vec<Element> = Vec::new();
    let mut has_token = false;
    loop {
        at.skip(|c| matches!(c, ' ' | '\t' | ','));
        if at.0.is_empty() {
            return Ok(found);
        }
        let name = at.token()?;
        let spaces = at.skip(|c| matches!(c, ' ' | '\t'));
        match found.last_mut() {
            Some(_) if has_token && at.0.starts_with('=') => {
                return Err("a scheme with a token and parameters".to_owned());
            }
            Some((_, params)) if at.0.starts_with('=') => {
                at.take("=");
                at.skip(|c| matches!(c, ' ' | '\t'));
                let value = at.value()?;
                params.push((name.to_owned(), value));
                at.end()?;
            }
            _ => {
                found.push((name.to_owned(), Vec::new()));
                has_token = spaces > 0 && at.token68();
                if spaces == 0 || has_token {
                    at.end()?;
                }
            }
        }
    }
}

struct Cursor<'a>(&'a str);

impl<'a> Cursor<'a> {
    fn skip(&mut self, skipped: impl Fn(char) -> bool) -> usize {
        let before = self.0.len();
        self.0 = self.0.trim_start_matches(skipped);
        before - self.0.len()
    }

    fn take(&mut self, prefix: &str) -> bool {
        let rest = self.0.strip_prefix(prefix);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    fn token(&mut self) -> Result<&'a str, String> {
        let is = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        let (token, rest) = self
            .0
            .split_at(self.0.find(|c| !is(c)).unwrap_or(self.0.len()));
        self.0 = rest;
        match token {
            "" => Err(format!("no name before {:?}", head(rest))),
            token => Ok(token),
        }
    }

    /// A token, or a quoted string with its escapes undone.
    fn value(&mut self) -> Result<String, String> {
        if !self.take("\"") {
            return self.token().map(str::to_owned);
        }
        let (mut value, mut escaped) = (String::new(), false);
        for (at, c) in self.0.char_indices() {
            match c {
                _ if escaped => {
                    escaped = false;
                    value.push(c);
                }
                '\\' => escaped = true,
                '"' => {
                    self.0 = &self.0[at + 1..];
                    return Ok(value);
                }
                c => value.push(c),
            }
        }
        Err("a quoted string without its end".to_owned())
    }

    /// Passes over the token of a scheme that has one instead of parameters, and says if it has.
    fn token68(&mut self) -> bool {
        let is = |c: char| c.is_ascii_alphanumeric() || "-._~+/".contains(c);
        let rest = self.0.trim_start_matches(is).trim_start_matches('=');
        let ends = rest.is_empty() || rest.trim_start_matches([' ', '\t']).starts_with(',');
        let found = ends && rest.len() < self.0.len();
        if found {
            self.0 = rest;
        }
        found
    }

    /// After a parameter or a scheme without any: a comma, or nothing more.
    fn end(&mut self) -> Result<(), String> {
        self.skip(|c| matches!(c, ' ' | '\t'));
        if self.0.is_empty() || self.0.starts_with(',') {
            Ok(())
        } else {
            Err(format!("no comma before {:?}", head(self.0)))
        }
    }
}

fn head(text: &str) -> String {
    text.chars().take(20).collect()
}

/// A JSON object from base64url without padding.
pub(crate) fn object(text: &str) -> Result<Map<String, Value>, String> {
    let bytes = URL_SAFE_NO_PAD
        .decode(text)
        .map_err(|error| format!("not base64url without padding: {error}"))?;
    let value: Value =
        serde_json::from_slice(&bytes).map_err(|error| format!("not JSON: {error}"))?;
    match value {
        Value::Object(members) => Ok(members),
        _ => Err("not a JSON object".to_owned()),
    }
}

/// Whether the text is its JSON in canonical form (RFC 8785). `false` where it cannot be read.
pub(crate) fn canonical(text: &str) -> bool {
    let Ok(bytes) = URL_SAFE_NO_PAD.decode(text) else {
        return false;
    };
    let value: Result<Value, _> = serde_json::from_slice(&bytes);
    value.is_ok_and(|value| {
        serde_json_canonicalizer::to_vec(&value).is_ok_and(|canonical| canonical == bytes)
    })
}

pub(crate) fn encode(members: Map<String, Value>) -> String {
    let json = serde_json_canonicalizer::to_vec(&Value::Object(members)).unwrap_or_default();
    URL_SAFE_NO_PAD.encode(json)
}

/// RFC 3339.
pub(crate) fn instant(text: &str) -> Result<OffsetDateTime, String> {
    OffsetDateTime::parse(text, &Rfc3339).map_err(|_| format!("{text:?} is not RFC 3339"))
}

/// A whole number in digits, without zeros before it.
pub(crate) fn is_amount(text: &str) -> bool {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits && (text == "0" || !text.starts_with('0'))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may panic")]
mod tests {
    use super::*;

    fn read(value: &str) -> (Vec<Seen>, Vec<String>) {
        challenges([value.as_bytes()])
    }

    #[test]
    fn challenges_are_found_among_other_schemes() {
        let value = r#"Basic realm="a, Payment id=\"no\"", payment id=1 , realm = "a\"b", Negotiate abc==, Digest"#;
        let (found, unreadable) = read(value);
        assert_eq!(unreadable, [""; 0]);
        let [seen] = found.as_slice() else {
            panic!("{found:?}")
        };
        assert_eq!(
            (seen.get("id"), seen.get("realm")),
            (Some("1"), Some("a\"b"))
        );
        assert_eq!(read("Negotiate, Payment id=1").0.len(), 1);
        assert_eq!(read("Payment id=1, Payment id=2").0.len(), 2);
    }

    #[test]
    fn what_is_not_a_header_is_not_read() {
        for wrong in [
            r#"Payment id="1"#,
            r#"Payment id="1" realm="2""#,
            "Payment id=, realm=2",
            "Payment id=1, =2",
            r#"Payment "id""#,
            "Payment id, realm=2",
        ] {
            let (found, unreadable) = read(wrong);
            assert!(
                found.is_empty() && unreadable.len() == 1,
                "{wrong}: {found:?}"
            );
        }
    }

    #[test]
    fn encodings_are_read_strictly() {
        assert!(object("eyJhIjoxfQ").is_ok() && canonical("eyJhIjoxfQ"));
        // Padded; not an object; with a space.
        assert!(object("eyJhIjoxfQ==").is_err() && object("MQ").is_err());
        assert!(object("eyJhIjogMX0").is_ok() && !canonical("eyJhIjogMX0"));
        assert!(is_amount("0") && is_amount("10") && !is_amount("01"));
        assert!(!is_amount("") && !is_amount("1.5") && !is_amount("-1"));
        assert!(instant("2030-01-01T00:00:00Z").is_ok() && instant("2030-01-01").is_err());
    }
}
