//! Recording what became of a refund.

use std::{sync::Arc, time::Duration};

use farebox_core::{Fault, RefundKey, Refunded};
use tokio::time::sleep;

use super::ledger::{Giving, Ledger, OWED, State, Stored};
use crate::engine::Shared;

/// How often somebody else may be faster before we leave it to them.
const ROUNDS: usize = 16;

/// The pause before an outcome is written again where the store is away.
const PAUSE: Duration = Duration::from_millis(500);

/// The refund's key at its rail.
pub(super) fn key_of(ledger: &Ledger, giving: &Giving) -> RefundKey {
    RefundKey::new(
        &ledger.scope,
        &ledger.reference,
        &giving.name,
        giving.attempt,
    )
}

impl Shared {
    /// Records an outcome, for as long as the refund is ours where the store is away.
    pub(super) async fn insist_on_refund(
        self: &Arc<Self>,
        written: Stored,
        giving: &Giving,
        outcome: Refunded,
    ) -> Result<Ledger, Fault> {
        let until = match giving.state {
            State::Attempted { until } => until,
            _ => 0,
        };
        loop {
            let fault = match self.conclude_refund(&written, giving, &outcome).await {
                Ok(ledger) => return Ok(ledger),
                Err(fault) => fault,
            };
            if self.clock.millis() >= until {
                return Err(fault);
            }
            tracing::warn!(%fault, "a refund's outcome is not recorded yet");
            sleep(PAUSE).await;
        }
    }

    /// Records an outcome over whatever the record says by now. That money went back wins over that
    /// it did not, and that it came back again over both: those of one refund may be heard of in any
    /// order.
    pub(super) async fn conclude_refund(
        &self,
        from: &Stored,
        giving: &Giving,
        outcome: &Refunded,
    ) -> Result<Ledger, Fault> {
        let mut current = from.clone();
        for _ in 0..ROUNDS {
            let recorded = current.ledger.named(&giving.name).cloned();
            let ours = recorded.filter(|known| known.attempt == giving.attempt);
            let next = match (ours.map(|known| known.state), outcome) {
                (Some(State::Attempted { until }), Refunded::Unknown) => {
                    // Nobody is at it any more, unless somebody took it over.
                    let ours =
                        matches!(giving.state, State::Attempted { until: of } if of == until);
                    if !ours {
                        return Ok(current.ledger);
                    }
                    State::Attempted {
                        until: self.clock.millis(),
                    }
                }
                (Some(State::Attempted { .. }), Refunded::Refused(why)) => State::Refused {
                    why: why.clone(),
                    failed: None,
                },
                (Some(recorded), Refunded::Failed { reference, why }) => match recorded {
                    State::Done { reference: known } if known != *reference => {
                        return Ok(current.ledger);
                    }
                    State::Refused {
                        failed: Some(_), ..
                    } => return Ok(current.ledger),
                    _ => State::Refused {
                        why: why.clone(),
                        failed: Some(reference.clone()),
                    },
                },
                (Some(State::Refused { failed, .. }), Refunded::Done { reference })
                    if failed.as_ref() == Some(reference) =>
                {
                    return Ok(current.ledger);
                }
                (
                    Some(State::Attempted { .. } | State::Refused { .. }),
                    Refunded::Done { reference },
                ) => State::Done {
                    reference: reference.clone(),
                },
                _ => return Ok(current.ledger),
            };
            let key = key_of(&current.ledger, giving);
            match next {
                // First, or a crash would leave it neither given back nor collectable.
                State::Refused { .. } => self.unbar(giving, &key).await?,
                // It may have been refused before, and collectable; if it is being served this
                // moment, that is so.
                State::Done { .. } => {
                    self.bar(&current.ledger.name(), giving, &key).await?;
                }
                State::Attempted { .. } => {}
            }
            let next = current.ledger.with(Giving {
                state: next,
                ..giving.clone()
            });
            let rewritten = self.rewrite(Some(&current), next).await;
            if let Some(stored) = effect!("refund.recorded", rewritten)? {
                return Ok(stored.ledger);
            }
            let found = self.ledger_of(&current.ledger.name()).await?;
            current = found.ok_or_else(|| Fault::new("a refund's record is gone"))?;
        }
        Err(Fault::unavailable(
            "a refund's record changes faster than it can be written",
        ))
    }

    /// Takes a payment off the list, unless the list speaks of a later refund by now.
    pub(super) async fn strike_refund(&self, ledger: &Ledger, listed: &str) -> Result<(), Fault> {
        let key = [OWED, &ledger.name().text()].concat();
        let struck = self.store.compare_and_swap(&key, Some(listed), None, None);
        effect!("refund.struck", struck.await)?;
        Ok(())
    }
}
