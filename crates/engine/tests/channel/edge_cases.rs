//! Edge cases of channels; numbers are those of `spec/edge-cases.toml`.

use std::{sync::Arc, time::Duration};

use farebox_core::prelude::*;
use farebox_engine::{MemoryStore, Refused};
use farebox_testkit::{Counter, Proxy};

use crate::rail::Server;

/// 114: what was put in and never used is not lost for want of a voucher.
#[tokio::test(start_paused = true)]
async fn an_unused_channel_closes_for_nothing() {
    let server = Server::new();
    server.open(100).await;
    server.close().await;
    let state = server.meter.state().await.unwrap();
    let amounts = (state.spent.get(), state.authorized.get(), state.closed);
    assert_eq!(amounts, (0, 0, true));
    let late = server.voucher(1).await;
    assert!(matches!(late, Err(Refused::Payment(_))), "{late:?}");
}

/// 119: whatever was done to it.
#[tokio::test(start_paused = true)]
async fn a_sessions_receipt_names_its_channel() {
    let server = Server::new();
    for receipt in [
        server.open(100).await,
        server.voucher(10).await.unwrap(),
        server.close().await,
    ] {
        assert_eq!(receipt.reference, "0xab");
        assert_eq!(receipt.method, "test");
        assert!(receipt.extra["challengeId"].is_string(), "{receipt:?}");
    }
}

/// 125: a stream that waits an hour looks about twice a second and not as fast as it can.
#[tokio::test(start_paused = true)]
async fn a_wait_for_a_voucher_sleeps() {
    let store = Arc::new(Proxy::new(
        Arc::<MemoryStore>::default(),
        Counter::default(),
    ));
    let server = Server::on(store.clone());
    server.open(100).await;
    let before = store.reads();
    let hour = Duration::from_secs(3600);
    let waited = server.meter.wait_for(Amount::new(1), hour).await;
    assert!(!waited.unwrap());
    let looks = store.reads() - before;
    assert!((1..=7_300).contains(&looks), "{looks} looks");
}
