//! Which channels a round looks at.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use farebox_core::{Fault, Schedule, Store};
use farebox_testkit::{Between, Call, Fuse, Proxy};
use serde_json::json;

use crate::bank::World;

const MINUTE: Duration = Duration::from_secs(60);

/// Counts what is read of channels.
#[derive(Default)]
struct Reads(AtomicUsize);

impl Between for Reads {
    async fn call<T: Send>(
        &self,
        call: Call<'_>,
        reply: impl Future<Output = Result<T, Fault>> + Send,
    ) -> Result<T, Fault> {
        if let Call::Get(key) | Call::Scan(key) = call
            && key.starts_with("chan:")
        {
            self.0.fetch_add(1, SeqCst);
        }
        reply.await
    }
}

/// Protects: rounds do not read a channel of which nothing can be due, and find what is.
#[tokio::test(start_paused = true)]
async fn a_round_reads_what_may_be_due() {
    let world = World::new(Schedule::default().idle(3 * MINUTE));
    let store = Arc::new(Proxy::new(world.disk.clone(), Reads::default()));
    let other = world.boot();
    other
        .go(json!({"do": "open", "n": 100, "chain": false}))
        .await
        .unwrap();
    let process = world.boot_on(store.clone(), Fuse::endless());
    let _reconciler = process.engine.spawn_reconciler(Duration::from_secs(1));
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(store.0.load(SeqCst), 1, "in a hundred rounds");
    world.pass(4 * MINUTE);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(other.meter().state().await.unwrap().closed);
    world.balances(&other, "idle").await;
    // And one that is done with is read no more.
    let read = store.0.load(SeqCst);
    tokio::time::sleep(Duration::from_secs(100)).await;
    world.pass(60 * MINUTE);
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert!(store.0.load(SeqCst) <= read + 1);
    assert!(world.disk.scan("live:").await.unwrap().is_empty());
}

/// Protects: a deposit that comes after its channel was done with is found and given back, also where
/// the process that took it dies.
#[tokio::test(start_paused = true)]
async fn a_channel_that_owes_anew_is_looked_after() {
    for n in 0.. {
        let world = World::new(Schedule::default());
        let process = world.boot();
        process
            .go(json!({"do": "open", "n": 100, "chain": false}))
            .await
            .unwrap();
        process.manage(json!({"do": "close"})).await;
        process.engine.upkeep().await.unwrap();
        assert!(world.disk.scan("live:").await.unwrap().is_empty());
        let fuse = Fuse::new(n);
        let store = farebox_testkit::FusedStore::new(world.disk.clone(), fuse.clone());
        let dying = world.boot_on(Arc::new(store), fuse.clone());
        let late = json!({"do": "topup", "n": 50, "proof": "late"});
        let _ = dying.go(late).await;
        let survived = !fuse.is_dead();
        for _ in 0..4 {
            world.pass(2 * MINUTE);
            process.engine.reconcile().await.unwrap();
            process.engine.upkeep().await.unwrap();
        }
        world
            .balances(&process, &format!("killed before {n}"))
            .await;
        if survived {
            assert!(n > 4, "{n} points");
            break;
        }
    }
}
