//! Paying the network fee for a payer: when a second signature is worth giving. No I/O but the
//! signer's.
//!
//! The payer signs with the fee payer's place left open, so the sponsor chooses the fee token, and
//! nothing else. Whatever else the transaction does is done at the sponsor's cost, so it may do one
//! thing only: make the transfers that the challenge asks for, after buying the token if need be.

use std::{fmt, sync::Arc, time::Duration};

use alloy::{
    primitives::{Address, Bytes, Signature, TxKind, U256, address},
    signers::Signer,
    sol_types::SolCall,
};
use farebox_core::{Refusal, Rejection};
use farebox_proof::sign_hash;
use farebox_wire::{Challenge, Timestamp};
use tempo_contracts::precompiles::{
    IStablecoinDEX, ITIP20, PATH_USD_ADDRESS, STABLECOIN_DEX_ADDRESS,
};
use tempo_primitives::{AASigned, TempoTransaction, transaction::TEMPO_EXPIRING_NONCE_KEY};

use crate::charge::legs::{Asked, Made, decode, transfer};

/// The chain of a request that names none (draft-tempo-charge).
const DEFAULT_CHAIN: u64 = 42431;

const MAINNET: u64 = 4217;

/// USDC.e, in which fees are paid on mainnet unless somebody says otherwise.
const MAINNET_TOKEN: Address = address!("0x20C000000000000000000000b9537d11c60E8b50");

/// How long a sponsored transaction must stay valid at every step, in seconds: one that runs out on
/// its way costs the sponsor and pays nobody.
pub(crate) const FLOOR: u64 = 15;

/// The most that one sponsored transaction may cost and how long it may wait. The defaults are
/// those of deployed servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SponsorLimits {
    /// Gas.
    pub gas: u64,
    /// Attodollars a unit of gas.
    pub fee_per_gas: u128,
    /// Attodollars a unit of gas, for the block's proposer.
    pub priority_fee_per_gas: u128,
    /// Attodollars in all: gas limit times fee.
    pub fee: u128,
    /// From now to the end of its validity.
    pub window: Duration,
}

impl SponsorLimits {
    /// The defaults of a chain.
    pub fn of_chain(chain_id: u64) -> Self {
        const GWEI: u128 = 1_000_000_000;
        Self {
            gas: 2_000_000,
            fee_per_gas: 100 * GWEI,
            // The testnet asks for more at times.
            priority_fee_per_gas: if chain_id == DEFAULT_CHAIN { 50 } else { 10 } * GWEI,
            fee: 50_000_000 * GWEI,
            window: Duration::from_secs(15 * 60),
        }
    }
}

/// Signs as the fee payer of transactions that pay a challenge.
#[derive(Clone)]
pub struct Sponsor {
    signer: Arc<dyn Signer + Send + Sync>,
    fee_token: Address,
    limits: Option<SponsorLimits>,
}

impl fmt::Debug for Sponsor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sponsor")
            .field("address", &self.signer.address())
            .field("fee_token", &self.fee_token)
            .finish_non_exhaustive()
    }
}

fn no(detail: impl Into<String>) -> Rejection {
    Rejection::verification(detail)
}

impl Sponsor {
    /// A sponsor that pays fees in `fee_token`.
    pub fn new(signer: Arc<dyn Signer + Send + Sync>, fee_token: Address) -> Self {
        Self {
            signer,
            fee_token,
            limits: None,
        }
    }

    /// Other limits than the chain's defaults.
    #[must_use]
    pub fn limits(mut self, limits: SponsorLimits) -> Self {
        self.limits = Some(limits);
        self
    }

    /// Signs a transaction as its fee payer, once it is known to do nothing but pay `challenge`.
    /// `signed` is what the payer signed; it holds no fee payer's signature yet.
    ///
    /// The caller has authenticated the challenge, and simulates before and after.
    ///
    /// # Errors
    /// What the transaction does beyond paying, or which limit it passes; a fault if the signer
    /// fails.
    pub async fn cosign(
        &self,
        challenge: &Challenge,
        signed: AASigned,
        now: &Timestamp,
    ) -> Result<AASigned, Refusal> {
        let asked = Asked::read(challenge)?;
        if asked.details.fee_payer != Some(true) {
            return Err(no("the challenge does not offer to pay the network fee").into());
        }
        let (mut tx, signature, _) = signed.into_parts();
        if signature.is_keychain() {
            return Err(
                no("access keys are not accepted here; sign with the account's own key").into(),
            );
        }
        let chain_id = asked.details.chain_id.unwrap_or(DEFAULT_CHAIN);
        self.check_token(&tx, chain_id)?;
        check_form(&tx, chain_id)?;
        check_window(&tx, challenge, now, self.limits_on(chain_id).window)?;
        self.limits_on(chain_id).check(&tx)?;
        // What the payer signed has some mark in the fee payer's place, and no fee token.
        tx.fee_payer_signature = Some(Signature::new(U256::ZERO, U256::ZERO, false));
        let sender = signature
            .recover_signer(&tx.signature_hash())
            .map_err(|_| no("no account can have made the transaction's signature"))?;
        if sender == self.signer.address() {
            return Err(no("the payer and the fee payer are the same account").into());
        }
        check_calls(&tx, &asked, sender)?;
        tx.fee_token = Some(self.fee_token);
        let hash = tx.fee_payer_signature_hash(sender);
        tx.fee_payer_signature = Some(sign_hash(self.signer.as_ref(), &hash).await?);
        Ok(tx.into_signed(signature))
    }

    /// The account that pays the fees.
    pub fn address(&self) -> Address {
        self.signer.address()
    }

    /// The token that fees are paid in.
    pub fn fee_token(&self) -> Address {
        self.fee_token
    }

    fn limits_on(&self, chain_id: u64) -> SponsorLimits {
        self.limits
            .unwrap_or_else(|| SponsorLimits::of_chain(chain_id))
    }

    /// The payer need not name a fee token, and a strange one is a strange transaction.
    fn check_token(&self, tx: &TempoTransaction, chain_id: u64) -> Result<(), Rejection> {
        if !tx
            .fee_token
            .is_none_or(|token| is_usual(token, chain_id) || token == self.fee_token)
        {
            return Err(no(
                "the transaction names a fee token that is not paid in here",
            ));
        }
        if !is_usual(self.fee_token, chain_id) {
            return Err(no("fees are not paid in the sponsor's token on this chain"));
        }
        Ok(())
    }
}

/// Whether fees are usually paid in `token` on a chain.
pub(crate) fn is_usual(token: Address, chain_id: u64) -> bool {
    token == PATH_USD_ADDRESS || token == usual_token(chain_id)
}

/// The token that fees are paid in unless somebody says otherwise.
pub(crate) fn usual_token(chain_id: u64) -> Address {
    match chain_id {
        MAINNET => MAINNET_TOKEN,
        _ => PATH_USD_ADDRESS,
    }
}

impl SponsorLimits {
    fn check(&self, tx: &TempoTransaction) -> Result<(), Rejection> {
        let over = |what: &str, is: u128, limit: u128| {
            no(format!(
                "the transaction's {what} is {is}; at most {limit} is sponsored"
            ))
        };
        if tx.gas_limit == 0 || tx.max_fee_per_gas == 0 {
            return Err(no("the transaction says no gas limit or no fee"));
        }
        if tx.gas_limit > self.gas {
            return Err(over("gas limit", tx.gas_limit.into(), self.gas.into()));
        }
        if tx.max_fee_per_gas > self.fee_per_gas {
            return Err(over(
                "max_fee_per_gas",
                tx.max_fee_per_gas,
                self.fee_per_gas,
            ));
        }
        let (priority, limit) = (tx.max_priority_fee_per_gas, self.priority_fee_per_gas);
        if priority > limit {
            return Err(over("max_priority_fee_per_gas", priority, limit));
        }
        let fee = u128::from(tx.gas_limit).saturating_mul(tx.max_fee_per_gas);
        if fee > self.fee {
            return Err(over("fee", fee, self.fee));
        }
        Ok(())
    }
}

/// What is no payment whatever the calls say.
fn check_form(tx: &TempoTransaction, chain_id: u64) -> Result<(), Rejection> {
    if tx.chain_id != chain_id {
        let is = tx.chain_id;
        return Err(no(format!(
            "the transaction is for chain {is}, not {chain_id}"
        )));
    }
    if tx.fee_payer_signature.is_some() {
        return Err(no("the transaction has a fee payer already"));
    }
    if !tx.access_list.is_empty() {
        return Err(no("an access list is not sponsored"));
    }
    if !tx.tempo_authorization_list.is_empty() || tx.key_authorization.is_some() {
        return Err(no("a transaction with authorizations is not sponsored"));
    }
    if tx.nonce_key != TEMPO_EXPIRING_NONCE_KEY || tx.nonce != 0 {
        return Err(no(
            "the transaction needs an expiring nonce (nonce_key 2^256 - 1, nonce 0)",
        ));
    }
    if tx.max_priority_fee_per_gas > tx.max_fee_per_gas {
        return Err(no(
            "the transaction's max_priority_fee_per_gas is higher than its max_fee_per_gas",
        ));
    }
    Ok(())
}

fn check_window(
    tx: &TempoTransaction,
    challenge: &Challenge,
    now: &Timestamp,
    longest: Duration,
) -> Result<(), Rejection> {
    let seconds = |millis: i64| u64::try_from(millis.div_euclid(1000)).unwrap_or(0);
    let now = seconds(now.unix_millis());
    let end = tx
        .valid_before
        .ok_or_else(|| no("a sponsored transaction needs a valid_before"))?
        .get();
    if end < now.saturating_add(FLOOR) {
        return Err(no(
            "the transaction's valid_before has passed or is less than 15 seconds away; sign it again",
        ));
    }
    let mut latest = now.saturating_add(longest.as_secs());
    if let Some(expires) = &challenge.expires {
        // Rounded up: a client cannot say half a second.
        latest = latest.min(seconds(expires.unix_millis().saturating_add(999)));
    }
    if end > latest {
        return Err(no("the transaction is valid for longer than is sponsored"));
    }
    if tx.valid_after.is_some_and(|start| start.get() > now) {
        return Err(no("the transaction's valid_after lies in the future"));
    }
    Ok(())
}

/// The transfers asked for and nothing else, but for buying the token first.
fn check_calls(tx: &TempoTransaction, asked: &Asked<'_>, sender: Address) -> Result<(), Rejection> {
    let mut calls = Vec::with_capacity(tx.calls.len());
    for call in &tx.calls {
        let TxKind::Call(to) = call.to else {
            return Err(no("a sponsored transaction creates no contract"));
        };
        if !call.value.is_zero() {
            return Err(no(
                "a call carries a native value, which Tempo does not have",
            ));
        }
        calls.push((to, &call.input));
    }
    let transfers = match calls.as_slice() {
        [approve, swap, transfers @ ..]
            if approve.1.starts_with(&ITIP20::approveCall::SELECTOR) =>
        {
            check_swap(*approve, *swap, asked)?;
            transfers
        }
        transfers => transfers,
    };
    if transfers.len() != asked.len() {
        let (are, asked) = (transfers.len(), asked.len());
        return Err(no(format!(
            "the transaction has {are} transfers, {asked} are asked for"
        )));
    }
    let made: Result<Vec<Made>, Rejection> = transfers
        .iter()
        .map(|(token, input)| {
            if *token != asked.token {
                return Err(no("a call goes to something else than the token asked for"));
            }
            transfer(input, sender)
        })
        .collect();
    asked.check(&made?)
}

/// Buying exactly what is paid, with an allowance for exactly what that may cost.
fn check_swap(
    (token_in, approve): (Address, &Bytes),
    (exchange, swap): (Address, &Bytes),
    asked: &Asked<'_>,
) -> Result<(), Rejection> {
    let approve: ITIP20::approveCall = decode(approve)?;
    let swap: IStablecoinDEX::swapExactAmountOutCall = decode(swap)?;
    if exchange != STABLECOIN_DEX_ADDRESS || approve.spender != STABLECOIN_DEX_ADDRESS {
        return Err(no("a swap goes through the chain's own exchange only"));
    }
    if token_in != swap.tokenIn || approve.amount != U256::from(swap.maxAmountIn) {
        return Err(no("the allowance is not for what the swap may cost"));
    }
    if swap.tokenOut != asked.token || U256::from(swap.amountOut) != asked.total() {
        return Err(no("the swap does not buy exactly what is paid"));
    }
    Ok(())
}
