//! The rules every store must keep.

use std::{sync::Arc, time::Duration};

use farebox_core::Store;

/// Of many swaps from one value, exactly one wins.
pub async fn one_swap_wins(store: Arc<dyn Store>) {
    for expected in [None, Some("first")] {
        let tasks: Vec<_> = (0..32)
            .map(|n| {
                let store = store.clone();
                tokio::spawn(async move {
                    let next = if expected.is_none() {
                        "first".to_owned()
                    } else {
                        format!("second-{n}")
                    };
                    store
                        .compare_and_swap("contended", expected, Some(&next), None)
                        .await
                })
            })
            .collect();
        let mut won = 0;
        for task in tasks {
            won += usize::from(task.await.expect("no panic").expect("the store answers"));
        }
        assert_eq!(won, 1, "expected {expected:?}");
    }
}

/// A swap from the wrong value changes nothing; `None` means absent; `None` as the next removes.
pub async fn a_swap_compares(store: Arc<dyn Store>) {
    let swap = async |expected, next| {
        store
            .compare_and_swap("k", expected, next, None)
            .await
            .expect("the store answers")
    };
    assert!(!swap(Some("x"), Some("y")).await, "absent is not x");
    assert!(swap(None, Some("a")).await);
    assert!(!swap(None, Some("b")).await, "a is not absent");
    assert!(!swap(Some("b"), None).await, "a is not b");
    assert_eq!(store.get("k").await.expect("answers").as_deref(), Some("a"));
    assert!(swap(Some("a"), None).await);
    assert_eq!(store.get("k").await.expect("answers"), None);
    assert!(swap(None, Some("c")).await, "removed is absent");
}

/// Keys are kept apart whatever is in them, and a scan sees exactly its prefix, in order.
pub async fn keys_are_isolated(store: Arc<dyn Store>) {
    let keys = [
        "a:b", "a/b", "a:b:c", "a", "A:b", "a%:b", "a_:b", "ä:ü", "🚌",
    ];
    for key in keys {
        assert!(
            store
                .compare_and_swap(key, None, Some(key), None)
                .await
                .expect("answers"),
            "{key}"
        );
    }
    for key in keys {
        assert_eq!(store.get(key).await.expect("answers").as_deref(), Some(key));
    }
    let found = store.scan("a:").await.expect("answers");
    let found: Vec<&str> = found.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(found, ["a:b", "a:b:c"]);
    let percent = store.scan("a%").await.expect("answers");
    assert_eq!(percent.len(), 1, "a prefix is text, not a pattern");
}

/// A value is there for as long as it was to be kept, and may be gone afterwards; then its key
/// is free.
pub async fn values_expire_and_not_early(store: Arc<dyn Store>) {
    let keep = Duration::from_millis(1_500);
    let started = std::time::Instant::now();
    assert!(
        store
            .compare_and_swap("short", None, Some("v"), Some(keep))
            .await
            .expect("answers")
    );
    assert!(
        store
            .compare_and_swap("long", None, Some("v"), None)
            .await
            .expect("answers")
    );
    while started.elapsed() < keep - Duration::from_millis(300) {
        let value = store.get("short").await.expect("answers");
        assert!(value.is_some() || started.elapsed() >= keep, "gone early");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let deadline = started + keep + Duration::from_secs(10);
    while store.get("short").await.expect("answers").is_some() {
        assert!(
            std::time::Instant::now() < deadline,
            "an expired value is still read"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(
        store
            .compare_and_swap("short", None, Some("w"), None)
            .await
            .expect("answers")
    );
    assert_eq!(
        store.get("long").await.expect("answers").as_deref(),
        Some("v")
    );
}

/// Large values come back whole.
pub async fn large_values_survive(store: Arc<dyn Store>) {
    let large = "ü".repeat(512 * 1024);
    assert!(
        store
            .compare_and_swap("large", None, Some(&large), None)
            .await
            .expect("answers")
    );
    assert!(
        store
            .compare_and_swap("large", Some(&large), Some("small"), None)
            .await
            .expect("answers")
    );
    assert_eq!(
        store.get("large").await.expect("answers").as_deref(),
        Some("small")
    );
}

/// Runs every rule for stores. `$store` is an expression for an empty `Arc<dyn Store>`, evaluated
/// once per test.
#[macro_export]
macro_rules! store_conformance {
    ($name:ident, $store:expr) => {
        mod $name {
            use super::*;

            $crate::store_conformance!(@tests $store;
                one_swap_wins,
                a_swap_compares,
                keys_are_isolated,
                values_expire_and_not_early,
                large_values_survive,
            );
        }
    };
    (@tests $store:expr; $($rule:ident,)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $rule() {
                $crate::store::$rule($store).await;
            }
        )*
    };
}
