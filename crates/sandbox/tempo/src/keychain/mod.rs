//! The account keychain: keys that sign for an account within limits, until they expire or are
//! revoked. Admin keys are not here.

mod grant;
mod limits;
mod scopes;

use alloy::{
    primitives::{Address, Bytes, U256},
    sol_types::SolCall,
};
use tempo_contracts::precompiles::{
    ACCOUNT_KEYCHAIN_ADDRESS as KEYCHAIN,
    IAccountKeychain::{IAccountKeychainCalls as Calls, *},
    authorizeKeyCall,
};

pub(crate) use grant::Grant;
pub(crate) use limits::{give_back, spend};
pub(crate) use scopes::check as check_scope;

use crate::{
    contracts::{CallResult, Env, Failure, decode, unknown_selector},
    ledger::{Ledger, Slot},
};

/// What the chain knows of a key. It is none without an expiry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Key {
    /// As in the interface: 0 secp256k1, 1 P-256, 2 WebAuthn.
    pub(crate) kind: u8,
    /// Unix seconds.
    expiry: u64,
    limited: bool,
    revoked: bool,
}

impl Key {
    fn unpack(slot: U256) -> Self {
        Self {
            kind: slot.byte(0),
            expiry: (slot >> 8_u8).wrapping_to(),
            limited: slot.bit(72),
            revoked: slot.bit(73),
        }
    }

    fn pack(self) -> U256 {
        U256::from(self.kind)
            | U256::from(self.expiry) << 8
            | U256::from(self.limited) << 72
            | U256::from(self.revoked) << 73
    }

    /// The key, if it may sign now.
    ///
    /// # Errors
    /// As the chain has them.
    fn active(self, now: u64) -> Result<Self, Failure> {
        if self.revoked {
            Err(Failure::error(KeyAlreadyRevoked {}))
        } else if self.expiry == 0 {
            Err(Failure::error(KeyNotFound {}))
        } else if self.expiry <= now {
            Err(Failure::error(KeyExpired {}))
        } else {
            Ok(self)
        }
    }
}

fn slot(account: Address, key: Address) -> Slot {
    Slot::Key { account, key }
}

/// Whether `key` may sign for `account` now.
pub(crate) fn is_active(ledger: &Ledger, now: u64, account: Address, key: Address) -> bool {
    Key::unpack(ledger.get(slot(account, key)))
        .active(now)
        .is_ok()
}

/// Why `key` may not sign for `account` and pay `fee` of a token, if it may not.
pub(crate) fn objection(
    ledger: &Ledger,
    now: u64,
    (account, key): (Address, Address),
    kind: u8,
    fee: Option<(Address, U256)>,
) -> Option<&'static str> {
    let stored = Key::unpack(ledger.get(slot(account, key)));
    match stored.active(now) {
        Err(_) if stored.revoked => return Some("access key has been revoked"),
        Err(_) if stored.expiry == 0 => return Some("access key does not exist"),
        Err(_) => return Some("access key has expired"),
        Ok(_) => {}
    }
    if stored.kind != kind {
        return Some("access key is of another type");
    }
    let (token, most) = fee.filter(|_| stored.limited)?;
    let (left, _) = limits::left(ledger, now, account, key, token);
    (left < most).then_some("fee exceeds the access key's spending limit")
}

/// Calls the keychain on behalf of `caller`.
pub(crate) fn call(env: &mut Env<'_>, caller: Address, input: &[u8]) -> CallResult {
    match decode::<Calls>(input)? {
        Calls::authorizeKey_0(_) => Err(Failure::error(LegacyAuthorizeKeySelectorChanged {
            newSelector: authorizeKeyCall::SELECTOR.into(),
        })),
        Calls::authorizeKey_1(c) => {
            only_root(env, caller)?;
            let grant = Grant::asked(c.keyId, c.signatureType, c.config, None)?;
            grant.apply(env, caller).map(nothing)
        }
        Calls::authorizeKey_2(c) => {
            only_root(env, caller)?;
            let grant = Grant::asked(c.keyId, c.signatureType, c.config, Some(c.witness))?;
            grant.apply(env, caller).map(nothing)
        }
        Calls::burnKeyAuthorizationWitness(c) => {
            only_root(env, caller)?;
            let witness = Slot::BurnedWitness {
                account: caller,
                witness: c.witness,
            };
            if !env.read(witness)?.is_zero() {
                return Err(Failure::error(KeyAuthorizationWitnessAlreadyBurned {}));
            }
            env.write(witness, U256::ONE)?;
            let event = KeyAuthorizationWitnessBurned {
                account: caller,
                witness: c.witness,
            };
            env.log(KEYCHAIN, event).map(nothing)
        }
        Calls::revokeKey(c) => {
            only_root(env, caller)?;
            let at = slot(caller, c.keyId);
            if Key::unpack(env.read(at)?).expiry == 0 {
                return Err(Failure::error(KeyNotFound {}));
            }
            let revoked = Key {
                revoked: true,
                ..Key::default()
            };
            env.write(at, revoked.pack())?;
            let event = KeyRevoked {
                account: caller,
                publicKey: c.keyId,
            };
            env.log(KEYCHAIN, event).map(nothing)
        }
        Calls::updateSpendingLimit(c) => {
            let key = managed(env, caller, c.keyId)?;
            let limited = Key {
                limited: true,
                ..key
            };
            env.write(slot(caller, c.keyId), limited.pack())?;
            limits::update(env, caller, &c).map(nothing)
        }
        Calls::setAllowedCalls(c) => {
            managed(env, caller, c.keyId)?;
            scopes::set(env, (caller, c.keyId), c.scopes).map(nothing)
        }
        Calls::removeAllowedCalls(c) => {
            managed(env, caller, c.keyId)?;
            scopes::remove(env, (caller, c.keyId), c.target).map(nothing)
        }
        view => read(env, view, input),
    }
}

fn read(env: &mut Env<'_>, call: Calls, input: &[u8]) -> CallResult {
    let now = env.setting.now;
    match call {
        Calls::getKey(c) => {
            let key = Key::unpack(env.read(slot(c.account, c.keyId))?);
            let there = key.expiry != 0 && !key.revoked;
            returns::<getKeyCall>(KeyInfo {
                signatureType: key.kind.try_into().unwrap_or(SignatureType::Secp256k1),
                keyId: if there { c.keyId } else { Address::ZERO },
                expiry: key.expiry,
                enforceLimits: key.limited,
                isRevoked: key.revoked,
            })
        }
        Calls::getRemainingLimit(c) => {
            let (left, _) = limits::left(env.ledger, now, c.account, c.keyId, c.token);
            returns::<getRemainingLimitCall>(left)
        }
        Calls::getRemainingLimitWithPeriod(c) => {
            let (remaining, end) = limits::left(env.ledger, now, c.account, c.keyId, c.token);
            returns::<getRemainingLimitWithPeriodCall>(getRemainingLimitWithPeriodReturn {
                remaining,
                periodEnd: end,
            })
        }
        Calls::getAllowedCalls(c) => {
            let key = Key::unpack(env.read(slot(c.account, c.keyId))?);
            let all = if c.keyId.is_zero() {
                None
            } else if key.active(now).is_err() {
                Some(Vec::new())
            } else {
                env.ledger.scopes((c.account, c.keyId)).cloned()
            };
            returns::<getAllowedCallsCall>(getAllowedCallsReturn {
                isScoped: all.is_some(),
                scopes: all.unwrap_or_default(),
            })
        }
        Calls::isKeyAuthorizationWitnessBurned(c) => {
            let burned = env.read(Slot::BurnedWitness {
                account: c.account,
                witness: c.witness,
            })?;
            returns::<isKeyAuthorizationWitnessBurnedCall>(!burned.is_zero())
        }
        Calls::isAdminKey(c) => returns::<isAdminKeyCall>(c.keyId == c.account),
        Calls::getTransactionKey(_) => returns::<getTransactionKeyCall>(env.signer.key),
        _ => Err(unknown_selector(input)),
    }
}

/// Keys do not manage keys; and no contract does in the name of whoever calls it.
fn only_root(env: &Env<'_>, caller: Address) -> Result<(), Failure> {
    if env.signer.key.is_zero() && env.signer.account == caller {
        Ok(())
    } else {
        Err(Failure::error(UnauthorizedCaller {}))
    }
}

/// A key that `caller` may change now.
fn managed(env: &mut Env<'_>, caller: Address, key: Address) -> Result<Key, Failure> {
    only_root(env, caller)?;
    Key::unpack(env.read(slot(caller, key))?).active(env.setting.now)
}

fn returns<C: SolCall>(value: C::Return) -> CallResult {
    Ok(C::abi_encode_returns(&value).into())
}

fn nothing((): ()) -> Bytes {
    Bytes::new()
}
