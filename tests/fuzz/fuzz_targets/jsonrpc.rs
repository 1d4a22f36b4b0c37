//! JSON-RPC: messages, credentials in `_meta`, challenges in errors, and what a call buys.
#![no_main]

use farebox_fuzz::{choose, round_trips};
use farebox_jsonrpc::{
    Ask, ErrorObject, Message, Operation, PaymentError, Placement, Presented, Request,
};
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

fuzz_target!(|data: &[u8]| {
    let Some((how, rest)) = choose(data, 4) else {
        return;
    };
    match how {
        0 => message(rest),
        1 => with_json(rest, credential),
        2 => with_json(rest, error),
        _ => with_json(rest, operation),
    }
});

/// As a peer's message would bring it.
fn with_json(text: &[u8], then: fn(Value)) {
    let Ok(text) = std::str::from_utf8(text) else {
        return;
    };
    let message = format!(r#"{{"jsonrpc":"2.0","id":1,"result":{text}}}"#);
    if let Ok(Message::Response(response)) = Message::parse(message.as_bytes()) {
        then(response.outcome.expect("it was a result"));
    }
}

/// What was read is written and read back as it was; what was not is answered.
fn message(text: &[u8]) {
    let again = match Message::parse(text) {
        Ok(Message::Request(request)) => serde_json::to_vec(&request),
        Ok(Message::Response(response)) => serde_json::to_vec(&response),
        Ok(_) => return,
        Err(refusal) => {
            let code = refusal.outcome.as_ref().expect_err("a refusal").code;
            assert!(matches!(code, -32700 | -32600));
            serde_json::to_vec(&refusal)
        }
    };
    let again = again.expect("messages can be written");
    let read = Message::parse(&again).expect("what was written can be read");
    let twice = match &read {
        Message::Request(request) => serde_json::to_vec(request),
        Message::Response(response) => serde_json::to_vec(response),
        _ => return,
    };
    assert_eq!(again, twice.expect("messages can be written"));
}

/// A credential is taken out whole from either place, and means the same in both.
fn credential(value: Value) {
    let [root, nested] = [Placement::Root, Placement::Nested].map(|placement| {
        let mut request = Request::new(1, "tools/call", Some(json!({"name": "joke"})));
        placement.put_credential(value.clone(), &mut request);
        let presented = Presented::take(&mut request);
        let left = serde_json::to_string(&request).expect("messages can be written");
        assert!(!left.contains("org.paymentauth"));
        match presented {
            Presented::One(credential, at) => {
                assert_eq!(at, placement);
                round_trips(&credential.challenge);
                Some(credential)
            }
            Presented::Malformed(_) => None,
            other => panic!("one was put in: {other:?}"),
        }
    });
    match (root, nested) {
        (Some(root), Some(nested)) => {
            assert_eq!(root.challenge, nested.challenge);
            assert_eq!(root.payload.get(), nested.payload.get());
        }
        (None, None) => {}
        _ => panic!("the place makes a difference"),
    }
}

/// Every challenge is read or explained; those that are read are echoed as they came, and mean the
/// same in the words of this codec.
fn error(data: Value) {
    let given = data["challenges"].as_array().cloned().unwrap_or_default();
    let error = ErrorObject::new(-32042, "").with(data);
    let read = PaymentError::of(&error).expect("a payment error");
    let found = read.challenges.len() + read.unreadable.len();
    assert_eq!(found, given.len().min(farebox_jsonrpc::MAX_CHALLENGES));
    for ask in &read.challenges {
        round_trips(ask.challenge());
        assert!(given.contains(&Value::from(ask.json().clone())));
        // Numbers have one spelling in our words, so the object may change once.
        if let Ok(ours) = Ask::new(ask.challenge().clone()) {
            let again = Ask::read(&Value::from(ours.json().clone()));
            if let Ok(again) = again {
                assert_eq!(again.json(), ours.json());
            }
        }
    }
    let again = PaymentError::of(&read.to_error()).expect("a payment error");
    assert_eq!(again.challenges, read.challenges);
}

/// The digest does not depend on spelling, nor on `_meta`.
fn operation(params: Value) {
    for method in ["tools/call", "resources/read", "prompts/get", "eth_call"] {
        let operation = Operation::new(method, Some(&params));
        assert_eq!(operation.body().is_some(), operation.digest().is_some());
        let mut marked = params.clone();
        if let Some(params) = marked.as_object_mut() {
            params.insert("_meta".to_owned(), json!({"progressToken": 1}));
        }
        assert_eq!(operation, Operation::new(method, Some(&marked)));
        if let Some(body) = operation.body() {
            let read: Value = serde_json::from_str(body).expect("the body is JSON");
            let again = Operation::new(method, Some(&read));
            assert_eq!(again.body(), operation.body());
        }
    }
}
