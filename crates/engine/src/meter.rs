//! What requests, event streams and WebSockets spend a channel through.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use farebox_core::{ChannelId, ChannelState, Channels, Fault, Observed, wire::Amount};
use tokio::{runtime::Handle, time::Instant};

use crate::{
    balance::{Account, BalanceError, Block},
    drain::UnderWay,
    engine::Shared,
    record::channel_key,
};

/// Why nothing was spent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MeterError {
    /// The payer must authorise more: a larger voucher, or a top-up where `required` is over the
    /// deposit.
    #[error("{required} must be authorised, {authorized} is")]
    Exhausted {
        /// The cumulative amount that would do.
        required: Amount,
        /// The cumulative amount authorised.
        authorized: Amount,
        /// What was put in.
        deposit: Amount,
    },
    /// There is no such channel, or it is closed.
    #[error(transparent)]
    Channel(#[from] BalanceError),
    /// The store.
    #[error(transparent)]
    Fault(#[from] Fault),
}

/// Spends one channel. Clones spend the same one.
#[derive(Clone)]
pub struct Meter {
    shared: Arc<Shared>,
    channel: ChannelId,
}

/// How long a stream may hold a block without renewing it. Past that the block is the payer's.
const LEASE: Duration = Duration::from_secs(60);

/// How long before that the stream stops burning: other machines' clocks may run ahead of ours.
const MARGIN: Duration = Duration::from_secs(10);

impl Meter {
    pub(crate) fn new(shared: Arc<Shared>, channel: ChannelId) -> Self {
        Self { shared, channel }
    }

    /// The channel.
    pub fn channel(&self) -> &ChannelId {
        &self.channel
    }

    /// Where the channel stands.
    pub async fn state(&self) -> Result<ChannelState, MeterError> {
        let account = self.shared.account(&channel_key(&self.channel)).await?;
        Ok(account
            .ok_or(BalanceError::NotFound)?
            .1
            .view(self.shared.clock.millis()))
    }

    /// Spends `amount` at once, for one request. Counted once, even if the store loses a reply; if
    /// it cannot be reached again either, the answer is a fault and nobody knows.
    pub async fn debit(&self, amount: Amount) -> Result<ChannelState, MeterError> {
        let now = self.shared.clock.millis();
        let op = Shared::nonce()?;
        self.update(|account| {
            let next = match account {
                Some(account) if account.has_debited(&op) => account.clone(),
                _ => {
                    let mut next = spendable(account, amount, now)?;
                    next.debit(&op, amount, &self.shared)?;
                    next
                }
            };
            let state = next.view(now);
            Ok((next, state))
        })
        .await
    }

    /// Takes `amount` aside for a stream, to be burnt locally tick by tick and given back in one
    /// write. A process that dies with a lease loses what it burnt, to the payer's benefit.
    pub async fn lease(&self, amount: Amount) -> Result<Lease, MeterError> {
        let id = Shared::nonce()?;
        let now = self.shared.clock.millis();
        let block = Block {
            amount,
            until: self.shared.after(LEASE),
        };
        // From before the write, so that a slow store shortens the lease and never stretches it.
        let deadline = Deadline::of(&self.shared);
        self.update(|account| {
            if let Some(account) = account.filter(|account| account.leases.contains_key(&id)) {
                return Ok((account.clone(), ()));
            }
            let mut next = spendable(account, amount, now)?;
            next.forget_lost_leases(now);
            next.leases.insert(id.clone(), block);
            Ok((next, ()))
        })
        .await?;
        let left = amount;
        Ok(Lease {
            meter: self.clone(),
            id,
            amount,
            left,
            deadline,
            open: true,
            under_way: Some(self.shared.drain.serving()),
        })
    }

    /// Waits until `amount` can be spent, at most `patience`. Answers whether it can.
    pub async fn wait_for(&self, amount: Amount, patience: Duration) -> Result<bool, MeterError> {
        let deadline = Instant::now() + patience;
        loop {
            // Registered before the look, so that a change in between is not missed.
            let changed = self.shared.balances.notified();
            let account = self.shared.account(&channel_key(&self.channel)).await?;
            let now = self.shared.clock.millis();
            match spendable(account.as_ref().map(|(_, account)| account), amount, now) {
                Ok(_) => return Ok(true),
                Err(MeterError::Exhausted { .. }) => {}
                Err(error) => return Err(error),
            }
            // Another process may take the voucher, so look again now and then.
            let look_again = (Instant::now() + Duration::from_millis(500)).min(deadline);
            let woken = tokio::time::timeout_at(look_again, changed).await;
            if woken.is_err() && Instant::now() >= deadline {
                return Ok(false);
            }
        }
    }

    async fn update<T>(
        &self,
        change: impl Fn(Option<&Account>) -> Result<(Account, T), MeterError>,
    ) -> Result<T, MeterError> {
        self.shared
            .update(&channel_key(&self.channel), change)
            .await
    }
}

/// The account, if `amount` can be spent on it.
fn spendable(account: Option<&Account>, amount: Amount, now: i64) -> Result<Account, MeterError> {
    let account = account.ok_or(BalanceError::NotFound)?;
    account.open(None, now)?;
    let available = account.available(now);
    if amount > available {
        let missing = amount.get().saturating_sub(available.get());
        let required = Amount::new(account.state.authorized.get().saturating_add(missing));
        return Err(MeterError::Exhausted {
            required,
            authorized: account.state.authorized,
            deposit: account.state.deposit,
        });
    }
    let mut next = account.clone();
    next.end_lapsed_close(now);
    Ok(next)
}

impl fmt::Debug for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Meter")
            .field("channel", &self.channel)
            .finish_non_exhaustive()
    }
}

/// When a stream stops burning: by the monotonic clock, which nobody turns back, and by the clock
/// that others read, which goes on while the machine is suspended.
#[derive(Clone, Copy, Debug)]
struct Deadline {
    instant: Instant,
    millis: i64,
}

impl Deadline {
    fn of(shared: &Shared) -> Self {
        Self {
            instant: Instant::now() + LEASE - MARGIN,
            millis: shared.after(LEASE - MARGIN),
        }
    }

    fn passed(&self, shared: &Shared) -> bool {
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
    deadline: Deadline,
    open: bool,
    /// A server that drains waits for it.
    under_way: Option<UnderWay>,
}

impl Lease {
    /// Burns `amount` of the block without touching the store. `false`: not enough is left, or the
    /// lease ran out and must be [renewed](Self::renew) or taken anew.
    pub fn burn(&mut self, amount: Amount) -> bool {
        match self.left.checked_sub(amount) {
            Some(left) if !self.deadline.passed(&self.meter.shared) => {
                self.left = left;
                true
            }
            _ => false,
        }
    }

    /// What is left of the block.
    pub fn left(&self) -> Amount {
        self.left
    }

    /// Holds the block for another minute; for streams slower than their lease.
    pub async fn renew(&mut self) -> Result<(), MeterError> {
        let deadline = Deadline::of(&self.meter.shared);
        let until = self.meter.shared.after(LEASE);
        let now = self.meter.shared.clock.millis();
        let id = &self.id;
        self.meter
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
            .await?;
        self.deadline = deadline;
        Ok(())
    }

    /// Records what was burnt and gives back the rest.
    pub async fn finish(mut self) -> Result<ChannelState, MeterError> {
        let state = give_back(&self.meter, &self.id, self.burnt()).await?;
        // Only now: a caller that goes away before leaves the rest to `Drop`.
        self.open = false;
        Ok(state)
    }

    fn burnt(&self) -> Amount {
        Amount::new(self.amount.get().saturating_sub(self.left.get()))
    }
}

/// Once per lease: the block is taken out in the same write that counts what was burnt.
async fn give_back(meter: &Meter, id: &str, burnt: Amount) -> Result<ChannelState, MeterError> {
    let now = meter.shared.clock.millis();
    meter
        .update(|account| {
            let mut next = account.cloned().ok_or(BalanceError::NotFound)?;
            if next.leases.remove(id).is_some() {
                let spent = next
                    .state
                    .spent
                    .checked_add(burnt)
                    .ok_or(BalanceError::Overflow)?;
                next.state.spent = spent.min(next.state.authorized);
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
        let under_way = self.under_way.take();
        runtime.spawn(async move {
            let _under_way = under_way;
            if let Err(error) = give_back(&meter, &id, burnt).await {
                tracing::warn!(%error, "a stream's lease was not given back");
            }
        });
    }
}

/// What a rail that saw two balances has seen: no channel has spent as much, so its order is not
/// carried out and the rail is asked again.
const NEVER: Amount = Amount::new(u128::MAX);

/// The engine's channels, as a rail sees them, remembering what it saw.
pub(crate) struct ChannelView {
    shared: Arc<Shared>,
    seen: Mutex<HashMap<ChannelId, Amount>>,
}

impl ChannelView {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            seen: Mutex::default(),
        }
    }

    /// What the rail saw spent on `channel`, if it looked.
    pub(crate) fn spent(&self, channel: &ChannelId) -> Option<Amount> {
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(channel)
            .copied()
    }
}

#[async_trait]
impl Channels for ChannelView {
    async fn state(&self, channel: &ChannelId) -> Result<Option<ChannelState>, Fault> {
        let account = self.shared.account(&channel_key(channel)).await?;
        let now = self.shared.clock.millis();
        let state = account.map(|(_, account)| account.view(now));
        if let Some(state) = &state {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.entry(channel.clone())
                .and_modify(|seen| {
                    if *seen != state.spent {
                        *seen = NEVER;
                    }
                })
                .or_insert(state.spent);
        }
        Ok(state)
    }

    fn saw(&self, _: &ChannelId, _: Observed) {}
}
