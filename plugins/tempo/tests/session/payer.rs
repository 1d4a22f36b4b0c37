//! The payer's side: what it signs, what it believes, and how it gets its money back.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use farebox_core::{PayError, Paying, SessionPayer, Standing, TypedSessionPayer, prelude::*};
use farebox_sandbox_tempo::dev_account;
use serde_json::{Value, json};

use crate::kit::{PAYER, REALM, STRANGER, Shop, approve, problem, wallet, wallet_with};

fn payer(shop: &Shop, session: Value) -> impl SessionPayer {
    TypedSessionPayer::new(wallet_with(&shop.chain.url(), PAYER, session))
}

/// Protects: the wallet's own limit holds whatever the budget allows, for the channel as a whole.
#[tokio::test]
async fn no_more_than_max_deposit_is_put_in() {
    let shop = Shop::open().await;
    let careful = payer(&shop, json!({ "max_deposit": "0.05" }));
    let challenge = shop.challenge().await;
    let cx = Paying::new(&challenge, Some(REALM));
    let over = careful.draft_open(&cx, Amount::new(50_001)).await;
    assert!(matches!(over, Err(PayError::Refused(_))), "{over:?}");
    assert!(careful.draft_open(&cx, Amount::new(50_000)).await.is_ok());
    let channel = shop.channel(50_000).await;
    let more = careful.draft_top_up(&cx, &channel, Amount::new(1)).await;
    assert!(matches!(more, Err(PayError::Refused(_))), "{more:?}");
}

/// Protects: a request for another protocol, chain, reserve or seller is not paid.
#[tokio::test]
async fn other_requests_are_not_paid() {
    let shop = Shop::open().await;
    let mut challenge = shop.challenge().await;
    let request = challenge.request.value();
    let wallet = payer(&shop, json!({}));
    let price = |challenge: &Challenge| wallet.price(&Paying::new(challenge, Some(REALM)));
    assert!(price(&challenge).is_ok());
    let custom = json!("0x9999999999999999999999999999999999999999");
    for (member, value, refused) in [
        ("sessionProtocol", json!("v1"), false),
        ("sessionProtocol", Value::Null, false),
        ("chainId", json!(4217), false),
        ("escrowContract", custom.clone(), true),
        ("escrowContract", Value::Null, false),
    ] {
        let mut changed = request.clone();
        changed["methodDetails"][member] = value.clone();
        if value.is_null() {
            changed["methodDetails"]
                .as_object_mut()
                .unwrap()
                .remove(member);
        }
        challenge.request = farebox_core::wire::Encoded::encode(&changed).unwrap();
        match price(&challenge) {
            Err(PayError::Refused(_)) => assert!(refused, "{member}"),
            Err(PayError::Unsupported(_)) => assert!(!refused, "{member}"),
            other => panic!("{member}: {other:?}"),
        }
    }
    let mut changed = request;
    changed["methodDetails"]["escrowContract"] = custom;
    challenge.request = farebox_core::wire::Encoded::encode(&changed).unwrap();
    let trusting = payer(&shop, json!({ "allow_custom_escrow": true }));
    assert!(
        trusting
            .price(&Paying::new(&challenge, Some(REALM)))
            .is_ok()
    );
}

/// Protects: an opening that is taken up again makes no second deposit.
#[tokio::test]
async fn the_same_draft_deposits_once() {
    let shop = Shop::open().await;
    let challenge = shop.challenge().await;
    let cx = Paying::new(&challenge, Some(REALM));
    let draft = shop
        .payer
        .draft_open(&cx, Amount::new(50_000))
        .await
        .unwrap();
    let calls = shop.chain.calls("eth_sendRawTransactionSync");
    let mut transactions = Vec::new();
    for _ in 0..2 {
        let approved = approve(&*shop.payer, &cx, &draft);
        let funded = shop
            .payer
            .open(&cx, &draft, Amount::new(1_000), approved)
            .await;
        let payload: Value = funded.unwrap().paid.payload.decode().unwrap();
        transactions.push(payload["transaction"].clone());
    }
    assert_eq!(transactions[0], transactions[1]);
    assert_eq!(calls, shop.chain.calls("eth_sendRawTransactionSync"));
}

/// Protects: a recorded deposit is found by the chain's word alone, and given up only when it can
/// not happen any more.
#[tokio::test]
async fn a_deposit_is_pending_until_it_is_there_or_impossible() {
    let shop = Shop::open().await;
    let (opening, channel) = shop.opening(50_000, 1_000).await;
    assert!(matches!(shop.standing(&channel).await, Standing::Pending));
    let (_, lost) = shop.opening(50_000, 1_000).await;
    shop.present(opening).await.unwrap();
    match shop.standing(&channel).await {
        Standing::Open {
            channel: found,
            closing: false,
            ..
        } => assert_eq!(found.deposit, Amount::new(50_000)),
        other => panic!("{other:?}"),
    }
    let (_, topped) = shop.topping_up(&channel, 10_000).await;
    assert!(matches!(shop.standing(&topped).await, Standing::Pending));
    shop.chain.advance_clock(Duration::from_secs(120));
    // The chain's time is that of its blocks.
    shop.until(async || matches!(shop.standing(&lost).await, Standing::Absent))
        .await;
    match shop.standing(&topped).await {
        Standing::Open { channel, .. } => assert_eq!(channel.deposit, Amount::new(50_000)),
        other => panic!("{other:?}"),
    }
}

/// Protects: a payer whose server is gone gets back what was not settled.
#[tokio::test]
async fn a_deposit_comes_back_without_the_server() {
    let shop = Shop::with_grace(Duration::from_secs(20)).await;
    let payer = dev_account(PAYER).unwrap().0;
    let had = shop.balance(payer);
    let channel = shop.channel(50_000).await;
    shop.force_close(&channel).await;
    match shop.standing(&channel).await {
        Standing::Open { closing: true, .. } => {}
        other => panic!("{other:?}"),
    }
    let early = shop.withdraw(&channel).await;
    assert!(matches!(early, Err(PayError::NotPaid(_))), "{early:?}");
    // No more, or the wallet's transactions would have run out before the chain sees them.
    shop.chain.advance_clock(Duration::from_secs(15));
    shop.until(async || shop.withdraw(&channel).await.is_ok())
        .await;
    assert_eq!(shop.balance(payer), had);
    assert!(matches!(
        shop.standing(&channel).await,
        Standing::Closed { .. }
    ));
    // The server sees it too, and serves no more.
    let voucher = shop.voucher(&channel, 2_000).await;
    problem(shop.present(voucher).await);
}

/// Protects: a wallet without records goes on with its channel, by its own signature and the
/// chain's word; what a server adds to that is refused.
#[tokio::test]
async fn a_snapshot_is_believed_as_far_as_it_is_proven() {
    let shop = Shop::open().await;
    let (opening, channel) = shop.opening(50_000, 1_000).await;
    let receipt = shop.present(opening).await.unwrap();
    let header = receipt["attached"][1][1].as_str().unwrap();
    let snapshot: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).unwrap()).unwrap();
    let challenge = shop.challenge().await;
    let cx = Paying::new(&challenge, Some(REALM));
    let adopted = shop.payer.adopt(&cx, Some(&snapshot)).await.unwrap();
    assert_eq!(adopted.channel.id, channel.id);
    assert_eq!(adopted.channel.deposit, Amount::new(50_000));
    assert_eq!(adopted.authorized, Amount::new(1_000));
    let voucher = shop.voucher(&adopted.channel, 2_000).await;
    shop.present(voucher).await.unwrap();

    type Lie = fn(&mut Value);
    let lies: [(&str, Lie); 4] = [
        ("a higher voucher", |s| {
            s["highestVoucher"]["cumulativeAmount"] = json!("50000");
        }),
        ("another payee", |s| {
            s["descriptor"]["payee"] = json!("0x9999999999999999999999999999999999999999");
        }),
        ("another channel", |s| {
            s["channelId"] = json!("0x".to_owned() + &"11".repeat(32));
        }),
        ("another chain", |s| s["chainId"] = json!(4217)),
    ];
    for (what, lie) in lies {
        let mut told = snapshot.clone();
        lie(&mut told);
        let adopted = shop.payer.adopt(&cx, Some(&told)).await;
        assert!(matches!(adopted, Err(PayError::Refused(_))), "{what}");
    }
    let mut more = snapshot.clone();
    more["deposit"] = json!("90000");
    let adopted = shop.payer.adopt(&cx, Some(&more)).await.unwrap();
    assert_eq!(
        adopted.channel.deposit,
        Amount::new(50_000),
        "the chain says"
    );
    let stranger = TypedSessionPayer::new(wallet(&shop.chain.url(), STRANGER));
    assert!(stranger.adopt(&cx, Some(&snapshot)).await.is_err());
    assert!(shop.payer.adopt(&cx, None).await.is_err());
}
