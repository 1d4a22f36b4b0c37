//! How much of each token a key may still spend, once or in each period.

use std::collections::HashSet;

use alloy::primitives::{Address, U256};
use tempo_contracts::precompiles::{
    ACCOUNT_KEYCHAIN_ADDRESS as KEYCHAIN,
    IAccountKeychain::{
        AccessKeySpend, InvalidSpendingLimit, SpendingLimitExceeded, SpendingLimitUpdated,
        TokenLimit, updateSpendingLimitCall,
    },
};

use super::{Key, slot};
use crate::{
    contracts::{Env, Failure},
    ledger::{Ledger, Slot},
};

/// The most in a period, how long that is, and when this one ends; all zero is no period.
#[derive(Clone, Copy, Debug)]
struct Rule {
    most: u128,
    period: u64,
    end: u64,
}

impl Rule {
    fn unpack(slot: U256) -> Self {
        Self {
            most: slot.wrapping_to(),
            period: (slot >> 128_u8).wrapping_to(),
            end: (slot >> 192_u8).wrapping_to(),
        }
    }

    fn pack(self) -> U256 {
        U256::from(self.most) | U256::from(self.period) << 128 | U256::from(self.end) << 192
    }

    /// The end of the period that `now` is in, if this one is over.
    fn next(self, now: u64) -> Option<u64> {
        if self.period == 0 || now < self.end {
            return None;
        }
        let over = (now - self.end) / self.period + 1;
        Some(self.end.saturating_add(self.period.saturating_mul(over)))
    }
}

fn slots(account: Address, key: Address, token: Address) -> (Slot, Slot) {
    (
        Slot::KeyLimit {
            account,
            key,
            token,
        },
        Slot::KeyRule {
            account,
            key,
            token,
        },
    )
}

/// One limit to a token, within what a supply can be.
pub(super) fn are_wrong(limits: &[TokenLimit]) -> bool {
    let mut seen = HashSet::new();
    limits
        .iter()
        .any(|limit| !seen.insert(limit.token) || u128::try_from(limit.amount).is_err())
}

pub(super) fn begin(
    env: &mut Env<'_>,
    account: Address,
    key: Address,
    limit: &TokenLimit,
) -> Result<(), Failure> {
    let (left, rule) = slots(account, key, limit.token);
    let end = match limit.period {
        0 => 0,
        period => env.setting.now.saturating_add(period),
    };
    env.write(left, limit.amount)?;
    let limit = Rule {
        most: limit.amount.saturating_to(),
        period: limit.period,
        end,
    };
    env.write(rule, limit.pack())
}

/// Sets what is left and the most; a period goes on.
pub(super) fn update(
    env: &mut Env<'_>,
    account: Address,
    call: &updateSpendingLimitCall,
) -> Result<(), Failure> {
    let Ok(most) = u128::try_from(call.newLimit) else {
        return Err(Failure::error(InvalidSpendingLimit {}));
    };
    let (left, rule) = slots(account, call.keyId, call.token);
    env.write(left, call.newLimit)?;
    let changed = Rule {
        most,
        ..Rule::unpack(env.read(rule)?)
    };
    env.write(rule, changed.pack())?;
    let event = SpendingLimitUpdated {
        account,
        publicKey: call.keyId,
        token: call.token,
        newLimit: call.newLimit,
    };
    env.log(KEYCHAIN, event)
}

/// What a key may spend now, and when its period ends; nothing if it may not sign.
pub(super) fn left(
    ledger: &Ledger,
    now: u64,
    account: Address,
    key: Address,
    token: Address,
) -> (U256, u64) {
    if Key::unpack(ledger.get(slot(account, key)))
        .active(now)
        .is_err()
    {
        return (U256::ZERO, 0);
    }
    let (left, rule) = slots(account, key, token);
    let rule = Rule::unpack(ledger.get(rule));
    match rule.next(now) {
        Some(end) => (U256::from(rule.most), end),
        None => (ledger.get(left), rule.end),
    }
}

/// Counts what the transaction's key spends of its account's money.
///
/// # Errors
/// If it is more than the key may spend, or the key may not sign any more.
pub(crate) fn spend(
    env: &mut Env<'_>,
    account: Address,
    token: Address,
    amount: U256,
) -> Result<(), Failure> {
    let key = env.signer.key;
    if key.is_zero() || account != env.signer.account {
        return Ok(());
    }
    let now = env.setting.now;
    let stored = Key::unpack(env.read(slot(account, key))?).active(now)?;
    if !stored.limited {
        return Ok(());
    }
    let (have, _) = left(env.ledger, now, account, key, token);
    let Some(rest) = have.checked_sub(amount) else {
        return Err(Failure::error(SpendingLimitExceeded {}));
    };
    let (at, rule_at) = slots(account, key, token);
    let rule = Rule::unpack(env.read(rule_at)?);
    if let Some(end) = rule.next(now) {
        env.write(rule_at, Rule { end, ..rule }.pack())?;
    }
    // Written as an update: the chain keeps a slot of a limit that is used up.
    env.reuse(at, rest)?;
    let event = AccessKeySpend {
        account,
        publicKey: key,
        token,
        amount,
        remainingLimit: rest,
    };
    env.log(KEYCHAIN, event)
}

/// Gives back what of a fee was not used.
pub(crate) fn give_back(
    ledger: &mut Ledger,
    now: u64,
    (account, key): (Address, Address),
    token: Address,
    amount: U256,
) {
    let stored = Key::unpack(ledger.get(slot(account, key)));
    if stored.limited && stored.active(now).is_ok() {
        let (at, rule) = slots(account, key, token);
        let most = U256::from(Rule::unpack(ledger.get(rule)).most);
        ledger.set(at, ledger.get(at).saturating_add(amount).min(most));
    }
}
