//! Tokens that an agent issues itself.

use farebox_core::{
    Budget, Charge, Limit, PayError, Payer, Paying, Secret, SecretSource, TypedPayer,
};
use farebox_stripe::{IssuedTokens, StripeWallet, WalletConfig};
use farebox_wire::{Amount, Challenge};
use serde_json::{Value, json};

use crate::{
    script::{Script, error},
    support::{Shop, key, settled, usd},
};

fn wallet(key: SecretSource, url: &str) -> impl Payer {
    let config = WalletConfig::new(key).issued("pm_card_visa").api_base(url);
    let tokens = IssuedTokens::new(config).unwrap();
    TypedPayer::<_, Charge>::new(StripeWallet::with_tokens(tokens))
}

async fn pay(
    wallet: &impl Payer,
    challenge: &Challenge,
) -> Result<farebox_wire::Payload, PayError> {
    let cx = Paying::new(challenge, None);
    let cost = wallet.price(&cx).unwrap();
    let budget = Budget::new([Limit::per_request("usd".to_owned(), Amount::new(50))]);
    // The budget comes first: what it does not approve, no token is issued for.
    let (approved, reservation) = budget.approve(cost).unwrap();
    reservation.commit();
    Ok(wallet.pay(&cx, approved).await?.payload)
}

#[tokio::test]
async fn an_issued_token_is_limited_to_what_is_asked() {
    let shop = Shop::open().await;
    let challenge = shop.challenge("c-1_A", usd("0.50"), 300).await;
    let wallet = wallet(key(&shop.sandbox), &shop.sandbox.url());
    let payload = pay(&wallet, &challenge).await.unwrap();
    let sent = shop.sandbox.requests().pop().unwrap();
    assert_eq!(sent.path, "/v1/shared_payment/issued_tokens");
    let expires = challenge.expires.as_ref().unwrap().unix_millis() / 1000 + 600;
    for (name, value) in [
        ("payment_method", "pm_card_visa"),
        ("seller_details[network_business_profile]", "internal"),
        ("usage_limits[currency]", "usd"),
        ("usage_limits[max_amount]", "50"),
        ("usage_limits[expires_at]", &expires.to_string()),
    ] {
        assert_eq!(sent.form[name], value, "{name}");
    }
    settled(shop.order(&challenge, &payload).await.settle().await);
    assert_eq!(shop.sandbox.total("usd"), 50);
}

/// Protects: a token that could charge more, longer, otherwise or not at all is ended, not handed
/// over, and nothing counts as paid.
#[tokio::test]
async fn a_token_with_other_limits_is_not_handed_over() {
    let shop = Shop::open().await;
    let challenge = shop.challenge("c-1_A", usd("0.50"), 300).await;
    let lapses = challenge.expires.as_ref().unwrap().unix_millis() / 1000 + 600;
    let token = |change: Value| {
        let mut token = json!({
            "id": "spt_1", "status": "active",
            "usage_limits": { "currency": "usd", "max_amount": 50, "expires_at": lapses },
        });
        let limits = change.as_object().unwrap().clone();
        for (name, value) in limits {
            match name.as_str() {
                "status" => token["status"] = value,
                _ => token["usage_limits"][name] = value,
            }
        }
        token
    };
    for (change, revoked) in [
        (json!({}), 0),
        (json!({ "max_amount": 51 }), 1),
        (json!({ "currency": "eur" }), 1),
        (json!({ "expires_at": lapses + 1 }), 1),
        (json!({ "expires_at": null }), 1),
        (json!({ "status": "requires_action" }), 1),
        (json!({ "status": "deactivated" }), 1),
    ] {
        let issued = token(change.clone());
        let script = Script::start(move |_, _| (200, issued.clone())).await;
        let wallet = wallet(SecretSource::Text(Secret::new("rk_live_1")), &script.url);
        let paid = pay(&wallet, &challenge).await;
        assert_eq!(script.asked("POST", "/revoke"), revoked, "{change}");
        match paid {
            Ok(_) => assert_eq!(revoked, 0, "{change}"),
            Err(PayError::NotPaid(fault)) => {
                assert_eq!(revoked, 1, "{change}: {fault}");
                assert!(!fault.to_string().contains("spt_1"));
            }
            Err(other) => panic!("{change}: {other}"),
        }
    }
}

#[tokio::test]
async fn an_issuer_that_refuses_means_that_nothing_was_paid() {
    let shop = Shop::open().await;
    let challenge = shop.challenge("c-1_A", usd("0.50"), 300).await;
    let refusal = json!({ "type": "invalid_request_error", "param": "payment_method" });
    let script = Script::start(move |_, _| error(400, refusal.clone())).await;
    let wallet = wallet(SecretSource::Text(Secret::new("sk_test_1")), &script.url);
    let paid = pay(&wallet, &challenge).await;
    assert!(matches!(paid, Err(PayError::NotPaid(_))));
    let key = SecretSource::Text(Secret::new("pk_live_1"));
    let bad = WalletConfig::new(key).issued("card");
    assert_eq!(IssuedTokens::new(bad).unwrap_err().issues().len(), 2);
}
