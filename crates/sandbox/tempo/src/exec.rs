//! Running a batch of calls: all or nothing, with gas paid in a stablecoin whether it succeeds or
//! not.

use std::collections::HashSet;

use alloy::primitives::{Address, B256, Bytes, Log, U256};
use alloy::sol_types::SolEvent;
use tempo_contracts::precompiles::{ITIP20::Transfer, TIP_FEE_MANAGER_ADDRESS};
use tempo_primitives::{is_tip20_prefix, transaction::calc_gas_balance_spending};

use crate::{
    contracts::{Env, Failure, Setting, Signer, dispatch},
    keychain::{self, Grant},
    ledger::{Ledger, PATH_USD, Slot},
    tx::Replay,
};

/// Base cost, expiring nonce, sequence already begun, sequence begun now (a new state slot), each
/// further call, and a byte of calldata.
const BASE: u64 = 21_000;
const EXPIRING: u64 = 13_000;
const SEQUENCE: u64 = 5_000;
const NEW_SEQUENCE: u64 = 250_000;
const CALL: u64 = 2_600;
const ZERO_BYTE: u64 = 4;
const BYTE: u64 = 16;

/// Who pays for gas, in what, and how much: `price` is in attodollars (1e-18 USD) per gas.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Payment {
    pub(crate) token: Address,
    pub(crate) payer: Address,
    pub(crate) price: u128,
}

/// A batch of calls ready to run.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) sender: Address,
    pub(crate) calls: Vec<(Address, Bytes)>,
    pub(crate) intrinsic: u64,
    pub(crate) gas_limit: u64,
    /// Tells this batch from every other; what a channel's id hashes.
    pub(crate) context: B256,
    /// The access key that signed; zero is the sender's own.
    pub(crate) key: Address,
    /// A key that the transaction adds before its calls.
    pub(crate) grant: Option<Grant>,
    /// Absent in a simulation that names no price.
    pub(crate) fee: Option<Payment>,
}

/// What came of it.
#[derive(Clone, Debug)]
pub(crate) struct Executed {
    /// Return data of the last call, or the failure of the one that stopped the batch.
    pub(crate) result: Result<Bytes, Failure>,
    pub(crate) gas_used: u64,
    pub(crate) logs: Vec<Log>,
}

/// Gas a transaction costs before its first call.
pub(crate) fn intrinsic_gas(
    ledger: &Ledger,
    sender: Address,
    replay: Replay,
    calls: &[(Address, Bytes)],
) -> u64 {
    let nonce = match replay {
        Replay::Expiring { .. } => EXPIRING,
        Replay::Sequence { key, .. } => match (ledger.nonce(sender, key), key.is_zero()) {
            (0, _) => NEW_SEQUENCE,
            (_, true) => 0,
            (_, false) => SEQUENCE,
        },
    };
    let data: u64 = calls
        .iter()
        .flat_map(|(_, input)| input.iter())
        .map(|byte| if *byte == 0 { ZERO_BYTE } else { BYTE })
        .sum();
    let more = CALL.saturating_mul(calls.len().saturating_sub(1) as u64);
    BASE.saturating_add(nonce)
        .saturating_add(data)
        .saturating_add(more)
}

/// The token fees are taken in: what the transaction names, else what the payer prefers, else the
/// one token all calls are about, else pathUSD.
pub(crate) fn resolve_fee_token(
    ledger: &Ledger,
    named: Option<Address>,
    payer: Address,
    calls: &[(Address, Bytes)],
) -> Address {
    let only = || {
        let first = calls
            .first()
            .map(|(to, _)| *to)
            .filter(|to| is_tip20_prefix(*to))?;
        calls.iter().all(|(to, _)| *to == first).then_some(first)
    };
    named
        .or_else(|| ledger.fee_token(payer))
        .or_else(only)
        .unwrap_or(PATH_USD)
}

/// Runs the batch. On failure every effect but the fee is undone.
///
/// The most the batch may cost is taken first and the rest given back, so a sender cannot spend in
/// a call what it owes for gas. The caller has checked that the payer can afford it.
pub(crate) fn run(ledger: &mut Ledger, setting: Setting, message: &Message) -> Executed {
    let most = message
        .fee
        .map(|fee| cost(fee, message.gas_limit))
        .unwrap_or_default();
    if let Some(fee) = message.fee {
        let slot = Slot::Balance {
            token: fee.token,
            owner: fee.payer,
        };
        let rest = ledger.get(slot).saturating_sub(most);
        ledger.set(slot, rest);
    }
    let (sender, key) = (message.sender, message.key);
    let mut env = Env {
        ledger,
        setting,
        signer: Signer {
            account: sender,
            key,
        },
        context: message.context,
        opened: HashSet::new(),
        logs: Vec::new(),
        gas_used: 0,
        gas_limit: u64::MAX,
    };
    let prepared = prepare(&mut env, message, most);
    // What a key did to be heard stays, whatever becomes of the calls.
    let (mark, heard) = (env.ledger.checkpoint(), env.logs.len());
    (env.gas_used, env.gas_limit) = (message.intrinsic, message.gas_limit);
    let mut result = prepared.and_then(|()| env.charge(0)).map(|()| Bytes::new());
    for (to, input) in &message.calls {
        if result.is_err() {
            break;
        }
        result = if key.is_zero() {
            Ok(())
        } else {
            keychain::check_scope(env.ledger, (sender, key), *to, input)
        }
        .and_then(|()| dispatch(&mut env, sender, *to, input));
    }
    let Env {
        mut logs,
        mut gas_used,
        ..
    } = env;
    if let Err(failure) = &result {
        ledger.revert(mark);
        logs.truncate(heard);
        if *failure == Failure::OutOfGas {
            gas_used = message.gas_limit;
        }
    }
    if let Some(fee) = message.fee {
        let used = cost(fee, gas_used);
        logs.extend(settle_fee(ledger, fee, most, used));
        if !key.is_zero() && fee.payer == sender {
            let back = most.saturating_sub(used);
            keychain::give_back(ledger, setting.now, (sender, key), fee.token, back);
        }
    }
    Executed {
        result,
        gas_used,
        logs,
    }
}

/// Before the calls: the key that comes along, and the fee on the account of the key that signed.
fn prepare(env: &mut Env<'_>, message: &Message, most: U256) -> Result<(), Failure> {
    if let Some(grant) = &message.grant {
        grant.apply(env, message.sender)?;
    }
    match message.fee {
        Some(fee) => keychain::spend(env, fee.payer, fee.token, most),
        None => Ok(()),
    }
}

fn cost(fee: Payment, gas: u64) -> U256 {
    calc_gas_balance_spending(gas, fee.price)
}

/// Gives back what was not used and pays the rest to the fee manager.
fn settle_fee(ledger: &mut Ledger, fee: Payment, most: U256, used: U256) -> Option<Log> {
    let payer = Slot::Balance {
        token: fee.token,
        owner: fee.payer,
    };
    let back = ledger.get(payer).saturating_add(most.saturating_sub(used));
    ledger.set(payer, back);
    let manager = Slot::Balance {
        token: fee.token,
        owner: TIP_FEE_MANAGER_ADDRESS,
    };
    let sum = ledger.get(manager).saturating_add(used);
    ledger.set(manager, sum);
    let event = Transfer {
        from: fee.payer,
        to: TIP_FEE_MANAGER_ADDRESS,
        amount: used,
    };
    (!used.is_zero()).then(|| Log {
        address: fee.token,
        data: event.encode_log_data(),
    })
}
