//! A connection for one call.

use sqlx::{Error, PgConnection, PgPool, Postgres, pool::PoolConnection};

use crate::error::read_only;

/// A pool's connection, which goes back only if the server answered. A caller that went away or a
/// network that swallows everything leaves one that may never answer again, and the pool would wait
/// for it.
pub(crate) struct Held {
    connection: PoolConnection<Postgres>,
    answered: bool,
}

impl Held {
    pub(crate) async fn acquire(pool: &PgPool) -> Result<Self, Error> {
        Ok(Self {
            connection: pool.acquire().await?,
            answered: false,
        })
    }

    pub(crate) fn connection(&mut self) -> &mut PgConnection {
        &mut self.connection
    }

    /// The call's result, after which the connection is good if the server itself spoke, and takes
    /// writes: the next connection may lead to the primary.
    pub(crate) fn answered<T>(mut self, result: Result<T, Error>) -> Result<T, Error> {
        self.answered = match &result {
            Ok(_) => true,
            Err(error) => error.as_database_error().is_some() && !read_only(error),
        };
        result
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if !self.answered {
            self.connection.close_on_drop();
        }
    }
}
