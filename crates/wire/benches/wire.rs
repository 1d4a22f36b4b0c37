//! What a request costs in this crate: `cargo bench -p farebox-wire`.
#![allow(clippy::unwrap_used, reason = "a benchmark may panic")]

use divan::{Bencher, black_box};
use farebox_wire::{Challenge, Credential, Encoded, Payload, Receipt, SecretRing, Timestamp};
use serde_json::{Value, json};

fn main() {
    divan::main();
}

fn ring() -> SecretRing {
    SecretRing::new(["0123456789abcdef0123456789abcdef".into()]).unwrap()
}

/// A stablecoin charge, its members out of order as a handler might write them.
fn request() -> Value {
    json!({
        "recipient": "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC",
        "currency": "0x20c0000000000000000000000000000000000000",
        "methodDetails": { "supportedModes": ["pull"], "chainId": 4217 },
        "amount": "1000000",
    })
}

fn challenge(ring: &SecretRing) -> Challenge {
    let mut challenge = Challenge {
        id: String::new(),
        realm: "api.example.com".to_owned(),
        method: "tempo".to_owned(),
        intent: "charge".to_owned(),
        request: Encoded::encode(&request()).unwrap(),
        expires: Some(Timestamp::from_unix_millis(1_900_000_000_000)),
        digest: None,
        description: None,
        opaque: Some(Encoded::encode(&json!({ "nonce": "n", "offer": "0" })).unwrap()),
        header: None,
    };
    ring.sign(&mut challenge);
    challenge
}

fn authorization(ring: &SecretRing) -> String {
    let payload =
        json!({ "type": "transaction", "signature": format!("0x76{}", "ab".repeat(300)) });
    let credential = Credential {
        challenge: challenge(ring),
        payload: Payload::from_value(&payload).unwrap(),
        source: Some("did:pkh:eip155:4217:0x70997970C51812dc3A010C7d01b50e0d17dc79C8".to_owned()),
    };
    credential.to_header().unwrap()
}

#[divan::bench]
fn create_and_format_a_challenge(bencher: Bencher<'_, '_>) {
    let ring = ring();
    bencher.bench_local(|| challenge(black_box(&ring)).to_header());
}

#[divan::bench]
fn parse_a_challenge(bencher: Bencher<'_, '_>) {
    let header = challenge(&ring()).to_header().unwrap();
    bencher.bench_local(|| Challenge::parse_one(black_box(&header)));
}

#[divan::bench]
fn parse_an_authorization(bencher: Bencher<'_, '_>) {
    let header = authorization(&ring());
    bencher.bench_local(|| Credential::parse(black_box(header.as_bytes())));
}

/// From the header to a challenge known to be one's own.
#[divan::bench]
fn authenticate(bencher: Bencher<'_, '_>) {
    let ring = ring();
    let header = authorization(&ring);
    bencher.bench_local(|| {
        let credential = Credential::parse(black_box(header.as_bytes()))
            .unwrap()
            .unwrap();
        assert!(ring.verify(&credential.challenge));
        credential
    });
}

/// Canonical JSON and base64url of a request.
#[divan::bench]
fn encode_a_request(bencher: Bencher<'_, '_>) {
    let request = request();
    bencher.bench_local(|| Encoded::encode(black_box(&request)));
}

#[divan::bench]
fn write_and_read_a_receipt(bencher: Bencher<'_, '_>) {
    let at = Timestamp::from_unix_millis(1_900_000_000_000);
    let receipt = Receipt::new("tempo", "0xab", at).with("challengeId", "c-1");
    bencher.bench_local(|| Receipt::parse(&black_box(&receipt).to_header().unwrap()));
}
