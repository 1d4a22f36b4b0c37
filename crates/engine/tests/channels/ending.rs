//! A close while its channel is being spent.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use async_trait::async_trait;
use farebox_core::{ChannelAction, Fault, Listener, Notices, Schedule, wire::Amount};
use farebox_engine::{Meter, MeterError, Refused};
use farebox_testkit::{Between, Call, FaultyStore, Fuse, Network, Proxy};
use serde_json::json;
use tokio::{sync::broadcast, task::JoinHandle, time::timeout};

use crate::bank::{Got, Process, World};

/// A close that waited for a poll or for a lease would take longer. By the tests' own time, which
/// goes on only while nobody has anything to do.
const PROMPT: Duration = Duration::from_secs(3);

/// The words between processes that share a disk.
struct Told(broadcast::Sender<String>);

struct Ear(broadcast::Receiver<String>);

impl Between for Told {
    async fn call<T: Send>(
        &self,
        _: Call<'_>,
        reply: impl Future<Output = Result<T, Fault>> + Send,
    ) -> Result<T, Fault> {
        reply.await
    }

    fn notices(&self) -> Option<&dyn Notices> {
        Some(self)
    }
}

#[async_trait]
impl Notices for Told {
    async fn tell(&self, word: &str) -> Result<(), Fault> {
        // Nobody may be listening.
        let _ = self.0.send(word.to_owned());
        Ok(())
    }

    async fn listen(&self) -> Result<Box<dyn Listener>, Fault> {
        Ok(Box::new(Ear(self.0.subscribe())))
    }
}

#[async_trait]
impl Listener for Ear {
    async fn next(&mut self) -> Option<String> {
        self.0.recv().await.ok()
    }
}

/// A stream that has served seven and whose source says nothing more.
async fn stream(meter: &Meter) -> JoinHandle<Result<u64, MeterError>> {
    let mut tap = meter.tap().unwrap();
    tap.charge(7).await.unwrap();
    let (begun, begins) = tokio::sync::oneshot::channel();
    let task = tokio::spawn(async move {
        let meter = tap.meter().clone();
        let ending = meter.ending();
        begun.send(()).unwrap();
        ending.await;
        let last = tap.finish().await?;
        Ok(last
            .receipt
            .extra
            .get("units")
            .map_or(7, |n| n.as_u64().unwrap()))
    });
    begins.await.unwrap();
    task
}

async fn opened(world: &World, process: &Process, chain: bool) {
    process
        .go(json!({"do": "open", "n": 100_000, "chain": chain}))
        .await
        .unwrap();
    if chain {
        process
            .go(json!({"do": "voucher", "to": 50_000}))
            .await
            .unwrap();
    }
    world.balances(process, "opened").await;
}

/// Protects: a close ends the streams of its channel, each with what it served, here and in another
/// process, and is answered then instead of being put off until they end by themselves.
#[tokio::test(start_paused = true)]
async fn a_close_ends_streams_everywhere() {
    for chain in [true, false] {
        let world = World::new(Schedule::default());
        let told = Told(broadcast::channel(64).0);
        let store = Arc::new(Proxy::new(world.disk.clone(), told));
        let here = world.boot_on(store.clone(), Fuse::endless());
        let there = world.boot_on(store, Fuse::endless());
        opened(&world, &here, chain).await;
        let streams = [
            stream(&here.meter()).await,
            stream(&here.meter()).await,
            stream(&there.meter()).await,
        ];
        let close = here.credential(json!({"do": "close"})).await;
        let closed = timeout(PROMPT, here.present(&close))
            .await
            .expect("promptly");
        let Ok(Got::Managed(managed)) = closed else {
            panic!("a close is made");
        };
        assert_eq!(managed.action, ChannelAction::Close);
        for stream in streams {
            assert_eq!(stream.await.unwrap().unwrap(), 7);
        }
        let state = here.meter().state().await.unwrap();
        assert!(state.closed);
        assert_eq!((state.spent, state.units), (Amount::new(21), 21));
        world.balances(&here, "closed").await;
    }
}

/// Protects: a stream that waits for its payer ends with the close, too.
#[tokio::test(start_paused = true)]
async fn a_close_ends_a_stream_that_holds() {
    let world = World::new(Schedule::default());
    let process = world.boot();
    opened(&world, &process, true).await;
    let mut tap = process.meter().tap().unwrap();
    tap.charge(50_000).await.unwrap();
    let held = tokio::spawn(async move {
        let held = tap.hold(1, Duration::from_secs(60)).await;
        tap.finish().await.unwrap();
        held
    });
    tokio::task::yield_now().await;
    timeout(PROMPT, process.go(json!({"do": "close"})))
        .await
        .expect("promptly")
        .unwrap();
    let held = timeout(PROMPT, held).await.expect("promptly").unwrap();
    assert!(matches!(held, Err(MeterError::Channel(_))), "{held:?}");
    world.balances(&process, "closed").await;
}

/// Protects: a request that is being served is waited for and charged; one that takes too long puts
/// the close off, and then its channel goes on.
#[tokio::test(start_paused = true)]
async fn a_close_waits_for_a_request() {
    let world = World::new(Schedule::default());
    let process = world.boot();
    opened(&world, &process, true).await;
    let mut slow = process.serve(json!({"do": "bearer"})).await;
    slow.reserve(5).await.unwrap();
    let close = process.credential(json!({"do": "close"})).await;
    let refused = process.present(&close).await;
    assert!(matches!(refused, Err(Refused::Pending { .. })));
    process.meter().debit(Amount::new(1)).await.unwrap();
    let (closed, answered) = tokio::join!(process.present(&close), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        // Nothing begins while it waits, and nobody is told to pay anew for that.
        let late = process.go(json!({"do": "bearer"})).await;
        assert!(matches!(late, Err(Refused::Pending { .. })), "{late:?}");
        slow.delivered(None).await
    });
    assert_eq!(answered.unwrap().receipt.extra["units"], 5);
    assert!(matches!(closed, Ok(Got::Managed(_))));
    assert_eq!(process.meter().state().await.unwrap().spent, Amount::new(6));
    world.balances(&process, "closed").await;
}

/// Protects: a stream that holds nothing hears of a close at once, though no mark was needed for it.
#[tokio::test(start_paused = true)]
async fn a_close_wakes_who_holds_nothing() {
    let world = World::new(Schedule::default());
    let process = world.boot();
    opened(&world, &process, false).await;
    let meter = process.meter();
    let ending = tokio::spawn(async move { meter.ending().await });
    tokio::task::yield_now().await;
    process.go(json!({"do": "close"})).await.unwrap();
    timeout(PROMPT, ending).await.expect("promptly").unwrap();
}

/// Protects: a close whose mark lost its reply ends the streams all the same.
#[tokio::test(start_paused = true)]
async fn a_lost_reply_to_the_mark_puts_no_close_off() {
    let world = World::new(Schedule::default());
    let store = Arc::new(FaultyStore::new(world.disk.clone(), Network::default()));
    let process = world.boot_on(store.clone(), Fuse::endless());
    opened(&world, &process, false).await;
    let stream = stream(&process.meter()).await;
    let left = AtomicBool::new(true);
    store.lose_reply_of(move |write| {
        write.puts("chan:", r#""ending":{"#) && left.swap(false, SeqCst)
    });
    timeout(PROMPT, process.go(json!({"do": "close"})))
        .await
        .expect("promptly")
        .unwrap();
    assert_eq!(stream.await.unwrap().unwrap(), 7);
    world.balances(&process, "closed").await;
}
