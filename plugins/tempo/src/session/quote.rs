//! Terms into a request.

use alloy::primitives::Address;
use farebox_core::{
    ChargeTerms, Fault, Invalid, Issue, NoQuote, Quote, Session, SessionRequest, SessionTerms,
};
use farebox_wire::{Amount, Timestamp};

use super::{Details, PROTOCOL, TempoSession, channel::MAX_AMOUNT};

/// The keys of an offer that only this rail knows.
const OPTIONS: &[&str] = &["fee_payer"];

/// The request for `terms`. No I/O. Where the day's network fees are used up, payers who pay their
/// own are served all the same.
pub(super) fn quote(
    rail: &TempoSession,
    terms: &SessionTerms,
) -> Result<Quote<Session, Details>, NoQuote> {
    let (request, mut details) =
        read(rail, terms).map_err(|e| Fault::new("quoting a tempo session").caused_by(e))?;
    let now = Timestamp::now().unix_millis().div_euclid(1000);
    let now = u64::try_from(now).unwrap_or(0);
    let allowance = rail.base.settler.allowance.as_ref();
    let spent = allowance.is_some_and(|allowance| allowance.is_spent(now));
    if details.fee_payer == Some(true) && spent {
        if terms.options.get("fee_payer") == Some(&serde_json::Value::Bool(true)) {
            let why = "the network fees that are paid for payers in a day are used up";
            return Err(NoQuote::Declined(why.to_owned()));
        }
        (details.fee_payer, details.fee_token) = (None, None);
    }
    Ok(Quote::new(request, details))
}

/// What `terms` ask for.
///
/// # Errors
/// Everything that is wrong with them.
pub(super) fn read(
    rail: &TempoSession,
    terms: &SessionTerms,
) -> Result<(SessionRequest, Details), Invalid> {
    let base = &rail.base;
    let mut issues = terms
        .only_options(OPTIONS)
        .err()
        .map(Invalid::into_issues)
        .unwrap_or_default();
    // Amount, currency and recipient are written and read as a charge's are.
    let charge = base.payee.request(
        &ChargeTerms {
            amount: terms.amount.clone(),
            currency: terms.currency.clone(),
            recipient: terms.recipient.clone(),
            description: terms.description.clone(),
            ..ChargeTerms::default()
        },
        base.decimals,
    );
    let charge = charge.map_err(|e| issues.extend(e.into_issues())).ok();
    if let Some(charge) = &charge {
        if charge.amount.is_zero() {
            issues.push(Issue::new(
                "amount",
                "is zero; a session is for what costs something",
            ));
        }
        fits("amount", charge.amount, &mut issues);
    }
    let deposit = terms.suggested_deposit.as_ref();
    let suggested_deposit = deposit
        .or(rail.suggested_deposit.as_ref())
        .and_then(|text| {
            let deposit = Amount::from_decimal(text, base.decimals);
            let keep = |error: farebox_wire::AmountError| {
                issues.push(Issue::new("suggested_deposit", error.to_string()));
            };
            deposit.map_err(keep).ok()
        });
    if let Some(deposit) = suggested_deposit {
        fits("suggested_deposit", deposit, &mut issues);
        if charge
            .as_ref()
            .is_some_and(|charge| deposit < charge.amount)
        {
            let problem = "is less than one unit costs";
            issues.push(Issue::new("suggested_deposit", problem));
        }
    }
    let wanted = match terms.options.get("fee_payer") {
        None => None,
        Some(serde_json::Value::Bool(wanted)) => Some(*wanted),
        Some(_) => {
            issues.push(Issue::new("fee_payer", "is neither true nor false"));
            None
        }
    };
    if wanted == Some(true) && base.sponsor.is_none() {
        let problem = "is set, and the rail has no fee payer; configure `fee_payer` for it";
        issues.push(Issue::new("fee_payer", problem));
    }
    let recipient = charge
        .as_ref()
        .and_then(|charge| charge.recipient.as_deref());
    let operator = recipient.and_then(|text| text.parse().ok());
    let operator = match &rail.operator {
        Some(own) => operator.and_then(|recipient| own.beside(recipient)),
        None => {
            let problem = "cannot be offered without the key that settles them; configure \
                           `session.operator_key` of the rail";
            issues.push(Issue::new("", problem));
            None
        }
    };
    Invalid::unless_empty(issues)?;
    // Not reached without one: its absence has left an issue.
    let charge = charge.ok_or_else(|| Invalid::new("", "the terms cannot be read"))?;
    let sponsored = wanted.unwrap_or(base.sponsor.is_some());
    let fee_token = base
        .sponsor
        .as_ref()
        .and_then(|sponsor| sponsor.fee_token());
    let request = SessionRequest {
        recipient: charge.recipient,
        suggested_deposit,
        ..terms.request(charge.amount, charge.currency)
    };
    let details = Details {
        escrow_contract: Some(rail.domain.escrow()),
        chain_id: Some(rail.domain.chain_id()),
        session_protocol: Some(PROTOCOL.to_owned()),
        min_voucher_delta: Some(rail.min_delta).filter(|delta| !delta.is_zero()),
        fee_payer: sponsored.then_some(true),
        fee_token: fee_token.filter(|_| sponsored),
        operator,
        ..Details::default()
    };
    Ok((request, details))
}

fn fits(key: &str, amount: Amount, issues: &mut Vec<Issue>) {
    if amount.get() > MAX_AMOUNT {
        let problem = "is more than a channel can hold (2^96 - 1 base units)";
        issues.push(Issue::new(key, problem));
    }
}

/// What a request of ours asks for, with its addresses read.
pub(super) struct Asked {
    pub(super) payee: Address,
    pub(super) token: Address,
    pub(super) operator: Address,
    pub(super) amount: u128,
}

impl Asked {
    /// `None` if the request is none of ours.
    pub(super) fn of(request: &SessionRequest, details: &Details) -> Option<Self> {
        Some(Self {
            payee: request.recipient.as_deref()?.parse().ok()?,
            token: request.currency.parse().ok()?,
            operator: details.operator.unwrap_or_default(),
            amount: request.amount.get(),
        })
    }
}
