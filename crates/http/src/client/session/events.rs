//! Event streams that are paid for as they come.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use farebox_core::wire::Receipt;
use futures_core::Stream;
use http::header::CONTENT_TYPE;
use tokio::sync::mpsc;

use super::{
    client::{Paid, finish},
    error::SessionCallError,
    listen::{self, Heard},
    sse::SseEvent,
};

/// How many events may wait to be taken. A stream that nobody reads is not paid for.
const WAITING: usize = 32;

/// The events of a stream, without those about payment, which are answered on the way.
///
/// Dropping it ends the stream.
pub struct EventStream {
    channel: Option<String>,
    heard: mpsc::Receiver<Result<Heard, SessionCallError>>,
    receipt: Option<Receipt>,
}

impl EventStream {
    pub(super) async fn of(paid: Paid) -> Result<Self, SessionCallError> {
        let kind = paid.response.headers().get(CONTENT_TYPE);
        let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let essence = kind.split(';').next().unwrap_or_default().trim();
        if !essence.eq_ignore_ascii_case("text/event-stream")
            || !paid.response.status().is_success()
        {
            if let Some((call, _)) = paid.call {
                finish(call).await;
            }
            return Err(SessionCallError::NotEvents(Box::new(paid.response)));
        }
        let channel = paid.call.as_ref().map(|(call, _)| call.key().to_owned());
        let (tell, heard) = mpsc::channel(WAITING);
        // On its own task, so that the stream is paid for while the caller is busy with it.
        tokio::spawn(listen::events(paid, tell));
        Ok(Self {
            channel,
            heard,
            receipt: None,
        })
    }

    /// The next event; `None` at the end.
    pub async fn recv(&mut self) -> Option<Result<SseEvent, SessionCallError>> {
        std::future::poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }

    /// The [`key`](farebox_client::session::ChannelInfo::key) of the channel that pays for it. `None`
    /// if it costs nothing.
    #[must_use]
    pub fn channel(&self) -> Option<&str> {
        self.channel.as_deref()
    }

    /// Ends the stream before it does so itself, and waits until what came is accounted for. Dropping
    /// it ends it too.
    pub async fn stop(mut self) {
        self.heard.close();
        while self.heard.recv().await.is_some() {}
    }

    /// The receipt that the stream ended with, once it has been read to its end. It was held
    /// against what was received.
    #[must_use]
    pub fn receipt(&self) -> Option<&Receipt> {
        self.receipt.as_ref()
    }
}

impl Stream for EventStream {
    type Item = Result<SseEvent, SessionCallError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match ready!(self.heard.poll_recv(cx)) {
                Some(Ok(Heard::Event(event))) => return Poll::Ready(Some(Ok(event))),
                Some(Ok(Heard::Receipt(receipt))) => self.receipt = Some(*receipt),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
    }
}

impl fmt::Debug for EventStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventStream").finish_non_exhaustive()
    }
}
