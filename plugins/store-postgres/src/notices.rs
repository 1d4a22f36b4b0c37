//! Words between the processes that share a database: `NOTIFY` and `LISTEN`.
//!
//! A pooler in front of the database that shares connections between transactions carries no
//! `LISTEN`; then nothing is heard, and who waits looks again by itself.

use async_trait::async_trait;
use farebox_core::{Fault, Listener, Notices};
use sqlx::postgres::PgListener;

use crate::{PostgresStore, held::Held, in_time};

/// A database's channel; a word is a key, which says the rest.
const CHANNEL: &str = "farebox_notices";

#[async_trait]
impl Notices for PostgresStore {
    async fn tell(&self, word: &str) -> Result<(), Fault> {
        let notify = sqlx::query("SELECT pg_notify($1, $2)");
        in_time(async {
            let mut held = Held::acquire(&self.pool).await?;
            let told = notify.bind(CHANNEL).bind(word);
            let told = told.execute(held.connection()).await;
            held.answered(told).map(drop)
        })
        .await
    }

    async fn listen(&self) -> Result<Box<dyn Listener>, Fault> {
        // Its own connection, which the pool of those that answer does not lack.
        let listener = in_time(async {
            let mut listener = PgListener::connect_with(&self.config.listening()).await?;
            listener.listen(CHANNEL).await?;
            Ok(listener)
        });
        Ok(Box::new(Heard(listener.await?)))
    }
}

struct Heard(PgListener);

#[async_trait]
impl Listener for Heard {
    async fn next(&mut self) -> Option<String> {
        // `None` where the connection was lost, with whatever was said meanwhile.
        let notice = self.0.try_recv().await.ok()??;
        Some(notice.payload().to_owned())
    }
}
