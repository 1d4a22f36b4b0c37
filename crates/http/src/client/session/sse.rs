//! Events as a client reads them.

use crate::event_stream::{Parsed, Parser, TooLarge};

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

/// Bytes in, events out.
#[derive(Debug)]
pub(super) struct Reader {
    parser: Parser,
    last_id: Option<String>,
}

impl Reader {
    /// Of events that hold up to `limit` bytes.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            parser: Parser::new(limit),
            last_id: None,
        }
    }

    /// Takes bytes, wherever they were cut.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), TooLarge> {
        self.parser.push(bytes)
    }

    /// The next whole event.
    pub(super) fn pop(&mut self) -> Option<SseEvent> {
        let Parsed { name, data, id } = self.parser.next()?;
        if let Some(id) = id {
            self.last_id = Some(id).filter(|id| !id.is_empty());
        }
        Some(SseEvent {
            name: Some(name).filter(|name| !matches!(name.as_str(), "" | "message")),
            data,
            id: self.last_id.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects: an event is known by the last id that was given, with it or before it.
    #[test]
    fn ids_last_until_the_next() {
        let mut reader = Reader::new(1024);
        let text = b"id: 7\ndata: x\n\ndata: y\n\nid\ndata: z\n\nevent: message\ndata: w\n\n";
        reader.push(text).unwrap();
        let events: Vec<_> = std::iter::from_fn(|| reader.pop()).collect();
        let ids: Vec<_> = events.iter().map(|event| event.id.as_deref()).collect();
        assert_eq!(ids, [Some("7"), Some("7"), None, None]);
        assert_eq!(events[3].name, None);
    }
}
