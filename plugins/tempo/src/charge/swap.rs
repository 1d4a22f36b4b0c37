//! Buying the token of a payment with another stablecoin, on the chain's own exchange and in the
//! payment's own transaction: an allowance, a purchase of exactly what is paid, the transfers.

use alloy::{
    primitives::{Address, Bytes, U256},
    sol_types::SolCall,
};
use farebox_core::Rejection;
use farebox_proof::terms;
use farebox_wire::Amount;
use tempo_contracts::precompiles::{IStablecoinDEX, ITIP20, STABLECOIN_DEX_ADDRESS};
use tempo_primitives::TempoTransaction;

use crate::{TokenCall, charge::legs::decode};

/// Basis points in one.
const WHOLE: u128 = 10_000;

/// What a wallet buys with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Buying {
    pub(crate) token: Address,
    /// How much dearer than one for one it may be, in basis points.
    pub(crate) slippage: u16,
}

/// One purchase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Swap {
    pub(crate) token_in: Address,
    /// The most that is given.
    pub(crate) most: u128,
    pub(crate) token_out: Address,
    /// Exactly what is bought.
    pub(crate) amount: u128,
}

impl Buying {
    /// The most that buying `amount` may cost, rounded up; `None` beyond what a number holds.
    pub(crate) fn most(self, amount: Amount) -> Option<Amount> {
        let more = amount.get().checked_mul(self.slippage.into())?;
        let most = amount.get().checked_add(more.div_ceil(WHOLE))?;
        Some(Amount::new(most))
    }
}

impl Swap {
    /// The calls that come before the transfers.
    pub(crate) fn calls(self) -> [TokenCall; 2] {
        let allow = ITIP20::approveCall {
            spender: STABLECOIN_DEX_ADDRESS,
            amount: U256::from(self.most),
        };
        let buy = IStablecoinDEX::swapExactAmountOutCall {
            tokenIn: self.token_in,
            tokenOut: self.token_out,
            amountOut: self.amount,
            maxAmountIn: self.most,
        };
        let call = |to, input: Vec<u8>| TokenCall {
            to,
            input: Bytes::from(input),
        };
        [
            call(self.token_in, allow.abi_encode()),
            call(STABLECOIN_DEX_ADDRESS, buy.abi_encode()),
        ]
    }

    /// What a call asks the exchange before anything is signed: what it takes for the amount now.
    pub(crate) fn quote(self) -> Bytes {
        let quote = IStablecoinDEX::quoteSwapExactAmountOutCall {
            tokenIn: self.token_in,
            tokenOut: self.token_out,
            amountOut: self.amount,
        };
        quote.abi_encode().into()
    }

    /// The exchange's answer.
    pub(crate) fn read_quote(word: &Bytes) -> Option<u128> {
        IStablecoinDEX::quoteSwapExactAmountOutCall::abi_decode_returns(word).ok()
    }

    /// The purchase at the front of a transaction, if there is one: with an allowance for exactly
    /// what it may cost.
    ///
    /// # Errors
    /// If it starts with an allowance and is none.
    pub(crate) fn of(tx: &TempoTransaction) -> Result<Option<Self>, Rejection> {
        let [approve, swap, ..] = tx.calls.as_slice() else {
            return Ok(None);
        };
        if !approve.input.starts_with(&ITIP20::approveCall::SELECTOR) {
            return Ok(None);
        }
        if !approve.value.is_zero() || !swap.value.is_zero() {
            return Err(no(
                "a call carries a native value, which Tempo does not have",
            ));
        }
        let (token_in, exchange) = (approve.to.to(), swap.to.to());
        let approve: ITIP20::approveCall = decode(&approve.input)?;
        let swap: IStablecoinDEX::swapExactAmountOutCall = decode(&swap.input)?;
        if exchange != Some(&STABLECOIN_DEX_ADDRESS) || approve.spender != STABLECOIN_DEX_ADDRESS {
            return Err(no("a swap goes through the chain's own exchange only"));
        }
        if token_in != Some(&swap.tokenIn) || approve.amount != U256::from(swap.maxAmountIn) {
            return Err(no("the allowance is not for what the swap may cost"));
        }
        if !terms::is_token(swap.tokenIn) {
            return Err(no("what is given in the swap is no TIP-20 token"));
        }
        Ok(Some(Self {
            token_in: swap.tokenIn,
            most: swap.maxAmountIn,
            token_out: swap.tokenOut,
            amount: swap.amountOut,
        }))
    }

    /// Whether it buys exactly what is paid.
    ///
    /// # Errors
    /// If not.
    pub(crate) fn buys(self, token: Address, total: U256) -> Result<(), Rejection> {
        if self.token_out != token || U256::from(self.amount) != total {
            return Err(no("the swap does not buy exactly what is paid"));
        }
        Ok(())
    }
}

fn no(detail: &str) -> Rejection {
    Rejection::verification(detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects: what may be given is never below what a share of a unit comes to, nor wraps.
    #[test]
    fn what_may_be_given_is_rounded_up() {
        let most = |slippage, amount| {
            let token = Address::ZERO;
            Buying { token, slippage }.most(Amount::new(amount))
        };
        assert_eq!(most(100, 10_000), Some(Amount::new(10_100)));
        assert_eq!(most(1, 1), Some(Amount::new(2)));
        assert_eq!(most(0, 7), Some(Amount::new(7)));
        assert_eq!(most(100, u128::MAX), None);
    }
}
