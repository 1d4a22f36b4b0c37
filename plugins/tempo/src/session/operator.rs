//! What the server itself sends: settling and closing, by the recipient's key or an operator's.

use std::{fmt, num::NonZeroU64, sync::Arc};

use alloy::{
    primitives::{Address, B256, Bytes, TxKind, U256},
    signers::Signer,
    sol_types::SolCall,
};
use farebox_core::{ChannelId, ChannelState, Due, Fault, Observed, Together, Upkeep};
use farebox_proof::sign_hash;
use farebox_wire::Amount;
use futures_util::future::join_all;
use tempo_contracts::precompiles::ITIP20ChannelReserve::{closeCall, settleCall};
use tempo_primitives::{
    TempoTransaction,
    transaction::{Call, TEMPO_EXPIRING_NONCE_KEY, TempoSignature},
};

use super::{
    SessionOrder, TempoSession,
    channel::{Descriptor, SignedVoucher, u96},
    kept,
    snapshot::Kept,
    states::OnChain,
    tx::{How, Moved},
    verify::closing,
};
use crate::{
    charge::{
        Order,
        build::{DEAREST_GAS, LEAST_GAS, end_of_window_from_now},
        tx::{SignedTx, request},
    },
    rpc::RpcError,
};

/// The account that settles and closes.
#[derive(Clone)]
pub(super) struct Operator {
    signer: Arc<dyn Signer + Send + Sync>,
    /// What it pays network fees in; the channel's token if left out.
    fee_token: Option<Address>,
}

impl fmt::Debug for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Operator({})", self.signer.address())
    }
}

impl Operator {
    pub(super) fn new(signer: Arc<dyn Signer + Send + Sync>, fee_token: Option<Address>) -> Self {
        Self { signer, fee_token }
    }

    /// Whom a channel to `recipient` must name so that this account may settle it; nobody where it
    /// is the recipient itself.
    pub(super) fn beside(&self, recipient: Address) -> Option<Address> {
        let own = self.signer.address();
        (own != recipient).then_some(own)
    }

    /// An order that closes a channel with `capture` of it for the payee.
    pub(super) async fn close(
        &self,
        rail: &TempoSession,
        channel: B256,
        descriptor: &Descriptor,
        voucher: &SignedVoucher,
        capture: Amount,
    ) -> Result<SessionOrder, Fault> {
        let call = closeCall {
            descriptor: descriptor.abi(),
            cumulativeAmount: u96(voucher.cumulative.get()),
            captureAmount: u96(capture.get()),
            signature: voucher.signature.clone(),
        };
        let input = call.abi_encode().into();
        let how = How::Closed(capture);
        self.order(rail, channel, descriptor.token, input, how)
            .await
    }

    /// An order that settles all that a voucher hands over.
    async fn settle(
        &self,
        rail: &TempoSession,
        channel: B256,
        descriptor: &Descriptor,
        voucher: &SignedVoucher,
    ) -> Result<SessionOrder, Fault> {
        let how = How::Settled(voucher.cumulative);
        let input = settling(descriptor, voucher);
        self.order(rail, channel, descriptor.token, input, how)
            .await
    }

    /// An order of one call.
    async fn order(
        &self,
        rail: &TempoSession,
        channel: B256,
        token: Address,
        input: Bytes,
        how: How,
    ) -> Result<SessionOrder, Fault> {
        let signed = self.sign(rail, token, vec![input]).await;
        let order = signed.map_err(|error| {
            Fault::unavailable("preparing a session's settlement").caused_by(error)
        })?;
        Ok(SessionOrder::new(order, moved(rail, channel, how)))
    }

    /// Signs a transaction of these calls of the reserve: all are made, or none is. It has an
    /// expiring nonce, so any number of processes may sign with one key, and one that was never
    /// included is final soon after its window.
    ///
    /// # Errors
    /// [`Refused`](RpcError::Refused): a node says that it would fail.
    async fn sign(
        &self,
        rail: &TempoSession,
        token: Address,
        inputs: Vec<Bytes>,
    ) -> Result<Order, SignError> {
        let chain = &rail.base.chain;
        let escrow = rail.domain.escrow();
        let end = end_of_window_from_now();
        let calls = inputs.into_iter().map(|input| Call {
            to: TxKind::Call(escrow),
            value: U256::ZERO,
            input,
        });
        let mut tx = TempoTransaction {
            chain_id: chain.id(),
            fee_token: self.fee_token.or(Some(token)),
            calls: calls.collect(),
            nonce_key: TEMPO_EXPIRING_NONCE_KEY,
            valid_before: NonZeroU64::new(end),
            ..TempoTransaction::default()
        };
        let simulation = request(self.signer.address(), &tx, false);
        let (gas, price) = tokio::join!(chain.estimate(&simulation), chain.gas_price());
        let (gas, price) = (gas?, price?);
        if price > DEAREST_GAS {
            return Err(SignError::TooDear(price));
        }
        tx.gas_limit = gas.saturating_add(gas / 5).max(LEAST_GAS);
        tx.max_fee_per_gas = price.saturating_mul(2);
        tx.max_priority_fee_per_gas = price / 10;
        let signature = sign_hash(self.signer.as_ref(), &tx.signature_hash()).await?;
        let signed = SignedTx::of(tx.into_signed(TempoSignature::from(signature)));
        let signed = signed.map_err(|why| SignError::Unreadable(why.detail))?;
        Ok(Order {
            raw: signed.raw,
            hash: signed.hash,
            valid_before: end,
            transfers: Vec::new(),
            sponsored: false,
            share: None,
            moved: None,
        })
    }
}

/// Why there is no transaction.
#[derive(Debug, thiserror::Error)]
enum SignError {
    #[error(transparent)]
    Rpc(#[from] RpcError),
    #[error("gas costs {0} attodollars; {DEAREST_GAS} are paid")]
    TooDear(u128),
    #[error("the signed transaction cannot be read: {0}")]
    Unreadable(String),
    #[error(transparent)]
    Signer(#[from] Fault),
}

/// The call that settles all that a voucher hands over.
fn settling(descriptor: &Descriptor, voucher: &SignedVoucher) -> Bytes {
    let call = settleCall {
        descriptor: descriptor.abi(),
        cumulativeAmount: u96(voucher.cumulative.get()),
        signature: voucher.signature.clone(),
    };
    call.abi_encode().into()
}

fn moved(rail: &TempoSession, channel: B256, how: How) -> Moved {
    Moved {
        escrow: rail.domain.escrow(),
        channel,
        how,
    }
}

/// One transaction that settles several channels.
///
/// Each channel's order is that transaction and what its receipt must show of the channel, so each
/// is looked up by itself. What is settled is cumulative: were one sent whose companion's order got
/// lost, the chain would say what it has settled there.
pub(super) async fn together(
    rail: &TempoSession,
    channels: &[(ChannelId, ChannelState)],
) -> Result<Together<SessionOrder>, Fault> {
    let looks = channels.iter().map(|(channel, state)| async move {
        let (id, kept) = read(channel, state)?;
        Ok::<_, Fault>((id, kept, on_chain(rail, id).await?))
    });
    let (mut inputs, mut token) = (Vec::new(), None);
    let mut upkeeps = Vec::with_capacity(channels.len());
    for (look, (_, state)) in join_all(looks).await.into_iter().zip(channels) {
        let (id, kept, seen) = look?;
        upkeeps.push(match kept.voucher.cumulative {
            _ if seen.deposit == 0 => (gone(state, Due::Settle), None),
            cumulative if cumulative.get() > seen.settled => {
                inputs.push(settling(&kept.descriptor, &kept.voucher));
                token.get_or_insert(kept.descriptor.token);
                (
                    Upkeep::nothing().observed(observed(&seen)),
                    Some((id, cumulative)),
                )
            }
            _ => (Upkeep::nothing().observed(observed(&seen)), None),
        });
    }
    let Some(token) = token.filter(|_| inputs.len() > 1) else {
        return Ok(None);
    };
    let order = match rail.operator()?.sign(rail, token, inputs).await {
        Ok(order) => order,
        // One of them would fail, and with it all.
        Err(SignError::Rpc(RpcError::Refused(why))) => {
            tracing::debug!(code = why.code, "channels are settled one by one");
            return Ok(None);
        }
        Err(error) => {
            return Err(Fault::unavailable("preparing sessions' settlement").caused_by(error));
        }
    };
    let settle = |(upkeep, settles): (Upkeep<SessionOrder>, Option<(B256, Amount)>)| match settles {
        None => upkeep,
        Some((id, to)) => {
            let order = SessionOrder::new(order.clone(), moved(rail, id, How::Settled(to)));
            upkeep.settling(to, order)
        }
    };
    Ok(Some(upkeeps.into_iter().map(settle).collect()))
}

fn read(channel: &ChannelId, state: &ChannelState) -> Result<(B256, Kept), Fault> {
    match (channel.id().parse::<B256>(), kept(state)) {
        (Ok(id), Some(kept)) => Ok((id, kept)),
        _ => Err(Fault::new("a channel's record is of another version")),
    }
}

async fn on_chain(rail: &TempoSession, id: B256) -> Result<OnChain, Fault> {
    let seen = rail.states.now(id).await;
    seen.map_err(|error| Fault::unavailable("reading a channel's state").caused_by(error))
}

fn observed(seen: &OnChain) -> Observed {
    Observed::default()
        .settled(Amount::new(seen.settled))
        .close_requested(seen.is_closing())
}

/// What is to be done with a channel between requests.
pub(super) async fn upkeep(
    rail: &TempoSession,
    channel: &ChannelId,
    state: &ChannelState,
    due: Due,
) -> Result<Upkeep<SessionOrder>, Fault> {
    let (id, kept) = read(channel, state)?;
    let on_chain = on_chain(rail, id).await?;
    if on_chain.deposit == 0 {
        return Ok(gone(state, due));
    }
    let upkeep = match due {
        Due::Settle if kept.voucher.cumulative.get() > on_chain.settled => {
            let order = rail
                .operator()?
                .settle(rail, id, &kept.descriptor, &kept.voucher);
            Upkeep::settle(kept.voucher.cumulative, order.await?)
        }
        // Closed here and not there: what was put in after the close goes back by another one.
        Due::Idle | Due::Owed => {
            let capture = state.spent.get().max(on_chain.settled);
            let voucher = &kept.voucher;
            let order =
                rail.operator()?
                    .close(rail, id, &kept.descriptor, voucher, Amount::new(capture));
            let order = order.await?;
            match due {
                Due::Idle => Upkeep::close(closing(state, capture), Some(order)),
                _ => Upkeep::refund(state.unaccounted(), Some(order)),
            }
        }
        _ => Upkeep::nothing(),
    };
    Ok(upkeep.observed(observed(&on_chain)))
}

/// A channel of which the chain knows nothing any more. A node may be behind, so that alone does
/// not end a channel that nobody has asked to close.
fn gone(state: &ChannelState, due: Due) -> Upkeep<SessionOrder> {
    match due {
        Due::Owed => Upkeep::refund(state.unaccounted(), None),
        _ if state.close_requested => Upkeep::nothing().observed(Observed::default().closed()),
        _ => Upkeep::nothing(),
    }
}
