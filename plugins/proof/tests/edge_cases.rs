//! Edge cases of proofs; numbers are those of `spec/edge-cases.toml`.

#![allow(clippy::unwrap_used, reason = "test helpers")]

use alloy::{
    primitives::{Address, hex},
    signers::Signer as _,
};
use farebox_core::{Secret, wire::Problem};
use farebox_proof::{LocalKey, Source, proof_hash, verify_proof};
use farebox_wire::{Challenge, Encoded};
use serde_json::json;

/// 99: an access key's envelope names the account that it signs for, and a wallet contract's says
/// nothing without a chain. Neither is taken for the account's own signature.
#[tokio::test]
async fn an_envelope_is_no_signature() {
    let challenge = Challenge {
        id: "id".into(),
        realm: "api.example.com".into(),
        method: "tempo".into(),
        intent: "charge".into(),
        request: Encoded::encode(&json!({ "amount": "0" })).unwrap(),
        expires: None,
        digest: None,
        description: None,
        opaque: None,
        header: None,
    };
    let key = LocalKey::parse("private_key", &Secret::new("11".repeat(32))).unwrap();
    let rich = Address::repeat_byte(0x77);
    let source = |address| {
        let chain_id = 1337;
        Source { chain_id, address }.to_string()
    };
    // The key's own signature over a proof of the rich account, bare and in envelopes.
    let hash = proof_hash(rich, 1337, &challenge);
    let inner = key.sign_hash(&hash).await.unwrap().as_bytes();
    let verify = |signature: &[u8]| {
        let text = hex::encode_prefixed(signature);
        verify_proof(&challenge, 1337, Some(&source(rich)), &text).unwrap_err()
    };
    assert_eq!(verify(&inner).problem, Problem::VerificationFailed);
    for version in [0x03, 0x04] {
        let envelope = [&[version], rich.as_slice(), &inner].concat();
        assert_eq!(verify(&envelope).problem, Problem::MalformedCredential);
    }
    // The same key proves itself.
    let own = proof_hash(key.address(), 1337, &challenge);
    let own = hex::encode_prefixed(key.sign_hash(&own).await.unwrap().as_bytes());
    assert!(verify_proof(&challenge, 1337, Some(&source(key.address())), &own).is_ok());
}
