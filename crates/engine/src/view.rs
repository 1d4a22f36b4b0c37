//! The engine's channels, as a rail sees them while it verifies.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use farebox_core::{ChannelId, ChannelState, Channels, Fault, Observed, wire::Amount};

use crate::{balance, engine::Shared, record::channel_key};

/// What a rail that saw two balances has seen: no channel has spent as much, so its order is not
/// carried out and the rail is asked again.
const NEVER: Amount = Amount::new(u128::MAX);

/// The engine's channels, as a rail sees them, remembering what it saw.
pub(crate) struct ChannelView {
    shared: Arc<Shared>,
    seen: Mutex<HashMap<ChannelId, Amount>>,
    /// What the rail saw outside.
    outside: Mutex<Vec<(ChannelId, Observed)>>,
}

impl ChannelView {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            seen: Mutex::default(),
            outside: Mutex::default(),
        }
    }

    /// What the rail saw spent on `channel`, if it looked.
    pub(crate) fn spent(&self, channel: &ChannelId) -> Option<Amount> {
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(channel)
            .copied()
    }

    /// Records what the rail saw outside, whatever it says of the presentation.
    pub(crate) async fn record(&self) -> Result<(), Fault> {
        let outside =
            std::mem::take(&mut *self.outside.lock().unwrap_or_else(PoisonError::into_inner));
        for (channel, observed) in outside {
            let now = self.shared.clock.millis();
            let known = self.shared.glance(&channel_key(&channel)).await?;
            // Most often it is what was known.
            if known.is_some_and(|known| known.seen(&observed, now) != *known) {
                balance::observe(&self.shared, &channel, &observed).await?;
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Channels for ChannelView {
    async fn state(&self, channel: &ChannelId) -> Result<Option<ChannelState>, Fault> {
        let account = self.shared.account(&channel_key(channel)).await?;
        let now = self.shared.clock.millis();
        let state = account.map(|(_, account)| account.view(now));
        if let Some(state) = &state {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.entry(channel.clone())
                .and_modify(|seen| {
                    if *seen != state.spent {
                        *seen = NEVER;
                    }
                })
                .or_insert(state.spent);
        }
        Ok(state)
    }

    fn saw(&self, channel: &ChannelId, observed: Observed) {
        self.outside
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push((channel.clone(), observed));
    }
}
