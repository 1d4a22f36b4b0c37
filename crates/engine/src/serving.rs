//! The serving lease: of many callers with one credential, one runs the handler.

use std::{fmt, sync::Arc};

use farebox_core::{
    ChannelState, Fault, Served,
    wire::{Amount, Receipt},
};
use tokio::{runtime::Handle, sync::Mutex, time::Instant};

use crate::{
    detached::Detached,
    drain::UnderWay,
    engine::Shared,
    heartbeat::{Heartbeat, Held},
    lease::Charge,
    managed::Managed,
    meter::{Answered, Meter, MeterError},
    record::{State, Stored},
    reply::{Kept, Keyed, Reply, StoredReply},
    withdraw::Withdrawal,
};

/// What a paid request gets.
#[derive(Debug)]
#[must_use]
#[non_exhaustive]
pub enum Admission {
    /// The handler's response. Say how serving went.
    Serve(Serving),
    /// The response that was given before, under the same `Idempotency-Key`.
    Replay(Reply),
    /// An answer without a handler: a top-up, a close, or what came with
    /// [`Inbound::manages`](crate::Inbound::manages).
    Managed(Managed),
}

impl Admission {
    /// The lease, unless the request was answered before or asks for no service.
    pub fn into_serving(self) -> Option<Serving> {
        match self {
            Self::Serve(serving) => Some(serving),
            Self::Replay(_) | Self::Managed(_) => None,
        }
    }
}

/// A lease on a paid response. While it is held nobody else is served for this payment.
///
/// Say [`delivered`](Self::delivered) when the handler succeeded and [`failed`](Self::failed) when
/// it did not; then the payment goes back and the same credential may collect it. Dropping the
/// lease is a failure too: the handler panicked, or its client went away.
#[must_use = "dropping it gives the payment back as unserved"]
pub struct Serving {
    shared: Arc<Shared>,
    id: String,
    receipt: Arc<Receipt>,
    meter: Option<Meter>,
    /// The record as this lease last wrote it. `None` where there is nothing to give back.
    held: Held,
    heartbeat: Option<Heartbeat>,
    /// A server that drains waits for it.
    under_way: Option<UnderWay>,
    /// The request's key, under which its response is kept.
    keyed: Option<Keyed>,
    /// What the request costs, held.
    charge: Option<Box<(Charge, ChannelState)>>,
}

impl Serving {
    /// Takes the lease on a paid record. `None`: somebody else was faster.
    pub(crate) async fn lease(
        shared: Arc<Shared>,
        id: &str,
        stored: &Stored,
        keyed: Option<Keyed>,
    ) -> Result<Option<Self>, Fault> {
        let (State::Paid { receipt } | State::Serving { receipt, .. }) = &stored.record.state
        else {
            return Ok(None);
        };
        let serving = State::Serving {
            receipt: receipt.clone(),
            holder: Shared::nonce()?,
            until: shared.lease_until(shared.timing.serve),
        };
        let next = stored.record.with(serving);
        let held = shared.advance(id, Some(stored), next).await?;
        Ok(held.and_then(|held| Self::of(shared, id, held, keyed)))
    }

    /// The lease that a record gives whoever wrote it.
    pub(crate) fn of(
        shared: Arc<Shared>,
        id: &str,
        held: Stored,
        keyed: Option<Keyed>,
    ) -> Option<Self> {
        let State::Serving { receipt, .. } = &held.record.state else {
            return None;
        };
        let receipt = receipt.clone();
        let meter = held.record.channel.as_ref().map(|change| {
            let method = shared.method(&held.record.method);
            shared.meter_for(
                method,
                change.id.clone(),
                &held.record,
                receipt.clone(),
                true,
            )
        });
        let held = Arc::new(Mutex::new(Some(held)));
        Some(Self {
            under_way: Some(shared.drain.serving()),
            meter,
            charge: None,
            id: id.to_owned(),
            receipt,
            heartbeat: Some(Heartbeat::start(&shared, id, &held)),
            held,
            keyed,
            shared,
        })
    }

    /// Permission without a record: the balance behind `meter` is the only thing to spend.
    pub(crate) fn unrecorded(shared: Arc<Shared>, meter: Meter) -> Self {
        let held = Arc::new(Mutex::new(None));
        Self {
            under_way: Some(shared.drain.serving()),
            shared,
            id: String::new(),
            receipt: meter.receipt(),
            charge: None,
            meter: Some(meter),
            held,
            heartbeat: None,
            keyed: None,
        }
    }

    /// Holds what `units` of service cost until it is known whether they were served: spent with
    /// [`delivered`](Self::delivered), the payer's again otherwise. Before the handler runs; nothing
    /// where the payment is part of no channel. Called again, it replaces what was held.
    ///
    /// # Errors
    /// [`Exhausted`](MeterError::Exhausted) is the payer's to raise:
    /// [`Meter::refused`](crate::Meter::refused) makes it the answer.
    pub async fn reserve(&mut self, units: u64) -> Result<(), MeterError> {
        let Some(meter) = &self.meter else {
            return Ok(());
        };
        if let Some(held) = self.charge.take() {
            held.0.release().await?;
        }
        let charge = meter.reserve(units).await?;
        Ok(self.hold(charge).await?)
    }

    /// The same with what [`Meter::reserve`] held for this request, by whoever may have spent it
    /// otherwise in between.
    ///
    /// # Errors
    /// The store; `charge` is given back.
    pub async fn hold(&mut self, charge: Charge) -> Result<(), Fault> {
        let Some(meter) = &self.meter else {
            return Ok(());
        };
        // As the payer shall see it: with this charge, and without what others hold.
        let mut state = meter.glance().await?;
        let others = state.held.get().saturating_sub(charge.amount().get());
        state.held = Amount::new(others);
        self.charge = Some(Box::new((charge, state)));
        Ok(())
    }

    /// What the payer gets on success, without what its channel comes to:
    /// [`delivered`](Self::delivered) answers the whole.
    pub fn receipt(&self) -> &Receipt {
        &self.receipt
    }

    /// The channel's meter, where the payment is part of one.
    pub fn meter(&self) -> Option<&Meter> {
        self.meter.as_ref()
    }

    /// Whether the request came with an `Idempotency-Key`, so that its response should be given
    /// to [`delivered`](Self::delivered).
    ///
    /// An opening of a channel always is kept, whether it has a key or not. Never a voucher: nothing is recorded of it, and it may come any number of times.
    pub fn keyed(&self) -> bool {
        self.keyed.is_some()
    }

    /// The handler succeeded. Call it before the response leaves: on an error nothing may be
    /// sent, and the same credential may come again. The same where the future is dropped.
    ///
    /// `reply` is kept for whoever repeats the request under its key, in the same write, as long
    /// as the delivery is. Without one (it was too large, or streamed) a repeated request is
    /// refused as used; so it is where the amount is zero and the reply is over
    /// [`FREE_REPLY`](crate::FREE_REPLY). It is ignored where the request had [no key](Self::keyed).
    pub async fn delivered(mut self, reply: Option<Kept>) -> Result<Answered, Fault> {
        let charge = self.charge.take().map(|held| *held);
        let answered = match (&self.meter, &charge) {
            (None, _) => Answered::plain(Receipt::clone(&self.receipt)),
            (Some(meter), None) => meter.answered(&meter.glance().await?, &Served::default()),
            (Some(meter), Some((charge, state))) => meter.answered(state, &charge.served()),
        };
        // First, and by the payment's name: a delivery that is not recorded is served again and not
        // charged again, and none is recorded that was not charged.
        if let Some((charge, _)) = charge {
            let opens = self.meter.as_ref().is_some_and(Meter::opens);
            charge.spend(opens).await.map_err(|error| match error {
                MeterError::Fault(fault) => fault,
                error => Fault::new("spending what a request costs").caused_by(error),
            })?;
        }
        self.record(reply, &answered.receipt).await?;
        Ok(answered)
    }

    /// Records the delivery, where there is a record.
    async fn record(mut self, reply: Option<Kept>, answered: &Receipt) -> Result<(), Fault> {
        let keyed = self.keyed.take();
        let mut held = self.held.lock().await;
        let Some(mut stored) = held.take() else {
            return Ok(());
        };
        let free = stored.record.is_free();
        let reply = match (keyed, reply) {
            (Some(keyed), Some(kept)) if !free || kept.is_small() => {
                Some(StoredReply::new(keyed, &kept))
            }
            _ => None,
        };
        let State::Serving { holder, .. } = stored.record.state.clone() else {
            return Ok(());
        };
        let (receipt, me) = (Arc::new(answered.clone()), holder.clone());
        // Where nothing is sent nothing may stay recorded, whenever the store is back.
        let withdrawal = Withdrawal::of(&self.shared, &self.id, &me);
        let delivered = stored.record.with(State::Delivered {
            receipt,
            holder,
            reply,
        });
        let mut trouble = None;
        let started = Instant::now();
        for attempt in 0..TRIES {
            // Its client waits: a store that hangs is not asked again and again. Once it is asked,
            // however long this process has been paused.
            if attempt > 0 && started.elapsed() >= self.shared.timing.store {
                break;
            }
            match self
                .shared
                .advance(&self.id, Some(&stored), delivered.clone())
                .await
            {
                Ok(Some(_)) => {
                    withdrawal.keep();
                    return Ok(());
                }
                Ok(None) => {}
                Err(fault) => {
                    trouble = Some(fault);
                    continue;
                }
            }
            // A heartbeat's write may have been carried out and its reply lost.
            match self.shared.record(&self.id).await {
                Ok(Some(now)) => match &now.record.state {
                    State::Delivered { holder, .. } if *holder == me => {
                        withdrawal.keep();
                        return Ok(());
                    }
                    State::Serving { holder, .. } if *holder == me => stored = now,
                    // Lapsed under us: somebody else serves, or served, the same payment.
                    _ => return Err(Fault::unavailable("the serving lease was lost")),
                },
                Ok(None) => return Err(Fault::unavailable("the serving lease was lost")),
                Err(fault) => trouble = Some(fault),
            }
        }
        Err(trouble.unwrap_or_else(|| Fault::unavailable("the serving lease was lost")))
    }

    /// The handler failed: the payment stays, and the same credential may collect it. What was
    /// [reserved](Self::reserve) is the payer's again by then.
    pub async fn failed(mut self) -> Result<(), Fault> {
        // Once the record is taken out, a drop would give nothing back.
        Detached::new(async move {
            release(self.charge.take()).await;
            let held = self.held.lock().await.take();
            give_back(&self.shared, &self.id, held).await
        })
        .await
    }
}

/// How often the last write is tried before the response is held back.
const TRIES: usize = 3;

/// Lets go of what a request costs.
async fn release(held: Option<Box<(Charge, ChannelState)>>) {
    if let Some(held) = held
        && let Err(error) = held.0.release().await
    {
        // It lapses by itself.
        tracing::warn!(%error, "what a request holds was not given back");
    }
}

async fn give_back(shared: &Shared, id: &str, held: Option<Stored>) -> Result<(), Fault> {
    let Some(stored) = held else { return Ok(()) };
    if let State::Serving { receipt, .. } = &stored.record.state {
        let paid = stored.record.with(State::Paid {
            receipt: receipt.clone(),
        });
        shared.advance(id, Some(&stored), paid).await?;
    }
    Ok(())
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.heartbeat = None;
        if self.held.try_lock().is_ok_and(|held| held.is_none()) {
            return;
        }
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        let (shared, held) = (self.shared.clone(), self.held.clone());
        let (id, under_way) = (std::mem::take(&mut self.id), self.under_way.take());
        let charge = self.charge.take();
        runtime.spawn(async move {
            let _under_way = under_way;
            // First, so that whoever comes again finds what it costs.
            release(charge).await;
            // Behind a renewal that is under way.
            let held = held.lock().await.take();
            if let Err(fault) = give_back(&shared, &id, held).await {
                // The lease lapses by itself, so this only delays the next caller.
                tracing::warn!(%fault, "an unserved payment was not given back");
            }
        });
    }
}

impl fmt::Debug for Serving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serving")
            .field("receipt", &self.receipt.reference)
            .finish_non_exhaustive()
    }
}
