//! Payment messages of sessions that a server redirects: the credential goes nowhere else, and what
//! is found there is not believed.

use std::sync::{Arc, Mutex};

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::any,
};
use farebox_client::session::{Answer, SessionError, Store, VolatileStore};
use farebox_core::wire::{Credential, CredentialHeader};
use farebox_http::{SessionCallError, SessionClient};

use crate::{
    shop::{Coins, Seller as _, Server, refusal, sessions},
    support::serve,
};

/// A server of coins in front of another one, which it redirects to.
struct Front {
    server: Arc<Server>,
    elsewhere: String,
    /// What is redirected: requests of this method that present something.
    redirects: &'static str,
    /// Refused once with a challenge that wants its credential in the other header.
    moves: Mutex<bool>,
    seen: Arc<Mutex<Vec<HeaderMap>>>,
}

async fn front(State(front): State<Arc<Front>>, request: Request) -> Response {
    let headers = request.headers();
    front.seen.lock().unwrap().push(headers.clone());
    let Some(value) = headers.get(header::AUTHORIZATION) else {
        return refusal(front.server.refuse("payment-required"));
    };
    if request.method().as_str() == front.redirects {
        let to = [(header::LOCATION, front.elsewhere.clone())];
        return (StatusCode::TEMPORARY_REDIRECT, to).into_response();
    }
    let mut refused = front.server.refuse("insufficient-balance");
    if std::mem::take(&mut *front.moves.lock().unwrap())
        && let Answer::Refused { challenges, .. } = &mut refused
    {
        challenges[0].header = Some(CredentialHeader::PaymentAuthorization);
        return refusal(refused);
    }
    let credential: Credential = Credential::parse(value.as_bytes()).unwrap().unwrap();
    match front.server.take(&credential, 1) {
        Answer::Accepted(receipt) => {
            let receipt = receipt.unwrap().to_header().unwrap();
            ([("payment-receipt", receipt)], "ha").into_response()
        }
        other => refusal(other),
    }
}

type Seen = Arc<Mutex<Vec<HeaderMap>>>;

async fn found(State(seen): State<Seen>, headers: HeaderMap) -> Response {
    seen.lock().unwrap().push(headers);
    StatusCode::NO_CONTENT.into_response()
}

struct Opened {
    client: SessionClient,
    url: String,
    front: Arc<Front>,
    elsewhere: Seen,
}

async fn open(redirects: &'static str) -> Opened {
    let elsewhere = Seen::default();
    let other = Router::new().fallback(any(found));
    let other = serve(other.with_state(elsewhere.clone())).await;
    let state = Arc::new(Front {
        server: Server::new(1, 10),
        elsewhere: format!("http://{other}/"),
        redirects,
        moves: Mutex::default(),
        seen: Seen::default(),
    });
    let app = Router::new().fallback(any(front));
    let url = format!("http://{}/", serve(app.with_state(state.clone())).await);
    let store: Arc<dyn Store> = Arc::new(VolatileStore::new());
    let wallet = Coins::new(&state.server.chain);
    let client = SessionClient::new(reqwest::Client::new(), sessions(&wallet, &store, 100));
    Opened {
        client,
        url,
        front: state,
        elsewhere,
    }
}

impl Opened {
    async fn get(&self) -> Result<reqwest::Response, SessionCallError> {
        let request = self.client.http().get(&self.url).build().unwrap();
        self.client.send(request).await
    }

    fn assert_kept(&self) {
        for headers in self.elsewhere.lock().unwrap().iter() {
            for (name, value) in headers {
                let value = String::from_utf8_lossy(value.as_bytes());
                assert!(!value.contains("Payment "), "{name}: {value}");
            }
        }
    }
}

/// Protects: a close that ends up elsewhere is not taken for closed; and a request with a credential
/// has a key.
#[tokio::test]
async fn a_redirected_close_closes_nothing() {
    let opened = open("POST").await;
    assert_eq!(opened.get().await.unwrap().text().await.unwrap(), "ha");
    for headers in opened.front.seen.lock().unwrap().iter() {
        let paid = headers.contains_key(header::AUTHORIZATION);
        assert_eq!(headers.contains_key("idempotency-key"), paid, "{headers:?}");
    }
    let error = opened.client.close_all().await.unwrap_err();
    assert!(matches!(error, SessionError::Unreachable(_)), "{error}");
    assert_eq!(opened.client.sessions().channels().await.unwrap().len(), 1);
    assert!(!opened.elsewhere.lock().unwrap().is_empty());
    opened.assert_kept();
}

/// Protects: nor is a deposit taken for made.
#[tokio::test]
async fn a_redirected_deposit_is_not_made() {
    let opened = open("GET").await;
    let error = opened.get().await.unwrap_err();
    let unknown = matches!(
        error,
        SessionCallError::Session(SessionError::OutcomeUnknown { .. })
    );
    assert!(unknown, "{error}");
    let channels = opened.client.sessions().channels().await.unwrap();
    assert_eq!(channels[0].phase, "opening");
    opened.assert_kept();
}

/// Protects: in mid-call a server does not move the credential into a header that would follow a
/// redirect to another host.
#[tokio::test]
async fn a_credential_stays_in_its_header() {
    let opened = open("none").await;
    opened.get().await.unwrap();
    *opened.front.moves.lock().unwrap() = true;
    let error = opened.get().await.unwrap_err();
    let refused = matches!(
        error,
        SessionCallError::Session(SessionError::NotAccepted { .. })
    );
    assert!(refused, "{error}");
    let seen = opened.front.seen.lock().unwrap();
    assert!(
        seen.iter()
            .all(|headers| !headers.contains_key("payment-authorization"))
    );
}
