//! Limits, and what hostile text may cost or reveal.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::HashMap;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use farebox_wire::{
    AcceptPayment, Challenge, Credential, CredentialError, EncodeError, Encoded,
    MAX_CREDENTIAL_BYTES, MAX_ENCODED_BYTES, ParseError, Payload, Receipt,
};
use serde_json::json;

const REQUIRED: &str = r#"Payment id="i", realm="r", method="m", intent="c", request="#;

/// Base64url text of `len` bytes, of a JSON object.
fn request_of(len: usize) -> String {
    let bytes = len * 3 / 4;
    let text = BASE64.encode(format!(r#"{{"a":"{}"}}"#, "x".repeat(bytes - 8)));
    assert_eq!(text.len(), len);
    text
}

#[test]
fn a_request_may_have_16_kib_quoted_or_not() {
    let (fits, over) = (
        request_of(MAX_ENCODED_BYTES),
        request_of(MAX_ENCODED_BYTES + 2),
    );
    let error = ParseError::TooLarge {
        field: "request",
        limit: MAX_ENCODED_BYTES,
    };
    for quote in ["", "\""] {
        let parse =
            |request: &str| Challenge::parse_one(&format!("{REQUIRED}{quote}{request}{quote}"));
        assert_eq!(parse(&fits).unwrap().request.as_str(), fits);
        assert_eq!(parse(&over), Err(error.clone()));
    }
    let value = json!({"a": "x".repeat(MAX_ENCODED_BYTES)});
    let limit = MAX_ENCODED_BYTES;
    assert_eq!(
        Encoded::encode(&value),
        Err(EncodeError::TooLarge { limit })
    );
    let echo = json!({"id": "i", "realm": "r", "method": "m", "intent": "c", "request": value});
    assert!(serde_json::from_value::<Challenge>(echo).is_err());
}

#[test]
fn a_credential_header_may_have_64_kib_before_anything_is_read() {
    let challenge = Challenge::parse_one(&format!("{REQUIRED}e30")).unwrap();
    let mut credential = Credential {
        challenge,
        payload: Payload::from_value(&json!({})).unwrap(),
        source: Some(String::new()),
    };
    let empty = credential.to_header().unwrap().len();
    let room = (MAX_CREDENTIAL_BYTES - empty) * 3 / 4;
    credential.source = Some("s".repeat(room));
    let header = credential.to_header().unwrap();
    let padded = |len: usize| header.clone() + &" ".repeat(len - header.len());
    let fits = padded(MAX_CREDENTIAL_BYTES);
    assert!(Credential::parse(fits.as_bytes()).unwrap().is_some());
    let over = padded(MAX_CREDENTIAL_BYTES + 1);
    assert_eq!(
        Credential::parse(over.as_bytes()).unwrap_err(),
        CredentialError::TooLarge
    );
    credential.source = Some("s".repeat(room + 16));
    assert!(credential.to_header().is_err());
}

#[test]
fn only_json_objects_are_encoded() {
    assert_eq!(Encoded::encode(&json!({})).unwrap().as_str(), "e30");
    for other in [json!([]), json!("{"), json!(1), json!(null)] {
        assert_eq!(Encoded::encode(&other), Err(EncodeError::NotAnObject));
        assert!(Payload::from_value(&other).is_err());
    }
    for bad in ["", "e3", "e30 ", "e30|", "W10", "bnVsbA", "e30=e30"] {
        assert!(Encoded::parse(bad).is_err(), "{bad}");
    }
    let deep = BASE64.encode(r#"{"a":"#.repeat(1000) + "1" + &"}".repeat(1000));
    assert!(
        Encoded::parse(&deep).is_err(),
        "what is accepted can be read as a value"
    );
    let echo = format!(r#"{{"challenge":{{"x":{}"#, "[".repeat(40_000));
    let header = format!("Payment {}", BASE64.encode(&echo[..40_000]));
    assert!(Credential::parse(header.as_bytes()).is_err());
}

/// serde_json reads such a member as whatever its text holds, but only into a `Value`.
#[test]
fn an_object_is_the_same_to_every_reader() {
    for bad in [
        r#"{"$serde_json::private::RawValue":"{}"}"#,
        r#"{"a":[{"\u0024serde_json::private::RawValue":"x"}]}"#,
    ] {
        assert!(Encoded::parse(&BASE64.encode(bad)).is_err(), "{bad}");
        let echo = format!(r#"{{"id":"a","realm":"r","method":"m","intent":"i","request":{bad}}}"#);
        assert!(serde_json::from_str::<Challenge>(&echo).is_err(), "{bad}");
    }
    let members = HashMap::from([("$serde_json::private::RawValue", "5")]);
    assert!(Encoded::encode(&members).is_err());
    let text = json!({"a": "$serde_json::private::RawValue\":"});
    assert_eq!(Encoded::encode(&text).unwrap().value(), text);
}

/// serde would also read a struct from an array, by position.
#[test]
fn members_are_read_by_name_only() {
    let array = r#"["i","r","m","c","e30",null,null,null,null,null]"#;
    assert!(serde_json::from_str::<Challenge>(array).is_err());
    for json in [
        format!(r#"{{"challenge":{array},"payload":{{}}}}"#),
        r#"[{"id":"i","realm":"r","method":"m","intent":"c","request":"e30"},{}]"#.to_owned(),
    ] {
        let header = format!("Payment {}", BASE64.encode(json));
        assert!(Credential::parse(header.as_bytes()).is_err());
    }
}

#[test]
fn an_encoded_object_can_be_looked_into() {
    let encoded = Encoded::parse("eyAiYSIgOiAiMSIgfQ==").unwrap();
    assert_eq!(encoded.json(), r#"{ "a" : "1" }"#);
    assert_eq!(encoded.value(), json!({"a": "1"}));
    assert_eq!(
        encoded
            .decode::<std::collections::BTreeMap<String, String>>()
            .unwrap()["a"],
        "1"
    );
    assert!(encoded.decode::<Vec<u8>>().is_err());
}

#[test]
fn canonical_json_is_written() {
    let encoded = Encoded::encode(&json!({"b": 1.0, "a": {"é": "\u{7f}", "z": null}})).unwrap();
    assert_eq!(
        encoded.json(),
        "{\"a\":{\"z\":null,\"é\":\"\u{7f}\"},\"b\":1}"
    );
}

/// What this thread has computed so far, however long it had to wait for its turns; where the system
/// does not tell, the time that has passed.
fn worked(since: Instant) -> Duration {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let nanos = told.and_then(|told| told.split(' ').next()?.parse().ok());
    nanos.map_or_else(|| since.elapsed(), Duration::from_nanos)
}

/// Protects against quadratic scans: a quarter mebibyte of the worst text takes a moment, not minutes.
#[test]
fn hostile_text_is_read_in_linear_time() {
    let start = Instant::now();
    let before = worked(start);
    for unit in [
        ",",
        ", ",
        "a,",
        "a ",
        "Payment ",
        "Payment,",
        "Payment a=b,",
        "a=\"",
        "\\\"",
        "a=\"b\",",
        "\"",
        "=",
        "==",
        "a\t=\t",
        "a=b,",
        "\u{e9}",
        "Payment a=\"\\u00",
        "Payment a=\"b\",a ",
    ] {
        let text = unit.repeat((1 << 18) / unit.len());
        let quoted = format!("Payment x=\"{text}");
        let unique: String = (0..15_000).map(|i| format!(", p{i}=1")).collect();
        for header in [text, quoted, format!("{REQUIRED}e30{unique}")] {
            let _ = Challenge::parse_all([header.as_bytes()]);
            let _ = AcceptPayment::parse(&header);
            let _ = Receipt::parse(&header);
        }
    }
    let took = worked(start).saturating_sub(before);
    assert!(took < Duration::from_secs(30), "{took:?}");
}

#[test]
fn payloads_and_credentials_stay_out_of_debug_and_error_text() {
    #[derive(serde::Deserialize)]
    struct Proof {
        preimage: u8,
    }
    let decode = |payload: &Payload| payload.decode().map(|proof: Proof| proof.preimage);
    let payload = Payload::from_value(&json!({"preimage": "hush"})).unwrap();
    let error = decode(&payload).unwrap_err();
    assert!(!format!("{error} {error:?} {payload:?}").contains("hush"));
    let missing = decode(&Payload::from_value(&json!({})).unwrap()).unwrap_err();
    assert!(missing.to_string().contains("missing field `preimage`"));

    let challenge = Challenge::parse_one(&format!("{REQUIRED}e30")).unwrap();
    let credential = Credential {
        challenge,
        payload,
        source: Some("hush".into()),
    };
    assert!(!format!("{credential:?}").contains("hush"));

    for json in [
        r#"{"challenge":"hush","payload":{}}"#,
        r#"{"challenge":{"id":"hush","realm":"hush|"},"payload":{}}"#,
        r#"{"challenge":{},"payload":"hush"}"#,
        r#"{"challenge":{},"payload":{},"source":{"hush":1}}"#,
    ] {
        let header = format!("Payment {}", BASE64.encode(json));
        let error = Credential::parse(header.as_bytes()).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hush"), "{error}");
        let value = serde_json::from_str(json).unwrap();
        let error = Credential::from_value(&value).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hush"), "{error}");
    }
}

#[test]
fn header_octets_are_iso_8859_1() {
    let mut header = format!("{REQUIRED}e30, description=\"caf").into_bytes();
    header.extend([0xE9, b'"']);
    let challenge = Challenge::parse_all([header.as_slice()]).remove(0).unwrap();
    assert_eq!(challenge.description.as_deref(), Some("café"));
    let written = challenge.to_header().unwrap();
    assert!(written.is_ascii() && written.contains(r"caf\u00e9"));
}

#[test]
fn a_server_writes_nothing_a_client_would_refuse() {
    let challenge = Challenge::parse_one(&format!("{REQUIRED}e30")).unwrap();
    let breaks: [fn(&mut Challenge); 9] = [
        |c| c.id.clear(),
        |c| c.id.push('\n'),
        |c| c.realm.clear(),
        |c| c.realm.push_str("\r\nSet-Cookie: a=b"),
        |c| c.realm.push('|'),
        |c| c.method = "Tempo".into(),
        |c| c.intent = "a b".into(),
        |c| c.description = Some("a\rb".into()),
        |c| c.header = Some(farebox_wire::CredentialHeader::Authorization),
    ];
    for (i, break_it) in breaks.into_iter().enumerate() {
        let mut broken = challenge.clone();
        break_it(&mut broken);
        assert!(broken.to_header().is_err(), "{i}");
        assert!(serde_json::to_string(&broken).is_err(), "{i}");
        let payload = Payload::from_value(&json!({})).unwrap();
        let credential = Credential {
            challenge: broken,
            payload,
            source: None,
        };
        assert!(credential.to_header().is_err(), "{i}");
    }
}
