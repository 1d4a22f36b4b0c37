//! Moving money.

use std::{fmt, future::Future};

use async_trait::async_trait;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use crate::{
    refund::{Misnamed, NoRefund, PaymentName, RefundKey, RefundOrder, Refundable, Refunded},
    refusal::Rejection,
};

/// One per payment, the same for every attempt and every lookup. The engine derives it from the
/// challenge id, so a proof minted anew for the same challenge cannot move money again.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IdempotencyKey(String);

impl IdempotencyKey {
    /// The key for a challenge id.
    pub fn for_challenge(id: &str) -> Self {
        Self(format!("mpp_{id}"))
    }

    /// The key as text: `mpp_` and the payment id. 47 characters, or 91 where a challenge carries
    /// several actions (a session).
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What a rail knows about the money after an attempt.
///
/// Not a `Result`: there is no `?` out of money. Only explicit evidence makes `Settled` or
/// `Declined`; a timeout, a broken connection or an answer that cannot be read is `Unknown`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Outcome {
    /// The money moved.
    Settled {
        /// What the receipt's `reference` says.
        reference: String,
        /// Further receipt members.
        receipt: Map<String, Value>,
    },
    /// The money did not move and never will for this order.
    Declined(Rejection),
    /// Nobody knows yet. The engine parks the payment and asks `lookup` again.
    Unknown,
}

impl Outcome {
    /// Settled under `reference`.
    pub fn settled(reference: impl Into<String>) -> Self {
        Self::Settled {
            reference: reference.into(),
            receipt: Map::new(),
        }
    }
}

/// Moves money, idempotently under the key. The typed trait that rail authors write.
pub trait Settle: Send + Sync + 'static {
    /// All that is needed to move the money, and to find out later whether it moved. Stored
    /// before the first attempt.
    type Order: Serialize + DeserializeOwned + Send + Sync;

    /// Carries out the order. Called at most once per key, unless a process died before it
    /// recorded that it had called.
    fn settle(
        &self,
        key: &IdempotencyKey,
        order: &Self::Order,
    ) -> impl Future<Output = Outcome> + Send;

    /// Finds out what became of an order that may or may not have been carried out.
    ///
    /// It may carry the order out if the rail makes that idempotent, but it must answer
    /// `Declined` only when failure is final: an attempt still under way must not succeed later.
    fn lookup(
        &self,
        key: &IdempotencyKey,
        order: &Self::Order,
    ) -> impl Future<Output = Outcome> + Send;

    /// The same, where somebody has said what the rail calls the movement of money: it can be read
    /// by that name, and need not be searched for. The word of others is no evidence, so what is read
    /// there must be this order's.
    fn look_at(
        &self,
        key: &IdempotencyKey,
        order: &Self::Order,
        reference: &str,
    ) -> impl Future<Output = Outcome> + Send {
        let _ = reference;
        self.lookup(key, order)
    }

    /// The one name of a payment, from what an operator calls it. Pure. Where a rail can refund and a
    /// payment has more than one spelling, it must say so here, as its refunds are counted under this
    /// name. Unless said, the reference as given.
    ///
    /// # Errors
    /// It can be none of this rail's payments, and why.
    fn name_payment(&self, reference: &str) -> Result<PaymentName, Misnamed> {
        Ok(PaymentName::of_rail(reference))
    }

    /// What there is to give back of a payment, by its receipt's reference or another spelling of it
    /// that has a [name](Self::name_payment). Reads only. Unless said, the rail cannot refund.
    fn refundable(
        &self,
        reference: &str,
    ) -> impl Future<Output = Result<Refundable, NoRefund>> + Send {
        let _ = reference;
        async { Err(NoRefund::Unsupported) }
    }

    /// Gives money back, idempotently under the key. Called at most once per key, unless a process
    /// died before it recorded that it had called.
    fn refund(
        &self,
        key: &RefundKey,
        order: &RefundOrder,
    ) -> impl Future<Output = Refunded> + Send {
        let _ = (key, order);
        async { Refunded::Unknown }
    }

    /// Finds out what became of a refund, as [`lookup`](Self::lookup) does of an order.
    fn look_up_refund(
        &self,
        key: &RefundKey,
        order: &RefundOrder,
    ) -> impl Future<Output = Refunded> + Send {
        let _ = (key, order);
        async { Refunded::Unknown }
    }

    /// Reads a refund that was found [done](Refunded::Done), by what the rail calls it: a bank may
    /// send the money back weeks later. [`Failed`](Refunded::Failed) where it did. Reads only.
    fn reread_refund(
        &self,
        order: &RefundOrder,
        refund: &str,
    ) -> impl Future<Output = Refunded> + Send {
        let _ = (order, refund);
        async { Refunded::Unknown }
    }
}

/// The order of a rail that never settles: it has no values, so such a plan cannot be written.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum Never {}

/// For rails whose proof is the payment (a preimage, a zero-amount proof).
#[derive(Clone, Copy, Debug, Default)]
pub struct NoSettler;

impl Settle for NoSettler {
    type Order = Never;

    async fn settle(&self, _: &IdempotencyKey, order: &Never) -> Outcome {
        match *order {}
    }

    async fn lookup(&self, _: &IdempotencyKey, order: &Never) -> Outcome {
        match *order {}
    }
}

/// An order as it is stored: JSON text. May hold what pays (a token, a signed transaction), so
/// `Debug` does not print it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StoredOrder(String);

impl StoredOrder {
    /// The stored form of a typed order.
    pub fn of(order: &impl Serialize) -> Result<Self, serde_json::Error> {
        serde_json::to_string(order).map(Self)
    }

    /// The JSON text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for StoredOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoredOrder([redacted])")
    }
}

/// The object-safe face of [`Settle`].
#[async_trait]
pub trait Settler: Send + Sync {
    /// See [`Settle::settle`].
    async fn settle(&self, key: &IdempotencyKey, order: &StoredOrder) -> Outcome;

    /// See [`Settle::lookup`].
    async fn lookup(&self, key: &IdempotencyKey, order: &StoredOrder) -> Outcome;

    /// See [`Settle::look_at`].
    async fn look_at(&self, key: &IdempotencyKey, order: &StoredOrder, reference: &str) -> Outcome;

    /// See [`Settle::name_payment`].
    fn name_payment(&self, reference: &str) -> Result<PaymentName, Misnamed>;

    /// See [`Settle::refundable`].
    async fn refundable(&self, reference: &str) -> Result<Refundable, NoRefund>;

    /// See [`Settle::refund`].
    async fn refund(&self, key: &RefundKey, order: &RefundOrder) -> Refunded;

    /// See [`Settle::look_up_refund`].
    async fn look_up_refund(&self, key: &RefundKey, order: &RefundOrder) -> Refunded;

    /// See [`Settle::reread_refund`].
    async fn reread_refund(&self, order: &RefundOrder, refund: &str) -> Refunded;
}

#[async_trait]
impl<S: Settle> Settler for S {
    async fn settle(&self, key: &IdempotencyKey, order: &StoredOrder) -> Outcome {
        match serde_json::from_str(&order.0) {
            Ok(order) => Settle::settle(self, key, &order).await,
            // Written by another version: nobody knows what it meant, so nobody may decide.
            Err(_) => Outcome::Unknown,
        }
    }

    async fn lookup(&self, key: &IdempotencyKey, order: &StoredOrder) -> Outcome {
        match serde_json::from_str(&order.0) {
            Ok(order) => Settle::lookup(self, key, &order).await,
            Err(_) => Outcome::Unknown,
        }
    }

    async fn look_at(&self, key: &IdempotencyKey, order: &StoredOrder, reference: &str) -> Outcome {
        match serde_json::from_str(&order.0) {
            Ok(order) => Settle::look_at(self, key, &order, reference).await,
            Err(_) => Outcome::Unknown,
        }
    }

    fn name_payment(&self, reference: &str) -> Result<PaymentName, Misnamed> {
        Settle::name_payment(self, reference)
    }

    async fn refundable(&self, reference: &str) -> Result<Refundable, NoRefund> {
        Settle::refundable(self, reference).await
    }

    async fn refund(&self, key: &RefundKey, order: &RefundOrder) -> Refunded {
        Settle::refund(self, key, order).await
    }

    async fn look_up_refund(&self, key: &RefundKey, order: &RefundOrder) -> Refunded {
        Settle::look_up_refund(self, key, order).await
    }

    async fn reread_refund(&self, order: &RefundOrder, refund: &str) -> Refunded {
        Settle::reread_refund(self, order, refund).await
    }
}
