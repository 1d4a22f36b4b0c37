//! Amounts that a rail counts across processes: what it spends itself, such as the network fees of
//! its payers.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{refusal::Fault, store::Store};

/// How often a swap that somebody else was quicker at is tried again.
const ATTEMPTS: usize = 16;

/// How many reservations one account holds at once. Each write carries all of them.
const OPEN: usize = 200;

/// A rail's counters in the store that its payments are remembered in. Clones count together.
#[derive(Clone)]
pub struct Tally {
    store: Arc<dyn Store>,
    rail: Arc<str>,
}

/// One counter: a payer's share of a day, everybody's.
#[derive(Clone, Copy, Debug)]
pub struct Account<'a> {
    /// Its name, with the window that it is for: `total:20778`. At most 200 bytes.
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
    /// The amount is set aside, now or by an earlier attempt under the same id.
    Held,
    /// The account has not that much left.
    Exhausted,
}

#[derive(Default, Serialize, Deserialize)]
struct Sums {
    /// What is spent for certain. Text, since JSON numbers are too small.
    spent: String,
    /// What may be spent, by id: the amount, and the Unix second in which the reservation lapses.
    open: BTreeMap<String, (String, u64)>,
}

impl Tally {
    /// The counters of the rail called `rail`.
    pub fn new(store: Arc<dyn Store>, rail: &str) -> Self {
        Self {
            store,
            rail: rail.into(),
        }
    }

    /// Sets `amount` aside under `id` until it is [settled](Self::settle) or lapses, both Unix
    /// seconds. The same id again reserves nothing more. What lapses counts as not spent, so it must
    /// not lapse while it may still be spent.
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
            sums.open.retain(|_, (_, end)| *end > now);
            if sums.open.contains_key(id) {
                return Ok(Change::Nothing(Reserved::Held));
            }
            let total = sums.total()?.saturating_add(amount);
            if total > account.limit {
                return Ok(Change::Nothing(Reserved::Exhausted));
            }
            if sums.open.len() >= OPEN {
                return Err(Fault::unavailable("too much is reserved at once"));
            }
            let entry = (amount.to_string(), lapses);
            sums.open.insert(id.to_owned(), entry);
            Ok(Change::To(sums, Reserved::Held))
        })
        .await
    }

    /// Replaces what is reserved under `id` by what was spent, perhaps nothing. An account that is
    /// gone stays so.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn settle(&self, account: Account<'_>, id: &str, spent: u128) -> Result<(), Fault> {
        self.change(account, |sums| {
            let Some(mut sums) = sums else {
                return Ok(Change::Nothing(()));
            };
            let open = sums.open.remove(id).is_some();
            if !open && spent == 0 {
                return Ok(Change::Nothing(()));
            }
            sums.spent = number(&sums.spent)?.saturating_add(spent).to_string();
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
        for _ in 0..ATTEMPTS {
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
        let open = self.open.values().map(|(amount, _)| number(amount));
        open.chain([number(&self.spent)])
            .try_fold(0u128, |sum, next| Ok(sum.saturating_add(next?)))
    }
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
