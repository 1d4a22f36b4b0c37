//! The table of `farebox_jsonrpc::server`, row by row.

use std::sync::{Arc, atomic::Ordering::SeqCst};

use farebox_engine::MemoryStore;
use farebox_jsonrpc::{
    ErrorObject, Message,
    server::{Tariff, TariffError},
};
use farebox_testkit::{Bank, Fuse, Proxy, Switch, TestRail};
use serde_json::{Value, json};

use crate::support::{Shop, code, gate, joke, paid, payment_error, receipt_of, with};

/// Protects: a paid call without a credential is -32042 with every offer, each complete and native.
#[tokio::test]
async fn without_a_credential_every_offer_is_asked_for() {
    let shop = Shop::open();
    let response = shop.call(&joke(1)).await;
    let data = response.outcome.unwrap_err().data.unwrap();
    assert_eq!(data["httpStatus"], 402);
    let challenges = data["challenges"].as_array().unwrap();
    assert_eq!(challenges.len(), 2);
    for challenge in challenges {
        for member in ["id", "realm", "method", "intent", "expires"] {
            assert!(challenge[member].is_string(), "{member} of {challenge}");
        }
        assert!(challenge["request"]["amount"].is_string());
    }
    assert_eq!(data["problem"]["challengeId"], challenges[0]["id"]);
    assert_eq!(
        data["problem"]["type"],
        "https://paymentauth.org/problems/payment-required"
    );
    assert_eq!((shop.calls(), shop.bank.moved()), (0, 0));
}

/// Protects: paying one of several challenges is enough, for each kind of operation, and the
/// receipt is complete and in the result.
#[tokio::test]
async fn a_paid_call_is_served_with_a_receipt() {
    for params in [
        ("tools/call", json!({"name": "joke"})),
        ("resources/read", json!({"uri": "file:///prices"})),
        (
            "prompts/get",
            json!({"name": "greet", "arguments": {"who": "you"}}),
        ),
    ] {
        let shop = Shop::open();
        let call = json!({"jsonrpc": "2.0", "id": "a", "method": params.0, "params": params.1});
        let ask = shop.ask(&call).await;
        let response = shop.call(&with(call, paid(&ask, "good"))).await;
        let receipt = receipt_of(&response).expect("a receipt");
        assert_eq!(
            (&receipt["status"], &receipt["method"]),
            (&json!("success"), &json!("test"))
        );
        assert_eq!(receipt["challengeId"], ask["id"]);
        assert!(receipt["timestamp"].is_string() && receipt["reference"].is_string());
        assert_eq!((shop.calls(), shop.bank.moved()), (1, 1));
        let seen = shop.seen.lock().unwrap();
        let text = serde_json::to_string(&seen[0]).unwrap();
        assert!(
            !text.contains("good"),
            "the handler never sees the credential: {text}"
        );
    }
}

/// Protects: a generic method with positional parameters is paid at the root, and answered there.
#[tokio::test]
async fn the_answer_is_where_the_question_was() {
    let shop = Shop::open();
    let mut call = json!({"jsonrpc": "2.0", "id": 1, "method": "eth_getBlockByNumber",
        "params": ["latest", false]});
    let ask = shop.ask(&call).await;
    call["_meta"] = json!({"org.paymentauth/credential": paid(&ask, "one")});
    let response = shop.call(&call).await;
    assert_eq!(
        response.meta["org.paymentauth/receipt"]["challengeId"],
        ask["id"]
    );
    assert!(receipt_of(&response).is_none());
    // MCP's place works for it too, and the root for MCP.
    let mut call = joke(2);
    call["_meta"] = json!({"org.paymentauth/credential": paid(&shop.ask(&joke(2)).await, "two")});
    let response = shop.call(&call).await;
    assert!(response.outcome.is_ok() && response.meta.contains_key("org.paymentauth/receipt"));
    // A result that is no object has room at the root only.
    shop.answers(Ok(json!("0x1")));
    let ask = shop.ask(&joke(3)).await;
    let response = shop.call(&with(joke(3), paid(&ask, "three"))).await;
    assert_eq!(response.outcome, Ok(json!("0x1")));
    assert!(response.meta.contains_key("org.paymentauth/receipt"));
}

/// Protects: what is free stays free, whatever credential comes along.
#[tokio::test]
async fn free_methods_ignore_credentials() {
    let shop = Shop::open();
    for call in [
        json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}),
        json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "free"}}),
    ] {
        let response = shop.call(&with(call, json!("garbage"))).await;
        assert!(response.outcome.is_ok() && receipt_of(&response).is_none());
        assert!(response.meta.is_empty());
    }
    assert_eq!((shop.calls(), shop.bank.moved()), (2, 0));
}

/// Protects: a wrong proof is -32043 with fresh challenges and says why, and can be corrected.
#[tokio::test]
async fn a_wrong_proof_is_refused_with_fresh_challenges() {
    let shop = Shop::open();
    let ask = shop.ask(&joke(1)).await;
    let response = shop.call(&with(joke(1), paid(&ask, "forged"))).await;
    let error = payment_error(&response);
    assert_eq!((code(&response), error.challenges.len()), (-32043, 2));
    assert!(
        error
            .challenges
            .iter()
            .all(|fresh| fresh.json()["id"] != ask["id"])
    );
    let failure = error.failure.unwrap();
    assert_eq!(failure.reason.as_deref(), Some("verification-failed"));
    assert_eq!(failure.detail.as_deref(), Some("the token is forged"));
    let again = shop
        .call(&with(joke(1), paid(error.challenges[0].json(), "good")))
        .await;
    assert!(receipt_of(&again).is_some());
}

/// Protects: every bound member, the tool and its arguments: a challenge with another price, for
/// another tool or for other arguments pays for nothing.
#[tokio::test]
async fn what_was_not_asked_here_is_refused() {
    let shop = Shop::open();
    let ask = shop.ask(&joke(1)).await;
    for (member, value) in [
        ("id", json!("x")),
        ("realm", json!("other.example")),
        ("request", json!({"amount": "1", "currency": "usd"})),
        ("expires", json!("2099-01-01T00:00:00Z")),
    ] {
        let mut forged = ask.clone();
        forged.insert(member.to_owned(), value);
        let response = shop.call(&with(joke(1), paid(&forged, "good"))).await;
        assert_eq!(code(&response), -32043, "{member}");
        assert!(!payment_error(&response).challenges.is_empty());
    }
    let mut forged = ask.clone();
    forged.insert("method".to_owned(), json!("other"));
    let response = shop.call(&with(joke(1), paid(&forged, "good"))).await;
    assert_eq!(code(&response), -32602, "a rail that is not offered");
    assert_eq!((shop.calls(), shop.bank.moved()), (0, 0));
}

/// Protects: a challenge is for one tool and one set of arguments.
#[tokio::test]
async fn a_challenge_is_for_one_operation() {
    let shop = Shop::open();
    let ask = shop.ask(&joke(1)).await;
    let mut poem = joke(1);
    poem["params"]["name"] = "poem".into();
    let mut other = joke(1);
    other["params"]["arguments"]["about"] = "trams".into();
    for call in [poem, other] {
        let response = shop.call(&with(call, paid(&ask, "good"))).await;
        let failure = payment_error(&response).failure.unwrap();
        assert_eq!(failure.reason.as_deref(), Some("invalid-challenge"));
    }
    assert_eq!(shop.bank.moved(), 0);
    // The same call in another spelling, with what is not bought changed.
    let call = json!({"jsonrpc": "2.0", "id": "x", "method": "tools/call", "params": {
        "arguments": {"about": "buses"}, "name": "joke", "requestState": "s"}});
    assert!(receipt_of(&shop.call(&with(call, paid(&ask, "good"))).await).is_some());
}

/// Protects: a lapsed challenge is refused to the millisecond.
#[tokio::test]
async fn lapsed_challenges_are_refused() {
    let shop = Shop::open();
    let ask = shop.ask(&joke(1)).await;
    shop.now.fetch_add(300_000, SeqCst);
    let response = shop.call(&with(joke(1), paid(&ask, "good"))).await;
    let failure = payment_error(&response).failure.unwrap();
    assert_eq!(failure.reason.as_deref(), Some("payment-expired"));
    assert_eq!(shop.bank.moved(), 0);
}

/// Protects: a used challenge is refused, and without challenges: fresh ones would make an honest
/// client pay again for what it has.
#[tokio::test]
async fn used_challenges_are_refused_without_a_challenge() {
    let shop = Shop::open();
    let ask = shop.ask(&joke(1)).await;
    let call = with(joke(1), paid(&ask, "good"));
    assert!(shop.call(&call).await.outcome.is_ok());
    for call in [call, with(joke(1), paid(&ask, "another"))] {
        let response = shop.call(&call).await;
        let error = payment_error(&response);
        assert_eq!((code(&response), error.challenges.len()), (-32043, 0));
        assert_eq!(error.problem.unwrap().status, 403);
    }
    assert_eq!((shop.calls(), shop.bank.moved()), (1, 1));
}

/// Protects: a call that is repeated under its key, because its reply was lost, gets the same result
/// and receipt without another run; another call under that key does not.
#[tokio::test]
async fn a_repeated_key_repeats_the_result() {
    let shop = Shop::open();
    let ask = shop.ask(&joke(1)).await;
    let keyed = |mut call: Value| {
        call["params"]["_meta"]["io.github.farebox/idempotency-key"] = "k".into();
        call
    };
    let call = keyed(with(joke(1), paid(&ask, "good")));
    let first = shop.call(&call).await;
    shop.answers(Ok(json!("another")));
    let again = shop.call(&call).await;
    assert!(receipt_of(&first).is_some());
    assert_eq!((&first.outcome, &first.meta), (&again.outcome, &again.meta));
    assert_eq!(
        code(&shop.call(&with(joke(1), paid(&ask, "good"))).await),
        -32043
    );
    assert_eq!((shop.calls(), shop.bank.transfers()), (1, 1));
}

/// Protects: of many calls with one credential one is served, and money moves once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parallel_calls_are_served_once() {
    let shop = Arc::new(Shop::open());
    let call = with(joke(1), paid(&shop.ask(&joke(1)).await, "good"));
    let tasks: Vec<_> = (0..16)
        .map(|_| {
            let (shop, call) = (shop.clone(), call.clone());
            tokio::spawn(async move { shop.call(&call).await.outcome.is_ok() })
        })
        .collect();
    let mut served = 0;
    for task in tasks {
        served += usize::from(task.await.unwrap());
    }
    assert_eq!((served, shop.calls(), shop.bank.transfers()), (1, 1, 1));
}

/// Protects: what cannot be read is -32602 and says where, without repeating a word of it.
#[tokio::test]
async fn malformed_credentials_are_invalid_params() {
    let shop = Shop::open();
    let ask = shop.ask(&joke(1)).await;
    let mut no_id = ask.clone();
    no_id.remove("id");
    for credential in [
        json!("s3cret"),
        json!({"challenge": ask}),
        paid(&no_id, "s3cret"),
        json!({"challenge": ask, "payload": "s3cret"}),
    ] {
        let response = shop.call(&with(joke(1), credential)).await;
        assert_eq!(code(&response), -32602);
        let data = response.outcome.unwrap_err().data.unwrap();
        assert!(data["detail"].is_string() && data.get("challenges").is_none());
        assert!(!data.to_string().contains("s3cret"));
    }
    let mut two = with(joke(1), paid(&ask, "a"));
    two["_meta"] = json!({"org.paymentauth/credential": paid(&ask, "b")});
    assert_eq!(code(&shop.call(&two).await), -32602);
    assert_eq!(shop.bank.moved(), 0);
}

/// Protects: our own failure is -32603, says nothing of its cause, and asks for no money.
#[tokio::test]
async fn faults_are_internal_errors_without_challenges() {
    let store = Arc::new(Proxy::new(Arc::<MemoryStore>::default(), Switch::default()));
    let shop = Shop::with(store.clone(), TestRail::settling);
    let call = with(joke(1), paid(&shop.ask(&joke(1)).await, "good"));
    store.off.store(true, SeqCst);
    let response = shop.call(&call).await;
    let error = response.outcome.unwrap_err();
    let data = error.data.unwrap();
    assert_eq!(error.code, -32603);
    assert!(data.get("challenges").is_none() && !data.to_string().contains("/var/lib"));
    assert!(data["httpStatus"].as_u64().unwrap() >= 500);
    store.off.store(false, SeqCst);
    assert!(
        receipt_of(&shop.call(&call).await).is_some(),
        "the same credential goes on"
    );
    assert_eq!(shop.bank.transfers(), 1);
}

/// Protects: an outcome that is not known yet is -32603 with a time to come back, and the same
/// credential collects it.
#[tokio::test(start_paused = true)]
async fn an_unknown_outcome_asks_to_come_back() {
    let rail = |bank: Arc<Bank>, _: Fuse| TestRail::held(bank);
    let shop = Shop::with(Arc::new(MemoryStore::new()), rail);
    let call = with(joke(1), paid(&shop.ask(&joke(1)).await, "good"));
    let response = shop.call(&call).await;
    let error = response.outcome.unwrap_err();
    let data = error.data.unwrap();
    assert_eq!((error.code, &data["httpStatus"]), (-32603, &json!(503)));
    assert!(data["retryAfter"].as_u64().unwrap() >= 1 && data.get("challenges").is_none());
    assert_eq!(shop.calls(), 0);
}

/// Protects: a call that was paid and not served gives the payment back, and has no receipt; an
/// upstream's receipt does not pass for ours.
#[tokio::test]
async fn failing_handlers_give_the_payment_back() {
    let shop = Shop::open();
    let call = with(joke(1), paid(&shop.ask(&joke(1)).await, "good"));
    let forged = json!({"org.paymentauth/receipt": {"status": "success"}});
    for outcome in [
        Err(ErrorObject::new(-32000, "the upstream is away")),
        Ok(json!({"isError": true, "content": [], "_meta": forged})),
        Ok(json!({"resultType": "input_required", "inputRequests": {}})),
    ] {
        shop.answers(outcome.clone());
        let response = shop.call(&call).await;
        assert_eq!(response.outcome.is_ok(), outcome.is_ok());
        assert!(receipt_of(&response).is_none() && response.meta.is_empty());
    }
    shop.answers(Ok(
        json!({"content": [], "_meta": forged, "isError": false}),
    ));
    let response = shop.call(&call).await;
    assert!(receipt_of(&response).unwrap()["challengeId"].is_string());
    assert_eq!((shop.calls(), shop.bank.transfers()), (4, 1));
}

/// Protects: a paid operation that comes as a notification is not run, not paid and not answered.
#[tokio::test]
async fn notifications_of_paid_operations_are_dropped() {
    let shop = Shop::open();
    let ask = shop.ask(&joke(1)).await;
    let mut notification = with(joke(1), paid(&ask, "good"));
    notification.as_object_mut().unwrap().remove("id");
    assert_eq!(shop.send(&notification).await, None);
    assert_eq!((shop.calls(), shop.bank.moved()), (0, 0));
    let free = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
    assert_eq!(shop.send(&free).await, None);
    assert_eq!(shop.calls(), 1);
}

/// Protects: -32700 is for what is no JSON, and only for it.
#[tokio::test]
async fn broken_messages_are_answered() {
    let shop = Shop::open();
    let serve = async |text: &[u8]| {
        let answer = shop
            .tariff
            .serve(text, None, async |_, _| Ok(Value::Null))
            .await;
        match Message::parse(answer.unwrap().as_bytes()) {
            Ok(Message::Response(response)) => code(&response),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(serve(b"nonsense").await, -32700);
    assert_eq!(serve(b"[]").await, -32600);
    let response = br#"{"jsonrpc":"2.0","id":1,"result":1}"#;
    let nothing = shop
        .tariff
        .serve(response, None, async |_, _| Ok(Value::Null))
        .await;
    assert_eq!(nothing, None);
}

/// Protects: a client that says what it can pay is offered that; a method of its own price covers
/// its operations.
#[tokio::test]
async fn gates_are_found_by_operation_and_checked_once() {
    let engine = farebox_engine::Engine::builder(
        "r",
        farebox_testkit::test_secrets(),
        Arc::new(MemoryStore::new()),
    );
    let engine = engine.build().unwrap();
    let rail = TestRail::settling(Arc::default(), Fuse::endless());
    let method: Arc<dyn farebox_core::Method> =
        Arc::new(farebox_core::Typed::<_, farebox_core::Charge>::new(rail));
    let make =
        |routes: &[&str]| Tariff::new(routes.iter().map(|route| gate(&engine, &method, route)));
    let tariff = make(&["tools/call", "tools/call joke"]).unwrap();
    let found = |name: &str| {
        let operation = farebox_jsonrpc::Operation::new("tools/call", Some(&json!({"name": name})));
        tariff.gate(&operation).unwrap().route().to_owned()
    };
    assert_eq!(
        (found("joke").as_str(), found("x").as_str()),
        ("tools/call joke", "tools/call")
    );
    let expected = json!({"methods": {"test": {"intents": ["charge"]}}});
    assert_eq!(Value::from(tariff.capability()), expected);
    assert_eq!(
        make(&["a", "a"]).unwrap_err(),
        TariffError::Twice("a".into())
    );
    for wrong in ["GET /joke", "", "tools/call "] {
        assert_eq!(
            make(&[wrong]).unwrap_err(),
            TariffError::NoOperation(wrong.into())
        );
    }
}
