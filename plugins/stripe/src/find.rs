//! Finding a PaymentIntent when the call that made it does not tell.

use farebox_core::{Outcome, Rejection};
use farebox_wire::Problem;
use reqwest::StatusCode;
use serde_json::Value;
use stripe_client_core::{RequestBuilder, StripeMethod, StripeRequest as _};
use stripe_core::payment_intent::{RetrievePaymentIntent, SearchPaymentIntent};
use tracing::error;

use crate::{
    api::{Answer, Hit, Intent, Page},
    order::Order,
    outcome::{Verdict, judge_intent, unanswered, unexpected},
    settle::StripeSettler,
};

impl StripeSettler {
    /// What became of the order, by what the account holds. Before it is `conclusive`, a call may be
    /// under way or the index behind, so that only a success is final.
    pub(crate) async fn find(&self, order: &Order, conclusive: bool) -> Outcome {
        let Some(ids) = self.search(order).await else {
            return Outcome::Unknown;
        };
        let mut declined = None;
        let mut open = false;
        for id in &ids {
            let outcome = match self.read(id, order).await {
                Verdict::Known(outcome @ Outcome::Settled { .. }) => outcome,
                verdict if conclusive => self.resolve(verdict, order).await,
                _ => Outcome::Unknown,
            };
            match outcome {
                Outcome::Settled { .. } => return outcome,
                Outcome::Declined(rejection) => declined = Some(rejection),
                Outcome::Unknown => open = true,
            }
        }
        match declined {
            Some(rejection) if !open => Outcome::Declined(rejection),
            None if ids.is_empty() && conclusive => self.by_token(order).await,
            _ => Outcome::Unknown,
        }
    }

    /// How a PaymentIntent stands now.
    pub(crate) async fn read(&self, id: &str, order: &Order) -> Verdict {
        const WHAT: &str = "reading a PaymentIntent";
        let request = RetrievePaymentIntent::new(id).build();
        match self.send(request, order).await {
            Ok(answer) if answer.status.is_success() => match answer.read::<Intent>() {
                Ok(intent) if intent.id == id => judge_intent(&intent, order),
                _ => unexpected(WHAT, &answer),
            },
            Ok(answer) => unexpected(WHAT, &answer),
            Err(lost) => unanswered(WHAT, &lost),
        }
    }

    /// The PaymentIntents of this challenge, `None` if Stripe does not say. Only their ids: the index
    /// shows what they were when it last looked.
    async fn search(&self, order: &Order) -> Option<Vec<String>> {
        const WHAT: &str = "searching for a PaymentIntent";
        let challenge = &order.challenge;
        if !challenge
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        {
            // It would have to be quoted, and no engine makes such an id.
            return None;
        }
        let query = format!("metadata['mpp_challenge_id']:'{challenge}'");
        let request = SearchPaymentIntent::new(query).build();
        let answer = match self.send(request, order).await {
            Ok(answer) => answer,
            Err(lost) => {
                unanswered(WHAT, &lost);
                return None;
            }
        };
        match answer.read::<Page<Hit>>() {
            Ok(page) if answer.status.is_success() && !page.has_more => {
                Some(page.data.into_iter().map(|hit| hit.id).collect())
            }
            _ => {
                unexpected(WHAT, &answer);
                None
            }
        }
    }

    /// No PaymentIntent is to be found. A token of which nothing was captured proves that there is
    /// none that succeeded.
    async fn by_token(&self, order: &Order) -> Outcome {
        let path = format!("/shared_payment/granted_tokens/{}", order.token.expose());
        let request = RequestBuilder::new(StripeMethod::Get, path);
        let answer = match self.send(request, order).await {
            Ok(answer) => answer,
            Err(lost) => {
                unanswered("reading a token", &lost);
                return Outcome::Unknown;
            }
        };
        let missing = answer.status == StatusCode::NOT_FOUND
            && answer.error().code.as_deref() == Some("resource_missing");
        if missing || says_unused(&answer) {
            let detail = "the token was not charged before the challenge lapsed";
            return Outcome::Declined(Rejection::new(Problem::PaymentExpired, detail));
        }
        error!(
            challenge = order.challenge,
            request_id = answer.request_id,
            "a token was used or does not tell, and no PaymentIntent of its challenge is found; \
             see the account"
        );
        Outcome::Unknown
    }
}

/// Whether it is a token that says it is unused. One that does not say, or ended for a reason that is
/// not known here, may have been used; and one with a higher limit than the price is not `consumed`
/// by its charge, so that only what was captured tells.
fn says_unused(answer: &Answer) -> bool {
    if !answer.status.is_success() {
        return false;
    }
    let Ok(token) = answer.read::<Value>() else {
        return false;
    };
    let ended_unused = match token.get("deactivated_reason") {
        Some(Value::Null) => true,
        Some(Value::String(reason)) => matches!(reason.as_str(), "expired" | "revoked"),
        _ => false,
    };
    let captured = token.pointer("/usage_details/amount_captured/value");
    ended_unused && captured.and_then(Value::as_u64) == Some(0)
}
