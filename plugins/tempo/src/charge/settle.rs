//! Broadcasting, and finding out what became of a broadcast.
//!
//! The transaction's own hash is the idempotency key: sending the same bytes twice cannot move money
//! twice.

use std::{fmt, sync::Arc, time::Duration};

use alloy::primitives::{B256, Bytes};
use farebox_core::{IdempotencyKey, Outcome, Refusal, Rejection, Settle};
use farebox_wire::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    chain::{Chain, Receipt, Transfer},
    charge::sponsor::{Allowance, FLOOR, Share},
    explain::{never_taken, payers_fault},
    rpc::RpcError,
    session::Moved,
};

/// How long to look for a receipt after a node has refused a transaction: another one behind the
/// same endpoint may have included it.
const SECOND_LOOK: Duration = Duration::from_secs(2);

/// How long to wait for inclusion where the node does not do the waiting.
const INCLUSION: Duration = Duration::from_secs(10);

/// How far the chain must be past the end of a transaction's window before its absence is final,
/// in seconds. The time may come from a node that is up to date and "no receipt" from another one
/// behind the same endpoint, so this is how far behind a node may be that is still asked.
pub(crate) const MARGIN: u64 = 60;

/// A transaction to broadcast. Stored before it is sent.
#[derive(Clone, Serialize, Deserialize)]
pub struct Order {
    /// The signed transaction.
    pub(crate) raw: Bytes,
    /// Its hash.
    pub(crate) hash: B256,
    /// End of its window, Unix seconds. No block at or after it can include it.
    pub(crate) valid_before: u64,
    /// What the receipt must show.
    pub(crate) transfers: Vec<Transfer>,
    /// Whether somebody else pays its fee, so that it is not sent when it may run out on its way.
    #[serde(default)]
    pub(crate) sponsored: bool,
    /// What it may take from the fee payer's budget.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) share: Option<Share>,
    /// What the channel reserve must have logged, where that is what moves the money.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) moved: Option<Moved>,
}

impl Order {
    /// Whether the transaction may be sent at this moment.
    fn may_be_sent(&self) -> bool {
        !self.sponsored || self.valid_before >= now().saturating_add(FLOOR)
    }
}

/// Unix seconds.
fn now() -> u64 {
    let now = Timestamp::now().unix_millis().div_euclid(1000);
    u64::try_from(now).unwrap_or(0)
}

impl fmt::Debug for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Order")
            .field("hash", &self.hash)
            .finish_non_exhaustive()
    }
}

/// Settles [`Order`]s on one chain.
#[derive(Clone, Debug)]
pub struct TempoSettler {
    chain: Arc<Chain>,
    pub(crate) allowance: Option<Arc<Allowance>>,
}

impl TempoSettler {
    pub(crate) fn new(chain: Arc<Chain>) -> Self {
        Self {
            chain,
            allowance: None,
        }
    }

    /// What the receipt says. The fee of a sponsored transaction is counted, reverted or not.
    async fn conclude(&self, order: &Order, receipt: &Receipt) -> Outcome {
        let outcome = judge(order, receipt);
        if !matches!(outcome, Outcome::Unknown) {
            self.count(order, receipt.fee()).await;
        }
        outcome
    }

    /// Sets the fee aside where there is a budget, which is before anything is sent and no earlier:
    /// what is only verified costs nothing.
    async fn set_aside(&self, order: &Order) -> Result<(), Refusal> {
        match (&order.share, &self.allowance) {
            (Some(share), Some(allowance)) => {
                allowance.reserve(share, order.valid_before, now()).await
            }
            _ => Ok(()),
        }
    }

    /// Counts attodollars where there is a budget.
    async fn count(&self, order: &Order, spent: Option<u128>) {
        if let (Some(share), Some(allowance)) = (&order.share, &self.allowance) {
            allowance.settle(share, spent).await;
        }
    }

    /// Sends, waits, and reads the receipt. `Err` if there is none.
    async fn broadcast(&self, order: &Order) -> Result<Receipt, RpcError> {
        match self.chain.send_sync(&order.raw).await {
            Err(RpcError::Refused(refused)) if refused.code == -32601 => {
                // A node without EIP-7966: send, then ask until it is there.
                self.chain.send(&order.raw).await?;
                let found = self.chain.await_receipt(order.hash, INCLUSION).await?;
                found.ok_or_else(|| RpcError::Transport("not included in time".to_owned()))
            }
            answer => answer,
        }
    }
}

impl Settle for TempoSettler {
    type Order = Order;

    async fn settle(&self, _: &IdempotencyKey, order: &Order) -> Outcome {
        if !order.may_be_sent() {
            // A process may have died after sending it, so only the end of its window is final.
            tracing::warn!(hash = %order.hash, "a sponsored transaction is too old to be sent");
            return Outcome::Unknown;
        }
        match self.set_aside(order).await {
            Ok(()) => {}
            Err(Refusal::Rejected(why)) => return Outcome::Declined(why),
            Err(Refusal::Fault(fault)) => {
                tracing::warn!(hash = %order.hash, %fault, "a sponsored fee cannot be counted");
                return Outcome::Unknown;
            }
        }
        let refused = match self.broadcast(order).await {
            Ok(receipt) => return self.conclude(order, &receipt).await,
            Err(RpcError::Refused(refused)) => refused,
            Err(error) => {
                tracing::warn!(hash = %order.hash, %error, "a broadcast has no known outcome");
                return Outcome::Unknown;
            }
        };
        // "Already known", "nonce too low": the transaction itself may be the reason.
        match self.chain.await_receipt(order.hash, SECOND_LOOK).await {
            Ok(Some(receipt)) => return self.conclude(order, &receipt).await,
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(hash = %order.hash, %error, "a refusal cannot be checked");
                return Outcome::Unknown;
            }
        }
        tracing::warn!(hash = %order.hash, code = refused.code, "a node refuses a transaction");
        // "No receipt" from one of several endpoints says nothing of what another one has included.
        let certain = never_taken(&refused) && self.chain.has_one_endpoint();
        match certain.then(|| payers_fault(&refused)).flatten() {
            Some(text) => {
                self.count(order, Some(0)).await;
                declined(format!("the chain refuses the payment: {text}"))
            }
            None => Outcome::Unknown,
        }
    }

    async fn lookup(&self, _: &IdempotencyKey, order: &Order) -> Outcome {
        let Ok((time, receipt)) = self.chain.time_and_receipt(order.hash).await else {
            return Outcome::Unknown;
        };
        if let Some(receipt) = receipt {
            return self.conclude(order, &receipt).await;
        }
        if time >= order.valid_before.saturating_add(MARGIN) {
            self.count(order, Some(0)).await;
            let text = "the transaction was not included before its valid_before; sign a new one";
            return declined(text);
        }
        if time >= order.valid_before || !order.may_be_sent() {
            return Outcome::Unknown;
        }
        // Nothing is set aside twice; and what cannot be set aside was perhaps sent all the same.
        if self.set_aside(order).await.is_err() {
            return Outcome::Unknown;
        }
        // Perhaps it was never sent. The same bytes can be included once, so sending is safe; a
        // refusal proves nothing, since an earlier attempt may be under way. Nobody waits for the
        // inclusion here: one payer's dead transaction must not hold up everybody's lookups.
        if let Err(error) = self.chain.send(&order.raw).await {
            tracing::debug!(hash = %order.hash, %error, "a transaction was not taken again");
        }
        match self.chain.receipt(order.hash).await {
            Ok(Some(receipt)) => self.conclude(order, &receipt).await,
            _ => Outcome::Unknown,
        }
    }
}

fn declined(detail: impl Into<String>) -> Outcome {
    Outcome::Declined(Rejection::verification(detail))
}

/// A receipt is the only evidence there is. Money moved if the token logged the transfer, or the
/// reserve what it did.
fn judge(order: &Order, receipt: &Receipt) -> Outcome {
    if receipt.transaction_hash != order.hash {
        tracing::error!(hash = %order.hash, "the node answered with another transaction's receipt");
        return Outcome::Unknown;
    }
    if !receipt.succeeded() {
        return declined("the transaction was included and reverted; nothing was transferred");
    }
    let shown = match &order.moved {
        Some(moved) => moved.is_shown(receipt),
        None => receipt.shows(&order.transfers),
    };
    if !shown {
        // No call can succeed without its log, so it is the receipt that is in doubt.
        tracing::error!(hash = %order.hash, "a receipt of success lacks the log of what it pays");
        return Outcome::Unknown;
    }
    Outcome::settled(order.hash.to_string())
}
