//! What a rail asks for, or why it asks for nothing.

use std::time::Duration;

use farebox_wire::Timestamp;
use serde_json::Value;

use crate::{intent::IntentSpec, refusal::Fault};

/// What a rail asks for.
pub struct Quote<I: IntentSpec, D> {
    pub(crate) request: I::Request,
    pub(crate) details: D,
    pub(crate) not_after: Option<Timestamp>,
    pub(crate) at_least: Duration,
    pub(crate) private: Option<Value>,
}

impl<I: IntentSpec, D> Quote<I, D> {
    /// The shared request members and the rail's own (`methodDetails`).
    pub fn new(request: I::Request, details: D) -> Self {
        Self {
            request,
            details,
            not_after: None,
            at_least: Duration::ZERO,
            private: None,
        }
    }

    /// The challenge must lapse by then (a BOLT11 invoice's expiry).
    pub fn not_after(mut self, instant: Timestamp) -> Self {
        self.not_after = Some(instant);
        self
    }

    /// How long the challenge must last for anybody to be able to pay it. Where it would lapse
    /// sooner it is not issued.
    #[must_use]
    pub fn at_least(mut self, time: Duration) -> Self {
        self.at_least = time;
        self
    }

    /// What the engine keeps with the challenge and hands back to `verify`, unseen by the payer.
    /// It costs a store round trip per challenge; prefer the request, which is bound by HMAC.
    pub fn private(mut self, value: Value) -> Self {
        self.private = Some(value);
        self
    }
}

/// What is private stays out of `Debug`.
impl<I: IntentSpec, D> std::fmt::Debug for Quote<I, D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Quote")
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// Why a rail makes no quote. The offer then loses its place in the 402.
#[derive(Debug)]
pub enum NoQuote {
    /// It does not apply: below the currency's minimum, say. The text is for the seller.
    Declined(String),
    /// The rail is away.
    Fault(Fault),
}

impl From<Fault> for NoQuote {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}
