//! Row by row: the situations a paid route can be in, and what it answers.

use std::sync::{Arc, atomic::Ordering::SeqCst};

use axum::http::header::AUTHORIZATION;
use farebox_core::wire::{Amount, Encoded, Timestamp};
use farebox_engine::{Clock, MemoryStore};
use farebox_http::PaymentLayer;
use serde_json::json;

use crate::support::{Answer, Shop, engine, pay, serve};

#[tokio::test]
async fn without_a_credential_every_rail_is_offered() {
    let shop = Shop::open().await;
    let answer = Answer::of(reqwest::Client::new().get(shop.url("/joke"))).await;
    assert_eq!(
        (answer.status, answer.kind().as_str()),
        (402, "payment-required")
    );
    let challenges = answer.challenges();
    let rails: Vec<_> = challenges.iter().map(|c| c.method.as_str()).collect();
    assert_eq!(
        rails,
        ["token", "prepaid"],
        "one header line each, in the server's order"
    );
    assert_eq!(
        answer.problem().unwrap().challenge_id.as_ref(),
        Some(&challenges[0].id)
    );
    assert!(
        challenges
            .iter()
            .all(|c| c.realm == "shop.example" && c.expires.is_some())
    );
    assert!(
        challenges.iter().all(|c| c.digest.is_none()),
        "a GET without a body binds none"
    );
    assert_eq!((shop.calls(), shop.moved()), (0, 0));
}

#[tokio::test]
async fn accept_payment_ranks_and_a_malformed_one_is_ignored() {
    let shop = Shop::open().await;
    for (accept, expected) in [
        (
            &["prepaid/*, token/charge;q=0.5"][..],
            &["prepaid", "token"][..],
        ),
        (&["prepaid/charge", "token/*;q=0"], &["prepaid"]),
        (&["card/charge"], &["token", "prepaid"]),
        (&[";;;"], &["token", "prepaid"]),
        (&[""], &["token", "prepaid"]),
    ] {
        let mut request = reqwest::Client::new().get(shop.url("/joke"));
        for value in accept {
            request = request.header("accept-payment", *value);
        }
        let answer = Answer::of(request).await;
        let rails: Vec<_> = answer.challenges().into_iter().map(|c| c.method).collect();
        assert_eq!(rails, expected, "{accept:?}");
    }
}

#[tokio::test]
async fn a_good_payment_is_served_and_receipted() {
    let shop = Shop::open().await;
    for (n, rail) in ["token", "prepaid"].into_iter().enumerate() {
        let challenge = shop.challenge("/joke", rail).await;
        let answer = shop.get("/joke", &pay(&challenge, "good-1")).await;
        assert_eq!((answer.status, answer.body), (200, format!("{rail}|")));
        let receipt = Answer {
            body: String::new(),
            ..answer
        };
        assert_eq!(receipt.header("cache-control"), "private, max-age=60");
        let receipt = receipt.receipt();
        assert_eq!(
            (receipt.method.as_str(), receipt.reference),
            (rail, format!("ref-{rail}"))
        );
        assert_eq!(receipt.extra["challengeId"], json!(challenge.id));
        assert_eq!(shop.calls(), n + 1);
    }
}

#[tokio::test]
async fn malformed_credentials_get_a_fresh_challenge() {
    let shop = Shop::open().await;
    let old = shop.challenge("/joke", "token").await;
    for value in [
        "Payment",
        "Payment !!!",
        "Payment e30",
        "Payment W10",
        "Payment bnVsbA",
        "payment a=b",
        "PAYMENT eyJjaGFsbGVuZ2UiOnt9LCJwYXlsb2FkIjp7fX0",
        "Payment \"quoted",
    ] {
        let request = reqwest::Client::new()
            .get(shop.url("/joke"))
            .header(AUTHORIZATION, value);
        Answer::of(request)
            .await
            .is_refused("malformed-credential", &old);
    }
    let shapeless = r#"{"number":7}"#;
    let mut credential = pay(&old, "good");
    credential.payload = farebox_core::wire::Payload::from_value(
        &serde_json::from_str::<serde_json::Value>(shapeless).unwrap(),
    )
    .unwrap();
    shop.get("/joke", &credential)
        .await
        .is_refused("malformed-credential", &old);
    assert_eq!((shop.calls(), shop.moved()), (0, 0));
}

#[tokio::test]
async fn what_was_not_issued_here_is_an_invalid_challenge() {
    let shop = Shop::open().await;
    let issued = shop.challenge("/joke", "token").await;
    let mut cheaper = issued.clone();
    let request = json!({ "amount": Amount::new(1), "currency": "pts" });
    cheaper.request = Encoded::encode(&request).unwrap();
    let mut longer = issued.clone();
    longer.expires = Some(Timestamp::from_unix_millis(i64::MAX));
    let mut elsewhere = issued.clone();
    elsewhere.realm = "other.example".into();
    let mut renamed = issued.clone();
    renamed.id = "x".repeat(43);
    let mut bare = issued.clone();
    bare.opaque = None;
    for forged in [cheaper, longer, elsewhere, renamed, bare] {
        shop.get("/joke", &pay(&forged, "good-1"))
            .await
            .is_refused("invalid-challenge", &issued);
    }
    // Issued, but for another route; and by another realm under the same secret.
    shop.get("/poem", &pay(&issued, "good-1"))
        .await
        .is_refused("invalid-challenge", &issued);
    let other = engine(
        "other.example",
        Arc::new(MemoryStore::new()),
        Clock::system(),
    );
    let gate = shop.gate_of(&other, "GET /joke");
    let foreign = gate
        .challenges(&farebox_engine::Inbound::default())
        .await
        .unwrap();
    shop.get("/joke", &pay(&foreign[0], "good-1"))
        .await
        .is_refused("invalid-challenge", &issued);
    assert_eq!((shop.calls(), shop.moved()), (0, 0));
    assert_eq!(
        shop.get("/joke", &pay(&issued, "good-1")).await.status,
        200,
        "it is still good"
    );
}

#[tokio::test]
async fn expired_challenges_are_refused_to_the_millisecond() {
    let shop = Shop::open().await;
    let challenge = shop.challenge("/joke", "token").await;
    let expires = challenge.expires.as_ref().unwrap().unix_millis();
    shop.now.store(expires, SeqCst);
    shop.get("/joke", &pay(&challenge, "good-1"))
        .await
        .is_refused("payment-expired", &challenge);
    assert_eq!(shop.moved(), 0);
    shop.now.store(expires - 1, SeqCst);
    assert_eq!(
        shop.get("/joke", &pay(&challenge, "good-1")).await.status,
        200
    );
}

#[tokio::test]
async fn a_wrong_proof_is_named_and_can_be_corrected() {
    let shop = Shop::open().await;
    let challenge = shop.challenge("/joke", "token").await;
    shop.get("/joke", &pay(&challenge, "bad"))
        .await
        .is_refused("verification-failed", &challenge);
    shop.get("/joke", &pay(&challenge, "torn"))
        .await
        .is_refused("token/torn-token", &challenge);
    shop.bank.declines.store(true, SeqCst);
    shop.get("/joke", &pay(&challenge, "good-1"))
        .await
        .is_refused("verification-failed", &challenge);
    assert_eq!((shop.calls(), shop.moved()), (0, 0));
}

#[tokio::test]
async fn unknown_rails_and_two_credentials_are_bad_requests() {
    let shop = Shop::open().await;
    let mut challenge = shop.challenge("/joke", "token").await;
    let good = pay(&challenge, "good-1").to_header().unwrap();
    challenge.method = "card".into();
    let answer = shop.get("/joke", &pay(&challenge, "good-1")).await;
    assert_eq!(
        (answer.status, answer.kind().as_str()),
        (400, "method-unsupported")
    );
    let get = || reqwest::Client::new().get(shop.url("/joke"));
    let both = format!("{good}, {good}");
    for request in [
        get()
            .header(AUTHORIZATION, &good)
            .header(AUTHORIZATION, &good),
        get()
            .header(AUTHORIZATION, &good)
            .header(AUTHORIZATION, "Payment !!!"),
        get().header(AUTHORIZATION, &both),
    ] {
        let answer = Answer::of(request).await;
        assert_eq!(
            (answer.status, answer.kind().as_str()),
            (400, "bad-request")
        );
    }
    assert_eq!((shop.calls(), shop.moved()), (0, 0));
}

#[tokio::test]
async fn used_challenges_and_proofs_are_refused_without_a_challenge() {
    let shop = Shop::open().await;
    for rail in ["token", "prepaid"] {
        let first = shop.challenge("/joke", rail).await;
        let credential = pay(&first, "good-1");
        assert_eq!(shop.get("/joke", &credential).await.status, 200);
        let calls = shop.calls();
        // Delivered already; the same challenge with another proof; the same proof elsewhere.
        let second = shop.challenge("/joke", rail).await;
        for reused in [credential, pay(&first, "good-2"), pay(&second, "good-1")] {
            let answer = shop.get("/joke", &reused).await;
            assert_eq!(
                (answer.status, answer.kind().as_str()),
                (403, "verification-failed")
            );
        }
        assert_eq!(shop.calls(), calls);
    }
    assert_eq!(shop.moved(), 1, "the settling rail settled once");
}

#[tokio::test]
async fn a_settlement_of_unknown_outcome_is_503_until_it_is_known() {
    let shop = Shop::open().await;
    shop.bank.silent.store(true, SeqCst);
    let credential = pay(&shop.challenge("/joke", "token").await, "good-1");
    for _ in 0..2 {
        let answer = shop.get("/joke", &credential).await;
        assert_eq!((answer.status, answer.header("retry-after")), (503, "1"));
        assert!(answer.problem().unwrap().detail.contains("same credential"));
    }
    assert_eq!(
        (shop.calls(), shop.moved()),
        (0, 1),
        "asking again does not settle again"
    );
    shop.bank.silent.store(false, SeqCst);
    assert_eq!(shop.get("/joke", &credential).await.status, 200);
    assert_eq!(shop.moved(), 1);
}

#[tokio::test]
async fn faults_are_5xx_without_challenge_or_detail() {
    let shop = Shop::open().await;
    let challenge = shop.challenge("/joke", "token").await;
    let answer = shop.get("/joke", &pay(&challenge, "fault")).await;
    assert_eq!(
        (answer.status, answer.kind().as_str()),
        (500, "internal-payment-error")
    );
    shop.store.off.store(true, SeqCst);
    let answer = shop.get("/joke", &pay(&challenge, "good-1")).await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, "2"));
    shop.store.off.store(false, SeqCst);
    assert_eq!(
        shop.get("/joke", &pay(&challenge, "good-1")).await.status,
        200
    );
    // A 402 must carry a challenge, so without a quote there is none.
    shop.bank.closed.store(true, SeqCst);
    for request in [
        reqwest::Client::new().get(shop.url("/joke")),
        reqwest::Client::new()
            .get(shop.url("/joke"))
            .header(AUTHORIZATION, "Payment !!!"),
    ] {
        assert_eq!(Answer::of(request).await.status, 503);
    }
}

/// Protects: a policy that denies after payment is 403, and the payment stays.
#[tokio::test]
async fn a_handler_that_denies_keeps_its_status() {
    let shop = Shop::open().await;
    let credential = pay(&shop.challenge("/joke", "token").await, "good-1");
    shop.desk.status.store(403, SeqCst);
    assert_eq!(shop.get("/joke", &credential).await.status, 403);
    shop.desk.status.store(200, SeqCst);
    assert_eq!(shop.get("/joke", &credential).await.status, 200);
    assert_eq!(shop.moved(), 1);
}

/// Protects: a handler without the layer is a 500 and never a free ride.
#[tokio::test]
async fn an_extractor_without_the_layer_is_our_mistake() {
    let handler = |payment: farebox_http::Payment| async move { payment.receipt.reference };
    let router = axum::Router::new().route("/joke", axum::routing::get(handler));
    let address = serve(router).await;
    let answer = Answer::of(reqwest::Client::new().get(format!("http://{address}/joke"))).await;
    assert_eq!(
        (answer.status, answer.kind().as_str()),
        (500, "internal-payment-error")
    );
}

/// Protects: a gate may take its credentials in another header, beside the route's own.
#[tokio::test]
async fn payment_authorization_leaves_authorization_alone() {
    let shop = Shop::open().await;
    let gate = shop
        .gate("GET /vip")
        .credentials_in(farebox_core::wire::CredentialHeader::PaymentAuthorization);
    let seen = |headers: axum::http::HeaderMap| async move {
        let names = ["authorization", "payment-authorization"];
        names
            .map(|n| {
                headers
                    .get(n)
                    .map_or("-", |v| v.to_str().unwrap())
                    .to_owned()
            })
            .join("|")
    };
    let route = axum::routing::get(seen).layer(PaymentLayer::new(gate));
    let address = serve(axum::Router::new().route("/vip", route)).await;
    let get = || {
        reqwest::Client::new()
            .get(format!("http://{address}/vip"))
            .bearer_auth("me")
    };
    let challenge = Answer::of(get()).await.challenge("token");
    let header = pay(&challenge, "good-1").to_header().unwrap();
    let in_the_wrong_one = reqwest::Client::new().get(format!("http://{address}/vip"));
    let answer = Answer::of(in_the_wrong_one.header(AUTHORIZATION, &header)).await;
    assert_eq!(answer.kind(), "payment-required");
    let answer = Answer::of(get().header("payment-authorization", header)).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "Bearer me|-"));
}
