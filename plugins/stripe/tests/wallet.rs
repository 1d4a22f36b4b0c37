//! The paying side: what a wallet refuses, and what it asks a token for.
#![allow(clippy::unwrap_used, reason = "helpers of tests, outside any #[test]")]

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use farebox_core::{
    Approved, Budget, Charge, Cost, Fault, Limit, PayError, Payer, Paying, Secret, SecretSource,
    TypedPayer,
};
use farebox_sandbox_stripe::{Stripe as Sandbox, StripeConfig};
use farebox_stripe::{MintToken, SharedPaymentToken, StripeWallet, TokenRequest, WalletConfig};
use farebox_wire::{Amount, Challenge, Encoded, Timestamp};
use serde_json::{Value, json};

fn challenge(request: Value, lapses: i64) -> Challenge {
    let expires = Timestamp::now().unix_millis() + lapses * 1000;
    Challenge {
        id: "c-1".to_owned(),
        realm: "shop.example".to_owned(),
        method: "stripe".to_owned(),
        intent: "charge".to_owned(),
        request: Encoded::encode(&request).unwrap(),
        expires: Some(Timestamp::from_unix_millis(expires)),
        digest: None,
        description: None,
        opaque: None,
        header: None,
    }
}

fn request() -> Value {
    json!({
        "amount": "50",
        "currency": "usd",
        "externalId": "order-7",
        "methodDetails": { "networkId": "internal", "paymentMethodTypes": ["card"] },
    })
}

fn wallet<M: MintToken>(tokens: M) -> impl Payer {
    TypedPayer::<_, Charge>::new(StripeWallet::with_tokens(tokens))
}

fn approved(cost: Cost) -> Approved {
    let limit = Limit::per_request(cost.currency.clone(), Amount::new(1_000));
    let (approved, reservation) = Budget::new([limit]).approve(cost).unwrap();
    reservation.commit();
    approved
}

#[tokio::test]
async fn a_token_is_asked_for_exactly_what_was_approved() {
    let asked: Arc<Mutex<Vec<TokenRequest>>> = Arc::default();
    let log = Arc::clone(&asked);
    let wallet = wallet(move |request: TokenRequest| {
        log.lock().unwrap().push(request);
        async { Ok(SharedPaymentToken::new("spt_1")) }
    });
    let challenge = challenge(request(), 300);
    let cx = Paying::new(&challenge, Some("shop.example"));
    let cost = wallet.price(&cx).unwrap();
    let expected = Cost {
        amount: Amount::new(50),
        currency: "usd".to_owned(),
        recipient: Some("internal".to_owned()),
    };
    assert_eq!(cost, expected);

    let paid = wallet.pay(&cx, approved(cost)).await.unwrap();
    assert_eq!(
        paid.payload.decode::<Value>().unwrap(),
        json!({ "spt": "spt_1", "externalId": "order-7" })
    );
    let asked = asked.lock().unwrap();
    assert_eq!(asked.len(), 1);
    assert_eq!(
        (asked[0].amount, asked[0].currency.as_str()),
        (Amount::new(50), "usd")
    );
    assert_eq!(asked[0].network_id, "internal");
    let lapses = challenge.expires.as_ref().unwrap().unix_millis() / 1000;
    assert_eq!(
        asked[0].expires_at,
        lapses + 600,
        "it can still be charged at the last moment"
    );
}

/// Protects: no token for less than was looked at, nor for more than was allowed.
#[tokio::test]
async fn nothing_is_minted_beyond_the_approval() {
    let wallet = wallet(
        async |_: TokenRequest| -> Result<SharedPaymentToken, Fault> {
            panic!("must not be asked")
        },
    );
    let cost = |amount, currency: &str, recipient: &str| Cost {
        amount: Amount::new(amount),
        currency: currency.to_owned(),
        recipient: Some(recipient.to_owned()),
    };
    let open = challenge(request(), 300);
    let lapsed = challenge(request(), 0);
    for (challenge, cost) in [
        (&open, cost(49, "usd", "internal")),
        (&open, cost(50, "eur", "internal")),
        (&open, cost(50, "usd", "another")),
        (&lapsed, cost(50, "usd", "internal")),
    ] {
        let result = wallet
            .pay(&Paying::new(challenge, None), approved(cost))
            .await;
        assert!(matches!(result, Err(PayError::Refused(_))), "{result:?}");
    }
}

#[tokio::test]
async fn requests_that_no_token_can_pay_are_refused() {
    let wallet = wallet(async |_: TokenRequest| Ok(SharedPaymentToken::new("spt_1")));
    let mut bad = Vec::new();
    for (pointer, value) in [
        ("/amount", json!("0")),
        ("/amount", json!("0x10")),
        ("/amount", json!(50)),
        ("/currency", json!("0x20c0")),
        ("/methodDetails/networkId", json!("")),
        ("/methodDetails/paymentMethodTypes", json!([])),
        ("/methodDetails", json!({})),
    ] {
        let mut request = request();
        *request.pointer_mut(pointer).unwrap() = value;
        bad.push(request);
    }
    for request in bad {
        let challenge = challenge(request.clone(), 300);
        assert!(
            wallet.price(&Paying::new(&challenge, None)).is_err(),
            "{request}"
        );
    }
}

/// Protects: a token that was not made is a payment that was not made.
#[tokio::test]
async fn failures_to_mint_are_not_payments() {
    let challenge = challenge(request(), 300);
    let cx = Paying::new(&challenge, None);

    let away = wallet(async |_: TokenRequest| Err(Fault::unavailable("minting")));
    let cost = away.price(&cx).unwrap();
    let result = away.pay(&cx, approved(cost.clone())).await;
    assert!(matches!(result, Err(PayError::NotPaid(_))), "{result:?}");

    let nonsense = wallet(async |_: TokenRequest| Ok(SharedPaymentToken::new("pm_card_visa")));
    let result = nonsense.pay(&cx, approved(cost.clone())).await;
    assert!(matches!(result, Err(PayError::NotPaid(_))), "{result:?}");

    let sandbox = Sandbox::start(StripeConfig::default()).await.unwrap();
    let key = SecretSource::Text(Secret::new(sandbox.secret_key()));
    let config = WalletConfig::new(key)
        .api_base(sandbox.url())
        .payment_method("pm_unknown");
    let unknown = TypedPayer::<_, Charge>::new(StripeWallet::new(config).unwrap());
    match unknown.pay(&cx, approved(cost)).await {
        Err(PayError::NotPaid(fault)) => {
            assert!(fault.to_string().contains("resource_missing"), "{fault}")
        }
        other => panic!("{other:?}"),
    }
}

/// Protects: a payer whose minter never answers; nothing was handed over, so nothing was paid.
#[tokio::test(start_paused = true)]
async fn a_minter_that_hangs_is_given_up() {
    let challenge = challenge(request(), 300);
    let cx = Paying::new(&challenge, None);
    let hangs = wallet(
        async |_: TokenRequest| -> Result<SharedPaymentToken, Fault> {
            std::future::pending().await
        },
    );
    let cost = hangs.price(&cx).unwrap();
    let paying = hangs.pay(&cx, approved(cost));
    let result = tokio::time::timeout(Duration::from_secs(3600), paying).await;
    assert!(
        matches!(result, Ok(Err(PayError::NotPaid(_)))),
        "{result:?}"
    );
}

#[tokio::test]
async fn the_test_helper_grants_to_the_seller_of_the_challenge() {
    let sandbox = Sandbox::start(StripeConfig::default()).await.unwrap();
    let key = SecretSource::Text(Secret::new(sandbox.secret_key()));
    let config = WalletConfig::new(key).api_base(sandbox.url());
    let wallet = TypedPayer::<_, Charge>::new(StripeWallet::new(config).unwrap());
    let challenge = challenge(request(), 300);
    let cx = Paying::new(&challenge, None);
    wallet
        .pay(&cx, approved(wallet.price(&cx).unwrap()))
        .await
        .unwrap();
    let sent = sandbox.requests().pop().unwrap();
    assert_eq!(sent.path, "/v1/test_helpers/shared_payment/granted_tokens");
    assert_eq!(sent.form["seller_details[network_id]"], "internal");
    assert_eq!(sent.form["usage_limits[max_amount]"], "50");
    assert_eq!(sent.form["usage_limits[currency]"], "usd");
}
