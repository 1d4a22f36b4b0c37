//! One payment for several recipients.

use alloy::{
    primitives::{Address, B256, U256, address},
    sol_types::SolCall,
};
use farebox_core::{Outcome, prelude::*};
use serde_json::{Value, json};
use tempo_contracts::precompiles::ITIP20;
use tempo_primitives::transaction::Call;

use crate::{
    net::{
        Credential, Net, RECIPIENT, RICH, broadcast, call, detail, paying, reference, sign,
        transaction,
    },
    push::pushed,
};

const PLATFORM: Address = address!("0x90F79bf6EB2c4f870365E785982E1f101E93b906");
const AUTHOR: Address = address!("0x15d34AAf54267DB7D7c367839AAf71A00a2C6A65");
const NOTE: B256 = B256::repeat_byte(0x5a);

pub(crate) async fn all(net: &Net) {
    each_gets_its_part_and_the_seller_the_rest(net).await;
    the_order_of_calls_does_not_matter(net).await;
    a_transaction_that_lacks_or_adds_a_transfer(net).await;
    a_split_that_cannot_be_paid_moves_nothing(net).await;
}

fn terms() -> Value {
    json!({ "amount": "0.01", "splits": [
        { "amount": "0.001", "recipient": PLATFORM, "memo": NOTE },
        { "amount": "0.002", "recipient": AUTHOR },
    ]})
}

async fn balances(net: &Net) -> [U256; 3] {
    [
        net.balance(RECIPIENT).await,
        net.balance(PLATFORM).await,
        net.balance(AUTHOR).await,
    ]
}

fn plus(before: [U256; 3], more: [u64; 3]) -> [U256; 3] {
    std::array::from_fn(|at| before[at] + U256::from(more[at]))
}

fn plain(to: Address, amount: u64) -> Call {
    let amount = U256::from(amount);
    let mut call = call(to, 0, B256::ZERO);
    call.input = ITIP20::transferCall { to, amount }.abi_encode().into();
    call
}

/// The calls that pay `terms()`.
fn calls(challenge: &Challenge) -> Vec<Call> {
    vec![
        call(PLATFORM, 1_000, NOTE),
        plain(AUTHOR, 2_000),
        call(
            RECIPIENT,
            7_000,
            farebox_tempo::memo::attribution(challenge),
        ),
    ]
}

async fn signed(challenge: &Challenge, calls: Vec<Call>) -> Vec<u8> {
    let mut tx = paying(challenge, 0);
    tx.gas_limit = 1_500_000;
    tx.calls = calls;
    sign(tx, RICH).await
}

/// Protects: every part to the unit, whichever way the payment is handed over.
async fn each_gets_its_part_and_the_seller_the_rest(net: &Net) {
    let before = balances(net).await;
    let credential = net
        .pay(net.challenge_for(&terms()).await, RICH)
        .await
        .unwrap();
    let order = net.verify(&credential).await.unwrap();
    assert_eq!(balances(net).await, before, "verifying moves nothing");
    let hash = reference(net.settle(&order).await);
    assert_eq!(reference(net.lookup(&order).await), hash);
    let once = plus(before, [7_000, 1_000, 2_000]);
    assert_eq!(balances(net).await, once);

    let mut push = terms();
    push["modes"] = json!(["push"]);
    let credential = net.pay(net.challenge_for(&push).await, RICH).await.unwrap();
    drop(net.plan(&credential).await.unwrap());
    assert_eq!(balances(net).await, plus(once, [7_000, 1_000, 2_000]));
}

async fn the_order_of_calls_does_not_matter(net: &Net) {
    let challenge = net.challenge_for(&terms()).await;
    let mut calls = calls(&challenge);
    calls.rotate_right(1);
    let credential = Credential {
        payload: transaction(&signed(&challenge, calls).await),
        source: None,
        challenge,
    };
    let before = balances(net).await;
    let order = net.verify(&credential).await.unwrap();
    reference(net.settle(&order).await);
    assert_eq!(balances(net).await, plus(before, [7_000, 1_000, 2_000]));
}

/// Protects: exactly the transfers asked for, each counted once.
async fn a_transaction_that_lacks_or_adds_a_transfer(net: &Net) {
    type Spoil = fn(&mut Vec<Call>);
    let cases: [(Spoil, &str); 7] = [
        (|calls| drop(calls.remove(0)), "2 calls where 3 are asked"),
        (
            |calls| calls.push(plain(AUTHOR, 1)),
            "4 calls where 3 are asked",
        ),
        (
            |calls| calls[1] = plain(AUTHOR, 1_999),
            "no transfer of 2000",
        ),
        (|calls| calls[1] = calls[0].clone(), "no transfer of 2000"),
        (
            |calls| calls[0] = plain(PLATFORM, 1_000),
            "not the one asked for",
        ),
        (
            |calls| calls[2] = plain(RECIPIENT, 7_000),
            "names no challenge",
        ),
        (
            |calls| calls[2] = call(RECIPIENT, 7_000, NOTE),
            "no attribution memo",
        ),
    ];
    for (spoil, says) in cases {
        let challenge = net.challenge_for(&terms()).await;
        let mut calls = calls(&challenge);
        spoil(&mut calls);
        let raw = signed(&challenge, calls).await;
        let pull = Credential {
            payload: transaction(&raw),
            source: None,
            challenge: challenge.clone(),
        };
        let text = detail(net.verify(&pull).await.unwrap_err());
        assert!(text.contains(says), "{says}: {text}");
        // On the chain more calls than asked for are no harm, and fewer are still too few.
        let hash = broadcast(net, raw).await;
        let verdict = net.plan(&pushed(&challenge, hash)).await;
        assert_eq!(
            verdict.is_ok(),
            says.starts_with('4'),
            "{says}: {verdict:?}"
        );
    }
}

/// Protects: a payment is made as a whole or not at all.
async fn a_split_that_cannot_be_paid_moves_nothing(net: &Net) {
    let before = balances(net).await;
    // 10^13 units more than anybody has.
    let huge = json!({ "amount": "99999999999999", "splits": [
        { "amount": "99999999999998", "recipient": PLATFORM },
    ]});
    let challenge = net.challenge_for(&huge).await;
    match net.pay(challenge.clone(), RICH).await {
        Err(PayError::NotPaid(_)) => {}
        // A node that simulates one call of several does not see it.
        Ok(credential) => {
            let order = net.verify(&credential).await.unwrap();
            let outcome = net.settle(&order).await;
            assert!(matches!(outcome, Outcome::Declined(_)), "{outcome:?}");
        }
        Err(other) => panic!("{other:?}"),
    }
    assert_eq!(balances(net).await, before);
}
