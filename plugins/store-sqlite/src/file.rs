//! The file: how it is opened, what is in it, and who may write.

use std::{
    fs::{File, OpenOptions},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use farebox_core::Fault;
use rusqlite::{Connection, OpenFlags, config::DbConfig};

use crate::error::fault;

/// "fare": which program a SQLite file belongs to.
const APPLICATION: i64 = 0x6661_7265;

/// The layout below.
const VERSION: i64 = 1;

const SCHEMA: &str = "
    CREATE TABLE records (
        key   TEXT NOT NULL PRIMARY KEY,
        value TEXT NOT NULL,
        until INTEGER -- milliseconds since 1970; NULL keeps it until it is removed
    ) STRICT;
    CREATE INDEX records_until ON records (until) WHERE until IS NOT NULL;
";

/// How long another program's lock is waited for. Our own processes queue at the lock file.
const BUSY: Duration = Duration::from_secs(5);

/// A store's file and the lock beside it.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    path: PathBuf,
    lock: Arc<File>,
}

impl Place {
    /// Finds or makes the files, readable by their owner only.
    pub(crate) fn new(path: &Path) -> Result<Self, Fault> {
        // Absolute, so that a name like `file:x` is a name, and a later change of folder is none.
        let path = std::path::absolute(path).map_err(|e| unopened(path, &e))?;
        let mut lock = path.clone().into_os_string();
        lock.push("-lock");
        let lock = PathBuf::from(lock);
        let opened = private().create(true).open(&lock);
        let place = Self {
            lock: Arc::new(opened.map_err(|error| unopened(&lock, &error))?),
            path,
        };
        place.create()?;
        Ok(place)
    }

    /// Makes the file if there is none. One that is there is opened by SQLite alone: when any
    /// descriptor of a file is closed, the system drops all locks that the process has on it, those
    /// of SQLite's connections too. In turn, so that a new one is closed before it is connected to.
    fn create(&self) -> Result<(), Fault> {
        let _turn = self.turn()?;
        match private().create_new(true).open(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                Err(unopened(&self.path, &error))
            }
            _ => Ok(()),
        }
    }

    /// Waits for its turn to write. Released on drop.
    pub(crate) fn turn(&self) -> Result<Turn<'_>, Fault> {
        loop {
            match self.lock.lock() {
                Ok(()) => return Ok(Turn(&self.lock)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let what = "the SQLite store's lock file cannot be locked";
                    return Err(Fault::unavailable(what).caused_by(error));
                }
            }
        }
    }

    /// The connection that writes. Opening recovers and may write, so it is done in turn.
    pub(crate) fn writing(&self) -> Result<Connection, Fault> {
        let _turn = self.turn()?;
        let connection = self.connect()?;
        let prepare = || -> rusqlite::Result<Result<(), Fault>> {
            let mode: String =
                connection.pragma_update_and_check(None, "journal_mode", "wal", |r| r.get(0))?;
            if mode != "wal" {
                return Ok(Err(Fault::new("the SQLite file cannot have a journal")));
            }
            connection.pragma_update(None, "synchronous", "FULL")?;
            // After a burst the log gives its space back.
            connection.pragma_update(None, "journal_size_limit", 64 << 20)?;
            migrate(&connection)
        };
        prepare().map_err(|e| fault(&e).caused_by_path(&self.path, &e))??;
        Ok(connection)
    }

    /// A connection that only reads. It never checkpoints, so it needs no turn.
    pub(crate) fn reading(&self) -> Result<Connection, Fault> {
        let connection = self.connect()?;
        connection
            .pragma_update(None, "query_only", true)
            .map_err(|e| fault(&e))?;
        Ok(connection)
    }

    fn connect(&self) -> Result<Connection, Fault> {
        // Not CREATE: the file is there, with the right permissions.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let open = || {
            let connection = Connection::open_with_flags(&self.path, flags)?;
            connection.busy_timeout(BUSY)?;
            connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
            Ok(connection)
        };
        open().map_err(|e| fault(&e).caused_by_path(&self.path, &e))
    }
}

/// The right to write, checkpoint or open.
#[derive(Debug)]
pub(crate) struct Turn<'a>(&'a File);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        // Fails only for a file that is no longer open, and then nothing is locked.
        drop(self.0.unlock());
    }
}

/// Makes the tables, or checks that they are ours.
fn migrate(connection: &Connection) -> rusqlite::Result<Result<(), Fault>> {
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    match (pragma("application_id")?, pragma("user_version")?) {
        (APPLICATION, VERSION) => return Ok(Ok(())),
        (APPLICATION, _) => {
            let what = "the SQLite file was written by another version of Farebox";
            return Ok(Err(Fault::new(what)));
        }
        _ => {}
    }
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if tables > 0 {
        let what = "the SQLite file belongs to another program";
        return Ok(Err(Fault::new(what)));
    }
    connection.execute_batch(&format!(
        "BEGIN IMMEDIATE; {SCHEMA}
         PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {VERSION}; COMMIT;"
    ))?;
    Ok(Ok(()))
}

/// How files are made: their owner's alone. SQLite gives its companions the same permissions.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

fn unopened(path: &Path, error: &io::Error) -> Fault {
    let cause = format!("{}: {error}", path.display());
    Fault::unavailable("the SQLite file cannot be opened").caused_by(cause)
}

/// Naming the file in what is said about opening it.
trait CausedByPath {
    fn caused_by_path(self, path: &Path, error: &rusqlite::Error) -> Self;
}

impl CausedByPath for Fault {
    fn caused_by_path(self, path: &Path, error: &rusqlite::Error) -> Self {
        let path = path.display();
        match error.sqlite_error() {
            Some(code) => self.caused_by(format!("{path}: {code}")),
            None => self.caused_by(path.to_string()),
        }
    }
}

/// Now, in milliseconds since 1970.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// When a record written now may be dropped: not before `keep` is over. `None`: never.
pub(crate) fn until(now: i64, keep: Option<Duration>) -> Option<i64> {
    // A millisecond has begun before `now`, and one may end within `keep`.
    let keep = i64::try_from(keep?.as_millis()).ok()?.checked_add(2)?;
    now.checked_add(keep)
}
