//! The client's own channel stores keep the rules of all stores.
#![allow(clippy::unwrap_used, reason = "tests may panic")]

use std::sync::Arc;

use farebox_client::session::{FileStore, Store, VolatileStore};
use farebox_testkit::store;

farebox_testkit::store_conformance!(volatile, Arc::new(VolatileStore::new()) as Arc<dyn Store>);

/// A file is replaced as a whole, so the rules that write thousands of entries are left out.
macro_rules! file {
    ($($rule:ident)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $rule() {
            let folder = tempfile::tempdir().unwrap();
            store::$rule(Arc::new(FileStore::new(folder.path().join("f")))).await;
        }
    )*};
}

mod file {
    use super::*;

    file! {
        one_swap_wins
        a_swap_compares
        keys_are_isolated
        keys_are_any_text
        texts_come_back_as_they_were
        values_expire_and_not_early
        a_swap_renews_how_long
        large_values_survive
    }
}
