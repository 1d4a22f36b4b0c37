//! What a session asks for: the price of a unit, and a fresh invoice for the deposit.

use std::time::Duration;

use farebox_core::{ChargeTerms, Fault, Invalid, Issue, NoQuote, Quote, Session, SessionTerms};
use farebox_wire::Amount;

use super::wire::SessionDetails;
use crate::bolt11::{Details, Invoice};
use crate::charge::quote::{CURRENCY, fault, lasting, read_sats};
use crate::node::{NewInvoice, Node};

/// The deposit in units, where an offer does not say.
const UNITS: u128 = 20;

/// Checked terms, sats.
#[derive(Debug)]
pub(crate) struct Price {
    pub(crate) unit: Amount,
    pub(crate) deposit: Amount,
}

/// Checks an offer's terms.
pub(crate) fn read(terms: &SessionTerms) -> Result<Price, Invalid> {
    let mut issues = Vec::new();
    if let Err(invalid) = terms.only_options(&[]) {
        issues.extend(invalid.into_issues());
    }
    // A unit is priced like a charge, and so is a deposit.
    let as_charge = |amount: &str| ChargeTerms {
        amount: amount.to_owned(),
        currency: terms.currency.clone(),
        recipient: terms.recipient.clone(),
        description: terms.description.clone(),
        ..ChargeTerms::default()
    };
    let unit = match read_sats(&as_charge(&terms.amount)) {
        Ok(unit) => unit,
        Err(invalid) => {
            issues.extend(invalid.into_issues());
            Amount::ZERO
        }
    };
    if terms.unit.trim().is_empty() {
        let problem = "is empty; say what is counted, like \"token\" or \"request\"";
        issues.push(Issue::new("unit", problem));
    }
    let deposit = match &terms.suggested_deposit {
        None => Amount::new(unit.get().saturating_mul(UNITS)),
        Some(text) => match Amount::from_decimal(text, 0) {
            Ok(deposit) if deposit < unit => {
                let problem = format!("is less than one unit; give at least \"{unit}\" sats");
                issues.push(Issue::new("suggested_deposit", problem));
                deposit
            }
            Ok(deposit) => deposit,
            Err(error) => {
                let problem = format!("{error}; give whole sats, like \"1000\"");
                issues.push(Issue::new("suggested_deposit", problem));
                Amount::ZERO
            }
        },
    };
    if issues.is_empty()
        && let Err(invalid) = read_sats(&as_charge(&deposit.to_string()))
    {
        let under = invalid.into_issues().into_iter();
        issues.extend(under.map(|issue| Issue::new("suggested_deposit", issue.problem)));
    }
    Invalid::unless_empty(issues)?;
    Ok(Price { unit, deposit })
}

/// Mints the deposit's invoice and checks that it says what was asked for.
pub(crate) async fn quote(
    node: &dyn Node,
    terms: &SessionTerms,
    expiry: Duration,
    idle: Duration,
) -> Result<Quote<Session, SessionDetails>, NoQuote> {
    // Terms that depend on the request were not there to be checked at startup.
    let price = read(terms).map_err(|e| NoQuote::Declined(e.to_string()))?;
    let expiry = lasting(expiry)?;
    let msat = u64::try_from(price.deposit.get().saturating_mul(1_000)).unwrap_or(u64::MAX);
    let memo = terms.description.clone().unwrap_or_default();
    let minted = node
        .create_invoice(NewInvoice::new(msat, memo, expiry))
        .await
        .map_err(|e| fault("minting a Lightning invoice", e))?;
    let said = Details {
        invoice: minted.bolt11,
        payment_hash: Some(minted.payment_hash.to_string()),
        network: node.network(),
    };
    let invoice = Invoice::check(price.deposit, &said)
        .map_err(|e| Fault::new("checking a minted invoice").caused_by(e))?;
    let request = terms.request(price.unit, CURRENCY);
    let details = SessionDetails::new(&invoice, price.deposit, idle.as_secs());
    Ok(Quote::new(request, details).not_after(invoice.expires))
}
