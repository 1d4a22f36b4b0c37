//! What the rail and the wallet write, byte for byte; numbers are those of `spec/edge-cases.toml`.

#![allow(clippy::unwrap_used, reason = "test helpers")]

use std::{sync::Arc, time::Duration};

use alloy::{
    eips::{eip2718::Decodable2718, eip7702::Authorization},
    primitives::{Address, B256, Signature, U256, hex},
    signers::Signer as _,
    sol_types::SolCall,
};
use farebox_core::{
    AnyPlan, Budget, IdempotencyKey, Limit, Method, Outcome, Payer, Paying, Presented, Refusal,
    Step, prelude::*, wire::Payload,
};
use farebox_proof::LocalKey;
use farebox_sandbox_tempo::{Chain, ChainConfig};
use farebox_wire::Encoded;
use serde_json::{Value, json};
use tempo_contracts::precompiles::ITIP20;
use tempo_primitives::{
    AASigned, TempoTransaction,
    transaction::{TempoSignature, TempoSignedAuthorization},
};

const TOKEN: &str = "0x20c0000000000000000000000000000000000000";
const OTHER_TOKEN: &str = "0x20c0000000000000000000000000000000000001";
const RECIPIENT: &str = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC";
/// Development account 1.
const KEY: &str = "59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d";

fn rail(url: &str) -> Arc<dyn Method> {
    let config =
        json!({ "rpc_url": url, "chain_id": 1337, "currency": TOKEN, "recipient": RECIPIENT });
    (farebox_tempo::CHARGE.build)(&config).unwrap()
}

fn wallet(url: &str, more: &Value) -> Arc<dyn Payer> {
    let mut config = json!({ "rpc_url": url, "chain_id": 1337, "private_key": KEY });
    let own = config.as_object_mut().unwrap();
    own.extend(more.as_object().unwrap().clone());
    farebox_tempo::CHARGE.wallet.unwrap()(&config).unwrap()
}

fn challenge(request: &Value) -> Challenge {
    Challenge {
        id: "a challenge".into(),
        realm: "api.example.com".into(),
        method: "tempo".into(),
        intent: "charge".into(),
        request: Encoded::encode(request).unwrap(),
        expires: Some(Timestamp::now().plus(Duration::from_secs(300))),
        digest: None,
        description: None,
        opaque: None,
        header: None,
    }
}

async fn quoted(rail: &dyn Method, amount: &str) -> Value {
    let quote = rail.quote(&json!({ "amount": amount })).await.unwrap();
    quote.request.value()
}

async fn pay(payer: &dyn Payer, challenge: &Challenge) -> (Payload, Option<String>) {
    let cx = Paying::new(challenge, Some("api.example.com"));
    let price = payer.price(&cx).unwrap();
    let limit = Limit::per_request(price.currency.clone(), price.amount);
    let (approved, reservation) = Budget::new([limit]).approve(price).unwrap();
    reservation.commit();
    let paid = payer.pay(&cx, approved).await.unwrap();
    (paid.payload, paid.source)
}

/// The transaction within a payload.
fn transaction(payload: &Payload) -> TempoTransaction {
    let payload: Value = payload.decode().unwrap();
    assert_eq!(payload["type"], "transaction");
    let raw = hex::decode(payload["signature"].as_str().unwrap()).unwrap();
    let signed = AASigned::decode_2718(&mut raw.as_slice()).unwrap();
    signed.tx().clone()
}

async fn presented(
    rail: &dyn Method,
    challenge: &Challenge,
    (payload, source): &(Payload, Option<String>),
) -> Result<AnyPlan, Refusal> {
    let now = Timestamp::now();
    let cx = Presented::new(challenge, &now).by(source.as_deref());
    rail.verify(&cx, payload).await
}

/// 41, 47: a wallet need not guess the chain, nor try a mode that is not taken.
#[tokio::test]
async fn the_request_says_chain_and_mode() {
    let rail = rail("http://127.0.0.1:9");
    let priced = quoted(rail.as_ref(), "0.01").await;
    assert_eq!(priced["methodDetails"]["chainId"], 1337);
    let modes = priced["methodDetails"]["supportedModes"].as_array();
    assert!(modes.unwrap().contains(&json!("pull")), "{priced}");
    let free = quoted(rail.as_ref(), "0").await;
    assert_eq!(free["methodDetails"]["chainId"], 1337);
}

/// 41: a request that lost its chain on the way to us is nobody's to pay.
#[tokio::test]
async fn a_request_for_no_chain_or_another_pays_for_nothing() {
    let chain = Chain::start(ChainConfig::default()).await.unwrap();
    let rail = rail(&chain.url());
    let good = challenge(&quoted(rail.as_ref(), "0.01").await);
    let paid = pay(wallet(&chain.url(), &json!({})).as_ref(), &good).await;
    assert!(presented(rail.as_ref(), &good, &paid).await.is_ok());
    let changes: [fn(&mut Value); 3] = [
        |details| drop(details.as_object_mut().unwrap().remove("chainId")),
        |details| details["chainId"] = json!(4217),
        |details| *details = json!({}),
    ];
    for change in changes {
        let mut request = good.request.value();
        change(&mut request["methodDetails"]);
        let bad = Challenge {
            request: Encoded::encode(&request).unwrap(),
            ..good.clone()
        };
        let verdict = presented(rail.as_ref(), &bad, &paid).await;
        assert!(verdict.is_err(), "{request}");
    }
}

/// 67: the same transaction is never two references.
#[tokio::test]
async fn a_transaction_is_named_in_lower_case() {
    let chain = Chain::start(ChainConfig::default()).await.unwrap();
    let rail = rail(&chain.url());
    let challenge = challenge(&quoted(rail.as_ref(), "0.01").await);
    let (payload, source) = pay(wallet(&chain.url(), &json!({})).as_ref(), &challenge).await;
    // The payload's own digits in upper case.
    let mut shouted: Value = payload.decode().unwrap();
    let raw = shouted["signature"].as_str().unwrap()[2..].to_ascii_uppercase();
    shouted["signature"] = json!(format!("0x{raw}"));
    let mut references = Vec::new();
    for payload in [payload, Payload::from_value(&shouted).unwrap()] {
        let plan = presented(rail.as_ref(), &challenge, &(payload, source.clone())).await;
        let Ok(AnyPlan::Once(plan)) = plan else {
            panic!("{plan:?}")
        };
        let Step::Settle(order) = plan.step else {
            panic!("a priced charge is settled")
        };
        let key = IdempotencyKey::for_challenge(&challenge.id);
        match rail.settler().settle(&key, &order).await {
            Outcome::Settled { reference, .. } => references.push((reference, plan.proofs)),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(references[0], references[1]);
    let digits = references[0].0.strip_prefix("0x").unwrap();
    assert_eq!(digits.len(), 64);
    let lower = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    assert!(digits.bytes().all(lower), "{digits}");
}

/// 93: what else the transaction sets in motion cannot be told from its call.
#[tokio::test]
async fn a_transaction_that_delegates_is_refused() {
    let chain = Chain::start(ChainConfig::default()).await.unwrap();
    let rail = rail(&chain.url());
    let challenge = challenge(&quoted(rail.as_ref(), "0.01").await);
    let (payload, source) = pay(wallet(&chain.url(), &json!({})).as_ref(), &challenge).await;
    let mut tx = transaction(&payload);
    let inner = Authorization {
        chain_id: U256::from(1337),
        address: Address::repeat_byte(1),
        nonce: 0,
    };
    let signature = TempoSignature::from(Signature::test_signature());
    let grant = TempoSignedAuthorization::new_unchecked(inner, signature);
    tx.tempo_authorization_list.push(grant);
    let key = LocalKey::parse("private_key", &Secret::new(KEY)).unwrap();
    let signature = key.sign_hash(&tx.signature_hash()).await.unwrap();
    let mut raw = Vec::new();
    let signed = tx.into_signed(TempoSignature::from(signature));
    signed.eip2718_encode(&mut raw);
    let payload = json!({ "type": "transaction", "signature": hex::encode_prefixed(raw) });
    let payload = Payload::from_value(&payload).unwrap();
    match presented(rail.as_ref(), &challenge, &(payload, source)).await {
        Err(Refusal::Rejected(why)) => {
            assert!(why.detail.contains("authorization list"), "{}", why.detail);
        }
        other => panic!("{other:?}"),
    }
}

/// 95: what the request says of memo and fee is what is signed, and what it does not say is said
/// by the wallet.
#[tokio::test]
async fn the_wallet_writes_the_memo_and_names_a_fee_token() {
    let chain = Chain::start(ChainConfig::default()).await.unwrap();
    let rail = rail(&chain.url());
    let plain = quoted(rail.as_ref(), "0.01").await;
    let own = B256::repeat_byte(0x5a);
    let mut memoed = plain.clone();
    memoed["methodDetails"]["memo"] = json!(own);
    for (request, more, fee_token) in [
        (&plain, json!({}), TOKEN),
        (&memoed, json!({}), TOKEN),
        (&plain, json!({ "fee_token": OTHER_TOKEN }), OTHER_TOKEN),
    ] {
        let challenge = challenge(request);
        let (payload, _) = pay(wallet(&chain.url(), &more).as_ref(), &challenge).await;
        let tx = transaction(&payload);
        assert_eq!(tx.fee_token, Some(fee_token.parse().unwrap()));
        let [call] = tx.calls.as_slice() else {
            panic!("one call: {:?}", tx.calls)
        };
        let made = ITIP20::transferWithMemoCall::abi_decode(&call.input).unwrap();
        let memo = match request["methodDetails"].get("memo") {
            Some(_) => own,
            None => farebox_tempo::memo::attribution(&challenge),
        };
        assert_eq!((made.memo, made.amount), (memo, U256::from(10_000)));
        assert_eq!(made.to, RECIPIENT.parse::<Address>().unwrap());
    }
}

/// 96: an offer that nobody would pay the fee of is found at the start.
#[tokio::test]
async fn sponsorship_cannot_be_offered() {
    let rail = rail("http://127.0.0.1:9");
    for key in ["fee_payer", "feePayer"] {
        let mut terms = json!({ "amount": "0.01" });
        terms[key] = json!(true);
        assert!(rail.check(&terms).is_err(), "{key}");
        let quote = rail.quote(&terms).await;
        assert!(quote.is_err(), "{key}");
    }
    let request = quoted(rail.as_ref(), "0.01").await;
    assert!(request["methodDetails"].get("feePayer").is_none());
}
