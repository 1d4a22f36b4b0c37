//! Charges for connected accounts: the seller's policy reaches Stripe, and nobody else has a say.

use std::sync::Arc;

use farebox_core::{Method, Outcome, Typed, wire::Amount};
use farebox_sandbox_stripe::{Fault, StripeConfig};
use farebox_stripe::{Config, ConnectConfig, Settlement, Stripe};
use serde_json::json;

use crate::support::{Shop, key, settled, usd};

fn connect(policy: serde_json::Value) -> impl FnOnce(&mut Config) {
    let connect: ConnectConfig = serde_json::from_value(policy).unwrap();
    move |config| config.connect = Some(connect)
}

/// Protects: the money goes on to the seller's account, and the platform keeps its part.
#[tokio::test]
async fn a_destination_charge_says_who_gets_what() {
    let policy = connect(json!({
        "destination": "acct_seller", "on_behalf_of": "acct_seller",
        "application_fee_bps": 1000, "transfer_group": "order 7",
    }));
    let shop = Shop::with(StripeConfig::default(), policy).await;
    settled(shop.attempt("pm_card_visa").await.settle().await);
    let requests = shop.sandbox.requests();
    let charge = requests
        .iter()
        .find(|r| r.method == "POST" && r.path == "/v1/payment_intents")
        .unwrap();
    for (name, value) in [
        ("application_fee_amount", "5"),
        ("on_behalf_of", "acct_seller"),
        ("transfer_data[destination]", "acct_seller"),
        ("transfer_group", "order 7"),
    ] {
        assert_eq!(charge.form[name], value, "{name}");
    }
}

/// Protects: a direct charge whose answer was lost is looked for in the account that made it, also
/// after the policy has changed.
#[tokio::test]
async fn a_lost_direct_charge_is_found_in_its_account() {
    let policy = connect(json!({ "account": "acct_seller" }));
    let shop = Shop::with(StripeConfig::default(), policy).await;
    shop.sandbox.fault(Fault::ErrorAfterCommit);
    let attempt = shop.attempt("pm_card_visa").await;
    assert_eq!(attempt.settle().await, Outcome::Unknown);
    let moved = shop.reconfigured(connect(json!({ "account": "acct_other" })));
    settled(attempt.lookup_with(&moved).await);
    assert_eq!(shop.sandbox.total("usd"), 50, "once");
    let paths = ["/v1/payment_intents", "/v1/payment_intents/search"];
    let requests = shop.sandbox.requests();
    for request in requests.iter().filter(|r| paths.contains(&&*r.path)) {
        let account = request.headers.get("stripe-account").map(String::as_str);
        assert_eq!(account, Some("acct_seller"), "{}", request.path);
    }
}

/// Protects: the challenge says nothing of accounts, whatever the policy.
#[tokio::test]
async fn the_policy_is_not_in_the_challenge() {
    let policy = connect(json!({ "destination": "acct_seller", "application_fee_bps": 100 }));
    let shop = Shop::with(StripeConfig::default(), policy).await;
    let challenge = shop.challenge("c-1_A", usd("1.00"), 300).await;
    assert!(!challenge.request.json().contains("acct_"));
}

/// Protects: a fee above the price is the seller's mistake: found at startup, or not offered.
#[tokio::test]
async fn a_fee_above_the_price_is_not_offered() {
    let policy = connect(json!({
        "destination": "acct_seller", "application_fee": { "usd": "0.60" },
    }));
    let shop = Shop::with(StripeConfig::default(), policy).await;
    let terms = |price| serde_json::to_value(usd(price)).unwrap();
    let problem = shop.rail.check(&terms("0.50")).unwrap_err().to_string();
    assert!(problem.contains("application fee"), "{problem}");
    assert!(shop.rail.quote(&terms("0.50")).await.is_err());
    assert!(shop.rail.check(&terms("1.00")).is_ok());
}

/// Protects: a rule of the seller's own that contradicts itself charges nobody, and the payer is
/// not told to pay again.
#[tokio::test]
async fn a_rule_that_contradicts_itself_charges_nobody() {
    let shop = Shop::open().await;
    let ruled = |settlement: Settlement| -> Arc<dyn Method> {
        let config = Config::new(key(&shop.sandbox), "internal").api_base(shop.sandbox.url());
        let rail = Stripe::new(config).unwrap();
        Arc::new(Typed::new(rail.settling(move |_| settlement.clone())))
    };
    let mut settlement = Settlement::default();
    settlement.destination = Some("acct_seller".to_owned());
    settlement.transfer = Some(Amount::new(51));
    let challenge = shop.challenge("c-1_A", usd("0.50"), 300).await;
    let payload = shop.pay(&challenge, "pm_card_visa").await;
    let now = farebox_wire::Timestamp::now();
    let cx = farebox_core::Presented::new(&challenge, &now);
    let refused = ruled(settlement.clone()).verify(&cx, &payload).await;
    assert!(matches!(refused, Err(farebox_core::Refusal::Fault(_))));
    settlement.transfer = Some(Amount::new(40));
    assert!(ruled(settlement).verify(&cx, &payload).await.is_ok());
}
