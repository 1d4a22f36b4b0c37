//! One tokenizer for every header that lists authentication schemes (RFC 9110
//! §11): `WWW-Authenticate` and `Authorization`.
//!
//! It is quote-aware, so text inside a quoted value never starts a scheme, and
//! each byte is looked at a bounded number of times.

use std::borrow::Cow;
use std::fmt::Write as _;

use crate::ParseError;

/// The scheme name of MPP, compared without regard to case (RFC 9110 §11.1).
pub(crate) const SCHEME: &str = "Payment";

/// One scheme of a header value with what follows it.
#[derive(Debug)]
pub(crate) struct Element<'a> {
    pub(crate) scheme: &'a str,
    pub(crate) content: Result<Content<'a>, ParseError>,
}

#[derive(Debug)]
pub(crate) enum Content<'a> {
    /// A single token, as in `Payment eyJ…`.
    Token68(&'a str),
    /// Parameters in order; names as written.
    Params(Vec<(&'a str, Cow<'a, str>)>),
}

/// Header octets as text: RFC 9110 leaves them undefined above ASCII, and the
/// field's practice is ISO-8859-1, where every octet is one character.
pub(crate) fn latin1(value: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(value) {
        Ok(text) if text.is_ascii() => Cow::Borrowed(text),
        _ => Cow::Owned(value.iter().map(|&b| char::from(b)).collect()),
    }
}

/// The schemes of one header value. Whatever is not part of a scheme is skipped.
pub(crate) fn elements(value: &str) -> Elements<'_> {
    Elements {
        text: value,
        bytes: value.as_bytes(),
        at: 0,
    }
}

pub(crate) struct Elements<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
}

/// What each byte may be part of, as bits: scanning headers is most of what
/// reading one costs.
const CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut i = 0;
    while i < 128 {
        let b = i as u8;
        let name = b.is_ascii_alphanumeric();
        if name || in_set(b, b"!#$%&'*+-.^_`|~") {
            classes[i] |= TCHAR;
        }
        if in_set(b, b"\"\\") {
            classes[i] |= QUOTE_STOP;
        } else if b == b' ' || b.is_ascii_graphic() {
            classes[i] |= PRINTABLE;
        } else if b != b'\t' {
            classes[i] |= QUOTE_STOP;
        }
        i += 1;
    }
    classes
};
const TCHAR: u8 = 1;
/// Ends plain text within quotes: a quote, a backslash or a control character.
const QUOTE_STOP: u8 = 2;
/// Is written within quotes as it is.
const PRINTABLE: u8 = 4;

const fn in_set(b: u8, set: &[u8]) -> bool {
    let mut i = 0;
    while i < set.len() {
        if set[i] == b {
            return true;
        }
        i += 1;
    }
    false
}

fn is(b: u8, class: u8) -> bool {
    CLASSES[usize::from(b)] & class != 0
}

fn is_tchar(b: u8) -> bool {
    is(b, TCHAR)
}

fn is_space(b: u8) -> bool {
    matches!(b, b' ' | b'\t')
}

/// The length of the token68 without padding that `bytes` starts with. A credential is one long
/// token, so whole blocks are judged at once, without branches that would keep the compiler from
/// using vector instructions.
fn token68_len(bytes: &[u8]) -> usize {
    let class =
        |b: u8| (b | 0x20).wrapping_sub(b'a') < 26 || matches!(b, b'-'..=b'9' | b'_' | b'~' | b'+');
    let blocks = bytes.chunks_exact(32);
    let whole = |block: &&[u8]| block.iter().fold(true, |all, &b| all & class(b));
    let judged = 32 * blocks.take_while(whole).count();
    let rest = bytes.get(judged..).unwrap_or_default();
    judged + rest.iter().take_while(|&&b| class(b)).count()
}

const SYNTAX: ParseError = ParseError::Syntax("not a list of schemes with parameters");

impl<'a> Iterator for Elements<'a> {
    type Item = Element<'a>;

    fn next(&mut self) -> Option<Element<'a>> {
        loop {
            self.skip(|b| is_space(b) || b == b',');
            if self.at == self.bytes.len() {
                return None;
            }
            let start = self.at;
            let scheme = self.take(is_tchar);
            let spaced = self.peek().is_some_and(is_space);
            let ended = self.peek().is_none_or(|b| b == b',');
            if scheme.is_empty() || !(spaced || ended) || self.name_follows(start) {
                // A parameter or rubbish that belongs to no scheme.
                self.at = start;
                self.recover();
                continue;
            }
            let after = self.at;
            let content = self.content();
            if content.is_err() {
                // From a place that is surely outside quotes.
                self.at = after;
                self.recover();
            }
            return Some(Element { scheme, content });
        }
    }
}

impl<'a> Elements<'a> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn skip(&mut self, class: impl Fn(u8) -> bool) {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        self.at += rest.iter().take_while(|&&b| class(b)).count();
    }

    fn take(&mut self, class: impl Fn(u8) -> bool) -> &'a str {
        let start = self.at;
        self.skip(class);
        // `class` accepts ASCII only, so both ends are character boundaries.
        self.text.get(start..self.at).unwrap_or_default()
    }

    /// Whether the text at `from` is a parameter, `name BWS "="`; leaves the position alone.
    fn name_follows(&mut self, from: usize) -> bool {
        let before = std::mem::replace(&mut self.at, from);
        let named = !self.take(is_tchar).is_empty();
        self.skip(is_space);
        let follows = named && self.peek() == Some(b'=');
        self.at = before;
        follows
    }

    /// What follows a scheme name, up to the next scheme or the end.
    fn content(&mut self) -> Result<Content<'a>, ParseError> {
        self.skip(is_space);
        if self.peek().is_some_and(|b| b != b',')
            && let Some(token) = self.token68()?
        {
            return Ok(Content::Token68(token));
        }
        let mut params = Vec::new();
        loop {
            self.skip(|b| is_space(b) || b == b',');
            if !self.name_follows(self.at) {
                // The end or the next scheme; anything else is none of the list's syntax.
                return match self.peek() {
                    Some(b) if !is_tchar(b) => Err(SYNTAX),
                    _ => Ok(Content::Params(params)),
                };
            }
            let name = self.take(is_tchar);
            self.skip(is_space);
            self.at += 1; // the `=` that `name_follows` saw
            self.skip(is_space);
            let value = self.value()?;
            params.push((name, value));
            self.skip(is_space);
            if self.peek().is_some_and(|b| b != b',') {
                return Err(SYNTAX);
            }
        }
    }

    /// The token after a scheme, unless a parameter stands there. `name=` and
    /// nothing else is read as a parameter with an empty value.
    fn token68(&mut self) -> Result<Option<&'a str>, ParseError> {
        let start = self.at;
        self.at += token68_len(self.bytes.get(start..).unwrap_or_default());
        let body_end = self.at;
        self.skip(|b| b == b'=');
        let (token, padding) = (start..self.at, self.at - body_end);
        self.skip(is_space);
        let alone = body_end > start && self.peek().is_none_or(|b| b == b',');
        let text = self.text.get(token).unwrap_or_default();
        if alone && (padding != 1 || text.contains('/')) {
            return Ok(Some(text));
        }
        self.at = start;
        if self.name_follows(start) {
            Ok(None)
        } else {
            Err(SYNTAX)
        }
    }

    fn value(&mut self) -> Result<Cow<'a, str>, ParseError> {
        if self.peek() == Some(b'"') {
            self.at += 1;
            return self.quoted();
        }
        // Wider than a token, since peers leave dates and digests unquoted.
        let class = |b: u8| b.is_ascii_graphic() && !matches!(b, b',' | b'"' | b'\\');
        Ok(Cow::Borrowed(self.take(class)))
    }

    /// The rest of a quoted-string (RFC 9110 §5.6.4). `\uXXXX` stands for a
    /// UTF-16 code unit, as deployed; any other `\x` for `x`.
    fn quoted(&mut self) -> Result<Cow<'a, str>, ParseError> {
        const UNTERMINATED: ParseError = ParseError::Syntax("a quoted value has no end");
        let mut start = self.at;
        let mut decoded: Option<String> = None;
        loop {
            self.skip(|b| !is(b, QUOTE_STOP));
            let plain = self.text.get(start..self.at).unwrap_or_default();
            match self.peek() {
                None => return Err(UNTERMINATED),
                Some(b'"') => {
                    self.at += 1;
                    return Ok(match decoded {
                        None => Cow::Borrowed(plain),
                        Some(mut text) => {
                            text.push_str(plain);
                            Cow::Owned(text)
                        }
                    });
                }
                Some(b'\\') => {
                    let text = decoded.get_or_insert_default();
                    text.push_str(plain);
                    self.at += 1;
                    text.push(self.escaped()?);
                    start = self.at;
                }
                Some(_) => {
                    return Err(ParseError::Syntax("a quoted value has a control character"));
                }
            }
        }
    }

    /// The character after a backslash.
    fn escaped(&mut self) -> Result<char, ParseError> {
        const LONE: ParseError = ParseError::Syntax("a quoted value has half a surrogate pair");
        let Some(unit) = self.utf16_unit(self.at) else {
            let rest = self.text.get(self.at..).unwrap_or_default();
            let Some(c) = rest
                .chars()
                .next()
                .filter(|&c| c == '\t' || !c.is_ascii_control())
            else {
                return Err(ParseError::Syntax("a quoted value ends in a backslash"));
            };
            self.at += c.len_utf8();
            return Ok(c);
        };
        self.at += 5;
        if !(0xD800..0xE000).contains(&unit) {
            return char::from_u32(u32::from(unit)).ok_or(LONE);
        }
        let low = (self.peek() == Some(b'\\'))
            .then(|| self.utf16_unit(self.at + 1))
            .flatten()
            .ok_or(LONE)?;
        self.at += 6;
        char::decode_utf16([unit, low])
            .next()
            .and_then(Result::ok)
            .ok_or(LONE)
    }

    /// The code unit of `uXXXX` at `from`.
    fn utf16_unit(&self, from: usize) -> Option<u16> {
        let escape = self.bytes.get(from..from + 5)?;
        let (&b'u', digits) = escape.split_first()? else {
            return None;
        };
        digits.iter().try_fold(0u16, |unit, &b| {
            let digit = char::from(b).to_digit(16)?;
            Some(unit << 4 | u16::try_from(digit).ok()?)
        })
    }

    /// Skips to the next comma outside quotes, so that one malformed element
    /// does not hide the ones after it.
    fn recover(&mut self) {
        let mut quoted = false;
        while let Some(b) = self.peek() {
            match b {
                b'"' => quoted = !quoted,
                b'\\' if quoted => self.at += 1,
                b',' if !quoted => return,
                _ => {}
            }
            self.at += 1;
        }
        self.at = self.at.min(self.bytes.len());
    }
}

/// Appends ` name="value"` with a comma before all but the first parameter, in
/// printable ASCII: the rest becomes `\uXXXX`.
pub(crate) fn push_param(header: &mut String, name: &str, value: &str) {
    if !header.ends_with(SCHEME) {
        header.push(',');
    }
    header.push(' ');
    header.push_str(name);
    header.push_str("=\"");
    if value.bytes().all(|b| is(b, PRINTABLE)) {
        header.push_str(value);
        header.push('"');
        return;
    }
    for c in value.chars() {
        match c {
            '"' | '\\' => {
                header.push('\\');
                header.push(c);
            }
            ' '..='~' => header.push(c),
            _ => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    // Writing to a String does not fail.
                    let _ = write!(header, "\\u{unit:04x}");
                }
            }
        }
    }
    header.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A readable form: `scheme`, `scheme:token`, `scheme(name=value)` or `scheme!`.
    fn read(value: &str) -> Vec<String> {
        let text = |element: Element<'_>| match element.content {
            Err(_) => format!("{}!", element.scheme),
            Ok(Content::Token68(token)) => format!("{}:{token}", element.scheme),
            Ok(Content::Params(params)) => {
                let params: Vec<_> = params.iter().map(|(n, v)| format!("{n}={v}")).collect();
                format!("{}({})", element.scheme, params.join(";"))
            }
        };
        elements(value).map(text).collect()
    }

    #[test]
    fn schemes_tokens_and_parameters_are_told_apart() {
        for (value, expected) in [
            ("", vec![]),
            ("A", vec!["A()"]),
            ("A, B", vec!["A()", "B()"]),
            ("A tok/en+==, B", vec!["A:tok/en+==", "B()"]),
            ("A a/b=, B c=", vec!["A:a/b=", "B(c=)"]),
            ("A a=1, b=\"2\", B", vec!["A(a=1;b=2)", "B()"]),
            ("A , a=1,,b=2", vec!["A(a=1;b=2)"]),
            (
                "A a = \"x, B b=1\" , B b=1",
                vec!["A(a=x, B b=1)", "B(b=1)"],
            ),
            ("A B=1", vec!["A(B=1)"]),
        ] {
            assert_eq!(read(value), expected, "{value}");
        }
    }

    #[test]
    fn a_long_token_ends_where_a_short_one_does() {
        let token: String = ('\0'..='\u{7f}')
            .filter(|c| c.is_ascii_alphanumeric() || "-._~+/".contains(*c))
            .collect();
        assert_eq!(token.len(), 68);
        for b in 0..=u8::MAX {
            for at in 0..token.len() {
                let mut bytes = token.clone().into_bytes();
                bytes[at] = b;
                let expected = if token.as_bytes().contains(&b) {
                    token.len()
                } else {
                    at
                };
                assert_eq!(token68_len(&bytes), expected, "{b} at {at}");
            }
        }
    }

    #[test]
    fn a_malformed_element_ends_at_its_comma() {
        for (value, expected) in [
            ("a=1, B b", vec!["B:b"]),
            ("A a b, B b", vec!["A!", "B:b"]),
            ("A a=\"x\"y, B b", vec!["A!", "B:b"]),
            ("A a=\"x, B b", vec!["A!"]),
            ("A a=\"\u{1}, B b\", C c", vec!["A!", "C:c"]),
            ("\"A a, B b\", C c", vec!["C:c"]),
            ("A a=\"x\\", vec!["A!"]),
        ] {
            assert_eq!(read(value), expected, "{value}");
        }
    }

    #[test]
    fn written_values_are_printable_ascii() {
        let mut header = SCHEME.to_owned();
        push_param(&mut header, "a", "1\"\\\u{0}é€🚌");
        push_param(&mut header, "b", SCHEME);
        push_param(&mut header, "c", "");
        let written = r#"Payment a="1\"\\\u0000\u00e9\u20ac\ud83d\ude8c", b="Payment", c="""#;
        assert_eq!(header, written);
    }
}
