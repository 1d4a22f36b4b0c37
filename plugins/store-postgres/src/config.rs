//! The URL: `postgres://user:password@host:5432/database?sslmode=verify-full`.

use std::{fmt, str::FromStr as _, time::Duration};

use farebox_core::{Invalid, config::did_you_mean};
use sqlx::{
    ConnectOptions as _,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use url::Url;

/// Connections of one process, unless the URL says otherwise. Every call holds one for as long as
/// the server works on it.
const CONNECTIONS: u32 = 10;

/// How long a call waits for a connection, and the server for a lock and for a statement.
const ACQUIRE: Duration = Duration::from_secs(4);
const LOCK: &str = "3s";
const STATEMENT: &str = "4s";

/// After how much silence a connection is tried before it is used.
const IDLE: Duration = Duration::from_secs(5);

/// What the URL may say, beside `options[name]`: the driver would log anything else.
const KNOWN: &[&str] = &[
    "application_name",
    "host",
    "max_connections",
    "options",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
];

/// A server, a database, and how many connections to it.
#[derive(Clone)]
pub struct Postgres {
    options: PgConnectOptions,
    connections: u32,
}

impl Postgres {
    /// Reads a URL.
    ///
    /// # Errors
    /// Whatever is wrong with it. The text holds nothing of the URL.
    pub fn parse(url: &str) -> Result<Self, Invalid> {
        let invalid = |problem: &str| {
            let shape = "give one such as `postgres://user:password@host:5432/database`";
            Invalid::new("", format!("{problem}; {shape}"))
        };
        let mut url = Url::parse(url).map_err(|error| invalid(&format!("is no URL ({error})")))?;
        if !["postgres", "postgresql"].contains(&url.scheme()) {
            return Err(invalid("is no URL of a PostgreSQL server"));
        }
        let mut connections = CONNECTIONS;
        let mut rest = Vec::new();
        for (option, value) in url.query_pairs().into_owned() {
            if option == "max_connections" {
                connections = match value.parse() {
                    Ok(number @ 1..=1000) => number,
                    _ => return Err(invalid("has a `max_connections` that is not 1 to 1000")),
                };
            } else if KNOWN.contains(&option.as_str()) || option.starts_with("options[") {
                rest.push((option, value));
            } else {
                let known = did_you_mean(&option, KNOWN);
                return Err(invalid(&format!("has an unknown option{known}")));
            }
        }
        url.set_query(None);
        if !rest.is_empty() {
            url.query_pairs_mut().extend_pairs(rest);
        }
        let options = PgConnectOptions::from_str(url.as_str())
            .map_err(|_| invalid("cannot be used: its options or its port are not understood"))?
            .application_name("farebox")
            .options([
                // What the statements are written for, whatever the database's default is.
                ("default_transaction_isolation", "read committed"),
                ("lock_timeout", LOCK),
                ("statement_timeout", STATEMENT),
                ("idle_in_transaction_session_timeout", "10s"),
            ])
            .disable_statement_logging();
        Ok(Self {
            options,
            connections,
        })
    }

    /// A pool that has yet to make its first connection.
    pub(crate) fn pool(&self) -> sqlx::PgPool {
        PgPoolOptions::new()
            .max_connections(self.connections)
            .acquire_timeout(ACQUIRE)
            // A round trip before every call is too much, and none at all finds dead connections
            // by failing calls.
            .test_before_acquire(false)
            .before_acquire(|connection, meta| {
                Box::pin(async move {
                    if meta.idle_for > IDLE {
                        sqlx::Connection::ping(connection).await?;
                    }
                    Ok(true)
                })
            })
            // A standby is read-only, and may be what is left of a primary. The driver closes the
            // connection and tries again for as long as a call waits for one.
            .after_connect(|connection, _| {
                Box::pin(async move {
                    let standby = sqlx::query_scalar("SELECT pg_is_in_recovery()");
                    if standby.fetch_one(connection).await? {
                        return Err(sqlx::Error::Protocol("the server is a standby".to_owned()));
                    }
                    Ok(())
                })
            })
            .connect_lazy_with(self.options.clone())
    }

    /// Of one connection, which listens as long as it lasts.
    pub(crate) fn listening(&self) -> sqlx::PgPool {
        PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(ACQUIRE)
            .connect_lazy_with(self.options.clone())
    }
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Postgres")
            .field("connections", &self.connections)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn a_url_names_a_database() {
        let url = "postgresql://me:hunter2@host:5433/shop?sslmode=require&max_connections=3\
                   &options[search_path]=paid";
        let postgres = Postgres::parse(url).unwrap();
        assert_eq!(postgres.connections, 3);
        assert_eq!(postgres.options.get_database(), Some("shop"));
        let options = postgres.options.get_options().unwrap();
        assert!(options.contains("search_path=paid"), "{options}");
        assert!(options.contains("statement_timeout=4s"), "{options}");
        assert!(!format!("{postgres:?}").contains("hunter2"));
        for bad in [
            "",
            "postgres",
            "redis://host",
            "postgres://me:hunter2@host:99999/x",
            "postgres://host/x?sslmode=hunter2",
            "postgres://host/x?max_connections=0",
            "postgres://host/x?max_conections=hunter2",
        ] {
            let error = Postgres::parse(bad).map(drop).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
