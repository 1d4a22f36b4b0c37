//! The SQLite store keeps the rules of every store, and its own.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

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

/// Protects: a file that is not a store is a fault that says so, and is left as it was.
#[tokio::test]
async fn what_is_no_store_is_refused() {
    let folder = TempDir::new().unwrap();
    let refused = async |name: &str| {
        let fault = SqliteStore::open(folder.path().join(name))
            .await
            .unwrap_err();
        fault.to_string()
    };
    let text = "no database at all, ".repeat(100);
    std::fs::write(folder.path().join("text"), &text).unwrap();
    assert!(refused("text").await.contains("no SQLite database"));
    assert_eq!(
        std::fs::read_to_string(folder.path().join("text")).unwrap(),
        text
    );

    let other = rusqlite::Connection::open(folder.path().join("other")).unwrap();
    other.execute_batch("CREATE TABLE accounts (x)").unwrap();
    assert!(refused("other").await.contains("another program"));

    drop(open(folder.path().join("newer")).await);
    let newer = rusqlite::Connection::open(folder.path().join("newer")).unwrap();
    newer.pragma_update(None, "user_version", 99).unwrap();
    assert!(refused("newer").await.contains("another version"));

    let missing = refused("missing/farebox.db").await;
    assert!(
        missing.contains("missing/farebox.db"),
        "it names the file: {missing}"
    );
}

/// Protects: damage is a fault for whoever meets it, and never a wrong answer or a panic.
#[tokio::test]
async fn damage_is_a_fault() {
    let path = place();
    let store = open(path.clone()).await;
    let value = "v".repeat(2000);
    for n in 0..100 {
        let key = format!("k{n}");
        assert!(
            store
                .compare_and_swap(&key, None, Some(&value), None)
                .await
                .unwrap()
        );
    }
    drop(store);
    settled(&path).await;
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[4096 * 2..].fill(0xa5);
    std::fs::write(&path, bytes).unwrap();
    match SqliteStore::open(&path).await {
        Err(fault) => assert!(fault.retry_after().is_none(), "{fault}"),
        Ok(store) => {
            let fault = store.scan("").await.unwrap_err();
            assert!(!fault.to_string().contains("vvv"), "{fault}");
            assert!(
                store
                    .compare_and_swap("k1", Some(&value), None, None)
                    .await
                    .is_err()
            );
        }
    }
}

/// Protects: another program's lock is waited for, then it is a fault, and it passes.
#[tokio::test]
async fn a_lock_of_another_program_is_a_fault_and_passes() {
    let path = place();
    let store = open(path.clone()).await;
    assert!(
        store
            .compare_and_swap("k", None, Some("v"), None)
            .await
            .unwrap()
    );
    let other = rusqlite::Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let refused = store.compare_and_swap("k2", None, Some("v"), None);
    let refused = tokio::time::timeout(Duration::from_secs(60), refused).await;
    let fault = refused.expect("not waited for without end").unwrap_err();
    assert!(fault.retry_after().is_some(), "{fault}");
    assert_eq!(
        store.get("k").await.unwrap().as_deref(),
        Some("v"),
        "reading goes on"
    );
    other.execute_batch("ROLLBACK").unwrap();
    // Another key: on a machine that stands still the first may have got its turn after all.
    assert!(
        store
            .compare_and_swap("k3", None, Some("v"), None)
            .await
            .unwrap()
    );
}

/// Protects: expired records leave the file while the store is at rest, so that it stays small.
#[tokio::test]
async fn expired_records_are_dropped() {
    let path = place();
    let store = open(path.clone()).await;
    let short = Some(Duration::from_millis(1));
    for n in 0..700 {
        let key = format!("k{n}");
        assert!(
            store
                .compare_and_swap(&key, None, Some("v"), short)
                .await
                .unwrap()
        );
    }
    assert!(
        store
            .compare_and_swap("stays", None, Some("v"), None)
            .await
            .unwrap()
    );
    let file = rusqlite::Connection::open(&path).unwrap();
    let count = || {
        file.query_row("SELECT count(*) FROM records", [], |row| {
            row.get::<_, u32>(0)
        })
    };
    let deadline = Instant::now() + Duration::from_secs(60);
    while count().unwrap() != 1 {
        assert!(Instant::now() < deadline, "expired records stay");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until a dropped store has put its log back into the file.
async fn settled(path: &Path) {
    let log = path.with_extension("db-wal");
    let deadline = Instant::now() + Duration::from_secs(60);
    while std::fs::metadata(&log).is_ok_and(|log| log.len() > 0) {
        assert!(Instant::now() < deadline, "the log stays");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Protects: a disk that takes no more refuses writes with a fault, and keeps and shows what was
/// answered. The test runs itself under a limit on the size of files.
#[cfg(unix)]
#[tokio::test]
async fn a_disk_that_takes_no_more_is_a_fault() {
    let Some(folder) = std::env::var_os("FAREBOX_SMALL_DISK") else {
        let folder = TempDir::new().unwrap();
        // Without the trap, a file that grows beyond the limit ends the process.
        let limited = "trap '' XFSZ; ulimit -f 512; exec \"$0\" --exact --nocapture \
                       a_disk_that_takes_no_more_is_a_fault";
        let output = std::process::Command::new("sh")
            .args(["-c", limited])
            .arg(std::env::current_exe().unwrap())
            .env("FAREBOX_SMALL_DISK", folder.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && said.contains("1 passed"),
            "{said}"
        );
        return;
    };
    let path = Path::new(&folder).join("farebox.db");
    let store = open(path.clone()).await;
    let value = "v".repeat(8 * 1024);
    let mut kept = 0;
    let fault = loop {
        let key = format!("k{kept}");
        match store.compare_and_swap(&key, None, Some(&value), None).await {
            Ok(swapped) => assert!(swapped),
            Err(fault) => break fault,
        }
        kept += 1;
        assert!(kept < 10_000, "the disk has no limit");
    };
    assert!(fault.retry_after().is_some(), "{fault}");
    assert!(!fault.to_string().contains("vvv"), "{fault}");
    assert!(kept > 3);
    drop(store);
    let store = open(path).await;
    assert_eq!(store.scan("k").await.unwrap().len(), kept);
    let last = format!("k{}", kept - 1);
    assert_eq!(store.get(&last).await.unwrap(), Some(value));
}
