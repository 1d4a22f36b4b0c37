//! Reading an upstream's event stream (WHATWG HTML, 9.2.6), piece by piece and within a limit.

use std::collections::VecDeque;

use super::event::Event;

/// The event is larger than the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event is larger than the limit")]
pub struct TooLarge;

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
    ready: VecDeque<Event>,
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
            if std::mem::take(&mut self.after_cr) && *first == b'\n' {
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
        let line = std::mem::take(&mut self.line);
        let mut text = line.as_slice();
        if !std::mem::replace(&mut self.begun, true) {
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
        let (name, id) = (std::mem::take(&mut self.name), self.id.take());
        let Some(data) = self.data.take() else { return };
        let mut event = Event::new(data);
        if !name.is_empty() {
            event = event.named(name);
        }
        if let Some(id) = id {
            event = event.id(id);
        }
        self.ready.push_back(event);
    }
}

impl Iterator for Parser {
    type Item = Event;

    /// The next event that is complete.
    fn next(&mut self) -> Option<Event> {
        self.ready.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &[u8]) -> Vec<Event> {
        let mut parser = Parser::new(1024);
        parser.push(text).unwrap();
        parser.finish();
        parser.collect()
    }

    /// Protects: upstreams are read as browsers read them.
    #[test]
    fn events_are_read_as_browsers_read_them() {
        for (text, expected) in [
            ("data: a\n\n", vec![Event::new("a")]),
            ("data:a\r\rdata:  b\r\n\r\n", vec!["a".into(), " b".into()]),
            ("data: a\ndata\ndata: b\n\n", vec!["a\n\nb".into()]),
            (": comment\nretry: 5\n\nevent: x\n\n", vec![]),
            ("\u{feff}data: a\n\n", vec!["a".into()]),
            (
                "event: delta\nid: 7\ndata: a\nother: b\n\ndata: c",
                vec![Event::new("a").named("delta").id("7"), "c".into()],
            ),
            ("data\n\n", vec!["".into()]),
            (
                "event: payment-receipt\ndata: {}\n\n",
                vec![Event::new("{}")],
            ),
        ] {
            assert_eq!(parse(text.as_bytes()), expected, "{text:?}");
        }
    }

    /// Protects: an upstream cannot make us hold more than the limit, in whatever field or pieces.
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
