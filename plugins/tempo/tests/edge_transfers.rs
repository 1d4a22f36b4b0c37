//! What receipts prove and what a fee payer signs; numbers are those of `spec/edge-cases.toml`.

#![allow(clippy::unwrap_used, reason = "test helpers")]

use std::{num::NonZeroU64, sync::Arc, time::Duration};

use alloy::{
    eips::eip7702::Authorization,
    primitives::{Address, B256, LogData, Signature, TxKind, U256, address},
    signers::Signer as _,
    sol_types::{SolCall, SolEvent},
};
use farebox_core::{
    Refusal,
    prelude::*,
    wire::{Credential, Payload},
};
use farebox_proof::LocalKey;
use farebox_tempo::{Sponsor, TransactionReceipt, memo, verify_receipt};
use farebox_wire::Encoded;
use serde_json::{Value, json};
use tempo_contracts::precompiles::{IStablecoinDEX, ITIP20, STABLECOIN_DEX_ADDRESS};
use tempo_primitives::{
    AASigned, TempoTransaction,
    transaction::{Call, TEMPO_EXPIRING_NONCE_KEY, TempoSignature, TempoSignedAuthorization},
};

const TOKEN: Address = address!("0x20c0000000000000000000000000000000000000");
const OTHER_TOKEN: Address = address!("0x20c0000000000000000000000000000000000001");
const PAYEE: Address = address!("0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC");
const SPLIT: Address = address!("0x00000000000000000000000000000000000000a1");
const TIP: Address = address!("0x00000000000000000000000000000000000000a2");
const HASH: B256 = B256::repeat_byte(0xab);
const SPLIT_MEMO: B256 = B256::repeat_byte(0x5a);

fn payer() -> LocalKey {
    LocalKey::parse("private_key", &Secret::new("11".repeat(32))).unwrap()
}

/// 100 for a token: 30 to one with a memo, 20 to another, the rest to the payee.
fn request() -> Value {
    json!({
        "amount": "100",
        "currency": TOKEN,
        "recipient": PAYEE,
        "methodDetails": {
            "chainId": 1337,
            "supportedModes": ["push"],
            "splits": [
                { "amount": "30", "recipient": SPLIT, "memo": SPLIT_MEMO },
                { "amount": "20", "recipient": TIP },
            ],
        },
    })
}

fn challenge(id: &str, request: &Value) -> Challenge {
    Challenge {
        id: id.into(),
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

fn log(token: Address, data: &LogData) -> Value {
    json!({ "address": token, "topics": data.topics(), "data": data.data })
}

/// What the token logs of a transfer: with a memo, it logs it twice.
fn logs(from: Address, to: Address, amount: u64, memo: Option<B256>) -> Vec<Value> {
    let amount = U256::from(amount);
    let mut logs = vec![log(
        TOKEN,
        &ITIP20::Transfer { from, to, amount }.encode_log_data(),
    )];
    logs.extend(memo.map(|memo| {
        let event = ITIP20::TransferWithMemo {
            from,
            to,
            amount,
            memo,
        };
        log(TOKEN, &event.encode_log_data())
    }));
    logs
}

fn receipt(logs: &[Vec<Value>]) -> Value {
    json!({
        "transactionHash": HASH,
        "from": payer().address(),
        "status": "0x1",
        "logs": logs.concat(),
    })
}

/// Whether a hash and its receipt pay for the challenge; why not, if not.
fn check(challenge: &Challenge, receipt: &Value) -> Result<B256, String> {
    let credential = Credential {
        challenge: challenge.clone(),
        payload: Payload::from_value(&json!({ "type": "hash", "hash": HASH })).unwrap(),
        source: Some(format!("did:pkh:eip155:1337:{}", payer().address())),
    };
    let receipt: TransactionReceipt = serde_json::from_value(receipt.clone()).unwrap();
    verify_receipt(&credential, &receipt).map_err(|rejection| rejection.detail)
}

/// The three transfers of `request()`, in its order.
fn good(challenge: &Challenge) -> [Vec<Value>; 3] {
    let from = payer().address();
    [
        logs(from, SPLIT, 30, Some(SPLIT_MEMO)),
        logs(from, TIP, 20, None),
        logs(from, PAYEE, 50, Some(memo::attribution(challenge))),
    ]
}

/// 38: a wallet may make the transfers in any order.
#[test]
fn splits_are_matched_in_any_order() {
    let challenge = challenge("c", &request());
    let [a, b, c] = good(&challenge);
    for order in [
        [&a, &b, &c],
        [&a, &c, &b],
        [&b, &a, &c],
        [&b, &c, &a],
        [&c, &a, &b],
        [&c, &b, &a],
    ] {
        let receipt = receipt(&order.map(Clone::clone));
        assert_eq!(check(&challenge, &receipt), Ok(HASH));
    }
    for missing in [[&a, &b], [&a, &c], [&b, &c]] {
        let receipt = receipt(&missing.map(Clone::clone));
        assert!(check(&challenge, &receipt).is_err());
    }
}

/// 68: of two that are owed, the two logs of one are one.
#[test]
fn a_transfer_that_logs_twice_counts_once() {
    let mut request = request();
    let split = json!({ "amount": "30", "recipient": TIP });
    request["methodDetails"]["splits"] = json!([split, split]);
    let challenge = challenge("c", &request);
    let from = payer().address();
    let rest = logs(from, PAYEE, 40, Some(memo::attribution(&challenge)));
    let once = logs(from, TIP, 30, Some(SPLIT_MEMO));
    let plain = logs(from, TIP, 30, None);
    let reversed: Vec<Value> = once.iter().rev().cloned().collect();
    for one in [&once, &reversed, &plain] {
        let receipt = receipt(&[one.clone(), rest.clone()]);
        assert!(check(&challenge, &receipt).is_err());
    }
    for two in [
        [&once, &plain],
        [&plain, &once],
        [&once, &once],
        [&plain, &reversed],
    ] {
        let receipt = receipt(&[two[0].clone(), two[1].clone(), rest.clone()]);
        assert_eq!(check(&challenge, &receipt), Ok(HASH));
    }
}

/// 50, 69: a transfer that names another challenge has paid for that one, whichever of its
/// transfers says so.
#[test]
fn a_transfer_for_another_challenge_pays_for_no_other() {
    let (mine, other) = (challenge("c", &request()), challenge("d", &request()));
    let from = payer().address();
    let foreign = Some(memo::attribution(&other));
    let [a, b, c] = good(&mine);
    let stolen = logs(from, PAYEE, 50, foreign);
    let tip = logs(from, TIP, 20, foreign);
    for receipt in [
        receipt(&[a.clone(), b.clone(), stolen]),
        receipt(&[a.clone(), tip, c]),
        receipt(&good(&other)),
    ] {
        let why = check(&mine, &receipt).unwrap_err();
        assert!(why.contains("another challenge"), "{why}");
    }
    let plain = receipt(&[a, b, logs(from, PAYEE, 50, None)]);
    assert!(check(&mine, &plain).is_err());
}

/// 74, 80: who sent it, in which token, and whether it came to anything.
#[test]
fn a_receipt_of_something_else_pays_for_nothing() {
    let mine = challenge("c", &request());
    let paid = receipt(&good(&mine));
    assert_eq!(check(&mine, &paid), Ok(HASH));
    let changes: [fn(&mut Value); 4] = [
        |receipt| receipt["status"] = json!("0x0"),
        |receipt| receipt["transactionHash"] = json!(B256::ZERO),
        |receipt| receipt["logs"] = json!([]),
        |receipt| {
            for log in receipt["logs"].as_array_mut().unwrap() {
                log["address"] = json!(OTHER_TOKEN);
            }
        },
    ];
    for (n, change) in changes.into_iter().enumerate() {
        let mut receipt = paid.clone();
        change(&mut receipt);
        assert!(check(&mine, &receipt).is_err(), "{n}");
    }
    let stranger = Address::repeat_byte(0x77);
    let theirs = [
        logs(stranger, SPLIT, 30, Some(SPLIT_MEMO)),
        logs(stranger, TIP, 20, None),
        logs(stranger, PAYEE, 50, Some(memo::attribution(&mine))),
    ];
    assert!(check(&mine, &receipt(&theirs)).is_err());
    for (member, value) in [
        ("supportedModes", json!(["pull"])),
        ("feePayer", json!(true)),
    ] {
        let mut request = request();
        request["methodDetails"][member] = value;
        let other = challenge("c", &request);
        assert!(check(&other, &paid).is_err(), "{member}: takes no hash");
    }
}

fn sponsored() -> Challenge {
    let request = json!({
        "amount": "100",
        "currency": TOKEN,
        "recipient": PAYEE,
        "methodDetails": { "chainId": 1337, "feePayer": true },
    });
    challenge("c", &request)
}

fn call(to: Address, call: &impl SolCall) -> Call {
    Call {
        to: TxKind::Call(to),
        value: U256::ZERO,
        input: call.abi_encode().into(),
    }
}

fn paying(challenge: &Challenge) -> TempoTransaction {
    let now = u64::try_from(Timestamp::now().unix_millis() / 1000).unwrap();
    let transfer = ITIP20::transferWithMemoCall {
        to: PAYEE,
        amount: U256::from(100),
        memo: memo::attribution(challenge),
    };
    TempoTransaction {
        chain_id: 1337,
        calls: vec![call(TOKEN, &transfer)],
        gas_limit: 1_000_000,
        max_fee_per_gas: 20_000_000_000,
        max_priority_fee_per_gas: 1_000_000_000,
        nonce_key: TEMPO_EXPIRING_NONCE_KEY,
        valid_before: NonZeroU64::new(now + 25),
        ..TempoTransaction::default()
    }
}

/// Signed by its payer, with the fee payer's place left open.
async fn signed(tx: TempoTransaction) -> AASigned {
    let mut open = tx.clone();
    open.fee_payer_signature = Some(Signature::new(U256::ZERO, U256::ZERO, false));
    let signature = payer().sign_hash(&open.signature_hash()).await.unwrap();
    tx.into_signed(TempoSignature::from(signature))
}

async fn cosign(tx: TempoTransaction) -> Result<AASigned, Refusal> {
    let key = LocalKey::parse("private_key", &Secret::new("22".repeat(32))).unwrap();
    let sponsor = Sponsor::new(Arc::new(key), TOKEN);
    let signed = signed(tx).await;
    sponsor
        .cosign(&sponsored(), signed, &Timestamp::now())
        .await
}

/// 91, 93: what the sponsor would pay for without being asked to.
#[tokio::test]
async fn a_sponsor_keeps_its_limits() {
    let good = cosign(paying(&sponsored())).await.unwrap();
    assert!(good.tx().fee_payer_signature.is_some());
    assert_eq!(good.tx().fee_token, Some(TOKEN));
    let changes: [fn(&mut TempoTransaction); 12] = [
        |tx| tx.gas_limit = 2_000_001,
        |tx| tx.gas_limit = 0,
        |tx| tx.max_fee_per_gas = 100_000_000_001,
        |tx| (tx.max_fee_per_gas, tx.max_priority_fee_per_gas) = (50_000_000_000, 10_000_000_001),
        // Each within its limit, and together over the one on the fee.
        |tx| (tx.gas_limit, tx.max_fee_per_gas) = (2_000_000, 25_000_000_001),
        |tx| tx.valid_before = None,
        |tx| tx.valid_before = tx.valid_before.and_then(|at| at.checked_add(300)),
        |tx| tx.valid_before = NonZeroU64::new(1),
        |tx| tx.chain_id = 1,
        |tx| tx.nonce_key = U256::ZERO,
        |tx| tx.fee_token = Some(OTHER_TOKEN),
        |tx| {
            let inner = Authorization {
                chain_id: U256::from(1337),
                address: Address::repeat_byte(1),
                nonce: 0,
            };
            let signature = TempoSignature::from(Signature::test_signature());
            let grant = TempoSignedAuthorization::new_unchecked(inner, signature);
            tx.tempo_authorization_list.push(grant);
        },
    ];
    for (n, change) in changes.into_iter().enumerate() {
        let mut tx = paying(&sponsored());
        change(&mut tx);
        let refused = cosign(tx).await;
        assert!(
            matches!(refused, Err(Refusal::Rejected(_))),
            "{n}: {refused:?}"
        );
    }
}

/// 92: the payment, after buying exactly what it takes, and nothing beside it.
#[tokio::test]
async fn a_sponsor_signs_the_payment_and_nothing_else() {
    let approve = |spender, amount| ITIP20::approveCall {
        spender,
        amount: U256::from(amount),
    };
    let swap = |token_in, token_out, out, most| IStablecoinDEX::swapExactAmountOutCall {
        tokenIn: token_in,
        tokenOut: token_out,
        amountOut: out,
        maxAmountIn: most,
    };
    let dex = STABLECOIN_DEX_ADDRESS;
    let bought = |approval: Call, exchange: Call| {
        let mut tx = paying(&sponsored());
        tx.calls.splice(0..0, [approval, exchange]);
        tx
    };
    let exact = call(dex, &swap(OTHER_TOKEN, TOKEN, 100, 101));
    let fits = call(OTHER_TOKEN, &approve(dex, 101));
    assert!(cosign(bought(fits.clone(), exact.clone())).await.is_ok());

    let mut bad = vec![
        bought(call(OTHER_TOKEN, &approve(dex, 102)), exact.clone()),
        bought(call(OTHER_TOKEN, &approve(PAYEE, 101)), exact.clone()),
        bought(call(TOKEN, &approve(dex, 101)), exact.clone()),
        bought(
            fits.clone(),
            call(PAYEE, &swap(OTHER_TOKEN, TOKEN, 100, 101)),
        ),
        bought(fits.clone(), call(dex, &swap(OTHER_TOKEN, TOKEN, 101, 101))),
        bought(
            fits.clone(),
            call(dex, &swap(OTHER_TOKEN, OTHER_TOKEN, 100, 101)),
        ),
        bought(exact.clone(), fits.clone()),
    ];
    let spoils: [fn(&mut Vec<Call>); 7] = [
        |calls| calls.push(calls[0].clone()),
        |calls| calls.clear(),
        |calls| calls[0].to = TxKind::Call(OTHER_TOKEN),
        |calls| calls[0].to = TxKind::Create,
        |calls| calls[0].value = U256::ONE,
        |calls| calls[0].input = [calls[0].input.as_ref(), &[0; 32]].concat().into(),
        |calls| {
            let (to, amount) = (PAYEE, U256::from(100));
            calls[0] = call(TOKEN, &ITIP20::transferCall { to, amount });
        },
    ];
    for spoil in spoils {
        let mut tx = paying(&sponsored());
        spoil(&mut tx.calls);
        bad.push(tx);
    }
    let mut alone = paying(&sponsored());
    alone.calls.insert(0, fits);
    bad.push(alone);
    for (n, tx) in bad.into_iter().enumerate() {
        let refused = cosign(tx).await;
        assert!(
            matches!(refused, Err(Refusal::Rejected(_))),
            "{n}: {refused:?}"
        );
    }
}
