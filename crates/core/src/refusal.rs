//! Why a payment is not accepted: the payer's fault ([`Rejection`]) or ours ([`Fault`]).
//!
//! The two never convert into each other. A rejection may be shown and is answered 402 with a
//! fresh challenge; a fault is answered 5xx without one, because a challenge would ask an honest
//! payer to pay twice.

use std::{error::Error, fmt, time::Duration};

use farebox_wire::Problem;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The payer's fault. Safe to show; stored with a declined payment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejection {
    /// Which problem type the answer carries.
    pub problem: Problem,
    /// One sentence for the payer: what is wrong and what to do. No secrets, no internals.
    pub detail: String,
    /// The proof or challenge was already used: 403 without a challenge instead of 402 with one.
    #[serde(default)]
    pub spent: bool,
    /// Further members of the answer, such as `requiredTopUp`.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub members: Map<String, Value>,
}

impl Rejection {
    /// A rejection under one of the registered problem types.
    pub fn new(problem: Problem, detail: impl Into<String>) -> Self {
        Self {
            problem,
            detail: detail.into(),
            spent: false,
            members: Map::new(),
        }
    }

    /// With a further member of the answer.
    #[must_use]
    pub fn member(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.members.insert(name.to_owned(), value.into());
        self
    }

    /// `verification-failed`: the proof does not pay for this challenge.
    pub fn verification(detail: impl Into<String>) -> Self {
        Self::new(Problem::VerificationFailed, detail)
    }

    /// `malformed-credential`: the payload does not have this rail's shape.
    pub fn malformed(detail: impl Into<String>) -> Self {
        Self::new(Problem::MalformedCredential, detail)
    }

    /// A rail's own problem type: `rail("invalid-preimage", …)` on the rail `lightning` becomes
    /// `…/problems/lightning/invalid-preimage`. The rail's name is filled in by the core.
    pub fn rail(name: &str, detail: impl Into<String>) -> Self {
        Self::new(Problem::rail("", name), detail)
    }

    /// The proof has paid for something already: 403, and no challenge that would make an honest
    /// client pay again.
    pub fn spent(detail: impl Into<String>) -> Self {
        Self {
            spent: true,
            ..Self::verification(detail)
        }
    }

    /// Fills in the rail's name where [`Rejection::rail`] left it open. The core and the engine do
    /// it for every rejection that comes out of a rail.
    #[must_use]
    pub fn on_rail(mut self, method: &str) -> Self {
        if let Problem::Rail { rail, .. } = &mut self.problem
            && rail.is_empty()
        {
            *rail = method.to_owned();
        }
        self
    }
}

/// Our fault or the rail's: an outage, a bug, a store that is down. Never shown to a payer.
#[derive(Debug)]
pub struct Fault {
    what: &'static str,
    source: Option<Box<dyn Error + Send + Sync>>,
    retry_after: Option<Duration>,
}

impl Fault {
    /// Something broke: 500.
    pub fn new(what: &'static str) -> Self {
        Self {
            what,
            source: None,
            retry_after: None,
        }
    }

    /// A dependency is away for now: 503 with `Retry-After`; the same credential may come again.
    pub fn unavailable(what: &'static str) -> Self {
        Self {
            what,
            source: None,
            retry_after: Some(Duration::from_secs(2)),
        }
    }

    /// With the error that caused it. It goes to the log, so it must not hold secrets.
    pub fn caused_by(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// When to try again, for a fault that passes.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// What was being done.
    pub fn what(&self) -> &'static str {
        self.what
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what)?;
        if let Some(source) = &self.source {
            write!(f, ": {source}")?;
        }
        Ok(())
    }
}

impl Error for Fault {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|e| e as &(dyn Error + 'static))
    }
}

/// Either of the two; `?` keeps the difference.
#[derive(Debug)]
pub enum Refusal {
    /// The payer's fault.
    Rejected(Rejection),
    /// Ours.
    Fault(Fault),
}

impl From<Rejection> for Refusal {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(rejection)
    }
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}
