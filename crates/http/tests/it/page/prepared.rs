//! What the page's script has a rail prepare, and for whom.

use std::sync::atomic::Ordering::SeqCst;

use axum::{
    body::Body,
    http::{Request, StatusCode, header::AUTHORIZATION},
};
use farebox_core::prelude::*;
use farebox_http::ChallengeLimit;
use serde_json::{Value, json};

use super::{Stall, credential, page};

/// Protects: what a rail makes for a page is made for a challenge of ours, for this resource, while
/// it can be paid; and paying with it is paying like anybody.
#[tokio::test]
async fn a_payload_is_prepared_for_the_challenge_and_no_other() {
    let stall = Stall::open(page()).await;
    let card = json!({ "card": "4242" });
    let challenge = stall.challenge().await;
    let prepared = stall.prepare("/joke", &challenge, &card).await;
    assert_eq!(
        (prepared.status, prepared.header("cache-control")),
        (200, "no-store")
    );
    let payload: Value = serde_json::from_str(&prepared.body).unwrap();
    assert_eq!(payload, json!({ "token": format!("for-{}", challenge.id) }));
    let served = stall.present(&challenge, &payload).await;
    assert_eq!((served.status, served.body.as_str()), (200, "a joke"));

    // Used: no fresh challenge, which would be paid as well. Altered, another's resource, lapsed.
    let used = stall.prepare("/joke", &challenge, &card).await;
    assert_eq!(
        (used.status, used.header("www-authenticate")),
        (403, ""),
        "{used:?}"
    );
    let mut forged = stall.challenge().await;
    forged.expires = Some(Timestamp::now().plus(std::time::Duration::from_secs(3600)));
    assert_eq!(stall.prepare("/joke", &forged, &card).await.status, 402);
    let fresh = stall.challenge().await;
    assert_eq!(stall.prepare("/poem", &fresh, &card).await.status, 402);
    assert_eq!(stall.minted.load(SeqCst), 1);
    stall.shop.now.fetch_add(600_000, SeqCst);
    assert_eq!(stall.prepare("/joke", &fresh, &card).await.status, 402);
    assert_eq!(stall.minted.load(SeqCst), 1, "nothing was made for them");

    let fresh = stall.challenge().await;
    let nonsense = stall.prepare("/joke", &fresh, &json!({ "cart": 1 })).await;
    assert!(
        nonsense.body.contains("malformed-credential"),
        "{nonsense:?}"
    );
    let without = Stall::open(None).await;
    let challenge = without.challenge().await;
    let refused = without.prepare("/joke", &challenge, &card).await;
    assert_ne!(
        refused.status, 200,
        "no page, nothing to prepare: {refused:?}"
    );
    assert_eq!(without.minted.load(SeqCst), 0);
}

/// Protects: the seller's account at its provider, from whoever has a script and time.
#[tokio::test]
async fn preparations_are_limited() {
    let stall = Stall::open(page()).await;
    let card = json!({ "card": "4242" });
    let challenge = stall.challenge().await;
    for _ in 0..3 {
        assert_eq!(stall.prepare("/joke", &challenge, &card).await.status, 200);
    }
    let fourth = stall.prepare("/joke", &challenge, &card).await;
    assert!(
        fourth.status == 402 && fourth.body.contains("too many attempts"),
        "{fourth:?}"
    );

    let hour = std::time::Duration::from_secs(3600);
    let limit = ChallengeLimit::new(2, hour, |_| None);
    let stall = Stall::open(page().map(|page| page.limit_preparations(limit))).await;
    for expected in [200, 200, 429, 429] {
        let challenge = stall.challenge().await;
        let prepared = stall.prepare("/joke", &challenge, &card).await;
        assert_eq!(prepared.status, expected, "{prepared:?}");
    }
    // Who pays with what was prepared makes room.
    let challenge = stall.challenge().await;
    let token = json!({ "token": format!("for-{}", challenge.id) });
    assert_eq!(
        stall.present(&challenge, &token).await.status,
        StatusCode::OK
    );
    let challenge = stall.challenge().await;
    assert_eq!(stall.prepare("/joke", &challenge, &card).await.status, 200);
}

/// Protects: a node that mints for each challenge, from whoever asks for them by another door.
#[tokio::test]
async fn challenges_of_refused_preparations_count() {
    let hour = std::time::Duration::from_secs(3600);
    let limit = ChallengeLimit::new(2, hour, |_| None);
    let stall = Stall::limited(page(), Some(limit)).await;
    let card = json!({ "card": "4242" });
    let mut forged = stall.challenge().await;
    forged.expires = Some(Timestamp::now().plus(hour));
    for expected in [402, 429, 429] {
        let refused = stall.prepare("/joke", &forged, &card).await;
        assert_eq!(refused.status, expected, "{refused:?}");
    }
}

/// Protects: payers behind one proxy from each other, and from who has no challenge at all.
#[tokio::test(start_paused = true)]
async fn a_client_is_who_the_challenge_limit_says() {
    let hour = std::time::Duration::from_secs(3600);
    let limit = ChallengeLimit::new(1_000, hour, |parts| {
        Some(parts.headers.get("x-client")?.to_str().ok()?.to_owned())
    });
    let stall = Stall::limited(page(), Some(limit)).await;
    let prepare = async |client: &str, path: &str| {
        let challenge = stall.challenge().await;
        let request = Request::get(path)
            .header("farebox-page", "prepare")
            .header("x-client", client)
            .header(
                AUTHORIZATION,
                credential(&challenge, &json!({ "card": "4242" })),
            );
        stall.ask(request.body(Body::empty()).unwrap()).await.status
    };
    // A challenge of another address costs nothing.
    for _ in 0..70 {
        assert_eq!(prepare("a", "/poem").await, 402);
    }
    for _ in 0..60 {
        assert_eq!(prepare("a", "/joke").await, 200);
    }
    assert_eq!(prepare("a", "/joke").await, 429);
    assert_eq!(prepare("b", "/joke").await, 200);
    tokio::time::advance(std::time::Duration::from_secs(1)).await;
    for expected in [200, 429] {
        assert_eq!(prepare("a", "/joke").await, expected, "one is forgiven");
    }
}
