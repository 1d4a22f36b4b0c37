//! The exchange, as far as paying with another stablecoin goes: sell orders at par against pathUSD,
//! one maker for each token, and purchases of an exact amount out of them. Other ticks, bids, routes
//! through several pairs, and cancelling are not here.

use alloy::{
    primitives::{Address, U256, keccak256},
    sol_types::{SolCall, SolValue},
};
use tempo_contracts::precompiles::{
    IStablecoinDEX::{self, IStablecoinDEXCalls as Calls, *},
    STABLECOIN_DEX_ADDRESS as EXCHANGE,
};

use crate::{
    contracts::{CallResult, Env, Failure, decode, unknown_selector},
    ledger::{PATH_USD, Slot},
    tip20,
};

/// The least order, base units.
const LEAST: u128 = 100_000_000;

fn offered(base: Address) -> Slot {
    Slot::Offered { base }
}

/// Calls the exchange on behalf of `caller`.
pub(crate) fn call(env: &mut Env<'_>, caller: Address, input: &[u8]) -> CallResult {
    match decode::<Calls>(input)? {
        Calls::createPair(createPairCall { base }) => {
            if env.ledger.token(base).is_none() || base == PATH_USD {
                return Err(Failure::error(InvalidBaseToken {}));
            }
            let pair = Slot::Pair { base };
            if !env.read(pair)?.is_zero() {
                return Err(Failure::error(PairAlreadyExists {}));
            }
            env.write(pair, U256::from(1))?;
            let key = keccak256((base, PATH_USD).abi_encode());
            env.log(
                EXCHANGE,
                PairCreated {
                    key,
                    base,
                    quote: PATH_USD,
                },
            )?;
            Ok(createPairCall::abi_encode_returns(&key).into())
        }
        Calls::place(place) if !place.isBid && place.tick == 0 => {
            sell(env, caller, &place)?;
            Ok(placeCall::abi_encode_returns(&1).into())
        }
        Calls::quoteSwapExactAmountOut(quote) => {
            let amount = price(env, quote.tokenIn, quote.tokenOut, quote.amountOut)?;
            Ok(quoteSwapExactAmountOutCall::abi_encode_returns(&amount).into())
        }
        Calls::swapExactAmountOut(swap) => {
            let amount = buy(env, caller, &swap)?;
            Ok(swapExactAmountOutCall::abi_encode_returns(&amount).into())
        }
        Calls::balanceOf(balanceOfCall { user, token }) => {
            let held = env.read(Slot::Proceeds { user, token })?;
            Ok(balanceOfCall::abi_encode_returns(&held.saturating_to()).into())
        }
        _ => Err(unknown_selector(input)),
    }
}

fn sell(env: &mut Env<'_>, maker: Address, order: &placeCall) -> Result<(), Failure> {
    let base = order.token;
    if env.read(Slot::Pair { base })?.is_zero() {
        return Err(Failure::error(PairDoesNotExist {}));
    }
    if order.amount < LEAST {
        let amount = order.amount;
        return Err(Failure::error(BelowMinimumOrderSize { amount }));
    }
    let by = Slot::Maker { base };
    let other = Address::from_word(env.read(by)?.into());
    if !other.is_zero() && other != maker {
        return Err(Failure::error(Unauthorized {}));
    }
    env.write(by, maker.into_word().into())?;
    let amount = U256::from(order.amount);
    tip20::take(env, EXCHANGE, base, maker, amount)?;
    let slot = offered(base);
    let sum = env.read(slot)?.saturating_add(amount);
    env.write(slot, sum)
}

/// What is given for `amount`, at par.
fn price(
    env: &mut Env<'_>,
    token_in: Address,
    token_out: Address,
    amount: u128,
) -> Result<u128, Failure> {
    if token_in == token_out {
        return Err(Failure::error(IdenticalTokens {}));
    }
    if token_in != PATH_USD || env.read(Slot::Pair { base: token_out })?.is_zero() {
        return Err(Failure::error(PairDoesNotExist {}));
    }
    if env.read(offered(token_out))? < U256::from(amount) {
        return Err(Failure::error(InsufficientLiquidity {}));
    }
    Ok(amount)
}

fn buy(env: &mut Env<'_>, caller: Address, swap: &swapExactAmountOutCall) -> Result<u128, Failure> {
    let (token, base) = (swap.tokenIn, swap.tokenOut);
    let cost = price(env, token, base, swap.amountOut)?;
    if cost > swap.maxAmountIn {
        return Err(Failure::error(IStablecoinDEX::MaxInputExceeded {}));
    }
    tip20::take(env, EXCHANGE, token, caller, U256::from(cost))?;
    let user = Address::from_word(env.read(Slot::Maker { base })?.into());
    let proceeds = Slot::Proceeds { user, token };
    let sum = env.read(proceeds)?.saturating_add(U256::from(cost));
    env.write(proceeds, sum)?;
    let (slot, amount) = (offered(base), U256::from(swap.amountOut));
    let rest = env.read(slot)?.saturating_sub(amount);
    env.write(slot, rest)?;
    tip20::give(env, base, EXCHANGE, caller, amount)?;
    Ok(cost)
}
