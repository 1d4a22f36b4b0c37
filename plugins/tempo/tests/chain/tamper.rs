//! Transactions that do not pay for their challenge. Each is refused for its own reason, before
//! the chain is asked: there is none.

use std::num::NonZeroU64;

use alloy::{
    primitives::{Address, B256, Bytes, Signature, TxKind, U256},
    signers::Signer as _,
    sol_types::SolCall,
};
use farebox_core::prelude::*;
use farebox_wire::Payload;
use serde_json::json;
use tempo_contracts::precompiles::ITIP20;
use tempo_primitives::{
    TempoTransaction,
    transaction::{
        KeyAuthorization, KeychainSignature, PrimitiveSignature, SignatureType, TempoSignature,
    },
};

use crate::net::{
    Credential, Net, POOR, RECIPIENT, RICH, TOKEN, call, detail, key, now, paying, sign,
    transaction,
};

type Spoil = Box<dyn Fn(&mut TempoTransaction, &Challenge)>;

fn spoil(f: impl Fn(&mut TempoTransaction, &Challenge) + 'static) -> Spoil {
    Box::new(f)
}

fn memo(challenge: &Challenge) -> B256 {
    farebox_tempo::memo::attribution(challenge)
}

/// Nothing listens here.
fn net() -> Net {
    Net::at("http://127.0.0.1:9")
}

async fn refuse(challenge: &Challenge, payload: Payload, source: Option<&str>) -> String {
    let source = source.map(str::to_owned);
    let credential = Credential {
        challenge: challenge.clone(),
        payload,
        source,
    };
    detail(net().verify(&credential).await.unwrap_err())
}

#[tokio::test]
async fn a_transaction_that_pays_for_something_else() {
    let cases: Vec<(&str, Spoil)> = vec![
        (
            "for chain 4217, not 1337",
            spoil(|tx, _| tx.chain_id = 4217),
        ),
        (
            "call the token asked for",
            spoil(|tx, _| {
                tx.calls[0].to = TxKind::Call(Address::with_last_byte(1));
            }),
        ),
        (
            "call the token asked for",
            spoil(|tx, _| tx.calls[0].to = TxKind::Create),
        ),
        ("native value", spoil(|tx, _| tx.calls[0].value = U256::ONE)),
        (
            "goes to",
            spoil(|tx, c| tx.calls = vec![call(TOKEN, 10_000, memo(c))]),
        ),
        (
            "of 9999 base units, 10000",
            spoil(|tx, c| {
                tx.calls = vec![call(RECIPIENT, 9_999, memo(c))];
            }),
        ),
        (
            "of 10001 base units, 10000",
            spoil(|tx, c| {
                tx.calls = vec![call(RECIPIENT, 10_001, memo(c))];
            }),
        ),
        (
            "no attribution memo",
            spoil(|tx, _| {
                tx.calls = vec![call(RECIPIENT, 10_000, B256::ZERO)];
            }),
        ),
        (
            "another challenge",
            spoil(|tx, c| {
                let other = Challenge {
                    id: "other".into(),
                    ..c.clone()
                };
                tx.calls = vec![call(RECIPIENT, 10_000, memo(&other))];
            }),
        ),
        (
            "another realm",
            spoil(|tx, c| {
                let other = Challenge {
                    realm: "other.example".into(),
                    ..c.clone()
                };
                tx.calls = vec![call(RECIPIENT, 10_000, memo(&other))];
            }),
        ),
        (
            "names no challenge",
            spoil(|tx, _| {
                let plain = ITIP20::transferCall {
                    to: RECIPIENT,
                    amount: U256::from(10_000),
                };
                tx.calls[0].input = plain.abi_encode().into();
            }),
        ),
        (
            "not transferWithMemo",
            spoil(|tx, _| tx.calls[0].input = Bytes::from_static(b"1234")),
        ),
        (
            "not transferWithMemo",
            spoil(|tx, _| {
                let input = &tx.calls[0].input;
                tx.calls[0].input = input.slice(..input.len() - 1);
            }),
        ),
        (
            "canonical encoding",
            spoil(|tx, _| {
                tx.calls[0].input = [tx.calls[0].input.as_ref(), &[0; 32]].concat().into();
            }),
        ),
        (
            "has 2 calls",
            spoil(|tx, c| tx.calls.push(call(RECIPIENT, 1, memo(c)))),
        ),
        (
            "needs a valid_before",
            spoil(|tx, _| tx.valid_before = None),
        ),
        (
            "has passed or is too close",
            spoil(|tx, _| tx.valid_before = NonZeroU64::new(now() + 3)),
        ),
        (
            "longer than the challenge",
            spoil(|tx, _| tx.valid_before = NonZeroU64::new(now() + 302)),
        ),
        (
            "in the future",
            spoil(|tx, _| {
                tx.valid_before = NonZeroU64::new(now() + 200);
                tx.valid_after = NonZeroU64::new(now() + 100);
            }),
        ),
        (
            "sponsored",
            spoil(|tx, _| {
                tx.fee_payer_signature = Some(Signature::new(U256::ZERO, U256::ZERO, false));
            }),
        ),
        (
            "sponsored",
            spoil(|tx, _| tx.fee_payer_signature = Some(Signature::test_signature())),
        ),
        ("expiring nonce", spoil(|tx, _| tx.nonce_key = U256::ZERO)),
        (
            "expiring nonce",
            spoil(|tx, _| {
                (tx.nonce_key, tx.nonce) = (U256::from(7), 1000);
            }),
        ),
        ("nonce 0", spoil(|tx, _| tx.nonce = 1)),
        (
            "max_priority_fee_per_gas is higher",
            spoil(|tx, _| tx.max_priority_fee_per_gas = tx.max_fee_per_gas + 1),
        ),
        (
            "not signed with",
            spoil(|tx, _| {
                let key = Address::with_last_byte(9);
                let grant = KeyAuthorization::unrestricted(1337, SignatureType::Secp256k1, key);
                tx.key_authorization = Some(
                    grant.into_signed(PrimitiveSignature::Secp256k1(Signature::test_signature())),
                );
            }),
        ),
    ];
    let challenge = net().challenge("0.01").await;
    for (says, spoil) in cases {
        let mut tx = paying(&challenge, 10_000);
        spoil(&mut tx, &challenge);
        let text = refuse(&challenge, transaction(&sign(tx, RICH).await), None).await;
        assert!(text.contains(says), "{says}: {text}");
    }
}

/// Protects: an access key's signature names its account, and anybody can name anybody's.
#[tokio::test]
async fn a_stranger_cannot_sign_for_a_rich_account() {
    let challenge = net().challenge("0.01").await;
    let rich = key(RICH).address();
    let tx = paying(&challenge, 10_000);
    let hash = tx.signature_hash();
    let by = async |hash| PrimitiveSignature::Secp256k1(key(POOR).sign_hash(&hash).await.unwrap());
    let own = by(KeychainSignature::signing_hash(hash, rich)).await;
    let source = format!("did:pkh:eip155:1337:{rich}");
    let raw = |signature| {
        let mut raw = Vec::new();
        let signed = tx.clone().into_signed(TempoSignature::Keychain(signature));
        signed.eip2718_encode(&mut raw);
        transaction(&raw)
    };
    let old = raw(KeychainSignature::new_v1(rich, by(hash).await));
    let text = refuse(&challenge, old, Some(&source)).await;
    assert!(text.contains("does not name its account"), "{text}");
    // Without the chain nobody can tell, so nobody pays.
    let credential = Credential {
        challenge: challenge.clone(),
        payload: raw(KeychainSignature::new(rich, own)),
        source: Some(source),
    };
    assert!(matches!(
        net().verify(&credential).await,
        Err(farebox_core::Refusal::Fault(_))
    ));
}

/// Protects: a window may last as long as the challenge, rounded up to the second, and no longer.
#[tokio::test]
async fn a_window_may_end_in_the_second_in_which_the_challenge_expires() {
    let mut challenge = net().challenge("0.01").await;
    let end = now() + 200;
    let at = |millis| {
        Some(Timestamp::from_unix_millis(
            i64::try_from(end).unwrap() * 1000 + millis,
        ))
    };
    let mut tx = paying(&challenge, 10_000);
    tx.valid_before = NonZeroU64::new(end);
    let payload = transaction(&sign(tx, RICH).await);
    for (expires, refused) in [(0, false), (-1, false), (-999, false), (-1000, true)] {
        challenge.expires = at(expires);
        let source = None;
        let credential = Credential {
            challenge: challenge.clone(),
            payload: payload.clone(),
            source,
        };
        match net().verify(&credential).await.unwrap_err() {
            farebox_core::Refusal::Rejected(r) => {
                assert!(
                    refused && r.detail.contains("longer than"),
                    "{expires}: {}",
                    r.detail
                );
            }
            // It got as far as the chain, which is not there.
            farebox_core::Refusal::Fault(_) => assert!(!refused, "{expires}"),
        }
    }
}

#[tokio::test]
async fn a_payload_that_is_no_transaction() {
    let challenge = net().challenge("0.01").await;
    let raw = sign(paying(&challenge, 10_000), RICH).await;
    let mut cut = raw.clone();
    cut.pop();
    let longer = [raw.as_slice(), &[0]].concat();
    let typed = |first: u8| [&[first], &raw[1..]].concat();
    for (raw, says) in [
        (cut, "no signed Tempo transaction"),
        (longer, "no signed Tempo transaction"),
        (Vec::new(), "no signed Tempo transaction"),
        (typed(0x02), "type 0x76"),
        (typed(0x78), "sponsored"),
    ] {
        let text = refuse(&challenge, transaction(&raw), None).await;
        assert!(text.contains(says), "{says}: {text}");
    }
    for (payload, says) in [
        (
            json!({ "type": "transaction" }),
            "no signed Tempo transaction",
        ),
        (
            json!({ "type": "transaction", "signature": "0x76zz" }),
            "no signed Tempo transaction",
        ),
        (json!({ "type": "hash" }), "no transaction hash"),
        (
            json!({ "type": "hash", "hash": "00".repeat(32) }),
            "no transaction hash",
        ),
        (json!({ "type": "proof", "signature": "0x" }), "has a price"),
        (
            json!({ "type": "cheque" }),
            "must be `transaction` or `hash`",
        ),
    ] {
        let text = refuse(&challenge, Payload::from_value(&payload).unwrap(), None).await;
        assert!(text.contains(says), "{says}: {text}");
    }
    let free = net().challenge("0").await;
    let text = refuse(&free, transaction(&raw), None).await;
    assert!(text.contains("takes a payload of type `proof`"), "{text}");
}

/// Protects: a source that is given is the sender on this chain.
#[tokio::test]
async fn a_source_that_did_not_sign() {
    let challenge = net().challenge("0.01").await;
    let payload = transaction(&sign(paying(&challenge, 10_000), RICH).await);
    for (source, says) in [
        (
            format!("did:pkh:eip155:1337:{RECIPIENT}"),
            "not signed by the account",
        ),
        (
            "did:pkh:eip155:1:0x70997970C51812dc3A010C7d01b50e0d17dc79C8".into(),
            "another chain",
        ),
        (
            "0x70997970C51812dc3A010C7d01b50e0d17dc79C8".into(),
            "cannot be read",
        ),
    ] {
        let text = refuse(&challenge, payload.clone(), Some(&source)).await;
        assert!(text.contains(says), "{text}");
    }
}

#[tokio::test]
async fn a_payment_to_oneself() {
    let recipient_key = "5de4111afa1a4b94908f83103eb1f1706367c2e68ca870fc3fb9a804cdab365a";
    assert_eq!(
        alloy::signers::Signer::address(&key(recipient_key)),
        RECIPIENT
    );
    let challenge = net().challenge("0.01").await;
    let payload = transaction(&sign(paying(&challenge, 10_000), recipient_key).await);
    assert!(
        refuse(&challenge, payload, None)
            .await
            .contains("same account")
    );
}

/// Protects: two signatures over one payload are one proof, so the second cannot be claimed anew.
#[tokio::test]
async fn another_signature_of_the_same_payload_has_the_same_key() {
    use farebox_sandbox_tempo::{Chain, ChainConfig};
    let chain = Chain::start(ChainConfig::default()).await.unwrap();
    let net = Net::at(&chain.url());
    let challenge = net.challenge("0.01").await;
    let tx = paying(&challenge, 10_000);
    let raw = sign(tx.clone(), RICH).await;
    // v as 0/1 instead of 27/28: other bytes, the same signature.
    let mut respelt = raw.clone();
    *respelt.last_mut().unwrap() -= 27;
    let mut proofs = Vec::new();
    for raw in [&raw, &respelt] {
        let moment = Timestamp::now();
        let cx = farebox_core::Presented::new(&challenge, &moment);
        let plan = net.rail.verify(&cx, &transaction(raw)).await.unwrap();
        let farebox_core::AnyPlan::Once(plan) = plan else {
            panic!("a charge is single use")
        };
        proofs.push(plan.proofs);
    }
    assert_eq!(proofs[0], proofs[1]);
}

/// Protects: the modes that an offer names are the modes that are taken.
#[tokio::test]
async fn a_mode_that_is_not_offered() {
    let terms = |modes: serde_json::Value| json!({ "amount": "0.01", "modes": modes });
    let pull = net().challenge_for(&terms(json!(["pull"]))).await;
    let hash = json!({ "type": "hash", "hash": B256::ZERO });
    let text = refuse(&pull, Payload::from_value(&hash).unwrap(), None).await;
    assert!(text.contains("push mode is not offered here"), "{text}");
    let push = net().challenge_for(&terms(json!(["push"]))).await;
    let payload = transaction(&sign(paying(&push, 10_000), RICH).await);
    let text = refuse(&push, payload, None).await;
    assert!(text.contains("pull mode is not offered here"), "{text}");
    // What a sponsored request would say, whoever wrote it.
    let mut sponsored = net().challenge("0.01").await;
    let mut request = sponsored.request.value();
    request["methodDetails"]["feePayer"] = json!(true);
    sponsored.request = crate::net::request(&request);
    let text = refuse(&sponsored, Payload::from_value(&hash).unwrap(), None).await;
    assert!(text.contains("sponsored"), "{text}");
}
