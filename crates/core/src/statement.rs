//! What a rail says about a channel to whoever pays through it: pure data, from what is stored.

use farebox_wire::{Amount, Receipt};
use serde_json::{Map, Value, json};

use crate::{
    channel::{ChannelId, ChannelState},
    plan::ChannelAction,
};

/// What one request or stream was served, apart from all others of its channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// What it cost, in base units.
    pub spent: Amount,
    /// How many units of service that was.
    pub units: u64,
}

/// What an answer says about the channel behind it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statement {
    /// Members of the receipt beyond the protocol's own, in place of any the plan or the settler
    /// gave the same name.
    pub receipt: Map<String, Value>,
    /// What goes with the answer beside its receipt.
    pub attachments: Vec<Attachment>,
}

impl Statement {
    /// With a member of the receipt.
    #[must_use]
    pub fn member(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.receipt.insert(key.to_owned(), value.into());
        self
    }

    /// With an attachment.
    #[must_use]
    pub fn attach(mut self, name: &'static str, value: impl Into<String>) -> Self {
        let value = value.into();
        self.attachments.push(Attachment { name, value });
        self
    }
}

/// Something that goes with an answer: HTTP sends it as a header of that name, other transports
/// where they have room for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// Its name on the wire: `Payment-Session`. Letters, digits and hyphens.
    pub name: &'static str,
    /// Visible ASCII.
    pub value: String,
}

/// What a stream tells its payer between two pieces of service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its name on the wire: `payment-need-voucher`.
    pub name: &'static str,
    /// Its body.
    pub data: Value,
}

/// When a stream may have something to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Moment {
    /// The balance does not cover the next piece; the stream holds until it does.
    Exhausted {
        /// The cumulative amount that must be authorised.
        required: Amount,
        /// What the next piece costs.
        next: Amount,
    },
    /// Nothing came while it held; the stream ends.
    TimedOut {
        /// The cumulative amount that would have done.
        required: Amount,
        /// What the next piece would have cost.
        next: Amount,
    },
    /// The last receipt was given, and nothing follows: some rails end their streams with a mark.
    /// One called `message` is written as a piece of the stream, and text without quotes.
    Ended,
}

/// What a presentation is answered with that asks for no service: a top-up, a close, a voucher on
/// its own.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Answer {
    /// Success without content (HTTP 204).
    Empty,
    /// Success with this JSON body (HTTP 200).
    Json(Value),
    /// Done as far as the payer goes, but not answerable yet: what became of a refund, say. The
    /// same credential gets the answer later (HTTP 503 with `Retry-After`).
    Later,
}

/// [`Moment::Exhausted`] in the words of rails with vouchers; nothing otherwise.
pub(crate) fn need_voucher(
    channel: &ChannelId,
    state: &ChannelState,
    moment: &Moment,
) -> Option<Event> {
    let Moment::Exhausted { required, .. } = moment else {
        return None;
    };
    Some(Event {
        name: "payment-need-voucher",
        data: json!({
            "channelId": channel.id(),
            "requiredCumulative": required,
            "acceptedCumulative": state.authorized,
            "deposit": state.deposit,
        }),
    })
}

/// The answer of rails that say nothing else.
pub(crate) fn empty(_: ChannelAction, _: &Receipt, _: &ChannelState) -> Answer {
    Answer::Empty
}
