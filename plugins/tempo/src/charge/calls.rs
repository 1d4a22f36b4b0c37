//! The calls of a payment.

use alloy::primitives::{Address, Bytes, U256};

use crate::{chain::Transfer, charge::swap::Swap};

/// The transfers of a payment, and buying their token first.
#[derive(Debug)]
pub(crate) struct Transfers {
    pub(crate) transfers: Vec<Transfer>,
    pub(crate) swap: Option<Swap>,
}

/// A call of a token's contract, or of the exchange that sells it, without a native value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenCall {
    /// The token, or the exchange.
    pub to: Address,
    /// ABI-encoded, selector first.
    pub input: Bytes,
}

impl Transfers {
    /// All calls, in their order.
    pub(crate) fn calls(&self) -> Vec<TokenCall> {
        let call = |transfer: &Transfer| TokenCall {
            to: transfer.token,
            input: transfer.input(),
        };
        let swap = self.swap.map(Swap::calls).into_iter().flatten();
        swap.chain(self.transfers.iter().map(call)).collect()
    }

    /// The token that the account gives.
    pub(crate) fn pays_in(&self) -> Option<Address> {
        let paid = self.transfers.last().map(|payment| payment.token);
        self.swap.map(|swap| swap.token_in).or(paid)
    }

    /// The most that the account gives of a token.
    pub(crate) fn takes(&self, token: Address) -> U256 {
        match self.swap {
            Some(swap) if swap.token_in == token => U256::from(swap.most),
            Some(_) => U256::ZERO,
            None => {
                let all = self.transfers.iter().filter(|made| made.token == token);
                all.fold(U256::ZERO, |sum, made| sum.saturating_add(made.amount))
            }
        }
    }
}
