//! A process that dies before its n-th effect.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use farebox_core::Fault;

use crate::proxy::{Between, Call, Proxy};

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

/// A disk that outlives the process, and a process that dies: each write is an effect, but for its
/// sign of life.
pub type FusedStore<S> = Proxy<S, Fuse>;

impl Between for Fuse {
    async fn call<T: Send>(
        &self,
        call: Call<'_>,
        reply: impl Future<Output = Result<T, Fault>> + Send,
    ) -> Result<T, Fault> {
        let alive = match call {
            Call::Write(_) if !call.is_sign_of_life() => self.burn(),
            Call::Write(_) | Call::Get(_) => !self.is_dead(),
            Call::Scan(_) => true,
        };
        if !alive {
            return Err(Fault::new("the process is dead"));
        }
        reply.await
    }
}
