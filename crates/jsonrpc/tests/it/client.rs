//! The client's loop against scripted servers, and against our own.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use farebox_client::{ClientError, Origin, Reason};
use farebox_core::wire::{Challenge, Encoded, Timestamp};
use farebox_jsonrpc::{
    Ask, ErrorObject, Id, Request, Response,
    client::{Answer, Caller, Exchange, Failure, PayError},
};
use serde_json::{Map, Value, json};

use crate::support::{Coins, Shop, joke, purse};

type Step = io::Result<Response>;

/// A server that follows a script and remembers what it was sent.
#[derive(Default)]
struct Script {
    steps: Mutex<VecDeque<Step>>,
    sent: Mutex<Vec<Value>>,
}

impl Script {
    fn new(steps: impl IntoIterator<Item = Step>) -> Arc<Self> {
        let steps = Mutex::new(steps.into_iter().collect());
        Arc::new(Self {
            steps,
            sent: Mutex::default(),
        })
    }

    async fn call(self: &Arc<Self>, caller: &Caller) -> Result<Answer<Value>, PayError<io::Error>> {
        caller.call(&mut self.exchange()).await
    }

    fn exchange(
        self: &Arc<Self>,
    ) -> Exchange<impl FnMut(Request) -> std::future::Ready<Step> + use<>> {
        let script = self.clone();
        let request = Request::new(1, "tools/call", Some(json!({"name": "joke"})));
        Exchange::new(request, move |request| {
            let sent = serde_json::to_value(request).unwrap();
            script.sent.lock().unwrap().push(sent);
            let step = script.steps.lock().unwrap().pop_front();
            std::future::ready(step.expect("no more calls than scripted"))
        })
    }

    /// The credentials that were sent.
    fn credentials(&self) -> Vec<Value> {
        let sent = self.sent.lock().unwrap();
        let credential = |call: &Value| {
            let meta = call["params"].get("_meta")?;
            meta.get("org.paymentauth/credential").cloned()
        };
        sent.iter().filter_map(credential).collect()
    }
}

fn result(result: Value) -> Step {
    Ok(Response {
        id: Id::from(1),
        outcome: Ok(result),
        meta: Map::new(),
    })
}

fn error(code: i64, data: Value) -> Step {
    Ok(Response {
        id: Id::from(1),
        outcome: Err(ErrorObject::new(code, "no").with(data)),
        meta: Map::new(),
    })
}

fn lost() -> Step {
    Err(io::Error::from(io::ErrorKind::ConnectionReset))
}

fn challenge(id: &str, method: &str, currency: &str, lives: i64) -> Value {
    let expires = Timestamp::now().unix_millis() + lives;
    let challenge = Challenge {
        id: id.into(),
        realm: "api.example.com".into(),
        method: method.into(),
        intent: "charge".into(),
        request: Encoded::encode(&json!({"amount": "5", "currency": currency})).unwrap(),
        expires: Some(Timestamp::from_unix_millis(expires)),
        digest: None,
        description: None,
        opaque: None,
        header: None,
    };
    json!(Ask::new(challenge).unwrap().json())
}

fn asking(challenges: &[Value]) -> Step {
    error(-32042, json!({ "challenges": challenges }))
}

fn usd(id: &str) -> Value {
    challenge(id, "test", "usd", 60_000)
}

fn served() -> Step {
    result(json!({"content": [], "_meta": {"org.paymentauth/receipt": {
        "status": "success", "method": "test", "challengeId": "a", "reference": "r",
        "timestamp": "2026-01-15T12:00:30Z",
    }}}))
}

fn caller() -> (Caller, Arc<Mutex<Vec<Challenge>>>) {
    let coins = Coins::default();
    let paid = coins.paid.clone();
    (Caller::local(purse(coins)).attempts(3), paid)
}

/// Protects: a free call is one call, without a credential and without a payment.
#[tokio::test]
async fn what_is_free_is_not_paid() {
    let (caller, paid) = caller();
    let script = Script::new([
        result(json!({"content": []})),
        error(-32601, json!(null)),
        lost(),
    ]);
    let answer = script.call(&caller).await.unwrap();
    assert!(answer.receipt.is_none() && answer.unserved.is_none());
    let failed = script.call(&caller).await.unwrap_err();
    assert!(matches!(failed, PayError::Error(error) if error.code == -32601));
    assert!(matches!(
        script.call(&caller).await.unwrap_err(),
        PayError::Call(_)
    ));
    assert_eq!(
        (script.credentials().len(), paid.lock().unwrap().len()),
        (0, 0)
    );
}

/// Protects: one challenge of several is paid, once, and given back as it came, nothing having been
/// advertised; a bad challenge among them is passed over.
#[tokio::test]
async fn one_challenge_is_paid_and_echoed_unchanged() {
    let (caller, paid) = caller();
    let mut wanted = usd("b");
    wanted["x-unknown"] = json!({"kept": 1.0});
    let script = Script::new([
        asking(&[
            json!({"id": ""}),
            challenge("a", "other", "usd", 60_000),
            wanted.clone(),
            usd("c"),
        ]),
        served(),
    ]);
    let answer = script.call(&caller).await.unwrap();
    assert_eq!(answer.receipt.unwrap().reference, "r");
    let credentials = script.credentials();
    assert_eq!(credentials.len(), 1);
    assert_eq!(credentials[0]["challenge"].to_string(), wanted.to_string());
    assert_eq!(credentials[0]["source"], "did:example:payer");
    assert_eq!(paid.lock().unwrap().len(), 1);
}

/// Protects: the next offer where the preferred one cannot be funded.
#[tokio::test]
async fn the_next_offer_where_the_first_cannot_be_funded() {
    let coins = Coins {
        only: Some("eur"),
        ..Coins::default()
    };
    let caller = Caller::local(purse(coins));
    let script = Script::new([
        asking(&[usd("a"), challenge("b", "test", "eur", 60_000)]),
        served(),
    ]);
    script.call(&caller).await.unwrap();
    assert_eq!(script.credentials()[0]["challenge"]["id"], "b");
}

/// Protects: a lapsed challenge is not paid, and neither is one over an open network.
#[tokio::test]
async fn lapsed_and_insecure_challenges_are_not_paid() {
    let (caller, paid) = caller();
    let lapsed = challenge("a", "test", "usd", -1);
    let script = Script::new([asking(&[lapsed])]);
    let Err(PayError::Client(ClientError::NothingPayable(skipped))) = script.call(&caller).await
    else {
        panic!("it was paid");
    };
    assert!(matches!(skipped[0].reason, Reason::Expired));
    for (scheme, secure) in [
        ("http", false),
        ("ws", false),
        ("https", true),
        ("wss", true),
    ] {
        let coins = Coins {
            paid: paid.clone(),
            only: None,
        };
        let caller = Caller::new(purse(coins), Origin::new(scheme, "rpc.example", 80));
        let outcome = Script::new([asking(&[usd("a")]), served()])
            .call(&caller)
            .await;
        let refused = matches!(
            outcome,
            Err(PayError::Client(ClientError::InsecureOrigin(_)))
        );
        assert_eq!(refused, !secure, "{scheme}");
    }
    assert_eq!(paid.lock().unwrap().len(), 2);
}

/// Protects: nobody is asked for money by an error that names no challenge.
#[tokio::test]
async fn an_unreadable_demand_is_an_error() {
    let (caller, _) = caller();
    for data in [
        json!(null),
        json!({"challenges": []}),
        json!({"challenges": [{"id": 1}]}),
    ] {
        let outcome = Script::new([error(-32042, data)]).call(&caller).await;
        assert!(matches!(outcome, Err(PayError::Unreadable(_))));
    }
}

/// Protects: a refusal is never paid again by itself; its challenges are handed over, and a new
/// call, which is fresh agreement, pays anew.
#[tokio::test]
async fn a_refusal_is_not_paid_again_by_itself() {
    for code in [-32043, -32042] {
        let (caller, paid) = caller();
        let refusal = json!({"challenges": [usd("b")], "problem": {"type": "x", "detail": "why"},
            "failure": {"reason": "signature-invalid"}});
        let script = Script::new([
            asking(&[usd("a")]),
            error(code, refusal),
            asking(&[usd("c")]),
            served(),
        ]);
        let Err(PayError::NotAccepted(refused)) = script.call(&caller).await else {
            panic!("not refused");
        };
        assert_eq!(refused.error.challenges[0].json()["id"], "b");
        assert!(refused.to_string().contains("why"));
        assert_eq!(paid.lock().unwrap().len(), 1);
        script.call(&caller).await.unwrap();
        let ids: Vec<_> = paid.lock().unwrap().iter().map(|c| c.id.clone()).collect();
        assert_eq!(ids, ["a", "c"]);
    }
}

/// Protects: a definite error is not an unknown outcome: it is not asked about again.
#[tokio::test]
async fn a_definite_rejection_is_not_an_unknown_outcome() {
    for code in [-32602, -32601, -32000, 7] {
        let (caller, paid) = caller();
        let script = Script::new([asking(&[usd("a")]), error(code, json!(null)), served()]);
        let Err(PayError::Failed(failed)) = script.call(&caller).await else {
            panic!("{code} is definite");
        };
        assert_eq!((failed.error.code, script.credentials().len()), (code, 1));
        // Whoever knows that it was not served may present the same payment again.
        caller
            .present(&mut script.exchange(), failed.pass)
            .await
            .unwrap();
        assert_eq!(paid.lock().unwrap().len(), 1);
    }
}

/// Protects: after paying, a lost answer and -32603 are asked about with the same credential.
#[tokio::test(start_paused = true)]
async fn lost_answers_are_asked_for_with_the_same_credential() {
    let (caller, paid) = caller();
    let script = Script::new([
        asking(&[usd("a")]),
        lost(),
        error(-32603, json!({"httpStatus": 503, "retryAfter": 2})),
        served(),
    ]);
    let begun = tokio::time::Instant::now();
    script.call(&caller).await.unwrap();
    assert!(
        begun.elapsed() >= Duration::from_secs(2),
        "the server says when"
    );
    let credentials = script.credentials();
    assert_eq!(credentials.len(), 3);
    assert!(
        credentials
            .iter()
            .all(|credential| *credential == credentials[0])
    );
    assert_eq!(paid.lock().unwrap().len(), 1);
}

/// Protects: when no answer comes the payment is kept and can be presented on another connection;
/// nothing shows the credential.
#[tokio::test(start_paused = true)]
async fn an_unknown_outcome_keeps_the_payment() {
    let (caller, paid) = caller();
    let script = Script::new([asking(&[usd("a")]), lost(), lost(), lost()]);
    let Err(PayError::OutcomeUnknown(unknown)) = script.call(&caller).await else {
        panic!("the outcome is not known");
    };
    assert!(matches!(unknown.failure, Failure::Call(_)));
    assert!(!format!("{unknown:?} {unknown}").contains("good-1"));
    let again = Script::new([served()]);
    let answer = caller.present(&mut again.exchange(), unknown.pass).await;
    assert!(answer.unwrap().receipt.is_some());
    assert_eq!(again.credentials(), script.credentials()[..1]);
    assert_eq!(paid.lock().unwrap().len(), 1);
    // A server that wants more time than there is is not waited for.
    let late = error(-32603, json!({"retryAfter": 3600}));
    let script = Script::new([asking(&[usd("b")]), late]);
    let Err(PayError::OutcomeUnknown(unknown)) = script.call(&caller).await else {
        panic!("the outcome is not known");
    };
    assert_eq!(unknown.retry_after, Some(Duration::from_secs(3600)));
}

/// Protects: a tool result may stand for an error, as some peers' tools have to write it.
#[tokio::test]
async fn a_tool_result_can_ask_for_payment() {
    let (caller, _) = caller();
    let demand = json!({"isError": true, "content": [], "_meta": {
        "org.paymentauth/payment-required": {"challenges": [usd("a")]}}});
    let script = Script::new([
        result(demand.clone()),
        served(),
        result(demand.clone()),
        result(demand),
    ]);
    assert!(script.call(&caller).await.unwrap().receipt.is_some());
    let again = Script::new([
        asking(&[usd("b")]),
        script.steps.lock().unwrap().pop_front().unwrap(),
    ]);
    let outcome = again.call(&caller).await;
    assert!(matches!(outcome, Err(PayError::NotAccepted(_))));
}

/// Protects: the whole way against our own server: a tool that fails keeps the payment, and the
/// same call collects it later.
#[tokio::test]
async fn a_failed_tool_can_be_called_again_for_the_same_payment() {
    let (shop, (caller, paid)) = (Arc::new(Shop::open()), caller());
    let params = joke(1)["params"].clone();
    let there = shop.clone();
    let mut exchange = Exchange::new(
        Request::new(1, "tools/call", Some(params)),
        move |request| {
            let shop = there.clone();
            async move {
                let request = serde_json::to_value(request).unwrap();
                io::Result::Ok(shop.call(&request).await)
            }
        },
    );
    shop.answers(Ok(json!({"isError": true, "content": []})));
    let answer = caller.call(&mut exchange).await.unwrap();
    assert!(answer.receipt.is_none());
    shop.answers(Ok(json!({"content": []})));
    let answer = caller
        .present(&mut exchange, answer.unserved.unwrap())
        .await
        .unwrap();
    assert_eq!(answer.receipt.unwrap().method, "test");
    assert_eq!((shop.bank.transfers(), paid.lock().unwrap().len()), (1, 1));
}

/// Protects: what a client says it can pay is what it can pay.
#[test]
fn a_client_says_what_it_can_pay() {
    let expected = json!({"methods": {"test": {"intents": ["charge"]}}});
    assert_eq!(Value::from(caller().0.capability()), expected);
}
