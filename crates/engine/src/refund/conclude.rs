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
        let mut touched = false;
        for _ in 0..ROUNDS {
            let recorded = current.ledger.named(&giving.name).cloned();
            let ours = recorded.filter(|known| known.attempt == giving.attempt);
            let ours = ours.map(|known| known.state);
            let next = successor(ours.as_ref(), giving, outcome, self.clock.millis());
            let Some(next) = next else {
                // What was done for a record that had moved on.
                if touched {
                    self.follow(&current.ledger, giving, ours.as_ref()).await?;
                }
                return Ok(current.ledger);
            };
            // First, or a crash would leave it neither given back nor collectable, or both.
            self.follow(&current.ledger, giving, Some(&next)).await?;
            touched = true;
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

    /// Sees to it that the payment can be collected exactly if the refund was not made. Another attempt
    /// is only made after a refused one.
    async fn follow(
        &self,
        ledger: &Ledger,
        giving: &Giving,
        state: Option<&State>,
    ) -> Result<(), Fault> {
        let key = key_of(ledger, giving);
        match state {
            Some(State::Attempted { .. }) => {}
            // If it is being served this moment, that is so.
            Some(State::Done { .. }) => drop(self.bar(&ledger.name(), giving, &key).await?),
            Some(State::Refused { .. }) | None => self.unbar(giving, &key).await?,
        }
        Ok(())
    }

    /// Takes a payment off the list, unless the list speaks of a later refund by now.
    pub(super) async fn strike_refund(&self, ledger: &Ledger, listed: &str) -> Result<(), Fault> {
        let key = [OWED, &ledger.name().text()].concat();
        let struck = self.store.compare_and_swap(&key, Some(listed), None, None);
        effect!("refund.struck", struck.await)?;
        Ok(())
    }
}

/// What an outcome makes of a refund that is on record; `None`: nothing.
fn successor(
    recorded: Option<&State>,
    giving: &Giving,
    outcome: &Refunded,
    now: i64,
) -> Option<State> {
    let (was, refused) = match recorded? {
        State::Attempted { until } => {
            if *outcome == Refunded::Unknown {
                // Nobody is at it any more, unless somebody took it over.
                let ours = matches!(giving.state, State::Attempted { until: of } if of == *until);
                return ours.then_some(State::Attempted { until: now });
            }
            (None, false)
        }
        State::Done { reference } => (Some(reference), false),
        State::Refused { failed, .. } => (failed.as_ref(), true),
    };
    match outcome {
        Refunded::Unknown => None,
        Refunded::Refused(why) => (was.is_none() && !refused).then(|| State::Refused {
            why: why.clone(),
            failed: None,
        }),
        Refunded::Done { reference } => {
            let news = was.is_none_or(|was| refused && was != reference);
            news.then(|| State::Done {
                reference: reference.clone(),
            })
        }
        Refunded::Failed { reference, why } => {
            let news = was.is_none_or(|was| !refused && was == reference);
            news.then(|| State::Refused {
                why: why.clone(),
                failed: Some(reference.clone()),
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use farebox_core::{RefundOrder, wire::Amount};

    use super::*;

    fn outcomes() -> Vec<Refunded> {
        let reference = || "re_1".to_owned();
        vec![
            Refunded::Unknown,
            Refunded::Refused("never made".to_owned()),
            Refunded::Done {
                reference: reference(),
            },
            Refunded::Failed {
                reference: reference(),
                why: "sent back".to_owned(),
            },
        ]
    }

    /// Protects: in whatever order the outcomes of one attempt are heard, the latest in its life is
    /// what is recorded.
    #[test]
    fn the_order_in_which_outcomes_are_heard_does_not_matter() {
        let state = State::Attempted { until: 1 };
        let giving = Giving {
            name: "all".to_owned(),
            attempt: 0,
            bars: None,
            order: RefundOrder {
                reference: "pi_1".to_owned(),
                amount: Amount::new(1),
                currency: "usd".to_owned(),
                created: 0,
                terms: serde_json::Value::Null,
            },
            state: state.clone(),
        };
        let after = |heard: &[usize]| {
            let outcomes = outcomes();
            heard.iter().fold(state.clone(), |state, n| {
                successor(Some(&state), &giving, &outcomes[*n], 2).unwrap_or(state)
            })
        };
        let last_is_failed = |heard: &[usize]| match after(heard) {
            State::Refused { failed, .. } => failed.is_some(),
            _ => false,
        };
        for heard in [
            [1, 2, 3],
            [1, 3, 2],
            [2, 1, 3],
            [2, 3, 1],
            [3, 1, 2],
            [3, 2, 1],
        ] {
            assert!(last_is_failed(&heard), "{heard:?}");
        }
        for heard in [[0, 1, 2], [1, 2, 0], [2, 1, 0], [2, 0, 2]] {
            assert!(matches!(after(&heard), State::Done { .. }), "{heard:?}");
        }
        assert_eq!(after(&[0]), State::Attempted { until: 2 });
        assert!(matches!(
            after(&[1, 1, 0]),
            State::Refused { failed: None, .. }
        ));
    }
}
