//! What the challenge id protects: no two challenges share one, and only the
//! ring's secrets make one.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use farebox_wire::{
    BodyDigest, Challenge, CredentialHeader, Encoded, SecretError, SecretRing, Timestamp,
    challenge_id, is_challenge_id,
};
use serde_json::json;

const SECRET: &str = "a-secret-of-at-least-thirty-two-bytes";
const OTHER: &str = "another-secret-of-more-than-32-bytes";

fn ring(secrets: &[&str]) -> SecretRing {
    SecretRing::new(secrets.iter().map(|s| (*s).into())).unwrap()
}

fn challenge() -> Challenge {
    Challenge {
        id: String::new(),
        realm: "api.example.com".into(),
        method: "tempo".into(),
        intent: "charge".into(),
        request: Encoded::encode(&json!({"amount": "1"})).unwrap(),
        expires: Some(Timestamp::parse("2026-01-01T00:05:00.000Z").unwrap()),
        digest: Some(BodyDigest::of(b"body")),
        description: None,
        opaque: Some(Encoded::encode(&json!({"nonce": "n"})).unwrap()),
        header: None,
    }
}

fn signed(ring: &SecretRing) -> Challenge {
    let mut challenge = challenge();
    ring.sign(&mut challenge);
    challenge
}

#[test]
fn any_change_to_a_bound_parameter_breaks_the_binding() {
    let ring = ring(&[SECRET]);
    let original = signed(&ring);
    assert!(ring.verify(&original));
    let other = Encoded::encode(&json!({"amount": "2"})).unwrap();
    let changes: [fn(&mut Challenge, Encoded); 12] = [
        |c, _| c.realm = "api.example.org".into(),
        |c, _| c.method = "stripe".into(),
        |c, _| c.intent = "session".into(),
        |c, _| c.intent = "Charge".into(),
        |c, other| c.request = other,
        |c, _| c.expires = None,
        // The same instant in other words is another text.
        |c, _| c.expires = Some(Timestamp::parse("2026-01-01T00:05:00Z").unwrap()),
        |c, _| c.digest = None,
        |c, _| c.digest = Some(BodyDigest::of(b"other")),
        |c, _| c.opaque = None,
        |c, other| c.opaque = Some(other),
        |c, _| c.header = Some(CredentialHeader::PaymentAuthorization),
    ];
    for (i, change) in changes.into_iter().enumerate() {
        let mut changed = original.clone();
        change(&mut changed, other.clone());
        assert!(!ring.verify(&changed), "change {i}");
    }
    let mut described = original;
    described.description = Some("not bound".into());
    assert!(ring.verify(&described));
}

#[test]
fn values_cannot_move_between_slots() {
    let ring = ring(&[SECRET]);
    // The same bytes between the same separators, cut elsewhere.
    let mut joined = challenge();
    joined.realm = "a|tempo".into();
    joined.method = "charge".into();
    let mut split = challenge();
    split.realm = "a".into();
    split.method = "tempo|charge".into();
    for mut confused in [joined, split] {
        ring.sign(&mut confused);
        assert!(
            !ring.verify(&confused),
            "a separator inside a slot is never accepted"
        );
        assert!(confused.to_header().is_err());
        assert!(serde_json::to_string(&confused).is_err());
    }
    // One text in each of the last three slots gives three ids.
    let text = Encoded::encode(&json!({})).unwrap();
    let mut bare = challenge();
    (bare.expires, bare.digest, bare.opaque) = (None, None, None);
    let mut with_opaque = bare.clone();
    with_opaque.opaque = Some(text);
    let mut with_header = bare.clone();
    with_header.header = Some(CredentialHeader::PaymentAuthorization);
    let ids = [&bare, &with_opaque, &with_header].map(|c| challenge_id(SECRET.as_bytes(), c));
    assert!(ids[0] != ids[1] && ids[1] != ids[2] && ids[0] != ids[2]);
}

#[test]
fn the_first_secret_signs_and_all_verify() {
    let (old, new) = (ring(&[SECRET]), ring(&[OTHER, SECRET]));
    assert!(new.verify(&signed(&old)), "challenges survive a rotation");
    assert!(!old.verify(&signed(&new)), "the new secret signs");
    assert!(ring(&[OTHER]).verify(&signed(&new)));
}

#[test]
fn an_id_has_one_spelling() {
    let ring = ring(&[SECRET]);
    let original = signed(&ring);
    let stem = original.id.split_at(42).0;
    for suffix in 'A'..='Z' {
        // The last character holds two unused bits; another value would be a second key.
        let mut respelt = original.clone();
        respelt.id = format!("{stem}{suffix}");
        assert_eq!(ring.verify(&respelt), respelt.id == original.id, "{suffix}");
    }
    for id in [
        "",
        "=",
        "AAAA",
        &format!("{}=", original.id),
        &format!("{}AAAA", original.id),
    ] {
        let mut respelt = original.clone();
        respelt.id = id.into();
        assert!(!ring.verify(&respelt), "{id}");
    }
}

#[test]
fn a_salt_makes_a_ring_of_its_own() {
    let ring = ring(&[SECRET, OTHER]);
    let (one, same, two) = (
        ring.with_salt(b"1"),
        ring.with_salt(b"1"),
        ring.with_salt(b"2"),
    );
    let challenge = signed(&one);
    assert!(one.verify(&challenge) && same.verify(&challenge));
    assert!(!two.verify(&challenge) && !ring.verify(&challenge));
    assert!(!one.verify(&signed(&ring)));
}

#[test]
fn short_secrets_are_refused_by_position_and_length() {
    let error = SecretRing::new([SECRET.into(), "x".repeat(31).into()]).unwrap_err();
    assert_eq!(error, SecretError::TooShort { index: 1, len: 31 });
    assert!(SecretRing::new(["x".repeat(32).into()]).is_ok());
    assert_eq!(SecretRing::new([]).unwrap_err(), SecretError::Empty);
}

#[test]
fn secrets_stay_out_of_debug_text() {
    let text = format!("{:?}", ring(&[SECRET, OTHER]));
    assert_eq!(text, "SecretRing([redacted; 2])");
}

/// Protects: tools with a short secret see what a server with a long one would see.
#[test]
fn tools_check_ids_by_the_rules_of_servers() {
    let original = signed(&ring(&[SECRET]));
    assert!(is_challenge_id(SECRET.as_bytes(), &original));
    assert!(!is_challenge_id(OTHER.as_bytes(), &original));
    let mut short = challenge();
    short.id = challenge_id(b"short", &short);
    assert!(is_challenge_id(b"short", &short));
    short.realm = "a|b".into();
    short.id = challenge_id(b"short", &short);
    assert!(!is_challenge_id(b"short", &short), "a separator in a slot");
}
