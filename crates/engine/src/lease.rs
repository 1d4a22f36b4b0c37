//! A block of a channel's balance that a caller burns at its own pace, and the charge for one request.

use std::fmt;

use farebox_core::{ChannelState, Fault, Served, wire::Amount};
use tokio::{
    runtime::Handle,
    task::{AbortHandle, JoinHandle},
    time::{Instant, sleep},
};

use crate::{
    account::Block,
    balance::BalanceError,
    drain::UnderWay,
    engine::Shared,
    meter::{Meter, MeterError, spendable},
    recall::Recall,
};

/// This part of a lease before its end the stream stops burning: other machines' clocks may run
/// ahead of ours.
const MARGIN: u32 = 6;

/// When a stream stops burning: past its lease the block is the payer's. By the monotonic clock, which nobody turns back, and by the clock
/// that others read, which goes on while the machine is suspended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    instant: Instant,
    millis: i64,
}

impl Deadline {
    pub(crate) fn of(shared: &Shared) -> Self {
        let lease = shared.timing.hold;
        let live = lease - lease / MARGIN;
        Self {
            instant: Instant::now() + live,
            millis: shared.after(live),
        }
    }

    pub(crate) fn passed(&self, shared: &Shared) -> bool {
        Instant::now() >= self.instant || shared.clock.millis() >= self.millis
    }
}

/// A block of a channel's balance, burnt locally.
#[derive(Debug)]
#[must_use = "dropping it gives the rest back"]
pub struct Lease {
    meter: Meter,
    id: String,
    amount: Amount,
    left: Amount,
    units: u64,
    deadline: Deadline,
    open: bool,
    /// A server that drains waits for it.
    under_way: Option<UnderWay>,
}

impl Lease {
    /// `opens`: for the request that opened the channel, which costs nothing more once it is
    /// charged.
    pub(crate) async fn take(
        meter: &Meter,
        amount: Amount,
        opens: bool,
    ) -> Result<Self, MeterError> {
        let mut recall = Recall::of(amount);
        loop {
            match Self::try_take(meter, amount, opens).await {
                Err(short @ MeterError::Exhausted { .. }) => recall.again(meter, short).await?,
                taken => return taken,
            }
        }
    }

    async fn try_take(meter: &Meter, amount: Amount, opens: bool) -> Result<Self, MeterError> {
        let shared = &meter.shared;
        let id = Shared::nonce()?;
        let (now, until) = (shared.clock.millis(), shared.after(shared.timing.hold));
        // From before the write, so that a slow store shortens the lease and never stretches it.
        let deadline = Deadline::of(shared);
        let amount = meter
            .update(|account| {
                if let Some(account) = account
                    && let Some(block) = account.leases.get(&id)
                {
                    return Ok((account.clone(), block.amount));
                }
                let amount = match account.is_some_and(|account| opens && account.charged) {
                    true => Amount::new(0),
                    false => amount,
                };
                let mut next = spendable(account, amount, now)?;
                next.forget_lost_leases(now);
                let block = Block {
                    amount,
                    until,
                    turn: 0,
                };
                next.leases.insert(id.clone(), block);
                Ok((next, amount))
            })
            .await?;
        Ok(Self {
            meter: meter.clone(),
            id,
            amount,
            left: amount,
            units: 0,
            deadline,
            open: true,
            under_way: Some(shared.drain.serving()),
        })
    }

    /// Burns `amount` of the block, a unit of service, without touching the store. `false`: not enough is left, or the
    /// lease ran out and must be [renewed](Self::renew) or taken anew.
    pub fn burn(&mut self, amount: Amount) -> bool {
        match self.left.checked_sub(amount) {
            Some(left) if !self.deadline.passed(&self.meter.shared) => {
                self.left = left;
                self.units += 1;
                true
            }
            _ => false,
        }
    }

    /// What is left of the block.
    pub fn left(&self) -> Amount {
        self.left
    }

    /// Holds the block for another lease; for streams slower than their lease.
    pub async fn renew(&mut self) -> Result<(), MeterError> {
        let deadline = Deadline::of(&self.meter.shared);
        renew(&self.meter, &self.id).await?;
        self.deadline = deadline;
        Ok(())
    }

    /// Records what was burnt and gives back the rest.
    pub async fn finish(mut self) -> Result<ChannelState, MeterError> {
        let state = give_back(&self.meter, &self.id, self.burnt(), self.units, false).await?;
        // Only now: a caller that goes away before leaves the rest to `Drop`.
        self.open = false;
        Ok(state)
    }

    fn burnt(&self) -> Amount {
        Amount::new(self.amount.get().saturating_sub(self.left.get()))
    }
}

/// Holds the block `id` for another lease.
async fn renew(meter: &Meter, id: &str) -> Result<(), MeterError> {
    let until = meter.shared.after(meter.shared.timing.hold);
    let now = meter.shared.clock.millis();
    meter
        .update(|account| {
            let mut next = account.cloned().ok_or(BalanceError::NotFound)?;
            next.open(None, now)?;
            match next.leases.get_mut(id) {
                Some(block) if block.until > now => block.until = until,
                // Lapsed: others may have spent it by now.
                _ => return Err(Fault::unavailable("a stream's lease lapsed").into()),
            }
            Ok((next, ()))
        })
        .await
}

/// Once per lease: the block is taken out in the same write that counts what was burnt. `opens`: it
/// is what the request costs that opened the channel.
async fn give_back(
    meter: &Meter,
    id: &str,
    burnt: Amount,
    units: u64,
    opens: bool,
) -> Result<ChannelState, MeterError> {
    let now = meter.shared.clock.millis();
    meter
        .update(|account| {
            let mut next = account.cloned().ok_or(BalanceError::NotFound)?;
            if next.leases.remove(id).is_some() {
                // By an earlier delivery that was not recorded.
                if !(opens && next.charged) {
                    next.burnt(burnt, units, now);
                }
                next.charged |= opens;
            }
            let state = next.view(now);
            Ok((next, state))
        })
        .await
}

impl Drop for Lease {
    fn drop(&mut self) {
        let (true, Ok(runtime)) = (self.open, Handle::try_current()) else {
            return;
        };
        let (meter, id, burnt) = (
            self.meter.clone(),
            std::mem::take(&mut self.id),
            self.burnt(),
        );
        let (under_way, units) = (self.under_way.take(), self.units);
        runtime.spawn(async move {
            let _under_way = under_way;
            if let Err(error) = give_back(&meter, &id, burnt, units, false).await {
                tracing::warn!(%error, "a stream's lease was not given back");
            }
        });
    }
}

/// What one request costs, held until it is known whether it was served.
///
/// Held as long as it lives, however slow the handler. Dropped, it goes back to the payer.
#[derive(Debug)]
#[must_use = "dropping it gives everything back"]
pub struct Charge {
    lease: Lease,
    /// What was asked for. Nothing of it is held where it was charged already.
    cost: Amount,
    units: u64,
    renewal: Renewal,
}

/// How often in its lease a balance is held anew, so that a renewal that fails is tried again in
/// time.
const RENEWALS: u32 = 3;

/// A task that holds a balance, until this is dropped.
pub(crate) struct Renewal(AbortHandle);

impl Renewal {
    pub(crate) fn of(task: JoinHandle<()>) -> Self {
        Self(task.abort_handle())
    }
}

impl Drop for Renewal {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl fmt::Debug for Renewal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Renewal")
    }
}

impl Charge {
    pub(crate) async fn hold(meter: &Meter, units: u64) -> Result<Self, MeterError> {
        let cost = meter.cost(units)?;
        let lease = Lease::take(meter, cost, meter.opens()).await?;
        let (meter, id) = (meter.clone(), lease.id.clone());
        let pause = meter.shared.timing.hold / RENEWALS;
        let renewal = tokio::spawn(async move {
            loop {
                sleep(pause).await;
                if let Err(error) = renew(&meter, &id).await {
                    tracing::warn!(%error, "what a request costs may be spent by others meanwhile");
                }
            }
        });
        Ok(Self {
            lease,
            cost,
            units,
            renewal: Renewal::of(renewal),
        })
    }

    /// What is held.
    pub fn amount(&self) -> Amount {
        self.lease.amount
    }

    /// What was served if it is committed.
    pub fn served(&self) -> Served {
        Served {
            spent: self.cost,
            units: self.units,
        }
    }

    /// The request was served: what is held is spent.
    ///
    /// # Errors
    /// It is not known whether it was recorded; where it was not, the payer keeps it.
    pub async fn commit(self) -> Result<ChannelState, MeterError> {
        self.spend(false).await
    }

    /// The same. `opens`: for the request that opened the channel; should its delivery not be
    /// recorded, it is not charged again.
    pub(crate) async fn spend(self, opens: bool) -> Result<ChannelState, MeterError> {
        let mut lease = self.lease;
        drop(self.renewal);
        // Even if it lapsed: it was served, and the account bounds what is counted. On an error all
        // of it goes back with the lease, since nothing is sent.
        let state = give_back(&lease.meter, &lease.id, lease.amount, self.units, opens).await?;
        lease.open = false;
        Ok(state)
    }

    /// The request was not served: nothing was spent.
    pub async fn release(self) -> Result<ChannelState, MeterError> {
        self.lease.finish().await
    }
}
