//! What a session needs of a transport, and what servers say over it.

use std::{future::Future, time::Duration};

use farebox_core::wire::{
    Amount, BALANCE_HELD, Challenge, Credential, Problem, ProblemDetails, Receipt,
};
use serde::Deserialize;
use serde_json::Value;

/// Carries payment messages to one resource, beside the calls that are paid for.
pub trait Courier: Send + Sync {
    /// Asks the resource, with no credential and no body, what it wants to be paid. The text of an
    /// error is shown.
    fn ask(&self) -> impl Future<Output = Result<Vec<Challenge>, String>> + Send;

    /// Presents a credential with no body, so that it buys nothing but balance.
    fn deliver(&self, credential: &Credential) -> impl Future<Output = Answer> + Send;

    /// The same at another resource of the same server, as [`Sessions::begin`] was given it: a
    /// challenge is only good where it was issued. Whatever cannot be delivered there is
    /// [`Answer::Lost`].
    ///
    /// [`Sessions::begin`]: super::Sessions::begin
    fn deliver_at(
        &self,
        resource: &str,
        credential: &Credential,
    ) -> impl Future<Output = Answer> + Send;
}

/// What became of a credential.
#[derive(Debug)]
#[non_exhaustive]
pub enum Answer {
    /// It was accepted, with a receipt where one came along.
    Accepted(Option<Box<Receipt>>),
    /// The server asks to be paid (again), or says that the channel is gone.
    Refused {
        /// The HTTP status or its like.
        status: u16,
        /// What it says.
        problem: Option<Box<ProblemDetails>>,
        /// What it asks for now.
        challenges: Vec<Challenge>,
    },
    /// The answer is about the resource and not about the payment: nothing was served.
    NotServed {
        /// The HTTP status or its like.
        status: u16,
    },
    /// The balance would pay for it, but streams hold it for the moment. Nothing was served or
    /// spent: the server says so with the problem type `session/balance-held`.
    Busy {
        /// When to try again.
        retry_after: Duration,
    },
    /// There was no answer, or one that says nothing.
    Lost(String),
    /// It was not sent: nobody was there to be connected to.
    Unsent(String),
}

/// When to try again where the server does not say, or says at once.
const RETRY_AFTER: Duration = Duration::from_secs(1);

impl Answer {
    /// What a server's fault says about a credential: an HTTP status of 500 and up, or its like.
    #[must_use]
    pub fn of_fault(
        status: u16,
        problem: Option<&ProblemDetails>,
        retry_after: Option<Duration>,
    ) -> Self {
        let busy = Problem::session(BALANCE_HELD).type_uri();
        match problem {
            Some(problem) if problem.problem_type == busy => Self::Busy {
                retry_after: retry_after.unwrap_or_default().max(RETRY_AFTER),
            },
            _ => Self::Lost(format!("the server answered {status}")),
        }
    }

    /// Why nobody knows what became of it.
    pub(crate) fn unclear(self) -> String {
        match self {
            Self::Lost(why) | Self::Unsent(why) => why,
            Self::Refused { status, .. } | Self::NotServed { status } => {
                format!("the server answered {status}")
            }
            Self::Accepted(_) => "the server accepted it".to_owned(),
            Self::Busy { .. } => "the server is busy".to_owned(),
        }
    }
}

/// What the server's refusal is about, by its problem type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The channel is over, or the server does not know it.
    Gone,
    /// The balance does not cover the request.
    Balance,
    /// The challenge is no good any more; another may be.
    Challenge,
    /// Anything else.
    Other,
}

impl Cause {
    pub(crate) fn of(problem: Option<&ProblemDetails>) -> Self {
        let kind = problem.map_or("", |p| p.problem_type.as_str());
        match kind.rsplit('/').next().unwrap_or_default() {
            "channel-not-found" | "channel-finalized" | "session-not-found" | "session-closed" => {
                Self::Gone
            }
            "insufficient-balance" => Self::Balance,
            "invalid-challenge"
            | "payment-expired"
            | "challenge-not-found"
            | "unknown-challenge"
            | "challenge-expired" => Self::Challenge,
            _ => Self::Other,
        }
    }
}

/// A stream that has run dry and waits: a `payment-need-voucher` or `payment-need-topup` event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demand {
    /// The channel that is to pay.
    pub channel: String,
    /// The cumulative amount that would let it go on, where the event says so.
    pub required: Option<Amount>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    #[serde(alias = "sessionId")]
    channel_id: String,
    #[serde(default)]
    required_cumulative: Option<Value>,
    #[serde(default)]
    balance_spent: Option<Value>,
    #[serde(default)]
    balance_required: Option<Value>,
}

impl Demand {
    /// Reads the data of either event. `None` if it is neither, or its amounts are none.
    #[must_use]
    pub fn parse(data: &str) -> Option<Self> {
        let written: Written = serde_json::from_str(data).ok()?;
        let required = match (&written.required_cumulative, &written.balance_required) {
            (Some(_), _) => Some(amount(&written.required_cumulative)?),
            (None, Some(_)) => {
                let spent = amount(&written.balance_spent)?;
                Some(spent.checked_add(amount(&written.balance_required)?)?)
            }
            (None, None) => None,
        };
        Some(Self {
            channel: written.channel_id,
            required,
        })
    }
}

/// Amounts are strings of digits with one rail and numbers with another.
pub(crate) fn amount(value: &Option<Value>) -> Option<Amount> {
    match value.as_ref()? {
        Value::String(text) => Amount::parse(text).ok(),
        Value::Number(number) => number.as_u64().map(|n| Amount::new(n.into())),
        _ => None,
    }
}

/// What a session receipt says, as far as it can be held against what was signed and received.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Statement {
    /// The channel.
    pub channel: String,
    /// The cumulative amount that was accepted.
    pub accepted: Option<Amount>,
    /// What was spent in all. Where [`per_stream`](Self::per_stream), by this stream.
    pub spent: Option<Amount>,
    /// What comes back, of a close.
    pub refund: Option<Amount>,
    /// The receipt counts one stream and not the channel.
    pub per_stream: bool,
}

impl Statement {
    /// Reads a receipt.
    #[must_use]
    pub fn of(receipt: &Receipt) -> Self {
        let member = |name: &str| amount(&receipt.extra.get(name).cloned());
        let channel = receipt.extra.get("channelId").and_then(Value::as_str);
        Self {
            channel: channel.unwrap_or(&receipt.reference).to_owned(),
            accepted: member("acceptedCumulative"),
            spent: member("spent"),
            refund: member("refundSats"),
            per_stream: member("acceptedCumulative").is_none(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects: only its own problem says that nothing was spent, and nobody is asked again at once.
    #[test]
    fn a_balance_that_streams_hold_is_told_apart() {
        let held = ProblemDetails::new(&Problem::session(BALANCE_HELD), "held");
        for (said, wait) in [(None, 1), (Some(0), 1), (Some(7), 7)] {
            let answer = Answer::of_fault(503, Some(&held), said.map(Duration::from_secs));
            let expected = Duration::from_secs(wait);
            assert!(matches!(answer, Answer::Busy { retry_after } if retry_after == expected));
        }
        let away = ProblemDetails::new(&Problem::TemporarilyUnavailable, "away");
        for other in [Some(&away), None] {
            assert!(matches!(
                Answer::of_fault(503, other, None),
                Answer::Lost(_)
            ));
        }
    }

    /// Protects: the events of both rails are understood, and amounts are never guessed.
    #[test]
    fn demands_of_both_rails_are_read() {
        let voucher = r#"{"channelId":"0xAb","requiredCumulative":"20","acceptedCumulative":"15","deposit":"30"}"#;
        let demand = Demand::parse(voucher).unwrap();
        assert_eq!(
            (demand.channel.as_str(), demand.required),
            ("0xAb", Some(Amount::new(20)))
        );
        let topup = r#"{"sessionId":"ff","balanceSpent":18,"balanceRequired":2}"#;
        let demand = Demand::parse(topup).unwrap();
        assert_eq!(
            (demand.channel.as_str(), demand.required),
            ("ff", Some(Amount::new(20)))
        );
        for odd in ["-1", "1e3", "0x10", " 5"] {
            let data = format!(r#"{{"channelId":"c","requiredCumulative":"{odd}"}}"#);
            assert_eq!(Demand::parse(&data), None, "{odd}");
        }
        assert_eq!(Demand::parse("{}"), None);
    }
}
