//! The transactions that fund channels: exactly one call of the reserve. No I/O.

use alloy::{
    primitives::{Address, B256, Bytes, TxKind},
    sol_types::SolCall,
};
use farebox_core::Rejection;
use serde::{Deserialize, Serialize};
use tempo_contracts::precompiles::ITIP20ChannelReserve::{
    ChannelClosed, ChannelOpened, Settled, TopUp, openCall, topUpCall,
};
use tempo_primitives::TempoTransaction;

use super::channel::{Descriptor, u96};
use crate::chain::Receipt;

fn no(detail: impl Into<String>) -> Rejection {
    Rejection::verification(detail)
}

/// The one call of a transaction, if it is to `escrow`.
fn only_call(tx: &TempoTransaction, escrow: Address) -> Result<&Bytes, Rejection> {
    let [call] = tx.calls.as_slice() else {
        let calls = tx.calls.len();
        return Err(no(format!(
            "the transaction has {calls} calls; it must have one, of the channel reserve"
        )));
    };
    if call.to != TxKind::Call(escrow) {
        return Err(no(format!(
            "the transaction does not call the channel reserve {escrow}"
        )));
    }
    if !call.value.is_zero() {
        return Err(no(
            "the call carries a native value, which Tempo does not have",
        ));
    }
    Ok(&call.input)
}

/// One call, one encoding: no bytes after the arguments, no dirty padding.
fn decode<C: SolCall>(input: &Bytes, name: &str) -> Result<C, Rejection> {
    let call = C::abi_decode(input).map_err(|_| {
        no(format!(
            "the transaction's call is not the reserve's {name}"
        ))
    })?;
    if call.abi_encode() != **input {
        return Err(no(
            "the call's arguments are not in their canonical encoding",
        ));
    }
    Ok(call)
}

/// What a transaction of `sender`, known to the chain by `unique`, opens: the channel, whatever the
/// payload says of it, and its deposit.
///
/// # Errors
/// If it does anything else.
pub(super) fn opens(
    tx: &TempoTransaction,
    escrow: Address,
    sender: Address,
    unique: B256,
) -> Result<(Descriptor, u128), Rejection> {
    let call: openCall = decode(only_call(tx, escrow)?, "open")?;
    let descriptor = Descriptor {
        payer: sender,
        payee: call.payee,
        operator: call.operator,
        token: call.token,
        salt: call.salt,
        authorized_signer: call.authorizedSigner,
        expiring_nonce_hash: unique,
    };
    Ok((descriptor, call.deposit.to()))
}

/// Checks that a transaction of `sender` puts `additional` into a channel.
///
/// # Errors
/// If it does anything else.
pub(super) fn tops_up(
    tx: &TempoTransaction,
    escrow: Address,
    sender: Address,
    descriptor: &Descriptor,
    additional: u128,
) -> Result<(), Rejection> {
    let call: topUpCall = decode(only_call(tx, escrow)?, "topUp")?;
    if !descriptor.is(&call.descriptor) {
        return Err(no("the transaction tops up another channel"));
    }
    if call.additionalDeposit != u96(additional) {
        let (is, said) = (call.additionalDeposit, additional);
        return Err(no(format!(
            "the transaction adds {is} base units, the payload says {said}"
        )));
    }
    if additional == 0 {
        return Err(no("a top-up of nothing adds nothing"));
    }
    if sender != descriptor.payer {
        return Err(no("the transaction is not signed by the channel's payer"));
    }
    Ok(())
}

/// What the reserve must have logged for an order to be carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Moved {
    pub(crate) escrow: Address,
    pub(crate) channel: B256,
    pub(crate) how: How,
}

/// Amounts in base units, as decimal text where they are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum How {
    /// With this deposit.
    Opened(farebox_wire::Amount),
    /// By this much.
    ToppedUp(farebox_wire::Amount),
    /// Up to this cumulative amount.
    Settled(farebox_wire::Amount),
    /// With this much of it for the payee.
    Closed(farebox_wire::Amount),
}

impl Moved {
    /// Whether the receipt has that log, among those of other channels.
    pub(crate) fn is_shown(&self, receipt: &Receipt) -> bool {
        let Self {
            escrow, channel, ..
        } = *self;
        match self.how {
            How::Opened(deposit) => receipt
                .events::<ChannelOpened>(escrow)
                .any(|event| event.channelId == channel && event.deposit == u96(deposit.get())),
            How::ToppedUp(more) => receipt.events::<TopUp>(escrow).any(|event| {
                event.channelId == channel && event.additionalDeposit == u96(more.get())
            }),
            How::Settled(to) => receipt
                .events::<Settled>(escrow)
                .any(|event| event.channelId == channel && event.newSettled == u96(to.get())),
            How::Closed(captured) => receipt.events::<ChannelClosed>(escrow).any(|event| {
                event.channelId == channel && event.settledToPayee == u96(captured.get())
            }),
        }
    }
}
