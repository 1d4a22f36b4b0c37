//! What a client may spend. Checked and reserved in one step, so that parallel requests cannot
//! overspend together.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use farebox_wire::Amount;

use crate::payer::Cost;

/// Limits in one currency, in base units. What is not set is not limited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    currency: String,
    per_request: Option<Amount>,
    per_hour: Option<Amount>,
    per_day: Option<Amount>,
    per_payee: Option<Amount>,
    total: Option<Amount>,
}

impl Limit {
    /// Payments in `currency` (`"usd"`, `"sat"`, a token's address), up to `per_request` each.
    pub fn per_request(currency: impl Into<String>, per_request: Amount) -> Self {
        Self {
            currency: currency.into().to_ascii_lowercase(),
            per_request: Some(per_request),
            per_hour: None,
            per_day: None,
            per_payee: None,
            total: None,
        }
    }

    /// And up to `amount` in any 60 minutes.
    pub fn per_hour(mut self, amount: Amount) -> Self {
        self.per_hour = Some(amount);
        self
    }

    /// And up to `amount` in any 24 hours.
    pub fn per_day(mut self, amount: Amount) -> Self {
        self.per_day = Some(amount);
        self
    }

    /// And up to `amount` to one recipient. A challenge that names none counts as one payee.
    pub fn per_payee(mut self, amount: Amount) -> Self {
        self.per_payee = Some(amount);
        self
    }

    /// And up to `amount` in all.
    pub fn total(mut self, amount: Amount) -> Self {
        self.total = Some(amount);
        self
    }
}

/// Why a payment is over budget.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BudgetError {
    /// The currency has no limit, so nothing may be spent in it.
    #[error("the budget allows no payment in {currency}")]
    Currency {
        /// What was asked for.
        currency: String,
    },
    /// A limit would be passed.
    #[error("{amount} {currency} is over the budget's limit {limit} ({allowed}, {used} used)")]
    Over {
        /// What was asked for, base units.
        amount: Amount,
        /// In this currency.
        currency: String,
        /// Which limit.
        limit: &'static str,
        /// What it allows.
        allowed: Amount,
        /// What is used up already.
        used: Amount,
    },
    /// The recipient is not on the list.
    #[error("the budget does not allow paying {recipient}")]
    Recipient {
        /// Who was to be paid.
        recipient: String,
    },
}

/// A spending policy and what has been spent under it. Clones share the state.
#[derive(Clone)]
pub struct Budget {
    inner: Arc<Inner>,
}

struct Inner {
    limits: Vec<Limit>,
    recipients: Option<Vec<String>>,
    ledger: Mutex<Ledger>,
}

#[derive(Default)]
struct Ledger {
    next: u64,
    entries: VecDeque<Entry>,
}

struct Entry {
    number: u64,
    at: Instant,
    cost: Cost,
}

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

impl Budget {
    /// A budget of these limits; all that name a currency apply to it, and one that none names
    /// cannot be spent.
    pub fn new(limits: impl IntoIterator<Item = Limit>) -> Self {
        Self {
            inner: Arc::new(Inner {
                limits: limits.into_iter().collect(),
                recipients: None,
                ledger: Mutex::default(),
            }),
        }
    }

    /// Only these recipients may be paid; a challenge that names none is refused. Starts with an
    /// empty ledger.
    pub fn only_recipients(self, recipients: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let recipients = recipients
            .into_iter()
            .map(|r| r.into().to_ascii_lowercase())
            .collect();
        Self {
            inner: Arc::new(Inner {
                limits: self.inner.limits.clone(),
                recipients: Some(recipients),
                ledger: Mutex::default(),
            }),
        }
    }

    /// Whether `cost` fits now. It may not any more when it is approved.
    pub fn check(&self, cost: &Cost) -> Result<(), BudgetError> {
        self.inner.check(&self.inner.ledger(), cost, Instant::now())
    }

    /// Checks `cost` and reserves it. The only way to an [`Approved`].
    pub fn approve(&self, cost: Cost) -> Result<(Approved, Reservation), BudgetError> {
        let now = Instant::now();
        let mut ledger = self.inner.ledger();
        self.inner.check(&ledger, &cost, now)?;
        let number = ledger.next;
        ledger.next += 1;
        ledger.entries.push_back(Entry {
            number,
            at: now,
            cost: cost.clone(),
        });
        Ok((
            Approved { cost },
            Reservation {
                budget: self.clone(),
                number,
            },
        ))
    }

    /// What has been spent or reserved in `currency`, base units.
    pub fn spent(&self, currency: &str) -> Amount {
        let ledger = self.inner.ledger();
        sum(ledger
            .entries
            .iter()
            .filter(|e| e.cost.currency.eq_ignore_ascii_case(currency)))
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Budget")
            .field("limits", &self.inner.limits)
            .finish_non_exhaustive()
    }
}

/// Saturates: a sum that does not fit is over every limit.
fn sum<'a>(entries: impl Iterator<Item = &'a Entry>) -> Amount {
    Amount::new(entries.fold(0u128, |sum, e| sum.saturating_add(e.cost.amount.get())))
}

impl Inner {
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        // A panic while holding it leaves whole entries behind, so the data is still good.
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check(&self, ledger: &Ledger, cost: &Cost, now: Instant) -> Result<(), BudgetError> {
        if let Some(list) = &self.recipients {
            let recipient = cost.recipient.as_deref().unwrap_or("an unnamed recipient");
            if !list.iter().any(|r| r.eq_ignore_ascii_case(recipient)) {
                return Err(BudgetError::Recipient {
                    recipient: recipient.to_owned(),
                });
            }
        }
        let mut limits = self
            .limits
            .iter()
            .filter(|l| l.currency.eq_ignore_ascii_case(&cost.currency))
            .peekable();
        if limits.peek().is_none() {
            return Err(BudgetError::Currency {
                currency: cost.currency.clone(),
            });
        }
        let same = || {
            ledger
                .entries
                .iter()
                .filter(|e| e.cost.currency.eq_ignore_ascii_case(&cost.currency))
        };
        let within = |span: Duration| {
            sum(same().filter(move |e| now.saturating_duration_since(e.at) < span))
        };
        let payee = || {
            sum(
                same().filter(|e| match (&e.cost.recipient, &cost.recipient) {
                    // A server that re-spells its address is still the same payee.
                    (Some(a), Some(b)) => a.eq_ignore_ascii_case(b),
                    (a, b) => a == b,
                }),
            )
        };
        for limit in limits {
            let checks: [(&'static str, Option<Amount>, Amount); 5] = [
                ("per request", limit.per_request, Amount::new(0)),
                ("per hour", limit.per_hour, within(HOUR)),
                ("per day", limit.per_day, within(DAY)),
                ("per payee", limit.per_payee, payee()),
                ("total", limit.total, sum(same())),
            ];
            for (name, allowed, used) in checks {
                let Some(allowed) = allowed else { continue };
                if used
                    .checked_add(cost.amount)
                    .is_none_or(|sum| sum > allowed)
                {
                    return Err(BudgetError::Over {
                        amount: cost.amount,
                        currency: cost.currency.clone(),
                        limit: name,
                        allowed,
                        used,
                    });
                }
            }
        }
        Ok(())
    }
}

/// Proof that a budget said yes. Only [`Budget::approve`] makes one, and paying consumes it.
#[derive(Debug)]
pub struct Approved {
    cost: Cost,
}

impl Approved {
    /// What was approved. A wallet pays no more.
    pub fn cost(&self) -> &Cost {
        &self.cost
    }
}

/// An approved amount, counted as spent from the start.
///
/// Dropping it leaves it counted: when nobody knows whether money moved, the budget must not
/// allow it a second time.
#[derive(Debug)]
#[must_use = "release it when nothing was paid; otherwise the amount stays counted as spent"]
pub struct Reservation {
    budget: Budget,
    number: u64,
}

impl Reservation {
    /// Nothing moved and nothing will: gives the amount back.
    pub fn release(self) {
        let mut ledger = self.budget.inner.ledger();
        ledger.entries.retain(|e| e.number != self.number);
    }

    /// The payment was made.
    pub fn commit(self) {}

    /// Approval to go on with the very movement this was reserved for, after it was cut short. It
    /// is counted once, so whoever moves the money must do so at most once, however often asked.
    pub fn again(&self) -> Approved {
        let ledger = self.budget.inner.ledger();
        let entry = ledger.entries.iter().find(|e| e.number == self.number);
        let cost = entry.map(|e| e.cost.clone());
        // Entries leave the ledger with their reservation, so there is one.
        let nothing = Cost {
            amount: Amount::new(0),
            currency: String::new(),
            recipient: None,
        };
        Approved {
            cost: cost.unwrap_or(nothing),
        }
    }

    /// Of what was approved only `spent` is gone for good, and the rest came back: a deposit after
    /// its refund. Never counts more than was approved.
    pub fn commit_only(self, spent: Amount) {
        let mut ledger = self.budget.inner.ledger();
        let entry = ledger.entries.iter_mut().find(|e| e.number == self.number);
        if let Some(entry) = entry {
            entry.cost.amount = entry.cost.amount.min(spent);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sat(amount: u128) -> Cost {
        Cost {
            amount: Amount::new(amount),
            currency: "sat".into(),
            recipient: None,
        }
    }

    /// Protects: parallel requests cannot overspend together.
    #[test]
    fn parallel_approvals_never_pass_the_total() {
        let limit = Limit::per_request("sat", Amount::new(10)).total(Amount::new(100));
        let budget = Budget::new([limit]);
        let approved: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        (0..50)
                            .filter(|_| budget.approve(sat(3)).map(|(_, r)| r.commit()).is_ok())
                            .count()
                    })
                })
                .collect();
            threads.into_iter().map(|t| t.join().unwrap()).sum()
        });
        assert_eq!(approved, 33, "33 × 3 = 99 fits in 100, a 34th does not");
        assert_eq!(budget.spent("SAT"), Amount::new(99));
    }

    /// Protects: a failed payment frees its amount, an unknown one does not.
    #[test]
    fn released_amounts_can_be_spent_again_and_dropped_ones_cannot() {
        let budget =
            Budget::new([Limit::per_request("sat", Amount::new(10)).total(Amount::new(10))]);
        let (_, reservation) = budget.approve(sat(10)).unwrap();
        assert!(budget.approve(sat(1)).is_err());
        reservation.release();
        let (_, reservation) = budget.approve(sat(10)).unwrap();
        drop(reservation);
        assert!(budget.check(&sat(1)).is_err());
    }

    /// Protects: a refund can be spent again, and what a payee kept can not.
    #[test]
    fn of_a_deposit_only_what_was_spent_stays_counted() {
        let limit = Limit::per_request("sat", Amount::new(10)).total(Amount::new(10));
        let budget = Budget::new([limit]);
        budget
            .approve(sat(10))
            .unwrap()
            .1
            .commit_only(Amount::new(4));
        assert_eq!(budget.spent("sat"), Amount::new(4));
        assert!(budget.check(&sat(7)).is_err());
        // A payee cannot be said to have kept more than was approved.
        budget
            .approve(sat(6))
            .unwrap()
            .1
            .commit_only(Amount::new(60));
        assert_eq!(budget.spent("sat"), Amount::new(10));
    }

    /// Protects: each refusal names the limit that was passed.
    #[test]
    fn refusals_name_their_limit() {
        let budget =
            Budget::new([Limit::per_request("usd", Amount::new(50)).per_hour(Amount::new(60))]);
        let usd = |amount| Cost {
            amount: Amount::new(amount),
            currency: "USD".into(),
            recipient: None,
        };
        assert!(matches!(
            budget.check(&sat(1)),
            Err(BudgetError::Currency { .. })
        ));
        assert!(matches!(
            budget.check(&usd(51)),
            Err(BudgetError::Over {
                limit: "per request",
                ..
            })
        ));
        budget.approve(usd(50)).unwrap().1.commit();
        assert!(matches!(
            budget.check(&usd(11)),
            Err(BudgetError::Over {
                limit: "per hour",
                ..
            })
        ));
        assert!(matches!(
            budget.check(&Cost {
                amount: Amount::new(u128::MAX),
                ..usd(0)
            }),
            Err(BudgetError::Over { .. })
        ));
        let payee = |name: &str| Cost {
            recipient: Some(name.into()),
            ..usd(10)
        };
        let each = Limit::per_request("usd", Amount::new(50)).per_payee(Amount::new(10));
        let two = Budget::new([Limit::per_request("usd", Amount::new(50)), each]);
        two.approve(payee("0xab")).unwrap().1.commit();
        assert!(matches!(
            two.check(&payee("0xAB")),
            Err(BudgetError::Over {
                limit: "per payee",
                ..
            })
        ));
        let listed = budget.only_recipients(["acct_1"]);
        assert!(matches!(
            listed.check(&usd(1)),
            Err(BudgetError::Recipient { .. })
        ));
    }
}
