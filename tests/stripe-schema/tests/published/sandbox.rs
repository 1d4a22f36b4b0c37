//! Each of the sandbox's endpoints, in success and in every kind of failure.

use std::time::Duration;

use farebox_sandbox_stripe::{Fault, Stripe, StripeConfig};
use farebox_wire::Timestamp;
use reqwest::{Client, RequestBuilder};
use serde_json::Value;

use crate::{published, schema::Published};

const GRANT: &str = "/v1/test_helpers/shared_payment/granted_tokens";
const INTENTS: &str = "/v1/payment_intents";
const REFUNDS: &str = "/v1/refunds";

struct Checked {
    stripe: Stripe,
    client: Client,
    published: Published,
    wrong: Vec<String>,
}

type Form<'a> = &'a [(&'a str, &'a str)];

impl Checked {
    async fn open() -> Self {
        Self {
            stripe: Stripe::start(StripeConfig::default()).await.unwrap(),
            client: Client::new(),
            published: published(),
            wrong: Vec::new(),
        }
    }

    /// Sends a request and looks at its answer.
    async fn look(&mut self, request: RequestBuilder, expected: u16) -> Value {
        let request = request.build().unwrap();
        let (method, url) = (request.method().to_string(), request.url().clone());
        let answer = self.client.execute(request).await.unwrap();
        let status = answer.status().as_u16();
        let body: Value = answer.json().await.unwrap();
        assert_eq!(status, expected, "{method} {url}: {body}");
        let wrong = self.published.answer(&method, url.path(), status, &body);
        self.wrong.extend(wrong);
        body
    }

    fn posting(&self, path: &str, form: Form<'_>) -> RequestBuilder {
        let call = self.client.post(format!("{}{path}", self.stripe.url()));
        call.bearer_auth(self.stripe.secret_key()).form(form)
    }

    async fn post(&mut self, path: &str, form: Form<'_>, expected: u16) -> Value {
        self.look(self.posting(path, form), expected).await
    }

    async fn get(&mut self, path: &str, expected: u16) -> Value {
        let call = self.client.get(format!("{}{path}", self.stripe.url()));
        let call = call.bearer_auth(self.stripe.secret_key());
        self.look(call, expected).await
    }

    async fn token(&mut self, path: &str, payment_method: &str) -> String {
        let expires = (Timestamp::now().unix_millis() / 1000 + 600).to_string();
        let form = [
            ("payment_method", payment_method),
            ("usage_limits[currency]", "usd"),
            ("usage_limits[max_amount]", "100"),
            ("usage_limits[expires_at]", &expires),
            ("seller_details[network_business_profile]", "profile_test"),
            ("shared_metadata[order]", "7"),
        ];
        id(&self.post(path, &form, 200).await)
    }

    fn charging(&self, token: &str, amount: &str) -> RequestBuilder {
        let form = [
            ("amount", amount),
            ("currency", "usd"),
            ("confirm", "true"),
            ("payment_method_data[shared_payment_granted_token]", token),
            ("metadata[order]", "7"),
            ("transfer_data[destination]", "acct_1"),
            ("transfer_data[amount]", "40"),
        ];
        self.posting(INTENTS, &form)
    }

    /// A charge with a fresh token of this test card.
    async fn charge(&mut self, payment_method: &str, expected: u16) -> Value {
        let token = self.token(GRANT, payment_method).await;
        self.look(self.charging(&token, "100"), expected).await
    }
}

fn id(object: &Value) -> String {
    object["id"].as_str().unwrap().to_owned()
}

/// Protects: what works against the sandbox reads Stripe's own answers as well.
#[tokio::test]
#[ignore = "needs openapi: FAREBOX_OPENAPI_FOLDER, the folder of Stripe's schema; ./tests/run fetches it"]
async fn every_answer_of_the_sandbox_is_one_of_stripes() {
    let mut checked = Checked::open().await;
    tokens(&mut checked).await;
    intents(&mut checked).await;
    refunds(&mut checked).await;
    elements(&mut checked).await;
    failures(&mut checked).await;
    assert!(checked.wrong.is_empty(), "{}", checked.wrong.join("\n"));
}

async fn tokens(checked: &mut Checked) {
    let issued = "/v1/shared_payment/issued_tokens";
    let granted = "/v1/shared_payment/granted_tokens";
    let token = checked.token(issued, "pm_card_visa").await;
    checked.get(&format!("{granted}/{token}"), 200).await;
    checked
        .post(&format!("{issued}/{token}/revoke"), &[], 200)
        .await;
    let token = checked.token(GRANT, "pm_card_visa").await;
    checked.get(&format!("{granted}/{token}"), 200).await;
    checked
        .post(&format!("{GRANT}/{token}/revoke"), &[], 200)
        .await;
    let seen = checked.get(&format!("{granted}/{token}"), 200).await;
    assert_eq!(seen["deactivated_reason"], "revoked");
    checked.get(&format!("{granted}/spt_none"), 404).await;
    checked
        .post(GRANT, &[("payment_method", "pm_card_visa")], 400)
        .await;
}

async fn intents(checked: &mut Checked) {
    let paid = checked.charge("pm_card_visa", 200).await;
    assert_eq!(paid["status"], "succeeded");
    let waiting = checked.charge("pm_card_authenticationRequired", 200).await;
    assert_eq!(waiting["status"], "requires_action");
    let processing = checked.charge("pm_usBankAccount_processing", 200).await;
    assert_eq!(processing["status"], "processing");
    for method in [
        "pm_card_chargeDeclined",
        "pm_card_chargeDeclinedInsufficientFunds",
        "pm_card_chargeDeclinedExpiredCard",
    ] {
        let declined = checked.charge(method, 402).await;
        let intent = id(&declined["error"]["payment_intent"]);
        checked.get(&format!("{INTENTS}/{intent}"), 200).await;
    }
    for intent in [&paid, &processing] {
        checked.get(&format!("{INTENTS}/{}", id(intent)), 200).await;
    }
    let cancel = format!("{INTENTS}/{}/cancel", id(&waiting));
    checked.post(&cancel, &[], 200).await;
    checked.post(&cancel, &[], 400).await;
    let listed = checked.get(&format!("{INTENTS}?limit=3"), 200).await;
    assert_eq!(listed["data"].as_array().unwrap().len(), 3);
    let query = "query=metadata%5B'order'%5D:'7'&limit=100";
    let found = checked.get(&format!("{INTENTS}/search?{query}"), 200).await;
    assert_eq!(found["data"].as_array().unwrap().len(), 6);
    checked.get("/v1/balance", 200).await;
}

async fn refunds(checked: &mut Checked) {
    let paid = id(&checked.charge("pm_card_visa", 200).await);
    let part = [("payment_intent", paid.as_str()), ("amount", "20")];
    let refund = id(&checked.post(REFUNDS, &part, 200).await);
    checked.get(&format!("{REFUNDS}/{refund}"), 200).await;
    for fault in [Fault::Processing, Fault::Decline("declined".to_owned())] {
        checked.stripe.fault_refund(fault);
        let back = [("reverse_transfer", "true"), ("reason", "duplicate")];
        checked
            .post(REFUNDS, &[part.as_slice(), &back].concat(), 200)
            .await;
    }
    let list = format!("{REFUNDS}?payment_intent={paid}");
    let listed = checked.get(&list, 200).await;
    assert_eq!(listed["data"].as_array().unwrap().len(), 3);
    let too_much = [("payment_intent", paid.as_str()), ("amount", "1000")];
    checked.post(REFUNDS, &too_much, 400).await;
    checked
        .post(REFUNDS, &[("payment_intent", "pi_none")], 404)
        .await;
    checked.get(&format!("{REFUNDS}/re_none"), 404).await;
}

/// Protects: what reads the sandbox's calls reads Stripe's own.
#[tokio::test]
#[ignore = "needs openapi: FAREBOX_OPENAPI_FOLDER, the folder of Stripe's schema; ./tests/run fetches it"]
async fn every_event_of_the_sandbox_is_one_of_stripes() {
    let mut checked = Checked::open().await;
    intents(&mut checked).await;
    refunds(&mut checked).await;
    let paid = id(&checked.charge("pm_card_visa", 200).await);
    let refund = checked.stripe.refund_by_hand(&paid, None).unwrap();
    assert!(checked.stripe.resolve_refund(&refund, false));
    // It takes calls and never answers; what is looked at is what was sent there.
    let endpoint = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", endpoint.local_addr().unwrap());
    checked.stripe.notify(Some((&url, "whsec_test")));
    let mut seen = std::collections::BTreeSet::new();
    for sent in checked.stripe.sent() {
        let object = &sent.body["data"]["object"];
        let kind = object["object"].as_str().unwrap();
        // `charge.refunded` is of a charge.
        assert!(sent.kind.starts_with(kind), "{} of a {kind}", sent.kind);
        assert_eq!(sent.body["type"], sent.kind.as_str());
        checked
            .wrong
            .extend(checked.published.object("event", &sent.body));
        checked.wrong.extend(checked.published.object(kind, object));
        seen.insert(sent.kind);
    }
    assert!(checked.wrong.is_empty(), "{}", checked.wrong.join("\n"));
    let expected = [
        "charge.refunded",
        "payment_intent.canceled",
        "payment_intent.payment_failed",
        "payment_intent.processing",
        "payment_intent.requires_action",
        "payment_intent.succeeded",
        "refund.created",
        "refund.updated",
    ];
    assert!(seen.iter().eq(expected), "{seen:?}");
}

async fn elements(checked: &mut Checked) {
    let key = checked.stripe.publishable_key().to_owned();
    let card = |number: &'static str| {
        let details = [
            ("card[number]", number),
            ("card[exp]", "12 / 40"),
            ("card[cvc]", "123"),
        ];
        [
            [("key", key.clone()), ("type", "card".to_owned())].as_slice(),
            &details.map(|(name, value)| (name, value.to_owned())),
        ]
        .concat()
    };
    for (number, expected) in [("4242424242424242", 200), ("4242", 402)] {
        let form = card(number);
        let form: Vec<_> = form
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        checked.post("/v1/payment_methods", &form, expected).await;
    }
}

async fn failures(checked: &mut Checked) {
    for (fault, expected) in [
        (Fault::Conflict, 409),
        (Fault::RateLimited, 429),
        (Fault::ErrorBeforeCommit, 500),
        (Fault::ErrorAfterCommit, 500),
        (Fault::Decline("fraudulent".to_owned()), 402),
    ] {
        checked.stripe.fault(fault);
        checked.charge("pm_card_visa", expected).await;
    }
    let token = checked.token(GRANT, "pm_card_visa").await;
    let keyed = |checked: &Checked, amount| {
        let call = checked.charging(&token, amount);
        call.header("idempotency-key", "k")
    };
    // Long enough for the second to meet the first, on a machine that does much else.
    checked.stripe.fault(Fault::Slow(Duration::from_secs(6)));
    let first = tokio::spawn(keyed(checked, "100").send());
    // The sandbox writes a request down before it begins.
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    let arrived = |checked: &Checked| {
        let requests = checked.stripe.requests();
        requests.iter().any(|seen| {
            seen.headers
                .get("idempotency-key")
                .is_some_and(|key| key == "k")
        })
    };
    while !arrived(checked) {
        assert!(tokio::time::Instant::now() < deadline, "nothing arrived");
        tokio::task::yield_now().await;
    }
    let met = checked.look(keyed(checked, "100"), 409).await;
    assert_eq!(met["error"]["code"], "idempotency_key_in_use");
    assert!(first.await.unwrap().unwrap().status().is_success());
    let other = checked.look(keyed(checked, "90"), 400).await;
    assert_eq!(other["error"]["type"], "idempotency_error");
    checked.look(checked.charging(&token, "100"), 400).await;
    checked.look(checked.charging("spt_none", "100"), 404).await;
    checked.post(INTENTS, &[("currency", "usd")], 400).await;
    checked.get(&format!("{INTENTS}/pi_none"), 404).await;
    checked.get(&format!("{INTENTS}?limit=1000"), 400).await;
    let stranger = checked
        .client
        .get(format!("{}{INTENTS}", checked.stripe.url()));
    checked
        .look(stranger.bearer_auth("sk_test_none"), 401)
        .await;
}
