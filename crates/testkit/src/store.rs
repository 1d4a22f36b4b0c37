//! The rules every store must keep.
//!
//! A store's own test runs them all in one line, and what is durable or shared in another:
//!
//! ```
//! use std::sync::Arc;
//!
//! use farebox_core::Store;
//! use farebox_engine::MemoryStore;
//!
//! fn empty() -> Arc<dyn Store> {
//!     Arc::new(MemoryStore::new())
//! }
//!
//! farebox_testkit::store_conformance!(memory, empty());
//! # fn main() {}
//! ```

mod durable;
mod load;

use std::{sync::Arc, time::Duration};

pub use durable::{
    handles_share_their_records, opening_at_once_is_no_race, records_outlive_handles,
    words_reach_every_handle,
};
pub use load::{
    abandoned_calls_do_no_harm, counters_add_up, long_scans_are_whole, scans_stand_writes,
};

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
    let deadline = started + keep + Duration::from_secs(60);
    while store.get("short").await.expect("answers").is_some() {
        assert!(
            std::time::Instant::now() < deadline,
            "an expired value is still read"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let swap = async |expected, next| {
        store
            .compare_and_swap("short", expected, next, None)
            .await
            .expect("answers")
    };
    assert!(!swap(Some("v"), Some("x")).await, "expired is absent");
    assert!(store.scan("short").await.expect("answers").is_empty());
    assert!(swap(None, Some("w")).await, "expired is absent");
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

/// A swap says anew how long its value is kept, longer or for good.
pub async fn a_swap_renews_how_long(store: Arc<dyn Store>) {
    let short = Some(Duration::from_secs(1));
    for (key, keep) in [
        ("longer", Some(Duration::from_secs(60))),
        ("for good", None),
    ] {
        let mut renewed = false;
        // On a busy machine the first value may be gone before it is renewed.
        for _ in 0..20 {
            let swap = async |expected, next, keep| {
                store
                    .compare_and_swap(key, expected, Some(next), keep)
                    .await
                    .expect("answers")
            };
            if swap(None, "a", short).await && swap(Some("a"), "b", keep).await {
                renewed = true;
                break;
            }
        }
        assert!(renewed, "{key}");
    }
    // Longer than any store may let an expired value be read.
    tokio::time::sleep(Duration::from_secs(5)).await;
    for key in ["longer", "for good"] {
        assert_eq!(
            store.get(key).await.expect("answers").as_deref(),
            Some("b"),
            "{key}"
        );
    }
}

/// JSON text comes back as it was, whatever it escapes, and is compared byte by byte.
pub async fn texts_come_back_as_they_were(store: Arc<dyn Store>) {
    let texts = [
        r#"{"a":"\u0000\u001f\ud83d\ude8c","b":"\"\\\/\b\f\n\r\t"}"#,
        r#"{"e\u0301":"é 🚌","sql":"'; -- $1 ?1 % _ *"}"#,
        " { \"spaces\" : [ 1 , 2 ] } ",
        "0",
        "\u{7f}\u{80}\u{7ff}\u{800}\u{feff}\u{ffff}\u{10000}\u{10ffff}",
    ];
    let mut last = None;
    for text in texts {
        assert!(
            store
                .compare_and_swap("text", last, Some(text), None)
                .await
                .expect("answers"),
            "{text:?}"
        );
        let read = store.get("text").await.expect("answers");
        assert_eq!(read.as_deref(), Some(text));
        last = Some(text);
    }
    // Equal for a reader of JSON, and two texts for a store.
    for (key, value, other) in [("n", "0", "0 "), ("s", r#""\u0061""#, r#""a""#)] {
        let put = store.compare_and_swap(key, None, Some(value), None);
        assert!(put.await.expect("answers"));
        let swap = store.compare_and_swap(key, Some(other), Some("1"), None);
        assert!(!swap.await.expect("answers"), "{other}");
    }
}

/// Keys of up to 512 bytes of any text are keys, and differ where their bytes do.
pub async fn keys_are_any_text(store: Arc<dyn Store>) {
    let long = |last: char| format!("{}{last}", "k".repeat(511));
    let mut keys = vec![long('a'), long('b'), "ü".repeat(256)];
    let short = [
        "é",
        "e\u{301}",
        "É",
        "quote'\"`",
        "back\\slash",
        "new\nline\ttab",
        "space ",
        "space",
        "[a-c]*?^",
        "\u{10ffff}",
    ];
    keys.extend(short.map(str::to_owned));
    for key in &keys {
        let put = store.compare_and_swap(key, None, Some(key), None);
        assert!(put.await.expect("answers"), "{key:?}");
    }
    for key in &keys {
        assert_eq!(store.get(key).await.expect("answers").as_ref(), Some(key));
    }
    keys.sort();
    let found = store.scan("").await.expect("answers");
    let found: Vec<String> = found.into_iter().map(|(key, _)| key).collect();
    assert_eq!(found, keys, "in the order of their bytes");
    for (prefix, count) in [("space", 2), ("[a-c]*", 1), ("kkk", 2), ("\u{10ffff}", 1)] {
        let found = store.scan(prefix).await.expect("answers");
        assert_eq!(found.len(), count, "{prefix:?}");
    }
}

/// Runs every rule for stores. `$store` is an expression for an empty `Arc<dyn Store>`, evaluated
/// once per test, and may await.
///
/// `store_conformance!(name, store, ignore = "needs a server")` makes them tests that are ignored
/// by default.
#[macro_export]
macro_rules! store_conformance {
    ($name:ident, $store:expr $(, ignore = $why:literal)?) => {
        mod $name {
            use super::*;

            $crate::store_conformance!(@tests [$(#[ignore = $why])?] [$store]
                one_swap_wins
                a_swap_compares
                keys_are_isolated
                keys_are_any_text
                texts_come_back_as_they_were
                values_expire_and_not_early
                a_swap_renews_how_long
                large_values_survive
                counters_add_up
                scans_stand_writes
                long_scans_are_whole
                abandoned_calls_do_no_harm
            );
        }
    };
    (@tests $attributes:tt $arguments:tt $($rule:ident)*) => {
        $($crate::store_conformance!(@test $attributes $arguments $rule);)*
    };
    (@test [$($attribute:tt)*] [$($argument:expr),*] $rule:ident) => {
        $($attribute)*
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $rule() {
            $crate::store::$rule($($argument),*).await;
        }
    };
}

/// Runs the rules for stores that outlive their handles. `$place` is an expression for a new,
/// empty place (a path, a URL; anything that is `Clone`), evaluated once per test, and `$open` an
/// async function that opens it as an `Arc<dyn Store>`.
///
/// ```text
/// durable_store_conformance!(shared, place(), open);
/// ```
#[macro_export]
macro_rules! durable_store_conformance {
    ($name:ident, $place:expr, $open:expr $(, ignore = $why:literal)?) => {
        mod $name {
            use super::*;

            $crate::store_conformance!(@tests [$(#[ignore = $why])?] [$place, $open]
                handles_share_their_records
                records_outlive_handles
                opening_at_once_is_no_race
                words_reach_every_handle
            );
        }
    };
}
