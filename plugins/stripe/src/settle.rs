//! Moving the money: a token becomes a PaymentIntent.

use std::{
    collections::BTreeMap,
    fmt,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use farebox_core::{IdempotencyKey, Outcome, Rejection, Settle};
use farebox_wire::Problem;
use reqwest::StatusCode;
use serde::{Deserialize, Serialize};
use stripe_client_core::{RequestBuilder, StripeMethod, StripeRequest as _};
use stripe_core::payment_intent::{
    CancelPaymentIntent, CreatePaymentIntent, CreatePaymentIntentAutomaticPaymentMethods,
    CreatePaymentIntentAutomaticPaymentMethodsAllowRedirects, RetrievePaymentIntent,
    SearchPaymentIntent,
};
use stripe_shared::PaymentIntentStatus;
use tracing::error;

use crate::{
    api::{Api, Intent, Page},
    outcome::{Verdict, action_required, judge, judge_intent, unanswered, unexpected},
    token::{SharedPaymentToken, TokenParameter},
};

/// Pauses before another call under the same key, after 409 and 429.
const PAUSES: [Duration; 2] = [Duration::from_millis(250), Duration::from_millis(750)];
/// Stripe keeps an idempotency key for at least 24 hours. An hour less, and a key that we use is
/// never one that Stripe has forgotten.
const KEY_LIFE: i64 = 23 * 3600;
/// How far Stripe's search may lag behind in an outage (docs.stripe.com/search). No call of ours is
/// under way for that long either.
const SEARCH_LAG: i64 = 3600;

/// All that is needed to charge a token, and to find out later whether it was charged.
#[derive(Clone, Serialize, Deserialize)]
pub struct Order {
    pub(crate) challenge: String,
    /// Unix seconds. When the challenge lapses, and with it the right to begin.
    pub(crate) expires: Option<i64>,
    /// Unix seconds.
    pub(crate) created: i64,
    pub(crate) amount: i64,
    pub(crate) currency: String,
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) token: SharedPaymentToken,
    /// Kept with the order: a key allows one set of parameters, also after a change of configuration.
    pub(crate) token_parameter: TokenParameter,
}

impl fmt::Debug for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Order")
            .field("amount", &self.amount)
            .field("currency", &self.currency)
            .finish_non_exhaustive()
    }
}

impl Order {
    /// `POST /v1/payment_intents`. The same order gives the same parameters.
    pub(crate) fn request(&self) -> RequestBuilder {
        use CreatePaymentIntentAutomaticPaymentMethodsAllowRedirects::Never;
        let currency: stripe_types::Currency = match self.currency.parse() {
            Ok(currency) => currency,
            Err(never) => match never {},
        };
        let mut methods = CreatePaymentIntentAutomaticPaymentMethods::new(true);
        methods.allow_redirects = Some(Never);
        let metadata: std::collections::HashMap<_, _> = self.metadata.clone().into_iter().collect();
        let mut request = CreatePaymentIntent::new(self.amount, currency)
            .confirm(true)
            .automatic_payment_methods(methods)
            .metadata(metadata)
            .build();
        // The one parameter that async-stripe does not know. The token's alphabet needs no escapes.
        let body = request.body.get_or_insert_default();
        for part in ["&", self.token_parameter.field(), "=", self.token.expose()] {
            body.push_str(part);
        }
        request
    }

    /// Until when the PaymentIntent may be asked for: while the challenge stands, so that nobody is
    /// charged who has long given up, and while Stripe certainly remembers the key.
    fn attempt_until(&self) -> i64 {
        let forgotten = self.created.saturating_add(KEY_LIFE);
        self.expires
            .map_or(forgotten, |expires| expires.min(forgotten))
    }

    /// From when on a charge that cannot be found does not exist.
    fn conclusive_from(&self) -> i64 {
        self.attempt_until().saturating_add(SEARCH_LAG)
    }
}

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
            let answer = match self.api.send(order.request(), Some(key.as_str())).await {
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

fn unix_now() -> i64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn order() -> Order {
        Order {
            challenge: "c-1_A".to_owned(),
            expires: Some(1_300),
            created: 1_000,
            amount: 50,
            currency: "usd".to_owned(),
            metadata: BTreeMap::from([("order".to_owned(), "a b&c=d".to_owned())]),
            token: SharedPaymentToken::new("spt_secret"),
            token_parameter: TokenParameter::TopLevel,
        }
    }

    fn form(order: &Order) -> BTreeMap<String, String> {
        let body = order.request().body.unwrap();
        url::form_urlencoded::parse(body.as_bytes())
            .into_owned()
            .collect()
    }

    #[test]
    fn the_order_fixes_the_parameters() {
        let expected: BTreeMap<String, String> = [
            ("amount", "50"),
            ("currency", "usd"),
            ("confirm", "true"),
            ("automatic_payment_methods[enabled]", "true"),
            ("automatic_payment_methods[allow_redirects]", "never"),
            ("metadata[order]", "a b&c=d"),
            ("shared_payment_granted_token", "spt_secret"),
        ]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .into();
        assert_eq!(form(&order()), expected);

        let nested = Order {
            token_parameter: TokenParameter::PaymentMethodData,
            ..order()
        };
        assert_eq!(
            form(&nested)["payment_method_data[shared_payment_granted_token]"],
            "spt_secret"
        );

        let request = order().request();
        assert_eq!(
            (request.path.as_str(), request.query),
            ("/payment_intents", None)
        );
    }

    /// Protects: an order from the store is the order that was put there, and logs do not show it.
    #[test]
    fn orders_survive_the_store_and_stay_out_of_logs() {
        let text = serde_json::to_string(&order()).unwrap();
        let back: Order = serde_json::from_str(&text).unwrap();
        assert_eq!(form(&back), form(&order()));
        assert!(!format!("{:?}", order()).contains("secret"));
    }

    /// Protects: no charge begins after the challenge, nor under a key that Stripe may have forgotten.
    #[test]
    fn attempts_end_with_the_challenge_and_with_the_key() {
        assert_eq!(order().attempt_until(), 1_300);
        let long = Order {
            expires: Some(1_000 + 7 * 86_400),
            ..order()
        };
        assert_eq!(long.attempt_until(), 1_000 + KEY_LIFE);
        assert_eq!(long.conclusive_from(), 1_000 + KEY_LIFE + SEARCH_LAG);
        assert_eq!(
            Order {
                expires: None,
                ..order()
            }
            .attempt_until(),
            1_000 + KEY_LIFE
        );
    }
}
