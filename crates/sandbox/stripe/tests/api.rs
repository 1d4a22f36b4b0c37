//! The sandbox answers as Stripe documents it.
#![allow(clippy::unwrap_used, reason = "helpers of tests, outside any #[test]")]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use farebox_sandbox_stripe::{Fault, Stripe, StripeConfig};
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use serde_json::Value;

struct Account {
    stripe: Stripe,
    client: Client,
}

impl Account {
    async fn open() -> Self {
        Self::with(StripeConfig::default()).await
    }

    async fn with(config: StripeConfig) -> Self {
        Self {
            stripe: Stripe::start(config).await.unwrap(),
            client: Client::new(),
        }
    }

    fn post(&self, path: &str, form: &[(&str, &str)]) -> RequestBuilder {
        let url = format!("{}{path}", self.stripe.url());
        self.client
            .post(url)
            .basic_auth(self.stripe.secret_key(), None::<&str>)
            .form(form)
    }

    async fn get(&self, path: &str) -> Value {
        let url = format!("{}{path}", self.stripe.url());
        let reply = self
            .client
            .get(url)
            .bearer_auth(self.stripe.secret_key())
            .send()
            .await
            .unwrap();
        reply.json().await.unwrap()
    }

    async fn token(&self, payment_method: &str) -> String {
        let expires = (now() + 600).to_string();
        let reply = self
            .post(
                "/v1/test_helpers/shared_payment/granted_tokens",
                &[
                    ("payment_method", payment_method),
                    ("usage_limits[currency]", "usd"),
                    ("usage_limits[max_amount]", "100"),
                    ("usage_limits[expires_at]", &expires),
                    ("seller_details[network_id]", "internal"),
                ],
            )
            .send()
            .await
            .unwrap();
        let token: Value = reply.json().await.unwrap();
        token["id"].as_str().unwrap().to_owned()
    }

    fn charge(&self, token: &str, amount: &str) -> RequestBuilder {
        self.post(
            "/v1/payment_intents",
            &[
                ("amount", amount),
                ("currency", "usd"),
                ("confirm", "true"),
                ("shared_payment_granted_token", token),
                ("automatic_payment_methods[enabled]", "true"),
                ("automatic_payment_methods[allow_redirects]", "never"),
                ("metadata[order]", "7"),
            ],
        )
    }
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

async fn read(request: RequestBuilder) -> (StatusCode, bool, Value) {
    let reply: Response = request.send().await.unwrap();
    assert!(
        reply.headers()["request-id"]
            .to_str()
            .unwrap()
            .starts_with("req_")
    );
    let replayed = reply
        .headers()
        .get("idempotent-replayed")
        .is_some_and(|v| v == "true");
    (reply.status(), replayed, reply.json().await.unwrap())
}

#[tokio::test]
async fn a_token_pays_once_within_its_limits() {
    let account = Account::open().await;
    let token = account.token("pm_card_visa").await;

    let (status, _, error) = read(account.charge(&token, "101")).await;
    assert_eq!(status, 400, "over the maximum");
    assert_eq!(error["error"]["param"], "shared_payment_granted_token");

    let (status, replayed, intent) = read(account.charge(&token, "100")).await;
    assert_eq!((status, replayed), (StatusCode::OK, false));
    assert_eq!(intent["status"], "succeeded");
    assert_eq!(intent["metadata"]["order"], "7");

    let (status, _, _) = read(account.charge(&token, "1")).await;
    assert_eq!(status, 400, "below the currency's minimum");
    let (status, _, _) = read(account.charge(&token, "100")).await;
    assert_eq!(status, 400, "consumed");

    let seen = account
        .get(&format!("/v1/shared_payment/granted_tokens/{token}"))
        .await;
    assert_eq!(seen["deactivated_reason"], "consumed");
    let recorded = account.stripe.requests();
    assert!(
        !format!("{recorded:?}").contains(&token),
        "records hold no token"
    );
    assert_eq!(account.stripe.total("usd"), 100);
    assert_eq!(
        account.get("/v1/balance").await["available"][0]["amount"],
        100
    );
}

#[tokio::test]
async fn expired_revoked_and_foreign_tokens_do_not_pay() {
    let account = Account::open().await;
    let revoked = account.token("pm_card_visa").await;
    let path = format!("/v1/test_helpers/shared_payment/granted_tokens/{revoked}/revoke");
    let (status, _, seen) = read(account.post(&path, &[])).await;
    assert_eq!(
        (status, &seen["deactivated_reason"]),
        (StatusCode::OK, &"revoked".into())
    );
    assert_eq!(read(account.charge(&revoked, "50")).await.0, 400);

    let expired = account.token("pm_card_visa").await;
    account.stripe.advance_clock(Duration::from_secs(601));
    assert_eq!(read(account.charge(&expired, "50")).await.0, 400);
    assert_eq!(read(account.charge("spt_nobody", "50")).await.0, 404);
    assert!(account.stripe.charged().is_empty());
}

#[tokio::test]
async fn keys_unknown_parameters_and_urls_are_checked() {
    let account = Account::open().await;
    let url = format!("{}/v1/balance", account.stripe.url());
    assert_eq!(account.client.get(&url).send().await.unwrap().status(), 401);
    assert_eq!(
        account
            .client
            .get(&url)
            .bearer_auth("sk_test_x")
            .send()
            .await
            .unwrap()
            .status(),
        401
    );
    assert_eq!(read(account.post("/v1/balance", &[])).await.0, 404);

    let (status, _, error) = read(account.post("/v1/payment_intents", &[("amuont", "1")])).await;
    assert_eq!(status, 400);
    assert_eq!(error["error"]["code"], "parameter_unknown");

    let recorded = account.stripe.requests();
    assert_eq!(recorded[0].path, "/v1/balance");
    assert!(
        recorded
            .iter()
            .all(|r| !r.headers.contains_key("authorization"))
    );
}

#[tokio::test]
async fn declines_and_required_actions_leave_the_money_where_it_is() {
    let account = Account::open().await;
    let token = account
        .token("pm_card_chargeDeclinedInsufficientFunds")
        .await;
    let (status, _, error) = read(account.charge(&token, "50")).await;
    assert_eq!(status, 402);
    assert_eq!(error["error"]["type"], "card_error");
    assert_eq!(error["error"]["decline_code"], "insufficient_funds");
    assert_eq!(
        error["error"]["payment_intent"]["status"],
        "requires_payment_method"
    );

    let token = account.token("pm_card_authenticationRequired").await;
    let (status, _, intent) = read(account.charge(&token, "50")).await;
    assert_eq!(
        (status, &intent["status"]),
        (StatusCode::OK, &"requires_action".into())
    );
    let path = format!(
        "/v1/payment_intents/{}/cancel",
        intent["id"].as_str().unwrap()
    );
    assert_eq!(read(account.post(&path, &[])).await.2["status"], "canceled");
    let (status, _, error) = read(account.post(&path, &[])).await;
    assert_eq!(status, 400, "cancelled already");
    assert_eq!(error["error"]["payment_intent"]["status"], "canceled");
    assert!(account.stripe.charged().is_empty());
}

#[tokio::test]
async fn an_idempotency_key_repeats_the_first_answer() {
    let account = Account::open().await;
    let token = account.token("pm_card_visa").await;
    let keyed = |amount| {
        account
            .charge(&token, amount)
            .header("idempotency-key", "k1")
    };
    let (_, replayed, first) = read(keyed("60")).await;
    assert!(!replayed);
    let (_, replayed, second) = read(keyed("60")).await;
    assert!(replayed);
    assert_eq!(first, second);

    let (status, _, error) = read(keyed("61")).await;
    assert_eq!(
        (status, &error["error"]["type"]),
        (StatusCode::BAD_REQUEST, &"idempotency_error".into())
    );
    assert_eq!(account.stripe.total("usd"), 60);

    // A refused parameter never began the work, so the key stays free.
    let free = |amount| {
        account
            .charge(&token, amount)
            .header("idempotency-key", "k2")
    };
    assert_eq!(read(free("1")).await.0, 400);
    assert!(!read(free("60")).await.1);

    account.stripe.advance_clock(Duration::from_secs(24 * 3600));
    assert_eq!(
        read(keyed("60")).await.0,
        400,
        "the key is forgotten, the token is still consumed"
    );
}

#[tokio::test]
async fn concurrent_requests_under_one_key_meet_409() {
    let config = StripeConfig::default().latency(Duration::from_millis(700));
    let account = Account::with(config).await;
    let token = account.token("pm_card_visa").await;
    let send = || read(account.charge(&token, "50").header("idempotency-key", "k"));
    let (a, b) = tokio::join!(send(), send());
    let mut statuses = [a.0.as_u16(), b.0.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409]);
    assert_eq!(account.stripe.charged().len(), 1);
}

#[tokio::test]
async fn faults_strike_in_order_and_say_whether_money_moved() {
    let account = Account::open().await;
    let send = |token: String, key: &'static str| {
        account
            .charge(&token, "50")
            .header("idempotency-key", key)
            .timeout(Duration::from_millis(500))
    };

    account.stripe.fault(Fault::RateLimited);
    account.stripe.faults(Fault::Conflict, 2);
    let token = account.token("pm_card_visa").await;
    for expected in [429, 409, 409, 200] {
        let (status, replayed, _) = read(send(token.clone(), "a")).await;
        assert_eq!((status.as_u16(), replayed), (expected, false));
    }

    account.stripe.fault(Fault::ErrorBeforeCommit);
    let token = account.token("pm_card_visa").await;
    assert_eq!(read(send(token.clone(), "b")).await.0, 500);
    let (status, replayed, _) = read(send(token, "b")).await;
    assert_eq!(
        (status.as_u16(), replayed),
        (500, true),
        "a failure is remembered as well"
    );
    assert_eq!(account.stripe.charged().len(), 1);

    account.stripe.fault(Fault::ErrorAfterCommit);
    let token = account.token("pm_card_visa").await;
    assert_eq!(read(send(token, "c")).await.0, 500);
    assert_eq!(account.stripe.charged().len(), 2);

    for (fault, key, charged) in [
        (Fault::HangAfterCommit, "d", 3),
        (Fault::DropAfterCommit, "e", 4),
        (Fault::DropBeforeCommit, "f", 4),
    ] {
        account.stripe.fault(fault);
        let token = account.token("pm_card_visa").await;
        assert!(send(token.clone(), key).send().await.is_err(), "{key}");
        assert_eq!(account.stripe.charged().len(), charged, "{key}");
    }
}

#[tokio::test]
async fn payment_intents_can_be_found() {
    let account = Account::with(StripeConfig::default().search_lag(Duration::from_secs(60))).await;
    account.stripe.fault(Fault::Processing);
    let token = account.token("pm_card_visa").await;
    let intent = read(account.charge(&token, "50")).await.2;
    let id = intent["id"].as_str().unwrap();
    assert_eq!(intent["status"], "processing");

    let search = "/v1/payment_intents/search?query=metadata%5B'order'%5D:'7'";
    assert_eq!(
        account.get(search).await["data"].as_array().unwrap().len(),
        0,
        "not indexed yet"
    );
    account.stripe.advance_clock(Duration::from_secs(60));
    assert_eq!(account.get(search).await["data"][0]["id"], id);
    let none = "/v1/payment_intents/search?query=metadata%5B'order'%5D:'8'";
    assert_eq!(account.get(none).await["data"].as_array().unwrap().len(), 0);

    assert!(account.stripe.resolve(id, true));
    assert_eq!(
        account.get(&format!("/v1/payment_intents/{id}")).await["status"],
        "succeeded"
    );
    let listed = account.get("/v1/payment_intents?limit=1").await;
    assert_eq!(listed["data"][0]["id"], id);
    assert_eq!(account.stripe.total("usd"), 50);
}

#[tokio::test]
async fn dropping_it_closes_its_connections() {
    let account = Account::open().await;
    account.get("/v1/balance").await;
    let url = format!("{}/v1/balance", account.stripe.url());
    drop(account.stripe);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
    while account.client.get(&url).send().await.is_ok() {
        assert!(tokio::time::Instant::now() < deadline, "still answers");
        tokio::task::yield_now().await;
    }
}
