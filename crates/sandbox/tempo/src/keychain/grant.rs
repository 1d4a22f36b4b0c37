//! A new key and what it may do.

use alloy::primitives::{Address, B256, U256};
use tempo_contracts::precompiles::{
    ACCOUNT_KEYCHAIN_ADDRESS as KEYCHAIN,
    IAccountKeychain::{
        CallScope, ExpiryInPast, InvalidCallScope, InvalidSignatureType, InvalidSpendingLimit,
        KeyAlreadyExists, KeyAlreadyRevoked, KeyAuthorizationWitness,
        KeyAuthorizationWitnessAlreadyBurned, KeyAuthorized, KeyRestrictions, SignatureType,
        TokenLimit, ZeroPublicKey,
    },
};
use tempo_primitives::transaction::SignedKeyAuthorization;

use super::{Key, limits, scopes, slot};
use crate::{
    contracts::{Env, Failure, SLOT_CREATE},
    ledger::{Ledger, Slot},
};

/// Checking who signed.
const SIGNATURE: u64 = 3_000;

/// A key to be added to an account, by a call or by the transaction itself.
#[derive(Clone, Debug)]
pub(crate) struct Grant {
    pub(crate) key: Address,
    pub(crate) kind: u8,
    expiry: u64,
    limits: Option<Vec<TokenLimit>>,
    scopes: Option<Vec<CallScope>>,
    witness: Option<B256>,
}

impl Grant {
    /// As a call asks for it.
    pub(super) fn asked(
        key: Address,
        kind: SignatureType,
        config: KeyRestrictions,
        witness: Option<B256>,
    ) -> Result<Self, Failure> {
        if matches!(kind, SignatureType::__Invalid) {
            return Err(Failure::error(InvalidSignatureType {}));
        }
        if config.allowAnyCalls && !config.allowedCalls.is_empty() {
            return Err(Failure::error(InvalidCallScope {}));
        }
        Ok(Self {
            key,
            kind: kind as u8,
            expiry: config.expiry,
            limits: config.enforceLimits.then_some(config.limits),
            scopes: (!config.allowAnyCalls).then_some(config.allowedCalls),
            witness,
        })
    }

    /// As a transaction carries it, signed by its account.
    ///
    /// # Errors
    /// Why the chain takes no such transaction.
    pub(crate) fn carried(
        signed: &SignedKeyAuthorization,
        account: Address,
        chain_id: u64,
    ) -> Result<Self, &'static str> {
        let said = &signed.authorization;
        if said.is_admin {
            return Err("admin keys are not supported");
        }
        if said.chain_id != chain_id {
            return Err("key authorization is for another chain");
        }
        if signed.recover_signer().ok() != Some(account)
            || said.account.is_some_and(|named| named != account)
        {
            return Err("key authorization is not signed by the account");
        }
        let limit = |limit: &tempo_primitives::transaction::TokenLimit| TokenLimit {
            token: limit.token,
            amount: limit.limit,
            period: limit.period,
        };
        Ok(Self {
            key: said.key_id,
            kind: said.key_type.into(),
            expiry: said.expiry.map_or(u64::MAX, std::num::NonZeroU64::get),
            limits: said
                .limits
                .as_ref()
                .map(|all| all.iter().map(limit).collect()),
            scopes: (said.allowed_calls.clone())
                .map(|all| all.into_iter().map(Into::into).collect()),
            witness: said.witness,
        })
    }

    /// What a transaction pays for carrying it.
    pub(crate) fn gas(&self) -> u64 {
        let limits = self
            .limits
            .as_ref()
            .map_or(0, |limits| 2 * limits.len() as u64);
        let scopes = self.scopes.as_deref().map_or(0, scopes::slots);
        SIGNATURE + SLOT_CREATE * (1 + limits + scopes)
    }

    /// Why it cannot be added, if it cannot.
    pub(crate) fn objection(&self, ledger: &Ledger, account: Address, now: u64) -> Option<Failure> {
        let stored = Key::unpack(ledger.get(slot(account, self.key)));
        let burned = self.witness.is_some_and(|witness| {
            !ledger
                .get(Slot::BurnedWitness { account, witness })
                .is_zero()
        });
        if self.key.is_zero() {
            Some(Failure::error(ZeroPublicKey {}))
        } else if self.expiry <= now {
            Some(Failure::error(ExpiryInPast {}))
        } else if stored.expiry > 0 {
            Some(Failure::error(KeyAlreadyExists {}))
        } else if stored.revoked {
            Some(Failure::error(KeyAlreadyRevoked {}))
        } else if self.limits.as_deref().is_some_and(limits::are_wrong) {
            Some(Failure::error(InvalidSpendingLimit {}))
        } else if self.scopes.as_deref().is_some_and(scopes::are_wrong) {
            Some(Failure::error(InvalidCallScope {}))
        } else {
            burned.then(|| Failure::error(KeyAuthorizationWitnessAlreadyBurned {}))
        }
    }

    /// How much of `token` the key could pay in fees at once; `None` is no limit.
    pub(crate) fn allowance(&self, token: Address) -> Option<U256> {
        let limits = self.limits.as_ref()?;
        let limit = limits.iter().find(|limit| limit.token == token);
        Some(limit.map(|limit| limit.amount).unwrap_or_default())
    }

    /// Adds the key.
    ///
    /// # Errors
    /// As the chain has them; out of gas.
    pub(crate) fn apply(&self, env: &mut Env<'_>, account: Address) -> Result<(), Failure> {
        if let Some(objection) = self.objection(env.ledger, account, env.setting.now) {
            return Err(objection);
        }
        let key = Key {
            kind: self.kind,
            expiry: self.expiry,
            limited: self.limits.is_some(),
            revoked: false,
        };
        env.write(slot(account, self.key), key.pack())?;
        for limit in self.limits.iter().flatten() {
            limits::begin(env, account, self.key, limit)?;
        }
        if let Some(scopes) = &self.scopes {
            env.charge(SLOT_CREATE.saturating_mul(scopes::slots(scopes)))?;
            env.ledger
                .set_scopes((account, self.key), Some(scopes.clone()));
        }
        if let Some(witness) = self.witness {
            env.log(KEYCHAIN, KeyAuthorizationWitness { account, witness })?;
        }
        let event = KeyAuthorized {
            account,
            publicKey: self.key,
            signatureType: self.kind,
            expiry: self.expiry,
        };
        env.log(KEYCHAIN, event)
    }
}
