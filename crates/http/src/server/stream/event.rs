//! What a handler streams, and how it is written as a server-sent event.

use std::borrow::Cow;

use bytes::{BufMut, BytesMut};

use crate::event_stream::Parsed;

/// One piece of a metered stream: an SSE event, or a WebSocket message.
///
/// It costs one unit of the session unless [said otherwise](Self::units), and is sent once that is
/// paid for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    data: String,
    name: Option<String>,
    id: Option<String>,
    units: Option<u64>,
}

impl Event {
    /// A message of one unit. Line breaks of every kind are kept, as `\n`.
    pub fn new(data: impl Into<String>) -> Self {
        Self {
            data: data.into(),
            ..Self::default()
        }
    }

    /// Under an event name. A name that belongs to the protocol (`payment-…`, `session-timeout`) or
    /// cannot be written is left out, so that nothing a handler passes on is taken for a receipt.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into()).filter(|name| !is_reserved(name));
        self
    }

    /// With an id for whoever reconnects. One that cannot be written is left out.
    #[must_use]
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into()).filter(|id| !id.contains(['\0', '\r', '\n']));
        self
    }

    /// Costs so many units; nothing, if 0.
    #[must_use]
    pub fn units(mut self, units: u64) -> Self {
        self.units = Some(units);
        self
    }

    /// How many units it costs.
    pub fn cost(&self) -> u64 {
        self.units.unwrap_or(1)
    }

    /// Its text.
    pub fn data(&self) -> &str {
        &self.data
    }

    /// Whether it is the mark that many streams end with. The receipt is the last word here.
    pub(crate) fn is_done(&self) -> bool {
        self.data.trim_ascii() == "[DONE]"
    }

    pub(crate) fn write(&self, out: &mut BytesMut) {
        if let Some(id) = &self.id {
            field(out, "id", id);
        }
        write(out, self.name.as_deref(), &self.data);
    }
}

impl From<Parsed> for Event {
    fn from(Parsed { name, data, id }: Parsed) -> Self {
        let event = Self {
            id,
            ..Self::new(data)
        };
        match name.is_empty() {
            true => event,
            false => event.named(name),
        }
    }
}

impl From<String> for Event {
    fn from(data: String) -> Self {
        Self::new(data)
    }
}

impl From<&str> for Event {
    fn from(data: &str) -> Self {
        Self::new(data)
    }
}

impl From<Cow<'_, str>> for Event {
    fn from(data: Cow<'_, str>) -> Self {
        Self::new(data)
    }
}

/// Whether a name is the protocol's, for clients that trim it or ignore its case, or no name at all.
fn is_reserved(name: &str) -> bool {
    let bare = name.trim();
    let protocol = bare
        .get(.."payment-".len())
        .is_some_and(|start| start.eq_ignore_ascii_case("payment-"));
    bare.is_empty()
        || protocol
        || bare.eq_ignore_ascii_case("session-timeout")
        || name.chars().any(char::is_control)
}

/// Writes an event. Each line of `data` is a line of its own, so that no text can end the event or
/// begin another.
pub(crate) fn write(out: &mut BytesMut, name: Option<&str>, data: &str) {
    if let Some(name) = name {
        field(out, "event", name);
    }
    let mut rest = data;
    loop {
        let end = rest.bytes().position(|byte| matches!(byte, b'\r' | b'\n'));
        let Some(end) = end else {
            field(out, "data", rest);
            break;
        };
        field(out, "data", &rest[..end]);
        let skip = if rest[end..].starts_with("\r\n") {
            2
        } else {
            1
        };
        rest = &rest[end + skip..];
    }
    out.put_u8(b'\n');
}

fn field(out: &mut BytesMut, name: &str, value: &str) {
    out.reserve(name.len() + value.len() + 4);
    out.put_slice(name.as_bytes());
    out.put_slice(b": ");
    out.put_slice(value.as_bytes());
    out.put_u8(b'\n');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event_stream::Parser;

    fn written(event: &Event) -> String {
        let mut out = BytesMut::new();
        event.write(&mut out);
        String::from_utf8(out.to_vec()).unwrap()
    }

    /// Protects: what the wire looks like to clients that read `data: ` and nothing else.
    #[test]
    fn events_are_written_line_by_line() {
        for (event, expected) in [
            (Event::new("a"), "data: a\n\n"),
            (Event::new(""), "data: \n\n"),
            (Event::new("a\nb"), "data: a\ndata: b\n\n"),
            (
                Event::new("a\r\nb\rc\n"),
                "data: a\ndata: b\ndata: c\ndata: \n\n",
            ),
            (
                Event::new("a").named("delta").id("7"),
                "id: 7\nevent: delta\ndata: a\n\n",
            ),
        ] {
            assert_eq!(written(&event), expected);
        }
    }

    /// Protects: no name from a handler, however it is spelt, is taken for the protocol's.
    #[test]
    fn the_protocols_names_are_its_own() {
        for name in [
            "payment-receipt",
            "Payment-Receipt",
            " payment-need-voucher",
            "payment-need-topup ",
            "session-timeout",
            "\tSESSION-TIMEOUT",
            "x\nevent: payment-receipt",
            "x\rdata: y",
            "",
        ] {
            assert_eq!(written(&Event::new("a").named(name)), "data: a\n\n");
        }
        assert_eq!(written(&Event::new("a").id("1\ndata: b")), "data: a\n\n");
    }

    /// Protects: what another server streams is passed on whole, and is never taken for a receipt.
    #[test]
    fn an_upstreams_events_are_passed_on() {
        let mut parser = Parser::new(1024);
        let text = b"event: delta\nid: 7\ndata: a\n\nevent: payment-receipt\ndata: {}\n\n";
        parser.push(text).unwrap();
        let events: Vec<Event> = parser.map(Event::from).collect();
        assert_eq!(
            events,
            [Event::new("a").named("delta").id("7"), Event::new("{}")]
        );
    }

    proptest! {
        /// Protects: one event written is one event read, whatever its text, and never a receipt.
        #[test]
        fn no_text_forges_an_event(
            data in "(.|\n|\r|\r\n|\n\n|event: payment-receipt|data: |id: ){0,40}",
            name in proptest::option::of("(.|\n|\r|payment-|data: ){0,8}"),
            id in proptest::option::of("(.|\n|\r|data: ){0,8}"),
        ) {
            let mut event = Event::new(data.clone());
            if let Some(name) = name {
                event = event.named(name);
            }
            if let Some(id) = id {
                event = event.id(id);
            }
            let text = written(&event);
            let mut parser = Parser::new(1 << 20);
            parser.push(text.as_bytes()).unwrap();
            let read = parser.next().unwrap();
            prop_assert_eq!(parser.next(), None);
            let lines = data.replace("\r\n", "\n").replace('\r', "\n");
            prop_assert_eq!(read.data, lines);
            prop_assert!(!text.lines().any(|line| line.starts_with("event: payment-")));
        }
    }
}
