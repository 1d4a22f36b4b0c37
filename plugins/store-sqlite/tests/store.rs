//! The SQLite store keeps the rules of every store, and its own.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{path::PathBuf, sync::Arc};

use farebox_core::Store;
use farebox_store_sqlite::SqliteStore;
use tempfile::TempDir;

/// A file in a folder of its own, which goes with the test's process.
fn place() -> PathBuf {
    TempDir::new().unwrap().keep().join("farebox.db")
}

async fn open(path: PathBuf) -> Arc<dyn Store> {
    Arc::new(SqliteStore::open(path).await.unwrap())
}

farebox_testkit::store_conformance!(rules, open(place()).await);
farebox_testkit::durable_store_conformance!(shared, place(), open);

/// Protects: what was answered is there after a restart, and a file at rest is its owner's alone.
#[tokio::test]
async fn records_outlive_the_store() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("farebox.db");
    let first = open(path.clone()).await;
    assert!(
        first
            .compare_and_swap("k", None, Some("v"), None)
            .await
            .unwrap()
    );
    drop(first);
    assert_eq!(
        open(path.clone()).await.get("k").await.unwrap().as_deref(),
        Some("v")
    );
    #[cfg(unix)]
    for file in std::fs::read_dir(folder.path()).unwrap() {
        use std::os::unix::fs::PermissionsExt as _;
        let file = file.unwrap();
        let mode = file.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{:?}", file.file_name());
    }
}
