//! Misbehaviour on demand, and the count of what was asked.

use std::collections::{HashMap, VecDeque};

/// What goes wrong with a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A JSON-RPC error with this code and message.
    Error {
        /// Error code, usually negative.
        code: i64,
        /// Error message.
        message: String,
    },
    /// An HTTP status with an empty body.
    Status(u16),
    /// No answer, ever; the connection stays open.
    Hang,
    /// The connection is closed without an answer.
    Disconnect,
}

impl Fault {
    /// A JSON-RPC error.
    pub fn error(code: i64, message: impl Into<String>) -> Self {
        Self::Error {
            code,
            message: message.into(),
        }
    }
}

/// A fault and when it strikes.
#[derive(Clone, Debug)]
pub(crate) struct Planned {
    pub(crate) fault: Fault,
    /// The call takes effect first; only its answer is lost.
    pub(crate) after: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Faults {
    planned: HashMap<String, VecDeque<Planned>>,
    counts: HashMap<String, usize>,
}

impl Faults {
    pub(crate) fn plan(&mut self, method: &str, times: usize, planned: &Planned) {
        let queue = self.planned.entry(method.to_owned()).or_default();
        queue.extend(std::iter::repeat_n(planned.clone(), times));
    }

    pub(crate) fn clear(&mut self) {
        self.planned.clear();
    }

    /// Counts a call and takes the fault planned for it, if any.
    pub(crate) fn arrive(&mut self, method: &str) -> Option<Planned> {
        *self.counts.entry(method.to_owned()).or_default() += 1;
        self.planned.get_mut(method)?.pop_front()
    }

    pub(crate) fn count(&self, method: &str) -> usize {
        self.counts.get(method).copied().unwrap_or_default()
    }

    pub(crate) fn total(&self) -> usize {
        self.counts.values().sum()
    }
}
