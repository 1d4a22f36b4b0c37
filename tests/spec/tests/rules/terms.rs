//! What a challenge is tied to besides its signature; numbers are those of `spec/edge-cases.toml`.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering::SeqCst},
    },
};

use axum::{
    Router,
    body::Body,
    http::{Method as Verb, StatusCode},
    routing::get,
};
use farebox_core::{
    Charge, ChargeTerms, Offer, Session, SessionTerms, Typed, compose, wire::CredentialHeader,
};
use farebox_engine::{Clock, Inbound, MemoryStore};
use farebox_http::PaymentLayer;
use farebox_wire::{Challenge, SecretRing};
use serde_json::{Map, Value, json};

use crate::{
    answers::Vouchers,
    common::{
        OLD, decoded, engine, header, parameters, parameters_of, problem, rail, request, send, shop,
    },
};

/// A shop that sells one joke at these terms, for proofs that are the payment.
fn at(disk: &Arc<MemoryStore>, terms: impl IntoIterator<Item = ChargeTerms>) -> Router {
    sold(disk, true, terms)
}

/// The same for proofs that authorise it.
fn settled_at(disk: &Arc<MemoryStore>, terms: impl IntoIterator<Item = ChargeTerms>) -> Router {
    sold(disk, false, terms)
}

fn sold(
    disk: &Arc<MemoryStore>,
    prepaid: bool,
    terms: impl IntoIterator<Item = ChargeTerms>,
) -> Router {
    let (engine, rail) = (engine(&[OLD], disk, Clock::system()), rail(prepaid));
    let offers = terms
        .into_iter()
        .map(|terms| Offer::new::<Charge>(rail.clone(), terms).unwrap());
    let gate = engine.gate("GET /joke", compose(offers).unwrap()).unwrap();
    let joke = get(|| async { "a joke" }).layer(PaymentLayer::new(gate));
    Router::new().route("/joke", joke)
}

async fn challenge(shop: &Router) -> Map<String, Value> {
    let response = send(shop, request(Verb::GET, "/joke")).await;
    assert_eq!(response.status(), 402);
    parameters(&response)
}

/// The status and the last word of the problem, if there is one.
async fn pay(shop: &Router, challenge: Map<String, Value>, token: &str) -> (u16, String) {
    let mut request = request(Verb::GET, "/joke");
    let header = header(challenge, token).parse().unwrap();
    request.headers_mut().insert("authorization", header);
    let response = send(shop, request).await;
    let status = response.status();
    let kind = match status {
        StatusCode::OK => String::new(),
        _ => {
            let kind = problem(response).await["type"].clone();
            kind.as_str().unwrap().rsplit('/').next().unwrap().into()
        }
    };
    (status.as_u16(), kind)
}

fn full() -> ChargeTerms {
    ChargeTerms {
        amount: "5".into(),
        currency: Some("usd".into()),
        recipient: Some("me".into()),
        description: Some("a joke".into()),
        external_id: Some("order-1".into()),
        options: Map::new(),
    }
}

/// 34, 35: what the route asks for now counts, whatever was asked for before; but what is paid
/// already was paid for what was asked for.
#[tokio::test]
async fn a_route_that_asks_for_something_else_takes_no_old_challenge() {
    let changes: [fn(&mut ChargeTerms); 4] = [
        |terms| terms.amount = "6".into(),
        |terms| terms.currency = Some("eur".into()),
        |terms| terms.recipient = Some("you".into()),
        |terms| terms.external_id = Some("order-2".into()),
    ];
    let disk = Arc::default();
    let issued = challenge(&settled_at(&disk, [full()])).await;
    let refused = (402, "invalid-challenge".to_owned());
    for (n, change) in changes.into_iter().enumerate() {
        let mut terms = full();
        change(&mut terms);
        let changed = settled_at(&disk, [terms.clone()]);
        assert_eq!(pay(&changed, issued.clone(), "t").await, refused, "{n}");
        let paid = challenge(&at(&disk, [full()])).await;
        let changed = at(&disk, [terms]);
        assert_eq!(pay(&changed, paid, &n.to_string()).await.0, 200, "{n}");
    }
    assert_eq!(pay(&settled_at(&disk, [full()]), issued, "t").await.0, 200);
}

/// 37: text for people decides nothing, least of all for who has paid by then.
#[tokio::test]
async fn another_description_refuses_nobody() {
    let disk = Arc::default();
    let issued = challenge(&at(&disk, [full()])).await;
    assert_eq!(issued["description"], "a joke");
    let described = |description: Option<&str>| {
        let description = description.map(str::to_owned);
        at(
            &disk,
            [ChargeTerms {
                description,
                ..full()
            }],
        )
    };
    let mut reworded = issued.clone();
    reworded.insert("description".into(), json!("the same joke"));
    assert_eq!(pay(&described(Some("new")), reworded, "1").await.0, 200);
    let issued = challenge(&described(None)).await;
    assert_eq!(pay(&described(Some("new")), issued, "2").await.0, 200);
}

/// 39, 40: one method at several terms.
#[tokio::test]
async fn each_of_several_currencies_is_paid_as_it_was_issued() {
    let disk = Arc::default();
    let terms = |currency: &str, amount: &str| ChargeTerms::amount(amount).currency(currency);
    let shop = at(&disk, [terms("usd", "5"), terms("eur", "4")]);
    let response = send(&shop, request(Verb::GET, "/joke")).await;
    let lines = response.headers().get_all("www-authenticate").iter();
    let issued: Vec<_> = lines
        .map(|line| parameters_of(line.to_str().unwrap()))
        .collect();
    let asked: Vec<_> = issued.iter().map(|c| decoded(&c["request"])).collect();
    let pairs: Vec<_> = asked
        .iter()
        .map(|r| (r["currency"].clone(), r["amount"].clone()))
        .collect();
    assert_eq!(
        pairs,
        [("usd", "5"), ("eur", "4")].map(|(c, a)| (json!(c), json!(a)))
    );
    // The request of one under the id of the other is neither.
    let mut mixed = issued[1].clone();
    mixed.insert("request".into(), issued[0]["request"].clone());
    assert_eq!(pay(&shop, mixed, "x").await.1, "invalid-challenge");
    for (n, challenge) in issued.iter().enumerate().rev() {
        assert_eq!(pay(&shop, challenge.clone(), &format!("t{n}")).await.0, 200);
    }
    // In another order the first is still the one that was issued first, or is asked anew.
    let swapped = || [terms("eur", "4"), terms("usd", "5")];
    let issued = challenge(&at(&disk, [terms("usd", "5")])).await;
    let refused = pay(&settled_at(&disk, swapped()), issued.clone(), "s").await;
    assert_eq!(refused.1, "invalid-challenge");
    assert_eq!(pay(&at(&disk, swapped()), issued, "s").await.0, 200);
}

/// 29: the secret's owner may have signed anything.
#[tokio::test]
async fn a_challenge_without_expiry_opens_nothing() {
    let disk = Arc::default();
    let shop = at(&disk, [full()]);
    let mut challenge: Challenge =
        serde_json::from_value(Value::Object(challenge(&shop).await)).unwrap();
    challenge.expires = None;
    SecretRing::new([OLD.into()]).unwrap().sign(&mut challenge);
    let Value::Object(signed) = json!(challenge) else {
        panic!("a challenge is an object")
    };
    let refused = (402, "invalid-challenge".to_owned());
    assert_eq!(pay(&shop, signed, "t").await, refused);
}

/// 30: whatever the intent.
#[tokio::test]
async fn challenges_of_any_intent_live_five_minutes() {
    let now = Arc::new(AtomicI64::new(1_800_000_000_000));
    let clock = now.clone();
    let clock = Clock::from_fn(move || clock.load(SeqCst));
    let engine = engine(&[OLD], &Arc::default(), clock);
    let charge = Offer::new::<Charge>(rail(true), ChargeTerms::amount("5")).unwrap();
    let terms = SessionTerms {
        amount: "1".into(),
        unit: "token".into(),
        ..SessionTerms::default()
    };
    let session = Typed::<Vouchers, Session>::new(Vouchers::default());
    let session = Offer::new::<Session>(Arc::new(session), terms).unwrap();
    let offers = compose([charge, session]).unwrap();
    let gate = engine.gate("GET /joke", offers).unwrap();
    let challenges = gate.challenges(&Inbound::default()).await.unwrap();
    let intents: Vec<_> = challenges.iter().map(|c| c.intent.as_str()).collect();
    assert_eq!(intents, ["charge", "session"]);
    for challenge in challenges {
        let expires = challenge.expires.unwrap().unix_millis();
        assert_eq!(expires - now.load(SeqCst), 300_000, "{}", challenge.intent);
    }
}

/// 23: a peer that decodes what it was sent and echoes that.
#[tokio::test]
async fn an_echo_of_objects_is_the_same_challenge() {
    let disk = Arc::default();
    let shop = at(&disk, [full()]);
    for (n, members) in [&["request"][..], &["opaque"], &["request", "opaque"]]
        .into_iter()
        .enumerate()
    {
        let mut echo = challenge(&shop).await;
        for member in members {
            let object = decoded(&echo[*member]);
            echo.insert((*member).to_owned(), object);
        }
        assert_eq!(echo["description"], "a joke");
        let paid = pay(&shop, echo, &format!("t{n}")).await;
        assert_eq!(paid.0, 200, "{members:?}");
    }
    let mut cheaper = challenge(&shop).await;
    let mut request = decoded(&cheaper["request"]);
    request["amount"] = json!("1");
    cheaper.insert("request".into(), request);
    assert_eq!(pay(&shop, cheaper, "c").await.1, "invalid-challenge");
}

/// 43: what was quoted for an empty request does not buy the answer to another.
#[tokio::test]
async fn a_challenge_for_no_body_takes_none_later() {
    let shop = shop(&[OLD], &Arc::default());
    let issued = parameters(&send(&shop, request(Verb::POST, "/ask")).await);
    assert!(!issued.contains_key("digest"));
    let ask = |body: &'static str| {
        let mut request = request(Verb::POST, "/ask");
        let header = header(issued.clone(), "t").parse().unwrap();
        request.headers_mut().insert("authorization", header);
        *request.body_mut() = Body::from(body);
        request
    };
    let refused = send(&shop, ask("why?")).await;
    assert_eq!(refused.status(), 402);
    assert!(parameters(&refused).contains_key("digest"));
    assert_eq!(send(&shop, ask("")).await.status(), 200);
}

/// 46: the header that pays is the gate's choice, and the body is bound in any case.
#[tokio::test]
async fn a_body_is_bound_whatever_header_pays() {
    let engine = engine(&[OLD], &Arc::default(), Clock::system());
    let offer = Offer::new::<Charge>(rail(true), ChargeTerms::amount("5")).unwrap();
    let gate = engine.gate("POST /ask", compose([offer]).unwrap()).unwrap();
    let gate = gate.credentials_in(CredentialHeader::PaymentAuthorization);
    let answer = |body: String| async move { body };
    let route = axum::routing::post(answer).layer(PaymentLayer::new(gate));
    let shop = Router::new().route("/ask", route);
    let ask = |name: &'static str, header: String, body: &'static str| {
        let mut request = request(Verb::POST, "/ask");
        request.headers_mut().insert(name, header.parse().unwrap());
        *request.body_mut() = Body::from(body);
        request
    };
    let asked = send(&shop, ask("x-none", String::new(), "why?")).await;
    let issued = parameters(&asked);
    assert_eq!(issued["header"], "Payment-Authorization");
    let paid = || header(issued.clone(), "t");
    for (name, body, status) in [
        ("authorization", "why?", 402),
        ("payment-authorization", "how?", 402),
        ("payment-authorization", "why?", 200),
    ] {
        let response = send(&shop, ask(name, paid(), body)).await;
        assert_eq!(response.status(), status, "{name} {body}");
    }
}

/// 28: whoever compares an id by hand compares it byte by byte until the first that differs.
#[test]
fn ids_are_compared_in_one_place() {
    let root = Path::new("../..");
    let secret = std::fs::read_to_string(root.join("crates/wire/src/secret.rs")).unwrap();
    assert!(secret.contains("mac.verify_slice(&tag)"));
    let mut keyed = Vec::new();
    for manifest in manifests(root) {
        let text = std::fs::read_to_string(&manifest).unwrap();
        let table: toml::Table = toml::from_str(&text).unwrap();
        let uses = table.get("dependencies").and_then(|d| d.get("hmac"));
        keyed.extend(uses.map(|_| manifest));
    }
    // Stripe's is for its webhooks' signatures, which are compared in constant time too.
    let webhook = std::fs::read_to_string(root.join("plugins/stripe/src/webhook.rs")).unwrap();
    assert!(webhook.contains(".verify_slice("));
    keyed.sort();
    let known =
        ["crates/wire", "plugins/stripe"].map(|folder| root.join(folder).join("Cargo.toml"));
    assert_eq!(keyed, known, "who can compute an id could compare it");
}

fn manifests(root: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for folder in ["crates", "plugins"] {
        for entry in std::fs::read_dir(root.join(folder)).unwrap() {
            let manifest = entry.unwrap().path().join("Cargo.toml");
            found.extend(manifest.exists().then_some(manifest));
        }
    }
    found
}
