//! Reading an event stream (WHATWG HTML, 9.2.6) as it comes, within a limit.

use std::{collections::VecDeque, mem};

/// One event of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SseEvent {
    /// Its name, where it is not `message`.
    pub name: Option<String>,
    /// Its text, with `\n` between lines.
    pub data: String,
    /// The last id that the stream gave.
    pub id: Option<String>,
}

/// An event passed the limit.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLarge;

/// Bytes in, events out.
#[derive(Debug)]
pub(super) struct Parser {
    limit: usize,
    line: Vec<u8>,
    /// A line feed now belongs to the carriage return before it.
    after_cr: bool,
    started: bool,
    name: String,
    data: Option<String>,
    id: Option<String>,
    ready: VecDeque<SseEvent>,
}

impl Parser {
    /// Of events that hold up to `limit` bytes.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            line: Vec::new(),
            after_cr: false,
            started: false,
            name: String::new(),
            data: None,
            id: None,
            ready: VecDeque::new(),
        }
    }

    /// Takes bytes, wherever they were cut.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), TooLarge> {
        let mut rest = bytes;
        while let Some(&first) = rest.first() {
            if mem::take(&mut self.after_cr) && first == b'\n' {
                rest = &rest[1..];
                continue;
            }
            let end = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
            let (part, tail) = rest.split_at(end.unwrap_or(rest.len()));
            let held = self.data.as_ref().map_or(0, String::len) + self.name.len();
            if held + self.line.len() + part.len() > self.limit {
                return Err(TooLarge);
            }
            self.line.extend_from_slice(part);
            rest = tail;
            if let Some((&end, tail)) = tail.split_first() {
                self.after_cr = end == b'\r';
                rest = tail;
                self.end_line();
            }
        }
        Ok(())
    }

    /// The next whole event.
    pub(super) fn pop(&mut self) -> Option<SseEvent> {
        self.ready.pop_front()
    }

    fn end_line(&mut self) {
        let mut line = mem::take(&mut self.line);
        if !mem::replace(&mut self.started, true) && line.starts_with(b"\xef\xbb\xbf") {
            line.drain(..3);
        }
        if line.is_empty() {
            self.end_event();
        } else {
            self.field(&line);
        }
        line.clear();
        self.line = line;
    }

    fn field(&mut self, line: &[u8]) {
        let colon = line.iter().position(|byte| *byte == b':');
        let (name, value) = line.split_at(colon.unwrap_or(line.len()));
        let value = value.strip_prefix(b":").unwrap_or(value);
        let value = String::from_utf8_lossy(value.strip_prefix(b" ").unwrap_or(value));
        match name {
            b"event" => self.name = value.into_owned(),
            b"data" => match &mut self.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(&value);
                }
                None => self.data = Some(value.into_owned()),
            },
            b"id" if !value.contains('\0') => {
                self.id = Some(value.into_owned()).filter(|id| !id.is_empty());
            }
            _ => {}
        }
    }

    fn end_event(&mut self) {
        let name = mem::take(&mut self.name);
        let Some(data) = self.data.take() else { return };
        self.ready.push_back(SseEvent {
            name: Some(name).filter(|name| !matches!(name.as_str(), "" | "message")),
            data,
            id: self.id.clone(),
        });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(chunks: &[&[u8]]) -> Vec<SseEvent> {
        let mut parser = Parser::new(1024);
        let mut events = Vec::new();
        for chunk in chunks {
            parser.push(chunk).unwrap();
            events.extend(std::iter::from_fn(|| parser.pop()));
        }
        events
    }

    fn event(name: Option<&str>, data: &str) -> SseEvent {
        SseEvent {
            name: name.map(str::to_owned),
            data: data.to_owned(),
            id: None,
        }
    }

    /// Protects: streams are read as browsers read them, so that nothing in an event's text is
    /// taken for another event.
    #[test]
    fn streams_are_read_as_browsers_do() {
        let text = b"\xef\xbb\xbf: hello\nevent: message\ndata: a\ndata:  b\n\n\
            event: payment-receipt\r\ndata:{}\r\n\r\ndata\rretry: 5\r\revent: none\n\ndata: cut";
        let events = parse(&[text]);
        assert_eq!(
            events,
            [
                event(None, "a\n b"),
                event(Some("payment-receipt"), "{}"),
                event(None, ""),
            ]
        );
        let injected = parse(&[b"data: x\\nevent: payment-receipt\n\n"]);
        assert_eq!(injected, [event(None, "x\\nevent: payment-receipt")]);
        let ids = parse(&[b"id: 7\ndata: x\n\ndata: y\n\nid\ndata: z\n\n"]);
        let ids: Vec<_> = ids.iter().map(|event| event.id.as_deref()).collect();
        assert_eq!(ids, [Some("7"), Some("7"), None]);
    }

    /// Protects: an endless event does not fill the memory, and comments do not count.
    #[test]
    fn events_are_limited() {
        let mut parser = Parser::new(10);
        assert_eq!(parser.push(b"data: 56789012"), Err(TooLarge));
        let mut parser = Parser::new(20);
        parser.push(b"data: 0123456789\n").unwrap();
        assert_eq!(parser.push(b"data: 012345678"), Err(TooLarge));
        let mut parser = Parser::new(20);
        for _ in 0..1_000 {
            parser.push(b": still here\n").unwrap();
        }
    }

    proptest! {
        /// Protects: it does not matter where the network cuts the stream.
        #[test]
        fn cuts_do_not_matter(
            text in "(data: [a-c]{0,3}|event: [a-c]|:|id: 1|\r|\n|\r\n|\n\n){0,20}",
            at in any::<prop::sample::Index>(),
        ) {
            let bytes = text.as_bytes();
            let (a, b) = bytes.split_at(at.index(bytes.len() + 1));
            prop_assert_eq!(parse(&[a, b]), parse(&[bytes]));
        }
    }
}
