//! Reading an event stream (WHATWG HTML, 9.2.6), piece by piece and within a limit.

use std::{collections::VecDeque, mem};

/// The event is larger than the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event is larger than the limit")]
pub struct TooLarge;

/// An event as it was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Parsed {
    /// Its name; empty where it has none.
    pub name: String,
    /// Its text, with `\n` between lines.
    pub data: String,
    /// The id given with it, or since the event before it. One that is empty takes back the last.
    pub id: Option<String>,
}

/// Bytes in, events out.
///
/// Comments, `retry` and events without data are passed over. What was begun and not ended counts
/// as ended [at the end](Self::finish), since many servers forget the last blank line.
#[derive(Debug)]
pub struct Parser {
    limit: usize,
    line: Vec<u8>,
    /// The last byte was a carriage return, so a line feed belongs to it.
    after_cr: bool,
    begun: bool,
    data: Option<String>,
    name: String,
    id: Option<String>,
    ready: VecDeque<Parsed>,
}

impl Parser {
    /// Of events up to `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            line: Vec::new(),
            after_cr: false,
            begun: false,
            data: None,
            name: String::new(),
            id: None,
            ready: VecDeque::new(),
        }
    }

    /// Takes the next bytes, wherever they were cut.
    ///
    /// # Errors
    /// Where one event is larger than the limit. The events before it are still there.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<(), TooLarge> {
        while let Some(first) = bytes.first() {
            if mem::take(&mut self.after_cr) && *first == b'\n' {
                bytes = &bytes[1..];
                continue;
            }
            let end = bytes.iter().position(|b| matches!(b, b'\r' | b'\n'));
            let part = &bytes[..end.unwrap_or(bytes.len())];
            let held = self.data.as_ref().map_or(0, String::len) + self.name.len();
            let held = held + self.id.as_ref().map_or(0, String::len) + self.line.len();
            if held + part.len() > self.limit {
                return Err(TooLarge);
            }
            self.line.extend_from_slice(part);
            let Some(end) = end else { break };
            self.after_cr = bytes[end] == b'\r';
            bytes = &bytes[end + 1..];
            self.end_line();
        }
        Ok(())
    }

    /// There is no more: what was begun is an event.
    pub fn finish(&mut self) {
        if !self.line.is_empty() {
            self.end_line();
        }
        self.end_event();
    }

    fn end_line(&mut self) {
        let line = mem::take(&mut self.line);
        let mut text = line.as_slice();
        if !mem::replace(&mut self.begun, true) {
            text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        }
        if text.is_empty() {
            self.end_event();
        } else {
            self.field(text);
        }
        // Its room is for the next one.
        self.line = line;
        self.line.clear();
    }

    fn field(&mut self, line: &[u8]) {
        let colon = line.iter().position(|byte| *byte == b':');
        let (name, value) = line.split_at(colon.unwrap_or(line.len()));
        let value = value.strip_prefix(b":").unwrap_or(value);
        let value = value.strip_prefix(b" ").unwrap_or(value);
        let value = String::from_utf8_lossy(value);
        match name {
            b"data" => match &mut self.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(&value);
                }
                None => self.data = Some(value.into_owned()),
            },
            b"event" => self.name = value.into_owned(),
            b"id" if !value.contains('\0') => self.id = Some(value.into_owned()),
            _ => {}
        }
    }

    fn end_event(&mut self) {
        let name = mem::take(&mut self.name);
        let Some(data) = self.data.take() else { return };
        let id = self.id.take();
        self.ready.push_back(Parsed { name, data, id });
    }
}

impl Iterator for Parser {
    type Item = Parsed;

    /// The next event that is complete.
    fn next(&mut self) -> Option<Parsed> {
        self.ready.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &[u8]) -> Vec<Parsed> {
        let mut parser = Parser::new(1024);
        parser.push(text).unwrap();
        parser.finish();
        parser.collect()
    }

    fn event(data: &str) -> Parsed {
        Parsed {
            data: data.to_owned(),
            ..Parsed::default()
        }
    }

    /// Protects: streams are read as browsers read them, so that nothing in an event's text is
    /// taken for another event.
    #[test]
    fn events_are_read_as_browsers_read_them() {
        let delta = Parsed {
            name: "delta".into(),
            id: Some("7".into()),
            ..event("a")
        };
        let receipt = Parsed {
            name: "payment-receipt".into(),
            ..event("{}")
        };
        let ahead = Parsed {
            id: Some("9".into()),
            ..event("a")
        };
        for (text, expected) in [
            ("data: a\n\n", vec![event("a")]),
            ("data:a\r\rdata:  b\r\n\r\n", vec![event("a"), event(" b")]),
            ("data: a\ndata\ndata: b\n\n", vec![event("a\n\nb")]),
            (": comment\nretry: 5\n\nevent: x\n\n", vec![]),
            ("\u{feff}data: a\n\n", vec![event("a")]),
            (
                "event: delta\nid: 7\ndata: a\nother: b\n\ndata: c",
                vec![delta, event("c")],
            ),
            ("data\n\n", vec![event("")]),
            ("event: payment-receipt\ndata: {}\n\n", vec![receipt]),
            ("id: 9\n\ndata: a\n\n", vec![ahead]),
            (
                "data: x\\nevent: payment-receipt\n\n",
                vec![event("x\\nevent: payment-receipt")],
            ),
        ] {
            assert_eq!(parse(text.as_bytes()), expected, "{text:?}");
        }
    }

    /// Protects: nobody can make us hold more than the limit, in whatever field or pieces.
    #[test]
    fn an_event_has_a_limit() {
        for field in ["data: ", "event: ", "id: ", ": ", ""] {
            let mut parser = Parser::new(64);
            let mut pushed = parser.push(field.as_bytes());
            for _ in 0..100 {
                pushed = pushed.and_then(|()| parser.push(b"x"));
            }
            assert_eq!(pushed, Err(TooLarge), "{field:?}");
        }
        let mut parser = Parser::new(64);
        let pushed = parser.push("data: x\n".repeat(100).as_bytes());
        assert_eq!(pushed, Err(TooLarge));
        let mut parser = Parser::new(64);
        parser.push("data: x\n\n".repeat(100).as_bytes()).unwrap();
        assert_eq!(parser.count(), 100);
        let mut parser = Parser::new(64);
        for _ in 0..1_000 {
            parser.push(b": still here\n").unwrap();
        }
    }

    proptest! {
        /// Protects: where the network cuts a stream changes nothing.
        #[test]
        fn cuts_do_not_matter(
            text in "(data: |data|event: |id: |:|a|é|\r\n|\r|\n|\n\n| ){0,40}",
            cut in 0usize..200,
        ) {
            let bytes = text.as_bytes();
            let cut = cut.min(bytes.len());
            let mut parser = Parser::new(4096);
            parser.push(&bytes[..cut]).unwrap();
            parser.push(&bytes[cut..]).unwrap();
            parser.finish();
            prop_assert_eq!(parser.collect::<Vec<_>>(), parse(bytes));
        }
    }
}
