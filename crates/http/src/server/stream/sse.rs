//! Metered server-sent events.

use std::{
    convert::Infallible,
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use futures_core::Stream;
use http::{
    HeaderValue, Response,
    header::{CACHE_CONTROL, CONTENT_TYPE},
};
use http_body::{Body, Frame};
use serde_json::Value;

use super::{
    Event,
    charged::{Charged, Out},
    event::write,
};

/// How much is put into one frame before it is passed on, in bytes. The connection holds a few
/// frames for a client that reads slowly, so this bounds what a stream keeps in memory.
const FRAME: usize = 4 * 1024;

/// The body of a metered event stream.
///
/// It asks the handler for an event once it can be paid for, and charges it before it is sent. An
/// exhausted balance is told once, in the rail's words, and the stream holds until the payer has
/// authorised more; it ends with one receipt. A client that goes away gives back what was held.
pub struct SseBody<S> {
    charged: Charged<S>,
    buffer: BytesMut,
    over: bool,
}

impl<S> SseBody<S> {
    pub(crate) fn new(charged: Charged<S>) -> Self {
        Self {
            charged,
            buffer: BytesMut::new(),
            over: false,
        }
    }

    /// As a response, with the headers of an event stream.
    pub(crate) fn into_response(self) -> Response<Self> {
        let mut response = Response::new(self);
        head(response.headers_mut());
        response
    }
}

/// No cache may keep it, and nothing on the way may put it into other pieces.
pub(crate) fn head(headers: &mut http::HeaderMap) {
    for (name, value) in [
        (CONTENT_TYPE, "text/event-stream; charset=utf-8"),
        (CACHE_CONTROL, "no-cache, no-transform"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

impl<S, T, E> Body for SseBody<S>
where
    S: Stream<Item = Result<T, E>>,
    T: Into<Event>,
    E: fmt::Display,
{
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = &mut *self;
        while !this.over && this.buffer.len() < FRAME {
            match Pin::new(&mut this.charged).poll_next(cx) {
                Poll::Ready(Some(out)) => put(&mut this.buffer, &out),
                Poll::Ready(None) => this.over = true,
                Poll::Pending if this.buffer.is_empty() => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        if this.buffer.is_empty() {
            return Poll::Ready(None);
        }
        // What is sent leaves no room behind: most streams wait most of the time.
        let bytes = std::mem::take(&mut this.buffer).freeze();
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }
}

fn put(buffer: &mut BytesMut, out: &Out) {
    match out {
        Out::Data(event) => event.write(buffer),
        Out::Notice(notice) => {
            // Text stands as it is: the mark that a rail ends its streams with.
            let data = match &notice.data {
                Value::String(text) => text.clone(),
                data => data.to_string(),
            };
            let name = (notice.name != "message").then_some(notice.name);
            write(buffer, name, &data);
        }
        Out::Beat => buffer.extend_from_slice(b":\n\n"),
        Out::Receipt(receipt) => {
            // Texts, numbers and values that were JSON before: this does not fail.
            let receipt = serde_json::to_string(receipt).unwrap_or_default();
            write(buffer, Some("payment-receipt"), &receipt);
        }
    }
}

impl<S> fmt::Debug for SseBody<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SseBody")
    }
}
