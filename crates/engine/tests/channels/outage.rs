//! What an opening is charged where the store fails between its delivery and its charge.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering::SeqCst},
    },
    time::Duration,
};

use farebox_core::{Fault, Schedule, wire::Amount};
use farebox_engine::Kept;
use farebox_testkit::{Between, Call, Fuse, Proxy};
use serde_json::json;

use crate::bank::{Got, World};

/// How writes to channels go.
const WELL: u8 = 0;
const REFUSED: u8 = 1;
const UNANSWERED: u8 = 2;

/// Channels that cannot be reached for a while.
#[derive(Default)]
struct Moody(AtomicU8);

impl Between for Moody {
    async fn call<T: Send>(
        &self,
        call: Call<'_>,
        reply: impl Future<Output = Result<T, Fault>> + Send,
    ) -> Result<T, Fault> {
        let away = || Err(Fault::unavailable("away"));
        if !call.key().starts_with("chan:") {
            return reply.await;
        }
        match (self.0.load(SeqCst), call) {
            (WELL, _) => reply.await,
            (UNANSWERED, Call::Write(_)) => reply.await.and(away()),
            _ => away(),
        }
    }
}

/// Protects: an opening whose charge is not recorded is not given away, and one whose charge may be
/// recorded is neither charged twice nor kept from its payer.
#[tokio::test(start_paused = true)]
async fn an_opening_that_could_not_be_charged_is_charged_once() {
    for (mood, kept) in [
        (REFUSED, true),
        (REFUSED, false),
        (UNANSWERED, true),
        (UNANSWERED, false),
    ] {
        let world = World::new(Schedule::default());
        let store = Arc::new(Proxy::new(world.disk.clone(), Moody::default()));
        let process = world.boot_on(store.clone(), Fuse::endless());
        // All that there is, so that a second charge could not be held.
        let open = json!({"do": "open", "n": 3, "chain": false});
        let open = process.credential(open).await;
        let Ok(Got::Serve(mut serving)) = process.present(&open).await else {
            panic!("an opening is served");
        };
        serving.reserve(3).await.unwrap();
        let reply = || {
            kept.then(|| Kept {
                status: 200,
                headers: Vec::new(),
                body: b"hello".to_vec(),
            })
        };
        store.0.store(mood, SeqCst);
        serving.delivered(reply()).await.unwrap_err();
        // Whatever goes on behind the caller's back has failed by now.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        store.0.store(WELL, SeqCst);
        let at = format!("{mood} {kept}");
        // What was held is the payer's again, or has been charged.
        tokio::time::timeout(Duration::from_secs(300), async {
            loop {
                match process.present(&open).await {
                    Ok(Got::Serve(mut serving)) => match serving.reserve(3).await {
                        Ok(()) => break drop(serving.delivered(reply()).await.unwrap()),
                        // Until the first hold lapses, or is given back.
                        Err(_) => world.pass(Duration::from_secs(10)),
                    },
                    Ok(_) => break,
                    Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
        })
        .await
        .expect("served at last");
        let state = process.meter().state().await.unwrap();
        assert_eq!((state.spent, state.units), (Amount::new(3), 3), "{at}");
        assert_eq!(state.held, Amount::new(0), "{at}");
        world.balances(&process, &at).await;
    }
}
