//! What is written down before a token is charged.

use std::{
    collections::BTreeMap,
    fmt,
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};
use stripe_client_core::{RequestBuilder, StripeRequest as _};
use stripe_core::payment_intent::{
    CreatePaymentIntent, CreatePaymentIntentAutomaticPaymentMethods,
    CreatePaymentIntentAutomaticPaymentMethodsAllowRedirects,
};

use crate::{
    connect::Settlement,
    token::{SharedPaymentToken, TokenParameter},
};

/// Stripe keeps an idempotency key for at least 24 hours. An hour less, and a key that we use is
/// never one that Stripe has forgotten.
pub(crate) const KEY_LIFE: i64 = 23 * 3600;
/// How long the first call may come after the order was written down. The engine's writes in between
/// take seconds.
pub(crate) const DELAY: i64 = 300;
/// How far Stripe's search may lag behind in an outage (docs.stripe.com/search). No call of ours is
/// under way for that long either.
pub(crate) const SEARCH_LAG: i64 = 3600;

/// All that is needed to charge a token, and to find out later whether it was charged.
#[derive(Clone, Serialize, Deserialize)]
pub struct Order {
    pub(crate) challenge: String,
    /// Unix seconds. When the challenge lapses, and with it the right to begin.
    pub(crate) expires: Option<i64>,
    /// Unix seconds. When it was written down, right before the first attempt.
    pub(crate) created: i64,
    pub(crate) amount: i64,
    pub(crate) currency: String,
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) token: SharedPaymentToken,
    /// With the version below kept here, because a key allows one call only, also after a change of
    /// configuration.
    pub(crate) token_parameter: TokenParameter,
    /// The `Stripe-Version` of the call.
    pub(crate) api_version: String,
    /// What goes to connected accounts.
    #[serde(default)]
    pub(crate) settlement: Settlement,
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
        let request = CreatePaymentIntent::new(self.amount, currency)
            .confirm(true)
            .automatic_payment_methods(methods)
            .metadata(metadata);
        let mut request = self.settlement.apply(request).build();
        // The one parameter that async-stripe does not know. The token's alphabet needs no escapes.
        let body = request.body.get_or_insert_default();
        for part in ["&", self.token_parameter.field(), "=", self.token.expose()] {
            body.push_str(part);
        }
        request
    }

    /// Until when a lookup may ask for the PaymentIntent: while the challenge stands, so that nobody
    /// is charged who has long given up, and while Stripe certainly remembers the key.
    pub(crate) fn attempt_until(&self) -> i64 {
        let forgotten = self.created.saturating_add(KEY_LIFE);
        self.expires
            .map_or(forgotten, |expires| expires.min(forgotten))
    }

    /// Until when the first call may be made. A payer whom an outage of ours held up is judged as of
    /// when they came, so this can be after the challenge.
    pub(crate) fn begin_until(&self) -> i64 {
        self.attempt_until().max(self.created.saturating_add(DELAY))
    }

    /// From when on no call can be under way, and a charge that cannot be found does not exist.
    pub(crate) fn conclusive_from(&self) -> i64 {
        self.begin_until().saturating_add(SEARCH_LAG)
    }
}

/// The system's clock, Unix seconds: Stripe's periods run by it, and not by the engine's.
pub(crate) fn unix_now() -> i64 {
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
            api_version: "2026-07-29.preview".to_owned(),
            settlement: Settlement::default(),
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
        // Held up until after the challenge: the first call may still be under way.
        let late = Order {
            expires: Some(1_000 - 7_200),
            ..order()
        };
        assert!(late.attempt_until() < 1_000);
        assert_eq!(late.conclusive_from(), 1_000 + DELAY + SEARCH_LAG);
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
