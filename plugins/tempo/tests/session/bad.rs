//! What is refused, each with its own problem, and that it leaves the channel as it was.

use farebox_core::wire::Credential;
use serde_json::{Value, json};

use alloy::primitives::{B256, Bytes, U256, uint};

use crate::kit::{STRANGER, Shop, challenge, problem, tampered, wallet};

/// Protects: vouchers that are not for this channel, by its signer, in one spelling, are refused
/// before anything about the channel is told.
#[tokio::test]
async fn vouchers_of_others_and_for_others_are_refused() {
    let shop = Shop::open().await;
    let channel = shop.channel(50_000).await;
    let other = shop.channel(50_000).await;
    let good = shop.voucher(&channel, 5_000).await;
    let elsewhere = shop.voucher(&other, 5_000).await;
    let foreign: Value = elsewhere.payload.decode().unwrap();
    let address = json!("0x9999999999999999999999999999999999999999");
    type Change<'a> = Box<dyn FnOnce(&mut Value) + 'a>;
    let member = |member: &'static str| -> Change<'_> {
        let address = address.clone();
        Box::new(move |payload| payload["descriptor"][member] = address)
    };
    let signature = |change: fn(Vec<u8>) -> Vec<u8>| -> Change<'_> {
        Box::new(move |payload| {
            let bytes: Bytes = serde_json::from_value(payload["signature"].clone()).unwrap();
            payload["signature"] = json!(Bytes::from(change(bytes.to_vec())));
        })
    };
    let cases: Vec<(&str, &str, Change<'_>)> = vec![
        ("another payee", "verification-failed", member("payee")),
        ("another token", "verification-failed", member("token")),
        (
            "another operator",
            "verification-failed",
            member("operator"),
        ),
        ("another payer", "verification-failed", member("payer")),
        (
            "another channel's id",
            "verification-failed",
            Box::new(|payload| payload["channelId"] = foreign["channelId"].clone()),
        ),
        (
            "another channel's signature",
            "session/signer-mismatch",
            Box::new(|payload| payload["signature"] = foreign["signature"].clone()),
        ),
        (
            "another amount",
            "session/signer-mismatch",
            Box::new(|payload| payload["cumulativeAmount"] = json!("50000")),
        ),
        (
            "the mirror image",
            "session/invalid-signature",
            signature(|mut bytes| {
                let order =
                    uint!(0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141_U256);
                let s = U256::from_be_slice(&bytes[32..64]);
                bytes[32..64].copy_from_slice(&(order - s).to_be_bytes::<32>());
                bytes[64] = 55 - bytes[64];
                bytes
            }),
        ),
        (
            "a byte too many",
            "session/invalid-signature",
            signature(|mut bytes| {
                bytes.push(0);
                bytes
            }),
        ),
        (
            "version 1",
            "malformed-credential",
            Box::new(|payload| {
                payload.as_object_mut().unwrap().remove("descriptor");
            }),
        ),
    ];
    let before = shop.state(&channel).await;
    for (what, expected, change) in cases {
        let bad = tampered(&good, change);
        let (slug, detail) = problem(shop.present(bad).await);
        assert_eq!(slug, expected, "{what}: {detail}");
        for told in ["1000", "50000"] {
            assert!(!detail.contains(told), "{what} tells a balance: {detail}");
        }
        assert!(
            shop.state(&channel).await == before,
            "{what} leaves a trace"
        );
    }
    shop.present(good).await.unwrap();
}

/// Protects: a voucher by somebody else than the channel's signer, or for another chain.
#[tokio::test]
async fn a_stranger_cannot_spend_nor_name_the_payer() {
    let shop = Shop::open().await;
    let channel = shop.channel(50_000).await;
    let good = shop.voucher(&channel, 5_000).await;
    for source in [
        "did:pkh:eip155:1:0x70997970C51812dc3A010C7d01b50e0d17dc79C8".to_owned(),
        format!(
            "did:pkh:eip155:1337:{}",
            wallet(&shop.chain.url(), STRANGER).address()
        ),
        "somebody".to_owned(),
    ] {
        let bad = Credential {
            source: Some(source),
            ..good.clone()
        };
        assert_eq!(problem(shop.present(bad).await).0, "verification-failed");
    }
    let anonymous = Credential {
        source: None,
        ..good
    };
    shop.present(anonymous).await.unwrap();
}

/// Protects: a credential of one route opens no other.
#[tokio::test]
async fn a_voucher_for_one_route_is_refused_on_another() {
    let shop = Shop::open().await;
    let channel = shop.channel(50_000).await;
    let voucher = shop.voucher(&channel, 5_000).await;
    let (slug, _) = problem(shop.serve(&shop.other, voucher).await);
    assert_eq!(slug, "invalid-challenge");
}

/// Protects: closing is final.
#[tokio::test]
async fn after_a_close_nothing_is_served() {
    let shop = Shop::open().await;
    let channel = shop.channel(50_000).await;
    let voucher = shop.voucher(&channel, 5_000).await;
    let (topping, _) = shop.topping_up(&channel, 1_000).await;
    let closing = shop.closing(&channel, 1_000).await;
    shop.present(closing.clone()).await.unwrap();
    // The close again is answered again.
    shop.present(closing).await.unwrap();
    for late in [voucher, topping, shop.closing(&channel, 1_000).await] {
        let (slug, _) = problem(shop.present(late).await);
        assert_eq!(slug, "session/channel-finalized");
    }
}

#[tokio::test]
async fn a_channel_that_nobody_opened_is_not_found() {
    let shop = Shop::open().await;
    let (_, channel) = shop.opening(50_000, 1_000).await;
    let voucher = shop.voucher(&channel, 5_000).await;
    assert_eq!(
        problem(shop.present(voucher).await).0,
        "session/channel-not-found"
    );
}

/// Protects: an opening is what its transaction does, whatever the payload says.
#[tokio::test]
async fn openings_are_read_from_their_transactions() {
    let shop = Shop::open().await;
    let (good, _) = shop.opening(50_000, 1_000).await;
    let (other, _) = shop.opening(50_000, 1_000).await;
    let foreign: Value = other.payload.decode().unwrap();
    let swapped = tampered(&good, |payload| {
        payload["transaction"] = foreign["transaction"].clone();
    });
    let (slug, detail) = problem(shop.present(swapped).await);
    assert_eq!(slug, "verification-failed");
    assert!(detail.contains("another channel"), "{detail}");
    let longer = tampered(&good, |payload| {
        let transaction = payload["transaction"].as_str().unwrap().to_owned();
        payload["transaction"] = json!(transaction + "00");
    });
    assert_eq!(
        problem(shop.present(longer).await).0,
        "malformed-credential"
    );
    let (small, _) = shop.opening(999, 0).await;
    assert_eq!(
        problem(shop.present(small).await).0,
        "session/insufficient-balance"
    );
    let signer = tampered(&good, |payload| {
        payload["authorizedSigner"] = json!("0x9999999999999999999999999999999999999999");
    });
    assert_eq!(
        problem(shop.present(signer).await).0,
        "malformed-credential"
    );
    let too_much = tampered(&good, |payload| {
        payload["cumulativeAmount"] = json!("50001")
    });
    assert_eq!(
        problem(shop.present(too_much).await).0,
        "session/amount-exceeds-deposit"
    );
    assert_eq!(shop.chain.calls("eth_sendRawTransactionSync"), 0);
    shop.present(good).await.unwrap();
}

/// Protects: one challenge opens one channel, and one payment opens one.
#[tokio::test]
async fn two_openings_for_one_challenge_are_one_too_many() {
    let shop = Shop::open().await;
    let challenge = shop.challenge().await;
    let (first, _) = shop.opening_for(challenge.clone(), 50_000, 1_000).await;
    let (second, channel) = shop.opening_for(challenge, 50_000, 1_000).await;
    shop.present(first.clone()).await.unwrap();
    let refused = shop.present(second).await;
    assert!(refused.is_err(), "{refused:?}");
    assert!(shop.engine_knows(&channel).await.is_none());
    // The same payment under another challenge.
    let again = Credential {
        challenge: shop.challenge().await,
        ..first
    };
    assert!(shop.present(again).await.is_err());
}

/// Protects: a payment is for one purpose: an opening is no top-up, and a top-up is for its channel.
#[tokio::test]
async fn a_payment_serves_one_purpose() {
    let shop = Shop::open().await;
    let (opening, channel) = shop.opening(50_000, 1_000).await;
    let opened: Value = opening.payload.decode().unwrap();
    shop.present(opening).await.unwrap();
    let other = shop.channel(50_000).await;
    let (topping, _) = shop.topping_up(&channel, 10_000).await;
    let as_top_up = tampered(&topping, |payload| {
        payload["transaction"] = opened["transaction"].clone();
    });
    assert_eq!(
        problem(shop.present(as_top_up).await).0,
        "verification-failed"
    );
    let (elsewhere, _) = shop.topping_up(&other, 10_000).await;
    let swapped: Value = elsewhere.payload.decode().unwrap();
    let of_another = tampered(&topping, |payload| {
        payload["transaction"] = swapped["transaction"].clone();
    });
    let (slug, detail) = problem(shop.present(of_another).await);
    assert_eq!(slug, "verification-failed");
    assert!(detail.contains("another channel"), "{detail}");
    let more = tampered(&topping, |payload| {
        payload["additionalDeposit"] = json!("10001");
    });
    assert_eq!(problem(shop.present(more).await).0, "verification-failed");
    shop.present(topping.clone()).await.unwrap();
    let again = Credential {
        challenge: challenge(&shop.gate).await,
        ..topping
    };
    assert!(shop.present(again).await.is_err(), "a top-up counts once");
    assert_eq!(
        shop.state(&channel).await.deposit,
        farebox_core::wire::Amount::new(60_000)
    );
}

/// Protects: a close takes what was served and no more, and no less than a voucher covers.
#[tokio::test]
async fn a_close_below_what_was_served_is_refused() {
    let shop = Shop::open().await;
    let channel = shop.channel(50_000).await;
    let voucher = shop.voucher(&channel, 2_000).await;
    shop.present(voucher).await.unwrap();
    let low = shop.closing(&channel, 1_999).await;
    assert_eq!(problem(shop.present(low).await).0, "verification-failed");
    assert!(!shop.state(&channel).await.closed);
    let _ = B256::ZERO;
}
