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
    /// The invoice was paid before: a node pays one once, so this cannot be.
    #[serde(default)]
    again: bool,
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
            again: false,
        })
    }

    /// After an earlier refund to the same invoice.
    pub(crate) fn again(mut self, again: bool) -> Self {
        self.again = again;
        self
    }

    fn send(&self) -> Option<SendOrder> {
        if self.again {
            return None;
        }
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
            None => unpayable(),
        }
    }

    async fn lookup(&self, _: &IdempotencyKey, order: &RefundOrder) -> Outcome {
        let Some(send) = order.send() else {
            return unpayable();
        };
        match self.node.track(send.payment_hash, WAIT).await {
            Some(payment) => outcome(payment, send.payment_hash),
            // It never left, so this is the first attempt; the node refuses a second one.
            None => self.pay(send).await,
        }
    }
}

/// The invoice was paid before, with an earlier refund. That it cannot be read is not to be expected:
/// it was, when the session opened and when this was ordered.
fn unpayable() -> Outcome {
    tracing::error!("a return invoice cannot be paid (again); the payer is owed what is left");
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
        // A node that is away owes its payers no less: the reconciler asks again, and pays.
        Payment::Unsent(_) | Payment::Unknown(_) => Outcome::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first example of BOLT11: it names no amount.
    const OPEN: &str = "lnbc1pvjluezsp5zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zygspp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqdpl2pkx2ctnv5sxxmmwwd5kgetjypeh2ursdae8g6twvus8g6rfwvs8qun0dfjkxaq9qrsgq357wnc5r2ueh7ck6q93dj32dlqnls087fxdwk8qakdyafkq3yap9us6v52vjjsrvywa6rt52cm9r9zqt8r2t7mlcwspyetp5h2tztugp9lfyql";

    /// Protects: a second refund to one invoice, which a node takes for paid already, is not taken
    /// for made.
    #[test]
    fn an_invoice_is_refunded_to_once() {
        let order = RefundOrder {
            return_invoice: OPEN.to_owned(),
            sats: Amount::new(5),
            max_fee_msat: 0,
            again: false,
        };
        assert_eq!(order.send().unwrap().amount_msat, Some(5_000));
        assert!(order.again(true).send().is_none());
    }
}
