//! What strangers send.

use farebox_jsonrpc::{Ask, Message, Operation, Presented, Request};
use serde_json::{Value, json};

/// serde_json reads the text in an object of this one member in the object's place, with its depth
/// counted anew, and so could be made to nest without bound.
fn nested_in_raw_values(limit: usize) -> String {
    let (open, close) = ("[".repeat(120), "]".repeat(120));
    let mut text = "0".to_owned();
    loop {
        let quoted = serde_json::to_string(&text).unwrap();
        let more = format!("{open}{{\"$serde_json::private::RawValue\":{quoted}}}{close}");
        if more.len() > limit {
            return text;
        }
        text = more;
    }
}

/// Protects: no message exhausts the stack.
#[test]
fn depth_is_bounded() {
    let deep = nested_in_raw_values(1_900_000);
    let text = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"m","params":{deep}}}"#);
    let work = move || {
        if let Ok(Message::Request(mut request)) = Message::parse(text.as_bytes()) {
            let operation = Operation::new("m", request.params.as_ref());
            let _ = (operation, Presented::take(&mut request));
            drop(serde_json::to_string(&request).unwrap());
        }
    };
    // As small as a worker's stack gets.
    let thread = std::thread::Builder::new().stack_size(1024 * 1024);
    thread.spawn(work).unwrap().join().unwrap();
    let flat = "[".repeat(100_000);
    assert!(Message::parse(flat.as_bytes()).is_err());
}

/// Protects: any JSON in place of a credential or a challenge is refused, and nothing panics.
#[test]
fn any_json_may_stand_anywhere() {
    let values: Vec<Value> = vec![
        json!(null),
        json!(1),
        json!("x"),
        json!([]),
        json!({}),
        json!({"challenge": {}, "payload": {}}),
        json!({"challenge": [], "payload": {}}),
        json!({"challenge": {"id": "1"}, "payload": []}),
        json!({"challenge": {"id": "1", "request": {"$serde_json::private::RawValue": "{}"}}, "payload": {}}),
        json!({"payload": {"a": "\u{0}"}}),
        json!([["x"]]),
    ];
    for value in &values {
        assert!(Ask::read(value).is_err());
        for params in [
            json!({"_meta": {"org.paymentauth/credential": value}}),
            json!({"_meta": value}),
        ] {
            let mut request = Request::new(1, "tools/call", Some(params));
            request
                .meta
                .insert("org.paymentauth/credential".into(), value.clone());
            let presented = Presented::take(&mut request);
            assert!(
                matches!(presented, Presented::Malformed(_)),
                "{presented:?}"
            );
        }
    }
}
