//! What is said over a WebSocket that is paid for.

use std::collections::VecDeque;

use farebox_client::session::{Answer, Demand};
use farebox_core::wire::{ProblemDetails, Receipt};
use futures_util::{SinkExt, StreamExt};
use reqwest::Upgraded;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use tokio_tungstenite::{WebSocketStream, tungstenite::Message};

use super::{
    error::SessionCallError,
    listen::{Heard, Tell, Till},
    socket::{SocketCourier, authorization, broken},
    sse::SseEvent,
};

/// How many messages may wait to be taken. A socket that nobody reads is not paid for.
pub(super) const WAITING: usize = 32;

/// How many more are read while a credential waits for its answer, which comes after them.
const AHEAD: usize = 32;

/// What is to be sent.
pub(super) enum Order {
    /// For the handler.
    Say(String),
    /// A credential.
    Pay(String, oneshot::Sender<Answer>),
    /// No more.
    Stop,
}

/// What a server says.
#[derive(Deserialize)]
#[serde(tag = "mpp", rename_all = "kebab-case")]
pub(super) enum Frame {
    Message {
        data: Value,
    },
    PaymentNeedVoucher {
        data: Value,
    },
    PaymentNeedTopup {
        data: Value,
    },
    PaymentReceipt {
        data: Value,
    },
    PaymentCloseReady {
        data: Value,
    },
    PaymentError {
        #[serde(default)]
        status: u16,
        #[serde(default)]
        message: String,
    },
    SessionTimeout,
}

pub(super) fn accepted(data: Value) -> Answer {
    let receipt: Option<Receipt> = serde_json::from_value(data).ok();
    Answer::Accepted(receipt.map(Box::new))
}

/// What went wrong comes as a text, or as the problem that HTTP would have told.
pub(super) fn refused(status: u16, message: &str) -> Answer {
    let problem: Option<ProblemDetails> = serde_json::from_str(message).ok();
    match status {
        500.. => Answer::of_fault(status, problem.as_ref(), None),
        _ => Answer::Refused {
            status,
            problem: problem.map(Box::new),
            challenges: Vec::new(),
        },
    }
}

/// Talks to a server for a caller, and pays it.
pub(super) struct Talk {
    till: Till,
    courier: SocketCourier,
    /// Who waits for the answer to a credential, in the order they were sent.
    waiting: VecDeque<oneshot::Sender<Answer>>,
    /// What the caller has no room for yet.
    unheard: VecDeque<Heard>,
    tell: Tell,
}

impl Talk {
    pub(super) fn new(till: Till, courier: SocketCourier, tell: Tell) -> Self {
        Self {
            till,
            courier,
            waiting: VecDeque::new(),
            unheard: VecDeque::new(),
            tell,
        }
    }

    /// Who paid, and what the caller was not told yet. Nobody answers a credential any more.
    pub(super) fn into_parts(self) -> (Till, VecDeque<Heard>, Tell) {
        (self.till, self.unheard, self.tell)
    }

    /// Whether to read on. A server is held up until the caller has taken what it said, but for one
    /// that owes an answer to a credential: others wait for that.
    fn reads(&self) -> bool {
        let waits = || self.waiting.iter().any(|reply| !reply.is_closed());
        self.unheard.is_empty() || (self.unheard.len() < AHEAD && waits())
    }

    /// Talks until either side has had enough.
    pub(super) async fn talk(
        &mut self,
        mut socket: WebSocketStream<Upgraded>,
        mut orders: mpsc::Receiver<Order>,
    ) -> Result<(), SessionCallError> {
        let tell = self.tell.clone();
        loop {
            let (reads, tells) = (self.reads(), !self.unheard.is_empty());
            tokio::select! {
                answered = self.till.answered(&self.courier) => answered?,
                order = orders.recv() => match order {
                    Some(Order::Say(text)) => {
                        socket.send(Message::text(text)).await.map_err(broken)?;
                    }
                    Some(Order::Pay(credential, reply)) => {
                        self.waiting.push_back(reply);
                        socket.send(authorization(&credential)).await.map_err(broken)?;
                    }
                    Some(Order::Stop) => {
                        let stop = json!({ "mpp": "payment-close-request" }).to_string();
                        socket.send(Message::text(stop)).await.map_err(broken)?;
                    }
                    None => {}
                },
                Ok(room) = tell.reserve(), if tells => {
                    if let Some(heard) = self.unheard.pop_front() {
                        room.send(Ok(heard));
                    }
                }
                message = socket.next(), if reads => {
                    let Some(message) = message else { return Ok(()) };
                    let text = match message.map_err(broken)? {
                        Message::Text(text) => text,
                        Message::Close(_) => return Ok(()),
                        // Pings are answered by the library.
                        _ => continue,
                    };
                    if !self.hear(&text).await? {
                        let _ = socket.close(None).await;
                        return Ok(());
                    }
                }
                () = tell.closed() => {
                    let _ = socket.close(None).await;
                    return Ok(());
                }
            }
        }
    }

    /// `false` if that was the last word.
    async fn hear(&mut self, text: &str) -> Result<bool, SessionCallError> {
        let frame = match serde_json::from_str::<Value>(text) {
            Ok(value) if value.get("mpp").is_some() => value,
            // Not the protocol's, and not metered.
            _ => {
                self.pass(text.to_owned());
                return Ok(true);
            }
        };
        let frame: Frame =
            serde_json::from_value(frame).map_err(|_| SessionCallError::Unreadable)?;
        match frame {
            Frame::Message { data } => {
                self.till.piece(&self.courier);
                let text = match data {
                    Value::String(text) => text,
                    other => other.to_string(),
                };
                self.pass(text);
                Ok(true)
            }
            Frame::PaymentNeedVoucher { data } | Frame::PaymentNeedTopup { data } => {
                let demand = Demand::parse(&data.to_string());
                let demand = demand.ok_or(SessionCallError::Unreadable)?;
                self.till.demand(demand, &self.courier)?;
                Ok(true)
            }
            Frame::PaymentReceipt { data } => match self.waiting.pop_front() {
                Some(reply) => {
                    let _ = reply.send(accepted(data));
                    Ok(true)
                }
                None => self.conclude(data).await.map(|()| true),
            },
            Frame::PaymentCloseReady { data } => self.conclude(data).await.map(|()| false),
            Frame::PaymentError { status, message } => match self.waiting.pop_front() {
                Some(reply) => {
                    let _ = reply.send(refused(status, &message));
                    Ok(true)
                }
                None => Err(SessionCallError::Ended { status, message }),
            },
            Frame::SessionTimeout => Err(SessionCallError::TimedOut),
        }
    }

    async fn conclude(&mut self, data: Value) -> Result<(), SessionCallError> {
        let receipt: Receipt =
            serde_json::from_value(data).map_err(|_| SessionCallError::Unreadable)?;
        self.till.concluded(&receipt).await?;
        self.unheard.push_back(Heard::Receipt(Box::new(receipt)));
        Ok(())
    }

    fn pass(&mut self, data: String) {
        let event = SseEvent {
            data,
            ..SseEvent::default()
        };
        self.unheard.push_back(Heard::Event(event));
    }
}
