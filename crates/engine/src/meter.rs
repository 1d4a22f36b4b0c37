//! What requests, event streams and WebSockets spend a channel through.

use std::{fmt, pin::pin, sync::Arc, time::Duration};

use farebox_core::{
    Attachment, ChannelId, ChannelState, Event, Fault, Method, Moment, Served, Statement,
    wire::{Amount, Receipt},
};
use futures_util::future::select;
use tokio::time::Instant;

use crate::{
    account::Account,
    balance::BalanceError,
    engine::Shared,
    lease::{Charge, Lease},
    recall::Recall,
    record::channel_key,
    tap::Tap,
    verdict::Refused,
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
    /// The balance would do, but streams hold it, and did not give it back when they were asked:
    /// their process died, perhaps. Nothing was spent.
    #[error("what is authorised is held by streams")]
    Busy {
        /// When to try again.
        retry_after: Duration,
    },
    /// There is no such channel, or it is closed.
    #[error(transparent)]
    Channel(#[from] BalanceError),
    /// The store.
    #[error(transparent)]
    Fault(#[from] Fault),
}

/// Spends one channel. Clones spend the same one.
///
/// | what is served | call |
/// |---|---|
/// | one request | [`Serving::reserve`](crate::Serving::reserve): held before the handler, spent with [`delivered`](crate::Serving::delivered) |
/// | a stream | [`tap`](Self::tap): burns locally, refills by itself, holds where the balance is exhausted |
/// | what is known to be served | [`debit`](Self::debit) |
#[derive(Clone)]
pub struct Meter {
    pub(crate) shared: Arc<Shared>,
    channel: ChannelId,
    key: Arc<str>,
    terms: Arc<Terms>,
}

/// What a presentation says about spending its channel.
#[derive(Default)]
pub(crate) struct Terms {
    pub(crate) method: Option<Arc<dyn Method>>,
    /// What a unit costs. `None`: a unit is a base unit.
    pub(crate) price: Option<Amount>,
    pub(crate) receipt: Option<Arc<Receipt>>,
    /// It opened the channel.
    pub(crate) opens: bool,
}

impl Meter {
    pub(crate) fn new(shared: Arc<Shared>, channel: ChannelId, terms: Terms) -> Self {
        Self {
            shared,
            key: channel_key(&channel).into(),
            channel,
            terms: Arc::new(terms),
        }
    }

    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    /// Whether it is the meter of the request that opened the channel.
    pub(crate) fn opens(&self) -> bool {
        self.terms.opens
    }

    /// The channel.
    pub fn channel(&self) -> &ChannelId {
        &self.channel
    }

    /// What a unit of service costs, as its challenge said; one base unit where the meter came of
    /// no presentation.
    pub fn price(&self) -> Amount {
        self.terms.price.unwrap_or(Amount::new(1))
    }

    /// What `units` cost.
    ///
    /// # Errors
    /// A price that no amount can hold.
    pub fn cost(&self, units: u64) -> Result<Amount, MeterError> {
        let cost = self.price().get().checked_mul(u128::from(units));
        Ok(Amount::new(cost.ok_or(BalanceError::Overflow)?))
    }

    /// How many units `amount` is, at least one.
    pub(crate) fn units(&self, amount: Amount) -> u64 {
        let units = amount.get().checked_div(self.price().get()).unwrap_or(1);
        u64::try_from(units.max(1)).unwrap_or(u64::MAX)
    }

    /// Where the channel stands.
    pub async fn state(&self) -> Result<ChannelState, MeterError> {
        let account = self.shared.account(&self.key).await?;
        Ok(account
            .ok_or(BalanceError::NotFound)?
            .1
            .view(self.shared.clock.millis()))
    }

    /// Where it stood when this process last looked; for what is only told.
    pub(crate) async fn glance(&self) -> Result<ChannelState, Fault> {
        let account = self.shared.glance(&self.key).await?;
        let gone = || Fault::new("a channel is gone");
        Ok(account.ok_or_else(gone)?.view(self.shared.clock.millis()))
    }

    /// Spends `amount` at once, for what is known to be served. Counted once, even if the store
    /// loses a reply; if it cannot be reached again either, the answer is a fault and nobody knows.
    pub async fn debit(&self, amount: Amount) -> Result<ChannelState, MeterError> {
        let (op, units) = (Shared::nonce()?, self.units(amount));
        let debit = || {
            let now = self.shared.clock.millis();
            let op = &op;
            self.update(move |account| {
                let next = match account {
                    Some(account) if account.has_debited(op) => account.clone(),
                    _ => {
                        let mut next = spendable(account, amount, now)?;
                        next.debit(op, amount, units, &self.shared)?;
                        next
                    }
                };
                let state = next.view(now);
                Ok((next, state))
            })
        };
        let mut recall = Recall::of(amount);
        loop {
            match debit().await {
                Err(short @ MeterError::Exhausted { .. }) => recall.again(self, short).await?,
                debited => return debited,
            }
        }
    }

    /// Holds what `units` cost until it is known whether they were served. Requests use
    /// [`Serving::reserve`](crate::Serving::reserve), which commits by itself.
    ///
    /// # Errors
    /// As for [`debit`](Self::debit).
    pub async fn reserve(&self, units: u64) -> Result<Charge, MeterError> {
        Charge::hold(self, units).await
    }

    /// Takes `amount` aside for a stream, to be burnt locally tick by tick and given back in one
    /// write. A process that dies with a lease loses what it burnt, to the payer's benefit.
    ///
    /// One block and no more; [`tap`](Self::tap) sizes and renews its blocks by itself.
    pub async fn lease(&self, amount: Amount) -> Result<Lease, MeterError> {
        Lease::take(self, amount, false).await
    }

    /// Begins a stream. Nothing is taken before the first charge.
    ///
    /// # Errors
    /// No randomness from the operating system.
    pub fn tap(&self) -> Result<Tap, Fault> {
        Tap::new(self.clone())
    }

    /// Waits until `amount` can be spent, at most `patience`. Answers whether it can.
    pub async fn wait_for(&self, amount: Amount, patience: Duration) -> Result<bool, MeterError> {
        let deadline = Instant::now() + patience;
        let waiting = self.shared.wait(&self.key);
        loop {
            // Registered before the look, so that a change in between is not missed.
            let changed = waiting.changed();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let account = self.shared.account(&self.key).await?;
            let now = self.shared.clock.millis();
            match spendable(account.as_ref().map(|(_, account)| &**account), amount, now) {
                Ok(_) => return Ok(true),
                Err(MeterError::Exhausted { .. }) => {}
                Err(error) => return Err(error),
            }
            let look_again = (Instant::now() + waiting.look()).min(deadline);
            let woken = tokio::time::timeout_at(look_again, changed).await;
            if woken.is_err() && Instant::now() >= deadline {
                return Ok(false);
            }
        }
    }

    /// Waits until the server is told to end: the moment for a stream to say what was paid.
    pub async fn draining(&self) {
        self.shared.drain.began().await;
    }

    /// Waits until what streams from the channel must end: the server [drains](Self::draining), or
    /// the channel is closed, by its payer's credential or by force. In whichever process that is.
    pub async fn ending(&self) {
        let (draining, ended) = (self.draining(), self.shared.ended(&self.key));
        select(pin!(draining), pin!(ended)).await;
    }

    /// What a request is answered with that could not be charged, in the rail's words.
    pub fn refused(&self, error: MeterError) -> Refused {
        match (&error, &self.terms.method) {
            (MeterError::Exhausted { .. }, Some(method)) => {
                error.insufficient(method.insufficient()).into()
            }
            _ => error.into(),
        }
    }

    /// What a stream tells its payer at a moment, if anything.
    pub fn event(&self, state: &ChannelState, moment: &Moment) -> Option<Event> {
        let method = self.terms.method.as_ref()?;
        method.event(&self.channel, state, moment)
    }

    /// The receipt and what goes with it, of a channel that stands at `state` and of what was
    /// `served`: of one request's answer, and the last word of a stream.
    pub fn answered(&self, state: &ChannelState, served: &Served) -> Answered {
        let mut state = state.clone();
        // What streams hold is not spent yet.
        state.spent = Amount::new(state.spent.get().saturating_sub(state.held.get()));
        state.held = Amount::new(0);
        let statement = match &self.terms.method {
            Some(method) => method.statement(&self.channel, &state, served),
            None => Statement::default(),
        };
        Answered::new(Receipt::clone(&self.receipt()), statement)
    }

    /// What the presentation is receipted with, without what its channel comes to.
    pub(crate) fn receipt(&self) -> Arc<Receipt> {
        match &self.terms.receipt {
            Some(receipt) => receipt.clone(),
            None => {
                let now = self.shared.clock.now();
                Arc::new(Receipt::new(self.channel.rail(), self.channel.id(), now))
            }
        }
    }

    pub(crate) async fn update<T>(
        &self,
        change: impl Fn(Option<&Account>) -> Result<(Account, T), MeterError>,
    ) -> Result<T, MeterError> {
        let shared = &self.shared;
        shared.update(&self.key, change).await
    }
}

/// A receipt that says how its channel stands, and what goes with it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Answered {
    /// What the payer gets.
    pub receipt: Receipt,
    /// What goes with the answer beside it; headers, in HTTP.
    pub attachments: Vec<Attachment>,
}

impl Answered {
    pub(crate) fn new(mut receipt: Receipt, statement: Statement) -> Self {
        receipt.extra.extend(statement.receipt);
        Self {
            receipt,
            attachments: statement.attachments,
        }
    }

    /// Of what is part of no channel.
    pub(crate) fn plain(receipt: Receipt) -> Self {
        Self::new(receipt, Statement::default())
    }
}

/// The account, if `amount` can be spent on it.
pub(crate) fn spendable(
    account: Option<&Account>,
    amount: Amount,
    now: i64,
) -> Result<Account, MeterError> {
    let account = account.ok_or(BalanceError::NotFound)?;
    account.serves(now)?;
    if amount > account.available(now) {
        return Err(exhausted(&account.view(now), amount));
    }
    let mut next = account.clone();
    next.end_lapsed_close(now);
    Ok(next)
}

/// `amount` is over what is available.
pub(crate) fn exhausted(state: &ChannelState, amount: Amount) -> MeterError {
    let missing = amount.get().saturating_sub(state.available().get());
    MeterError::Exhausted {
        required: Amount::new(state.authorized.get().saturating_add(missing)),
        authorized: state.authorized,
        deposit: state.deposit,
    }
}

impl fmt::Debug for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Meter")
            .field("channel", &self.channel)
            .finish_non_exhaustive()
    }
}
