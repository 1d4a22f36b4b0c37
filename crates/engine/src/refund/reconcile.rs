//! Looking up refunds that a crash or a lost answer left open.

use std::{panic::AssertUnwindSafe, sync::Arc};

use farebox_core::{Fault, Method, Refunded};
use futures_util::FutureExt as _;
use serde::Serialize;
use tokio::time::timeout;

use super::{
    Payment,
    conclude::key_of,
    ledger::{Giving, Name, OWED, State, Stored},
    not_configured,
};
use crate::engine::{Engine, Shared};

/// What a run found. Serialised in camel case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct RefundsReconciled {
    /// Payments on the list. Those not counted below needed nothing any more.
    pub looked_at: usize,
    /// Refunds found carried out.
    pub done: usize,
    /// Refunds found never to have been.
    pub refused: usize,
    /// Refunds under way, or whose rail cannot say yet.
    pub unknown: usize,
}

impl Engine {
    /// One run over the refunds that are not decided. Safe at any time and from several processes.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn reconcile_refunds(&self) -> Result<RefundsReconciled, Fault> {
        let mut found = RefundsReconciled::default();
        for (key, listed) in self.shared.store.scan(OWED).await? {
            if self.is_draining() {
                break;
            }
            found.looked_at += 1;
            let name = &key[OWED.len()..];
            match self.shared.look_after_refund(name, &listed).await {
                Ok(None) => {}
                Ok(Some(State::Done { .. })) => found.done += 1,
                Ok(Some(State::Refused { .. })) => found.refused += 1,
                Ok(Some(State::Attempted { .. })) => found.unknown += 1,
                Err(fault) => {
                    tracing::warn!(%fault, "a refund could not be reconciled");
                    found.unknown += 1;
                }
            }
        }
        Ok(found)
    }
}

/// What reading refunds again came to.
pub(super) struct Reread {
    /// The rail told of each.
    pub(super) told: bool,
    /// The payment by then.
    pub(super) stored: Stored,
}

impl Shared {
    /// Whether a payment has no refund that is not decided, having looked at those it has and, where
    /// the call says what was paid, at what others gave back.
    pub(crate) async fn hear_refund(
        self: &Arc<Self>,
        method: &str,
        reference: &str,
        challenge: Option<&str>,
    ) -> Result<bool, Fault> {
        let gone = || Fault::new("a rail that took a call is gone");
        let method = self.method(method).ok_or_else(gone)?;
        let Ok(name) = Name::of(&*method, reference) else {
            return Ok(true);
        };
        let known = self.ledger_of(&name).await?;
        let heard = Payment {
            method,
            name,
            spelled: reference.to_owned(),
        };
        if let Some(stored) = known {
            let method = self
                .method(&stored.ledger.method)
                .ok_or_else(not_configured)?;
            let now = self.clock.millis();
            let told = match stored.ledger.open().map(|open| &open.state) {
                Some(State::Attempted { until }) if *until > now => false,
                Some(_) => {
                    let state = self.look_up_refund(&*method, &stored).await?;
                    !matches!(state, State::Attempted { .. })
                }
                // News of one that was done: it may have failed since.
                None => self.reread_refunds(&*method, stored).await?.told,
            };
            if !told {
                return Ok(false);
            }
        }
        self.look_elsewhere(&heard, challenge).await
    }

    /// Reads every refund that is recorded as done once more, and records the ones that failed since
    /// as refused, so that their money counts as not given back and may be given again.
    pub(super) async fn reread_refunds(
        self: &Arc<Self>,
        method: &dyn Method,
        mut stored: Stored,
    ) -> Result<Reread, Fault> {
        let mut told = true;
        for giving in stored.ledger.refunds.clone() {
            let State::Done { reference } = &giving.state else {
                continue;
            };
            let reread = method.settler().reread_refund(&giving.order, reference);
            let reread = timeout(self.timing.settle, AssertUnwindSafe(reread).catch_unwind());
            let why = match reread.await {
                Ok(Ok(Refunded::Failed { why, .. } | Refunded::Refused(why))) => why,
                Ok(Ok(Refunded::Done { .. })) => continue,
                Ok(Ok(Refunded::Unknown) | Err(_)) | Err(_) => {
                    told = false;
                    continue;
                }
            };
            let key = key_of(&stored.ledger, &giving);
            self.unbar(&giving, &key).await?;
            let refused = Giving {
                state: State::Refused {
                    why,
                    failed: Some(reference.clone()),
                },
                ..giving.clone()
            };
            let next = stored.ledger.with(refused);
            let rewritten = self.rewrite(Some(&stored), next).await;
            match effect!("refund.recorded", rewritten)? {
                Some(next) => stored = next,
                // Somebody else is at it; whoever comes next reads again.
                None => {
                    return Ok(Reread {
                        told: false,
                        stored,
                    });
                }
            }
        }
        Ok(Reread { told, stored })
    }

    /// `None`: nothing was to be done.
    async fn look_after_refund(
        self: &Arc<Self>,
        name: &str,
        listed: &str,
    ) -> Result<Option<State>, Fault> {
        let stored = self.ledger_at(name).await?;
        let now = self.clock.millis();
        let Some(stored) = stored else {
            // Listed, and not written down yet or never.
            if lapsed(listed, now) {
                let key = format!("{OWED}{name}");
                let struck = self.store.compare_and_swap(&key, Some(listed), None, None);
                effect!("refund.struck", struck.await)?;
            }
            return Ok(None);
        };
        let Some(open) = stored.ledger.open().cloned() else {
            if lapsed(listed, now) {
                self.strike_refund(&stored.ledger, listed).await?;
            }
            return Ok(None);
        };
        if matches!(open.state, State::Attempted { until } if until > now) {
            return Ok(Some(open.state));
        }
        let method = self
            .method(&stored.ledger.method)
            .ok_or_else(not_configured)?;
        let state = self.look_up_refund(&*method, &stored).await?;
        if !matches!(state, State::Attempted { .. }) {
            self.strike_refund(&stored.ledger, listed).await?;
        }
        Ok(Some(state))
    }

    /// Asks the rail what became of the refund that is open, and records what it knows. Answers
    /// where it stands then.
    pub(super) async fn look_up_refund(
        self: &Arc<Self>,
        method: &dyn Method,
        stored: &Stored,
    ) -> Result<State, Fault> {
        let unknown = State::Attempted { until: 0 };
        let Some(open) = stored.ledger.open() else {
            return Ok(unknown);
        };
        // Taken before the rail is asked; who dies meanwhile leaves it to whoever comes after.
        let taken = Giving {
            state: State::Attempted {
                until: self.after(self.timing.settle + self.timing.slack),
            },
            ..open.clone()
        };
        let ledger = stored.ledger.with(taken.clone());
        let Some(held) = self.rewrite(Some(stored), ledger).await? else {
            return Ok(unknown);
        };
        let key = key_of(&held.ledger, &taken);
        // A lookup may be the first call that the rail gets.
        if !self.bar(&held.ledger.name(), &taken, &key).await? {
            let outcome = Refunded::Unknown;
            self.conclude_refund(&held, &taken, &outcome).await?;
            return Ok(unknown);
        }
        let lookup = method.settler().look_up_refund(&key, &taken.order);
        let lookup = timeout(self.timing.settle, AssertUnwindSafe(lookup).catch_unwind());
        let outcome = match effect!("refund.lookup", lookup.await) {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => {
                tracing::error!("a rail panicked while a refund was looked up");
                Refunded::Unknown
            }
            Err(_) => Refunded::Unknown,
        };
        let ledger = self.conclude_refund(&held, &taken, &outcome).await?;
        Ok(ledger
            .named(&taken.name)
            .map_or(unknown, |g| g.state.clone()))
    }
}

/// Whether whoever listed a refund is at it no more.
fn lapsed(listed: &str, now: i64) -> bool {
    let until = listed.split(' ').next();
    let until = until.and_then(|text| text.parse::<i64>().ok());
    until.is_none_or(|until| until <= now)
}
