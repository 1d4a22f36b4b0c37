//! What the server itself sends: settling and closing, by the recipient's key or an operator's.

use std::{fmt, num::NonZeroU64, sync::Arc};

use alloy::{
    primitives::{Address, B256, Bytes, TxKind, U256},
    signers::Signer,
    sol_types::SolCall,
};
use farebox_core::{ChannelId, ChannelState, Due, Fault, Observed, Upkeep};
use farebox_proof::sign_hash;
use farebox_wire::Amount;
use tempo_contracts::precompiles::ITIP20ChannelReserve::{closeCall, settleCall};
use tempo_primitives::{
    TempoTransaction,
    transaction::{Call, TEMPO_EXPIRING_NONCE_KEY, TempoSignature},
};

use super::{
    SessionOrder, TempoSession,
    channel::{Descriptor, SignedVoucher, u96},
    kept,
    tx::{How, Moved},
    verify::closing,
};
use crate::charge::{
    Order,
    build::{DEAREST_GAS, LEAST_GAS, end_of_window_from_now},
    tx::{SignedTx, request},
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
        let call = settleCall {
            descriptor: descriptor.abi(),
            cumulativeAmount: u96(voucher.cumulative.get()),
            signature: voucher.signature.clone(),
        };
        let input = call.abi_encode().into();
        let how = How::Settled(voucher.cumulative);
        self.order(rail, channel, descriptor.token, input, how)
            .await
    }

    /// Signs a transaction of one call. It has an expiring nonce, so any number of processes may
    /// sign with one key, and one that was never included is final soon after its window.
    async fn order(
        &self,
        rail: &TempoSession,
        channel: B256,
        token: Address,
        input: Bytes,
        how: How,
    ) -> Result<SessionOrder, Fault> {
        let chain = &rail.base.chain;
        let escrow = rail.domain.escrow();
        let end = end_of_window_from_now();
        let mut tx = TempoTransaction {
            chain_id: chain.id(),
            fee_token: self.fee_token.or(Some(token)),
            calls: vec![Call {
                to: TxKind::Call(escrow),
                value: U256::ZERO,
                input,
            }],
            nonce_key: TEMPO_EXPIRING_NONCE_KEY,
            valid_before: NonZeroU64::new(end),
            ..TempoTransaction::default()
        };
        let simulation = request(self.signer.address(), &tx, false);
        let (gas, price) = tokio::join!(chain.estimate(&simulation), chain.gas_price());
        let unavailable = |error: crate::rpc::RpcError| {
            Fault::unavailable("preparing a session's settlement").caused_by(error)
        };
        let (gas, price) = (gas.map_err(unavailable)?, price.map_err(unavailable)?);
        if price > DEAREST_GAS {
            let why = format!("gas costs {price} attodollars; {DEAREST_GAS} are paid");
            return Err(Fault::unavailable("the network fee is too high").caused_by(why));
        }
        tx.gas_limit = gas.saturating_add(gas / 5).max(LEAST_GAS);
        tx.max_fee_per_gas = price.saturating_mul(2);
        tx.max_priority_fee_per_gas = price / 10;
        let signature = sign_hash(self.signer.as_ref(), &tx.signature_hash()).await?;
        let signed = SignedTx::of(tx.into_signed(TempoSignature::from(signature)));
        let signed =
            signed.map_err(|why| Fault::new("signing a settlement").caused_by(why.detail))?;
        let order = Order {
            raw: signed.raw,
            hash: signed.hash,
            valid_before: end,
            transfers: Vec::new(),
            sponsored: false,
            share: None,
            moved: None,
        };
        let moved = Moved {
            escrow,
            channel,
            how,
        };
        Ok(SessionOrder::new(order, moved))
    }
}

/// What is to be done with a channel between requests.
pub(super) async fn upkeep(
    rail: &TempoSession,
    channel: &ChannelId,
    state: &ChannelState,
    due: Due,
) -> Result<Upkeep<SessionOrder>, Fault> {
    let (Ok(id), Some(kept)) = (channel.id().parse::<B256>(), kept(state)) else {
        return Err(Fault::new("a channel's record is of another version"));
    };
    let on_chain = rail.states.now(id).await;
    let on_chain = on_chain
        .map_err(|error| Fault::unavailable("reading a channel's state").caused_by(error))?;
    if on_chain.deposit == 0 {
        return Ok(gone(state, due));
    }
    let observed = Observed::default()
        .settled(Amount::new(on_chain.settled))
        .close_requested(on_chain.is_closing());
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
    Ok(upkeep.observed(observed))
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
