//! Giving money back: refunds of PaymentIntents.

use std::time::Duration;

use farebox_core::{
    Misnamed, NoRefund, PaymentName, RefundKey, RefundOrder, Refundable, Refunded, wire::Amount,
};
use reqwest::StatusCode;
use serde::{Deserialize, Serialize};
use stripe_client_core::{RequestBuilder, StripeMethod, StripeRequest as _};
use stripe_core::payment_intent::RetrievePaymentIntent;
use stripe_shared::PaymentIntentStatus;
use tracing::warn;

use crate::{
    METHOD,
    api::{Answer, Intent, NoAnswer, Page},
    currency::Currency,
    order::{DELAY, KEY_LIFE, SEARCH_LAG, unix_now},
    outcome::Asked,
    settle::{PAUSES, StripeSettler},
};

/// A payment as an operator may spell it.
pub(crate) struct Spelled<'a> {
    account: Option<&'a str>,
    id: &'a str,
}

impl<'a> Spelled<'a> {
    fn read(reference: &'a str) -> Result<Self, Misnamed> {
        let (account, id) = match reference.split_once('/') {
            Some((account, id)) => (Some(account), id),
            None => (None, reference),
        };
        let word = |text: &str, prefix: &str| {
            let rest = text.strip_prefix(prefix).unwrap_or_default();
            !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        };
        if account.is_some_and(|account| !word(account, "acct_")) {
            let why = "has something else than a connected account, acct_…, before the slash";
            return Err(Misnamed(why.to_owned()));
        }
        if !word(id, "pi_") {
            let why = "is no payment of Stripe's: give its PaymentIntent, pi_…, as on the receipt; \
                       or acct_…/pi_… where another connected account charged";
            return Err(Misnamed(why.to_owned()));
        }
        Ok(Self { account, id })
    }

    /// An id is one PaymentIntent's, whichever account and key it is read with.
    pub(crate) fn name(reference: &'a str) -> Result<PaymentName, Misnamed> {
        Self::read(reference).map(|spelled| PaymentName::at(METHOD, spelled.id))
    }
}

/// What goes with the refunds of a charge over Connect. Stripe does neither unless told, so that a
/// refund comes out of the platform's own balance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct RefundPolicy {
    /// `refund_application_fee`: the platform gives its fee back, in proportion.
    #[serde(default)]
    pub application_fee: bool,
    /// `reverse_transfer`: the money comes back from the account it went on to, in proportion.
    #[serde(default)]
    pub reverse_transfer: bool,
}

impl RefundPolicy {
    /// With the platform's fee given back.
    #[must_use]
    pub fn application_fee(mut self) -> Self {
        self.application_fee = true;
        self
    }

    /// With the transfer taken back.
    #[must_use]
    pub fn reverse_transfer(mut self) -> Self {
        self.reverse_transfer = true;
        self
    }
}

/// What is stored with an order: a key allows one set of parameters only, also after a change of
/// configuration.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Terms {
    payment_intent: String,
    api_version: String,
    /// The connected account that charged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    account: Option<String>,
    #[serde(default)]
    refund_application_fee: bool,
    #[serde(default)]
    reverse_transfer: bool,
}

/// What is used of a refund.
#[derive(Debug, Deserialize)]
struct Refund {
    id: String,
    amount: u64,
    payment_intent: Option<String>,
    status: Option<String>,
    failure_reason: Option<String>,
    #[serde(default)]
    metadata: serde_json::Value,
}

impl Refund {
    /// Whether its amount is gone from the charge, or is about to be.
    fn counts(&self) -> bool {
        !matches!(self.status.as_deref(), Some("failed" | "canceled"))
    }
}

/// The member of a refund's metadata that says which of ours it is.
const KEY: &str = "farebox_refund";

/// What an answer says of a refund.
enum Told {
    Known(Refunded),
    /// The call is over, and broke on Stripe's side.
    Broke,
    Unclear,
}

impl StripeSettler {
    /// A payment by its receipt's reference, `pi_…`; `acct_…/pi_…` where another connected account
    /// charged than the policy names now.
    pub(crate) async fn what_to_refund(&self, reference: &str) -> Result<Refundable, NoRefund> {
        let spelled = Spelled::read(reference).map_err(|_| NoRefund::NoSuchPayment)?;
        let account = spelled.account.map(str::to_owned);
        let account = account.or_else(|| self.account.clone());
        let id = spelled.id;
        let account = account.as_deref();
        let request = RetrievePaymentIntent::new(id).build();
        let answer = self.api.send(request, account).await.map_err(away)?;
        if answer.status == StatusCode::NOT_FOUND {
            return Err(NoRefund::NoSuchPayment);
        }
        let intent: Intent = read(&answer, "reading a PaymentIntent")?;
        let Some(challenge) = intent.metadata("mpp_challenge_id").map(str::to_owned) else {
            let why = "the PaymentIntent is no machine payment; refund it in Stripe's dashboard";
            return Err(NoRefund::Refused(why.to_owned()));
        };
        if intent.status() != PaymentIntentStatus::Succeeded {
            let why = "the PaymentIntent did not succeed, so that there is nothing to give back";
            return Err(NoRefund::Refused(why.to_owned()));
        }
        let currency = Currency::parse(&intent.currency).map_err(NoRefund::Refused)?;
        let given = self.list(id, account).await.map_err(away)?;
        let given: Page<Refund> = read(&given, "listing refunds")?;
        if given.has_more {
            let why = "it has more refunds than can be counted here; refund it in the dashboard";
            return Err(NoRefund::Refused(why.to_owned()));
        }
        let refunded = given.data.iter().filter(|refund| refund.counts());
        let terms = Terms {
            payment_intent: id.to_owned(),
            api_version: self.api.version().to_owned(),
            account: account.map(str::to_owned),
            refund_application_fee: self.refunds.application_fee && intent.has_fee(),
            reverse_transfer: self.refunds.reverse_transfer && intent.has_transfer(),
        };
        Ok(Refundable {
            charged: Amount::new(u128::from(intent.amount)),
            refunded: Amount::new(refunded.map(|refund| u128::from(refund.amount)).sum()),
            currency: currency.code().to_owned(),
            decimals: currency.exponent(),
            challenge: Some(challenge),
            terms: serde_json::to_value(terms).map_err(|e| {
                farebox_core::Fault::new("serialising a refund's terms").caused_by(e)
            })?,
        })
    }

    pub(crate) async fn give_back(&self, key: &RefundKey, order: &RefundOrder) -> Refunded {
        if unix_now() >= order.created.saturating_add(DELAY) {
            // Found on record long after.
            return self.find_refund(key, order).await;
        }
        match self.ask(key, order, Asked::First).await {
            Told::Known(refunded) => refunded,
            Told::Broke | Told::Unclear => Refunded::Unknown,
        }
    }

    /// Asks for the same refund under the same key, and lists the payment's refunds if that does not
    /// tell. While Stripe remembers the key it repeats its first answer; and if the first call never
    /// arrived, this one is the first.
    pub(crate) async fn find_refund(&self, key: &RefundKey, order: &RefundOrder) -> Refunded {
        let now = unix_now();
        let mut conclusive_from = order.created.saturating_add(KEY_LIFE + SEARCH_LAG);
        if now < order.created.saturating_add(KEY_LIFE) {
            match self.ask(key, order, Asked::Again).await {
                Told::Known(refunded @ Refunded::Done { .. }) => return refunded,
                Told::Broke => conclusive_from = order.created.saturating_add(DELAY + SEARCH_LAG),
                Told::Known(_) | Told::Unclear => {}
            }
        }
        let Ok(terms) = serde_json::from_value::<Terms>(order.terms.clone()) else {
            return Refunded::Unknown;
        };
        let listed = self.list(&terms.payment_intent, terms.account.as_deref());
        let listed = match listed.await {
            Ok(answer) => read::<Page<Refund>>(&answer, "listing refunds"),
            Err(lost) => {
                warn!(error = %lost, "no answer while listing refunds");
                return Refunded::Unknown;
            }
        };
        let Ok(listed) = listed else {
            return Refunded::Unknown;
        };
        let ours = |refund: &&Refund| {
            refund.metadata.get(KEY).and_then(|v| v.as_str()) == Some(key.as_str())
        };
        match listed.data.iter().find(ours) {
            Some(refund) => match judge(refund, order, &terms) {
                Told::Known(refunded) => refunded,
                _ => Refunded::Unknown,
            },
            // No call can be under way any more, and what Stripe lists is complete.
            None if !listed.has_more && now >= conclusive_from => {
                Refunded::Refused("Stripe has no such refund; it may be asked for again".to_owned())
            }
            None => Refunded::Unknown,
        }
    }

    /// A refund that succeeded fails later where the payer's bank sends the money back
    /// (docs.stripe.com/refunds: failed refunds).
    pub(crate) async fn reread(&self, order: &RefundOrder, refund: &str) -> Refunded {
        let Ok(terms) = serde_json::from_value::<Terms>(order.terms.clone()) else {
            return Refunded::Unknown;
        };
        // The id is Stripe's own, as it was recorded.
        let request = RequestBuilder::new(StripeMethod::Get, format!("/refunds/{refund}"));
        let answer = match self.api.send(request, terms.account.as_deref()).await {
            Ok(answer) => answer,
            Err(lost) => {
                warn!(error = %lost, "no answer while reading a refund");
                return Refunded::Unknown;
            }
        };
        match read::<Refund>(&answer, "reading a refund") {
            Ok(found) if found.id == refund => match judge(&found, order, &terms) {
                Told::Known(refunded) => refunded,
                _ => Refunded::Unknown,
            },
            _ => Refunded::Unknown,
        }
    }

    async fn list(&self, id: &str, account: Option<&str>) -> Result<Answer, NoAnswer> {
        let mut request = RequestBuilder::new(StripeMethod::Get, "/refunds");
        // The id's alphabet needs no escapes.
        request.query = Some(format!("payment_intent={id}&limit=100"));
        self.api.send(request, account).await
    }

    /// `POST /v1/refunds`. The same order gives the same parameters.
    async fn ask(&self, key: &RefundKey, order: &RefundOrder, mut asked: Asked) -> Told {
        #[derive(Serialize)]
        struct Form<'a> {
            payment_intent: &'a str,
            amount: u64,
            metadata: std::collections::BTreeMap<&'a str, &'a str>,
            #[serde(skip_serializing_if = "std::ops::Not::not")]
            refund_application_fee: bool,
            #[serde(skip_serializing_if = "std::ops::Not::not")]
            reverse_transfer: bool,
        }
        let terms = serde_json::from_value::<Terms>(order.terms.clone());
        let (Ok(terms), Ok(amount)) = (terms, u64::try_from(order.amount.get())) else {
            // Written by another version: nobody knows what it meant.
            return Told::Unclear;
        };
        let mut pauses = PAUSES.iter();
        loop {
            let form = Form {
                payment_intent: &terms.payment_intent,
                amount,
                metadata: [(KEY, key.as_str())].into(),
                refund_application_fee: terms.refund_application_fee,
                reverse_transfer: terms.reverse_transfer,
            };
            let request = RequestBuilder::new(StripeMethod::Post, "/refunds").form(&form);
            let (version, account) = (&terms.api_version, terms.account.as_deref());
            let call = self.api.send_once(version, request, account, key.as_str());
            let answer = match call.await {
                Ok(answer) => answer,
                Err(lost) => {
                    warn!(error = %lost, "no answer while refunding");
                    return Told::Unclear;
                }
            };
            let status = answer.status;
            if status == StatusCode::CONFLICT {
                asked = Asked::Again;
            }
            let busy = matches!(status, StatusCode::CONFLICT | StatusCode::TOO_MANY_REQUESTS);
            match pauses.next().filter(|_| busy) {
                Some(pause) => tokio::time::sleep(Duration::clone(pause)).await,
                None if status.is_success() => {
                    return match answer.read::<Refund>() {
                        Ok(refund) => judge(&refund, order, &terms),
                        Err(_) => unexpected(&answer),
                    };
                }
                None => return refused(&answer, asked),
            }
        }
    }
}

fn judge(refund: &Refund, order: &RefundOrder, terms: &Terms) -> Told {
    let ours = u128::from(refund.amount) == order.amount.get()
        && refund.payment_intent.as_ref() == Some(&terms.payment_intent);
    match refund.status.as_deref() {
        _ if !ours => Told::Unclear,
        Some("succeeded") => Told::Known(Refunded::Done {
            reference: refund.id.clone(),
        }),
        Some("failed" | "canceled") => {
            let why = refund
                .failure_reason
                .as_deref()
                .unwrap_or("no reason given");
            let id = &refund.id;
            Told::Known(Refunded::Failed {
                reference: id.clone(),
                why: format!("the refund {id} failed: {why}"),
            })
        }
        // `pending`, `requires_action`: it ends as one of the above.
        _ => Told::Known(Refunded::Unknown),
    }
}

/// An error's words, where it is the answer to the first call under the key.
fn refused(answer: &Answer, asked: Asked) -> Told {
    let error = answer.error();
    let of_the_request =
        matches!(answer.status.as_u16(), 400 | 402 | 404) && error.kind == "invalid_request_error";
    if answer.replayed && answer.status.is_server_error() {
        return Told::Broke;
    }
    if !of_the_request || asked == Asked::Again {
        return unexpected(answer);
    }
    let code = error.code.as_deref().unwrap_or(&error.kind);
    let message = error.message.as_deref().unwrap_or_default();
    let id = &answer.request_id;
    Told::Known(Refunded::Refused(format!(
        "Stripe says {code}: {message} (request {id})"
    )))
}

fn unexpected(answer: &Answer) -> Told {
    warn!(
        status = answer.status.as_u16(),
        replayed = answer.replayed,
        request_id = answer.request_id,
        "an answer that does not tell while refunding"
    );
    Told::Unclear
}

fn away(lost: NoAnswer) -> NoRefund {
    farebox_core::Fault::unavailable("asking Stripe about a payment")
        .caused_by(lost)
        .into()
}

fn read<T: serde::de::DeserializeOwned>(
    answer: &Answer,
    what: &'static str,
) -> Result<T, NoRefund> {
    let read = answer.read::<T>().ok();
    read.filter(|_| answer.status.is_success()).ok_or_else(|| {
        let why = format!("{} to request {}", answer.status, answer.request_id);
        farebox_core::Fault::unavailable(what).caused_by(why).into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects: a payment is itself with its account and without, and nothing else is one.
    #[test]
    fn a_payment_is_named_by_its_id() {
        let name = Spelled::name("pi_1").unwrap();
        assert_eq!(Spelled::name("acct_1/pi_1"), Ok(name.clone()));
        assert_eq!(name, PaymentName::at("stripe", "pi_1"));
        assert_ne!(Spelled::name("pi_2"), Ok(name));
        for bad in [
            "",
            "pi_",
            "0xabc",
            "ch_1",
            "pi_1 ",
            "pi_1/",
            "pi_1/pi_1",
            "acct_/pi_1",
        ] {
            assert!(Spelled::name(bad).is_err(), "{bad}");
        }
        for bad in [
            "acct_1/",
            "acct_1/pi_",
            "acct_1/pi_1/pi_2",
            "cus_1/pi_1",
            "/pi_1",
        ] {
            assert!(Spelled::name(bad).is_err(), "{bad}");
        }
    }
}
