//! Reading a stream and paying for it at the same time.

use farebox_client::session::{Call, Counter, Courier, Demand, SessionError};
use farebox_core::wire::Receipt;
use tokio::{sync::mpsc, task::JoinHandle};

use super::{
    client::{Paid, finish},
    error::SessionCallError,
    sse::{Reader, SseEvent},
};

/// The largest event that is read, in bytes.
const LIMIT: usize = 1024 * 1024;

/// What a stream tells the caller.
#[derive(Debug)]
pub(super) enum Heard {
    /// An event of its own.
    Event(SseEvent),
    /// The receipt at its end.
    Receipt(Box<Receipt>),
}

/// A call that has answered a demand, and how that went.
type Answered = (Box<Call>, Result<(), SessionError>);

/// A call, at rest or while it answers a demand.
pub(super) enum Payer {
    Resting(Box<Call>),
    /// On a task of its own: it has a turn on the channel, and the calls that wait for that must not
    /// wait for somebody to read this stream. It runs to its end whatever becomes of the stream.
    Paying(JoinHandle<Answered>),
    Gone,
}

/// Pays for a stream: counts what arrives and answers what is demanded, one demand at a time.
pub(super) struct Till {
    payer: Payer,
    counter: Counter,
    /// A demand that came meanwhile.
    next: Option<Demand>,
    /// The receipt has come that the stream ends with.
    concluded: bool,
}

impl Till {
    pub(super) fn new(call: Call) -> Self {
        Self {
            counter: call.counter(),
            payer: Payer::Resting(Box::new(call)),
            next: None,
            concluded: false,
        }
    }

    /// A piece of the stream has arrived.
    pub(super) fn piece<C: Courier + Clone + 'static>(&mut self, courier: &C) {
        self.counter.event();
        if self.is_paying() {
            // A stream that goes on has what it asked for.
            self.next = None;
        } else {
            self.settle(courier);
        }
    }

    /// Pays what the stream took of what was signed for other calls.
    fn settle<C: Courier + Clone + 'static>(&mut self, courier: &C) {
        self.payer = match std::mem::replace(&mut self.payer, Payer::Gone) {
            Payer::Resting(mut call) if call.owes() => {
                let courier = courier.clone();
                Payer::Paying(tokio::spawn(async move {
                    let done = call.settle(&courier).await;
                    (call, done)
                }))
            }
            other => other,
        };
    }

    /// The stream wants money.
    pub(super) fn demand<C: Courier + Clone + 'static>(
        &mut self,
        demand: Demand,
        courier: &C,
    ) -> Result<(), SessionCallError> {
        match std::mem::replace(&mut self.payer, Payer::Gone) {
            Payer::Resting(mut call) => {
                let courier = courier.clone();
                self.payer = Payer::Paying(tokio::spawn(async move {
                    let done = call.demand(&demand, &courier).await;
                    (call, done)
                }));
                Ok(())
            }
            paying => {
                self.payer = paying;
                // While one is answered there is no reason for more than one other.
                match self.next.replace(demand) {
                    Some(_) => Err(SessionError::NoProgress.into()),
                    None => Ok(()),
                }
            }
        }
    }

    /// Waits until the demand under way is answered; for ever if there is none.
    pub(super) async fn answered<C: Courier + Clone + 'static>(
        &mut self,
        courier: &C,
    ) -> Result<(), SessionCallError> {
        let Payer::Paying(paying) = &mut self.payer else {
            return std::future::pending().await;
        };
        let answered = paying.await;
        self.payer = Payer::Gone;
        // All that it may have signed stays counted.
        let (call, done) = answered.map_err(|error| SessionCallError::Broken(error.to_string()))?;
        self.payer = Payer::Resting(call);
        done?;
        match self.next.take() {
            Some(demand) => self.demand(demand, courier),
            None => {
                self.settle(courier);
                Ok(())
            }
        }
    }

    /// The call, once no demand is under way.
    pub(super) async fn rest(self) -> Option<Box<Call>> {
        let mut call = match self.payer {
            Payer::Resting(call) => call,
            Payer::Paying(paying) => paying.await.ok()?.0,
            Payer::Gone => return None,
        };
        if !self.concluded {
            call.cut_short();
        }
        Some(call)
    }

    /// Holds the last receipt against what arrived.
    pub(super) async fn concluded(&mut self, receipt: &Receipt) -> Result<(), SessionCallError> {
        if let Payer::Resting(call) = &mut self.payer {
            call.concluded(receipt).await?;
            self.concluded = true;
        }
        Ok(())
    }

    pub(super) fn is_paying(&self) -> bool {
        matches!(self.payer, Payer::Paying(_))
    }
}

/// What the caller reads from.
pub(super) type Tell = mpsc::Sender<Result<Heard, SessionCallError>>;

/// Reads a stream to its end, or until it cannot be paid for or nobody listens.
pub(super) async fn events(paid: Paid, tell: Tell) {
    let Paid { mut response, call } = paid;
    let Some((call, courier)) = call else {
        let mut parser = Reader::new(LIMIT);
        if let Err(error) = free(&mut response, &mut parser, &tell).await {
            let _ = tell.send(Err(error)).await;
        }
        return;
    };
    let mut stream = Reading {
        till: Till::new(call),
        courier,
        tell,
        concluded: false,
    };
    let result = stream.read(&mut response).await;
    drop(response);
    let Reading {
        till,
        tell,
        courier,
        ..
    } = stream;
    if let Some(mut call) = till.rest().await {
        // Other calls on the channel may wait for it.
        if result.is_ok()
            && let Err(error) = call.settle(&courier).await
        {
            tracing::debug!(%error, "what a stream took of other calls is not settled");
        }
        finish(*call).await;
    }
    if let Err(error) = result {
        let _ = tell.send(Err(error)).await;
    }
}

/// A stream that costs nothing.
async fn free(
    response: &mut reqwest::Response,
    parser: &mut Reader,
    tell: &Tell,
) -> Result<(), SessionCallError> {
    while let Some(chunk) = response.chunk().await.map_err(broken)? {
        parser
            .push(&chunk)
            .map_err(|_| SessionCallError::TooLarge { limit: LIMIT })?;
        while let Some(event) = parser.pop() {
            if tell.send(Ok(Heard::Event(event))).await.is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}

fn broken(error: reqwest::Error) -> SessionCallError {
    SessionCallError::Broken(error.without_url().to_string())
}

struct Reading<C> {
    till: Till,
    courier: C,
    tell: Tell,
    concluded: bool,
}

/// Whether to read on.
enum Then {
    On,
    Stop,
}

impl<C: Courier + Clone + 'static> Reading<C> {
    async fn read(&mut self, response: &mut reqwest::Response) -> Result<(), SessionCallError> {
        let mut parser = Reader::new(LIMIT);
        loop {
            tokio::select! {
                answered = self.till.answered(&self.courier) => answered?,
                chunk = response.chunk() => {
                    let Some(chunk) = chunk.map_err(broken)? else { return Ok(()) };
                    parser
                        .push(&chunk)
                        .map_err(|_| SessionCallError::TooLarge { limit: LIMIT })?;
                    while let Some(event) = parser.pop() {
                        if let Then::Stop = self.event(event).await? {
                            return Ok(());
                        }
                    }
                }
                () = self.tell.closed() => return Ok(()),
            }
        }
    }

    async fn event(&mut self, event: SseEvent) -> Result<Then, SessionCallError> {
        match event.name.as_deref() {
            Some("payment-need-voucher" | "payment-need-topup") => {
                let demand = Demand::parse(&event.data).ok_or(SessionCallError::Unreadable)?;
                self.till.demand(demand, &self.courier)?;
                Ok(Then::On)
            }
            Some("payment-receipt") => {
                let receipt: Receipt =
                    serde_json::from_str(&event.data).map_err(|_| SessionCallError::Unreadable)?;
                while self.till.is_paying() {
                    self.till.answered(&self.courier).await?;
                }
                self.till.concluded(&receipt).await?;
                self.concluded = true;
                Ok(pass(&self.tell, Heard::Receipt(Box::new(receipt))).await)
            }
            Some("session-timeout") => Err(SessionCallError::TimedOut),
            _ => {
                // The mark that many streams end with is not metered, and the receipt is the last
                // word about money.
                if !self.concluded && event.data.trim() != "[DONE]" {
                    self.till.piece(&self.courier);
                }
                Ok(pass(&self.tell, Heard::Event(event)).await)
            }
        }
    }
}

async fn pass(tell: &Tell, heard: Heard) -> Then {
    match tell.send(Ok(heard)).await {
        Ok(()) => Then::On,
        Err(_) => Then::Stop,
    }
}
