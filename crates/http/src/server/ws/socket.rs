//! One paid WebSocket: credentials come in frames, and so does what is paid for.

use std::{collections::VecDeque, fmt, future::pending, pin::Pin, time::Duration};

use axum::extract::ws::{CloseFrame, Message, WebSocket};
use farebox_core::{ChannelId, wire::Receipt};
use farebox_engine::Tap;
use futures_core::Stream;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};

use super::{
    desk::{Accepted, Desk, Refusal},
    frame::{self, Frame, Sent},
};
use crate::server::stream::{Charged, Event, Out, Pace};

/// How many credentials may wait for the one that is being looked at.
const QUEUE: usize = 32;

/// How many of the client's own messages wait for the handler.
pub(super) const INBOX: usize = 32;

/// How long a client may take to read one message. One that does not read holds balance back.
const SEND: Duration = Duration::from_secs(30);

/// What a socket is closed with.
#[derive(Clone, Copy, Debug)]
enum Code {
    Done = 1000,
    Refused = 1008,
    Failed = 1011,
}

/// The socket is gone.
struct Gone;

type Looking = Pin<Box<dyn Future<Output = Result<Accepted, Refusal>> + Send>>;

/// Serves one socket until it is closed.
pub(super) struct Socket<S, F> {
    socket: WebSocket,
    desk: Desk,
    pace: Pace,
    /// Begins the handler's stream; taken once.
    begin: Option<F>,
    stream: Option<Charged<S>>,
    inbox: Option<mpsc::Sender<String>>,
    queue: VecDeque<String>,
    looking: Option<Looking>,
    /// The challenge of the latest credential of the stream's channel: what a client expects its
    /// receipts to name.
    challenge: Option<String>,
    channel: Option<ChannelId>,
    /// How it ends once the stream has.
    ending: Option<(Code, &'static str)>,
    /// When a client that has nothing more to say is let go.
    idle: Instant,
}

impl<S, F, T, E> Socket<S, F>
where
    F: FnOnce() -> S,
    S: Stream<Item = Result<T, E>>,
    T: Into<Event>,
    E: fmt::Display,
{
    pub(super) fn new(
        socket: WebSocket,
        desk: Desk,
        pace: Pace,
        inbox: mpsc::Sender<String>,
        begin: F,
    ) -> Self {
        Self {
            socket,
            desk,
            begin: Some(begin),
            stream: None,
            inbox: Some(inbox),
            queue: VecDeque::new(),
            looking: None,
            challenge: None,
            channel: None,
            ending: None,
            idle: Instant::now() + pace.patience,
            pace,
        }
    }

    pub(super) async fn run(mut self) {
        // The socket being gone is how most of them end.
        if let Ok((code, reason)) = self.serve().await {
            let frame = CloseFrame {
                code: code as u16,
                reason: reason.into(),
            };
            let close = self.socket.send(Message::Close(Some(frame)));
            let _ = timeout(SEND, close).await;
        }
    }

    async fn serve(&mut self) -> Result<(Code, &'static str), Gone> {
        loop {
            if self.looking.is_none()
                && let Some(credential) = self.queue.pop_front()
            {
                self.looking = Some(Box::pin(self.desk.clone().accept(credential)));
            }
            let waits = self.stream.is_none() && self.looking.is_none();
            let stream = self.stream.as_mut();
            tokio::select! {
                message = self.socket.recv() => {
                    let Some(Ok(message)) = message else { return Err(Gone) };
                    self.receive(message).await?;
                }
                accepted = polled(self.looking.as_mut()) => {
                    self.looking = None;
                    if let Some(end) = self.answer(accepted).await? {
                        return Ok(end);
                    }
                }
                out = next(stream) => match out {
                    Some(out) => self.pass_on(out).await?,
                    None => {
                        self.stream = None;
                        self.idle = Instant::now() + self.pace.patience;
                        if let Some(end) = self.ending {
                            return Ok(end);
                        }
                    }
                },
                () = sleep_until(self.idle), if waits => {
                    return Ok(match (self.ending, &self.begin) {
                        (Some(end), _) => end,
                        (None, Some(_)) => (Code::Refused, "no payment came"),
                        (None, None) => (Code::Done, "the stream is over"),
                    });
                }
            }
        }
    }

    async fn receive(&mut self, message: Message) -> Result<(), Gone> {
        let text = match message {
            Message::Text(text) => text.as_str().to_owned(),
            Message::Close(_) => return Err(Gone),
            // Pongs are sent by themselves, and nothing of the protocol is binary.
            Message::Binary(_) | Message::Ping(_) | Message::Pong(_) => return Ok(()),
        };
        match Frame::parse(text) {
            Ok(Frame::Authorization(_)) if self.queue.len() >= QUEUE => {
                self.refuse(429, "too many payment messages wait").await
            }
            Ok(Frame::Authorization(credential)) => {
                self.queue.push_back(credential);
                Ok(())
            }
            Ok(Frame::CloseRequest) => {
                match &mut self.stream {
                    Some(stream) => stream.end(),
                    None => self.idle = Instant::now() + self.pace.patience,
                }
                Ok(())
            }
            Ok(Frame::Other(text)) => {
                // A handler that does not listen loses what is more than it has room for.
                if let Some(inbox) = &self.inbox
                    && let Err(mpsc::error::TrySendError::Closed(_)) = inbox.try_send(text)
                {
                    self.inbox = None;
                }
                Ok(())
            }
            Err(_) => self.refuse(400, "a payment message cannot be read").await,
        }
    }

    /// Says why, and ends: what was served until now is receipted.
    async fn refuse(&mut self, status: u16, message: &str) -> Result<(), Gone> {
        self.queue.clear();
        self.send(Sent::PaymentError { status, message }.text())
            .await?;
        let code = match status {
            500.. => (Code::Failed, "the payment could not be processed"),
            _ => (Code::Refused, "the payment was refused"),
        };
        self.ending = Some(code);
        match &mut self.stream {
            Some(stream) => stream.end(),
            None => self.idle = Instant::now(),
        }
        Ok(())
    }

    /// Answers a credential. `Some`: the socket is to be closed.
    async fn answer(
        &mut self,
        accepted: Result<Accepted, Refusal>,
    ) -> Result<Option<(Code, &'static str)>, Gone> {
        let accepted = match accepted {
            Ok(accepted) => accepted,
            Err(refusal) => {
                self.refuse(refusal.status, &refusal.message).await?;
                return Ok(None);
            }
        };
        let ours = |tap: &Tap| {
            self.channel
                .as_ref()
                .is_none_or(|ours| tap.meter().channel() == ours)
        };
        if let Some(tap) = accepted.tap.as_ref().filter(|tap| ours(tap)) {
            self.challenge = Some(accepted.challenge);
            self.channel = Some(tap.meter().channel().clone());
        }
        self.send(
            Sent::PaymentReceipt {
                data: json(&accepted.receipt),
            }
            .text(),
        )
        .await?;
        if accepted.closed {
            return Ok(Some((Code::Done, "the session is closed")));
        }
        if let (Some(tap), None) = (accepted.tap, &self.ending)
            && let Some(begin) = self.begin.take()
        {
            self.stream = Some(Charged::new(tap, None, self.pace, begin()));
        }
        Ok(None)
    }

    async fn pass_on(&mut self, out: Out) -> Result<(), Gone> {
        let text = match out {
            Out::Data(event) => Sent::Message { data: event.data() }.text(),
            Out::Notice(notice) => frame::event(notice.name, &notice.data),
            Out::Receipt(mut receipt) => {
                if let Some(challenge) = &self.challenge {
                    receipt
                        .extra
                        .insert("challengeId".to_owned(), challenge.as_str().into());
                }
                Sent::PaymentCloseReady {
                    data: json(&receipt),
                }
                .text()
            }
            Out::Beat => return self.transmit(Message::Ping(Vec::new().into())).await,
        };
        self.send(text).await
    }

    async fn send(&mut self, text: String) -> Result<(), Gone> {
        self.transmit(Message::Text(text.into())).await
    }

    async fn transmit(&mut self, message: Message) -> Result<(), Gone> {
        match timeout(SEND, self.socket.send(message)).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(Gone),
        }
    }
}

fn json(receipt: &Receipt) -> serde_json::Value {
    serde_json::to_value(receipt).unwrap_or_default()
}

async fn polled(looking: Option<&mut Looking>) -> Result<Accepted, Refusal> {
    match looking {
        Some(looking) => looking.await,
        None => pending().await,
    }
}

async fn next<S, T, E>(stream: Option<&mut Charged<S>>) -> Option<Out>
where
    S: Stream<Item = Result<T, E>>,
    T: Into<Event>,
    E: fmt::Display,
{
    match stream {
        Some(stream) => std::future::poll_fn(|cx| Pin::new(&mut *stream).poll_next(cx)).await,
        None => pending().await,
    }
}
