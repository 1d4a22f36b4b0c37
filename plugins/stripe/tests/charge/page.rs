//! What a payment page has minted: for the challenge, and no more.

use farebox_core::{ChargeTerms, Presented, Refusal};
use farebox_wire::{Challenge, Payload, Timestamp};
use serde_json::{Value, json};

use crate::support::{Shop, settled, usd};

async fn shop() -> Shop {
    Shop::with(Default::default(), |config| {
        config.publishable_key = Some("pk_test_1".to_owned());
    })
    .await
}

async fn prepare(shop: &Shop, challenge: &Challenge, card: &str) -> Result<Payload, Refusal> {
    let now = Timestamp::now();
    let collected = Payload::from_value(&json!({ "paymentMethod": card })).unwrap();
    let cx = Presented::new(challenge, &now);
    shop.rail.prepare(&cx, &collected).await
}

fn mints(shop: &Shop) -> Vec<std::collections::BTreeMap<String, String>> {
    let requests = shop.sandbox.requests().into_iter();
    let mints = requests.filter(|r| r.path.ends_with("/granted_tokens"));
    mints.map(|r| r.form).collect()
}

/// Protects: a token covers what the challenge asks for, for its seller and for as long; and it is
/// paid with like any other.
#[tokio::test]
async fn a_token_is_minted_for_the_challenge() {
    let shop = shop().await;
    let terms = ChargeTerms {
        external_id: Some("order-7".into()),
        ..usd("0.50")
    };
    let challenge = shop.challenge("c-1_A", terms, 300).await;
    let payload = prepare(&shop, &challenge, "pm_card_visa").await.unwrap();
    let shown: Value = payload.decode().unwrap();
    assert_eq!(shown["externalId"], "order-7");

    let minted = mints(&shop);
    let expires = challenge
        .expires
        .as_ref()
        .unwrap()
        .unix_millis()
        .div_euclid(1000)
        + 600;
    for (name, value) in [
        ("payment_method", "pm_card_visa"),
        ("usage_limits[currency]", "usd"),
        ("usage_limits[max_amount]", "50"),
        ("usage_limits[expires_at]", &expires.to_string()),
        ("seller_details[network_id]", "internal"),
    ] {
        assert_eq!(
            minted[0].get(name).map(String::as_str),
            Some(value),
            "{name}"
        );
    }
    assert!(shop.sandbox.charged().is_empty(), "a token moves no money");
    let order = shop.order(&challenge, &payload).await;
    settled(order.settle().await);
    assert_eq!(shop.sandbox.total("usd"), 50);
}

/// Protects: an answer that got lost leaves no second token behind, and another card gets its own.
#[tokio::test]
async fn one_card_gets_one_token_for_a_challenge() {
    let shop = shop().await;
    let challenge = shop.challenge("c-1_A", usd("0.50"), 300).await;
    let token = async |card: &str| {
        prepare(&shop, &challenge, card)
            .await
            .unwrap()
            .get()
            .to_owned()
    };
    let first = token("pm_card_visa").await;
    assert_eq!(token("pm_card_visa").await, first);
    assert_ne!(token("pm_card_mastercard").await, first);
}

/// Protects: what a browser sends is a card, or is refused before Stripe is asked.
#[tokio::test]
async fn nonsense_is_the_payers_fault() {
    let shop = shop().await;
    let challenge = shop.challenge("c-1_A", usd("0.50"), 300).await;
    for card in [
        "",
        "pm_",
        "spt_1",
        "pm_a b",
        "pm_a&usage_limits[max_amount]=9",
        &"pm_".repeat(99),
    ] {
        let refused = prepare(&shop, &challenge, card).await;
        assert!(matches!(refused, Err(Refusal::Rejected(_))), "{card}");
    }
    assert!(mints(&shop).is_empty());
    let unknown = prepare(&shop, &challenge, "pm_unknown").await;
    let Err(Refusal::Rejected(rejection)) = unknown else {
        panic!("{unknown:?}");
    };
    assert!(
        rejection.detail.contains("card was not accepted"),
        "{rejection:?}"
    );
}

/// Protects: the cards that the account keeps for its customers, from whoever knows their ids.
#[tokio::test]
async fn a_customers_card_is_not_for_a_page() {
    let shop = shop().await;
    let challenge = shop.challenge("c-1_A", usd("0.50"), 300).await;
    shop.sandbox.attach("pm_card_visa", "cus_1");
    let refused = prepare(&shop, &challenge, "pm_card_visa").await;
    assert!(matches!(refused, Err(Refusal::Rejected(_))), "{refused:?}");
    assert!(mints(&shop).is_empty());
    prepare(&shop, &challenge, "pm_card_mastercard")
        .await
        .unwrap();
}

/// Protects: without a publishable key there is no page, and nothing is minted for one.
#[tokio::test]
async fn without_a_publishable_key_there_is_no_page() {
    let shop = Shop::open().await;
    let challenge = shop.challenge("c-1_A", usd("0.50"), 300).await;
    assert!(shop.rail.page(&challenge).unwrap().is_none());
    assert!(prepare(&shop, &challenge, "pm_card_visa").await.is_err());
    assert!(mints(&shop).is_empty());

    let with = crate::page::shop().await;
    let part = with.rail.page(&challenge).unwrap().unwrap();
    assert_eq!(
        (part.price.as_str(), &part.data["publishableKey"]),
        ("$0.50", &json!("pk_test_1"))
    );
    assert_eq!(part.libraries, ["https://js.stripe.com/v3/"]);
    assert!(
        part.scripts
            .iter()
            .all(|origin| origin.ends_with("js.stripe.com"))
    );
    let text = format!("{part:?}");
    assert!(
        !text.contains(shop.sandbox.secret_key()) && !text.contains("sk_"),
        "{text}"
    );
}
