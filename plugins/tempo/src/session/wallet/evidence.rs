//! How a channel stands by the chain's own word.

use farebox_core::{Fault, OpenChannel, Standing};
use farebox_wire::Amount;
use tempo_contracts::precompiles::ITIP20ChannelReserve::{ChannelClosed, ChannelOpened};

use alloy::sol_types::SolEvent;

use super::{SessionHeld, TempoSessionWallet};
use crate::{charge::settle::MARGIN, rpc::RpcError, session::states};

impl TempoSessionWallet {
    /// The chain is asked for its time first: a movement whose window had closed before the state
    /// was read, and which the state does not show, can not happen any more.
    pub(super) async fn evidence(
        &self,
        held: &SessionHeld,
    ) -> Result<Standing<SessionHeld>, Fault> {
        self.ask(held)
            .await
            .map_err(|error| Fault::unavailable("reading how a channel stands").caused_by(error))
    }

    async fn ask(&self, held: &SessionHeld) -> Result<Standing<SessionHeld>, RpcError> {
        let (chain, id) = (&self.base.chain, held.id());
        let (_, time) = chain.head().await?;
        let state = states::read(chain, held.escrow, id).await?;
        let over = |end: u64| time >= end.saturating_add(MARGIN);
        if state.deposit > 0 {
            let more = held.movement.as_ref().map_or(0, |m| m.amount.get());
            let arrived = state.deposit >= held.deposit.get().saturating_add(more);
            let lost = held.movement.as_ref().is_none_or(|m| over(m.end()));
            if !arrived && !lost {
                return Ok(Standing::Pending);
            }
            let deposit = Amount::new(state.deposit);
            return Ok(Standing::Open {
                channel: OpenChannel {
                    id: id.to_string(),
                    deposit,
                    held: SessionHeld {
                        deposit,
                        movement: None,
                        ..held.clone()
                    },
                },
                taken: Amount::new(state.settled),
                closing: state.is_closing(),
            });
        }
        let since = held.movement.as_ref().map_or(0, |movement| movement.since);
        // A channel that was open before, or whose opening is on the chain, is over.
        let topics = |signature| [signature, id];
        let opened = held.deposit > Amount::ZERO
            || held.movement.is_none()
            || chain
                .has_logged(held.escrow, topics(ChannelOpened::SIGNATURE_HASH), since)
                .await?;
        if opened {
            let closed = chain
                .has_logged(held.escrow, topics(ChannelClosed::SIGNATURE_HASH), since)
                .await?;
            // Without that a node is behind.
            return Ok(match closed {
                true => Standing::Closed {
                    taken: None,
                    held: None,
                },
                false => Standing::Pending,
            });
        }
        let end = held.movement.as_ref().map_or(0, |movement| movement.end());
        Ok(match over(end) {
            true => Standing::Absent,
            false => Standing::Pending,
        })
    }
}
