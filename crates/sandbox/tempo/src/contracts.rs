//! What lives at which address. A precompile is a function from a call to bytes or a revert.

use std::collections::HashSet;

use alloy::{
    primitives::{Address, B256, Bytes, Log, U256},
    sol_types::{SolCall, SolError, SolInterface},
};
use tempo_contracts::precompiles::{
    ACCOUNT_KEYCHAIN_ADDRESS, IFeeManager, INonce, NONCE_PRECOMPILE_ADDRESS,
    STABLECOIN_DEX_ADDRESS, SYSTEM_PRECOMPILES, TIP_FEE_MANAGER_ADDRESS,
    TIP20_CHANNEL_RESERVE_ADDRESS, UnknownFunctionSelector,
};
use tempo_primitives::is_tip20_prefix;

use crate::{
    exchange, keychain,
    ledger::{Ledger, Slot},
    reserve, tip20,
};

/// Why a call did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// ABI-encoded error, possibly empty.
    Revert(Bytes),
    OutOfGas,
}

impl Failure {
    pub(crate) fn error(error: impl SolError) -> Self {
        Self::Revert(error.abi_encode().into())
    }
}

/// The result of one call: its return data.
pub(crate) type CallResult = Result<Bytes, Failure>;

/// What a running call is told of its chain and its block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting {
    pub(crate) chain_id: u64,
    /// Unix seconds.
    pub(crate) now: u64,
    /// Seconds between a payer's request to close a channel and its withdrawal.
    pub(crate) close_grace: u64,
}

/// Whose transaction it is, and which key signed it; zero is the account's own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Signer {
    pub(crate) account: Address,
    pub(crate) key: Address,
}

/// What a running call may touch.
#[derive(Debug)]
pub(crate) struct Env<'a> {
    pub(crate) ledger: &'a mut Ledger,
    pub(crate) setting: Setting,
    pub(crate) signer: Signer,
    /// The hash that tells the enclosing transaction from every other, whoever pays its fee.
    pub(crate) context: B256,
    /// Channels opened by the enclosing transaction.
    pub(crate) opened: HashSet<B256>,
    pub(crate) logs: Vec<Log>,
    pub(crate) gas_used: u64,
    pub(crate) gas_limit: u64,
}

/// Creating a state slot (TIP-1000), changing one, reading one, and one log: whole numbers near the
/// real schedule, so that limits estimated here are of the right size.
pub(crate) const SLOT_CREATE: u64 = 250_000;
pub(crate) const SLOT_UPDATE: u64 = 5_000;
const SLOT_READ: u64 = 2_100;
const LOG: u64 = 1_900;

impl Env<'_> {
    pub(crate) fn charge(&mut self, gas: u64) -> Result<(), Failure> {
        self.gas_used = self.gas_used.saturating_add(gas);
        if self.gas_used > self.gas_limit {
            Err(Failure::OutOfGas)
        } else {
            Ok(())
        }
    }

    pub(crate) fn read(&mut self, slot: Slot) -> Result<U256, Failure> {
        self.charge(SLOT_READ)?;
        Ok(self.ledger.get(slot))
    }

    pub(crate) fn write(&mut self, slot: Slot, value: U256) -> Result<(), Failure> {
        // On a chain in use the reserve always holds something of every token.
        let lived_in =
            matches!(slot, Slot::Balance { owner, .. } if owner == TIP20_CHANNEL_RESERVE_ADDRESS);
        let create = self.ledger.get(slot).is_zero() && !value.is_zero() && !lived_in;
        self.charge(if create { SLOT_CREATE } else { SLOT_UPDATE })?;
        self.ledger.set(slot, value);
        Ok(())
    }

    /// Writes a slot whose creation was paid for with one given back earlier.
    pub(crate) fn reuse(&mut self, slot: Slot, value: U256) -> Result<(), Failure> {
        self.charge(SLOT_UPDATE)?;
        self.ledger.set(slot, value);
        Ok(())
    }

    pub(crate) fn log(
        &mut self,
        address: Address,
        event: impl alloy::sol_types::SolEvent,
    ) -> Result<(), Failure> {
        self.charge(LOG)?;
        self.logs.push(Log {
            address,
            data: event.encode_log_data(),
        });
        Ok(())
    }
}

/// Runs one call. An address without code accepts anything and does nothing, as on the real chain.
pub(crate) fn dispatch(
    env: &mut Env<'_>,
    caller: Address,
    to: Address,
    input: &[u8],
) -> CallResult {
    match to {
        TIP_FEE_MANAGER_ADDRESS => fee_manager(env, caller, input),
        NONCE_PRECOMPILE_ADDRESS => nonce(env, input),
        ACCOUNT_KEYCHAIN_ADDRESS => keychain::call(env, caller, input),
        STABLECOIN_DEX_ADDRESS => exchange::call(env, caller, input),
        TIP20_CHANNEL_RESERVE_ADDRESS => reserve::call(env, caller, input),
        _ if is_tip20_prefix(to) => tip20::call(env, to, caller, input),
        _ if has_code(to) => Err(unknown_selector(input)),
        _ => Ok(Bytes::new()),
    }
}

/// Whether the address carries code.
pub(crate) fn has_code(address: Address) -> bool {
    is_tip20_prefix(address)
        || SYSTEM_PRECOMPILES
            .iter()
            .any(|(known, _)| *known == address)
}

/// A function this chain does not have: a known selector with bad arguments reverts without data.
pub(crate) fn unknown_selector(input: &[u8]) -> Failure {
    match input.first_chunk::<4>() {
        Some(selector) => Failure::error(UnknownFunctionSelector {
            selector: (*selector).into(),
        }),
        None => Failure::Revert(Bytes::new()),
    }
}

/// Decodes a call of the interface `I`, telling unknown functions from malformed arguments.
pub(crate) fn decode<I: SolInterface>(input: &[u8]) -> Result<I, Failure> {
    match input.first_chunk::<4>() {
        Some(selector) if I::valid_selector(*selector) => {
            I::abi_decode(input).map_err(|_| Failure::Revert(Bytes::new()))
        }
        _ => Err(unknown_selector(input)),
    }
}

fn fee_manager(env: &mut Env<'_>, caller: Address, input: &[u8]) -> CallResult {
    use IFeeManager::{IFeeManagerCalls as Calls, setUserTokenCall, userTokensCall};
    match decode::<Calls>(input)? {
        Calls::userTokens(userTokensCall { user }) => {
            let token = env.read(Slot::FeeToken { account: user })?;
            Ok(userTokensCall::abi_encode_returns(&Address::from_word(token.into())).into())
        }
        Calls::setUserToken(setUserTokenCall { token }) => {
            if env.ledger.token(token).is_none() {
                return Err(Failure::error(IFeeManager::InvalidToken {}));
            }
            env.write(Slot::FeeToken { account: caller }, token.into_word().into())?;
            env.log(
                TIP_FEE_MANAGER_ADDRESS,
                IFeeManager::UserTokenSet {
                    user: caller,
                    token,
                },
            )?;
            Ok(Bytes::new())
        }
        _ => Err(unknown_selector(input)),
    }
}

fn nonce(env: &mut Env<'_>, input: &[u8]) -> CallResult {
    let INonce::INonceCalls::getNonce(call) = decode::<INonce::INonceCalls>(input)?;
    if call.nonceKey.is_zero() {
        return Err(Failure::error(INonce::ProtocolNonceNotSupported {}));
    }
    let nonce = env.read(Slot::Nonce {
        account: call.account,
        key: call.nonceKey,
    })?;
    Ok(INonce::getNonceCall::abi_encode_returns(&nonce.saturating_to()).into())
}
