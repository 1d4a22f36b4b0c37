//! Moving the money: a token becomes a PaymentIntent.

use std::{sync::Arc, time::Duration};

use farebox_core::{
    IdempotencyKey, Misnamed, NoRefund, Outcome, PaymentName, RefundKey, RefundOrder, Refundable,
    Refunded, Rejection, Settle,
};
use reqwest::StatusCode;
use stripe_client_core::{RequestBuilder, StripeRequest as _};
use stripe_core::payment_intent::CancelPaymentIntent;
use stripe_shared::PaymentIntentStatus;

use crate::{
    api::{Answer, Api, Intent, NoAnswer},
    order::{Order, unix_now},
    outcome::{Asked, Verdict, judge, judge_intent, unanswered},
    refund::{RefundPolicy, Spelled},
};

/// Pauses before another call under the same key, after 409 and 429.
pub(crate) const PAUSES: [Duration; 2] = [Duration::from_millis(250), Duration::from_millis(750)];

/// Charges tokens.
#[derive(Clone, Debug)]
pub struct StripeSettler {
    pub(crate) api: Arc<Api>,
    /// The connected account that charges, if it is always the same one.
    pub(crate) account: Option<String>,
    pub(crate) refunds: RefundPolicy,
}

impl Settle for StripeSettler {
    type Order = Order;

    /// An answer may be marked `Idempotent-Replayed`: after a pause within this call, or because a
    /// process died between the charge and its record. Elsewhere a replay is taken for an attempt to
    /// be served twice, but here the engine has claimed challenge and token before it calls, at
    /// most once. So a replayed success is the truth about this very challenge, and refusing it
    /// would keep the money and serve nothing. What it must not be is a success of another
    /// challenge; the metadata says of which one it is. Nor of another order for this challenge, as
    /// a store that lost a payment would have it: a PaymentIntent that is older than the order was
    /// served for before, so it is refused here. A lookup takes every success for the truth.
    ///
    /// The key is made of the challenge alone. The draft suggests challenge and token, but then a
    /// token minted anew for the same challenge would be a second charge.
    async fn settle(&self, key: &IdempotencyKey, order: &Order) -> Outcome {
        if unix_now() >= order.begin_until() {
            // Found on record long after. Stripe may have forgotten the key by now.
            return self.lookup(key, order).await;
        }
        let verdict = self.attempt(key, order, Asked::First).await;
        self.resolve(verdict, order).await
    }

    /// Asks for the same PaymentIntent under the same key, and looks for it if that does not tell.
    ///
    /// This cannot charge twice. While Stripe remembers the key (a day at least; asked for less
    /// long here) it repeats its first answer and refuses other parameters. Were the key forgotten
    /// nevertheless, a token for the price alone is consumed by the first charge. And if the first
    /// call never arrived, this one is the first.
    ///
    /// Repeating does not always tell. Stripe also repeats a 500, and a `processing` of long ago; it
    /// may refuse this call before it looks at the key, after an upgrade on either side; and it may
    /// still be at work on the first call. Then the PaymentIntent itself is read, found by its id or
    /// by the challenge in its metadata. Until no call can be under way any more, only its success is
    /// believed. It was not made if by then it cannot be found and the token is unused.
    async fn lookup(&self, key: &IdempotencyKey, order: &Order) -> Outcome {
        let now = unix_now();
        if now < order.attempt_until() {
            match self.attempt(key, order, Asked::Again).await {
                Verdict::Unclear => {}
                Verdict::Pending(id) => {
                    let current = self.read(&id, order).await;
                    return self.resolve(current, order).await;
                }
                told => return self.resolve(told, order).await,
            }
        }
        self.find(order, now >= order.conclusive_from()).await
    }

    /// The PaymentIntent by its name, before anything that has to search for it.
    async fn look_at(&self, key: &IdempotencyKey, order: &Order, reference: &str) -> Outcome {
        let named = reference.strip_prefix("pi_").is_some_and(|id| {
            let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
            !id.is_empty() && id.bytes().all(word)
        });
        if named
            && let Verdict::Known(paid @ Outcome::Settled { .. }) =
                self.read(reference, order).await
        {
            return paid;
        }
        self.lookup(key, order).await
    }

    fn name_payment(&self, reference: &str) -> Result<PaymentName, Misnamed> {
        Spelled::name(reference)
    }

    async fn refundable(&self, reference: &str) -> Result<Refundable, NoRefund> {
        self.what_to_refund(reference).await
    }

    async fn refund(&self, key: &RefundKey, order: &RefundOrder) -> Refunded {
        self.give_back(key, order).await
    }

    async fn look_up_refund(&self, key: &RefundKey, order: &RefundOrder) -> Refunded {
        self.find_refund(key, order).await
    }

    async fn reread_refund(&self, order: &RefundOrder, refund: &str) -> Refunded {
        self.reread(order, refund).await
    }
}

impl StripeSettler {
    /// Asks where the order's charge is.
    pub(crate) async fn send(
        &self,
        request: RequestBuilder,
        order: &Order,
    ) -> Result<Answer, NoAnswer> {
        let account = order.settlement.account.as_deref();
        self.api.send(request, account).await
    }

    async fn attempt(&self, key: &IdempotencyKey, order: &Order, mut asked: Asked) -> Verdict {
        let mut pauses = PAUSES.iter();
        loop {
            let call = self.api.charge(order, key.as_str());
            let answer = match call.await {
                Ok(answer) => answer,
                Err(lost) => return unanswered("charging a token", &lost),
            };
            let status = answer.status;
            if status == StatusCode::CONFLICT {
                // Whatever is under way may be a call with this key.
                asked = Asked::Again;
            }
            let busy = matches!(status, StatusCode::CONFLICT | StatusCode::TOO_MANY_REQUESTS);
            match pauses.next().filter(|_| busy) {
                Some(pause) => tokio::time::sleep(*pause).await,
                None => return judge(&answer, order, asked),
            }
        }
    }

    /// What a verdict comes to. An open PaymentIntent is ended.
    pub(crate) async fn resolve(&self, verdict: Verdict, order: &Order) -> Outcome {
        match verdict {
            Verdict::Known(outcome) => outcome,
            Verdict::Open(id, rejection) => self.cancel(&id, rejection, order).await,
            Verdict::Pending(_) | Verdict::Unclear => Outcome::Unknown,
        }
    }

    /// Nobody can complete it, so it is ended for good: an open PaymentIntent could still be paid.
    async fn cancel(&self, id: &str, rejection: Rejection, order: &Order) -> Outcome {
        let request = CancelPaymentIntent::new(id).build();
        let answer = match self.send(request, order).await {
            Ok(answer) => answer,
            Err(lost) => {
                unanswered("cancelling a PaymentIntent", &lost);
                return Outcome::Unknown;
            }
        };
        // Cancelled before, or paid meanwhile: then the error shows the PaymentIntent.
        let intent = if answer.status.is_success() {
            answer.read::<Intent>().ok()
        } else {
            answer.error().payment_intent
        };
        match intent.filter(|intent| intent.id == id) {
            Some(intent) if intent.status() == PaymentIntentStatus::Canceled => {
                Outcome::Declined(rejection)
            }
            Some(intent) => match judge_intent(&intent, order) {
                Verdict::Known(outcome @ Outcome::Settled { .. }) => outcome,
                _ => Outcome::Unknown,
            },
            None => Outcome::Unknown,
        }
    }
}
