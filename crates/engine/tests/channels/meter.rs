//! What requests and streams are charged.

use std::{sync::Arc, time::Duration};

use farebox_core::{Schedule, wire::Amount};
use farebox_engine::{HOLD, MemoryStore, MeterError};
use farebox_testkit::{Counter, FaultyStore, Fuse, Network, Proxy};
use serde_json::json;
use tokio::time::Instant;

use crate::bank::{World, channel};

async fn opened(n: u64, to: u64) -> (World, crate::bank::Process) {
    let world = World::new(Schedule::default());
    let process = world.boot();
    process
        .go(json!({"do": "open", "n": n, "chain": true}))
        .await
        .unwrap();
    process
        .go(json!({"do": "voucher", "to": to}))
        .await
        .unwrap();
    (world, process)
}

/// Protects: a request is charged when it was served, once, and not otherwise.
#[tokio::test(start_paused = true)]
async fn a_request_is_charged_on_delivery() {
    let (_, process) = opened(100, 10).await;
    let mut served = process.serve(json!({"do": "bearer"})).await;
    served.reserve(4).await.unwrap();
    let mut failed = process.serve(json!({"do": "bearer"})).await;
    failed.reserve(6).await.unwrap();
    let mut third = process.serve(json!({"do": "bearer"})).await;
    let refused = third.reserve(1).await;
    assert!(
        matches!(refused, Err(MeterError::Exhausted { .. })),
        "held is not available"
    );
    failed.failed().await.unwrap();
    let answered = served.delivered(None).await.unwrap();
    assert_eq!(answered.receipt.extra["spent"], "4");
    assert_eq!(answered.receipt.extra["units"], 4);
    // What was held for the failed one is given back behind its back.
    let freed = process
        .meter()
        .wait_for(Amount::new(6), HOLD)
        .await
        .unwrap();
    assert!(freed);
    let state = process.meter().state().await.unwrap();
    assert_eq!((state.spent.get(), state.units), (4, 4));
}

/// Protects: a slow handler's charge stays held past a lease, and is charged once.
#[tokio::test(start_paused = true)]
async fn a_slow_request_keeps_what_it_holds() {
    let (world, process) = opened(100, 10).await;
    let mut slow = process.serve(json!({"do": "bearer"})).await;
    slow.reserve(10).await.unwrap();
    for _ in 0..6 {
        tokio::time::sleep(Duration::from_secs(21)).await;
        world.pass(Duration::from_secs(21));
        assert!(process.meter().debit(Amount::new(1)).await.is_err(), "held");
    }
    slow.delivered(None).await.unwrap();
    assert_eq!(
        process.meter().state().await.unwrap().spent,
        Amount::new(10)
    );
}

/// Protects: of 200 requests on a voucher of 100, exactly 100 are served.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_hundred_requests_on_a_hundred_give_a_hundred() {
    let (_, process) = opened(100, 100).await;
    let process = Arc::new(process);
    let requests: Vec<_> = (0..200)
        .map(|_| {
            let process = process.clone();
            tokio::spawn(async move {
                let mut serving = process.serve(json!({"do": "bearer"})).await;
                match serving.reserve(1).await {
                    Ok(()) => serving.delivered(None).await.is_ok(),
                    Err(_) => false,
                }
            })
        })
        .collect();
    let mut served = 0;
    for request in requests {
        served += usize::from(request.await.unwrap());
    }
    assert_eq!(served, 100);
    assert_eq!(
        process.meter().state().await.unwrap().spent,
        Amount::new(100)
    );
}

/// Protects: a thousand ticks of a stream cost two calls to the store at most.
#[tokio::test(start_paused = true)]
async fn a_thousand_ticks_cost_two_round_trips() {
    let world = World::new(Schedule::default());
    let store = Arc::new(Proxy::new(
        Arc::<MemoryStore>::default(),
        Counter::of(channel().as_str()),
    ));
    let process = world.boot_on(store.clone(), Fuse::endless());
    process
        .go(json!({"do": "open", "n": 100_000, "chain": true}))
        .await
        .unwrap();
    let serving = process.serve(json!({"do": "voucher", "to": 100_000})).await;
    let before = store.calls();
    let mut tap = serving.meter().unwrap().tap().unwrap();
    for _ in 0..1_000 {
        tap.charge(1).await.unwrap();
    }
    let last = tap.finish().await.unwrap();
    assert_eq!(last.receipt.extra["units"], 1_000);
    assert_eq!(last.receipt.extra["spent"], "1000");
    assert!(
        store.calls() - before <= 2,
        "{} calls",
        store.calls() - before
    );
    // And a longer one takes larger blocks.
    let before = store.calls();
    let mut tap = serving.meter().unwrap().tap().unwrap();
    for _ in 0..50_000 {
        tap.charge(1).await.unwrap();
    }
    tap.finish().await.unwrap();
    assert!(
        store.calls() - before <= 10,
        "{} calls",
        store.calls() - before
    );
}

/// Protects: two streams share a balance, none takes what is not there, and all of it can be spent.
#[tokio::test(start_paused = true)]
async fn streams_share_a_balance() {
    let (_, process) = opened(100, 100).await;
    let meter = process.meter();
    let (mut one, mut two) = (meter.tap().unwrap(), meter.tap().unwrap());
    let mut charged = 0;
    loop {
        let mut some = false;
        for tap in [&mut one, &mut two] {
            if tap.charge(1).await.is_ok() {
                (charged, some) = (charged + 1, true);
            }
        }
        if !some {
            break;
        }
    }
    assert_eq!(charged, 100);
    one.finish().await.unwrap();
    two.finish().await.unwrap();
    assert_eq!(meter.state().await.unwrap().spent, Amount::new(100));
}

/// Protects: an exhausted stream says what it needs, holds, and goes on with the voucher that comes
/// to another process.
#[tokio::test(start_paused = true)]
async fn an_exhausted_stream_says_so_and_resumes() {
    let (world, process) = opened(100, 5).await;
    let serving = process.serve(json!({"do": "bearer"})).await;
    let mut tap = serving.meter().unwrap().tap().unwrap();
    for _ in 0..5 {
        tap.charge(1).await.unwrap();
    }
    let exhausted = tap.charge(1).await;
    assert!(
        matches!(exhausted, Err(MeterError::Exhausted { .. })),
        "{exhausted:?}"
    );
    let event = tap.need(1).unwrap();
    assert_eq!(event.name, "payment-need-voucher");
    assert_eq!(
        event.data,
        json!({"channelId": "x", "requiredCumulative": "6", "acceptedCumulative": "5", "deposit": "100"})
    );
    // What was burnt is counted before it holds.
    assert_eq!(process.meter().state().await.unwrap().spent, Amount::new(5));
    let voucher = async {
        tokio::time::sleep(Duration::from_millis(10)).await;
        process.go(json!({"do": "voucher", "to": 8})).await.unwrap();
    };
    let (held, ()) = tokio::join!(tap.hold(1, HOLD), voucher);
    assert!(held.unwrap());
    for _ in 0..3 {
        tap.charge(1).await.unwrap();
    }
    assert!(
        !tap.hold(1, Duration::from_millis(20)).await.unwrap(),
        "and no further"
    );
    drop(tap);
    world.balances(&process, "streamed").await;
}

/// Protects: a stream whose store loses replies is charged for what it was served, once.
#[tokio::test(start_paused = true)]
async fn a_lost_reply_charges_nothing_twice() {
    for lost in 0..4 {
        let world = World::new(Schedule::default());
        let store = Arc::new(FaultyStore::new(world.disk.clone(), Network::default()));
        let process = world.boot_on(store.clone(), Fuse::endless());
        process
            .go(json!({"do": "open", "n": 10_000, "chain": true}))
            .await
            .unwrap();
        let serving = process.serve(json!({"do": "voucher", "to": 10_000})).await;
        let mut tap = serving.meter().unwrap().tap().unwrap();
        let left = std::sync::atomic::AtomicI64::new(lost);
        store.lose_reply_of(move |write| {
            let one = i64::from(write.key.starts_with("chan:"));
            left.fetch_sub(one, std::sync::atomic::Ordering::SeqCst) < one
        });
        for _ in 0..3_000 {
            tap.charge(1).await.unwrap();
        }
        tap.finish().await.unwrap();
        let state = process.meter().state().await.unwrap();
        assert_eq!((state.spent.get(), state.units), (3_000, 3_000), "{lost}");
        assert_eq!(state.held, Amount::new(0));
    }
}

/// Protects: nothing is served from a channel whose payer forces its close, whatever a stream holds
/// next, and a top-up takes that back.
#[tokio::test(start_paused = true)]
async fn a_forced_close_ends_service() {
    let (world, process) = opened(100, 50).await;
    let mut tap = process.meter().tap().unwrap();
    tap.charge(1).await.unwrap();
    world.ledger.lock().unwrap().close_requested = true;
    // Seen with the next presentation, which is refused.
    assert!(
        process
            .go(json!({"do": "voucher", "to": 60}))
            .await
            .is_err()
    );
    let state = process.meter().state().await.unwrap();
    assert!(state.close_requested && state.authorized == Amount::new(50));
    assert!(matches!(
        process.meter().debit(Amount::new(1)).await,
        Err(MeterError::Channel(_))
    ));
    assert!(matches!(
        tap.hold(60, HOLD).await,
        Err(MeterError::Channel(_))
    ));
    process
        .go(json!({"do": "topup", "n": 1, "proof": "back"}))
        .await
        .unwrap();
    // Seen with the next presentation.
    assert!(tap.charge(1).await.is_err());
    process.go(json!({"do": "bearer"})).await.unwrap();
    tap.charge(1).await.unwrap();
    tap.finish().await.unwrap();
    world.balances(&process, "resumed").await;
}

/// Protects: what a stream took aside and has not served pays for a request or another stream that
/// comes meanwhile; nobody is asked for more while it lies idle, and all of it is served once.
#[tokio::test(start_paused = true)]
async fn what_a_stream_does_not_need_is_given_back() {
    let (world, process) = opened(100, 100).await;
    let mut stream = process.meter().tap().unwrap();
    stream.charge(1).await.unwrap();
    let state = process.meter().state().await.unwrap();
    assert_eq!(state.available(), Amount::new(0), "it took all of it");

    let mut request = process.serve(json!({"do": "bearer"})).await;
    request.reserve(7).await.unwrap();
    request.delivered(None).await.unwrap();
    stream.charge(1).await.unwrap();
    process.meter().debit(Amount::new(60)).await.unwrap();
    let mut second = process.meter().tap().unwrap();
    let mut served = 69;
    for turn in 0.. {
        let stream = if turn % 2 == 0 {
            &mut second
        } else {
            &mut stream
        };
        if stream.charge(1).await.is_err() {
            break;
        }
        served += 1;
    }
    assert_eq!(served, 100);
    let refused = process.meter().debit(Amount::new(1)).await;
    assert!(matches!(refused, Err(MeterError::Exhausted { .. })));
    stream.finish().await.unwrap();
    second.finish().await.unwrap();
    assert_eq!(
        process.meter().state().await.unwrap().spent,
        Amount::new(100)
    );
    world.balances(&process, "recalled").await;
}

/// Protects: what a process that died holds is waited for shortly, and its payer is told to come back
/// and not to pay more.
#[tokio::test(start_paused = true)]
async fn a_process_that_died_gives_nothing_back_before_its_lease_lapses() {
    let (world, process) = opened(100, 100).await;
    // Of another process, which hears nothing: the store carries no words.
    let dead = world.boot();
    let mut stream = dead.meter().tap().unwrap();
    stream.charge(1).await.unwrap();
    let refused = process.meter().debit(Amount::new(1)).await;
    let Err(MeterError::Busy { retry_after }) = refused else {
        panic!("a payer who put in enough is told {refused:?}");
    };
    // A stream waits as well, and its payer hears nothing of it.
    let mut beside = process.meter().tap().unwrap();
    let held = beside.charge(1).await;
    assert!(matches!(held, Err(MeterError::Busy { .. })), "{held:?}");
    let held = beside.hold(1, Duration::from_secs(5)).await;
    assert!(matches!(held, Err(MeterError::Busy { .. })), "{held:?}");
    beside.finish().await.unwrap();
    // Before its block lapses, since a process that lives gives back before.
    assert!(Duration::ZERO < retry_after && retry_after <= Duration::from_secs(10));
    let more = process.meter().debit(Amount::new(101)).await;
    assert!(
        matches!(more, Err(MeterError::Exhausted { .. })),
        "{more:?}"
    );
    world.pass(Duration::from_secs(61));
    process.meter().debit(Amount::new(100)).await.unwrap();
}

/// Protects: what lapses while somebody waits for it is theirs at once.
#[tokio::test(start_paused = true)]
async fn a_block_that_lapses_is_spent_by_whoever_waits_for_it() {
    let (world, process) = opened(100, 100).await;
    let dead = world.boot();
    let mut stream = dead.meter().tap().unwrap();
    stream.charge(1).await.unwrap();
    let meter = process.meter();
    let lapse = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        world.pass(Duration::from_secs(61));
    };
    let (debited, ()) = tokio::join!(meter.debit(Amount::new(100)), lapse);
    debited.unwrap();
}

/// Protects: a stream that waits for what others hold is told at once when they have spent it, and a
/// payer can be.
#[tokio::test]
async fn a_stream_that_waits_for_others_learns_that_they_spent_it() {
    let (world, process) = opened(100, 100).await;
    let other = world.boot();
    let mut stream = other.meter().tap().unwrap();
    stream.charge(1).await.unwrap();
    let mut waiting = process.meter().tap().unwrap();
    let spent = async {
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        stream.charge(99).await.unwrap();
        stream.finish().await.unwrap();
    };
    let held = waiting.hold(1, Duration::from_secs(3_600));
    let held = tokio::time::timeout(Duration::from_secs(60), held);
    let (held, ()) = tokio::join!(held, spent);
    assert!(!held.unwrap().unwrap(), "there is nothing left");
    waiting.finish().await.unwrap();
}

/// That streams hold the balance may be said only by who has waited for them: on a busy machine those
/// of the same process may be late too.
fn waited(asked: Instant, refused: &MeterError) -> bool {
    let busy = matches!(refused, MeterError::Busy { .. });
    busy && asked.elapsed() >= Duration::from_secs(1)
}

/// Protects: what is recalled from a stream in the moment that it took it is taken again, and neither
/// ends the stream nor counts twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recall_in_the_wrong_moment_ends_no_stream() {
    let (world, process) = opened(3_000, 3_000).await;
    let (meter, mut stream) = (process.meter(), process.meter().tap().unwrap());
    let debits = tokio::spawn(async move {
        let mut debited = 0;
        loop {
            let asked = Instant::now();
            match meter.debit(Amount::new(1)).await {
                Ok(_) => debited += 1,
                Err(MeterError::Exhausted { .. }) => break debited,
                Err(busy) if waited(asked, &busy) => {}
                Err(error) => panic!("{error}"),
            }
        }
    });
    let mut charged = 0;
    loop {
        let asked = Instant::now();
        match stream.charge(1).await {
            Ok(()) => charged += 1,
            Err(MeterError::Exhausted { .. }) => break,
            Err(busy) if waited(asked, &busy) => {}
            Err(error) => panic!("after {charged}: {error}"),
        }
    }
    stream.finish().await.unwrap();
    assert_eq!(charged + debits.await.unwrap(), 3_000);
    world.balances(&process, "recalled at once").await;
}
