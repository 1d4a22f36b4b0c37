//! Giving back what a session did not spend.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use farebox_core::{IdempotencyKey, Outcome, Rejection, Settle};
use farebox_wire::Amount;
use serde::{Deserialize, Serialize};

use crate::bolt11::{Bolt11, Disagreement, PaymentHash};
use crate::node::{Node, Payment, SendOrder};

/// How long the node looks for a route to the payer.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How long a look-up waits for a payment that is under way.
const WAIT: Duration = Duration::from_secs(5);

/// A refund to be paid: the payer's own invoice, and how much goes to it.
#[derive(Clone, Serialize, Deserialize)]
pub struct RefundOrder {
    return_invoice: String,
    sats: Amount,
    max_fee_msat: u64,
}

impl fmt::Debug for RefundOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RefundOrder")
            .field("sats", &self.sats)
            .finish_non_exhaustive()
    }
}

impl RefundOrder {
    pub(crate) fn new(
        return_invoice: &str,
        sats: Amount,
        max_fee_msat: u64,
    ) -> Result<Self, Disagreement> {
        Bolt11::parse(return_invoice)?;
        Ok(Self {
            return_invoice: return_invoice.to_owned(),
            sats,
            max_fee_msat,
        })
    }

    fn send(&self) -> Option<SendOrder> {
        let hash = Bolt11::parse(&self.return_invoice).ok()?.payment_hash;
        let msat = u64::try_from(self.sats.get().checked_mul(1_000)?).ok()?;
        let order = SendOrder::new(&self.return_invoice, hash, self.max_fee_msat, TIMEOUT);
        Some(order.amount_msat(msat))
    }
}

/// Pays refunds. A node pays an invoice once, so the invoice is its own idempotency key.
#[derive(Clone)]
pub struct Refunder {
    node: Arc<dyn Node>,
}

impl fmt::Debug for Refunder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refunder").finish_non_exhaustive()
    }
}

impl Refunder {
    pub(crate) fn new(node: Arc<dyn Node>) -> Self {
        Self { node }
    }

    async fn pay(&self, send: SendOrder) -> Outcome {
        let hash = send.payment_hash;
        outcome(self.node.pay(send).await, hash)
    }
}

impl Settle for Refunder {
    type Order = RefundOrder;

    async fn settle(&self, _: &IdempotencyKey, order: &RefundOrder) -> Outcome {
        match order.send() {
            Some(send) => self.pay(send).await,
            None => unreadable(),
        }
    }

    async fn lookup(&self, _: &IdempotencyKey, order: &RefundOrder) -> Outcome {
        let Some(send) = order.send() else {
            return unreadable();
        };
        match self.node.track(send.payment_hash, WAIT).await {
            Some(payment) => outcome(payment, send.payment_hash),
            // It never left, so this is the first attempt; the node refuses a second one.
            None => self.pay(send).await,
        }
    }
}

/// It was read when the session opened and again before it was ordered.
fn unreadable() -> Outcome {
    tracing::error!("a refund's return invoice cannot be read; the payer is owed what is left");
    Outcome::Declined(Rejection::verification("the return invoice cannot be paid"))
}

fn outcome(payment: Payment, hash: PaymentHash) -> Outcome {
    match payment {
        Payment::Succeeded { .. } => Outcome::settled(hash.to_string()),
        Payment::Failed(why) => {
            tracing::warn!(
                why,
                "a session's refund could not be paid; it is not tried again"
            );
            Outcome::Declined(Rejection::verification("the refund could not be routed"))
        }
        Payment::Unknown(_) => Outcome::Unknown,
    }
}
