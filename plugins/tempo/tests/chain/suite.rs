//! What must hold on any chain.

use alloy::{primitives::U256, signers::Signer as _};
use farebox_core::{Outcome, prelude::*};

use crate::{
    keys,
    net::{
        Credential, Net, POOR, RECIPIENT, RICH, TOKEN, call, detail, hash, key, paying, reference,
        sign, transaction,
    },
    push, remote, splits, sponsored,
};

pub(crate) async fn all(net: &Net) {
    net.rail.connect().await.unwrap();
    a_payment_moves_exactly_its_price(net).await;
    an_order_settles_once_however_often_it_is_sent(net).await;
    a_crash_before_sending_is_mended(net).await;
    a_second_payment_from_an_emptied_account_is_declined(net).await;
    an_account_without_money_is_told_what_to_fund(net).await;
    a_recipient_without_an_account_can_be_paid(net).await;
    an_offer_may_be_in_another_token(net).await;
    a_free_offer_takes_a_proof(net).await;
    push::all(net).await;
    splits::all(net).await;
    sponsored::all(net).await;
    remote::all(net).await;
    keys::all(net).await;
}

/// Protects: the price, to the unit, and the hash as the receipt's reference.
async fn a_payment_moves_exactly_its_price(net: &Net) {
    let before = net.balance(RECIPIENT).await;
    let order = net.order("0.012345").await;
    assert_eq!(
        net.balance(RECIPIENT).await,
        before,
        "verifying moves nothing"
    );
    let reference = reference(net.settle(&order).await);
    assert_eq!(reference, hash(&order).to_string());
    assert_eq!(net.balance(RECIPIENT).await, before + U256::from(12_345));
}

/// Protects: neither a second attempt nor a lookup moves money again.
async fn an_order_settles_once_however_often_it_is_sent(net: &Net) {
    let order = net.order("0.01").await;
    let first = reference(net.settle(&order).await);
    let after = net.balance(RECIPIENT).await;
    assert_eq!(reference(net.settle(&order).await), first);
    assert_eq!(reference(net.lookup(&order).await), first);
    assert_eq!(net.balance(RECIPIENT).await, after);
}

/// Protects: an order that was stored and never sent is not lost.
async fn a_crash_before_sending_is_mended(net: &Net) {
    let before = net.balance(RECIPIENT).await;
    let order = net.order("0.01").await;
    let outcome = in_the_end(net, &order).await;
    assert_eq!(reference(outcome), hash(&order).to_string());
    assert_eq!(net.balance(RECIPIENT).await, before + U256::from(10_000));
}

/// Protects: what was good when it was verified and bad when it was included is declined.
async fn a_second_payment_from_an_emptied_account_is_declined(net: &Net) {
    // Enough for one payment and both fees.
    let payer = "2222222222222222222222222222222222222222222222222222222222222222";
    give(net, payer, 1_500_000).await;
    let (one, two) = (net.challenge("1").await, net.challenge("1").await);
    let one = net
        .verify(&net.pay(one, payer).await.unwrap())
        .await
        .unwrap();
    let two = net
        .verify(&net.pay(two, payer).await.unwrap())
        .await
        .unwrap();
    reference(net.settle(&one).await);
    let before = net.balance(RECIPIENT).await;
    for outcome in [net.settle(&two).await, net.lookup(&two).await] {
        let Outcome::Declined(rejection) = outcome else {
            panic!("{outcome:?}")
        };
        assert!(
            rejection.detail.contains("reverted"),
            "{}",
            rejection.detail
        );
    }
    assert_eq!(net.balance(RECIPIENT).await, before);
}

async fn an_account_without_money_is_told_what_to_fund(net: &Net) {
    let challenge = net.challenge("0.01").await;
    match net.pay(challenge.clone(), POOR).await {
        Err(PayError::NotPaid(fault)) => {
            assert!(fault.to_string().contains("holds 0 base units"), "{fault}");
        }
        other => panic!("{:?}", other.map(|_| ())),
    }
    let raw = sign(paying(&challenge, 10_000), POOR).await;
    let credential = Credential {
        payload: transaction(&raw),
        source: None,
        challenge,
    };
    let text = detail(net.verify(&credential).await.unwrap_err());
    assert!(text.contains("fund it"), "{text}");
}

/// Protects: the gas for a recipient's first balance (TIP-1000) is in the estimate.
async fn a_recipient_without_an_account_can_be_paid(net: &Net) {
    let stranger = alloy::primitives::Address::repeat_byte(0x77);
    let mut challenge = net.challenge("0.01").await;
    let mut request = challenge.request.value();
    request["recipient"] = serde_json::json!(stranger);
    challenge.request = crate::net::request(&request);
    let order = net
        .verify(&net.pay(challenge, RICH).await.unwrap())
        .await
        .unwrap();
    reference(net.settle(&order).await);
    assert_eq!(net.balance(stranger).await, U256::from(10_000));
}

/// Protects: one rail offers several tokens, and a payment in one of them is none in another.
async fn an_offer_may_be_in_another_token(net: &Net) {
    let other = "0x20c0000000000000000000000000000000000001";
    let terms = serde_json::json!({ "amount": "0.01", "currency": other });
    let (usual, special) = (net.challenge("0.01").await, net.challenge_for(&terms).await);
    let before = net.balance(RECIPIENT).await;
    let credential = net.pay(special.clone(), RICH).await.unwrap();
    let order = net.verify(&credential).await.unwrap();
    reference(net.settle(&order).await);
    assert_eq!(net.balance(RECIPIENT).await, before, "not the usual token");
    for (challenge, paid) in [(&special, &usual), (&usual, &special)] {
        let Credential {
            payload, source, ..
        } = net.pay(paid.clone(), RICH).await.unwrap();
        let swapped = Credential {
            challenge: challenge.clone(),
            payload,
            source,
        };
        let text = detail(net.verify(&swapped).await.unwrap_err());
        assert!(text.contains("call the token asked for"), "{text}");
    }
}

async fn a_free_offer_takes_a_proof(net: &Net) {
    let credential = net.pay(net.challenge("0").await, RICH).await.unwrap();
    let now = Timestamp::now();
    let cx =
        farebox_core::Presented::new(&credential.challenge, &now).by(credential.source.as_deref());
    let plan = net.rail.verify(&cx, &credential.payload).await.unwrap();
    let farebox_core::AnyPlan::Once(plan) = plan else {
        panic!("a charge is single use")
    };
    assert!(matches!(plan.step, farebox_core::Step::Paid { .. }));
    assert_eq!(
        plan.proofs,
        [farebox_proof::proof_key(&credential.challenge)]
    );
}

/// Sends `amount` base units to the account of `secret`.
pub(crate) async fn give(net: &Net, secret: &str, amount: u64) {
    let challenge = net.challenge("0").await;
    let mut tx = paying(&challenge, amount);
    let memo = farebox_tempo::memo::attribution(&challenge);
    tx.calls = vec![call(key(secret).address(), amount, memo)];
    let raw = alloy::primitives::Bytes::from(sign(tx, RICH).await);
    let receipt = net
        .rpc("eth_sendRawTransactionSync", serde_json::json!([raw]))
        .await;
    assert_eq!(receipt["status"], "0x1", "{TOKEN} {receipt}");
}

/// Protects: an order that never reached a block is declined, but not before its window is over
/// for certain. Leaves the chain's clock ahead, so it comes last.
pub(crate) async fn an_order_that_was_never_included_is_declined_in_the_end(
    net: &Net,
    order: &farebox_core::StoredOrder,
) {
    let outcome = in_the_end(net, order).await;
    let Outcome::Declined(rejection) = outcome else {
        panic!("{outcome:?}")
    };
    assert!(
        rejection.detail.contains("valid_before"),
        "{}",
        rejection.detail
    );
}

/// Looks an order up until something is known of it: a block has to come first.
pub(crate) async fn in_the_end(net: &Net, order: &farebox_core::StoredOrder) -> Outcome {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    loop {
        match net.lookup(order).await {
            Outcome::Unknown if std::time::Instant::now() < deadline => {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
            outcome => return outcome,
        }
    }
}
