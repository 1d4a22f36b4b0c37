//! The memory store keeps the rules of every store, and its bound.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::Arc;

use farebox_core::Store;
use farebox_engine::MemoryStore;

farebox_testkit::store_conformance!(memory, Arc::new(MemoryStore::new()));

/// A full store refuses new claims rather than forget one that protects money.
#[tokio::test]
async fn a_full_store_fails_closed() {
    let store = MemoryStore::with_capacity(2);
    for key in ["a", "b"] {
        assert!(
            store
                .compare_and_swap(key, None, Some("v"), None)
                .await
                .unwrap()
        );
    }
    assert!(
        store
            .compare_and_swap("c", None, Some("v"), None)
            .await
            .is_err()
    );
    assert!(
        store
            .compare_and_swap("a", Some("v"), Some("w"), None)
            .await
            .unwrap()
    );
    assert_eq!(store.get("b").await.unwrap().as_deref(), Some("v"));
}
