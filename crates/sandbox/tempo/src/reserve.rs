//! The channel reserve (TIP-1034): a payer locks a deposit, the payee or its operator cashes
//! cumulative vouchers signed off chain, and what is left goes back.
//!
//! A channel is known by what it was opened with and by the transaction that opened it, so that no
//! two transactions open the same one. A deposit needs no approval.

use alloy::{
    primitives::{Address, B256, Bytes, U256, aliases::U96},
    sol_types::SolCall,
};
use tempo_contracts::precompiles::{
    ITIP20,
    ITIP20ChannelReserve::{
        AmountExceedsDeposit, AmountNotIncreasing, CLOSE_GRACE_PERIODCall, CaptureAmountInvalid,
        Channel, ChannelAlreadyExists, ChannelClosed, ChannelDescriptor, ChannelNotFound,
        ChannelOpened, ChannelState, CloseNotReady, CloseRequestCancelled, CloseRequested,
        DepositOverflow, ExpiringNonceHashNotSet, ITIP20ChannelReserveCalls as Calls, InvalidPayee,
        InvalidSignature, NotPayeeOrOperator, NotPayer, Settled, TopUp, VOUCHER_TYPEHASHCall,
        ZeroDeposit, closeCall, computeChannelIdCall, domainSeparatorCall, getChannelCall,
        getChannelStateCall, getChannelStatesBatchCall, getVoucherDigestCall, openCall,
        requestCloseCall, settleCall, storageCreditsCall, topUpCall, withdrawCall,
    },
    TIP20_CHANNEL_RESERVE_ADDRESS as RESERVE,
};
use tempo_primitives::{TempoAddressExt, is_tip20_prefix};

use crate::{
    contracts::{CallResult, Env, Failure, decode},
    ledger::Slot,
    tip20,
    voucher::{self, Domain},
};

/// Calls the reserve on behalf of `caller`.
pub(crate) fn call(env: &mut Env<'_>, caller: Address, input: &[u8]) -> CallResult {
    match decode::<Calls>(input)? {
        Calls::open(c) => returns::<openCall>(open(env, caller, &c)?),
        Calls::topUp(c) => top_up(env, caller, &c).map(nothing),
        Calls::settle(c) => settle(env, caller, &c).map(nothing),
        Calls::close(c) => close(env, caller, &c).map(nothing),
        Calls::requestClose(c) => request_close(env, caller, &c).map(nothing),
        Calls::withdraw(c) => withdraw(env, caller, &c).map(nothing),
        view => read(env, view),
    }
}

fn read(env: &mut Env<'_>, call: Calls) -> CallResult {
    let domain = Domain::of(env.setting.chain_id);
    match call {
        Calls::getChannel(getChannelCall { descriptor }) => {
            let state = load(env, domain.channel_id(&descriptor))?;
            returns::<getChannelCall>(Channel { descriptor, state })
        }
        Calls::getChannelState(c) => returns::<getChannelStateCall>(load(env, c.channelId)?),
        Calls::getChannelStatesBatch(c) => {
            let states: Result<_, _> = c.channelIds.iter().map(|id| load(env, *id)).collect();
            returns::<getChannelStatesBatchCall>(states?)
        }
        Calls::computeChannelId(c) => {
            returns::<computeChannelIdCall>(domain.channel_id(&ChannelDescriptor {
                payer: c.payer,
                payee: c.payee,
                operator: c.operator,
                token: c.token,
                salt: c.salt,
                authorizedSigner: c.authorizedSigner,
                expiringNonceHash: c.expiringNonceHash,
            }))
        }
        Calls::getVoucherDigest(c) => {
            returns::<getVoucherDigestCall>(domain.voucher_digest(c.channelId, c.cumulativeAmount))
        }
        Calls::domainSeparator(_) => returns::<domainSeparatorCall>(domain.separator()),
        Calls::storageCredits(c) => {
            let credits = env.read(Slot::ChannelCredits { payer: c.payer })?;
            returns::<storageCreditsCall>(credits.saturating_to())
        }
        Calls::CLOSE_GRACE_PERIOD(_) => returns::<CLOSE_GRACE_PERIODCall>(env.setting.close_grace),
        Calls::VOUCHER_TYPEHASH(_) => returns::<VOUCHER_TYPEHASHCall>(voucher::typehash()),
        // What changes state was taken by the caller.
        _ => Err(Failure::Revert(Bytes::new())),
    }
}

fn open(env: &mut Env<'_>, payer: Address, call: &openCall) -> Result<B256, Failure> {
    let unreachable =
        call.payee.is_virtual() && (call.operator.is_zero() || call.operator.is_virtual());
    if call.payee.is_zero() || is_tip20_prefix(call.payee) || unreachable {
        return Err(Failure::error(InvalidPayee {}));
    }
    if !is_tip20_prefix(call.token) {
        return Err(Failure::error(ITIP20::InvalidToken {}));
    }
    if call.deposit.is_zero() {
        return Err(Failure::error(ZeroDeposit {}));
    }
    if env.context.is_zero() {
        return Err(Failure::error(ExpiringNonceHashNotSet {}));
    }
    let descriptor = ChannelDescriptor {
        payer,
        payee: call.payee,
        operator: call.operator,
        token: call.token,
        salt: call.salt,
        authorizedSigner: call.authorizedSigner,
        expiringNonceHash: env.context,
    };
    let id = Domain::of(env.setting.chain_id).channel_id(&descriptor);
    // Closing and opening again within one transaction would give two channels one id.
    if !load(env, id)?.deposit.is_zero() || !env.opened.insert(id) {
        return Err(Failure::error(ChannelAlreadyExists {}));
    }
    tip20::move_for_reserve(env, call.token, payer, RESERVE, call.deposit)?;
    let credits = Slot::ChannelCredits { payer };
    let reusable = env.read(credits)?;
    let state = ChannelState {
        settled: U96::ZERO,
        deposit: call.deposit,
        closeRequestedAt: 0,
    };
    if reusable.is_zero() {
        store(env, id, &state)?;
    } else {
        env.write(credits, reusable - U256::ONE)?;
        env.reuse(Slot::Channel { id }, pack(&state))?;
    }
    env.log(
        RESERVE,
        ChannelOpened {
            channelId: id,
            payer,
            payee: call.payee,
            operator: call.operator,
            token: call.token,
            authorizedSigner: call.authorizedSigner,
            salt: call.salt,
            expiringNonceHash: env.context,
            deposit: call.deposit,
        },
    )?;
    Ok(id)
}

fn top_up(env: &mut Env<'_>, caller: Address, call: &topUpCall) -> Result<(), Failure> {
    let (id, mut state) = existing(env, &call.descriptor)?;
    let ChannelDescriptor { payer, payee, .. } = call.descriptor;
    only_payer(caller, &call.descriptor)?;
    let cancels = state.closeRequestedAt != 0;
    if call.additionalDeposit.is_zero() && !cancels {
        return Ok(());
    }
    state.deposit = state
        .deposit
        .checked_add(call.additionalDeposit)
        .ok_or_else(|| Failure::error(DepositOverflow {}))?;
    if !call.additionalDeposit.is_zero() {
        let token = call.descriptor.token;
        tip20::move_for_reserve(env, token, payer, RESERVE, call.additionalDeposit)?;
    }
    state.closeRequestedAt = 0;
    store(env, id, &state)?;
    if cancels {
        let event = CloseRequestCancelled {
            channelId: id,
            payer,
            payee,
        };
        env.log(RESERVE, event)?;
    }
    let event = TopUp {
        channelId: id,
        payer,
        payee,
        additionalDeposit: call.additionalDeposit,
        newDeposit: state.deposit,
    };
    env.log(RESERVE, event)
}

fn settle(env: &mut Env<'_>, caller: Address, call: &settleCall) -> Result<(), Failure> {
    let (id, mut state) = existing(env, &call.descriptor)?;
    only_payee_or_operator(caller, &call.descriptor)?;
    let ChannelDescriptor {
        payer,
        payee,
        token,
        ..
    } = call.descriptor;
    if call.cumulativeAmount > state.deposit {
        return Err(Failure::error(AmountExceedsDeposit {}));
    }
    let delta = match call.cumulativeAmount.checked_sub(state.settled) {
        Some(delta) if !delta.is_zero() => delta,
        _ => return Err(Failure::error(AmountNotIncreasing {})),
    };
    check_voucher(
        env,
        &call.descriptor,
        id,
        call.cumulativeAmount,
        &call.signature,
    )?;
    tip20::move_for_reserve(env, token, RESERVE, payee, delta)?;
    state.settled = call.cumulativeAmount;
    store(env, id, &state)?;
    let event = Settled {
        channelId: id,
        payer,
        payee,
        cumulativeAmount: call.cumulativeAmount,
        deltaPaid: delta,
        newSettled: state.settled,
    };
    env.log(RESERVE, event)
}

fn close(env: &mut Env<'_>, caller: Address, call: &closeCall) -> Result<(), Failure> {
    let (id, state) = existing(env, &call.descriptor)?;
    only_payee_or_operator(caller, &call.descriptor)?;
    let capture = call.captureAmount;
    let delta = match capture.checked_sub(state.settled) {
        Some(delta) if capture <= call.cumulativeAmount => delta,
        _ => return Err(Failure::error(CaptureAmountInvalid {})),
    };
    if capture > state.deposit {
        return Err(Failure::error(AmountExceedsDeposit {}));
    }
    // What was settled before has been proven then.
    if !delta.is_zero() {
        check_voucher(
            env,
            &call.descriptor,
            id,
            call.cumulativeAmount,
            &call.signature,
        )?;
    }
    finish(env, &call.descriptor, id, &state, delta)
}

fn request_close(
    env: &mut Env<'_>,
    caller: Address,
    call: &requestCloseCall,
) -> Result<(), Failure> {
    let (id, mut state) = existing(env, &call.descriptor)?;
    only_payer(caller, &call.descriptor)?;
    if state.closeRequestedAt != 0 {
        return Ok(());
    }
    state.closeRequestedAt = u32::try_from(env.setting.now).unwrap_or(u32::MAX);
    store(env, id, &state)?;
    let event = CloseRequested {
        channelId: id,
        payer: call.descriptor.payer,
        payee: call.descriptor.payee,
        closeGraceEnd: U256::from(env.setting.now.saturating_add(env.setting.close_grace)),
    };
    env.log(RESERVE, event)
}

fn withdraw(env: &mut Env<'_>, caller: Address, call: &withdrawCall) -> Result<(), Failure> {
    let (id, state) = existing(env, &call.descriptor)?;
    only_payer(caller, &call.descriptor)?;
    let requested = u64::from(state.closeRequestedAt);
    if requested == 0 || env.setting.now < requested.saturating_add(env.setting.close_grace) {
        return Err(Failure::error(CloseNotReady {}));
    }
    finish(env, &call.descriptor, id, &state, U96::ZERO)
}

/// Pays the payee `delta` more, the payer the rest, and forgets the channel.
fn finish(
    env: &mut Env<'_>,
    descriptor: &ChannelDescriptor,
    id: B256,
    state: &ChannelState,
    delta: U96,
) -> Result<(), Failure> {
    let ChannelDescriptor {
        payer,
        payee,
        token,
        ..
    } = *descriptor;
    let captured = state.settled.saturating_add(delta);
    let refund = state.deposit.saturating_sub(captured);
    for (to, amount) in [(payee, delta), (payer, refund)] {
        if !amount.is_zero() {
            tip20::move_for_reserve(env, token, RESERVE, to, amount)?;
        }
    }
    env.write(Slot::Channel { id }, U256::ZERO)?;
    let credits = Slot::ChannelCredits { payer };
    let more = env.read(credits)?.saturating_add(U256::ONE);
    env.reuse(credits, more)?;
    let event = ChannelClosed {
        channelId: id,
        payer,
        payee,
        settledToPayee: captured,
        refundedToPayer: refund,
    };
    env.log(RESERVE, event)
}

/// The channel that was opened as described.
fn existing(
    env: &mut Env<'_>,
    descriptor: &ChannelDescriptor,
) -> Result<(B256, ChannelState), Failure> {
    let id = Domain::of(env.setting.chain_id).channel_id(descriptor);
    let state = load(env, id)?;
    if state.deposit.is_zero() {
        return Err(Failure::error(ChannelNotFound {}));
    }
    Ok((id, state))
}

fn only_payer(caller: Address, descriptor: &ChannelDescriptor) -> Result<(), Failure> {
    if caller == descriptor.payer {
        Ok(())
    } else {
        Err(Failure::error(NotPayer {}))
    }
}

fn only_payee_or_operator(caller: Address, descriptor: &ChannelDescriptor) -> Result<(), Failure> {
    let operator = descriptor.operator;
    if caller == descriptor.payee || (!operator.is_zero() && caller == operator) {
        Ok(())
    } else {
        Err(Failure::error(NotPayeeOrOperator {}))
    }
}

fn check_voucher(
    env: &mut Env<'_>,
    descriptor: &ChannelDescriptor,
    id: B256,
    cumulative: U96,
    signature: &Bytes,
) -> Result<(), Failure> {
    let digest = Domain::of(env.setting.chain_id).voucher_digest(id, cumulative);
    let signed = voucher::Signed::parse(signature);
    env.charge(signed.as_ref().map_or(0, voucher::Signed::gas))?;
    let expected = if descriptor.authorizedSigner.is_zero() {
        descriptor.payer
    } else {
        descriptor.authorizedSigner
    };
    if signed.and_then(|signed| signed.signer(&digest)) == Some(expected) {
        Ok(())
    } else {
        Err(Failure::error(InvalidSignature {}))
    }
}

/// A channel is one slot: settled in the low 96 bits, the deposit above, then the request's time.
fn pack(state: &ChannelState) -> U256 {
    U256::from(state.settled)
        | U256::from(state.deposit) << 96
        | U256::from(state.closeRequestedAt) << 192
}

fn load(env: &mut Env<'_>, id: B256) -> Result<ChannelState, Failure> {
    let slot = env.read(Slot::Channel { id })?;
    Ok(ChannelState {
        settled: slot.wrapping_to(),
        deposit: (slot >> 96_u8).wrapping_to(),
        closeRequestedAt: (slot >> 192_u8).wrapping_to(),
    })
}

fn store(env: &mut Env<'_>, id: B256, state: &ChannelState) -> Result<(), Failure> {
    env.write(Slot::Channel { id }, pack(state))
}

fn returns<C: SolCall>(value: C::Return) -> CallResult {
    Ok(C::abi_encode_returns(&value).into())
}

fn nothing((): ()) -> Bytes {
    Bytes::new()
}
