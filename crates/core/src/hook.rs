//! What a rail is told from outside: a provider that calls when something has happened to a payment.
//!
//! A call is a hint and never evidence. A rail reads it into the payments it is about
//! ([`Rail::heed`](crate::Rail::heed)), and the engine asks the rail what became of them, as it would
//! have done by itself, only sooner. So the worst that a forged call could do is to have a payment
//! looked at; and a rail refuses those that it cannot tell to be genuine all the same.

use std::fmt;

/// A call as it came, without transport types.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Delivery<'a> {
    headers: &'a [(&'a str, &'a [u8])],
    /// The body, byte for byte: signatures are over it.
    pub body: &'a [u8],
    /// When it came, Unix seconds.
    pub now: i64,
}

impl<'a> Delivery<'a> {
    /// A call with these headers, at `now` in Unix seconds.
    pub fn new(headers: &'a [(&'a str, &'a [u8])], body: &'a [u8], now: i64) -> Self {
        Self { headers, body, now }
    }

    /// The value of a header, if it is there once and is text. Names have no case.
    pub fn header(&self, name: &str) -> Option<&'a str> {
        let named = |(known, _): &&(&str, &[u8])| known.eq_ignore_ascii_case(name);
        let mut values = self.headers.iter().filter(named);
        match (values.next(), values.next()) {
            (Some((_, value)), None) => std::str::from_utf8(value).ok(),
            _ => None,
        }
    }
}

/// Neither headers nor the body belong in a log.
impl fmt::Debug for Delivery<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("now", &self.now)
            .finish_non_exhaustive()
    }
}

/// What is to be looked at now.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Hint {
    /// A payment that may be decided.
    Payment {
        /// The challenge it is for.
        challenge: String,
        /// What the rail calls the movement of money, where the call says: it can be read by its
        /// name then, and need not be searched for.
        reference: Option<String>,
    },
    /// Refunds that may be decided, or that others may have made.
    Refund {
        /// What the payment's receipt calls it.
        reference: String,
        /// The challenge that was paid, where the call says: what others gave back in full is not
        /// served for.
        challenge: Option<String>,
    },
}

/// A call that is not heeded: nobody signed it, or it is too old, or it cannot be read. The text is
/// for the log and holds nothing of the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unheeded(pub &'static str);
