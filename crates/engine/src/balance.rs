//! The balance machine behind every channel, whatever rail feeds it: an [`Account`] that is
//! replaced by compare-and-swap.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use farebox_core::{
    ChannelAction, ChannelId, Fault, Observed, Refund, Rejection,
    wire::{Amount, Problem},
};

use crate::{
    account::{Account, Closing},
    ending::end_of,
    engine::Shared,
    record::{ChannelChange, Stored, channel_key},
    verdict::Refused,
};

/// How often a write is tried whose reply was lost. Each try looks first.
const TRIES: u32 = 3;

/// How many refunds of one channel may come to nothing because their processes died.
const REFUNDS: u8 = 3;

/// Why a channel does not change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BalanceError {
    /// Nobody opened it.
    #[error("no such channel; open one")]
    NotFound,
    /// It was opened before.
    #[error("the channel is open already")]
    Exists,
    /// Closing is final.
    #[error("the channel is closed; open another")]
    Closed,
    /// Somebody is closing it.
    #[error("the channel is being closed")]
    Closing,
    /// The payer has asked for a close by force.
    #[error("a close of the channel was requested; top it up to take that back, or open another")]
    CloseRequested,
    /// A voucher below an accepted one.
    #[error("the voucher is lower than one accepted before ({authorized})")]
    Backwards {
        /// What is authorised already.
        authorized: Amount,
    },
    /// More than was put in.
    #[error("more than the deposit of {deposit}; top it up first")]
    OverDeposit {
        /// What was put in.
        deposit: Amount,
    },
    /// A sum that no amount can hold.
    #[error("the amount is too large")]
    Overflow,
}

impl BalanceError {
    /// What the payer is told.
    pub fn rejection(&self) -> Rejection {
        let name = match self {
            Self::NotFound => "channel-not-found",
            Self::Closed | Self::Closing | Self::CloseRequested => "channel-finalized",
            Self::OverDeposit { .. } => "amount-exceeds-deposit",
            Self::Exists | Self::Backwards { .. } | Self::Overflow => {
                return Rejection::verification(self.to_string());
            }
        };
        Rejection::new(Problem::rail("session", name), self.to_string())
    }
}

impl From<BalanceError> for Refused {
    /// A close that is under way may come to nothing, so until then nobody is told to pay anew.
    fn from(error: BalanceError) -> Self {
        match error {
            BalanceError::Closing => Self::pending(),
            error => error.rejection().into(),
        }
    }
}

/// How many accounts a process remembers. One that is forgotten is read again.
const REMEMBERED: usize = 16_384;

/// What this process last saw of each account: a swap from it saves the look before. It is never
/// the ground for a refusal, since others may have changed the account.
#[derive(Default)]
pub(crate) struct Ledger(Mutex<HashMap<String, Seen>>);

/// An account with the text a swap compares.
type Seen = (Arc<str>, Arc<Account>);

impl Ledger {
    fn accounts(&self) -> MutexGuard<'_, HashMap<String, Seen>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, key: &str) -> Option<Seen> {
        self.accounts().get(key).cloned()
    }

    fn remember(&self, key: &str, seen: Seen) {
        let mut accounts = self.accounts();
        match accounts.get_mut(key) {
            Some(known) => *known = seen,
            None => {
                if accounts.len() >= REMEMBERED {
                    accounts.clear();
                }
                accounts.insert(key.to_owned(), seen);
            }
        }
    }

    fn forget(&self, key: &str) {
        self.accounts().remove(key);
    }
}

impl Shared {
    /// The account of a channel as the store has it.
    pub(crate) async fn account(&self, key: &str) -> Result<Option<Seen>, Fault> {
        let Some(text) = self.store.get(key).await? else {
            self.ledger.forget(key);
            return Ok(None);
        };
        let seen = (Arc::from(text.as_str()), Arc::new(Account::decode(&text)?));
        self.ledger.remember(key, seen.clone());
        Ok(Some(seen))
    }

    /// The account of a channel as it was seen last, for what is only told.
    pub(crate) async fn glance(&self, key: &str) -> Result<Option<Arc<Account>>, Fault> {
        match self.ledger.get(key) {
            Some((_, account)) => Ok(Some(account)),
            None => Ok(self.account(key).await?.map(|(_, account)| account)),
        }
    }

    /// Replaces an account that was seen as `text`, and wakes whoever that is news for.
    async fn replace(
        self: &Arc<Self>,
        key: &str,
        (text, before): (&str, &Account),
        next: Account,
    ) -> Result<bool, Fault> {
        let (after, keep) = (next.encode()?, next.keep(self));
        let swap = self
            .store
            .compare_and_swap(key, Some(text), Some(&after), keep);
        self.ledger.forget(key);
        let swapped = effect!("channel.frozen", swap.await);
        match swapped {
            Ok(true) => {
                let next = Arc::new(next);
                self.ledger.remember(key, (Arc::from(after), next.clone()));
                self.changed(key, Some(before), &next);
            }
            Ok(false) => {}
            // It may have been carried out.
            Err(_) => self.rouse(key, &next),
        }
        swapped
    }

    /// Changes an account under compare-and-swap, as often as it takes.
    ///
    /// `change` must know its own work and leave it as it is: a write whose reply was lost may have
    /// been carried out, and only the next look tells.
    pub(crate) async fn update<T, E: From<Fault>>(
        self: &Arc<Self>,
        key: &str,
        change: impl Fn(Option<&Account>) -> Result<(Account, T), E>,
    ) -> Result<T, E> {
        let mut lost = 0;
        let mut known = self.ledger.get(key);
        loop {
            let guess = known.is_some();
            let current = match known.take() {
                Some(known) => Some(known),
                None => self.account(key).await?,
            };
            let (text, account) = current.as_ref().map(|(t, a)| (&**t, &**a)).unzip();
            let (next, answer) = match change(account) {
                Err(_) if guess => continue,
                changed => changed?,
            };
            if account.is_some_and(|account| *account == next) {
                if guess {
                    continue;
                }
                if lost > 0 {
                    // What it was before nobody knows any more.
                    self.rouse(key, &next);
                }
                return Ok(answer);
            }
            let (after, keep) = (next.encode()?, next.keep(self));
            let swap = self.store.compare_and_swap(key, text, Some(&after), keep);
            match effect!("channel.changed", swap.await) {
                Ok(true) => {
                    let next = Arc::new(next);
                    self.ledger.remember(key, (Arc::from(after), next.clone()));
                    self.changed(key, account, &next);
                    return Ok(answer);
                }
                Ok(false) => self.ledger.forget(key),
                Err(fault) => {
                    self.ledger.forget(key);
                    lost += 1;
                    if lost == TRIES {
                        return Err(fault.into());
                    }
                }
            }
        }
    }

    /// Wakes whoever waits for the channel. Other processes are told of what a stream may wait for.
    fn changed(self: &Arc<Self>, key: &str, before: Option<&Account>, after: &Account) {
        let now = self.clock.millis();
        let ends =
            before.is_some_and(|before| before.serves(now).is_ok()) && after.serves(now).is_err();
        let news = before.is_none_or(|before| {
            after.available(now) > before.available(now)
                || before.state.closed != after.state.closed
                || before.state.close_requested != after.state.close_requested
                || before.closing.is_some() != after.closing.is_some()
                || after.ending.is_some() && after.leased(now) == 0
        });
        if ends {
            self.hub.wake(&end_of(key));
            self.tell(&end_of(key));
        }
        if news {
            self.hub.wake(key);
        }
        if news && before.is_some_and(|before| before.is_streamed(now)) {
            self.tell(key);
        }
        self.settle_if_due(key, after);
    }

    /// Wakes everybody who waits for the channel, after a write whose reply was lost.
    fn rouse(self: &Arc<Self>, key: &str, after: &Account) {
        for word in [&end_of(key), key] {
            self.hub.wake(word);
            self.tell(word);
        }
        self.settle_if_due(key, after);
    }
}

/// Applies a change that fits, once per payment `op`.
pub(crate) async fn apply(
    shared: &Arc<Shared>,
    op: &str,
    method: &str,
    change: &ChannelChange,
) -> Result<(), Refused> {
    let now = shared.clock.millis();
    shared
        .update(&channel_key(&change.id), |account| {
            let next = Account::after(account, op, method, change, now).map_err(Refused::from)?;
            Ok((next, ()))
        })
        .await
}

/// Records what a rail saw of a channel outside, if we know the channel.
pub(crate) async fn observe(
    shared: &Arc<Shared>,
    channel: &ChannelId,
    observed: &Observed,
) -> Result<(), Fault> {
    let now = shared.clock.millis();
    let unknown = || Fault::new("no such channel");
    shared
        .update(&channel_key(channel), |account| {
            Ok((account.ok_or_else(unknown)?.seen(observed, now), ()))
        })
        .await
}

/// Applies a change whose money has moved, once per payment `op`.
pub(crate) async fn settle(
    shared: &Arc<Shared>,
    op: &str,
    method: &str,
    change: &ChannelChange,
) -> Result<(), Fault> {
    // First, or a crash would leave a channel that nobody looks after.
    if matches!(change.action, ChannelAction::Open | ChannelAction::TopUp) {
        shared.list(&change.id).await?;
    }
    let now = shared.clock.millis();
    shared
        .update(&channel_key(&change.id), |account| {
            let mut next = Account::settled(account, op, method, change, now);
            // Payments are remembered for as long as their records may still come to be concluded.
            let horizon = shared.before(shared.timing.collectable.saturating_mul(2));
            next.applied.retain(|_, at| *at > horizon);
            Ok((next, ()))
        })
        .await
}

/// Whether the payment `op` has changed its channel already.
pub(crate) async fn is_applied(
    shared: &Shared,
    op: &str,
    change: &ChannelChange,
) -> Result<bool, Fault> {
    let account = shared.account(&channel_key(&change.id)).await?;
    Ok(account.is_some_and(|(_, account)| account.applied.contains_key(op)))
}

/// Whether a change could be applied now. What is `paid` for already is: a top-up of a channel that
/// was closed meanwhile is credited, and goes back.
pub(crate) async fn preview(
    shared: &Shared,
    op: &str,
    change: &ChannelChange,
    paid: bool,
) -> Result<(), Refused> {
    let account = shared.account(&channel_key(&change.id)).await?;
    let account = account.as_ref().map(|(_, account)| &**account);
    let closed = account.is_some_and(|account| account.state.closed);
    if paid && closed && change.action == ChannelAction::TopUp {
        return Ok(());
    }
    let now = shared.clock.millis();
    Account::after(account, op, "", change, now).map_err(Refused::from)?;
    Ok(())
}

/// Stops all spending for a close that was reserved as `stored` and whose order was made for `seen`
/// spent. `false`: it is another amount by now, a stream is still spending, or the reservation was
/// replaced.
pub(crate) async fn freeze(
    shared: &Arc<Shared>,
    op: &str,
    stored: &Stored,
    change: &ChannelChange,
    seen: Amount,
) -> Result<bool, Refused> {
    let (key, claim) = (channel_key(&change.id), &stored.record.claim);
    loop {
        let account = shared.account(&key).await?;
        let (text, account) = account.ok_or_else(|| Refused::from(BalanceError::NotFound))?;
        let now = shared.clock.millis();
        account.open(Some(op), now).map_err(Refused::from)?;
        let mut next = Account::clone(&account);
        let earlier = next
            .closing
            .take_if(|closing| closing.op == op && closing.claim != *claim);
        if earlier.is_some() && !shared.stands(op, stored).await? {
            return Ok(false);
        }
        let unspent = account.leased(now) == 0 && account.state.spent == seen;
        if unspent {
            next.closing = Some(Closing {
                op: op.to_owned(),
                claim: claim.clone(),
                until: shared.after(shared.timing.reserve),
            });
            next.ending = None;
        }
        if next == *account || shared.replace(&key, (&text, &account), next).await? {
            return Ok(unspent);
        }
    }
}

/// Holds a channel until its close or its errand is concluded, however long that takes.
pub(crate) async fn hold_on(
    shared: &Arc<Shared>,
    op: &str,
    claim: &str,
    change: &ChannelChange,
) -> Result<(), Fault> {
    let now = shared.clock.millis();
    let action = change.action;
    if action.is_service() || action == ChannelAction::TopUp {
        return Ok(());
    }
    shared
        .update(&channel_key(&change.id), |account| {
            let mut next = account
                .cloned()
                .ok_or_else(|| Fault::new("a held channel is gone"))?;
            let held = match action {
                ChannelAction::Close => &mut next.closing,
                _ => &mut next.errand,
            };
            match held {
                // One that lapsed may have been spent from, so its order is void.
                Some(held) if held.is_of(op, claim) && held.until > now => held.until = i64::MAX,
                _ => return Err(Fault::unavailable("a close or an errand lost its channel")),
            }
            Ok((next, ()))
        })
        .await
}

/// The close or the errand that was recorded as `stored` came to nothing: the channel goes on.
/// `refund`: it was a refund that never will, and whether its rail tried.
pub(crate) async fn thaw(
    shared: &Arc<Shared>,
    op: &str,
    stored: &Stored,
    change: &ChannelChange,
    refund: Option<bool>,
) -> Result<(), Fault> {
    let key = channel_key(&change.id);
    while let Some((text, account)) = shared.account(&key).await? {
        let mut next = Account::clone(&account);
        let errand = next.errand.take_if(|errand| errand.op == op);
        let closing = next.closing.take_if(|closing| closing.op == op);
        let errs = errand.is_some();
        let Some(held) = closing.or(errand) else {
            return Ok(());
        };
        if held.claim != stored.record.claim && !shared.stands(op, stored).await? {
            return Ok(());
        }
        if errs {
            next.marks.tried = shared.clock.millis();
        }
        if let (true, Some(tried)) = (errs, refund) {
            next.marks.refunds += 1;
            if tried || next.marks.refunds >= REFUNDS {
                next.state.refund = Refund::Failed;
            }
        }
        if shared.replace(&key, (&text, &account), next).await? {
            return Ok(());
        }
    }
    Ok(())
}
