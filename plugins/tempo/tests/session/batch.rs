//! Several channels settled by one transaction.

use std::time::Duration;

use farebox_core::wire::Amount;
use farebox_sandbox_tempo::Fault;
use serde_json::json;

use crate::kit::{RECIPIENT, Shop};

/// What a server broadcasts with.
const SEND: &str = "eth_sendRawTransactionSync";

async fn due(n: usize) -> (Shop, Vec<farebox_core::OpenChannel>, u128) {
    let session = json!({ "settlement_schedule": { "interval_seconds": 600 } });
    let shop = Shop::with(json!({}), session).await;
    let sold = shop.balance(RECIPIENT);
    let mut channels = Vec::new();
    for _ in 0..n {
        channels.push(shop.channel(50_000).await);
    }
    shop.later(Duration::from_secs(700));
    (shop, channels, sold)
}

async fn settled(shop: &Shop, channels: &[farebox_core::OpenChannel]) -> usize {
    let mut settled = 0;
    for channel in channels {
        settled += usize::from(shop.state(channel).await.settled == Amount::new(1_000));
    }
    settled
}

/// Protects: channels that are due together cost one transaction, and each is settled in the books.
#[tokio::test]
async fn channels_are_settled_by_one_transaction() {
    let (shop, channels, sold) = due(5).await;
    let sent = shop.chain.calls(SEND);
    let upkept = shop.engine.upkeep().await.unwrap();
    assert_eq!((upkept.settled, upkept.open), (5, 0), "{upkept:?}");
    assert_eq!(shop.chain.calls(SEND) - sent, 1);
    assert_eq!(settled(&shop, &channels).await, 5);
    assert_eq!(shop.balance(RECIPIENT), sold + 5_000);
    // And they go on.
    for channel in &channels {
        let voucher = shop.voucher(channel, 2_000).await;
        shop.present(voucher).await.unwrap();
    }
    shop.later(Duration::from_secs(700));
    shop.engine.upkeep().await.unwrap();
    shop.until(async || shop.balance(RECIPIENT) == sold + 10_000)
        .await;
}

/// Protects: a batch that a node foresees to fail is settled channel by channel, at once.
#[tokio::test]
async fn a_batch_that_would_fail_is_settled_one_by_one() {
    let (shop, channels, sold) = due(3).await;
    let sent = shop.chain.calls(SEND);
    let reverts = Fault::error(3, "execution reverted");
    shop.chain.fail_next("eth_estimateGas", 1, reverts);
    let upkept = shop.engine.upkeep().await.unwrap();
    assert_eq!((upkept.settled, upkept.open), (3, 0), "{upkept:?}");
    assert_eq!(shop.chain.calls(SEND) - sent, 3);
    assert_eq!(settled(&shop, &channels).await, 3);
    assert_eq!(shop.balance(RECIPIENT), sold + 3_000);
}

/// Protects: a batch whose answer is lost is looked up for each channel, and sent once.
#[tokio::test]
async fn a_batch_without_an_answer_is_looked_up() {
    let (shop, channels, sold) = due(3).await;
    shop.chain.lose_reply(SEND, 1, Fault::Disconnect);
    shop.engine.upkeep().await.unwrap();
    shop.until(async || {
        shop.later(Duration::from_secs(10));
        shop.engine.reconcile().await.unwrap();
        settled(&shop, &channels).await == 3
    })
    .await;
    assert_eq!(shop.balance(RECIPIENT), sold + 3_000);
}
