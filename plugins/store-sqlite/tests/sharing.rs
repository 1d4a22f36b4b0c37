//! Other programs may read a store's file while it is in use.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{path::Path, process::Command};

use farebox_core::Store as _;
use farebox_store_sqlite::SqliteStore;
use rusqlite::Connection;
use tempfile::TempDir;

/// The file that a child process reads.
const FILE: &str = "FAREBOX_READ_THIS";

/// What another program does: it opens the file, reads the keys and closes it. A child of the test
/// below; on its own it has nothing to read.
#[test]
fn another_program() {
    let Some(path) = std::env::var_os(FILE) else {
        return;
    };
    let connection = Connection::open(path).unwrap();
    let keys: String = connection
        .query_row("SELECT group_concat(key, ' ') FROM records", [], |row| {
            row.get(0)
        })
        .unwrap();
    connection.close().unwrap();
    println!("keys: {keys}.");
}

fn read_elsewhere(path: &Path) -> String {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", "another_program"])
        .env(FILE, path)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout).into_owned();
    assert!(child.status.success(), "{said}");
    let (_, keys) = said.split_once("keys: ").unwrap();
    keys.split_once('.').unwrap().0.to_owned()
}

/// Protects: a program that reads and leaves does not take itself for the last user and remove the
/// log, however often this process opened the file: what is committed later would be in a log
/// without a name, and forgotten.
#[tokio::test]
async fn a_reader_that_leaves_takes_no_log_with_it() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("farebox.db");
    let log = folder.path().join("farebox.db-wal");
    let first = SqliteStore::open(&path).await.unwrap();
    let put = async |key| {
        let put = first.compare_and_swap(key, None, Some("v"), None).await;
        assert!(put.unwrap());
    };
    put("a").await;
    let second = SqliteStore::open(&path).await.unwrap();
    assert_eq!(read_elsewhere(&path), "a");
    assert!(log.exists(), "the log is gone while the file is in use");
    put("b").await;
    assert_eq!(read_elsewhere(&path), "a b");
    // Nor does one of the two take the other's locks when it closes.
    drop(second);
    assert_eq!(read_elsewhere(&path), "a b");
    assert!(log.exists(), "the log is gone while the file is in use");
    put("c").await;
    assert_eq!(read_elsewhere(&path), "a b c");
}
