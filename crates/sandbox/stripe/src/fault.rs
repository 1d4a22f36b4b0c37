//! What can be made to go wrong.

use std::time::Duration;

/// Something that goes wrong with the next attempt to create a PaymentIntent, or a refund.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The issuer says no, with this decline code (`"insufficient_funds"`): 402 `card_error`.
    Decline(String),
    /// The issuer wants the cardholder: status `requires_action`.
    RequiresAction,
    /// Nobody knows yet: status `processing`, until [`Stripe::resolve`](crate::Stripe::resolve).
    Processing,
    /// 409 `lock_timeout`, and nothing happens.
    Conflict,
    /// 429, and nothing happens.
    RateLimited,
    /// 500, and nothing happens. Stripe keeps this answer for the idempotency key.
    ErrorBeforeCommit,
    /// The card is charged, and the answer is 500. Stripe keeps this answer for the key.
    ErrorAfterCommit,
    /// The card is charged, and no answer ever comes.
    HangAfterCommit,
    /// All goes well, but so late that another call under the same key meets 409
    /// `idempotency_key_in_use`.
    Slow(Duration),
    /// The connection breaks before anything happens.
    DropBeforeCommit,
    /// The card is charged, and the connection breaks before the answer.
    DropAfterCommit,
}

impl Fault {
    /// Whether it strikes before the request is looked at, so that no key remembers it.
    pub(crate) fn at_the_door(&self) -> bool {
        matches!(
            self,
            Self::Conflict | Self::RateLimited | Self::DropBeforeCommit
        )
    }
}
