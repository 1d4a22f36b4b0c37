//! How channels stand on the chain, remembered for a few seconds.
//!
//! A payer who closes by force gets the deposit after the grace period of fifteen minutes, so what
//! was read seconds ago is good enough to serve by, and no voucher waits for a node.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use alloy::{
    primitives::{Address, B256, Bytes},
    sol_types::SolCall,
};
use farebox_core::Fault;
use tempo_contracts::precompiles::ITIP20ChannelReserve::getChannelStateCall;
use tokio::time::Instant;

use crate::{chain::Chain, rpc::RpcError};

/// How old a state may be while no node answers: far less than the grace period.
const STALE: Duration = Duration::from_secs(60);

/// How many channels are remembered. Beyond, those that are stale are forgotten.
const MOST: usize = 65_536;

/// A channel on the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OnChain {
    pub(crate) settled: u128,
    /// Zero: it was never opened, or is closed.
    pub(crate) deposit: u128,
    /// Unix seconds; zero if nobody asked.
    pub(crate) close_requested_at: u32,
}

impl OnChain {
    pub(crate) fn is_closing(&self) -> bool {
        self.close_requested_at != 0
    }
}

/// The states of one reserve's channels.
#[derive(Debug)]
pub(crate) struct States {
    chain: Arc<Chain>,
    escrow: Address,
    fresh: Duration,
    seen: Mutex<HashMap<B256, (Instant, OnChain)>>,
}

impl States {
    pub(crate) fn new(chain: Arc<Chain>, escrow: Address, fresh: Duration) -> Self {
        Self {
            chain,
            escrow,
            fresh,
            seen: Mutex::default(),
        }
    }

    /// A channel's state, at most as old as is configured; while no node answers, a minute.
    pub(crate) async fn recent(&self, channel: B256) -> Result<OnChain, Fault> {
        let seen = self.seen(channel);
        if let Some((at, state)) = seen
            && at.elapsed() <= self.fresh
        {
            return Ok(state);
        }
        match (self.now(channel).await, seen) {
            (Ok(state), _) => Ok(state),
            (Err(error), Some((at, state))) if at.elapsed() <= STALE => {
                tracing::warn!(%error, "a channel's state cannot be read; the last one counts");
                Ok(state)
            }
            (Err(error), _) => {
                Err(Fault::unavailable("reading a channel's state").caused_by(error))
            }
        }
    }

    /// A channel's state as a node has it now.
    pub(crate) async fn now(&self, channel: B256) -> Result<OnChain, RpcError> {
        let state = read(&self.chain, self.escrow, channel).await?;
        self.remember(channel, state);
        Ok(state)
    }

    /// The channel was changed by us: what is remembered is of no use.
    pub(crate) fn forget(&self, channel: B256) {
        self.lock().remove(&channel);
    }

    fn remember(&self, channel: B256, state: OnChain) {
        let mut seen = self.lock();
        if seen.len() >= MOST {
            seen.retain(|_, (at, _)| at.elapsed() <= self.fresh);
        }
        seen.insert(channel, (Instant::now(), state));
    }

    fn seen(&self, channel: B256) -> Option<(Instant, OnChain)> {
        self.lock().get(&channel).copied()
    }

    /// Nothing that can panic runs under it, so a poisoned map is a good one.
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<B256, (Instant, OnChain)>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks a node.
pub(crate) async fn read(
    chain: &Chain,
    escrow: Address,
    channel: B256,
) -> Result<OnChain, RpcError> {
    let call = getChannelStateCall { channelId: channel };
    let answer: Bytes = chain.view(escrow, call.abi_encode().into()).await?;
    let state = getChannelStateCall::abi_decode_returns(&answer)
        .map_err(|_| RpcError::Unreadable("getChannelState"))?;
    Ok(OnChain {
        settled: state.settled.to(),
        deposit: state.deposit.to(),
        close_requested_at: state.closeRequestedAt,
    })
}
