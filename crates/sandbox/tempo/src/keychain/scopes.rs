//! What a key may call: targets, functions of them, and whom these may name first.

use std::collections::HashSet;

use alloy::{primitives::Address, sol_types::SolCall};
use tempo_contracts::precompiles::{
    IAccountKeychain::{CallNotAllowed, CallScope, InvalidCallScope, SelectorRule},
    ITIP20::{approveCall, transferCall, transferWithMemoCall},
};
use tempo_primitives::is_tip20_prefix;

use crate::{
    contracts::{Env, Failure, SLOT_CREATE, SLOT_UPDATE},
    ledger::Ledger,
};

/// Slots that a list takes: its length, and each entry twice.
fn list<T>(entries: &[T]) -> u64 {
    if entries.is_empty() {
        0
    } else {
        1 + 2 * entries.len() as u64
    }
}

/// How many slots the chain needs to remember them.
pub(super) fn slots(scopes: &[CallScope]) -> u64 {
    let inside: u64 = scopes
        .iter()
        .map(|scope| {
            let rules = &scope.selectorRules;
            let named: u64 = rules.iter().map(|rule| list(&rule.recipients)).sum();
            list(rules) + named
        })
        .sum();
    1 + list(scopes) + inside
}

fn repeats<T: Eq + std::hash::Hash>(mut entries: impl Iterator<Item = T>) -> bool {
    let mut seen = HashSet::new();
    !entries.all(|entry| seen.insert(entry))
}

/// Only a token's own functions that pay somebody can be bound to whom they pay.
fn rule_is_wrong(target: Address, rule: &SelectorRule) -> bool {
    let pays = [
        transferCall::SELECTOR,
        transferWithMemoCall::SELECTOR,
        approveCall::SELECTOR,
    ];
    let recipients = &rule.recipients;
    !recipients.is_empty()
        && (!is_tip20_prefix(target)
            || !pays.contains(&rule.selector.0)
            || recipients.contains(&Address::ZERO)
            || repeats(recipients.iter()))
}

pub(super) fn are_wrong(scopes: &[CallScope]) -> bool {
    repeats(scopes.iter().map(|scope| scope.target))
        || scopes.iter().any(|scope| {
            let rules = &scope.selectorRules;
            scope.target.is_zero()
                || repeats(rules.iter().map(|rule| rule.selector))
                || rules.iter().any(|rule| rule_is_wrong(scope.target, rule))
        })
}

/// Replaces the rules of the targets named; a key that could call anything can no longer.
pub(super) fn set(
    env: &mut Env<'_>,
    key: (Address, Address),
    scopes: Vec<CallScope>,
) -> Result<(), Failure> {
    if scopes.is_empty() || are_wrong(&scopes) {
        return Err(Failure::error(InvalidCallScope {}));
    }
    env.charge(SLOT_CREATE.saturating_mul(slots(&scopes)))?;
    let mut all = env.ledger.scopes(key).cloned().unwrap_or_default();
    all.retain(|old| scopes.iter().all(|new| new.target != old.target));
    all.extend(scopes);
    env.ledger.set_scopes(key, Some(all));
    Ok(())
}

pub(super) fn remove(
    env: &mut Env<'_>,
    key: (Address, Address),
    target: Address,
) -> Result<(), Failure> {
    env.charge(SLOT_UPDATE)?;
    if let Some(mut all) = env.ledger.scopes(key).cloned() {
        all.retain(|scope| scope.target != target);
        env.ledger.set_scopes(key, Some(all));
    }
    Ok(())
}

/// Whether a key may make this call of its transaction.
///
/// # Errors
/// If it may not.
pub(crate) fn check(
    ledger: &Ledger,
    key: (Address, Address),
    to: Address,
    input: &[u8],
) -> Result<(), Failure> {
    match ledger.scopes(key) {
        Some(scopes) if !scopes.iter().any(|scope| allows(scope, to, input)) => {
            Err(Failure::error(CallNotAllowed {}))
        }
        _ => Ok(()),
    }
}

fn allows(scope: &CallScope, to: Address, input: &[u8]) -> bool {
    if scope.target != to {
        return false;
    }
    let rules = &scope.selectorRules;
    let Some(selector) = input.first_chunk::<4>() else {
        return rules.is_empty();
    };
    rules.is_empty()
        || rules
            .iter()
            .filter(|rule| rule.selector == *selector)
            .any(|rule| rule.recipients.is_empty() || names(&rule.recipients, input))
}

/// Whether the first argument is one of them, as an address and nothing else.
fn names(recipients: &[Address], input: &[u8]) -> bool {
    input.get(4..36).is_some_and(|word| {
        let (padding, address) = word.split_at(12);
        padding.iter().all(|byte| *byte == 0)
            && recipients.iter().any(|one| one.as_slice() == address)
    })
}
