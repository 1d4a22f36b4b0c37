//! What the rail asks for: a fresh invoice per challenge.

use std::time::Duration;

use farebox_core::Charge;
use farebox_core::{ChargeTerms, Fault, Invalid, Issue, NoQuote, Quote};
use farebox_wire::{Amount, Timestamp};

use crate::bolt11::{Details, Invoice};
use crate::charge::rate::{self, Rates};
use crate::node::{NewInvoice, Node, NodeError};

/// The only currency of the rail.
pub(crate) const CURRENCY: &str = "sat";
/// All there will ever be, in sats; below it, amounts in millisatoshis fit 64 bits.
const MAX_SATS: u128 = 2_100_000_000_000_000;
/// What BOLT11 can carry as a description, bytes.
const MAX_MEMO: usize = 639;

/// What an offer asks for.
pub(crate) enum Price {
    /// So many sats.
    Sats(Amount),
    /// What so much of this currency comes to.
    In(String),
}

/// Checks an offer's terms.
pub(crate) fn read_terms(terms: &ChargeTerms, rates: Option<&Rates>) -> Result<Price, Invalid> {
    let mut issues = Vec::new();
    if let Err(invalid) = terms.only_options(&[]) {
        issues.extend(invalid.into_issues());
    }
    let mut note = |key: &str, problem: String| issues.push(Issue::new(key, problem));
    let currency = terms.currency.as_deref().filter(|c| *c != CURRENCY);
    let amount = match Amount::from_decimal(&terms.amount, 0) {
        _ if currency.is_some() => {
            if rate::read(&terms.amount).is_none() {
                let problem = "is no amount above 0 with at most eight decimals, like \"0.05\"";
                note("amount", problem.into());
            }
            Amount::ZERO
        }
        Ok(amount) if amount.is_zero() => {
            note("amount", "is 0; Lightning needs at least \"1\" sat".into());
            amount
        }
        Ok(amount) if amount.get() > MAX_SATS => {
            note(
                "amount",
                format!("is more than all bitcoin; at most \"{MAX_SATS}\" sats"),
            );
            amount
        }
        Ok(amount) => amount,
        Err(error) => {
            note("amount", format!("{error}; give whole sats, like \"21\""));
            Amount::ZERO
        }
    };
    if let Some(other) = currency {
        match rates {
            Some(rates) if rates.knows(other) => {}
            Some(_) => note(
                "currency",
                format!("is `{other}`, which has no rate; add it to `rates.currencies`"),
            ),
            None => note(
                "currency",
                format!(
                    "is `{other}`; Lightning takes \"{CURRENCY}\" only, unless `rates` are set"
                ),
            ),
        }
    }
    if terms.recipient.is_some() {
        note(
            "recipient",
            "cannot be chosen: an invoice pays the node; drop the key".into(),
        );
    }
    if terms
        .description
        .as_ref()
        .is_some_and(|d| d.len() > MAX_MEMO)
    {
        note(
            "description",
            format!("is too long for an invoice; at most {MAX_MEMO} bytes"),
        );
    }
    Invalid::unless_empty(issues)?;
    Ok(match currency {
        None => Price::Sats(amount),
        Some(currency) => Price::In(currency.to_owned()),
    })
}

/// An amount of sats, where there is nothing but sats.
pub(crate) fn read_sats(terms: &ChargeTerms) -> Result<Amount, Invalid> {
    read_terms(terms, None).map(|price| match price {
        Price::Sats(sats) => sats,
        // Without rates, such terms have been refused.
        Price::In(_) => Amount::ZERO,
    })
}

/// The price in sats, and how long it holds.
async fn in_sats(
    price: Price,
    amount: &str,
    rates: Option<&Rates>,
    expiry: Duration,
) -> Result<(Amount, Duration), NoQuote> {
    let (currency, rates) = match (price, rates) {
        (Price::Sats(sats), _) => return Ok((sats, expiry)),
        (Price::In(currency), Some(rates)) => (currency, rates),
        (Price::In(_), None) => return Err(NoQuote::Declined("there are no rates".into())),
    };
    let now = Timestamp::now();
    let rate = rates.rate(&currency, &now).await?;
    let sats = rate.sats(amount).filter(|sats| sats.get() <= MAX_SATS);
    let sats = sats.ok_or_else(|| NoQuote::Declined("is more than all bitcoin".into()))?;
    // An invoice at a price that has lapsed must not be payable.
    let holds = rate.valid_until.unix_millis() - now.unix_millis();
    let holds = Duration::from_millis(u64::try_from(holds).unwrap_or(0));
    Ok((sats, expiry.min(holds)))
}

/// Whether a node's failure passes (503, come again) or not (500).
pub(crate) fn fault(what: &'static str, error: NodeError) -> Fault {
    match error {
        NodeError::Unreachable(_) | NodeError::InFlight => Fault::unavailable(what),
        NodeError::Refused(_) | NodeError::Nonsense(_) => Fault::new(what),
    }
    .caused_by(error)
}

/// An invoice for as many whole seconds as there are. A node takes none for "as long as you like".
pub(crate) fn lasting(expiry: Duration) -> Result<Duration, NoQuote> {
    let whole = Duration::from_secs(expiry.as_secs());
    match whole.is_zero() {
        true => Err(NoQuote::Declined(
            "no invoice is as short as a challenge lasts, which is less than a second".into(),
        )),
        false => Ok(whole),
    }
}

/// Mints an invoice and checks that it says what was asked for: what is issued is bound into the
/// challenge, and the node's word is not enough for that.
pub(crate) async fn quote(
    node: &dyn Node,
    terms: &ChargeTerms,
    rates: Option<&Rates>,
    expiry: Duration,
) -> Result<Quote<Charge, Details>, NoQuote> {
    // Terms that depend on the request were not there to be checked at startup.
    let price = read_terms(terms, rates).map_err(|e| NoQuote::Declined(e.to_string()))?;
    let (amount, expiry) = in_sats(price, &terms.amount, rates, expiry).await?;
    let expiry = lasting(expiry)?;
    let msat = u64::try_from(amount.get().saturating_mul(1_000)).unwrap_or(u64::MAX);
    let memo = terms.description.clone().unwrap_or_default();
    let minted = node
        .create_invoice(NewInvoice::new(msat, memo, expiry))
        .await
        .map_err(|e| fault("minting a Lightning invoice", e))?;
    let details = Details {
        invoice: minted.bolt11,
        payment_hash: Some(minted.payment_hash.to_string()),
        network: node.network(),
    };
    let invoice = Invoice::check(amount, &details)
        .map_err(|e| Fault::new("checking a minted invoice").caused_by(e))?;
    let request = terms.request(amount, CURRENCY);
    Ok(Quote::new(request, details).not_after(invoice.expires))
}
