//! The rail's part of a payment page: a card field of Stripe.js, and a token for what it collects.
//!
//! A token takes a secret key, so the browser hands over a PaymentMethod and the rail mints, for this
//! account alone: the amount, the currency, the seller and the expiry are those of the challenge that
//! the engine has authenticated, and the same PaymentMethod for the same challenge is the same call to
//! Stripe, under one idempotency key. A token moves no money; it is charged by the usual way only.

use farebox_core::{
    Ask, Charge, Fault, Issue, PagePart, Presented, Refusal, Rejection, SecretSource,
    wire::{Amount, Challenge, Payload as Collected},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use stripe_client_core::{RequestBuilder, StripeMethod};
use url::Url;

use crate::{
    api::Api, config::is_loopback, currency::Currency, quote::Details, token::SharedPaymentToken,
    verify::Payload, wallet::OUTLIVES,
};

/// Where Stripe.js is, unless the configuration says otherwise.
pub(crate) const STRIPE_JS: &str = "https://js.stripe.com/v3/";

/// What Stripe.js loads, frames and asks, besides itself (docs.stripe.com/security/guide).
const SCRIPTS: [&str; 2] = ["https://js.stripe.com", "https://*.js.stripe.com"];
const FRAMES: [&str; 3] = [SCRIPTS[0], SCRIPTS[1], "https://hooks.stripe.com"];
const CONNECTS: [&str; 1] = ["https://api.stripe.com"];

/// What a page is made of, where the configuration allows one.
#[derive(Clone, Debug)]
pub(crate) struct PageConfig {
    publishable_key: String,
    stripe_js: Url,
    live: bool,
}

impl PageConfig {
    /// The configuration's two keys, checked against the secret key's mode.
    pub(crate) fn check(
        publishable_key: Option<&str>,
        stripe_js: &str,
        secret_key: &SecretSource,
        issues: &mut Vec<Issue>,
    ) -> Option<Self> {
        let url = read_url(stripe_js).map_err(|issue| issues.push(issue)).ok();
        let key = publishable_key?;
        let secret = secret_key.read("secret_key").ok();
        let live = secret
            .as_ref()
            .is_some_and(|key| key.expose().contains("_live_"));
        let known = match key
            .strip_prefix("pk_test_")
            .or(key.strip_prefix("pk_live_"))
        {
            Some(rest) => {
                !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
            }
            None => false,
        };
        if !known {
            // Not the text: somebody may have put the secret key here.
            let problem = "is no publishable key; give the one of the same account, like pk_test_… \
                           or pk_live_…";
            issues.push(Issue::new("publishable_key", problem));
            return None;
        }
        if secret.is_some() && key.starts_with("pk_live_") != live {
            let problem = "and `secret_key` are of different modes; give both for test mode or both \
                           live";
            issues.push(Issue::new("publishable_key", problem));
            return None;
        }
        Some(Self {
            publishable_key: key.to_owned(),
            stripe_js: url?,
            live,
        })
    }

    /// The part for a challenge whose charges are `account`'s.
    pub(crate) fn part(
        &self,
        account: Option<&str>,
        ask: &Ask<Charge, Details>,
    ) -> Option<PagePart> {
        let card = ask
            .details
            .payment_method_types
            .iter()
            .any(|kind| kind == "card");
        let currency = Currency::parse(&ask.request.currency).ok()?;
        if !card {
            return None;
        }
        let origin = self.stripe_js.origin().ascii_serialization();
        let part = PagePart::new("Card", price(&currency, ask.request.amount))
            .html(include_str!("card.html"))
            .script(include_str!("card.js"))
            .data(&json!({
                "publishableKey": self.publishable_key,
                "options": account.map_or(json!({}), |account| json!({ "stripeAccount": account })),
            }));
        let part = part.library(self.stripe_js.as_str());
        Some(match origin == SCRIPTS[0] {
            true => part.scripts(SCRIPTS).frames(FRAMES).connects(CONNECTS),
            // A stand-in is all in one place.
            false => part.connects([origin.as_str()]),
        })
    }
}

/// Script from elsewhere runs on the page, so it must come unchanged.
fn read_url(text: &str) -> Result<Url, Issue> {
    let url = Url::parse(text).ok().filter(|url| {
        let plain = url.username().is_empty() && url.password().is_none();
        plain && (url.scheme() == "https" || url.scheme() == "http" && is_loopback(url))
    });
    url.ok_or_else(|| {
        let problem = format!("`{text}` is no https URL; leave it out, or give \"{STRIPE_JS}\"");
        Issue::new("stripe_js", problem)
    })
}

/// What the page collects.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Card {
    payment_method: String,
}

/// A payload for what the page has collected.
pub(crate) async fn prepare(
    page: Option<&PageConfig>,
    api: &Api,
    account: Option<&str>,
    cx: &Presented<'_>,
    ask: &Ask<Charge, Details>,
    collected: Collected,
) -> Result<Collected, Refusal> {
    let Some(page) = page else {
        return Err(Rejection::malformed("this seller has no payment page for cards").into());
    };
    let Card { payment_method } = collected
        .decode()
        .map_err(|error| Rejection::malformed(format!("the card cannot be read: {error}")))?;
    let id = payment_method.strip_prefix("pm_").unwrap_or_default();
    let known = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    if id.is_empty() || payment_method.len() > 128 || !id.bytes().all(known) {
        return Err(Rejection::malformed("`paymentMethod` is no PaymentMethod, `pm_…`").into());
    }
    unsaved(api, account, &payment_method).await?;
    let spt = mint(page, api, account, cx.challenge, ask, &payment_method).await?;
    let payload = Payload::new(spt, ask.request.external_id.clone());
    Collected::from_value(&payload).map_err(|e| {
        Fault::new("writing a payload for a page")
            .caused_by(e)
            .into()
    })
}

/// Whether a PaymentMethod is nobody's yet, as the page makes them. One that the account keeps for a
/// customer is for that customer to use, and knowing its id does not make anybody that.
async fn unsaved(api: &Api, account: Option<&str>, payment_method: &str) -> Result<(), Refusal> {
    const WHAT: &str = "reading the card of a page";
    let path = format!("/payment_methods/{payment_method}");
    let call = RequestBuilder::new(StripeMethod::Get, path);
    let answer = api.send(call, account).await;
    let answer = answer.map_err(|lost| Fault::unavailable(WHAT).caused_by(lost))?;
    let status = answer.status;
    if status.is_success() {
        let method: Method = answer.read().map_err(|_| Fault::new(WHAT))?;
        return match method.customer {
            None => Ok(()),
            Some(_) => Err(Rejection::verification(NOT_ACCEPTED).into()),
        };
    }
    if status.as_u16() == 404 || status.as_u16() == 400 {
        return Err(Rejection::verification(NOT_ACCEPTED).into());
    }
    let fault = match status.is_server_error() || matches!(status.as_u16(), 409 | 429) {
        true => Fault::unavailable(WHAT),
        // A restricted key must be allowed to read PaymentMethods.
        false => Fault::new("reading the card of a page: Stripe refuses"),
    };
    Err(fault
        .caused_by(format!("{status}, request {}", answer.request_id))
        .into())
}

/// What is used of a PaymentMethod.
#[derive(Deserialize)]
struct Method {
    customer: Option<serde::de::IgnoredAny>,
}

const NOT_ACCEPTED: &str = "the card was not accepted; check it, or use another one";

async fn mint(
    page: &PageConfig,
    api: &Api,
    account: Option<&str>,
    challenge: &Challenge,
    ask: &Ask<Charge, Details>,
    payment_method: &str,
) -> Result<SharedPaymentToken, Refusal> {
    let shared = Limits {
        currency: &ask.request.currency,
        max_amount: u64::try_from(ask.request.amount.get())
            .map_err(|_| Fault::new("minting a page's token: the amount is too large"))?,
        expires_at: challenge.expires.as_ref().map_or(0, |at| {
            at.unix_millis().div_euclid(1000).saturating_add(OUTLIVES)
        }),
    };
    let network = ask.details.network_id.as_str();
    // The same card for the same challenge is the same token, however often it is asked for.
    let key = format!("page_{}_{payment_method}", challenge.id);
    let path = match page.live {
        true => "/shared_payment/issued_tokens",
        false => "/test_helpers/shared_payment/granted_tokens",
    };
    for named in [true, false] {
        let form = Form {
            payment_method,
            usage_limits: &shared,
            seller_details: named.then_some(match page.live {
                true => Seller::Live {
                    network_business_profile: network,
                },
                false => Seller::Test {
                    network_id: network,
                },
            }),
        };
        let call = RequestBuilder::new(StripeMethod::Post, path).form(&form);
        // Another form is another call.
        let key = if named {
            key.clone()
        } else {
            format!("{key}_all")
        };
        let answer = api.mint(call, account, &key).await;
        let answer =
            answer.map_err(|lost| Fault::unavailable("minting a page's token").caused_by(lost))?;
        if answer.status.is_success() {
            let token: Token = answer
                .read()
                .map_err(|_| Fault::new("minting a page's token: the answer holds no token"))?;
            return match token.id.is_well_formed() {
                true => Ok(token.id),
                false => Err(Fault::new("minting a page's token: what was made is none").into()),
            };
        }
        let error = answer.error();
        let param = error.param.as_deref().unwrap_or_default();
        let code = error.code.as_deref().unwrap_or_default();
        // The test helper of older versions has no sellers. A live token must name its own.
        if code == "parameter_unknown" && param.starts_with("seller_details") && !page.live {
            continue;
        }
        if error.kind == "card_error" || param.starts_with("payment_method") {
            return Err(Rejection::verification(NOT_ACCEPTED).into());
        }
        let why = format!(
            "{} {code} {param}, request {}",
            answer.status, answer.request_id
        );
        let fault =
            match answer.status.is_server_error() || matches!(answer.status.as_u16(), 409 | 429) {
                true => Fault::unavailable("minting a page's token"),
                false => Fault::new("minting a page's token: Stripe refuses"),
            };
        return Err(fault.caused_by(why).into());
    }
    Err(Fault::new("minting a page's token: Stripe knows no such parameters").into())
}

#[derive(Serialize)]
struct Form<'a> {
    payment_method: &'a str,
    usage_limits: &'a Limits<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seller_details: Option<Seller<'a>>,
}

#[derive(Serialize)]
struct Limits<'a> {
    currency: &'a str,
    max_amount: u64,
    expires_at: i64,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Seller<'a> {
    Test { network_id: &'a str },
    Live { network_business_profile: &'a str },
}

#[derive(Deserialize)]
struct Token {
    id: SharedPaymentToken,
}

/// A price as people write it: what is below one has all its digits.
fn price(currency: &Currency, amount: Amount) -> String {
    let shown = currency.show(amount);
    let (number, code) = shown.split_once(' ').unwrap_or((&shown, ""));
    let digits = currency.decimals();
    let number = match number.split_once('.') {
        Some((whole, part)) => format!("{whole}.{part:0<digits$}"),
        None => number.to_owned(),
    };
    match code {
        "usd" => format!("${number}"),
        "eur" => format!("€{number}"),
        "gbp" => format!("£{number}"),
        "jpy" => format!("¥{number}"),
        _ => format!("{number} {}", code.to_uppercase()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects: people are asked for what they are charged.
    #[test]
    fn prices_are_shown_as_people_write_them() {
        for (amount, code, shown) in [
            (50, "usd", "$0.50"),
            (1200, "eur", "€12"),
            (1234, "gbp", "£12.34"),
            (500, "jpy", "¥500"),
            (1500, "kwd", "1.500 KWD"),
        ] {
            let currency = Currency::parse(code).unwrap();
            assert_eq!(price(&currency, Amount::new(amount)), shown);
        }
    }

    /// Protects: a page is not made with a key of the other mode, nor with a secret one, and a
    /// secret in the wrong place is not repeated.
    #[test]
    fn keys_are_of_one_mode() {
        let secret = |text: &str| SecretSource::Text(farebox_core::Secret::new(text));
        let check = |key: &str, of: &str, js: &str| {
            let mut issues = Vec::new();
            let page = PageConfig::check(Some(key), js, &secret(of), &mut issues);
            assert_eq!(page.is_none(), !issues.is_empty());
            let shown = issues
                .into_iter()
                .map(|i| format!("{} {}", i.key, i.problem));
            shown.collect::<Vec<_>>().join("; ")
        };
        assert_eq!(check("pk_test_1", "sk_test_1", STRIPE_JS), "");
        assert_eq!(check("pk_live_1", "rk_live_1", STRIPE_JS), "");
        assert_eq!(
            check("pk_test_1", "sk_test_1", "http://127.0.0.1:1/v3/"),
            ""
        );
        assert!(check("pk_live_1", "sk_test_1", STRIPE_JS).contains("different modes"));
        let wrong = check("sk_live_abc", "sk_live_abc", STRIPE_JS);
        assert!(
            wrong.starts_with("publishable_key") && !wrong.contains("abc"),
            "{wrong}"
        );
        let js = check("pk_test_1", "sk_test_1", "http://example.com/");
        assert!(js.starts_with("stripe_js"), "{js}");
    }
}
