//! TIP-20 tokens: the payment half of the interface, with the real events and errors. Issuance,
//! roles, rewards and permits are not here and revert as unknown functions.

use alloy::{
    primitives::{Address, B256, Bytes, U256, aliases::U96},
    sol_types::SolCall,
};
use tempo_contracts::precompiles::{
    DECIMALS, ITIP20,
    ITIP20::{ITIP20Calls as Calls, *},
    USD_CURRENCY,
};
use tempo_primitives::is_tip20_prefix;

use crate::{
    contracts::{CallResult, Env, Failure, decode, unknown_selector},
    keychain,
    ledger::{PATH_USD, Slot},
};

/// Calls the token at `token` on behalf of `caller`.
pub(crate) fn call(env: &mut Env<'_>, token: Address, caller: Address, input: &[u8]) -> CallResult {
    if env.ledger.token(token).is_none() {
        return Err(Failure::error(Uninitialized {}));
    }
    match decode::<Calls>(input)? {
        Calls::transfer(c) => {
            keychain::spend(env, caller, token, c.amount)?;
            transfer(env, token, caller, c.to, c.amount, None)?;
            returns::<transferCall>(true)
        }
        Calls::transferWithMemo(c) => {
            keychain::spend(env, caller, token, c.amount)?;
            transfer(env, token, caller, c.to, c.amount, Some(c.memo))?;
            Ok(Bytes::new())
        }
        Calls::transferFrom(c) => {
            spend(env, token, caller, c.from, c.to, c.amount)?;
            transfer(env, token, c.from, c.to, c.amount, None)?;
            returns::<transferFromCall>(true)
        }
        Calls::transferFromWithMemo(c) => {
            spend(env, token, caller, c.from, c.to, c.amount)?;
            transfer(env, token, c.from, c.to, c.amount, Some(c.memo))?;
            returns::<transferFromWithMemoCall>(true)
        }
        Calls::approve(c) => {
            let slot = Slot::Allowance {
                token,
                owner: caller,
                spender: c.spender,
            };
            let more = c.amount.saturating_sub(env.ledger.get(slot));
            if !more.is_zero() {
                keychain::spend(env, caller, token, more)?;
            }
            env.write(slot, c.amount)?;
            env.log(
                token,
                Approval {
                    owner: caller,
                    spender: c.spender,
                    amount: c.amount,
                },
            )?;
            returns::<approveCall>(true)
        }
        view => read(env, token, view, input),
    }
}

fn read(env: &mut Env<'_>, token: Address, call: Calls, input: &[u8]) -> CallResult {
    let Some(info) = env.ledger.token(token).cloned() else {
        return Err(Failure::error(Uninitialized {}));
    };
    match call {
        Calls::balanceOf(c) => {
            let balance = env.read(Slot::Balance {
                token,
                owner: c.account,
            })?;
            returns::<balanceOfCall>(balance)
        }
        Calls::allowance(c) => {
            let allowance = env.read(Slot::Allowance {
                token,
                owner: c.owner,
                spender: c.spender,
            })?;
            returns::<allowanceCall>(allowance)
        }
        Calls::totalSupply(_) => {
            let supply = env.read(Slot::Supply { token })?;
            returns::<totalSupplyCall>(supply)
        }
        Calls::name(_) => returns::<nameCall>(info.name.to_owned()),
        Calls::symbol(_) => returns::<symbolCall>(info.symbol.to_owned()),
        Calls::decimals(_) => returns::<decimalsCall>(DECIMALS),
        Calls::currency(_) => returns::<currencyCall>(USD_CURRENCY.to_owned()),
        Calls::paused(_) => returns::<pausedCall>(false),
        Calls::quoteToken(_) => returns::<quoteTokenCall>(if token == PATH_USD {
            Address::ZERO
        } else {
            PATH_USD
        }),
        Calls::supplyCap(_) => returns::<supplyCapCall>(U256::from(u128::MAX)),
        _ => Err(unknown_selector(input)),
    }
}

fn returns<C: SolCall>(value: C::Return) -> CallResult {
    Ok(C::abi_encode_returns(&value).into())
}

/// Moves `amount` and logs it; a memo adds `TransferWithMemo` after the plain `Transfer`.
fn transfer(
    env: &mut Env<'_>,
    token: Address,
    from: Address,
    to: Address,
    amount: U256,
    memo: Option<B256>,
) -> Result<(), Failure> {
    check_recipient(to)?;
    let source = Slot::Balance { token, owner: from };
    let available = env.read(source)?;
    let Some(rest) = available.checked_sub(amount) else {
        return Err(Failure::error(InsufficientBalance {
            available,
            required: amount,
            token,
        }));
    };
    env.write(source, rest)?;
    let target = Slot::Balance { token, owner: to };
    // Supply fits u128, so the sum of two balances cannot overflow.
    let sum = env.ledger.get(target).saturating_add(amount);
    env.write(target, sum)?;
    env.log(token, Transfer { from, to, amount })?;
    match memo {
        Some(memo) => env.log(
            token,
            TransferWithMemo {
                from,
                to,
                amount,
                memo,
            },
        ),
        None => Ok(()),
    }
}

/// Moves `amount` into or out of the channel reserve, which needs no approval.
pub(crate) fn move_for_reserve(
    env: &mut Env<'_>,
    token: Address,
    from: Address,
    to: Address,
    amount: U96,
) -> Result<(), Failure> {
    if env.ledger.token(token).is_none() {
        return Err(Failure::error(Uninitialized {}));
    }
    keychain::spend(env, from, token, U256::from(amount))?;
    transfer(env, token, from, to, U256::from(amount), None)
}

/// Moves what `owner` lets `spender` take to it.
pub(crate) fn take(
    env: &mut Env<'_>,
    spender: Address,
    token: Address,
    owner: Address,
    amount: U256,
) -> Result<(), Failure> {
    if env.ledger.token(token).is_none() {
        return Err(Failure::error(Uninitialized {}));
    }
    spend(env, token, spender, owner, spender, amount)?;
    transfer(env, token, owner, spender, amount, None)
}

/// Moves what a contract holds.
pub(crate) fn give(
    env: &mut Env<'_>,
    token: Address,
    from: Address,
    to: Address,
    amount: U256,
) -> Result<(), Failure> {
    transfer(env, token, from, to, amount, None)
}

/// Uses up the allowance of `spender`; an allowance of the maximum is never used up.
fn spend(
    env: &mut Env<'_>,
    token: Address,
    spender: Address,
    owner: Address,
    to: Address,
    amount: U256,
) -> Result<(), Failure> {
    check_recipient(to)?;
    let slot = Slot::Allowance {
        token,
        owner,
        spender,
    };
    let allowed = env.read(slot)?;
    let Some(rest) = allowed.checked_sub(amount) else {
        return Err(Failure::error(ITIP20::InsufficientAllowance {}));
    };
    if allowed == U256::MAX {
        Ok(())
    } else {
        env.write(slot, rest)
    }
}

/// Nobody, and no token, can be paid.
fn check_recipient(to: Address) -> Result<(), Failure> {
    if to.is_zero() || is_tip20_prefix(to) {
        return Err(Failure::error(InvalidRecipient {}));
    }
    Ok(())
}
