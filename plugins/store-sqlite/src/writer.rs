//! The thread that writes: it takes what waits, in one transaction.

use std::{
    fmt,
    sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TrySendError},
    time::{Duration, Instant},
};

use farebox_core::Fault;
use rusqlite::{Connection, OptionalExtension as _, params};
use tokio::sync::oneshot;

use crate::{
    error::{again, fault},
    file::{Place, now, until},
};

/// Swaps that may wait. Beyond it the disk is too slow for the load, and callers are told.
const QUEUE: usize = 4096;

/// Swaps in one transaction.
const BATCH: usize = 128;

/// How often expired records are looked for, and how many are dropped at a time.
const SWEEP: Duration = Duration::from_secs(1);
const SWEPT: usize = 512;

/// A swap, and who waits for it.
pub(crate) struct Job {
    pub(crate) key: String,
    pub(crate) expected: Option<String>,
    pub(crate) next: Option<String>,
    pub(crate) keep: Option<Duration>,
    pub(crate) reply: oneshot::Sender<Result<bool, Fault>>,
}

/// The way to the thread, which ends when this is dropped.
pub(crate) struct Writer {
    jobs: SyncSender<Job>,
}

impl Writer {
    /// Opens the file for writing and starts the thread.
    pub(crate) fn start(place: Place) -> Result<Self, Fault> {
        let connection = place.writing()?;
        let (jobs, queue) = mpsc::sync_channel(QUEUE);
        let thread = Thread {
            place,
            connection,
            queue,
            sweep_at: Instant::now(),
        };
        std::thread::Builder::new()
            .name("farebox-sqlite".to_owned())
            .spawn(move || thread.run())
            .map_err(|e| Fault::new("a thread for the SQLite store cannot be made").caused_by(e))?;
        Ok(Self { jobs })
    }

    pub(crate) fn queue(&self, job: Job) -> Result<(), Fault> {
        self.jobs.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => {
                Fault::unavailable("too many writes wait for the SQLite store")
            }
            TrySendError::Disconnected(_) => Fault::new("the SQLite store has stopped writing"),
        })
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Writer")
    }
}

struct Thread {
    place: Place,
    connection: Connection,
    queue: Receiver<Job>,
    sweep_at: Instant,
}

impl Thread {
    fn run(mut self) {
        loop {
            let wait = self.sweep_at.saturating_duration_since(Instant::now());
            match self.queue.recv_timeout(wait) {
                Ok(first) => {
                    let mut batch = vec![first];
                    batch.extend(self.queue.try_iter().take(BATCH - 1));
                    self.answer(batch);
                }
                Err(RecvTimeoutError::Timeout) if !self.anything_expired() => self.rest(),
                Err(RecvTimeoutError::Timeout) => self.answer(Vec::new()),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        // The log back into the file, so that a store at rest is one file.
        if let Ok(_turn) = self.place.turn() {
            let checkpoint = "PRAGMA wal_checkpoint(TRUNCATE)";
            drop(self.connection.query_row(checkpoint, [], |_| Ok(())));
        }
    }

    /// Runs the swaps in one transaction and answers them once it is on the disk.
    fn answer(&mut self, mut batch: Vec<Job>) {
        // Whoever stopped waiting is told nothing, so nothing is done either.
        batch.retain(|job| !job.reply.is_closed());
        match self.commit(&batch) {
            Ok(answers) => {
                for (job, answer) in batch.into_iter().zip(answers) {
                    drop(job.reply.send(answer));
                }
            }
            Err(fault) => {
                if batch.is_empty() {
                    tracing::warn!(%fault, "expired records were not dropped");
                    self.rest();
                }
                for job in batch {
                    drop(job.reply.send(Err(again(&fault))));
                }
            }
        }
    }

    fn commit(&mut self, batch: &[Job]) -> Result<Vec<Result<bool, Fault>>, Fault> {
        let turn = self.place.turn()?;
        let sweep = Instant::now() >= self.sweep_at;
        let answers = transaction(&self.connection, |connection| {
            let now = now();
            let mut answers = Vec::with_capacity(batch.len());
            for job in batch {
                answers.push(swap(connection, job, now).map_err(|e| fault(&e)));
            }
            let swept = if sweep {
                drop_expired(connection, now)?
            } else {
                0
            };
            Ok((answers, swept))
        });
        drop(turn);
        let (answers, swept) = answers.map_err(|e| fault(&e))?;
        // A full sweep has left some over: they go with the next transaction.
        if sweep && swept < SWEPT {
            self.rest();
        }
        Ok(answers)
    }

    fn anything_expired(&self) -> bool {
        let sql = "SELECT 1 FROM records WHERE until <= ?1 LIMIT 1";
        let found = self
            .connection
            .prepare_cached(sql)
            .and_then(|mut s| s.query_row([now()], |_| Ok(())).optional());
        matches!(found, Ok(Some(())))
    }

    fn rest(&mut self) {
        self.sweep_at = Instant::now() + SWEEP;
    }
}

/// Runs `work` and commits. If anything fails nothing of it is done.
fn transaction<T>(
    connection: &Connection,
    work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    connection.execute_batch("BEGIN IMMEDIATE")?;
    let done = work(connection).and_then(|done| {
        // A grave error, such as a full disk, has undone everything already, and COMMIT says so.
        connection.execute_batch("COMMIT").map(|()| done)
    });
    if done.is_err() && !connection.is_autocommit() {
        drop(connection.execute_batch("ROLLBACK"));
    }
    done
}

fn swap(connection: &Connection, job: &Job, now: i64) -> rusqlite::Result<bool> {
    let changed = match (&job.expected, &job.next) {
        (None, None) => {
            let sql = "SELECT 1 FROM records WHERE key = ?1 AND (until IS NULL OR until > ?2)";
            let mut statement = connection.prepare_cached(sql)?;
            return Ok(!statement.exists(params![job.key, now])?);
        }
        (None, Some(next)) => connection
            .prepare_cached(
                "INSERT INTO records (key, value, until) VALUES (?1, ?2, ?3)
                 ON CONFLICT (key) DO UPDATE SET value = excluded.value, until = excluded.until
                 WHERE records.until <= ?4",
            )?
            .execute(params![job.key, next, until(now, job.keep), now])?,
        (Some(expected), Some(next)) => connection
            .prepare_cached(
                "UPDATE records SET value = ?2, until = ?3
                 WHERE key = ?1 AND value = ?5 AND (until IS NULL OR until > ?4)",
            )?
            .execute(params![job.key, next, until(now, job.keep), now, expected])?,
        (Some(expected), None) => connection
            .prepare_cached(
                "DELETE FROM records
                 WHERE key = ?1 AND value = ?3 AND (until IS NULL OR until > ?2)",
            )?
            .execute(params![job.key, now, expected])?,
    };
    Ok(changed == 1)
}

fn drop_expired(connection: &Connection, now: i64) -> rusqlite::Result<usize> {
    connection
        .prepare_cached(
            "DELETE FROM records WHERE rowid IN
             (SELECT rowid FROM records WHERE until <= ?1 ORDER BY until LIMIT ?2)",
        )?
        .execute(params![now, SWEPT])
}
