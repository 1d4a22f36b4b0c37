//! The server pays the network fee.

use std::{num::NonZeroU64, sync::Arc};

use alloy::{
    eips::eip2718::Decodable2718 as _,
    primitives::{Address, B256, Signature, U256, address, hex},
    signers::Signer as _,
};
use farebox_core::{Method, Outcome, Refusal, StoredOrder};
use farebox_sandbox_tempo::Fault;
use farebox_wire::{Amount, Challenge, Timestamp};
use serde_json::{Value, json};
use tempo_primitives::{AASigned, TempoTransaction, transaction::TempoSignature};

use crate::{
    ground::Ground,
    net::{
        Credential, Net, POOR, RECIPIENT, RICH, TOKEN, call, config, counted, detail, key, now,
        paying, reference, transaction,
    },
    suite::give,
};

/// Development account 3.
pub(crate) const FEE_PAYER: &str =
    "7c852118294e51e653712a81e05800f419141751be58f605c371e15141b007a6";
pub(crate) const FEE_PAYER_ADDRESS: Address =
    address!("0x90F79bf6EB2c4f870365E785982E1f101E93b906");

/// The same chain under a rail that pays fees with `secret`.
fn sponsoring(net: &Net, secret: &str) -> Net {
    sponsoring_up_to(net, secret, "0.05")
}

/// The same, with a limit on the fee of one transaction, in dollars.
fn sponsoring_up_to(net: &Net, secret: &str, max_fee: &str) -> Net {
    let mut config = config(&net.url);
    config["fee_payer"] = json!({ "private_key": secret, "fee_token": TOKEN, "max_fee": max_fee });
    let rail: Arc<dyn Method> = (farebox_tempo::CHARGE.build)(&config).unwrap();
    Net {
        rail: counted(rail),
        url: net.url.clone(),
    }
}

pub(crate) async fn all(net: &Net) {
    let net = &sponsoring(net, FEE_PAYER);
    the_payer_needs_nothing_but_the_price(net).await;
    a_split_payment_is_sponsored_whole(net).await;
    what_is_not_sponsored(net).await;
    crate::keys::sponsored(net).await;
    a_fee_payer_without_money_is_our_fault(net).await;
}

/// Protects: the price and not a unit more from the payer, the fee from the sponsor, at most what
/// the transaction says.
async fn the_payer_needs_nothing_but_the_price(net: &Net) {
    let payer = "3333333333333333333333333333333333333333333333333333333333333333";
    give(net, payer, 10_000).await;
    let (seller, sponsor) = (
        net.balance(RECIPIENT).await,
        net.balance(FEE_PAYER_ADDRESS).await,
    );
    let credential = net.pay(net.challenge("0.01").await, payer).await.unwrap();
    let payload: Value = credential.payload.decode().unwrap();
    assert!(payload["signature"].as_str().unwrap().starts_with("0x78"));
    let order = net.verify(&credential).await.unwrap();
    let hash = reference(net.settle(&order).await);
    assert_eq!(reference(net.lookup(&order).await), hash);
    assert_eq!(net.balance(key(payer).address()).await, U256::ZERO);
    assert_eq!(net.balance(RECIPIENT).await, seller + U256::from(10_000));
    let fee = sponsor - net.balance(FEE_PAYER_ADDRESS).await;
    assert!(fee > U256::ZERO && fee < U256::from(50_000), "{fee}");
}

async fn a_split_payment_is_sponsored_whole(net: &Net) {
    let author = address!("0x15d34AAf54267DB7D7c367839AAf71A00a2C6A65");
    let terms = json!({ "amount": "0.01", "splits": [{ "amount": "0.004", "recipient": author }]});
    let before = (net.balance(RECIPIENT).await, net.balance(author).await);
    let credential = net
        .pay(net.challenge_for(&terms).await, RICH)
        .await
        .unwrap();
    let order = net.verify(&credential).await.unwrap();
    reference(net.settle(&order).await);
    let after = (before.0 + U256::from(6_000), before.1 + U256::from(4_000));
    assert_eq!(
        (net.balance(RECIPIENT).await, net.balance(author).await),
        after
    );
}

/// The payer's half of a sponsored transaction, its fee payer's place left empty.
async fn half(tx: TempoTransaction, secret: &str) -> Vec<u8> {
    let mut open = tx.clone();
    open.fee_payer_signature = Some(Signature::new(U256::ZERO, U256::ZERO, false));
    let signature = key(secret).sign_hash(&open.signature_hash()).await.unwrap();
    let mut raw = Vec::new();
    tx.into_signed(TempoSignature::from(signature))
        .eip2718_encode(&mut raw);
    raw
}

async fn refused(net: &Net, challenge: &Challenge, raw: &[u8], source: Option<&str>) -> String {
    refused_at(net, challenge, raw, source, &Timestamp::now()).await
}

/// What one that came at this moment is told, however long it took to get here.
async fn refused_at(
    net: &Net,
    challenge: &Challenge,
    raw: &[u8],
    source: Option<&str>,
    moment: &Timestamp,
) -> String {
    let credential = Credential {
        challenge: challenge.clone(),
        payload: transaction(raw),
        source: source.map(str::to_owned),
    };
    detail(net.plan_at(&credential, moment).await.unwrap_err())
}

/// Protects: what costs the sponsor and pays nobody.
async fn what_is_not_sponsored(net: &Net) {
    let challenge = net.challenge("0.01").await;
    let good = || TempoTransaction {
        fee_token: None,
        max_fee_per_gas: 20_000_000_000,
        ..paying(&challenge, 10_000)
    };
    let moment = Timestamp::now();
    let began = u64::try_from(moment.unix_millis() / 1000).unwrap();
    let mut brief = good();
    brief.valid_before = NonZeroU64::new(began + 14);
    // Enough when it came, and not enough by the time that it would be sent.
    let mut late = good();
    late.valid_before = NonZeroU64::new(began + 16);
    let mut greedy = good();
    greedy.gas_limit = 2_000_001;
    let mut more = good();
    more.calls.push(more.calls[0].clone());
    for (tx, says) in [
        (brief, "15 seconds"),
        (late, "too close"),
        (greedy, "gas limit"),
        (more, "2 transfers, 1 are asked"),
    ] {
        let raw = half(tx, RICH).await;
        let text = refused_at(net, &challenge, &raw, None, &moment).await;
        assert!(text.contains(says), "{says}: {text}");
    }
    let raw = half(good(), FEE_PAYER).await;
    let text = refused(net, &challenge, &raw, None).await;
    assert!(text.contains("same account"), "{text}");
    let raw = half(good(), RICH).await;
    let other = format!("did:pkh:eip155:1337:{RECIPIENT}");
    let text = refused(net, &challenge, &raw, Some(&other)).await;
    assert!(text.contains("not signed by the account"), "{text}");
    // A payer that could not pay the price is found before the sponsor pays for the attempt.
    let raw = half(good(), POOR).await;
    let text = refused(net, &challenge, &raw, None).await;
    assert!(text.contains("fund it"), "{text}");
}

/// Protects: a payer is not blamed, nor asked again, for a fee payer that has run dry.
async fn a_fee_payer_without_money_is_our_fault(net: &Net) {
    let dry = sponsoring(net, POOR);
    let credential = dry.pay(dry.challenge("0.01").await, RICH).await.unwrap();
    match dry.verify(&credential).await {
        Err(Refusal::Fault(fault)) => {
            assert!(fault.retry_after().is_some());
            assert!(fault.to_string().contains("fund it"), "{fault}");
        }
        other => panic!("{other:?}"),
    }
}

async fn start() -> (Ground, Net) {
    let chain = Ground::start().await;
    let net = sponsoring(&Net::at(&chain.url()), FEE_PAYER);
    net.rail.connect().await.unwrap();
    (chain, net)
}

/// Protects: an offer says who pays the fee, and takes no hash where the server does.
#[tokio::test]
async fn an_offer_says_who_pays_the_fee() {
    let (_chain, net) = start().await;
    for (terms, sponsored) in [
        (json!({ "amount": "0.01" }), true),
        (json!({ "amount": "0.01", "fee_payer": true }), true),
        (json!({ "amount": "0.01", "fee_payer": false }), false),
        (json!({ "amount": "0" }), false),
    ] {
        let request = net.challenge_for(&terms).await.request.value();
        let details = &request["methodDetails"];
        assert_eq!(details["feePayer"] == true, sponsored, "{request}");
        let modes = match terms["amount"] == "0" {
            true => Value::Null,
            false if sponsored => json!(["pull"]),
            false => json!(["pull", "push"]),
        };
        assert_eq!(details["supportedModes"], modes, "{request}");
    }
    let push = json!({ "amount": "0.01", "modes": ["push"] });
    let invalid = net.rail.check(&push).unwrap_err();
    assert!(invalid.to_string().contains("fee_payer"), "{invalid}");
}

/// Protects: nobody is asked for a sponsored payment that lapses on its way, nor held up where the
/// payer pays the fee, or nothing.
#[tokio::test]
async fn an_offer_says_how_long_its_challenge_must_last() {
    let (_chain, net) = start().await;
    for (terms, seconds) in [
        (json!({ "amount": "0.01" }), 15),
        (json!({ "amount": "0.01", "fee_payer": false }), 5),
        (json!({ "amount": "0" }), 0),
    ] {
        let quote = net.rail.quote(&terms).await.unwrap();
        assert_eq!(quote.at_least.as_secs(), seconds, "{terms}");
    }
}

/// Protects: a payment of many parts is not refused for gas that its wallet only assumes, where others
/// have a limit, nor for what it needs, where we have.
#[tokio::test]
async fn many_parts_pass_the_limit_on_gas() {
    let chain = Ground::start().await;
    let net = Net::at(&chain.url());
    // Of the limits, the one on gas is to speak: the one on the fee is above what that allows.
    let price = net.gas_price().await * 2;
    let max_fee = Amount::new(price * 2_500_000).to_decimal(18);
    let net = sponsoring_up_to(&net, FEE_PAYER, &max_fee);
    let author = address!("0x15d34AAf54267DB7D7c367839AAf71A00a2C6A65");
    let split = json!({ "amount": "0.0001", "recipient": author });
    let terms = json!({ "amount": "0.01", "splits": vec![split; 10] });
    let challenge = net.challenge_for(&terms).await;
    let credential = net.pay(challenge, RICH).await.unwrap();
    let order = net.verify(&credential).await.unwrap();
    let fields: Value = serde_json::from_str(order.as_str()).unwrap();
    let raw = hex::decode(fields["raw"].as_str().unwrap()).unwrap();
    let signed = AASigned::decode_2718(&mut raw.as_slice()).unwrap();
    assert!(signed.tx().gas_limit <= 2_000_000);
    reference(net.settle(&order).await);

    let terms = json!({ "amount": "0.01", "splits": [{ "amount": "0.004", "recipient": author }]});
    let challenge = net.challenge_for(&terms).await;
    let calls = |challenge: &Challenge| {
        let mut tx = paying(challenge, 6_000);
        (tx.fee_token, tx.max_fee_per_gas) = (None, price);
        tx.calls.insert(0, call(author, 4_000, B256::ZERO));
        tx
    };
    for (gas_limit, passes) in [(2_300_000, true), (2_300_001, false)] {
        let tx = TempoTransaction {
            gas_limit,
            ..calls(&challenge)
        };
        let credential = Credential {
            challenge: challenge.clone(),
            payload: transaction(&half(tx, RICH).await),
            source: None,
        };
        assert_eq!(net.verify(&credential).await.is_ok(), passes, "{gas_limit}");
    }
}

/// Protects: three calls in two requests, and nothing is sent before the simulation is through.
#[tokio::test]
async fn nothing_is_sent_unless_the_simulation_says_so() {
    let (chain, net) = start().await;
    // One for each: a sponsored transaction is not taken for long.
    let paid = async || net.pay(net.challenge("0.01").await, RICH).await.unwrap();
    for outage in [
        Fault::Disconnect,
        Fault::Status(503),
        Fault::error(-32601, "Method not found"),
        Fault::error(-32000, "header not found"),
    ] {
        let credential = paid().await;
        chain.fail_next("eth_call", 2, outage);
        assert!(matches!(
            net.verify(&credential).await,
            Err(Refusal::Fault(_))
        ));
        chain.clear_faults();
    }
    assert_eq!(chain.calls("eth_sendRawTransactionSync"), 0);
    let credential = paid().await;
    let before = chain.total_calls();
    let order = net.verify(&credential).await.unwrap();
    reference(net.settle(&order).await);
    assert_eq!(chain.total_calls() - before, 3);
}

/// Protects: a sponsored transaction that may run out on its way is not sent, and as long as
/// somebody may have sent it, it is not given up.
#[tokio::test]
async fn what_is_about_to_run_out_is_not_sent() {
    let (chain, net) = start().await;
    let credential = net.pay(net.challenge("0.01").await, RICH).await.unwrap();
    let order = net.verify(&credential).await.unwrap();
    let mut fields: Value = serde_json::from_str(order.as_str()).unwrap();
    fields["valid_before"] = json!(now() + 14);
    let late = StoredOrder::of(&fields).unwrap();
    assert_eq!(net.settle(&late).await, Outcome::Unknown);
    assert_eq!(net.lookup(&late).await, Outcome::Unknown);
    assert_eq!(chain.calls("eth_sendRawTransactionSync"), 0);
    assert_eq!(chain.calls("eth_sendRawTransaction"), 0);
    reference(net.settle(&order).await);
    reference(net.lookup(&late).await);
}
