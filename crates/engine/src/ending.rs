//! Ending what streams from a channel, so that its payer can close it.
//!
//! A close captures what was spent, so nobody may be spending. It marks the channel: nothing more
//! is taken from it, and whoever streams, in whichever process, hears of it, counts what was burnt,
//! gives back the rest and says what was paid. The close goes on as soon as all have.

use std::{sync::Arc, time::Duration};

use farebox_core::{ChannelId, Fault};
use tokio::time::{Instant, timeout_at};

use crate::{account::Ending, engine::Shared, record::channel_key};

/// What whoever streams from the account under `key` waits for.
pub(crate) fn end_of(key: &str) -> String {
    ["end ", key].concat()
}

/// Whether anybody spends a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spenders {
    /// Nobody did.
    None,
    /// Those who did have ended: the balance is another than before.
    Ended,
    /// Some go on.
    Left,
}

impl Shared {
    /// Has everything end that spends `channel`, for the payment `op`, and waits for that,
    /// `patience` at most. Nothing more begins until the close is made, or given up.
    pub(crate) async fn end_spending(
        self: &Arc<Self>,
        op: &str,
        channel: &ChannelId,
        patience: Duration,
    ) -> Result<Spenders, Fault> {
        let key = channel_key(channel);
        let end = Instant::now() + patience;
        let waiting = self.wait(&key);
        let mut marked = false;
        loop {
            // Registered before the look, so that a change in between is not missed.
            let changed = waiting.changed();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let account = self.account(&key).await?;
            let now = self.clock.millis();
            let spent = account.is_some_and(|(_, account)| account.leased(now) > 0);
            match (spent, marked) {
                (false, false) => return Ok(Spenders::None),
                (false, true) => return Ok(Spenders::Ended),
                (true, true) => {}
                (true, false) => {
                    // Lapses by itself where its caller goes away.
                    let until = self.lease_until(patience);
                    self.mark(&key, op, Some(until)).await?;
                    marked = true;
                    continue;
                }
            }
            let look = (Instant::now() + waiting.look()).min(end);
            if timeout_at(look, changed).await.is_err() && Instant::now() >= end {
                self.mark(&key, op, None).await?;
                return Ok(Spenders::Left);
            }
        }
    }

    /// Marks the account for `op` until then, or takes its mark back.
    async fn mark(self: &Arc<Self>, key: &str, op: &str, until: Option<i64>) -> Result<(), Fault> {
        self.update(key, |account| {
            let gone = || Fault::new("a channel is gone");
            let mut next = account.cloned().ok_or_else(gone)?;
            match until {
                Some(until) => {
                    let op = op.to_owned();
                    next.ending = Some(Ending { op, until });
                }
                None => drop(next.ending.take_if(|ending| ending.op == op)),
            }
            Ok((next, ()))
        })
        .await
    }

    /// Waits until the account under `key` serves nobody any more.
    pub(crate) async fn ended(self: &Arc<Self>, key: &str) {
        let waiting = self.heed(&end_of(key));
        // What this process last saw will do to begin with: who streams has just looked.
        let mut first = true;
        loop {
            let changed = waiting.changed();
            let known = match std::mem::take(&mut first) {
                true => self.glance(key).await,
                false => self.account(key).await.map(|seen| seen.map(|seen| seen.1)),
            };
            // While the store is away a stream goes on with its block, and without one it ends.
            if let Ok(account) = known
                && account.is_none_or(|account| account.serves(self.clock.millis()).is_err())
            {
                return;
            }
            // Woken or not, it looks again.
            let _ = timeout_at(Instant::now() + waiting.look(), changed).await;
        }
    }
}
