//! What paying other people's fees may cost a day, counted in the store that payments are
//! remembered in, so that replicas count together.

use std::{
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

/// How long after its window a reservation is held: nothing that is still under way then was sent
/// by us, and what was sent all the same is counted when it is looked up.
const LAPSE: u64 = 300;

/// How long offers are made without sponsorship once the day's fees are spent. What was reserved
/// and not spent may be there again afterwards.
const PAUSE: u64 = 60;

/// The most that sponsored fees may come to in a day (UTC), attodollars (1e-18 USD). `None` counts
/// nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SponsorBudget {
    /// For one payer.
    pub per_payer: Option<u128>,
    /// For all of them.
    pub total: Option<u128>,
}

impl SponsorBudget {
    /// So much for each payer, so much for all of them.
    pub fn new(per_payer: Option<u128>, total: Option<u128>) -> Self {
        Self { per_payer, total }
    }

    fn is_none(&self) -> bool {
        self.per_payer.is_none() && self.total.is_none()
    }
}

/// A budget and its counters.
#[derive(Debug, Default)]
pub(crate) struct Allowance {
    budget: SponsorBudget,
    tally: OnceLock<Tally>,
    /// Unix seconds until which nothing is sponsored.
    paused: AtomicU64,
}

/// What one transaction has reserved. Stored with its order, so that any process can settle it.
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
    pub(crate) fn new(budget: SponsorBudget) -> Self {
        Self {
            budget,
            ..Self::default()
        }
    }

    /// The first one counts: two engines that share a rail share its counters.
    pub(crate) fn entrust(&self, tally: Tally) {
        let _ = self.tally.set(tally);
    }

    /// Whether the day's fees were spent a moment ago.
    pub(crate) fn is_spent(&self, now: u64) -> bool {
        now < self.paused.load(Ordering::Relaxed)
    }

    /// Sets aside what a transaction may cost, before anybody signs for it. `None` if there is no
    /// budget to keep.
    ///
    /// # Errors
    /// If the budget is used up, or nobody can tell.
    pub(crate) async fn reserve(
        &self,
        payer: Address,
        id: B256,
        most: u128,
        valid_before: u64,
        now: u64,
    ) -> Result<Option<Share>, Refusal> {
        if self.budget.is_none() {
            return Ok(None);
        }
        let tally = self.tally.get().ok_or_else(|| {
            Fault::new("the fee payer's budget has no store that it is counted in")
        })?;
        let share = Share {
            payer,
            day: now / DAY,
            id,
            most: Amount::new(most),
        };
        let lapses = valid_before.saturating_add(LAPSE);
        for (whose, name, limit) in self.accounts(&share) {
            let account = account(&name, limit);
            let id = id.to_string();
            match tally.reserve(account, &id, most, lapses, now).await? {
                Reserved::Held => {}
                Reserved::Exhausted => {
                    self.release(&share).await;
                    if whose == Whose::All {
                        self.paused.store(now + PAUSE, Ordering::Relaxed);
                    }
                    return Err(exhausted(whose).into());
                }
            }
        }
        Ok(Some(share))
    }

    /// Gives back what was not spent, since the transaction was signed by nobody.
    pub(crate) async fn release(&self, share: &Share) {
        self.settle(share, Some(0)).await;
    }

    /// Counts what a transaction has cost, attodollars; the most that it may have, if nobody knows.
    pub(crate) async fn settle(&self, share: &Share, spent: Option<u128>) {
        let Some(tally) = self.tally.get() else {
            return;
        };
        let (spent, id) = (spent.unwrap_or(share.most.get()), share.id.to_string());
        for (_, name, limit) in self.accounts(share) {
            let settled = tally.settle(account(&name, limit), &id, spent).await;
            // Too much is counted then, until the day is over.
            if let Err(fault) = settled {
                tracing::warn!(%fault, "a sponsored fee is not settled");
            }
        }
    }

    fn accounts(&self, share: &Share) -> impl Iterator<Item = (Whose, String, u128)> {
        let SponsorBudget { per_payer, total } = self.budget;
        let (payer, day) = (share.payer, share.day);
        let own = per_payer.map(|limit| (Whose::Payer, format!("{payer:#x}:{day}"), limit));
        let all = total.map(|limit| (Whose::All, format!("total:{day}"), limit));
        own.into_iter().chain(all)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Whose {
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
