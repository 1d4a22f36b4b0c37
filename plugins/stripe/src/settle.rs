//! Moving the money: a token becomes a PaymentIntent.

use std::{sync::Arc, time::Duration};

use farebox_core::{IdempotencyKey, Outcome, Rejection, Settle};
use farebox_wire::Problem;
use reqwest::StatusCode;
use serde::Deserialize;
use stripe_client_core::{RequestBuilder, StripeMethod, StripeRequest as _};
use stripe_core::payment_intent::{
    CancelPaymentIntent, RetrievePaymentIntent, SearchPaymentIntent,
};
use stripe_shared::PaymentIntentStatus;
use tracing::error;

use crate::{
    api::{Api, Intent, Page},
    order::{Order, unix_now},
    outcome::{Verdict, action_required, judge, judge_intent, unanswered, unexpected},
};

/// Pauses before another call under the same key, after 409 and 429.
const PAUSES: [Duration; 2] = [Duration::from_millis(250), Duration::from_millis(750)];

/// Charges tokens.
#[derive(Clone, Debug)]
pub struct StripeSettler {
    pub(crate) api: Arc<Api>,
}

impl Settle for StripeSettler {
    type Order = Order;

    /// An answer may be marked `Idempotent-Replayed`: after a pause within this call, or because a
    /// process died between the charge and its record. Elsewhere a replay is taken for an attempt to
    /// be served twice, but here the engine has claimed challenge and token before it calls, at
    /// most once. So a replayed success is the truth about this very challenge, and refusing it
    /// would keep the money and serve nothing. What it must not be is a success of another
    /// challenge; the metadata says of which one it is.
    ///
    /// The key is made of the challenge alone. The draft suggests challenge and token, but then a
    /// token minted anew for the same challenge would be a second charge.
    async fn settle(&self, key: &IdempotencyKey, order: &Order) -> Outcome {
        if unix_now() >= order.begin_until() {
            // Found on record long after. Stripe may have forgotten the key by now.
            return self.lookup(key, order).await;
        }
        match self.attempt(key, order).await {
            Verdict::Known(outcome) => outcome,
            Verdict::Action(id) => self.cancel(&id, order).await,
            Verdict::Pending(_) | Verdict::Unclear => Outcome::Unknown,
        }
    }

    /// Asks for the same PaymentIntent under the same key, and looks for it if that does not tell.
    ///
    /// This cannot charge twice. While Stripe remembers the key (a day at least; asked for less
    /// long here) it repeats its first answer and refuses other parameters, which cannot differ
    /// either, since the order fixes them. Were the key forgotten nevertheless, the token is
    /// consumed by the first charge. And if the first call never arrived, this one is the first.
    ///
    /// Repeating does not always tell: Stripe also repeats a 500, and a `processing` of long ago.
    /// Then the PaymentIntent itself is read, by its id or by the challenge in its metadata. It was
    /// not made if it cannot be found, nobody may ask for it any more, the search index must have
    /// caught up, and the token is not consumed.
    async fn lookup(&self, key: &IdempotencyKey, order: &Order) -> Outcome {
        let now = unix_now();
        if now < order.attempt_until() {
            match self.attempt(key, order).await {
                Verdict::Known(outcome) => return outcome,
                Verdict::Action(id) => return self.cancel(&id, order).await,
                Verdict::Pending(id) => return self.current(&id, order).await,
                Verdict::Unclear => {}
            }
        }
        match self.search(order).await {
            Some(Verdict::Known(outcome)) => outcome,
            Some(Verdict::Action(id)) => self.cancel(&id, order).await,
            Some(Verdict::Pending(_) | Verdict::Unclear) => Outcome::Unknown,
            None if now < order.conclusive_from() => Outcome::Unknown,
            None => self.by_token(order).await,
        }
    }
}

impl StripeSettler {
    async fn attempt(&self, key: &IdempotencyKey, order: &Order) -> Verdict {
        let mut pauses = PAUSES.iter();
        loop {
            let answer = match self.api.charge(order, key.as_str()).await {
                Ok(answer) => answer,
                Err(lost) => return unanswered("charging a token", &lost),
            };
            let busy = matches!(answer.status.as_u16(), 409 | 429);
            match pauses.next().filter(|_| busy) {
                Some(pause) => tokio::time::sleep(*pause).await,
                None => return judge(&answer, order),
            }
        }
    }

    /// Nobody can complete it, so it is ended for good: an open PaymentIntent could still be paid.
    async fn cancel(&self, id: &str, order: &Order) -> Outcome {
        let answer = match self
            .api
            .send(CancelPaymentIntent::new(id).build(), None)
            .await
        {
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
        match intent {
            Some(intent) if intent.status() == PaymentIntentStatus::Canceled => {
                Outcome::Declined(action_required())
            }
            Some(intent) => match judge_intent(&intent, order) {
                Verdict::Known(outcome @ Outcome::Settled { .. }) => outcome,
                _ => Outcome::Unknown,
            },
            None => Outcome::Unknown,
        }
    }

    /// How a PaymentIntent stands now.
    async fn current(&self, id: &str, order: &Order) -> Outcome {
        match self
            .api
            .send(RetrievePaymentIntent::new(id).build(), None)
            .await
        {
            Ok(answer) if answer.status.is_success() => match judge(&answer, order) {
                Verdict::Known(outcome) => outcome,
                Verdict::Action(id) => self.cancel(&id, order).await,
                Verdict::Pending(_) | Verdict::Unclear => Outcome::Unknown,
            },
            Ok(answer) => {
                unexpected("reading a PaymentIntent", &answer);
                Outcome::Unknown
            }
            Err(lost) => {
                unanswered("reading a PaymentIntent", &lost);
                Outcome::Unknown
            }
        }
    }

    /// What the PaymentIntent of this challenge says; `None` if there is none to be found.
    async fn search(&self, order: &Order) -> Option<Verdict> {
        let id = &order.challenge;
        if !id
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        {
            // It would have to be quoted, and no engine makes such an id.
            return Some(Verdict::Unclear);
        }
        let query = format!("metadata['mpp_challenge_id']:'{id}'");
        let answer = match self
            .api
            .send(SearchPaymentIntent::new(query).build(), None)
            .await
        {
            Ok(answer) if answer.status.is_success() => answer,
            Ok(answer) => return Some(unexpected("searching for a PaymentIntent", &answer)),
            Err(lost) => return Some(unanswered("searching for a PaymentIntent", &lost)),
        };
        let Ok(page) = answer.read::<Page<Intent>>() else {
            return Some(unexpected("searching for a PaymentIntent", &answer));
        };
        let succeeded = page
            .data
            .iter()
            .find(|intent| intent.status() == PaymentIntentStatus::Succeeded);
        succeeded
            .or(page.data.first())
            .map(|intent| judge_intent(intent, order))
    }

    /// No PaymentIntent is to be found. A token that is not consumed proves that there is none.
    async fn by_token(&self, order: &Order) -> Outcome {
        #[derive(Deserialize)]
        struct Token {
            deactivated_reason: Option<String>,
        }
        let path = format!("/shared_payment/granted_tokens/{}", order.token.expose());
        let answer = match self
            .api
            .send(RequestBuilder::new(StripeMethod::Get, path), None)
            .await
        {
            Ok(answer) => answer,
            Err(lost) => {
                unanswered("reading a token", &lost);
                return Outcome::Unknown;
            }
        };
        let missing = answer.status == StatusCode::NOT_FOUND
            && answer.error().code.as_deref() == Some("resource_missing");
        let unused = answer.status.is_success()
            && answer
                .read::<Token>()
                .is_ok_and(|token| token.deactivated_reason.as_deref() != Some("consumed"));
        if missing || unused {
            let detail = "the token was not charged before the challenge lapsed";
            return Outcome::Declined(Rejection::new(Problem::PaymentExpired, detail));
        }
        error!(
            challenge = order.challenge,
            request_id = answer.request_id,
            "a token is consumed or cannot be read, and no PaymentIntent of its challenge is found; \
             see the account"
        );
        Outcome::Unknown
    }
}
