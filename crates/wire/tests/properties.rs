//! Whatever can be written reads back as itself, and nothing panics.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use farebox_wire::{
    AcceptPayment, Amount, BodyDigest, Challenge, Credential, CredentialHeader, Encoded, OfferId,
    Payload, Receipt, SecretRing, Timestamp,
};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use serde_json::{Value, json};

/// Text of one line, with characters from everywhere.
fn line() -> impl Strategy<Value = String> {
    vec(any::<char>(), 0..24).prop_map(|chars| {
        let breaks = |c: &char| !matches!(c, '\r' | '\n');
        chars.into_iter().filter(breaks).collect()
    })
}

fn object() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (0u64..1 << 53).prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    let value = leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            btree_map(any::<String>(), inner, 0..4).prop_map(|m| json!(m)),
        ]
    });
    btree_map(any::<String>(), value, 0..4).prop_map(|m| json!(m))
}

fn timestamp() -> impl Strategy<Value = Timestamp> {
    any::<i64>().prop_map(Timestamp::from_unix_millis)
}

prop_compose! {
    fn challenge()(
        id in line(),
        realm in line(),
        method in "[a-z][a-z0-9:_-]{0,12}",
        intent in "[A-Za-z0-9_-]{1,12}",
        request in object(),
        expires in option::of(timestamp()),
        body in option::of(any::<Vec<u8>>()),
        description in option::of(line()),
        opaque in option::of(object()),
        header in option::of(Just(CredentialHeader::PaymentAuthorization)),
    ) -> Challenge {
        Challenge {
            id: format!("{id}x"),
            realm: format!("{}x", realm.replace('|', "")),
            method,
            intent,
            request: Encoded::encode(&request).unwrap(),
            expires,
            digest: body.as_deref().map(BodyDigest::of),
            description,
            opaque: opaque.map(|o| Encoded::encode(&o).unwrap()),
            header,
        }
    }
}

proptest! {
    #[test]
    fn challenges(challenge in challenge()) {
        let header = challenge.to_header().unwrap();
        prop_assert!(header.bytes().all(|b| (b' '..=b'~').contains(&b)));
        prop_assert_eq!(Challenge::parse_one(&header).unwrap(), challenge.clone());
        let json = serde_json::to_string(&challenge).unwrap();
        prop_assert_eq!(serde_json_canonicalizer::to_string(&challenge).unwrap(), json.clone());
        prop_assert_eq!(serde_json::from_str::<Challenge>(&json).unwrap(), challenge);
    }

    #[test]
    fn several_challenges_share_a_line(many in vec(challenge(), 0..4)) {
        let headers: Vec<_> = many.iter().map(|c| c.to_header().unwrap()).collect();
        let line = headers.join(", ");
        let parsed: Result<Vec<_>, _> = Challenge::parse_all([line.as_bytes()]).into_iter().collect();
        prop_assert_eq!(parsed.unwrap(), many);
    }

    #[test]
    fn an_echo_verifies(mut challenge in challenge(), payload in object()) {
        let ring = SecretRing::new(["0123456789abcdef0123456789abcdef".into()]).unwrap();
        ring.sign(&mut challenge);
        let received = Challenge::parse_one(&challenge.to_header().unwrap()).unwrap();
        let payload = Payload::from_value(&payload).unwrap();
        let sent = Credential { challenge: received, payload, source: None };
        let header = sent.to_header().unwrap();
        let echoed = Credential::parse(header.as_bytes()).unwrap().unwrap();
        prop_assert!(ring.verify(&echoed.challenge));
        prop_assert_eq!(echoed.payload.get(), sent.payload.get());
        prop_assert_eq!(echoed.to_header().unwrap(), header);
    }

    #[test]
    fn receipts(
        reference in ".{1,20}",
        at in timestamp(),
        extra in btree_map("x[a-zA-Z]{0,8}", object(), 0..4),
    ) {
        let receipt = extra
            .into_iter()
            .fold(Receipt::new("tempo", reference, at), |r, (k, v)| r.with(k, v));
        prop_assert_eq!(Receipt::parse(&receipt.to_header().unwrap()).unwrap(), receipt);
    }

    #[test]
    fn amounts(units: u128, decimals in 0u8..40) {
        let amount = Amount::new(units);
        prop_assert_eq!(Amount::parse(&amount.to_string()).unwrap(), amount);
        prop_assert_eq!(Amount::from_decimal(&amount.to_decimal(decimals), decimals).unwrap(), amount);
    }

    #[test]
    fn preferences(ranges in vec(("(\\*|[a-z][a-z0-9:_-]{0,4})/(\\*|[A-Za-z0-9_-]{1,4})", 0u16..=1000), 1..5)) {
        let accept = AcceptPayment::from_ranges(ranges.iter().map(|(r, q)| (r.as_str(), *q))).unwrap();
        prop_assert_eq!(AcceptPayment::parse(&accept.to_string()).unwrap(), accept);
    }

    #[test]
    fn arbitrary_octets_never_panic(octets: Vec<u8>, syntax in "([ ,=\"\\\\]|Payment|id|\\\\u[0-9a-fx]{4}|[a-zé|]){0,40}") {
        for bytes in [&octets, syntax.as_bytes()] {
            let _ = Challenge::parse_all([bytes]);
            let _ = Credential::parse(bytes);
            let _ = Credential::parse(&[b"Payment ".as_slice(), bytes].concat());
            let _ = AcceptPayment::parse_bytes(bytes);
            let text = String::from_utf8_lossy(bytes);
            let _ = (Challenge::parse_one(&text), Receipt::parse(&text), Encoded::parse(&text));
            let _ = (Timestamp::parse(&text), BodyDigest::parse(&text), text.parse::<OfferId>());
            let _ = (Amount::parse(&text), Amount::from_decimal(&text, 6));
        }
    }
}
