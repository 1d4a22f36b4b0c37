//! A handler's stream, paid for piece by piece.

use std::{
    fmt,
    future::{Future, pending},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use farebox_core::{Event as Notice, wire::Receipt};
use farebox_engine::{Charge, MeterError, Tap};
use futures_core::Stream;
use tokio::{
    sync::Notify,
    time::{Instant, Sleep, sleep},
};

use super::{Event, Pace};

/// What goes to the payer.
#[derive(Debug)]
pub(crate) enum Out {
    /// A piece of the stream, paid for.
    Data(Event),
    /// What the rail has to say about it.
    Notice(Notice),
    /// Nothing has come for a while, and the connection is meant to stay.
    Beat,
    /// What was paid: the last word.
    Receipt(Receipt),
}

type Work<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What the store was asked for, and whether the next piece can be paid for.
enum Done {
    Looked(Result<bool, MeterError>),
    Held(Result<bool, MeterError>),
    Stopped,
}

enum Phase {
    /// The next piece is asked for, or charged.
    Flow,
    /// The store is asked.
    Busy(Work<(Tap, Done)>),
    /// More must be authorised for the next piece.
    Held(Work<(Tap, Done)>),
    /// The rest is given back.
    Ending(Work<(Option<Receipt>, Option<Notice>)>),
    /// What follows the receipt.
    Last(Option<Notice>),
    Over,
}

/// How many pieces in a row are passed on before the stream looks whether it is to end.
const STRIDE: u32 = 64;

/// Charges each piece of `source` before it is passed on. One that could not be paid for is kept
/// until it is, and no other is asked for meanwhile.
pub(crate) struct Charged<S> {
    source: Pin<Box<S>>,
    /// `None` while the store is asked.
    tap: Option<Tap>,
    pace: Pace,
    /// A piece that came and is not paid for.
    next: Option<Event>,
    phase: Phase,
    /// Until when the next piece may wait for what pays for it.
    until: Option<Instant>,
    /// It ends as soon as the store has answered.
    ends: bool,
    stop: Arc<Notify>,
    beat: Pin<Box<Sleep>>,
    /// The server drains, or somebody closes the channel.
    ending: Work<()>,
    /// Pieces passed on since that was looked at.
    passed: u32,
}

impl<S, T, E> Charged<S>
where
    S: Stream<Item = Result<T, E>>,
    T: Into<Event>,
    E: fmt::Display,
{
    /// `charge` is what was held back for the request, before it was known that it streams.
    pub(crate) fn new(tap: Tap, charge: Option<Charge>, pace: Pace, source: S) -> Self {
        let meter = tap.meter().clone();
        Self {
            source: Box::pin(source),
            ending: Box::pin(async move { meter.ending().await }),
            passed: 0,
            beat: Box::pin(sleep(pace.heartbeat)),
            tap: None,
            pace,
            next: None,
            until: None,
            phase: Phase::Busy(Box::pin(begin(tap, charge))),
            ends: false,
            stop: Arc::default(),
        }
    }

    /// Ends the stream: the receipt comes next.
    pub(crate) fn end(&mut self) {
        self.next = None;
        self.ends = true;
        match (&self.phase, self.tap.take()) {
            (Phase::Flow, Some(tap)) => {
                self.phase = Phase::Ending(Box::pin(async move {
                    let last = tap.last_word();
                    match tap.finish().await {
                        Ok(answered) => (Some(answered.receipt), last),
                        Err(error) => {
                            tracing::warn!(%error, "a stream ends without a receipt");
                            (None, last)
                        }
                    }
                }));
            }
            (Phase::Flow, None) => self.phase = Phase::Over,
            // Its tap comes back at once.
            (Phase::Held(_), _) => self.stop.notify_one(),
            _ => {}
        }
    }

    /// What the next piece costs, or at least one that is still to come, in units.
    fn units(&self) -> u64 {
        self.next.as_ref().map_or(1, Event::cost)
    }

    /// Asks the store whether the next piece can be paid for, and takes a block aside.
    fn look(&mut self, units: u64) {
        let Some(mut tap) = self.tap.take() else {
            return;
        };
        self.phase = Phase::Busy(Box::pin(async move {
            let looked = tap.hold(units, Duration::ZERO).await;
            (tap, Done::Looked(looked))
        }));
    }

    /// Whether the next piece may wait longer.
    fn may_wait(&mut self) -> bool {
        Instant::now() < *self.until()
    }

    fn until(&mut self) -> &mut Instant {
        let patience = self.pace.patience;
        self.until.get_or_insert_with(|| Instant::now() + patience)
    }

    /// Waits for what pays for the next piece. That is a look at the balance while other streams hold
    /// it, and the payer's time once he was told: `done` says which.
    fn hold(&mut self, mut tap: Tap, done: fn(Result<bool, MeterError>) -> Done) {
        let (units, until) = (self.units(), *self.until());
        let stop = self.stop.clone();
        self.phase = Phase::Held(Box::pin(async move {
            let patience = until.saturating_duration_since(Instant::now());
            let done = tokio::select! {
                held = tap.hold(units, patience) => done(held),
                () = stop.notified() => Done::Stopped,
            };
            (tap, done)
        }));
    }

    fn after(&mut self, (tap, done): (Tap, Done)) -> Option<Out> {
        let units = self.units();
        self.phase = Phase::Flow;
        let mut notice = None;
        match done {
            _ if self.ends => {}
            Done::Looked(Ok(true)) | Done::Held(Ok(true)) => self.until = None,
            // Other streams are asked to give it back. The payer is not asked for more.
            Done::Looked(Err(MeterError::Busy { .. })) if self.may_wait() => {
                self.hold(tap, Done::Looked);
                return None;
            }
            Done::Looked(Ok(false)) => {
                notice = tap.need(units);
                // The payer has as long as he would have had at once.
                self.until = None;
                self.hold(tap, Done::Held);
                return notice.map(Out::Notice);
            }
            Done::Held(Ok(false)) if self.may_wait() => {
                self.hold(tap, Done::Held);
                return None;
            }
            Done::Held(Ok(false))
            | Done::Looked(Err(MeterError::Busy { .. }))
            | Done::Held(Err(MeterError::Busy { .. })) => {
                notice = tap.gave_up(units);
                self.ends = true;
            }
            // Closed, or the store is away: what was served is receipted all the same.
            Done::Looked(Err(error)) | Done::Held(Err(error)) => {
                tracing::debug!(%error, "a paid stream ends early");
                self.ends = true;
            }
            Done::Stopped => self.ends = true,
        }
        self.tap = Some(tap);
        if self.ends {
            self.end();
        }
        notice.map(Out::Notice)
    }

    /// Asks the handler for a piece, or charges the one that came.
    fn poll_flow(&mut self, cx: &mut Context<'_>) -> Poll<Option<Out>> {
        let Some(tap) = &mut self.tap else {
            self.phase = Phase::Over;
            return Poll::Ready(None);
        };
        if let Some(event) = self.next.take() {
            let units = event.cost();
            if units == 0 || tap.burn_units(units) {
                self.passed += 1;
                return Poll::Ready(Some(Out::Data(event)));
            }
            self.next = Some(event);
            self.look(units);
            return Poll::Ready(None);
        }
        // Whether there is another piece is known only to who is asked for it, and where there is
        // none nobody is to pay for one.
        match self.source.as_mut().poll_next(cx) {
            Poll::Ready(Some(Ok(event))) => self.next = Some(event.into()),
            Poll::Ready(Some(Err(error))) => {
                tracing::warn!(%error, "a paid stream broke off");
                self.end();
            }
            Poll::Ready(None) => self.end(),
            Poll::Pending => return Poll::Pending,
        }
        Poll::Ready(None)
    }

    /// Whether it has to end, which it begins with then.
    fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        self.passed = 0;
        let over = self.ending.as_mut().poll(cx).is_ready();
        if over {
            self.ending = Box::pin(pending());
            self.end();
        }
        over
    }

    /// What there is to do while nothing comes. `Ready(None)`: the phase has changed.
    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<Option<Out>> {
        if matches!(self.phase, Phase::Ending(_)) {
            return Poll::Pending;
        }
        if self.is_over(cx) {
            return Poll::Ready(None);
        }
        if self.beat.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        self.beat
            .as_mut()
            .reset(Instant::now() + self.pace.heartbeat);
        Poll::Ready(Some(Out::Beat))
    }
}

/// Gives back what was held for the request, and takes the first block.
async fn begin(mut tap: Tap, charge: Option<Charge>) -> (Tap, Done) {
    let looked = match charge {
        Some(charge) => charge.release().await.map(drop),
        None => Ok(()),
    };
    let looked = match looked {
        Ok(()) => tap.hold(1, Duration::ZERO).await,
        Err(error) => Err(error),
    };
    (tap, Done::Looked(looked))
}

impl<S, T, E> Stream for Charged<S>
where
    S: Stream<Item = Result<T, E>>,
    T: Into<Event>,
    E: fmt::Display,
{
    type Item = Out;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Out>> {
        let this = &mut *self;
        if this.passed >= STRIDE && !matches!(this.phase, Phase::Ending(_)) {
            this.is_over(cx);
        }
        loop {
            let polled = match &mut this.phase {
                Phase::Flow => this.poll_flow(cx),
                Phase::Busy(work) | Phase::Held(work) => {
                    work.as_mut().poll(cx).map(|done| this.after(done))
                }
                Phase::Ending(work) => work.as_mut().poll(cx).map(|(receipt, last)| {
                    this.phase = Phase::Last(last);
                    receipt.map(Out::Receipt)
                }),
                Phase::Last(last) => {
                    let last = last.take();
                    this.phase = Phase::Over;
                    Poll::Ready(last.map(Out::Notice))
                }
                Phase::Over => return Poll::Ready(None),
            };
            match polled {
                Poll::Ready(Some(out)) => return Poll::Ready(Some(out)),
                Poll::Ready(None) => continue,
                Poll::Pending => {}
            }
            match this.poll_idle(cx) {
                Poll::Ready(Some(out)) => return Poll::Ready(Some(out)),
                Poll::Ready(None) => {}
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}
