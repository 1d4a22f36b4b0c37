//! Where payments are recorded.

use farebox_test_services::{Postgres, Redis};
use tempfile::TempDir;

use crate::Problem;

/// A store, running or to be made.
pub(crate) enum Place {
    Memory,
    Sqlite(TempDir),
    Redis(Redis),
    Postgres(
        String,
        #[expect(dead_code, reason = "held, not read")] Postgres,
    ),
}

/// All that this machine has.
pub(crate) fn all() -> Result<Vec<Place>, Problem> {
    let mut places = vec![Place::Memory, Place::Sqlite(tempfile::tempdir()?)];
    match farebox_test_services::available() {
        Ok(()) => {
            places.push(Place::Redis(Redis::start()));
            let postgres = Postgres::start();
            places.push(Place::Postgres(postgres.database(), postgres));
        }
        Err(missing) => eprintln!("without {missing}"),
    }
    Ok(places)
}

impl Place {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Sqlite(_) => "SQLite",
            Self::Redis(_) => "Redis",
            Self::Postgres(..) => "PostgreSQL",
        }
    }

    pub(crate) fn url(&self) -> String {
        match self {
            Self::Memory => "memory:".to_owned(),
            Self::Sqlite(folder) => {
                format!("sqlite://{}", folder.path().join("farebox.db").display())
            }
            Self::Redis(redis) => redis.url(),
            Self::Postgres(url, _) => url.clone(),
        }
    }

    /// Whether several processes can use it.
    pub(crate) fn is_shared(&self) -> bool {
        !matches!(self, Self::Memory)
    }
}
