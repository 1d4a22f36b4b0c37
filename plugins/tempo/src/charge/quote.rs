//! Terms into a request.

use std::time::Duration;

use alloy::primitives::B256;
use farebox_core::{
    Charge, ChargeRequest, ChargeTerms, Fault, Invalid, Issue, NoQuote, Quote, config,
};
use farebox_proof::terms::account;
use farebox_wire::{Amount, Timestamp};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    Details, Mode, Tempo,
    charge::{
        build::SHORTEST,
        legs::{MAX_SPLITS, Split},
        sponsor::FLOOR,
    },
};

/// The keys of an offer that only this rail knows.
const OPTIONS: &[&str] = &["splits", "modes", "fee_payer"];

/// A split as an offer writes it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SplitTerms {
    /// A decimal in the token's usual unit.
    amount: String,
    recipient: String,
    /// 32 bytes; without it the transfer may have any memo or none.
    memo: Option<B256>,
}

/// The request for `terms`. No I/O: the memo that binds the payment follows from the challenge.
pub(crate) fn quote(rail: &Tempo, terms: &ChargeTerms) -> Result<Quote<Charge, Details>, NoQuote> {
    let (request, mut details) =
        read(rail, terms).map_err(|e| Fault::new("quoting a tempo charge").caused_by(e))?;
    let allowance = rail.settler.allowance.as_ref();
    let spent = allowance.is_some_and(|allowance| allowance.is_spent(now()));
    if details.fee_payer == Some(true) && spent {
        // Payers who pay their own fee are served all the same, unless the offer says otherwise.
        if terms.options.get("fee_payer") == Some(&Value::Bool(true)) {
            let why = "the network fees that are paid for payers in a day are used up";
            return Err(NoQuote::Declined(why.to_owned()));
        }
        details.fee_payer = None;
    }
    let at_least = match (request.amount.is_zero(), details.fee_payer) {
        (true, _) => 0,
        (false, Some(true)) => FLOOR,
        (false, _) => SHORTEST,
    };
    Ok(Quote::new(request, details).at_least(Duration::from_secs(at_least)))
}

fn now() -> u64 {
    u64::try_from(Timestamp::now().unix_millis().div_euclid(1000)).unwrap_or(0)
}

/// What `terms` ask for.
///
/// # Errors
/// Everything that is wrong with them.
pub(crate) fn read(rail: &Tempo, terms: &ChargeTerms) -> Result<(ChargeRequest, Details), Invalid> {
    let mut issues = Vec::new();
    let request = rail.payee.request_with(terms, rail.decimals, OPTIONS);
    let request = keep(request, &mut issues);
    let modes: Option<Vec<Mode>> = keep(option(terms, "modes"), &mut issues).flatten();
    let splits: Option<Vec<SplitTerms>> = keep(option(terms, "splits"), &mut issues).flatten();
    if modes.as_ref().is_some_and(Vec::is_empty) {
        let problem = "is empty; name `pull`, `push` or both";
        issues.push(Issue::new("modes", problem));
    }
    let wanted: Option<bool> = keep(option(terms, "fee_payer"), &mut issues).flatten();
    if wanted == Some(true) && rail.sponsor.is_none() {
        let problem = "is set, and the rail has no fee payer; configure `fee_payer` for it";
        issues.push(Issue::new("fee_payer", problem));
    }
    let amount = request.as_ref().map(|request| request.amount);
    let splits = splits.map(|list| read_splits(&list, amount, rail.decimals, &mut issues));
    Invalid::unless_empty(issues)?;
    // Not reached without a request: its absence has left an issue.
    let request = request.ok_or_else(|| Invalid::new("", "the terms cannot be read"))?;
    let free = request.amount.is_zero();
    let sponsored = !free && wanted.unwrap_or(rail.sponsor.is_some());
    let mut modes = modes.map_or(rail.modes, |modes| modes.as_slice().into());
    if sponsored {
        // Who broadcasts has paid the fee.
        modes = modes.pull_only().ok_or_else(|| {
            let problem = "is only push, where the payer pays the fee; leave `fee_payer` out";
            Invalid::new("modes", problem)
        })?;
    }
    let details = Details {
        chain_id: Some(rail.chain.id()),
        // A proof is no submission mode, so a zero-amount request names none.
        supported_modes: (!free).then(|| modes.names()),
        fee_payer: sponsored.then_some(true),
        splits,
        ..Details::default()
    };
    Ok((request, details))
}

fn keep<T>(result: Result<T, Invalid>, issues: &mut Vec<Issue>) -> Option<T> {
    let keep = |invalid: Invalid| issues.extend(invalid.into_issues());
    result.map_err(keep).ok()
}

/// An option's value, if it is there.
fn option<T: DeserializeOwned>(terms: &ChargeTerms, key: &str) -> Result<Option<T>, Invalid> {
    let value = terms.options.get(key);
    let read = value.map(|value| config::read(value).map_err(|invalid| invalid.under(key)));
    read.transpose()
}

/// Splits as the request has them: 1 to 10, together less than the amount, none of them zero.
fn read_splits(
    list: &[SplitTerms],
    amount: Option<Amount>,
    decimals: u8,
    issues: &mut Vec<Issue>,
) -> Vec<Value> {
    let before = issues.len();
    if list.is_empty() || list.len() > MAX_SPLITS {
        let problem = format!("holds {}; give 1 to {MAX_SPLITS}, or none", list.len());
        issues.push(Issue::new("splits", problem));
    }
    let mut total = Some(Amount::ZERO);
    let mut splits = Vec::with_capacity(list.len());
    for (number, split) in list.iter().enumerate() {
        let at = |member: &str| format!("splits.{number}.{member}");
        let part = match Amount::from_decimal(&split.amount, decimals) {
            Ok(part) if part.is_zero() => {
                issues.push(Issue::new(at("amount"), "is zero; leave the split out"));
                continue;
            }
            Ok(part) => part,
            Err(error) => {
                issues.push(Issue::new(at("amount"), error.to_string()));
                continue;
            }
        };
        total = total.and_then(|total| total.checked_add(part));
        match account(&at("recipient"), &split.recipient) {
            Ok(recipient) => splits.extend(serde_json::to_value(Split {
                amount: part,
                recipient,
                memo: split.memo,
            })),
            Err(issue) => issues.push(issue),
        }
    }
    let less = |amount: Amount| total.is_some_and(|total| total < amount);
    if issues.len() == before && !amount.is_none_or(less) {
        let problem = "leave nothing of the amount; together they must be less";
        issues.push(Issue::new("splits", problem));
    }
    splits
}
