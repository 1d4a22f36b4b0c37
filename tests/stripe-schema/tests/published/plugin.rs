//! Each request that the plugin makes.

use std::collections::BTreeSet;

use farebox_core::{
    AnyPlan, Budget, Charge, ChargeTerms, IdempotencyKey, Limit, Method, Outcome, Payer, Paying,
    Presented, RefundKey, RefundOrder, Refunded, Secret, SecretSource, Step, StoredOrder, Typed,
    TypedPayer,
};
use farebox_sandbox_stripe::{Stripe as Sandbox, StripeConfig};
use farebox_stripe::{Config, IssuedTokens, Stripe, StripeWallet, WalletConfig};
use farebox_wire::{Amount, Challenge, Encoded, Payload, Timestamp};
use serde_json::{Value, json};

use crate::published;

/// What no version describes: names of older previews, which Stripe's documentation of machine
/// payments and the SDKs in use have.
const UNPUBLISHED: [&str; 2] = [
    "POST /v1/payment_intents: unknown shared_payment_granted_token",
    // Left out in a second call where it is refused.
    "POST /v1/test_helpers/shared_payment/granted_tokens: unknown seller_details[network_id]",
];

const CALLS: [&str; 10] = [
    "GET /v1/payment_intents",
    "GET /v1/payment_intents/search",
    "GET /v1/payment_intents/{intent}",
    "GET /v1/refunds",
    "GET /v1/shared_payment/granted_tokens/{shared_payment_granted_token}",
    "POST /v1/payment_intents",
    "POST /v1/payment_intents/{intent}/cancel",
    "POST /v1/refunds",
    "POST /v1/shared_payment/issued_tokens",
    "POST /v1/test_helpers/shared_payment/granted_tokens",
];

fn challenge(id: &str, request: Encoded) -> Challenge {
    let soon = Timestamp::now().unix_millis() + 300_000;
    Challenge {
        id: id.to_owned(),
        realm: "test.example".to_owned(),
        method: "stripe".to_owned(),
        intent: "charge".to_owned(),
        request,
        expires: Some(Timestamp::from_unix_millis(soon)),
        digest: None,
        description: None,
        opaque: None,
        header: None,
    }
}

async fn pay(wallet: &dyn Payer, challenge: &Challenge) -> Payload {
    let cx = Paying::new(challenge, None);
    let limit = Limit::per_request("usd".to_owned(), Amount::new(50));
    let (approved, reservation) = Budget::new([limit])
        .approve(wallet.price(&cx).unwrap())
        .unwrap();
    reservation.commit();
    wallet.pay(&cx, approved).await.unwrap().payload
}

/// The two wallets that mint tokens with Stripe, the agent's first.
fn wallets(sandbox: &Sandbox, card: &str) -> [Box<dyn Payer>; 2] {
    let config = WalletConfig::new(key(sandbox))
        .issued(card)
        .api_base(sandbox.url());
    let issuing = StripeWallet::with_tokens(IssuedTokens::new(config).unwrap());
    let config = WalletConfig::new(key(sandbox))
        .api_base(sandbox.url())
        .payment_method(card);
    let testing = StripeWallet::new(config).unwrap();
    [
        Box::new(TypedPayer::<_, Charge>::new(issuing)),
        Box::new(TypedPayer::<_, Charge>::new(testing)),
    ]
}

fn key(sandbox: &Sandbox) -> SecretSource {
    SecretSource::Text(Secret::new(sandbox.secret_key()))
}

fn rail(sandbox: &Sandbox, token_parameter: &str) -> impl Method {
    let config = json!({
        "secret_key": sandbox.secret_key(),
        "network_id": "internal",
        "api_base": sandbox.url(),
        "token_parameter": token_parameter,
        "connect": {
            "destination": "acct_1",
            "on_behalf_of": "acct_1",
            "transfer_group": "orders",
            "application_fee_bps": 100,
            "refund": { "application_fee": true, "reverse_transfer": true },
        },
    });
    let config: Config = serde_json::from_value(config).unwrap();
    Typed::<_, Charge>::new(Stripe::new(config).unwrap())
}

/// A charge, up to the order for it.
async fn order(rail: &dyn Method, wallet: &dyn Payer, id: &str) -> StoredOrder {
    let terms = serde_json::to_value(ChargeTerms::amount("0.50").currency("usd")).unwrap();
    let challenge = challenge(id, rail.quote(&terms).await.unwrap().request);
    let payload = pay(wallet, &challenge).await;
    let at = Timestamp::now();
    let plan = rail
        .verify(&Presented::new(&challenge, &at), &payload)
        .await;
    let AnyPlan::Once(plan) = plan.unwrap() else {
        panic!("a charge is single use")
    };
    match plan.step {
        Step::Settle(order) => order,
        _ => panic!("a token has to be charged"),
    }
}

/// The same order, written down two days ago.
fn aged(order: &StoredOrder) -> StoredOrder {
    let mut order: Value = serde_json::from_str(order.as_str()).unwrap();
    for time in ["created", "expires"] {
        order[time] = (order[time].as_i64().unwrap() - 2 * 86_400).into();
    }
    StoredOrder::of(&order).unwrap()
}

async fn charge_and_refund(rail: &dyn Method, wallet: &dyn Payer, id: &str) {
    let (settler, key) = (rail.settler(), IdempotencyKey::for_challenge(id));
    let order = order(rail, wallet, id).await;
    let Outcome::Settled { reference, .. } = settler.settle(&key, &order).await else {
        panic!("the test card pays")
    };
    let found = settler.look_at(&key, &order, &reference).await;
    assert_eq!(found, Outcome::settled(&reference));
    let known = settler.refundable(&reference).await.unwrap();
    let refund = RefundOrder {
        reference: reference.clone(),
        amount: Amount::new(20),
        currency: known.currency,
        created: Timestamp::now().unix_millis() / 1000,
        terms: known.terms,
    };
    let key = RefundKey::new("stripe/charge", &reference, "test", 0);
    let given = settler.refund(&key, &refund).await;
    assert!(matches!(given, Refunded::Done { .. }), "{given:?}");
    assert_eq!(settler.look_up_refund(&key, &refund).await, given);
}

/// Protects: Stripe refuses a call for one parameter that it does not know.
#[tokio::test]
#[ignore = "needs openapi: FAREBOX_OPENAPI_FOLDER, the folder of Stripe's schema; ./tests/run fetches it"]
async fn every_request_of_the_plugin_is_one_that_stripe_describes() {
    let sandbox = Sandbox::start(StripeConfig::default()).await.unwrap();
    // Two spellings of the token, each with a charge, one that is cancelled, and one never made.
    for (n, spelling) in ["shared_payment_granted_token", "payment_method_data"]
        .iter()
        .enumerate()
    {
        let rail = rail(&sandbox, spelling);
        rail.connect().await.unwrap();
        for (m, wallet) in wallets(&sandbox, "pm_card_visa").iter().enumerate() {
            charge_and_refund(&rail, wallet.as_ref(), &format!("paid-{n}-{m}")).await;
        }
        let [_, wallet] = wallets(&sandbox, "pm_card_authenticationRequired");
        let (settler, id) = (rail.settler(), format!("open-{n}"));
        let order = order(&rail, wallet.as_ref(), &id).await;
        let key = IdempotencyKey::for_challenge(&id);
        let cancelled = settler.settle(&key, &order).await;
        assert!(matches!(cancelled, Outcome::Declined(_)), "{cancelled:?}");
        let id = format!("unsent-{n}");
        let order = self::order(&rail, wallet.as_ref(), &id).await;
        let never = settler
            .lookup(&IdempotencyKey::for_challenge(&id), &aged(&order))
            .await;
        assert!(matches!(never, Outcome::Declined(_)), "{never:?}");
    }
    let (published, requests) = (published(), sandbox.requests());
    let calls = requests
        .iter()
        .map(|sent| published.operation(&sent.method, &sent.path));
    assert_eq!(
        calls.collect::<BTreeSet<_>>(),
        CALLS.map(str::to_owned).into(),
        "all are made"
    );
    let unknown = requests
        .iter()
        .flat_map(|sent| published.request(&sent.method, &sent.path, sent.form.keys()));
    assert_eq!(
        unknown.collect::<BTreeSet<_>>(),
        UNPUBLISHED.map(str::to_owned).into()
    );
}
