//! The proof from both sides, and against a signature that another implementation made.

#![allow(clippy::unwrap_used, reason = "test helpers")]

use alloy::signers::Signer as _;
use farebox_core::{
    Budget, Limit, Method, Payer, Paying, Presented, Refusal, Rejection, Secret, Typed, TypedPayer,
    prelude::*,
};
use farebox_proof::{LocalKey, Proof, ProofWallet, Realms, Source, proof_hash, verify_proof};
use farebox_wire::{Encoded, Payload};
use serde_json::json;

const KEY: &str = "0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d";
const SOURCE: &str = "did:pkh:eip155:1337:0x70997970C51812dc3A010C7d01b50e0d17dc79C8";
const TOKEN: &str = "0x20c0000000000000000000000000000000000000";
/// viem 2.55.19: `signTypedData` and `hashTypedData` with this key over `challenge()` below.
const SIGNATURE: &str = "0x3cd10d0653196b6f27adca7e15165cd3cd01184871c4534df13c8048dbaffadc44eac55f3dbad9dd6e05e67012c6e562c36559051726f85e468edf6819be44b51b";
const HASH: &str = "0xcf23cace56e01587c241363f02b50490b1cb756a5aa9cdaf89549a06c5050db0";

fn challenge() -> Challenge {
    let request = json!({
        "amount": "0",
        "currency": TOKEN,
        "methodDetails": { "chainId": 1337 },
        "recipient": "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC",
    });
    Challenge {
        id: "kM9xPqWvT2nJrHsY4aDfEb-_0123456789abcdefghij".into(),
        realm: "api.example.com".into(),
        method: "tempo".into(),
        intent: "charge".into(),
        request: Encoded::encode(&request).unwrap(),
        expires: Some(Timestamp::parse("2026-01-01T00:05:00Z").unwrap()),
        digest: None,
        description: None,
        opaque: None,
        header: None,
    }
}

fn rail() -> impl Method {
    let config = farebox_proof::Config {
        chain_id: Some(1337),
        currency: Some(TOKEN.into()),
        recipient: Some("0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC".into()),
    };
    Typed::<Proof, Charge>::named(Proof::new(config).unwrap(), "proof/charge")
}

fn key() -> LocalKey {
    LocalKey::parse("private_key", &Secret::new(KEY)).unwrap()
}

fn payer(realms: &[&str]) -> impl Payer {
    let realms: Vec<String> = realms.iter().map(|r| (*r).to_owned()).collect();
    let wallet = ProofWallet::with_signer(key()).on_chain(Some(1337));
    TypedPayer::<_, Charge>::new(wallet.for_realms(Realms::from(realms)))
}

fn detail(result: Result<Source, Rejection>) -> String {
    result.unwrap_err().detail
}

/// Protects: peers and this crate sign and accept the same bytes.
#[tokio::test]
async fn a_peers_signature_is_ours() {
    assert_eq!(
        proof_hash(key().address(), 1337, &challenge()).to_string(),
        HASH
    );
    let source = verify_proof(&challenge(), 1337, Some(SOURCE), SIGNATURE).unwrap();
    assert_eq!(source.to_string(), SOURCE);
    // Deterministic nonces (RFC 6979) on both sides, so even the signature is the same.
    let paid = farebox_proof::sign_proof(&key(), 1337, &challenge())
        .await
        .unwrap();
    assert_eq!(paid.source.as_deref(), Some(SOURCE));
    let payload = serde_json::to_value(&paid.payload).unwrap();
    assert_eq!(payload, json!({ "type": "proof", "signature": SIGNATURE }));
}

/// Protects: a proof counts for one challenge, realm, chain and account, in one spelling.
#[test]
fn a_proof_is_good_for_nothing_else() {
    let verify =
        |c: &Challenge, chain, source, sig: &str| detail(verify_proof(c, chain, source, sig));
    let not_over = "not the source's over this challenge";
    let other_id = Challenge {
        id: "other".into(),
        ..challenge()
    };
    let other_realm = Challenge {
        realm: "evil.example".into(),
        ..challenge()
    };
    for other in [&other_id, &other_realm] {
        assert!(verify(other, 1337, Some(SOURCE), SIGNATURE).contains(not_over));
    }
    let other_payer = SOURCE.replace("C8", "C9");
    assert!(verify(&challenge(), 1337, Some(&other_payer), SIGNATURE).contains(not_over));
    assert!(verify(&challenge(), 1, Some(SOURCE), SIGNATURE).contains("chain 1337"));
    assert!(verify(&challenge(), 1337, None, SIGNATURE).contains("needs the member `source`"));
    assert!(verify(&challenge(), 1337, Some("0x70"), SIGNATURE).contains("cannot be read"));

    let order = "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141";
    let s = alloy::primitives::U256::from_str_radix(&SIGNATURE[66..130], 16).unwrap();
    let n = alloy::primitives::U256::from_str_radix(order, 16).unwrap();
    let high_s = format!("{}{:064x}1c", &SIGNATURE[..66], n - s);
    assert!(verify(&challenge(), 1337, Some(SOURCE), &high_s).contains("upper half"));

    for shape in [
        "",
        "0x",
        &SIGNATURE[..130],
        &SIGNATURE[2..],
        &format!("{}23", &SIGNATURE[..130]),
    ] {
        let text = verify(&challenge(), 1337, Some(SOURCE), shape);
        assert!(text.contains("130 hexadecimal digits"), "{shape}: {text}");
    }
    let zero = format!("0x{}1b", "00".repeat(64));
    assert!(verify_proof(&challenge(), 1337, Some(SOURCE), &zero).is_err());
}

/// The rail and the wallet through the faces that the engine and the client hold.
#[tokio::test]
async fn the_wallet_satisfies_the_rail() {
    let (rail, payer) = (rail(), payer(&[]));
    let quote = rail
        .quote(&json!({ "amount": "0", "external_id": "order 1" }))
        .await
        .unwrap();
    let challenge = Challenge {
        request: quote.request,
        ..challenge()
    };
    let cx = Paying::new(&challenge, Some("api.example.com"));
    let budget = Budget::new([Limit::per_request(TOKEN, Amount::ZERO)]);
    let (approved, reservation) = budget.approve(payer.price(&cx).unwrap()).unwrap();
    let paid = payer.pay(&cx, approved).await.unwrap();
    reservation.commit();
    let now = Timestamp::parse("2026-01-01T00:00:00Z").unwrap();
    let presented = Presented::new(&challenge, &now).by(paid.source.as_deref());
    let plan = rail.verify(&presented, &paid.payload).await.unwrap();
    let farebox_core::AnyPlan::Once(plan) = plan else {
        panic!("a charge is single use")
    };
    assert_eq!(plan.proofs, [farebox_proof::proof_key(&challenge)]);
    assert!(
        matches!(plan.step, farebox_core::Step::Paid { reference } if reference == challenge.id)
    );

    for (payload, says) in [
        (
            json!({ "type": "transaction", "signature": "0x76" }),
            "type `proof`",
        ),
        (json!({ "type": "hash", "hash": "0x" }), "type `proof`"),
        (json!({ "type": "proof" }), "130 hexadecimal digits"),
        (json!({ "signature": "0x" }), "`type`"),
    ] {
        let payload = Payload::from_value(&payload).unwrap();
        match rail.verify(&presented, &payload).await {
            Err(Refusal::Rejected(r)) => assert!(r.detail.contains(says), "{}", r.detail),
            other => panic!("{other:?}"),
        }
    }
}

/// Protects: the wallet never signs for a realm that it was not asked at, nor a priced challenge.
#[tokio::test]
async fn the_wallet_refuses_what_it_should_not_sign() {
    let challenge = challenge();
    let asked = |host| Paying::new(&challenge, host);
    assert!(matches!(
        payer(&[]).price(&asked(Some("evil.example"))),
        Err(PayError::Refused(_))
    ));
    assert!(matches!(
        payer(&[]).price(&asked(None)),
        Err(PayError::Refused(_))
    ));
    assert!(payer(&["api.example.com"]).price(&asked(None)).is_ok());

    let priced = json!({ "amount": "1", "currency": TOKEN, "methodDetails": { "chainId": 1337 } });
    let elsewhere = json!({ "amount": "0", "currency": TOKEN, "methodDetails": { "chainId": 1 } });
    for request in [priced, elsewhere] {
        let challenge = Challenge {
            request: Encoded::encode(&request).unwrap(),
            ..challenge.clone()
        };
        let cx = Paying::new(&challenge, Some("api.example.com"));
        assert!(matches!(
            payer(&[]).price(&cx),
            Err(PayError::Unsupported(_))
        ));
    }
}

/// A remote signer that never answers.
#[derive(Debug)]
struct Silent;

#[async_trait::async_trait]
impl alloy::signers::Signer for Silent {
    async fn sign_hash(
        &self,
        _: &alloy::primitives::B256,
    ) -> alloy::signers::Result<alloy::primitives::Signature> {
        std::future::pending().await
    }
    fn address(&self) -> alloy::primitives::Address {
        key().address()
    }
    fn chain_id(&self) -> Option<u64> {
        None
    }
    fn set_chain_id(&mut self, _: Option<u64>) {}
}

/// Protects: a signer that hangs holds neither the request nor its budget for good.
#[tokio::test(start_paused = true)]
async fn a_signer_that_does_not_answer_is_given_up() {
    let challenge = challenge();
    let payer = TypedPayer::<_, Charge>::new(ProofWallet::with_signer(Silent));
    let cx = Paying::new(&challenge, Some("api.example.com"));
    let budget = Budget::new([Limit::per_request(TOKEN, Amount::ZERO)]);
    let (approved, _reservation) = budget.approve(payer.price(&cx).unwrap()).unwrap();
    let paid = tokio::time::timeout(std::time::Duration::from_secs(60), payer.pay(&cx, approved));
    match paid.await.unwrap() {
        Err(PayError::NotPaid(fault)) => assert!(fault.to_string().contains("signer"), "{fault}"),
        other => panic!("{:?}", other.map(|_| ())),
    }
}
