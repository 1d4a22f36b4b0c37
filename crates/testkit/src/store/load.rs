//! Rules under load: many writers, long scans, callers that go away.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use farebox_core::Store;
use tokio::task::JoinSet;

/// Adds one to the number under `key`, as the engine changes a record: read, and swap until it
/// takes. Answers how often somebody else was faster.
pub(super) async fn add_one(store: &dyn Store, key: &str) -> usize {
    let mut lost = 0;
    loop {
        let old = store.get(key).await.expect("answers");
        let number: u64 = old
            .as_deref()
            .map_or(0, |old| old.parse().expect("a number"));
        let new = (number + 1).to_string();
        let swap = store.compare_and_swap(key, old.as_deref(), Some(&new), None);
        if swap.await.expect("answers") {
            return lost;
        }
        lost += 1;
    }
}

/// Many tasks count on few keys, and nothing is lost or counted twice.
pub async fn counters_add_up(store: Arc<dyn Store>) {
    const TASKS: usize = 12;
    const KEYS: usize = 3;
    const EACH: usize = 20;
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let store = store.clone();
        tasks.spawn(async move {
            for n in 0..EACH {
                add_one(store.as_ref(), &format!("count:{}", (task + n) % KEYS)).await;
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("no panic");
    }
    let counts = store.scan("count:").await.expect("answers");
    let counts: Vec<usize> = counts
        .iter()
        .map(|(_, count)| count.parse().expect("a number"))
        .collect();
    assert_eq!(counts.len(), KEYS);
    assert_eq!(counts.iter().sum::<usize>(), TASKS * EACH);
}

/// What is there throughout a scan is found, once and in order, while others come and go.
pub async fn scans_stand_writes(store: Arc<dyn Store>) {
    let stable: BTreeMap<String, String> = (0..60)
        .map(|n| (format!("scan:{n:02}"), format!("{{\"n\":{n}}}")))
        .collect();
    for (key, value) in &stable {
        let put = store.compare_and_swap(key, None, Some(value), None);
        assert!(put.await.expect("answers"));
    }
    let mut writers = JoinSet::new();
    for writer in 0..3 {
        let store = store.clone();
        writers.spawn(async move {
            for n in 0.. {
                let key = format!("scan:{:02}:{writer}", n % 60);
                let swap = async |expected, next| {
                    store
                        .compare_and_swap(&key, expected, next, None)
                        .await
                        .expect("answers")
                };
                assert!(swap(None, Some("1")).await);
                assert!(swap(Some("1"), None).await);
                // A store in memory never waits, and would keep the timers from running.
                tokio::task::yield_now().await;
            }
        });
    }
    for _ in 0..20 {
        let found = store.scan("scan:").await.expect("answers");
        assert!(found.is_sorted_by(|(a, _), (b, _)| a < b), "in order, once");
        let found: BTreeMap<String, String> = found.into_iter().collect();
        for (key, value) in &stable {
            assert_eq!(found.get(key), Some(value), "{key}");
        }
        assert!(found.keys().all(|key| key.starts_with("scan:")));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(writers.try_join_next().is_none(), "the writers go on");
}

/// A scan is whole where a backend reads it in pieces.
pub async fn long_scans_are_whole(store: Arc<dyn Store>) {
    const TASKS: usize = 30;
    const EACH: usize = 50;
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let store = store.clone();
        tasks.spawn(async move {
            for n in 0..EACH {
                for prefix in ["long:", "other:"] {
                    let key = format!("{prefix}{:04}", task * EACH + n);
                    let put = store.compare_and_swap(&key, None, Some("{}"), None);
                    assert!(put.await.expect("answers"));
                }
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("no panic");
    }
    let found = store.scan("long:").await.expect("answers");
    let found: Vec<String> = found.into_iter().map(|(key, _)| key).collect();
    let all: Vec<String> = (0..TASKS * EACH).map(|n| format!("long:{n:04}")).collect();
    assert_eq!(found, all);
}

/// A caller that goes away in the middle of a call leaves the key with its old value or with its
/// new one, and the store in order.
pub async fn abandoned_calls_do_no_harm(store: Arc<dyn Store>) {
    for n in 0..60_u32 {
        let (swapper, scanner) = (store.clone(), store.clone());
        let swap = tokio::spawn(async move { add_one(swapper.as_ref(), "left").await });
        let scan = tokio::spawn(async move { scanner.scan("").await.map(drop) });
        // Sooner or later, so that it is broken off before, in and after its effect.
        tokio::time::sleep(Duration::from_micros(u64::from(n) * 40)).await;
        swap.abort();
        scan.abort();
    }
    let count = async || {
        let text = store.get("left").await.expect("answers");
        text.map_or(0, |text| text.parse::<usize>().expect("a number"))
    };
    let before = count().await;
    assert!(before <= 60, "nothing is done twice: {before}");
    // More calls than any pool has connections.
    let mut lost = 0;
    for _ in 0..80 {
        lost += add_one(store.as_ref(), "left").await;
    }
    // What was sent may still have been under way meanwhile.
    let after = count().await;
    assert!((before + 80..=140).contains(&after), "{before}, {after}");
    let late = after - before - 80;
    assert!(lost <= late, "only those take a turn: {lost} of {late}");
}
