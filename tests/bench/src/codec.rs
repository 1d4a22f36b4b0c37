//! Values and headers: what every request pays for.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use farebox_wire::{Challenge, Credential, Encoded, SecretRing, Timestamp};
use mpp::{
    Base64UrlJson, PaymentChallenge, format_authorization, format_www_authenticate,
    parse_authorization, parse_www_authenticate,
};
use serde::Serialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{Comparison, Work};

pub(crate) const REALM: &str = "api.example.com";
pub(crate) const SECRET: &str = "a secret of 32 bytes, only for benches";
const TTL: u64 = 300;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    amount: &'static str,
    currency: &'static str,
    recipient: &'static str,
    method_details: Details,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Details {
    chain_id: u64,
}

const REQUEST: Request = Request {
    amount: "10000",
    currency: "0x20c0000000000000000000000000000000000000",
    recipient: "0x742d35Cc6634C0532925a3b844Bc9e7595f1B0F2",
    method_details: Details { chain_id: 42431 },
};

pub(crate) fn ring() -> SecretRing {
    SecretRing::new([SECRET.into()]).expect("long enough")
}

fn ours(ring: &SecretRing) -> Challenge {
    let mut challenge = Challenge {
        id: String::new(),
        realm: REALM.to_owned(),
        method: "tempo".to_owned(),
        intent: "charge".to_owned(),
        request: Encoded::encode(&REQUEST).expect("an object"),
        expires: Some(Timestamp::now().plus(Duration::from_secs(TTL))),
        digest: None,
        description: None,
        opaque: None,
        header: None,
    };
    ring.sign(&mut challenge);
    challenge
}

fn theirs() -> PaymentChallenge {
    let expires = OffsetDateTime::now_utc() + Duration::from_secs(TTL);
    let expires = expires.format(&Rfc3339).expect("a date");
    PaymentChallenge::with_secret_key_full(
        SECRET,
        REALM,
        "tempo",
        "charge",
        Base64UrlJson::from_typed(&REQUEST).expect("JSON"),
        Some(&expires),
        None,
        None,
        None,
        None,
    )
}

fn repeat<T>(mut work: impl FnMut() -> T + 'static) -> Work {
    Box::new(move |count| {
        let start = Instant::now();
        for _ in 0..count {
            black_box(work());
        }
        start.elapsed()
    })
}

pub(crate) fn all() -> Vec<Comparison> {
    // Both read the same texts; the challenge verifies for both.
    let header = ours(&ring()).to_header().expect("a challenge");
    let challenge = Challenge::parse_one(&header).expect("ours");
    let foreign = parse_www_authenticate(&header).expect("theirs");
    assert!(ring().verify(&challenge) && foreign.verify(SECRET));
    let credential = credential(&challenge);
    let authorization = credential.to_header().expect("a credential");
    let same = parse_authorization(&authorization).expect("theirs");
    let token = format_authorization(&same).expect("theirs");
    assert!(Credential::parse(token.as_bytes()).is_ok_and(|c| c.is_some()));

    let (ring1, ring2) = (ring(), ring());
    let (header2, authorization2) = (header.clone(), authorization.clone());
    vec![
        Comparison {
            name: "challenge: create, format",
            ours: repeat(move || ours(&ring1).to_header()),
            theirs: repeat(|| format_www_authenticate(&theirs())),
            target: Some(3.0),
        },
        Comparison {
            name: "challenge: parse",
            ours: repeat(move || Challenge::parse_one(black_box(&header))),
            theirs: repeat(move || parse_www_authenticate(black_box(&header2))),
            target: None,
        },
        Comparison {
            name: "credential: parse",
            ours: repeat(move || Credential::parse(black_box(authorization.as_bytes()))),
            theirs: repeat(move || parse_authorization(black_box(&authorization2))),
            target: Some(2.5),
        },
        Comparison {
            name: "challenge: authenticate",
            ours: repeat(move || ring2.verify(black_box(&challenge))),
            theirs: repeat(move || black_box(&foreign).verify(SECRET)),
            target: None,
        },
    ]
}

/// A credential of the size that a signed transaction makes.
fn credential(challenge: &Challenge) -> Credential {
    #[derive(Serialize)]
    struct Payload {
        signature: String,
        r#type: &'static str,
    }
    let payload = Payload {
        signature: format!("0x76{}", "ab".repeat(300)),
        r#type: "transaction",
    };
    Credential {
        challenge: challenge.clone(),
        payload: farebox_wire::Payload::from_value(&payload).expect("an object"),
        source: Some("did:pkh:eip155:42431:0x742d35Cc6634C0532925a3b844Bc9e7595f1B0F2".to_owned()),
    }
}
