//! What an opening is charged where the store fails between its delivery and its charge.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering::SeqCst},
    },
    time::Duration,
};

use async_trait::async_trait;
use farebox_core::{Durability, Fault, Notices, Schedule, Store, wire::Amount};
use farebox_engine::{Kept, MemoryStore};
use farebox_testkit::Fuse;
use serde_json::json;

use crate::bank::{Got, World};

/// How writes to channels go.
const WELL: u8 = 0;
const REFUSED: u8 = 1;
const UNANSWERED: u8 = 2;

/// A disk whose channels cannot be written for a while.
struct Moody {
    disk: Arc<MemoryStore>,
    mood: AtomicU8,
}

#[async_trait]
impl Store for Moody {
    fn durability(&self) -> Durability {
        Durability::Durable
    }

    fn notices(&self) -> Option<&dyn Notices> {
        None
    }

    async fn get(&self, key: &str) -> Result<Option<String>, Fault> {
        match self.mood.load(SeqCst) != WELL && key.starts_with("chan:") {
            true => Err(Fault::unavailable("away")),
            false => self.disk.get(key).await,
        }
    }

    async fn compare_and_swap(
        &self,
        key: &str,
        expected: Option<&str>,
        next: Option<&str>,
        keep: Option<Duration>,
    ) -> Result<bool, Fault> {
        let mood = match key.starts_with("chan:") {
            true => self.mood.load(SeqCst),
            false => WELL,
        };
        if mood == REFUSED {
            return Err(Fault::unavailable("away"));
        }
        let swapped = self.disk.compare_and_swap(key, expected, next, keep).await;
        match mood {
            UNANSWERED => Err(Fault::unavailable("away")),
            _ => swapped,
        }
    }

    async fn scan(&self, prefix: &str) -> Result<Vec<(String, String)>, Fault> {
        self.disk.scan(prefix).await
    }
}

/// Protects: an opening whose charge is not recorded is not given away, and one whose charge may be
/// recorded is neither charged twice nor kept from its payer.
#[tokio::test]
async fn an_opening_that_could_not_be_charged_is_charged_once() {
    for (mood, kept) in [
        (REFUSED, true),
        (REFUSED, false),
        (UNANSWERED, true),
        (UNANSWERED, false),
    ] {
        let world = World::new(Schedule::default());
        let store = Arc::new(Moody {
            disk: world.disk.clone(),
            mood: AtomicU8::new(WELL),
        });
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
        store.mood.store(mood, SeqCst);
        serving.delivered(reply()).await.unwrap_err();
        // Whatever goes on behind the caller's back has failed by now.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        store.mood.store(WELL, SeqCst);
        let at = format!("{mood} {kept}");
        // What was held is the payer's again, or has been charged.
        tokio::time::timeout(Duration::from_secs(10), async {
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
