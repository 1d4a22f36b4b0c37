//! What a call and a close came to, in words and as JSON.

use farebox::{
    Amount,
    client::session::{ChannelInfo, Closed},
};
use serde_json::{Value, json};

use super::Money;

/// What a call came to.
pub(super) struct Summary {
    /// The channel after the call.
    pub(super) channel: ChannelInfo,
    /// What had been spent of it before.
    pub(super) before: Amount,
    /// If it was closed.
    pub(super) closed: Option<Closed>,
}

impl Summary {
    /// What was spent of the channel in this call, and by others beside it.
    fn cost(&self) -> Amount {
        let (after, before) = (self.channel.due.get(), self.before.get());
        Amount::new(after.saturating_sub(before))
    }

    /// Whether the payee has got anything for the call, or may have.
    pub(super) fn is_spent(&self) -> bool {
        !self.cost().is_zero()
    }

    pub(super) fn text(&self) -> String {
        let channel = &self.channel;
        let call = Money(self.cost(), &channel.currency);
        let rest = match &self.closed {
            Some(closed) => self::closed(channel, closed),
            None => format!(
                "channel {} stays open: {} of {} spent",
                channel.channel,
                Money(channel.due, &channel.currency),
                Money(channel.deposit, &channel.currency),
            ),
        };
        format!("the call cost {call}; {rest}")
    }

    /// As `spent` has it elsewhere.
    pub(super) fn spent(&self) -> Value {
        match self.is_spent() {
            true => json!([{ "amount": self.cost(), "currency": self.channel.currency }]),
            false => json!([]),
        }
    }

    pub(super) fn json(&self) -> Value {
        match &self.closed {
            Some(closed) => closed_json(&self.channel, closed),
            None => json!({
                "channel": self.channel.channel,
                "rail": self.channel.method,
                "currency": self.channel.currency,
                "deposit": self.channel.deposit,
                "spent": self.channel.due,
                "state": self.channel.phase,
            }),
        }
    }
}

/// A close in words.
pub(super) fn closed(channel: &ChannelInfo, closed: &Closed) -> String {
    let (spent, refunded) = (
        Money(closed.spent, &channel.currency),
        Money(closed.refunded, &channel.currency),
    );
    match closed.confirmed {
        true => format!(
            "channel {} is closed: {spent} spent, {refunded} refunded",
            closed.channel
        ),
        false => format!(
            "channel {} is closing, which its rail does not confirm yet: {spent} spent and {refunded} \
             to come back, as its server says; `farebox session close` looks again",
            closed.channel
        ),
    }
}

/// A close as JSON.
pub(super) fn closed_json(channel: &ChannelInfo, closed: &Closed) -> Value {
    json!({
        "channel": closed.channel,
        "rail": channel.method,
        "currency": channel.currency,
        "deposit": Amount::new(closed.spent.get().saturating_add(closed.refunded.get())),
        "spent": closed.spent,
        "refunded": closed.refunded,
        "state": if closed.confirmed { "closed" } else { "closing" },
        "receipt": closed.receipt,
    })
}

/// What giving a channel up comes to.
pub(super) fn forgotten(channel: &ChannelInfo) -> String {
    let left = channel.at_stake().get().saturating_sub(channel.due.get());
    format!(
        "channel {} is forgotten: {} of {} was spent, and {} may be lost",
        channel.channel,
        Money(channel.due, &channel.currency),
        Money(channel.at_stake(), &channel.currency),
        Money(Amount::new(left), &channel.currency),
    )
}
