//! Presentations that ask for no service: top-ups, closes, and vouchers and openings on their own.

use std::sync::Arc;

use farebox_core::{
    Answer, Attachment, ChannelAction, ChannelId, ChannelState, Fault, Method, Served,
    wire::Receipt,
};

use crate::{
    engine::Shared,
    meter::{Meter, Terms},
    record::{Record, State, Stored},
    verdict::Refused,
};

/// What a presentation is answered with that only manages its channel. No handler runs, and nothing
/// is spent; the same credential may come again and is answered again.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Managed {
    /// What was done.
    pub action: ChannelAction,
    /// What the payer gets.
    pub receipt: Receipt,
    /// What goes with the answer beside the receipt; headers, in HTTP.
    pub attachments: Vec<Attachment>,
    /// Never [`Answer::Later`], which is [`Refused::Pending`].
    pub answer: Answer,
}

impl Managed {
    pub(crate) fn of(
        method: &dyn Method,
        meter: &Meter,
        action: ChannelAction,
        state: &ChannelState,
    ) -> Result<Self, Refused> {
        let answered = meter.answered(state, &Served::default());
        match method.answer(action, &answered.receipt, state) {
            Answer::Later => Err(Refused::pending()),
            answer => Ok(Self {
                action,
                receipt: answered.receipt,
                attachments: answered.attachments,
                answer,
            }),
        }
    }
}

impl Shared {
    /// The meter of a presentation on `channel`. `opens`: of the one that opened it.
    pub(crate) fn meter_for(
        self: &Arc<Self>,
        method: Option<Arc<dyn Method>>,
        channel: ChannelId,
        record: &Record,
        receipt: Arc<Receipt>,
        opens: bool,
    ) -> Meter {
        let terms = Terms {
            method,
            price: record.price(),
            receipt: Some(receipt),
            opens,
        };
        Meter::new(self.clone(), channel, terms)
    }

    /// Answers a paid presentation that asks for no service. `None`: its record moved.
    pub(crate) async fn manage(
        self: &Arc<Self>,
        id: &str,
        stored: &Stored,
    ) -> Result<Option<Managed>, Refused> {
        let record = &stored.record;
        let (State::Paid { receipt }
        | State::Serving { receipt, .. }
        | State::Delivered { receipt, .. }) = &record.state
        else {
            return Ok(None);
        };
        let Some(change) = &record.channel else {
            return Ok(None);
        };
        let method = self.method(&record.method);
        let method = method
            .ok_or_else(|| Fault::unavailable("a payment's rail is not configured any more"))?;
        let channel = change.id.clone();
        let meter = self.meter_for(
            Some(method.clone()),
            channel,
            record,
            receipt.clone(),
            false,
        );
        let mut state = meter.state().await?;
        if state.closed && !state.unaccounted().is_zero() {
            // Of a close, and of a top-up that came too late.
            self.give_back_owed(&change.id).await;
            state = meter.state().await?;
        }
        let managed = Managed::of(&*method, &meter, change.action, &state)?;
        if !matches!(record.state, State::Delivered { .. }) {
            let delivered = record.with(State::Delivered {
                receipt: receipt.clone(),
                holder: String::new(),
                reply: None,
            });
            if self.advance(id, Some(stored), delivered).await?.is_none() {
                return Ok(None);
            }
        }
        Ok(Some(managed))
    }
}
