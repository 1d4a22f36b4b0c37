//! A process that dies before its n-th effect.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use farebox_core::{Durability, Fault, Store};

/// Burns once per effect. When it is burnt out, the "process" is dead and no effect happens.
#[derive(Clone, Debug)]
pub struct Fuse(Arc<AtomicI64>);

impl Fuse {
    /// Dies before effect `n`, counted from 0.
    pub fn new(n: i64) -> Self {
        Self(Arc::new(AtomicI64::new(n)))
    }

    /// Never dies.
    pub fn endless() -> Self {
        Self::new(i64::MAX)
    }

    /// Burns once; whether the effect may happen.
    pub fn burn(&self) -> bool {
        self.0.fetch_sub(1, Ordering::SeqCst) > 0
    }

    /// Whether it is burnt out.
    pub fn is_dead(&self) -> bool {
        self.0.load(Ordering::SeqCst) <= 0
    }
}

/// A disk that outlives the process, and a process that dies: each write is an effect.
#[derive(Debug)]
pub struct FusedStore<S> {
    disk: Arc<S>,
    fuse: Fuse,
}

impl<S> FusedStore<S> {
    /// The disk, written to as long as the fuse lasts.
    pub fn new(disk: Arc<S>, fuse: Fuse) -> Self {
        Self { disk, fuse }
    }
}

#[async_trait]
impl<S: Store> Store for FusedStore<S> {
    fn durability(&self) -> Durability {
        Durability::Durable
    }

    fn notices(&self) -> Option<&dyn farebox_core::Notices> {
        self.disk.notices()
    }

    async fn get(&self, key: &str) -> Result<Option<String>, Fault> {
        if self.fuse.is_dead() {
            return Err(Fault::new("the process is dead"));
        }
        self.disk.get(key).await
    }

    async fn compare_and_swap(
        &self,
        key: &str,
        expected: Option<&str>,
        next: Option<&str>,
        keep: Option<Duration>,
    ) -> Result<bool, Fault> {
        if !self.fuse.burn() {
            return Err(Fault::new("the process is dead"));
        }
        self.disk.compare_and_swap(key, expected, next, keep).await
    }

    async fn scan(&self, prefix: &str) -> Result<Vec<(String, String)>, Fault> {
        self.disk.scan(prefix).await
    }
}
