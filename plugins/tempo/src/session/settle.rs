//! Carrying out what changes a channel on the chain. Each order is one signed transaction, ours or
//! the payer's, so broadcasting and looking up are those of a charge.

use std::{fmt, sync::Arc};

use farebox_core::{IdempotencyKey, Outcome, Settle};
use serde::{Deserialize, Serialize};

use super::states::States;
use crate::{TempoSettler, charge::Order, session::tx::Moved};

/// A transaction that opens, tops up, settles or closes a channel. Stored before it is sent.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SessionOrder {
    pub(crate) order: Order,
}

impl fmt::Debug for SessionOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.order, f)
    }
}

impl SessionOrder {
    pub(super) fn new(mut order: Order, moved: Moved) -> Self {
        order.moved = Some(moved);
        Self { order }
    }
}

/// Settles [`SessionOrder`]s on one chain.
#[derive(Clone, Debug)]
pub struct SessionSettler {
    base: TempoSettler,
    states: Arc<States>,
}

impl SessionSettler {
    pub(super) fn new(base: TempoSettler, states: Arc<States>) -> Self {
        Self { base, states }
    }

    /// A session's receipt is named by its channel; the transaction is a member of its own.
    fn conclude(&self, order: &SessionOrder, outcome: Outcome) -> Outcome {
        let Some(moved) = &order.order.moved else {
            return outcome;
        };
        self.states.forget(moved.channel);
        match outcome {
            Outcome::Settled {
                reference,
                mut receipt,
            } => {
                receipt.insert("txHash".to_owned(), reference.into());
                Outcome::Settled {
                    reference: moved.channel.to_string(),
                    receipt,
                }
            }
            other => other,
        }
    }
}

impl Settle for SessionSettler {
    type Order = SessionOrder;

    async fn settle(&self, key: &IdempotencyKey, order: &SessionOrder) -> Outcome {
        let outcome = self.base.settle(key, &order.order).await;
        self.conclude(order, outcome)
    }

    async fn lookup(&self, key: &IdempotencyKey, order: &SessionOrder) -> Outcome {
        let outcome = self.base.lookup(key, &order.order).await;
        self.conclude(order, outcome)
    }
}
