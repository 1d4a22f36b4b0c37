//! Messages, challenges, credentials and receipts as JSON.

use farebox_jsonrpc::{
    Ask, ErrorObject, Id, MAX_CHALLENGES, Message, PaymentError, Placement, Presented, Request,
    Response, receipt,
};
use farebox_wire::{Challenge, Encoded, Problem, Timestamp};
use serde_json::{Map, Value, json};

use crate::support::credential;

/// The same whenever it is made.
fn challenge() -> Challenge {
    let in_2096 = 4_000_000_000_000;
    Challenge {
        id: "c1".into(),
        realm: "api.example.com".into(),
        method: "test".into(),
        intent: "charge".into(),
        request: Encoded::encode(&json!({"amount": "5", "currency": "usd"})).unwrap(),
        expires: Some(Timestamp::from_unix_millis(in_2096)),
        digest: None,
        description: Some("a joke".into()),
        opaque: Some(Encoded::encode(&json!({"nonce": "n"})).unwrap()),
        header: None,
    }
}

fn parse(value: &Value) -> Result<Message, Response> {
    Message::parse(value.to_string().as_bytes())
}

/// Protects: `request` is a native object in what is sent, and what is sent is read back as it was.
#[test]
fn challenges_are_native_objects() {
    let ask = Ask::new(challenge()).unwrap();
    assert_eq!(
        ask.json()["request"],
        json!({"amount": "5", "currency": "usd"})
    );
    let error = PaymentError::new(&Problem::PaymentRequired, "pay", vec![ask.clone()]).to_error();
    assert_eq!(
        (error.code, &error.data.as_ref().unwrap()["httpStatus"]),
        (-32042, &json!(402))
    );
    let read = PaymentError::of(&error).unwrap();
    assert_eq!(read.challenges, [ask]);
    assert_eq!(read.problem.unwrap().challenge_id.as_deref(), Some("c1"));
}

/// Protects: what breaks wire's rules is neither written nor read, in any form of `request`.
#[test]
fn one_validator_serves_headers_and_json() {
    assert!(
        Ask::new(Challenge {
            realm: "a|b".into(),
            ..challenge()
        })
        .is_err()
    );
    let good = Value::from(Ask::new(challenge()).unwrap().json().clone());
    let text = {
        let mut text = good.clone();
        text["request"] = challenge().request.as_str().into();
        Ask::read(&text).unwrap()
    };
    assert_eq!(text.challenge(), &challenge(), "older peers send base64url");
    for (member, bad) in [
        ("id", json!("")),
        ("id", json!(null)),
        ("realm", json!("")),
        ("method", json!("Test")),
        ("intent", json!("a b")),
        ("request", json!([])),
        ("request", json!("!")),
        ("expires", json!("tomorrow")),
        ("description", json!("a\nb")),
        ("header", json!("Cookie")),
    ] {
        let mut broken = good.clone();
        broken[member] = bad;
        assert!(Ask::read(&broken).is_err(), "{member}");
    }
    let mut long = good;
    long["description"] = "x".repeat(70_000).into();
    assert!(Ask::read(&long).is_err(), "it could not be echoed");
}

/// Protects: one bad challenge does not hide the others, and a flood of them is cut.
#[test]
fn a_bad_challenge_does_not_discard_the_rest() {
    let good = json!(Ask::new(challenge()).unwrap().json());
    let data = json!({"challenges": [{"id": ""}, 7, good, null]});
    let error = ErrorObject::new(-32042, "").with(data);
    let read = PaymentError::of(&error).unwrap();
    assert_eq!((read.challenges.len(), read.unreadable.len()), (1, 3));
    let flood = json!({ "challenges": vec![json!({}); 5000] });
    let read = PaymentError::of(&ErrorObject::new(-32042, "").with(flood)).unwrap();
    assert_eq!(read.unreadable.len(), MAX_CHALLENGES);
    let none = PaymentError::of(&ErrorObject::new(-32043, "")).unwrap();
    assert!(none.challenges.is_empty() && none.unreadable.is_empty());
    assert!(PaymentError::of(&ErrorObject::new(-32603, "")).is_none());
}

/// Protects: a client gives the challenge back in the words it came in, unknown members included.
#[test]
fn the_echo_is_unchanged() {
    let mut json = json!(Ask::new(challenge()).unwrap().json());
    json["request"]["methodDetails"] = json!({"fee": 1.0, "nonce": 18_446_744_073_709_551_615_u64});
    json["x-note"] = json!({"a": [1, null]});
    let ask = Ask::read(&json).unwrap();
    let echoed = ask
        .credential(&credential(ask.challenge(), "good"))
        .unwrap();
    assert_eq!(echoed["challenge"].to_string(), json.to_string());
    assert_eq!(echoed["payload"], json!({"token": "good"}));
    assert!(echoed.get("source").is_none());
}

/// Protects: a credential is found in either place, taken out of it, and two are two.
#[test]
fn credentials_are_taken_from_either_place() {
    let ask = Ask::new(challenge()).unwrap();
    let one = ask
        .credential(&credential(ask.challenge(), "good"))
        .unwrap();
    let other = ask
        .credential(&credential(ask.challenge(), "other"))
        .unwrap();
    for placement in [Placement::Root, Placement::Nested] {
        let mut request = Request::new(1, "tools/call", Some(json!({"name": "joke"})));
        placement.put_credential(one.clone(), &mut request);
        let Presented::One(found, at) = Presented::take(&mut request) else {
            panic!("not found");
        };
        assert_eq!((found.challenge.id.as_str(), at), ("c1", placement));
        let text = serde_json::to_string(&request).unwrap();
        assert!(!text.contains("credential\":"), "{text}");
    }
    let both = |a: &Value, b: &Value| {
        let mut request = Request::new(1, "tools/call", Some(json!({"name": "joke"})));
        Placement::Root.put_credential(a.clone(), &mut request);
        Placement::Nested.put_credential(b.clone(), &mut request);
        Presented::take(&mut request)
    };
    assert!(matches!(both(&one, &one), Presented::One(..)));
    assert!(matches!(both(&one, &other), Presented::Several));
    // Positional parameters have no room for `_meta`.
    let mut request = Request::new(1, "eth_call", Some(json!(["latest"])));
    Placement::Nested.put_credential(one, &mut request);
    assert!(request.meta.contains_key("org.paymentauth/credential"));
}

/// Protects: no text says what is in a credential.
#[test]
fn credentials_are_never_shown() {
    let ask = Ask::new(challenge()).unwrap();
    let credential = ask
        .credential(&credential(ask.challenge(), "s3cret"))
        .unwrap();
    let mut request = Request::new(1, "tools/call", Some(json!({"name": "joke"})));
    Placement::Nested.put_credential(credential.clone(), &mut request);
    assert!(!format!("{request:?}").contains("s3cret"));
    assert!(!format!("{:?}", Presented::take(&mut request)).contains("s3cret"));
    let mut malformed = credential;
    malformed["payload"] = json!("s3cret");
    Placement::Root.put_credential(malformed, &mut request);
    let said = format!("{:?}", Presented::take(&mut request));
    assert!(
        said.contains("Malformed") && !said.contains("s3cret"),
        "{said}"
    );
}

/// Protects: ids of every kind come back as they came, and `null` is not absence.
#[test]
fn ids_come_back_in_kind() {
    for id in [
        json!(7),
        json!(-1),
        json!(1.5),
        json!("7"),
        json!(""),
        json!(null),
        json!(u64::MAX),
    ] {
        let message = json!({"jsonrpc": "2.0", "id": id, "method": "m"});
        let Ok(Message::Request(request)) = parse(&message) else {
            panic!("{message}");
        };
        assert_eq!(json!(request.id.as_ref().unwrap()), id);
        assert_eq!(serde_json::to_value(&request).unwrap(), message);
    }
    let Ok(Message::Request(notification)) = parse(&json!({"jsonrpc": "2.0", "method": "m"}))
    else {
        panic!("a notification");
    };
    assert_eq!(notification.id, None);
}

/// Protects: what is not one message is refused by the codes of JSON-RPC, under its own id.
#[test]
fn what_is_no_message_is_refused() {
    let code = |text: &[u8]| {
        let refusal = Message::parse(text).unwrap_err();
        (refusal.outcome.unwrap_err().code, refusal.id)
    };
    assert_eq!(code(b"{"), (-32700, Id::Null));
    assert_eq!(code(b"\xff"), (-32700, Id::Null));
    for text in [
        &b"1"[..],
        b"[]",
        br#"[{"jsonrpc":"2.0","id":1,"method":"m"}]"#,
        br#"{"jsonrpc":"2.0","id":{},"method":"m"}"#,
        br#"{"jsonrpc":"2.0","id":true,"method":"m"}"#,
    ] {
        assert_eq!(code(text), (-32600, Id::Null));
    }
    for text in [
        r#"{"id":3,"method":"m"}"#,
        r#"{"jsonrpc":"1.0","id":3,"method":"m"}"#,
        r#"{"jsonrpc":"2.0","id":3}"#,
        r#"{"jsonrpc":"2.0","id":3,"method":7}"#,
        r#"{"jsonrpc":"2.0","id":3,"method":"m","params":"p"}"#,
        r#"{"jsonrpc":"2.0","id":3,"method":"m","_meta":[]}"#,
        r#"{"jsonrpc":"2.0","id":3,"method":"m","result":1}"#,
        r#"{"jsonrpc":"2.0","id":3,"result":1,"error":{"code":1,"message":""}}"#,
        r#"{"jsonrpc":"2.0","id":3,"error":{"message":"no code"}}"#,
    ] {
        assert_eq!(code(text.as_bytes()), (-32600, Id::from(3)), "{text}");
    }
}

/// Protects: too much is refused before it is parsed.
#[test]
fn long_messages_are_not_parsed() {
    let refusal = Message::parse_at_most(8, b"{{{{{{{{{").unwrap_err();
    assert_eq!(refusal.outcome.unwrap_err().code, -32600);
    let exact = Message::parse_at_most(9, b"{{{{{{{{{").unwrap_err();
    assert_eq!(exact.outcome.unwrap_err().code, -32700);
}

/// Protects: a `null` result is a result.
#[test]
fn responses_are_told_apart() {
    let response = json!({"jsonrpc": "2.0", "id": 1, "result": null, "_meta": {"a": 1}});
    let Ok(Message::Response(read)) = parse(&response) else {
        panic!("a response");
    };
    assert_eq!(read.outcome, Ok(Value::Null));
    assert_eq!(serde_json::to_value(&read).unwrap(), response);
}

/// Protects: a receipt needs no reference here, since the draft does not ask for one.
#[test]
fn receipts_are_read_without_a_reference() {
    let mut json = json!({"status": "success", "method": "tempo", "challengeId": "c1",
        "timestamp": "2026-01-15T12:00:30Z"});
    let read = |json: &Value| {
        receipt(&Map::from_iter([(
            "org.paymentauth/receipt".to_owned(),
            json.clone(),
        )]))
    };
    assert_eq!(read(&json).unwrap().reference, "c1");
    json["reference"] = "0xab".into();
    assert_eq!(read(&json).unwrap().reference, "0xab");
    json["status"] = "failed".into();
    assert!(read(&json).is_none() && read(&json!("x")).is_none());
}
