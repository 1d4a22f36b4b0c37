//! The connection, which is made anew when the server is no longer the one to write to.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use farebox_core::Fault;
use redis::{Client, ErrorKind, RedisError, ServerErrorKind, aio::ConnectionManager};
use tokio::{sync::Semaphore, time::sleep};

use crate::{config::Redis, in_time, inspect};

/// How long after one try the next may begin.
const REST: Duration = Duration::from_secs(1);

/// A server's connection. The manager makes it anew when it breaks, but a primary that was demoted
/// keeps its connections and answers `READONLY` for as long as they last.
#[derive(Clone)]
pub(crate) struct Link {
    config: Redis,
    current: Arc<RwLock<ConnectionManager>>,
    /// One try at a time.
    trying: Arc<Semaphore>,
}

impl Link {
    pub(crate) async fn open(config: &Redis) -> Result<Self, Fault> {
        Ok(Self {
            current: Arc::new(RwLock::new(in_time(config.connect()).await?)),
            config: config.clone(),
            trying: Arc::new(Semaphore::new(1)),
        })
    }

    /// For connections that are not the shared one.
    pub(crate) fn client(&self) -> &Client {
        self.config.client()
    }

    pub(crate) fn connection(&self) -> ConnectionManager {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        current.clone()
    }

    /// Looks for the primary in the background if the error says that this is none.
    pub(crate) fn heed(&self, error: &RedisError) {
        let demoted = matches!(
            error.kind(),
            ErrorKind::Server(ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown)
        );
        if !demoted {
            return;
        }
        let Ok(trying) = self.trying.clone().try_acquire_owned() else {
            return;
        };
        let link = self.clone();
        tokio::spawn(async move {
            match link.renew().await {
                Ok(()) => tracing::info!("Redis was connected to anew, and is a primary"),
                Err(fault) => tracing::warn!(%fault, "no Redis primary was found"),
            }
            sleep(REST).await;
            drop(trying);
        });
    }

    /// A new connection resolves the name again. A replica's is not used.
    async fn renew(&self) -> Result<(), Fault> {
        let new = in_time(self.config.connect()).await?;
        inspect::primary(&new).await?;
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        *current = new;
        Ok(())
    }
}
