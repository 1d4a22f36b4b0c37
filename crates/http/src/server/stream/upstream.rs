//! Another server's event stream, to be metered.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Buf as _;
use futures_core::Stream;
use http_body::Body;

use super::Event;
use crate::event_stream::{Parser, TooLarge};

/// The events of a body of the type `text/event-stream`, but for the `[DONE]` that many end with:
/// the last word is the receipt's, and nobody pays for it.
pub struct Events<B> {
    body: Pin<Box<B>>,
    parser: Parser,
    over: bool,
}

/// Why an upstream's stream ended before its time.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BrokenOff<E> {
    /// The connection.
    #[error("the connection broke off")]
    Body(#[source] E),
    /// What came.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
}

impl<B> Events<B> {
    /// Reads `body`. An event may have `limit` bytes.
    pub fn new(body: B, limit: usize) -> Self {
        Self {
            body: Box::pin(body),
            parser: Parser::new(limit),
            over: false,
        }
    }
}

impl<B: Body> Stream for Events<B> {
    type Item = Result<Event, BrokenOff<B::Error>>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            if let Some(event) = this
                .parser
                .by_ref()
                .map(Event::from)
                .find(|event| !event.is_done())
            {
                return Poll::Ready(Some(Ok(event)));
            }
            if this.over {
                return Poll::Ready(None);
            }
            let pushed = match this.body.as_mut().poll_frame(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => {
                    this.over = true;
                    this.parser.finish();
                    continue;
                }
                Poll::Ready(Some(Err(error))) => {
                    this.over = true;
                    return Poll::Ready(Some(Err(BrokenOff::Body(error))));
                }
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(mut data) => push(&mut this.parser, &mut data),
                    Err(_trailers) => continue,
                },
            };
            if let Err(error) = pushed {
                this.over = true;
                return Poll::Ready(Some(Err(error.into())));
            }
        }
    }
}

fn push(parser: &mut Parser, data: &mut impl bytes::Buf) -> Result<(), TooLarge> {
    while data.has_remaining() {
        let chunk = data.chunk();
        let length = chunk.len();
        parser.push(chunk)?;
        data.advance(length);
    }
    Ok(())
}

impl<B> fmt::Debug for Events<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Events")
    }
}
