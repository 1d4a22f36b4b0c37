//! A stream's way to its channel: it burns locally, refills by itself, and holds where the balance
//! is exhausted.

use std::{fmt, time::Duration};

use farebox_core::{ChannelState, Event, Fault, Moment, Served, wire::Amount};
use tokio::{runtime::Handle, time::Instant};

use crate::{
    account::{Account, Block},
    balance::BalanceError,
    drain::UnderWay,
    engine::Shared,
    lease::{Deadline, RENEWALS},
    meter::{Answered, Meter, MeterError, exhausted},
};

/// How long a stream holds for its payer before it ends.
pub const HOLD: Duration = Duration::from_secs(60);

/// How many units a stream takes aside at once, to begin with, at least and at most.
const FIRST: u64 = 1_024;
const LEAST: u64 = 16;
const MOST: u64 = 1 << 16;

/// A block that is burnt faster than this was too small, and slower than that too large.
const FAST: Duration = Duration::from_secs(2);
const SLOW: Duration = Duration::from_secs(20);

/// A stream's way to its channel.
///
/// ```text
/// loop {
///     if let Err(MeterError::Exhausted { .. }) = tap.charge(1).await {
///         send(tap.need(1));                       // once per exhaustion
///         if !tap.hold(1, HOLD).await? { break }   // a voucher, a top-up, or the end
///         continue;
///     }
///     send(next piece);
/// }
/// tap.finish().await?                              // the last receipt
/// ```
///
/// It takes a block of the balance aside in one write and burns it locally; how large a block is
/// follows from how fast it is burnt. It never takes more than there is, and of several streams on
/// one channel each leaves the others their share. A process that dies loses one block at most, to
/// the payer's benefit.
#[must_use = "dropping it gives the rest back"]
pub struct Tap {
    meter: Meter,
    id: String,
    /// The block as the store has it, of which `left` is not burnt.
    amount: Amount,
    left: Amount,
    /// Units burnt of it.
    units: u64,
    turn: u64,
    deadline: Option<Deadline>,
    taken: Instant,
    /// Units of the next block.
    block: u64,
    served: Served,
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
            id: Shared::nonce()?,
            amount: Amount::new(0),
            left: Amount::new(0),
            units: 0,
            turn: 0,
            deadline: None,
            taken: Instant::now(),
            block: FIRST,
            served: Served::default(),
            state: ChannelState::default(),
            open: false,
            under_way: Some(meter.shared.drain.serving()),
            meter,
        })
    }

    /// The channel's meter.
    pub fn meter(&self) -> &Meter {
        &self.meter
    }

    /// What this stream was served so far.
    pub fn served(&self) -> Served {
        self.served
    }

    /// Charges for `units`, before they are served. Usually a subtraction; now and then a write.
    ///
    /// # Errors
    /// [`Exhausted`](MeterError::Exhausted): say so with [`need`](Self::need), and
    /// [`hold`](Self::hold). Any other ends the stream.
    pub async fn charge(&mut self, units: u64) -> Result<(), MeterError> {
        let amount = self.meter.cost(units)?;
        self.charge_amount(amount, units).await
    }

    /// The same for a piece with a price of its own, which counts as so many units.
    ///
    /// # Errors
    /// As for [`charge`](Self::charge).
    pub async fn charge_amount(&mut self, amount: Amount, units: u64) -> Result<(), MeterError> {
        if self.burn(amount, units) {
            return Ok(());
        }
        self.refill(amount).await?;
        match self.burn(amount, units) {
            true => Ok(()),
            // A store so slow that the block lapsed before it was ours.
            false => Err(Fault::unavailable("the store did not answer in time").into()),
        }
    }

    /// Charges what is at hand, without the store. `false`: [`charge`](Self::charge) must ask.
    pub fn burn(&mut self, amount: Amount, units: u64) -> bool {
        let (Some(left), Some(deadline)) = (self.left.checked_sub(amount), &self.deadline) else {
            return false;
        };
        if deadline.passed(&self.meter.shared) {
            return false;
        }
        self.left = left;
        self.units += units;
        self.served.units += units;
        self.served.spent = Amount::new(self.served.spent.get().saturating_add(amount.get()));
        true
    }

    /// [`burn`](Self::burn) of so many units at the channel's price.
    pub fn burn_units(&mut self, units: u64) -> bool {
        let cost = self.meter.cost(units);
        cost.is_ok_and(|cost| self.burn(cost, units))
    }

    /// Counts what was burnt and holds on to the rest, for a stream that is slower than its block
    /// lives. Does nothing to a block that is young.
    ///
    /// # Errors
    /// As for [`hold`](Self::hold); a balance that is exhausted is none.
    pub async fn keep(&mut self) -> Result<(), MeterError> {
        let young = self.meter.shared.timing.hold / RENEWALS;
        if !self.open || self.taken.elapsed() < young {
            return Ok(());
        }
        match self.refill(Amount::new(0)).await {
            Err(MeterError::Exhausted { .. }) => Ok(()),
            kept => kept,
        }
    }

    /// What to tell the payer when [`charge`](Self::charge) found the balance exhausted, once per
    /// exhaustion.
    pub fn need(&self, units: u64) -> Option<Event> {
        let (required, next) = self.required(units);
        let moment = Moment::Exhausted { required, next };
        self.meter.event(&self.state, &moment)
    }

    /// What to tell the payer when [`hold`](Self::hold) was in vain.
    pub fn gave_up(&self, units: u64) -> Option<Event> {
        let (required, next) = self.required(units);
        let moment = Moment::TimedOut { required, next };
        self.meter.event(&self.state, &moment)
    }

    /// What follows the last receipt, if anything.
    pub fn last_word(&self) -> Option<Event> {
        self.meter.event(&self.state, &Moment::Ended)
    }

    fn required(&self, units: u64) -> (Amount, Amount) {
        let next = self.meter.cost(units).unwrap_or(Amount::new(u128::MAX));
        let missing = next.get().saturating_sub(self.state.available().get());
        let required = self.state.authorized.get().saturating_add(missing);
        (Amount::new(required), next)
    }

    /// Waits until `units` can be charged, `patience` at most ([`HOLD`], as the drafts suggest).
    /// Answers whether they can. A piece with a price of its own: by what [`cost`](Meter::cost)s
    /// as much.
    ///
    /// # Errors
    /// The channel is closed, or its payer forces it; or the store.
    pub async fn hold(&mut self, units: u64, patience: Duration) -> Result<bool, MeterError> {
        let amount = self.meter.cost(units)?;
        if self.left >= amount && self.deadline.is_some_and(|d| !d.passed(&self.meter.shared)) {
            return Ok(true);
        }
        let end = Instant::now() + patience;
        let shared = self.meter.shared.clone();
        let waiting = shared.wait(self.meter.key());
        // Says that somebody waits here, and counts what was burnt before.
        let mut ready = true;
        loop {
            // Registered before the look, so that a change in between is not missed.
            let changed = waiting.changed();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if ready
                || self
                    .deadline
                    .is_none_or(|deadline| deadline.passed(&shared))
            {
                match self.refill(amount).await {
                    Ok(()) => return Ok(true),
                    Err(MeterError::Exhausted { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            let look = (Instant::now() + waiting.look()).min(end);
            let woken = tokio::time::timeout_at(look, changed).await;
            if woken.is_err() && Instant::now() >= end {
                return Ok(false);
            }
            let account = shared.account(self.meter.key()).await?;
            let (_, account) = account.ok_or(BalanceError::NotFound)?;
            let now = shared.clock.millis();
            self.state = account.view(now);
            ready = self.state.available() >= amount || account.serves(now).is_err();
        }
    }

    /// Counts what was burnt and takes the next block, in one write. Where the balance does not
    /// cover `least`, what was burnt is counted all the same and an empty block says that a stream
    /// waits here.
    async fn refill(&mut self, least: Amount) -> Result<(), MeterError> {
        self.resize();
        let meter = self.meter.clone();
        let shared = &meter.shared;
        let want = meter.cost(self.block).unwrap_or(least).max(least);
        let (burnt, units) = (self.burnt(), self.units);
        let (id, turn) = (self.id.clone(), self.turn + 1);
        let (now, until) = (shared.clock.millis(), shared.after(shared.timing.hold));
        // From before the write, so that a slow store shortens the lease and never stretches it.
        let deadline = Deadline::of(shared);
        let refill = meter.update(|account| {
            let account = account.ok_or(BalanceError::NotFound)?;
            let before = account.leases.get(&id);
            if let Some(ours) = before.filter(|before| before.turn == turn) {
                // Written before, and its reply was lost.
                let answer = (*ours, account.view(now), account.serves(now));
                return Ok((account.clone(), answer));
            }
            let mut next = account.clone();
            next.leases.remove(&id);
            next.burnt(burnt, units, now);
            next.forget_lost_leases(now);
            next.end_lapsed_close(now);
            let serves = next.serves(now);
            let available = match serves {
                Ok(()) => next.available(now),
                Err(_) => Amount::new(0),
            };
            let amount = share(&next, available, least, want, now);
            let block = Block {
                amount,
                until,
                turn,
            };
            next.leases.insert(id.clone(), block);
            let answer = (block, next.view(now), serves);
            Ok((next, answer))
        });
        let (block, state, serves) = refill.await?;
        (self.amount, self.left, self.units) = (block.amount, block.amount, 0);
        (self.turn, self.state, self.open) = (turn, state, true);
        (self.deadline, self.taken) = (Some(deadline), Instant::now());
        serves?;
        match block.amount >= least {
            true => Ok(()),
            false => Err(exhausted(&self.state, least)),
        }
    }

    /// Sizes the next block by how fast the last one went.
    fn resize(&mut self) {
        let whole = self.deadline.is_some() && !self.amount.is_zero();
        match self.taken.elapsed() {
            fast if whole && fast < FAST => self.block = (self.block * 2).min(MOST),
            slow if whole && slow > SLOW => self.block = (self.block / 2).max(LEAST),
            _ => {}
        }
    }

    fn rest(&self) -> Rest {
        Rest {
            id: self.id.clone(),
            turn: self.turn,
            burnt: self.burnt(),
            units: self.units,
        }
    }

    fn burnt(&self) -> Amount {
        Amount::new(self.amount.get().saturating_sub(self.left.get()))
    }

    /// Ends the stream: counts what was burnt, gives back the rest, and answers with the last
    /// receipt.
    ///
    /// # Errors
    /// The store; what was burnt is counted as soon as it can be, or is the payer's.
    pub async fn finish(mut self) -> Result<Answered, MeterError> {
        let state = match self.open {
            true => self.rest().give_back(&self.meter).await?,
            false => self.meter.state().await?,
        };
        // Only now: a caller that goes away before leaves the rest to `Drop`.
        self.open = false;
        Ok(self.meter.answered(&state, &self.served))
    }
}

/// What a stream's last block comes to.
struct Rest {
    id: String,
    turn: u64,
    burnt: Amount,
    units: u64,
}

impl Rest {
    /// The block is taken out in the same write that counts what was burnt of it. Another block than
    /// the one we know was written by a refill whose reply was lost, which counted it.
    async fn give_back(self, meter: &Meter) -> Result<ChannelState, MeterError> {
        let now = meter.shared.clock.millis();
        let give_back = meter.update(|account| {
            let mut next = account.cloned().ok_or(BalanceError::NotFound)?;
            if next
                .leases
                .remove(&self.id)
                .is_some_and(|block| block.turn == self.turn)
            {
                next.burnt(self.burnt, self.units, now);
            }
            let state = next.view(now);
            Ok((next, state))
        });
        give_back.await
    }
}

/// How much of what is `available` a stream takes: what it wants, but where others stream from the
/// same channel no more than its share; nothing where that is less than it needs.
fn share(account: &Account, available: Amount, least: Amount, want: Amount, now: i64) -> Amount {
    if available < least {
        return Amount::new(0);
    }
    let others = account.leases.values().filter(|block| block.until > now);
    let others = u128::try_from(others.count()).unwrap_or(u128::MAX);
    let fair = available.get() / others.saturating_add(1);
    Amount::new(fair.max(least.get())).min(want)
}

impl Drop for Tap {
    fn drop(&mut self) {
        let (true, Ok(runtime)) = (self.open, Handle::try_current()) else {
            return;
        };
        let (meter, rest, under_way) = (self.meter.clone(), self.rest(), self.under_way.take());
        runtime.spawn(async move {
            let _under_way = under_way;
            if let Err(error) = rest.give_back(&meter).await {
                tracing::warn!(%error, "a stream's block was not given back");
            }
        });
    }
}

impl fmt::Debug for Tap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tap")
            .field("channel", self.meter.channel())
            .field("served", &self.served)
            .field("left", &self.left)
            .finish_non_exhaustive()
    }
}
