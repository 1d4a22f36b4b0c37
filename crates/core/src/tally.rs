//! Amounts that a rail counts across processes: what it spends itself, such as the network fees of
//! its payers.

use std::{
    collections::BTreeMap,
    fmt,
    future::poll_fn,
    hash::{BuildHasher, RandomState},
    sync::Arc,
    task::Poll,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{refusal::Fault, store::Store};

/// How often a swap that somebody else was quicker at is tried again. Of so many at once, each is the
/// quickest in the end.
const ATTEMPTS: u32 = 64;

/// How many reservations one account holds at once. Each write carries all of them.
const OPEN: usize = 200;

/// How many settled ones it remembers beside them, so that they are not counted twice.
const SETTLED: usize = 50;

/// A rail's counters in the store that its payments are remembered in. Clones count together.
#[derive(Clone)]
pub struct Tally {
    store: Arc<dyn Store>,
    rail: Arc<str>,
}

/// One counter: a payer's share of a day, everybody's.
#[derive(Clone, Copy, Debug)]
pub struct Account<'a> {
    /// Its name: whose money it is, and the window that it is for. At most 200 bytes. Rails of one
    /// wire method that spend the same money share it.
    pub name: &'a str,
    /// The most that it may come to.
    pub limit: u128,
    /// How long it is kept after the last write: the window, and as long as anything is open in it.
    pub keep: Duration,
}

/// What became of an attempt to reserve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Reserved {
    /// The amount is set aside by this attempt.
    Held,
    /// An earlier attempt under the same id has set it aside, or it is settled.
    Already,
    /// The account has not that much left.
    Exhausted,
}

#[derive(Default, Serialize, Deserialize)]
struct Sums {
    /// What is spent under no id that is remembered. Text, since JSON numbers are too small.
    spent: String,
    /// What may be spent, or is, by id.
    open: BTreeMap<String, Entry>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    amount: String,
    /// The Unix second from which on the amount is final.
    lapses: u64,
    /// Whether it is what was spent, not what may be.
    #[serde(default)]
    settled: bool,
}

impl Tally {
    /// The counters of all rails of the wire method `rail`.
    pub fn new(store: Arc<dyn Store>, rail: &str) -> Self {
        Self {
            store,
            rail: rail.into(),
        }
    }

    /// Sets `amount` aside under `id` until it is [settled](Self::settle), both Unix seconds. The same
    /// id again reserves nothing more. What lapses unsettled counts as spent, since nobody knows, so
    /// reserve only what is about to be spent.
    ///
    /// # Errors
    /// If the store does not answer, too many reservations are open, or others are quicker all the
    /// time. Nothing may be spent then.
    pub async fn reserve(
        &self,
        account: Account<'_>,
        id: &str,
        amount: u128,
        lapses: u64,
        now: u64,
    ) -> Result<Reserved, Fault> {
        self.change(account, |sums| {
            let mut sums = sums.unwrap_or_default();
            match sums.room(id, amount, account.limit)? {
                Reserved::Held => {}
                other => return Ok(Change::Nothing(other)),
            }
            sums.fold(|entry| entry.lapses <= now)?;
            if sums.open.values().filter(|entry| !entry.settled).count() >= OPEN {
                return Err(Fault::unavailable("too much is reserved at once"));
            }
            let entry = Entry {
                amount: amount.to_string(),
                lapses,
                settled: false,
            };
            sums.open.insert(id.to_owned(), entry);
            Ok(Change::To(sums, Reserved::Held))
        })
        .await
    }

    /// What [`reserve`](Self::reserve) would answer now. Sets nothing aside, so somebody else may be
    /// quicker.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn would_reserve(
        &self,
        account: Account<'_>,
        id: &str,
        amount: u128,
    ) -> Result<Reserved, Fault> {
        let text = self.store.get(&self.key(account)).await?;
        let sums = text.as_deref().map(read).transpose()?;
        sums.unwrap_or_default().room(id, amount, account.limit)
    }

    /// Replaces what is reserved under `id` by what was spent, perhaps nothing. The same id again
    /// changes it and adds nothing. Where nothing is reserved under it, nothing is counted: what has
    /// lapsed is counted already, and an account that is gone stays so.
    ///
    /// # Errors
    /// If the store does not answer, or others are quicker all the time.
    pub async fn settle(&self, account: Account<'_>, id: &str, spent: u128) -> Result<(), Fault> {
        self.change(account, |sums| {
            let Some(mut sums) = sums else {
                return Ok(Change::Nothing(()));
            };
            let Some(entry) = sums.open.get_mut(id) else {
                return Ok(Change::Nothing(()));
            };
            let text = spent.to_string();
            if entry.settled && entry.amount == text {
                return Ok(Change::Nothing(()));
            }
            if spent == 0 {
                // It may be reserved anew, and there is nothing to count twice.
                sums.open.remove(id);
            } else {
                entry.amount = text;
                entry.settled = true;
                sums.forget()?;
            }
            Ok(Change::To(sums, ()))
        })
        .await
    }

    /// What is spent and reserved.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn total(&self, account: Account<'_>) -> Result<u128, Fault> {
        let text = self.store.get(&self.key(account)).await?;
        let sums = text.as_deref().map(read).transpose()?;
        sums.map_or(Ok(0), |sums| sums.total())
    }

    fn key(&self, account: Account<'_>) -> String {
        format!("tally:{}:{}", self.rail, account.name)
    }

    async fn change<T>(
        &self,
        account: Account<'_>,
        next: impl Fn(Option<Sums>) -> Result<Change<T>, Fault>,
    ) -> Result<T, Fault> {
        let key = self.key(account);
        for attempt in 0..ATTEMPTS {
            step_aside(attempt).await;
            let old = self.store.get(&key).await?;
            let sums = old.as_deref().map(read).transpose()?;
            let (sums, answer) = match next(sums)? {
                Change::Nothing(answer) => return Ok(answer),
                Change::To(sums, answer) => (sums, answer),
            };
            let new = serde_json::to_string(&sums)
                .map_err(|e| Fault::new("writing a counter").caused_by(e))?;
            let keep = Some(account.keep);
            let swapped = self
                .store
                .compare_and_swap(&key, old.as_deref(), Some(&new), keep);
            if swapped.await? {
                return Ok(answer);
            }
        }
        Err(Fault::unavailable("a counter changes all the time"))
    }
}

enum Change<T> {
    Nothing(T),
    To(Sums, T),
}

impl Sums {
    fn total(&self) -> Result<u128, Fault> {
        let open = self.open.values().map(|entry| number(&entry.amount));
        open.chain([number(&self.spent)])
            .try_fold(0u128, |sum, next| Ok(sum.saturating_add(next?)))
    }

    /// Whether there is room for `amount` under `id`.
    fn room(&self, id: &str, amount: u128, limit: u128) -> Result<Reserved, Fault> {
        if self.open.contains_key(id) {
            return Ok(Reserved::Already);
        }
        let total = self.total()?.saturating_add(amount);
        Ok(match total > limit {
            true => Reserved::Exhausted,
            false => Reserved::Held,
        })
    }

    /// Adds what is `over` to what is spent, and forgets its id.
    fn fold(&mut self, over: impl Fn(&Entry) -> bool) -> Result<(), Fault> {
        let mut spent = number(&self.spent)?;
        let folded = self.open.values().filter(|entry| over(entry));
        for amount in folded.map(|entry| number(&entry.amount)) {
            spent = spent.saturating_add(amount?);
        }
        self.open.retain(|_, entry| !over(entry));
        self.spent = spent.to_string();
        Ok(())
    }

    /// Forgets the settled ids that would lapse first, where there are too many.
    fn forget(&mut self) -> Result<(), Fault> {
        let settled = self.open.values().filter(|entry| entry.settled);
        let mut ends: Vec<u64> = settled.map(|entry| entry.lapses).collect();
        ends.sort_unstable_by(|a, b| b.cmp(a));
        match ends.get(SETTLED) {
            Some(&end) => self.fold(|entry| entry.settled && entry.lapses <= end),
            None => Ok(()),
        }
    }
}

/// Lets others go first, at random and more of them each time, so that those who collide do not
/// collide again.
async fn step_aside(attempt: u32) {
    let most = 1u64 << attempt.min(6);
    let mut turns = match attempt {
        0 => 0,
        _ => RandomState::new().hash_one(attempt) % most,
    };
    poll_fn(|cx| {
        if turns == 0 {
            return Poll::Ready(());
        }
        turns -= 1;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

fn read(text: &str) -> Result<Sums, Fault> {
    serde_json::from_str(text).map_err(|e| Fault::new("reading a counter").caused_by(e))
}

fn number(text: &str) -> Result<u128, Fault> {
    let text = if text.is_empty() { "0" } else { text };
    text.parse()
        .map_err(|e: std::num::ParseIntError| Fault::new("reading a counter").caused_by(e))
}

impl fmt::Debug for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tally")
            .field("rail", &self.rail)
            .finish_non_exhaustive()
    }
}
