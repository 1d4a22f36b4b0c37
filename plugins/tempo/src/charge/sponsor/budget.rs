//! What paying other people's fees may cost a day, counted in the store that payments are
//! remembered in, so that replicas count together.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use alloy::primitives::{Address, B256};
use farebox_core::{Account, Fault, Refusal, Rejection, Reserved, Tally};
use farebox_wire::Amount;
use serde::{Deserialize, Serialize};

const DAY: u64 = 24 * 60 * 60;

/// A counter outlives its day by what may still be open in it.
const KEEP: Duration = Duration::from_secs(2 * DAY);

/// How long after its window a reservation is held. What nobody has settled by then counts as spent.
const LAPSE: u64 = 300;

/// How long offers are made without sponsorship once the day's fees are spent. What was reserved
/// and not spent may be there again afterwards.
const PAUSE: u64 = 60;

/// How many transactions one payer may have under way at the highest fee, unless told otherwise.
const OPEN_FEES: u128 = 10;

/// How often a reservation is tried; its payer waits.
const RESERVE_TRIES: u32 = 4;

/// How often a count is tried; nobody waits, and it takes three minutes.
const SETTLE_TRIES: u32 = 14;

/// The most that sponsored fees may come to, attodollars (1e-18 USD). Days are those of UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SponsorBudget {
    /// For one payer a day; not limited if `None`.
    pub per_payer: Option<u128>,
    /// For all of them a day; not limited if `None`.
    pub total: Option<u128>,
    /// For the transactions that one payer has under way at once. One balance may stand behind all of
    /// them, and those that it does not suffice for are reverted at the sponsor's cost. Ten times the
    /// [highest fee](super::SponsorLimits::fee) if `None`.
    pub open_per_payer: Option<u128>,
}

impl SponsorBudget {
    /// So much for each payer, so much for all of them.
    pub fn new(per_payer: Option<u128>, total: Option<u128>) -> Self {
        Self {
            per_payer,
            total,
            open_per_payer: None,
        }
    }

    /// So much for what one payer has under way.
    #[must_use]
    pub fn open_per_payer(mut self, limit: Option<u128>) -> Self {
        self.open_per_payer = limit;
        self
    }
}

/// A budget and its counters.
#[derive(Debug, Default)]
pub(crate) struct Allowance {
    budget: SponsorBudget,
    /// Whose money it is. All rails that spend it count together.
    purse: String,
    tally: OnceLock<Tally>,
    /// Unix seconds until which nothing is sponsored.
    paused: AtomicU64,
}

/// What one transaction takes from the budget. Stored with its order, so that any process can
/// reserve and settle it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Share {
    payer: Address,
    /// Days since 1970.
    day: u64,
    /// The transaction, whoever signs for its fee.
    id: B256,
    /// Attodollars.
    most: Amount,
}

impl Allowance {
    /// Of the account `purse`, if it is known, which pays `highest` at most for one transaction.
    pub(crate) fn new(mut budget: SponsorBudget, purse: Option<Address>, highest: u128) -> Self {
        let open = highest.saturating_mul(OPEN_FEES);
        budget.open_per_payer.get_or_insert(open);
        Self {
            budget,
            purse: purse.map_or_else(|| "service".to_owned(), |purse| format!("{purse:#x}")),
            ..Self::default()
        }
    }

    /// The first one counts: two engines that share a rail share its counters.
    pub(crate) fn entrust(&self, tally: Tally) {
        let first = self.tally.set(tally).is_ok();
        if first && self.budget.total.is_none() {
            tracing::warn!(
                fee_payer = self.purse,
                "network fees are paid for payers without a daily_budget"
            );
        }
    }

    /// Whether the day's fees were spent a moment ago.
    pub(crate) fn is_spent(&self, now: u64) -> bool {
        now < self.paused.load(Ordering::Relaxed)
    }

    /// What a transaction takes, if there is that much left at this moment. Sets nothing aside.
    ///
    /// # Errors
    /// If the budget is used up, or nobody can tell.
    pub(crate) async fn share(
        &self,
        payer: Address,
        id: B256,
        most: u128,
        now: u64,
    ) -> Result<Share, Refusal> {
        let tally = self.tally()?;
        let share = Share {
            payer,
            day: now / DAY,
            id,
            most: Amount::new(most),
        };
        let id = id.to_string();
        for (whose, name, limit) in self.accounts(&share) {
            let account = account(&name, limit);
            if tally.would_reserve(account, &id, most).await? == Reserved::Exhausted {
                return Err(self.exhausted(whose, now).into());
            }
        }
        Ok(share)
    }

    /// Sets a share aside, just before its transaction is sent, until `valid_before` is long past.
    /// Nothing more if that has been done.
    ///
    /// # Errors
    /// If the budget is used up, or nobody can tell.
    pub(crate) async fn reserve(
        &self,
        share: &Share,
        valid_before: u64,
        now: u64,
    ) -> Result<(), Refusal> {
        let tally = self.tally()?;
        let (id, most) = (share.id.to_string(), share.most.get());
        let lapses = valid_before.saturating_add(LAPSE);
        let mut held = Vec::new();
        for (whose, name, limit) in self.accounts(share) {
            let reserve = || tally.reserve(account(&name, limit), &id, most, lapses, now);
            match patiently(RESERVE_TRIES, reserve).await? {
                Reserved::Held => held.push((name, limit)),
                Reserved::Already => {}
                Reserved::Exhausted => {
                    // What was set aside before stays: it may be for what was sent.
                    for (name, limit) in held {
                        count(tally, name, limit, &id, 0).await;
                    }
                    return Err(self.exhausted(whose, now).into());
                }
            }
        }
        Ok(())
    }

    /// Counts what a transaction has cost, attodollars; the most that it may have, if nobody knows.
    pub(crate) async fn settle(&self, share: &Share, spent: Option<u128>) {
        let Some(tally) = self.tally.get() else {
            return;
        };
        let (spent, id) = (spent.unwrap_or(share.most.get()), share.id.to_string());
        for (whose, name, limit) in self.accounts(share) {
            // Nothing of it is under way any more, whatever it has cost.
            let spent = if whose == Whose::Open { 0 } else { spent };
            count(tally, name, limit, &id, spent).await;
        }
    }

    fn tally(&self) -> Result<&Tally, Fault> {
        let none = || Fault::new("the fee payer's budget has no store that it is counted in");
        self.tally.get().ok_or_else(none)
    }

    fn exhausted(&self, whose: Whose, now: u64) -> Rejection {
        if whose == Whose::All {
            self.paused.store(now + PAUSE, Ordering::Relaxed);
        }
        exhausted(whose)
    }

    fn accounts(&self, share: &Share) -> impl Iterator<Item = (Whose, String, u128)> {
        let (purse, payer, day) = (&self.purse, share.payer, share.day);
        let budget = self.budget;
        let open = budget.open_per_payer.map(|limit| {
            let name = format!("{purse}:open:{payer:#x}:{day}");
            (Whose::Open, name, limit)
        });
        let own = budget
            .per_payer
            .map(|limit| (Whose::Payer, format!("{purse}:{payer:#x}:{day}"), limit));
        let all = budget
            .total
            .map(|limit| (Whose::All, format!("{purse}:total:{day}"), limit));
        open.into_iter().chain(own).chain(all)
    }
}

/// Counts what was spent. Where that fails it is tried again, and nobody waits for it; in the end the
/// reservation lapses, and the most that it was for counts.
async fn count(tally: &Tally, name: String, limit: u128, id: &str, spent: u128) {
    let Err(fault) = tally.settle(account(&name, limit), id, spent).await else {
        return;
    };
    tracing::debug!(%fault, "a sponsored fee is not counted yet");
    let (tally, id) = (tally.clone(), id.to_owned());
    tokio::spawn(async move {
        let settle = || tally.settle(account(&name, limit), &id, spent);
        if let Err(fault) = patiently(SETTLE_TRIES, settle).await {
            tracing::warn!(%fault, "a sponsored fee is not counted, so the most that it was for is");
        }
    });
}

/// Tries again after a pause, longer each time and never the same.
async fn patiently<T, F: Future<Output = Result<T, Fault>>>(
    tries: u32,
    attempt: impl Fn() -> F,
) -> Result<T, Fault> {
    for number in 1..tries {
        if let Ok(answer) = attempt().await {
            return Ok(answer);
        }
        let most = (50u64 << number.min(9)).min(30_000);
        let jitter = RandomState::new().hash_one(number) % most;
        tokio::time::sleep(Duration::from_millis(most / 2 + jitter / 2)).await;
    }
    attempt().await
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Whose {
    Open,
    Payer,
    All,
}

fn account(name: &str, limit: u128) -> Account<'_> {
    Account {
        name,
        limit,
        keep: KEEP,
    }
}

fn exhausted(whose: Whose) -> Rejection {
    let text = match whose {
        Whose::Open => {
            "too many payments of this payer's whose network fees are paid here are under way; wait \
             for them, or take an offer without feePayer"
        }
        Whose::Payer => {
            "the network fees that are paid here for one payer a day are used up; take an offer \
             without feePayer, or come again after midnight UTC"
        }
        Whose::All => {
            "the network fees that are paid here in a day are used up; take an offer without \
             feePayer and pay your own, or come again after midnight UTC"
        }
    };
    Rejection::rail("fee-budget-exhausted", text)
}
