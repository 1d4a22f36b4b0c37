//! A stream's way to its channel: it burns locally, refills by itself, and holds where the balance
//! is exhausted.

use std::{fmt, sync::Arc, time::Duration};

use farebox_core::{ChannelState, Event, Fault, Moment, Served, wire::Amount};
use tokio::{runtime::Handle, time::Instant};

use crate::{
    balance::BalanceError,
    block::Held,
    drain::UnderWay,
    lease::Renewal,
    meter::{Answered, Meter, MeterError},
    recall::Recall,
};

/// How often a stream takes a block that is gone before it is burnt.
const TRIES: u32 = 8;

/// How long a stream holds for its payer before it ends.
pub const HOLD: Duration = Duration::from_secs(60);

/// A stream's way to its channel.
///
/// ```text
/// 'stream: loop {
///     match tap.charge(1).await {
///         Ok(()) => send(next piece),
///         Err(MeterError::Exhausted { .. }) => {
///             send(tap.need(1));                   // once per exhaustion
///             while !tap.hold(1, HOLD).await? {    // a voucher, a top-up, or the end
///                 if HOLD has passed { break 'stream }
///             }
///         }
///         Err(MeterError::Busy { .. }) => _ = tap.hold(1, HOLD).await?,   // other streams have it
///         Err(_) => break,
///     }
/// }
/// tap.finish().await?                              // the last receipt
/// ```
///
/// It takes a block of the balance aside in one write and burns it locally; how large a block is
/// follows from how fast it is burnt. A task of its own counts what was burnt, and holds on to the
/// rest, whether the stream is polled or not. It never takes more than there is, and of several streams on
/// one channel each leaves the others their share. A process that dies loses one block at most, to
/// the payer's benefit.
#[must_use = "dropping it gives the rest back"]
pub struct Tap {
    held: Arc<Held>,
    /// Keeps the block while this is not polled.
    renewal: Option<Renewal>,
    /// The balance as of the last write.
    state: ChannelState,
    /// Whether the store knows a block of ours.
    open: bool,
    /// A server that drains waits for it.
    under_way: Option<UnderWay>,
}

impl Tap {
    pub(crate) fn new(meter: Meter) -> Result<Self, Fault> {
        Ok(Self {
            state: ChannelState::default(),
            open: false,
            renewal: None,
            under_way: Some(meter.shared.drain.serving()),
            held: Arc::new(Held::new(meter)?),
        })
    }

    /// The channel's meter.
    pub fn meter(&self) -> &Meter {
        &self.held.meter
    }

    /// What this stream was served so far.
    pub fn served(&self) -> Served {
        self.held.served()
    }

    /// Charges for `units`, before they are served. Usually a subtraction; now and then a write.
    ///
    /// # Errors
    /// [`Exhausted`](MeterError::Exhausted): say so with [`need`](Self::need), and
    /// [`hold`](Self::hold). [`Busy`](MeterError::Busy): only hold. Any other ends the stream.
    pub async fn charge(&mut self, units: u64) -> Result<(), MeterError> {
        let amount = self.meter().cost(units)?;
        self.charge_amount(amount, units).await
    }

    /// The same for a piece with a price of its own, which counts as so many units.
    ///
    /// # Errors
    /// As for [`charge`](Self::charge).
    pub async fn charge_amount(&mut self, amount: Amount, units: u64) -> Result<(), MeterError> {
        for _ in 0..TRIES {
            if self.burn(amount, units) {
                return Ok(());
            }
            // What it takes may be recalled before it is burnt.
            self.refill(amount).await?;
        }
        match self.burn(amount, units) {
            true => Ok(()),
            // A store so slow that the block lapsed before it was ours.
            false => Err(Fault::unavailable("the store did not answer in time").into()),
        }
    }

    /// Charges what is at hand, without the store. `false`: [`charge`](Self::charge) must ask.
    pub fn burn(&mut self, amount: Amount, units: u64) -> bool {
        self.held.burn(amount, units)
    }

    /// [`burn`](Self::burn) of so many units at the channel's price.
    pub fn burn_units(&mut self, units: u64) -> bool {
        let cost = self.meter().cost(units);
        cost.is_ok_and(|cost| self.burn(cost, units))
    }

    /// What to tell the payer when [`charge`](Self::charge) found the balance exhausted, once per
    /// exhaustion.
    pub fn need(&self, units: u64) -> Option<Event> {
        let (required, next) = self.required(units);
        let moment = Moment::Exhausted { required, next };
        self.meter().event(&self.state, &moment)
    }

    /// What to tell the payer when [`hold`](Self::hold) was in vain.
    pub fn gave_up(&self, units: u64) -> Option<Event> {
        let (required, next) = self.required(units);
        let moment = Moment::TimedOut { required, next };
        self.meter().event(&self.state, &moment)
    }

    /// What follows the last receipt, if anything.
    pub fn last_word(&self) -> Option<Event> {
        self.meter().event(&self.state, &Moment::Ended)
    }

    fn required(&self, units: u64) -> (Amount, Amount) {
        let next = self.meter().cost(units).unwrap_or(Amount::new(u128::MAX));
        let missing = next.get().saturating_sub(self.state.available().get());
        let required = self.state.authorized.get().saturating_add(missing);
        (Amount::new(required), next)
    }

    /// Waits until `units` can be charged, `patience` at most ([`HOLD`], as the drafts suggest).
    /// Answers whether they can. A piece with a price of its own: by what [`cost`](Meter::cost)s
    /// as much. Where other streams held what would do and then spent it, the answer comes at once:
    /// now the payer is [to be told](Self::need).
    ///
    /// # Errors
    /// The channel is closed, or its payer forces it; or the store. [`Busy`](MeterError::Busy) where
    /// other streams hold what would do, so that its payer is not to be asked for more.
    pub async fn hold(&mut self, units: u64, patience: Duration) -> Result<bool, MeterError> {
        let amount = self.meter().cost(units)?;
        if self.held.left() >= amount && !self.held.lapsed() {
            return Ok(true);
        }
        let end = Instant::now() + patience;
        let shared = self.meter().shared.clone();
        let waiting = shared.wait(self.meter().key());
        // Says that somebody waits here, and counts what was burnt before.
        let mut ready = true;
        let (mut busy, mut streams) = (None, None);
        loop {
            // Registered before the look, so that a change in between is not missed.
            let changed = waiting.changed();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if ready || busy.is_some() || self.held.lapsed() {
                busy = match self.refill(amount).await {
                    Ok(()) => return Ok(true),
                    Err(MeterError::Exhausted { .. }) => None,
                    Err(error @ MeterError::Busy { .. }) => Some(error),
                    Err(error) => return Err(error),
                };
                if *streams.get_or_insert(busy.is_some()) && busy.is_none() {
                    return Ok(false);
                }
                // News may come as fast as this asks.
                if Instant::now() >= end
                    && let Some(busy) = busy
                {
                    return Err(busy);
                }
            }
            let look = (Instant::now() + waiting.look()).min(end);
            let woken = tokio::time::timeout_at(look, changed).await;
            if woken.is_err() && Instant::now() >= end {
                return busy.map_or(Ok(false), Err);
            }
            let account = shared.account(self.meter().key()).await?;
            let (_, account) = account.ok_or(BalanceError::NotFound)?;
            let now = shared.clock.millis();
            self.state = account.view(now);
            ready = account.within_reach(now) >= amount || account.serves(now).is_err();
        }
    }

    async fn refill(&mut self, least: Amount) -> Result<(), MeterError> {
        let mut recall = Recall::of(least);
        loop {
            match self.try_refill(least).await {
                Err(short @ MeterError::Exhausted { .. }) => {
                    recall.again(self.meter(), short).await?;
                }
                filled => return filled,
            }
        }
    }

    async fn try_refill(&mut self, least: Amount) -> Result<(), MeterError> {
        let filled = self.held.refill(least).await?;
        (self.state, self.open) = (filled.state, true);
        if filled.renewal.is_some() {
            self.renewal = filled.renewal;
        }
        filled.enough
    }

    /// Ends the stream: counts what was burnt, gives back the rest, and answers with the last
    /// receipt.
    ///
    /// # Errors
    /// The store; what was burnt is counted as soon as it can be, or is the payer's.
    pub async fn finish(mut self) -> Result<Answered, MeterError> {
        // What it may be writing is not waited for: the block tells whether it was written.
        self.renewal = None;
        let state = match self.open {
            true => self.held.give_back().await?,
            false => self.meter().state().await?,
        };
        // Only now: a caller that goes away before leaves the rest to `Drop`.
        self.open = false;
        Ok(self.meter().answered(&state, &self.served()))
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        let (true, Ok(runtime)) = (self.open, Handle::try_current()) else {
            return;
        };
        self.renewal = None;
        let (held, under_way) = (self.held.clone(), self.under_way.take());
        runtime.spawn(async move {
            let _under_way = under_way;
            if let Err(error) = held.give_back().await {
                tracing::warn!(%error, "a stream's block was not given back");
            }
        });
    }
}

impl fmt::Debug for Tap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tap")
            .field("channel", self.meter().channel())
            .field("served", &self.served())
            .field("left", &self.held.left())
            .finish_non_exhaustive()
    }
}
