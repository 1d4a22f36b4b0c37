//! Farebox records in one SQLite file: the durable store for one machine, with nothing to set up.
//!
//! ```toml
//! store = "sqlite://farebox.db"              # relative to the working directory
//! store = "sqlite:///var/lib/farebox.db"     # absolute
//! ```
//!
//! The file is made when it is missing, readable by its owner only, and so are its companions
//! `-wal`, `-shm` and `-lock`. Several processes on one machine may use it at once; a network file
//! system is no place for it.
//!
//! # What it promises
//!
//! A swap that was answered survives power loss: the journal is a write-ahead log with
//! `synchronous = FULL`, so that every commit is on the disk before it is answered. `NORMAL`
//! would survive a crash of the process only, and a claim that is forgotten is a payment that can
//! be used twice. Swaps that wait at the same time share one transaction, and one wait for the
//! disk.
//!
//! Times are the machine's clock. A clock that is set forward makes records expire early by as
//! much; keep it disciplined.
//!
//! A disk that is full, a file that is read-only or damaged, or another program's lock that does
//! not go away is a fault, and no answer takes longer than ten seconds.
//!
//! # Which SQLite
//!
//! It is compiled in. Only one SQLite can be linked into a program, and LDK Node, with which a
//! Lightning backend is built, brings the one of rusqlite 0.31: 3.45.0. That one has the WAL-reset
//! bug (3.7.0 to 3.51.2): two connections that write and checkpoint at the same instant can damage
//! the file. Here they never do: whoever writes, checkpoints or opens holds an exclusive lock on
//! `<file>-lock`, and reading connections do neither. The lock is also a fair queue between
//! processes, which SQLite's own waiting is not. Another program may read the file at any time;
//! it must not write to it while a Farebox process runs.

mod config;
mod error;
mod file;
mod reader;
mod writer;

use std::{path::Path, time::Duration};

use async_trait::async_trait;
use farebox_core::{Backend, Durability, Fault, Invalid, Store, store_driver};
use tokio::sync::oneshot;

pub use config::Sqlite;
use file::Place;
use reader::Readers;
use writer::{Job, Writer};

store_driver! {
    /// `sqlite:`, one file.
    pub static DRIVER = Sqlite, schemes: ["sqlite"], example: "sqlite://farebox.db";
}

/// How long a call waits for its answer.
const PATIENCE: Duration = Duration::from_secs(10);

impl Backend for Sqlite {
    type Store = SqliteStore;

    fn read(url: &str) -> Result<Self, Invalid> {
        Self::parse(url)
    }

    async fn open(&self) -> Result<SqliteStore, Fault> {
        SqliteStore::open(self.path()).await
    }
}

/// Records in a SQLite file. Must be used inside a Tokio runtime.
#[derive(Debug)]
pub struct SqliteStore {
    writer: Writer,
    readers: Readers,
}

impl SqliteStore {
    /// Opens the file, and makes it if there is none.
    ///
    /// # Errors
    /// If it cannot be read and written, or is not a store of this version.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, Fault> {
        let path = path.as_ref().to_owned();
        let open = move || {
            let place = Place::new(&path)?;
            let writer = Writer::start(place.clone())?;
            Ok(Self {
                writer,
                readers: Readers::new(place),
            })
        };
        tokio::task::spawn_blocking(open)
            .await
            .map_err(|_| Fault::new("opening the SQLite store was broken off"))?
    }
}

#[async_trait]
impl Store for SqliteStore {
    fn durability(&self) -> Durability {
        Durability::Durable
    }

    fn notices(&self) -> Option<&dyn farebox_core::Notices> {
        None
    }

    async fn get(&self, key: &str) -> Result<Option<String>, Fault> {
        let key = key.to_owned();
        in_time(self.readers.run(move |reader| reader.get(&key))).await
    }

    async fn compare_and_swap(
        &self,
        key: &str,
        expected: Option<&str>,
        next: Option<&str>,
        keep: Option<Duration>,
    ) -> Result<bool, Fault> {
        let (reply, answer) = oneshot::channel();
        self.writer.queue(Job {
            key: key.to_owned(),
            expected: expected.map(str::to_owned),
            next: next.map(str::to_owned),
            keep,
            reply,
        })?;
        in_time(async {
            answer
                .await
                .unwrap_or_else(|_| Err(Fault::new("the SQLite store has stopped writing")))
        })
        .await
    }

    async fn scan(&self, prefix: &str) -> Result<Vec<(String, String)>, Fault> {
        let prefix = prefix.to_owned();
        in_time(self.readers.run(move |reader| reader.scan(&prefix))).await
    }
}

async fn in_time<T>(call: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    tokio::time::timeout(PATIENCE, call)
        .await
        .unwrap_or_else(|_| Err(Fault::unavailable("the SQLite store does not answer")))
}
