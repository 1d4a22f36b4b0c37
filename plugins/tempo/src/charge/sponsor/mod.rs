//! Paying the network fee for a payer: when a second signature is worth giving, and who gives it.
//!
//! The payer signs with the fee payer's place left open, so the sponsor chooses the fee token, and
//! nothing else. Whatever else the transaction does is done at the sponsor's cost, so it may do one
//! thing only: make the transfers that the challenge asks for, after buying the token if need be.

mod budget;
mod checks;
mod remote;

use std::{fmt, sync::Arc, time::Duration};

use alloy::{
    primitives::{Address, B256, Signature, U256, address},
    signers::Signer,
};
use farebox_core::{Invalid, Refusal, Rejection};
use farebox_proof::sign_hash;
use farebox_wire::{Challenge, Timestamp};
use tempo_contracts::precompiles::PATH_USD_ADDRESS;
use tempo_primitives::{
    AASigned, TempoTransaction,
    transaction::{TempoSignature, calc_gas_balance_spending},
};

pub use budget::SponsorBudget;
pub(crate) use budget::{Allowance, Share};
use checks::{check_calls, check_form, check_window};
use remote::Remote;

use crate::{
    charge::{build::GAS_A_TRANSFER, legs::Asked},
    keys::SignedBy,
    rpc::Rpc,
};

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
    /// Gas of a transaction with one call; each further one may take 300 000 more.
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

/// Pays the network fee of transactions that pay a challenge: with a key, or through a service that
/// has one.
#[derive(Clone)]
pub struct Sponsor {
    who: Who,
    limits: Option<SponsorLimits>,
    budget: SponsorBudget,
}

#[derive(Clone)]
enum Who {
    Key {
        signer: Arc<dyn Signer + Send + Sync>,
        fee_token: Address,
    },
    Service(Remote),
}

/// What a payer signed, found to do nothing but pay. Its fee payer's place is marked.
#[derive(Debug)]
pub(crate) struct Half {
    pub(crate) tx: TempoTransaction,
    signature: TempoSignature,
    pub(crate) by: SignedBy,
}

/// A transaction with both signatures, and whose the second one is.
#[derive(Debug)]
pub(crate) struct Whole {
    pub(crate) signed: AASigned,
    pub(crate) fee_payer: Address,
    pub(crate) fee_token: Address,
}

impl fmt::Debug for Sponsor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sponsor")
            .field("account", &self.account())
            .finish_non_exhaustive()
    }
}

fn no(detail: impl Into<String>) -> Rejection {
    Rejection::verification(detail)
}

impl Sponsor {
    /// A sponsor with a key, which pays fees in `fee_token`.
    pub fn new(signer: Arc<dyn Signer + Send + Sync>, fee_token: Address) -> Self {
        Self::of(Who::Key { signer, fee_token })
    }

    /// A sponsor behind a URL, asked by `eth_fillTransaction`. What it sends back must be signed by
    /// `account`, or by anybody who can pay the fee.
    ///
    /// # Errors
    /// If the URL is none; the text does not repeat it, as it may hold a key.
    pub fn remote(url: &str, account: Option<Address>) -> Result<Self, Invalid> {
        let rpc = Rpc::new(url).map_err(|problem| Invalid::new("url", problem))?;
        let pinned = account;
        Ok(Self::of(Who::Service(Remote { rpc, pinned })))
    }

    fn of(who: Who) -> Self {
        Self {
            who,
            limits: None,
            budget: SponsorBudget::default(),
        }
    }

    /// Other limits than the chain's defaults.
    #[must_use]
    pub fn limits(mut self, limits: SponsorLimits) -> Self {
        self.limits = Some(limits);
        self
    }

    /// What transactions may cost together. Counted in the store of the engine that the rail belongs
    /// to, which it needs; [`cosign`](Self::cosign) alone counts nothing. Without one, what a payer has
    /// under way is limited all the same, see [`SponsorBudget::open_per_payer`].
    #[must_use]
    pub fn budget(mut self, budget: SponsorBudget) -> Self {
        self.budget = budget;
        self
    }

    /// What transactions may cost together on a chain.
    pub(crate) fn allowance(&self, chain_id: u64) -> Allowance {
        let highest = self.limits_on(chain_id).fee;
        Allowance::new(self.budget, self.account(), highest)
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
        let half = self.examine(&Asked::read(challenge)?, signed, now)?;
        // Whose an access key is, is on the chain.
        if half.by.key.is_some() || half.tx.key_authorization.is_some() {
            return Err(
                no("access keys are not accepted here; sign with the account's own key").into(),
            );
        }
        Ok(self.complete(half).await?.signed)
    }

    /// What the payer signed, if it does nothing but pay what is asked for, within the limits.
    ///
    /// # Errors
    /// What it does beyond, or which limit it passes.
    pub(crate) fn examine(
        &self,
        asked: &Asked<'_>,
        signed: AASigned,
        now: &Timestamp,
    ) -> Result<Half, Rejection> {
        if asked.details.fee_payer != Some(true) {
            return Err(no("the challenge does not offer to pay the network fee"));
        }
        let chain_id = asked.details.chain_id.unwrap_or(DEFAULT_CHAIN);
        self.examine_calls(chain_id, asked.challenge, signed, now, |tx, payer| {
            check_calls(tx, asked, payer)
        })
    }

    /// The same for any calls that are what `challenge` is about: `check` says so.
    ///
    /// # Errors
    /// As [`examine`](Self::examine), and what `check` finds.
    pub(crate) fn examine_calls(
        &self,
        chain_id: u64,
        challenge: &Challenge,
        signed: AASigned,
        now: &Timestamp,
        check: impl FnOnce(&TempoTransaction, Address) -> Result<(), Rejection>,
    ) -> Result<Half, Rejection> {
        let (mut tx, signature, _) = signed.into_parts();
        self.check_token(&tx, chain_id)?;
        check_form(&tx, chain_id)?;
        let limits = self.limits_on(chain_id);
        check_window(&tx, challenge, now, limits.window)?;
        limits.check(&tx)?;
        // What the payer signed has some mark in the fee payer's place, and no fee token.
        tx.fee_payer_signature = Some(Signature::new(U256::ZERO, U256::ZERO, false));
        let by = SignedBy::of(&signature, &tx.signature_hash())?;
        if Some(by.account) == self.account() {
            return Err(no("the payer and the fee payer are the same account"));
        }
        check(&tx, by.account)?;
        tx.fee_token = self.fee_token().or(tx.fee_token);
        Ok(Half { tx, signature, by })
    }

    /// Signs for the fee.
    ///
    /// # Errors
    /// A fault if the signer fails; what the service says.
    pub(crate) async fn complete(&self, half: Half) -> Result<Whole, Refusal> {
        let Half {
            mut tx,
            signature,
            by,
        } = half;
        let (fee_payer, fee_token, second) = match &self.who {
            Who::Key { signer, fee_token } => {
                tx.fee_token = Some(*fee_token);
                let hash = tx.fee_payer_signature_hash(by.account);
                let second = sign_hash(signer.as_ref(), &hash).await?;
                (signer.address(), *fee_token, second)
            }
            Who::Service(remote) => {
                let filled = remote.fill(&tx, by.account).await?;
                (filled.payer, filled.token, filled.signature)
            }
        };
        tx.fee_token = Some(fee_token);
        tx.fee_payer_signature = Some(second);
        Ok(Whole {
            signed: tx.into_signed(signature),
            fee_payer,
            fee_token,
        })
    }

    /// The account that pays the fees, if it is known before it signs.
    pub fn account(&self) -> Option<Address> {
        match &self.who {
            Who::Key { signer, .. } => Some(signer.address()),
            Who::Service(remote) => remote.pinned,
        }
    }

    /// The token that fees are paid in, if it is known before.
    pub fn fee_token(&self) -> Option<Address> {
        match &self.who {
            Who::Key { fee_token, .. } => Some(*fee_token),
            Who::Service(_) => None,
        }
    }

    fn limits_on(&self, chain_id: u64) -> SponsorLimits {
        self.limits
            .unwrap_or_else(|| SponsorLimits::of_chain(chain_id))
    }

    /// The payer need not name a fee token, and a strange one is a strange transaction.
    fn check_token(&self, tx: &TempoTransaction, chain_id: u64) -> Result<(), Rejection> {
        let own = self.fee_token();
        if !tx
            .fee_token
            .is_none_or(|token| is_usual(token, chain_id) || Some(token) == own)
        {
            return Err(no(
                "the transaction names a fee token that is not paid in here",
            ));
        }
        if own.is_some_and(|own| !is_usual(own, chain_id)) {
            return Err(no("fees are not paid in the sponsor's token on this chain"));
        }
        Ok(())
    }
}

impl Whole {
    /// The most that its fee can come to, base units of the fee token.
    pub(crate) fn dearest_fee(&self) -> U256 {
        let tx = self.signed.tx();
        calc_gas_balance_spending(tx.gas_limit, tx.max_fee_per_gas)
    }
}

impl Half {
    /// The most that its fee can come to, attodollars.
    pub(crate) fn dearest_fee(&self) -> u128 {
        u128::from(self.tx.gas_limit).saturating_mul(self.tx.max_fee_per_gas)
    }

    /// The same for every signature over this payload by this sender.
    pub(crate) fn unique(&self) -> B256 {
        let signed = AASigned::new_unhashed(self.tx.clone(), self.signature.clone());
        signed.expiring_nonce_hash(self.by.account)
    }

    /// When its window closes, Unix seconds.
    pub(crate) fn end(&self) -> u64 {
        self.tx.valid_before.map_or(0, std::num::NonZeroU64::get)
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
        // Calls beyond those asked for are refused elsewhere.
        let further = tx.calls.len().saturating_sub(1) as u64;
        let most = GAS_A_TRANSFER
            .saturating_mul(further)
            .saturating_add(self.gas);
        if tx.gas_limit > most {
            return Err(over("gas limit", tx.gas_limit.into(), most.into()));
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
