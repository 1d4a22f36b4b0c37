//! Streams that are paid for piece by piece.

mod charged;
mod event;
mod sse;
mod upstream;

use std::time::Duration;

pub(crate) use charged::Charged;
#[cfg(feature = "ws")]
pub(crate) use charged::Out;
pub use event::Event;
pub use sse::SseBody;
pub use upstream::{BrokenOff, Events};

/// How a stream behaves while nothing is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pace {
    /// How long it holds for a payer whose balance is exhausted, before it ends; 60 s unless set.
    pub patience: Duration,
    /// How often it gives a sign of life, a comment in SSE and a ping in a WebSocket, and holds on
    /// to its part of the balance; 15 s unless set, and best under 40 s.
    pub heartbeat: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            patience: farebox_engine::HOLD,
            heartbeat: Duration::from_secs(15),
        }
    }
}
