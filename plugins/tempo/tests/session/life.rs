//! A channel from its opening to its end, and the money at every step.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use farebox_core::{Moment, Standing, prelude::*};
use farebox_engine::{Admission, Inbound};
use farebox_sandbox_tempo::dev_account;
use serde_json::{Value, json};

use crate::kit::{FEE_PAYER, PAYER, RECIPIENT, Shop, problem, secret};

/// Protects: the whole way: open, a hundred vouchers without a call of the chain for each, a top-up,
/// more vouchers, a close; the seller has what was served and the payer the rest.
#[tokio::test]
async fn a_channel_is_opened_streamed_topped_up_and_closed() {
    let shop = Shop::open().await;
    let payer = dev_account(PAYER).unwrap().0;
    let (had, sold) = (shop.balance(payer), shop.balance(RECIPIENT));
    let (opening, channel) = shop.opening(50_000, 1_000).await;
    let receipt = shop.present(opening).await.unwrap();
    assert_eq!(receipt["reference"], json!(channel.id));
    assert_eq!(receipt["channelId"], json!(channel.id));
    assert_eq!(
        (&receipt["method"], &receipt["intent"]),
        (&json!("tempo"), &json!("session"))
    );
    assert_eq!(receipt["acceptedCumulative"], "1000");
    assert_eq!(receipt["spent"], "1000");
    assert_eq!(receipt["units"], 1);
    assert!(receipt["txHash"].is_string(), "{receipt}");
    assert_eq!(shop.balance(payer), had - 50_000);

    let calls = shop.chain.total_calls();
    for n in 2..=50_u128 {
        let voucher = shop.voucher(&channel, n * 1_000).await;
        let receipt = shop.present(voucher).await.unwrap();
        assert_eq!(
            receipt["acceptedCumulative"],
            json!((n * 1_000).to_string())
        );
        assert_eq!(receipt["reference"], json!(channel.id));
    }
    assert!(
        shop.chain.total_calls() - calls <= 2,
        "a voucher costs no call of the chain, but for its state every few seconds"
    );
    let over = shop.voucher_past(&channel, 51_000).await;
    let (slug, _) = problem(shop.present(over).await);
    assert_eq!(slug, "session/amount-exceeds-deposit");

    let (topping, channel) = shop.topping_up(&channel, 60_000).await;
    let receipt = shop.present(topping.clone()).await.unwrap();
    assert!(receipt["txHash"].is_string());
    assert_eq!(shop.state(&channel).await.deposit, Amount::new(110_000));
    // The same credential again is answered again, and adds nothing.
    shop.present(topping).await.unwrap();
    assert_eq!(shop.state(&channel).await.deposit, Amount::new(110_000));
    for n in 51..=101_u128 {
        let voucher = shop.voucher(&channel, n * 1_000).await;
        shop.present(voucher).await.unwrap();
    }

    let closing = shop.closing(&channel, 101_000).await;
    let receipt = shop.present(closing).await.unwrap();
    assert!(receipt["txHash"].is_string(), "{receipt}");
    assert_eq!(shop.balance(RECIPIENT), sold + 101_000);
    assert_eq!(shop.balance(payer), had - 101_000);
    let state = shop.state(&channel).await;
    assert!(state.closed && state.unaccounted().is_zero(), "{state:?}");
    assert_eq!(state.settled, Amount::new(101_000));
    assert_eq!(state.refunded, Amount::new(9_000));
    assert!(matches!(
        shop.standing(&channel).await,
        Standing::Closed { .. }
    ));
}

/// Protects: an equal voucher is accepted again and hands over nothing more; a lower one is refused.
#[tokio::test]
async fn an_equal_voucher_changes_nothing_and_a_lower_one_is_refused() {
    let shop = Shop::open().await;
    let channel = shop.channel(50_000).await;
    let voucher = shop.voucher(&channel, 5_000).await;
    for _ in 0..3 {
        shop.present(voucher.clone()).await.unwrap();
    }
    assert_eq!(shop.state(&channel).await.authorized, Amount::new(5_000));
    let lower = shop.voucher(&channel, 4_000).await;
    problem(shop.present(lower).await);
    assert_eq!(shop.state(&channel).await.authorized, Amount::new(5_000));
}

/// Protects: a payer cannot make the server verify dust, and is told what the next step is.
#[tokio::test]
async fn small_steps_are_refused() {
    let shop = Shop::with(json!({}), json!({ "min_voucher_delta": "0.002" })).await;
    let channel = shop.channel(50_000).await;
    assert_eq!(
        shop.challenge().await.request.value()["methodDetails"]["minVoucherDelta"],
        "2000"
    );
    let small = shop.voucher(&channel, 2_999).await;
    let (slug, detail) = problem(shop.present(small).await);
    assert_eq!(slug, "session/delta-too-small");
    assert!(detail.contains("3000"), "{detail}");
    let enough = shop.voucher(&channel, 3_000).await;
    let admitted = shop.gate.present(enough, &Inbound::default()).await;
    let Ok(Admission::Serve(serving)) = admitted else {
        panic!("{admitted:?}");
    };
    // What a stream asks for would be accepted.
    let exhausted = Moment::Exhausted {
        required: Amount::new(4_000),
        next: Amount::new(1_000),
    };
    let state = shop.state(&channel).await;
    let asked = serving.meter().unwrap().event(&state, &exhausted).unwrap();
    assert_eq!(asked.data["requiredCumulative"], "5000");
}

/// Protects: a channel of which nothing was spent gives everything back.
#[tokio::test]
async fn an_unused_channel_is_closed_for_nothing() {
    let shop = Shop::open().await;
    let payer = dev_account(PAYER).unwrap().0;
    let had = shop.balance(payer);
    let (opening, channel) = shop.opening(50_000, 0).await;
    // The first voucher is for nothing, so there is nothing to serve for.
    let _ = shop.present(opening).await;
    assert_eq!(shop.state(&channel).await.deposit, Amount::new(50_000));
    let closing = shop.closing(&channel, 0).await;
    shop.present(closing).await.unwrap();
    assert_eq!(shop.balance(payer), had);
}

/// Protects: the payer signs without a fee token, and the server's account pays for opening and
/// topping up.
#[tokio::test]
async fn openings_and_top_ups_may_be_sponsored() {
    let rail = json!({ "fee_payer": { "private_key": secret(FEE_PAYER) } });
    let shop = Shop::with(rail, json!({})).await;
    let sponsor = dev_account(FEE_PAYER).unwrap().0;
    let details = shop.challenge().await.request.value()["methodDetails"].clone();
    assert_eq!(details["feePayer"], true);
    let before = shop.balance(sponsor);
    let channel = shop.channel(50_000).await;
    let (topping, channel) = shop.topping_up(&channel, 10_000).await;
    shop.present(topping).await.unwrap();
    assert_eq!(shop.state(&channel).await.deposit, Amount::new(60_000));
    assert!(shop.balance(sponsor) < before, "the sponsor pays the fees");
    let voucher = shop.voucher(&channel, 60_000).await;
    shop.present(voucher).await.unwrap();
}

/// Protects: top-ups alike are different transactions, however fast they follow each other; one that
/// the chain had included before would be taken for money that is not there.
#[tokio::test]
async fn top_ups_of_one_second_add_up() {
    let shop = Shop::open().await;
    let mut channel = shop.channel(50_000).await;
    for _ in 0..4 {
        let (topping, more) = shop.topping_up(&channel, 10_000).await;
        shop.present(topping).await.unwrap();
        channel = more;
    }
    assert_eq!(channel.deposit, Amount::new(90_000));
    assert_eq!(shop.state(&channel).await.deposit, channel.deposit);
    let voucher = shop.voucher(&channel, 90_000).await;
    shop.present(voucher).await.unwrap();
}

/// Protects: a payer who asks the chain for the money back gets no more service, and what was
/// authorised is settled within the grace period.
#[tokio::test]
async fn a_forced_close_ends_service_and_is_answered_by_settling() {
    let shop = Shop::open().await;
    let sold = shop.balance(RECIPIENT);
    let channel = shop.channel(50_000).await;
    let voucher = shop.voucher(&channel, 7_000).await;
    shop.present(voucher).await.unwrap();
    shop.force_close(&channel).await;
    // Noticed within the time that a state is taken for fresh.
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(6)).await;
    tokio::time::resume();
    let voucher = shop.voucher(&channel, 8_000).await;
    let (slug, _) = problem(shop.present(voucher).await);
    assert_eq!(slug, "session/channel-finalized");
    assert!(shop.state(&channel).await.close_requested);
    shop.until(async || shop.state(&channel).await.settled == Amount::new(7_000))
        .await;
    assert_eq!(shop.balance(RECIPIENT), sold + 7_000);
    // A top-up takes the request back.
    let (topping, channel) = shop.topping_up(&channel, 1_000).await;
    shop.present(topping).await.unwrap();
    let voucher = shop.voucher(&channel, 9_000).await;
    shop.present(voucher).await.unwrap();
}

/// Protects: what is open is settled by schedule, and closed when nobody uses it.
#[tokio::test]
async fn settlement_and_idle_close_follow_the_schedule() {
    let session = json!({
        "settlement_schedule": { "interval_seconds": 600 },
        "idle_close_seconds": 7200,
    });
    let shop = Shop::with(json!({}), session).await;
    let payer = dev_account(PAYER).unwrap().0;
    let (had, sold) = (shop.balance(payer), shop.balance(RECIPIENT));
    let channel = shop.channel(50_000).await;
    shop.later(Duration::from_secs(700));
    shop.engine.upkeep().await.unwrap();
    assert_eq!(shop.balance(RECIPIENT), sold + 1_000);
    assert_eq!(shop.state(&channel).await.settled, Amount::new(1_000));
    let voucher = shop.voucher(&channel, 3_000).await;
    shop.present(voucher).await.unwrap();
    shop.later(Duration::from_secs(7300));
    shop.engine.upkeep().await.unwrap();
    let state = shop.state(&channel).await;
    assert!(state.closed, "{state:?}");
    assert_eq!(shop.balance(RECIPIENT), sold + 2_000, "what was served");
    assert_eq!(shop.balance(payer), had - 2_000);
}

/// Protects: what a payer without records is told is enough to go on, and no more than the truth.
#[tokio::test]
async fn every_answer_carries_a_snapshot() {
    let shop = Shop::open().await;
    let (opening, channel) = shop.opening(50_000, 1_000).await;
    let receipt = shop.present(opening).await.unwrap();
    let attached = receipt["attached"].as_array().unwrap();
    assert_eq!(attached[0], json!(["Payment-Session", channel.id]));
    let header = attached[1][1].as_str().unwrap();
    let snapshot: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).unwrap()).unwrap();
    for (member, value) in [
        ("acceptedCumulative", json!("1000")),
        ("deposit", json!("50000")),
        ("spent", json!("1000")),
        ("settled", json!("0")),
        ("chainId", json!(1337)),
        ("channelId", json!(channel.id)),
    ] {
        assert_eq!(snapshot[member], value, "{member}");
    }
    assert_eq!(snapshot["highestVoucher"]["cumulativeAmount"], "1000");
    assert!(!format!("{:?}", shop.state(&channel).await).contains("signature"));
}

/// Protects: a server that only charges needs no session keys, and one that offers sessions is told
/// which key it lacks before it starts.
#[tokio::test]
async fn a_session_cannot_be_offered_without_an_operator() {
    let shop = Shop::open().await;
    let mut table = crate::kit::config(&shop.chain.url());
    table.as_object_mut().unwrap().remove("session");
    let rail = farebox_tempo::TempoSession::new(serde_json::from_value(table).unwrap()).unwrap();
    let terms = serde_json::from_value(json!({ "amount": "0.001", "unit": "token" })).unwrap();
    let problems = rail.check(&terms).unwrap_err().to_string();
    assert!(problems.contains("session.operator_key"), "{problems}");
}

/// Protects: a request names the reserve, the chain, the version and who else may settle, and a
/// channel's id is one however it is spelled.
#[tokio::test]
async fn a_request_says_what_a_channel_must_be() {
    let shop = Shop::open().await;
    let request = shop.challenge().await.request.value();
    assert_eq!(request["amount"], "1000");
    assert_eq!(request["unitType"], "token");
    assert_eq!(request["suggestedDeposit"], "1000000");
    assert_eq!(request["recipient"], json!(RECIPIENT.to_string()));
    let details = &request["methodDetails"];
    let reserve = "0x4d50500000000000000000000000000000000000";
    assert_eq!(details["escrowContract"], reserve);
    assert_eq!(details["chainId"], 1337);
    assert_eq!(details["sessionProtocol"], "v2");
    let operator = dev_account(crate::kit::OPERATOR).unwrap().0;
    assert_eq!(details["operator"], json!(operator));
    assert!(details.get("feePayer").is_none() && details.get("minVoucherDelta").is_none());

    let channel = shop.channel(50_000).await;
    let voucher = shop.voucher(&channel, 2_000).await;
    let shouted = crate::kit::tampered(&voucher, |payload| {
        let id = payload["channelId"].as_str().unwrap()[2..].to_uppercase();
        payload["channelId"] = json!(format!("0x{id}"));
        payload["somethingNew"] = json!(true);
    });
    let receipt = shop.present(shouted).await.unwrap();
    assert_eq!(receipt["channelId"], json!(channel.id));
    assert_eq!(channel.id, channel.id.to_lowercase());
}
