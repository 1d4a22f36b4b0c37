//! What a handler spends a session through.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
};

use farebox_core::{ChannelState, Fault, Served, wire::Amount};
use farebox_engine::{Charge, Meter, MeterError, Refused};
use futures_core::Stream;
use http::{HeaderMap, Response, header::CONTENT_TYPE};
use http_body::Body;

use super::stream::{Charged, Event, Events, Pace, SseBody};

/// The largest event of another server that is passed on, in bytes.
pub const EVENT_LIMIT: usize = 256 * 1024;

/// The balance of the session that a request is part of, for handlers under a
/// [`PaymentLayer`](super::PaymentLayer): an axum extractor, and an extension of the request for
/// everyone else. Clones spend the same balance.
///
/// A handler that does not touch it costs one unit, held back before it runs, spent when it
/// succeeds (2xx, 3xx) and given back when it fails. One that [debits](Self::debit) or
/// [streams](Self::events) has taken metering over, and what it spends is spent.
#[derive(Clone)]
pub struct Metered {
    inner: Arc<Inner>,
}

struct Inner {
    meter: Meter,
    pace: Pace,
    till: Mutex<Till>,
    /// How often something was, or is being, spent, or may have been.
    tries: AtomicU32,
}

/// What has become of the unit that a request costs unless its handler says otherwise.
enum Till {
    Reserved(Charge),
    /// The handler meters.
    Taken(Bill),
}

/// What a request came to.
#[derive(Clone, Default)]
pub(crate) struct Bill {
    /// As of the last write; `None` where there was none.
    pub(crate) state: Option<ChannelState>,
    pub(crate) served: Served,
}

/// How a request leaves its session.
pub(crate) enum Closed {
    /// Its handler did not meter: this is to be spent or given back.
    Held(Charge),
    /// It did.
    Billed(Bill),
}

impl Metered {
    pub(crate) fn new(meter: Meter, charge: Charge, pace: Pace) -> Self {
        Self {
            inner: Arc::new(Inner {
                meter,
                pace,
                till: Mutex::new(Till::Reserved(charge)),
                tries: AtomicU32::new(0),
            }),
        }
    }

    /// The channel's meter.
    pub fn meter(&self) -> &Meter {
        &self.inner.meter
    }

    /// What so many units cost, in the rail's base units.
    ///
    /// # Errors
    /// More than any amount.
    pub fn price(&self, units: u64) -> Result<Amount, MeterError> {
        self.inner.meter.cost(units)
    }

    /// Spends `units` now, in place of the one that a request costs otherwise.
    ///
    /// # Errors
    /// Where the balance does not cover it, or the store is away. As a response it is the 402 with
    /// fresh challenges, or the 5xx.
    pub async fn debit(&self, units: u64) -> Result<(), Unpaid> {
        let tries = &self.inner.tries;
        tries.fetch_add(u32::from(units > 0), SeqCst);
        match self.try_debit(units).await {
            Ok(()) => Ok(()),
            Err(error @ MeterError::Exhausted { .. }) => {
                tries.fetch_sub(1, SeqCst);
                Err(self.unpaid(error))
            }
            // Only who spent nothing else, and is not about to, may be told that nothing was spent.
            Err(MeterError::Busy { .. }) if tries.fetch_sub(1, SeqCst) > 1 => {
                let fault = Fault::unavailable("streams hold what would pay for the rest");
                Err(self.unpaid(fault.into()))
            }
            Err(error) => Err(self.unpaid(error)),
        }
    }

    async fn try_debit(&self, units: u64) -> Result<(), MeterError> {
        let (meter, cost) = (&self.inner.meter, self.price(units)?);
        let state = match self.take() {
            Some(charge) if charge.served().units == units => charge.commit().await?,
            Some(charge) if units == 0 => charge.release().await?,
            None if units == 0 => return Ok(()),
            Some(charge) => {
                charge.release().await?;
                meter.debit(cost).await?
            }
            None => meter.debit(cost).await?,
        };
        if let Till::Taken(bill) = &mut *self.till() {
            let served = &mut bill.served;
            served.units = served.units.saturating_add(units);
            served.spent = Amount::new(served.spent.get().saturating_add(cost.get()));
            bill.state = Some(state);
        }
        Ok(())
    }

    /// A stream of server-sent events, each of which costs what it [says](Event::units) before it is
    /// sent. An error of the stream ends it, as does a balance that nobody raised for a minute; what
    /// was sent is receipted either way.
    ///
    /// # Errors
    /// No randomness from the operating system.
    pub fn events<S, T, E>(&self, stream: S) -> Result<Sse<S>, Unpaid>
    where
        S: Stream<Item = Result<T, E>>,
        T: Into<Event>,
        E: fmt::Display,
    {
        self.inner.tries.fetch_add(1, SeqCst);
        let tap = self.inner.meter.tap();
        let tap = tap.map_err(|fault| self.unpaid(fault.into()))?;
        let charged = Charged::new(tap, self.take(), self.inner.pace, stream);
        Ok(Sse(SseBody::new(charged).into_response()))
    }

    /// Meters another server's event stream, event by event; its headers stay but for those of the
    /// length. An event may have [`EVENT_LIMIT`] bytes.
    ///
    /// # Errors
    /// As for [`events`](Self::events).
    pub fn event_stream<B: Body>(
        &self,
        response: Response<B>,
    ) -> Result<Response<SseBody<Events<B>>>, Unpaid>
    where
        B::Error: fmt::Display,
    {
        let (mut parts, body) = response.into_parts();
        let sse = self.events(Events::new(body, EVENT_LIMIT))?.0;
        parts.headers.remove(http::header::CONTENT_LENGTH);
        for (name, value) in sse.headers() {
            parts.headers.insert(name, value.clone());
        }
        Ok(Response::from_parts(parts, sse.into_body()))
    }

    /// What is still held for the request; or, where its handler meters, what it came to.
    pub(crate) fn close(&self) -> Closed {
        let mut till = self.till();
        if let Till::Taken(bill) = &*till {
            return Closed::Billed(bill.clone());
        }
        till.take()
            .map_or_else(|| Closed::Billed(Bill::default()), Closed::Held)
    }

    fn unpaid(&self, error: MeterError) -> Unpaid {
        Unpaid {
            error,
            meter: Some(Box::new(self.inner.meter.clone())),
        }
    }

    /// Takes metering over.
    fn take(&self) -> Option<Charge> {
        self.till().take()
    }

    fn till(&self) -> MutexGuard<'_, Till> {
        self.inner
            .till
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Till {
    fn take(&mut self) -> Option<Charge> {
        match self {
            Self::Taken(_) => None,
            Self::Reserved(_) => match std::mem::replace(self, Self::Taken(Bill::default())) {
                Self::Reserved(charge) => Some(charge),
                Self::Taken(_) => None,
            },
        }
    }
}

/// Whether a response says that it is an event stream, and can be read as one.
pub fn is_event_stream(headers: &HeaderMap) -> bool {
    let kind = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let kind = kind.and_then(|kind| kind.split(';').next());
    let encoded = headers.contains_key(http::header::CONTENT_ENCODING);
    !encoded && kind.is_some_and(|kind| kind.trim().eq_ignore_ascii_case("text/event-stream"))
}

impl fmt::Debug for Metered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metered")
            .field("channel", self.inner.meter.channel())
            .finish_non_exhaustive()
    }
}

/// A metered event stream as a response; see [`Metered::events`].
#[derive(Debug)]
pub struct Sse<S>(pub(crate) Response<SseBody<S>>);

impl<S> Sse<S> {
    /// For services whose bodies are not axum's.
    pub fn into_inner(self) -> Response<SseBody<S>> {
        self.0
    }
}

/// Nothing was spent. As a response it has no body of its own: the layer answers in its place, with
/// fresh challenges where paying would help.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct Unpaid {
    #[source]
    error: MeterError,
    /// Whose rail has the words for it.
    meter: Option<Box<Meter>>,
}

impl From<MeterError> for Unpaid {
    fn from(error: MeterError) -> Self {
        let meter = None;
        Self { error, meter }
    }
}

impl From<Unpaid> for Refused {
    fn from(unpaid: Unpaid) -> Self {
        match unpaid.meter {
            Some(meter) => meter.refused(unpaid.error),
            None => unpaid.error.into(),
        }
    }
}

/// What the layer answers in a handler's place.
#[derive(Clone, Debug)]
pub(crate) struct Instead(Arc<Mutex<Option<Refused>>>);

impl Instead {
    #[cfg(feature = "axum")]
    pub(crate) fn of(unpaid: Unpaid) -> Self {
        Self(Arc::new(Mutex::new(Some(unpaid.into()))))
    }

    pub(crate) fn take(&self) -> Option<Refused> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

#[cfg(feature = "axum")]
mod as_axum {
    use std::fmt;

    use axum::{
        body::Body,
        extract::FromRequestParts,
        http::{StatusCode, request::Parts},
        response::{IntoResponse, Response},
    };
    use farebox_core::Fault;
    use futures_core::Stream;

    use super::{Event, Instead, Metered, Sse, Unpaid};
    use crate::server::answer;

    impl<S: Sync> FromRequestParts<S> for Metered {
        /// A route without the layer, or whose offers are no sessions, is a mistake of the server's
        /// author: 500.
        type Rejection = Response;

        async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Response> {
            parts.extensions.get::<Self>().cloned().ok_or_else(|| {
                let fault =
                    Fault::new("a handler meters a session, but its route was paid otherwise");
                answer::fault(parts.uri.path(), &fault).map(Into::into)
            })
        }
    }

    impl<S, T, E> IntoResponse for Sse<S>
    where
        S: Stream<Item = Result<T, E>> + Send + 'static,
        T: Into<Event>,
        E: fmt::Display,
    {
        fn into_response(self) -> Response {
            self.0.map(Body::new)
        }
    }

    impl IntoResponse for Unpaid {
        fn into_response(self) -> Response {
            let mut response = StatusCode::PAYMENT_REQUIRED.into_response();
            response.extensions_mut().insert(Instead::of(self));
            response
        }
    }
}
