//! Connections that read, each for one call at a time.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use farebox_core::{Fault, driver::prefix_end};
use rusqlite::{Connection, OptionalExtension as _, params};
use tokio::sync::Semaphore;

use crate::{
    error::fault,
    file::{Place, now},
};

/// Calls that read at the same time. More would only wait for the same disk.
const READERS: usize = 4;

/// Reading connections, opened as they are needed.
pub(crate) struct Readers {
    place: Place,
    idle: Arc<Mutex<Vec<Reader>>>,
    free: Arc<Semaphore>,
}

impl Readers {
    pub(crate) fn new(place: Place) -> Self {
        Self {
            place,
            idle: Arc::default(),
            free: Arc::new(Semaphore::new(READERS)),
        }
    }

    /// Runs `call` on a thread that may block. It runs to its end even if nobody waits any more,
    /// and its place is taken until then.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Reader) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Fault> {
        let stopped = || Fault::unavailable("reading from the SQLite store was broken off");
        let permit = self.free.clone().acquire_owned().await;
        let permit = permit.map_err(|_| stopped())?;
        let (place, idle) = (self.place.clone(), self.idle.clone());
        let read = move || {
            let _permit = permit;
            let lock = || idle.lock().unwrap_or_else(PoisonError::into_inner);
            let reader = lock().pop();
            let reader = match reader {
                Some(reader) => reader,
                None => Reader(place.reading()?),
            };
            let result = call(&reader).map_err(|e| fault(&e));
            // A connection that failed is not used again.
            if result.is_ok() {
                lock().push(reader);
            }
            result
        };
        tokio::task::spawn_blocking(read)
            .await
            .unwrap_or_else(|_| Err(stopped()))
    }
}

impl fmt::Debug for Readers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readers")
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}

/// A connection that only reads.
pub(crate) struct Reader(Connection);

impl Reader {
    pub(crate) fn get(&self, key: &str) -> rusqlite::Result<Option<String>> {
        let sql = "SELECT value FROM records WHERE key = ?1 AND (until IS NULL OR until > ?2)";
        self.0
            .prepare_cached(sql)?
            .query_row(params![key, now()], |row| row.get(0))
            .optional()
    }

    /// Everything from `prefix` to where it ends, in the order of the keys' bytes.
    pub(crate) fn scan(&self, prefix: &str) -> rusqlite::Result<Vec<(String, String)>> {
        let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
        // Two statements: only a plain comparison bounds the search in the index.
        match prefix_end(prefix) {
            Some(end) => self
                .0
                .prepare_cached(
                    "SELECT key, value FROM records WHERE key >= ?1 AND key < ?2
                     AND (until IS NULL OR until > ?3) ORDER BY key",
                )?
                .query_map(params![prefix, end, now()], row)?
                .collect(),
            None => self
                .0
                .prepare_cached(
                    "SELECT key, value FROM records WHERE key >= ?1
                     AND (until IS NULL OR until > ?2) ORDER BY key",
                )?
                .query_map(params![prefix, now()], row)?
                .collect(),
        }
    }
}
