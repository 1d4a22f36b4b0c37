//! What the server, the clock and the handle share.

use std::sync::{Mutex, MutexGuard, PoisonError};

use alloy::primitives::B256;
use tokio::sync::watch;

use crate::{error::RpcError, faults::Faults, state::State};

#[derive(Debug)]
pub(crate) struct Node {
    state: Mutex<State>,
    faults: Mutex<Faults>,
    beats: watch::Sender<()>,
}

impl Node {
    pub(crate) fn new(state: State) -> Self {
        Self {
            state: Mutex::new(state),
            faults: Mutex::default(),
            beats: watch::Sender::new(()),
        }
    }

    /// The locked state; never held across an await.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Signals whenever the pool may have moved.
    pub(crate) fn beats(&self) -> watch::Receiver<()> {
        self.beats.subscribe()
    }

    pub(crate) fn submit(&self, raw: &[u8], again_ok: bool) -> Result<B256, RpcError> {
        let result = self.state().submit(raw, again_ok);
        self.beats.send_replace(());
        result
    }

    pub(crate) fn tick(&self) {
        self.state().tick();
        self.beats.send_replace(());
    }

    /// Runs an update of the state and includes what it made possible.
    pub(crate) fn update(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state();
        change(&mut state);
        state.mine();
        drop(state);
        self.beats.send_replace(());
    }
}
