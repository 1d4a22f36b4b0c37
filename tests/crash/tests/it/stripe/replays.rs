//! Proofs that come a second time.

use std::time::{Duration, SystemTime};

use farebox_sandbox_stripe::Fault;

use super::{Seen, Shop};

/// Protects: a token minted anew for a challenge never charges again, whatever became of the first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_minted_anew_for_a_challenge_charges_nothing() {
    for lost in [false, true] {
        let shop = Shop::open().await;
        let challenges = shop.challenges().await;
        let (first, second) = (shop.pay(&challenges).await, shop.pay(&challenges).await);
        if lost {
            shop.sandbox().fault(Fault::DropAfterCommit);
            shop.sandbox().fault(Fault::DropBeforeCommit);
        }
        let (status, challenged) = shop.answer(&first).await;
        let expected = if lost { 503 } else { 200 };
        assert_eq!((status.as_u16(), challenged), (expected, false));
        // Refused for good: a fresh challenge would have an honest client pay twice.
        assert_eq!(
            shop.answer(&second).await,
            (http::StatusCode::FORBIDDEN, false)
        );
        if lost {
            shop.reconcile("a lost reply").await;
            assert!(matches!(shop.present(first).await, Seen::Served));
            assert!(matches!(shop.present(second).await, Seen::Spent));
        }
        assert_eq!(shop.sandbox().total("usd"), 50, "lost: {lost}");
        assert_eq!(shop.world.served(), 1, "lost: {lost}");
    }
}

/// Protects: Stripe repeats its answer to whoever asks under the same key. Where the store has lost
/// the payment, that is no second purchase; where the payment is on record, it is the truth.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_answer_opens_nothing_that_was_served_for() {
    let mut shop = Shop::open().await;
    let challenges = shop.challenges().await;
    let payment = shop.pay(&challenges).await;
    assert_eq!(shop.answer(&payment).await.0, 200);
    shop.node.kill().unwrap();
    for suffix in ["", "-wal", "-shm"] {
        let file = format!("{}{suffix}", shop.store.trim_start_matches("sqlite://"));
        let _ = std::fs::remove_file(file);
    }
    let charged = SystemTime::now();
    // Stripe counts in whole seconds.
    while charged.elapsed().unwrap() < Duration::from_secs(1) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    shop.node.start("").await.unwrap();
    assert!(matches!(shop.present(payment).await, Seen::Spent));
    assert_eq!(shop.sandbox().total("usd"), 50);
    assert_eq!(shop.world.served(), 1);
}
