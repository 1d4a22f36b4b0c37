//! What requests, event streams and WebSockets spend a channel through.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use farebox_core::{ChannelId, ChannelState, Channels, Fault, wire::Amount};
use tokio::{runtime::Handle, time::Instant};

use crate::{
    balance::{Account, BalanceError, Block},
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
        Ok(account.ok_or(BalanceError::NotFound)?.1.state)
    }

    /// Spends `amount` at once, for one request.
    pub async fn debit(&self, amount: Amount) -> Result<ChannelState, MeterError> {
        let now = self.shared.clock.millis();
        self.update(|account| {
            let mut next = spendable(account, amount, now)?;
            next.state.spent = next
                .state
                .spent
                .checked_add(amount)
                .ok_or(BalanceError::Overflow)?;
            let state = next.state.clone();
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
        self.update(|account| {
            let mut next = spendable(account, amount, now)?;
            next.leases.retain(|_, block| block.until > now);
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
            open: true,
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
    if account.state.closed {
        return Err(BalanceError::Closed.into());
    }
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
    Ok(account.clone())
}

impl fmt::Debug for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Meter")
            .field("channel", &self.channel)
            .finish_non_exhaustive()
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
    open: bool,
}

impl Lease {
    /// Burns `amount` of the block without touching the store. `false`: not enough is left.
    pub fn burn(&mut self, amount: Amount) -> bool {
        match self.left.checked_sub(amount) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }

    /// What is left of the block.
    pub fn left(&self) -> Amount {
        self.left
    }

    /// Records what was burnt and gives back the rest.
    pub async fn finish(mut self) -> Result<ChannelState, MeterError> {
        self.open = false;
        give_back(&self.meter, &self.id, self.burnt()).await
    }

    fn burnt(&self) -> Amount {
        Amount::new(self.amount.get().saturating_sub(self.left.get()))
    }
}

async fn give_back(meter: &Meter, id: &str, burnt: Amount) -> Result<ChannelState, MeterError> {
    meter
        .update(|account| {
            let mut next = account.cloned().ok_or(BalanceError::NotFound)?;
            if next.leases.remove(id).is_some() {
                let spent = next
                    .state
                    .spent
                    .checked_add(burnt)
                    .ok_or(BalanceError::Overflow)?;
                // A lease that lapsed may have been spent by others meanwhile.
                next.state.spent = spent.min(next.state.authorized);
            }
            let state = next.state.clone();
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
        runtime.spawn(async move {
            if let Err(error) = give_back(&meter, &id, burnt).await {
                tracing::warn!(%error, "a stream's lease was not given back");
            }
        });
    }
}

/// The engine's channels, as rails see them.
pub(crate) struct ChannelView(pub(crate) Arc<Shared>);

#[async_trait]
impl Channels for ChannelView {
    async fn state(&self, channel: &ChannelId) -> Result<Option<ChannelState>, Fault> {
        let account = self.0.account(&channel_key(channel)).await?;
        Ok(account.map(|(_, account)| account.state))
    }
}
