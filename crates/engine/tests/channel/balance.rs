//! The balance machine: what every channel inherits, whatever rail feeds it.

use std::time::Duration;

use farebox_core::{prelude::*, wire::Receipt};
use farebox_engine::{MeterError, Refused};
use serde_json::json;

use crate::rail::Server;

fn problem(refused: Result<Receipt, Refused>) -> String {
    match refused {
        Err(Refused::Payment(rejection)) => rejection.problem.type_uri().into_owned(),
        other => panic!("expected a rejection, got {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn vouchers_only_go_up() {
    let server = Server::new();
    assert!(problem(server.voucher(1).await).ends_with("session/channel-not-found"));
    server.open(100).await;
    server.voucher(40).await.unwrap();
    server
        .voucher(40)
        .await
        .expect("an equal voucher changes nothing and is accepted");
    assert!(problem(server.voucher(39).await).ends_with("verification-failed"));
    assert!(problem(server.voucher(101).await).ends_with("session/amount-exceeds-deposit"));
    let state = server.meter.state().await.unwrap();
    assert_eq!(
        (
            state.authorized.get(),
            state.deposit.get(),
            state.spent.get()
        ),
        (40, 100, 0)
    );
    server.close().await;
    assert!(problem(server.voucher(50).await).ends_with("session/channel-finalized"));
    assert!(
        server.meter.debit(Amount::new(1)).await.is_err(),
        "closing is final"
    );
}

/// One payment, sent under two challenges, is credited once.
#[tokio::test(start_paused = true)]
async fn a_top_up_is_credited_once() {
    let server = Server::new();
    server.open(0).await;
    let top_up = json!({"action": "topUp", "proof": "p", "amount": 10});
    server.present(top_up.clone()).await.unwrap();
    assert!(matches!(
        server.present(top_up).await,
        Err(Refused::Spent(_))
    ));
    assert_eq!(
        server.meter.state().await.unwrap().authorized,
        Amount::new(10)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_hundred_debits_on_a_hundred_give_a_hundred() {
    let server = Server::new();
    server.open(100).await;
    server.voucher(100).await.unwrap();
    let debits: Vec<_> = (0..200)
        .map(|_| {
            let meter = server.meter.clone();
            tokio::spawn(async move { meter.debit(Amount::new(1)).await.is_ok() })
        })
        .collect();
    let mut spent = 0;
    for debit in debits {
        spent += usize::from(debit.await.unwrap());
    }
    assert_eq!(spent, 100);
    assert_eq!(server.meter.state().await.unwrap().spent, Amount::new(100));
}

/// A lease is one write for many ticks, and gives back what it did not burn.
#[tokio::test(start_paused = true)]
async fn a_lease_burns_locally_and_gives_back_the_rest() {
    let server = Server::new();
    server.open(100).await;
    server.voucher(100).await.unwrap();
    let mut lease = server.meter.lease(Amount::new(80)).await.unwrap();
    match server.meter.debit(Amount::new(21)).await {
        Err(MeterError::Exhausted {
            required,
            authorized,
            ..
        }) => {
            assert_eq!((required.get(), authorized.get()), (101, 100));
        }
        other => panic!("a leased block is not available to others: {other:?}"),
    }
    for _ in 0..30 {
        assert!(lease.burn(Amount::new(1)));
    }
    assert!(
        !lease.burn(Amount::new(51)),
        "a lease cannot burn more than it holds"
    );
    lease.finish().await.unwrap();
    assert_eq!(server.meter.state().await.unwrap().spent, Amount::new(30));
    assert!(server.meter.lease(Amount::new(70)).await.is_ok());
}

/// A waiting stream wakes when the voucher comes, and gives up when none does.
#[tokio::test(start_paused = true)]
async fn a_stream_waits_for_the_next_voucher() {
    let server = Server::new();
    server.open(100).await;
    let one = Amount::new(1);
    assert!(
        !server
            .meter
            .wait_for(one, Duration::from_millis(20))
            .await
            .unwrap()
    );
    let waiting = tokio::spawn({
        let meter = server.meter.clone();
        async move { meter.wait_for(one, Duration::from_secs(30)).await.unwrap() }
    });
    server.voucher(1).await.unwrap();
    assert!(waiting.await.unwrap());
}
