//! Settlement over Stripe Connect: who of a platform's accounts gets what of a charge. The seller's
//! policy alone: it is no part of a challenge, and nothing that a payer sends has a say in it.

use std::{collections::BTreeMap, fmt, sync::Arc};

use farebox_core::{Ask, Charge, Issue};
use farebox_wire::Amount;
use serde::{Deserialize, Serialize};
use stripe_core::payment_intent::{CreatePaymentIntent, CreatePaymentIntentTransferData};

use crate::{currency::Currency, quote::Details, refund::RefundPolicy};

/// What a charge says of connected accounts. Empty unless a platform charges for others.
///
/// The fields are the parameters of that name of `POST /v1/payment_intents`
/// (docs.stripe.com/connect/charges), amounts in the currency's smallest unit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Settlement {
    /// `Stripe-Account`: the connected account that charges, `acct_…`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// `application_fee_amount`: what the platform keeps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub application_fee: Option<Amount>,
    /// `on_behalf_of`: whose business it is, `acct_…`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_behalf_of: Option<String>,
    /// `transfer_data[destination]`: whom the money goes on to, `acct_…`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
    /// `transfer_data[amount]`: how much of it, where it is not all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transfer: Option<Amount>,
    /// `transfer_group`: what ties the charge to transfers made later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transfer_group: Option<String>,
}

impl Settlement {
    /// Why Stripe would refuse it for a charge of `amount`, if it would.
    ///
    /// # Errors
    /// What contradicts itself, for the seller.
    pub fn check(&self, amount: Amount) -> Result<(), String> {
        let accounts = [&self.account, &self.on_behalf_of, &self.destination];
        if let Some(bad) = accounts.into_iter().flatten().find(|id| !is_account(id)) {
            return Err(format!("`{bad}` is no connected account, `acct_…`"));
        }
        if self.account.is_some() && (self.destination.is_some() || self.on_behalf_of.is_some()) {
            return Err(
                "`account` charges for itself; it goes with neither `destination` nor \
                 `on_behalf_of`"
                    .to_owned(),
            );
        }
        if self.transfer.is_some() && self.destination.is_none() {
            return Err("`transfer` needs a `destination`".to_owned());
        }
        if self.transfer.is_some() && self.application_fee.is_some() {
            return Err("`transfer` and `application_fee` exclude each other".to_owned());
        }
        if self.application_fee.is_some() && self.account.is_none() && self.destination.is_none() {
            return Err("an application fee needs an `account` or a `destination`".to_owned());
        }
        for (name, part) in [
            ("application fee", self.application_fee),
            ("transfer", self.transfer),
        ] {
            if part.is_some_and(|part| part > amount || part.is_zero()) {
                return Err(format!(
                    "the {name} is nothing, or more than the price; it is a part of it"
                ));
            }
        }
        Ok(())
    }

    /// The parameters of a charge.
    pub(crate) fn apply(&self, mut request: CreatePaymentIntent) -> CreatePaymentIntent {
        // Checked to be at most the charge's own amount, which fits.
        let cents = |amount: Amount| i64::try_from(amount.get()).unwrap_or(i64::MAX);
        if let Some(fee) = self.application_fee {
            request = request.application_fee_amount(cents(fee));
        }
        if let Some(account) = &self.on_behalf_of {
            request = request.on_behalf_of(account.as_str());
        }
        if let Some(destination) = &self.destination {
            let mut transfer = CreatePaymentIntentTransferData::new(destination.as_str());
            transfer.amount = self.transfer.map(cents);
            request = request.transfer_data(transfer);
        }
        if let Some(group) = &self.transfer_group {
            request = request.transfer_group(group.as_str());
        }
        request
    }
}

fn is_account(id: &str) -> bool {
    id.strip_prefix("acct_").is_some_and(|rest| {
        !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    })
}

/// The keys under `[rails.stripe.connect]`: the same settlement for every charge.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct ConnectConfig {
    /// See [`Settlement::account`].
    pub account: Option<String>,
    /// See [`Settlement::on_behalf_of`].
    pub on_behalf_of: Option<String>,
    /// See [`Settlement::destination`].
    pub destination: Option<String>,
    /// See [`Settlement::transfer_group`].
    pub transfer_group: Option<String>,
    /// What the platform keeps of each charge, in basis points of it, rounded down.
    #[serde(default)]
    pub application_fee_bps: u16,
    /// What it keeps besides, a decimal for each currency: `{ usd = "0.05" }`.
    #[serde(default)]
    pub application_fee: BTreeMap<String, String>,
    /// What goes with a refund: `{ application_fee = true, reverse_transfer = true }`. Neither,
    /// unless said.
    #[serde(default)]
    pub refund: RefundPolicy,
}

/// A library user's own rule.
type Decide = Arc<dyn Fn(&Ask<Charge, Details>) -> Settlement + Send + Sync>;

/// Who decides what a charge says of connected accounts.
#[derive(Clone, Default)]
pub(crate) enum Connect {
    #[default]
    None,
    Policy(Policy),
    Custom(Decide),
}

impl fmt::Debug for Connect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Policy(_) => "Policy",
            Self::Custom(_) => "Custom",
        })
    }
}

impl Connect {
    /// The settlement of a charge.
    ///
    /// # Errors
    /// Why Stripe would refuse it, for the seller.
    pub(crate) fn settlement(&self, ask: &Ask<Charge, Details>) -> Result<Settlement, String> {
        let amount = ask.request.amount;
        let settlement = match self {
            Self::None => return Ok(Settlement::default()),
            Self::Policy(policy) => policy.settlement(&ask.request.currency, amount),
            Self::Custom(custom) => custom(ask),
        };
        settlement.check(amount).map(|()| settlement)
    }

    /// Why a charge of `amount` could not be settled, as far as that is known before it is made.
    pub(crate) fn check(&self, currency: &str, amount: Amount) -> Result<(), String> {
        match self {
            Self::Policy(policy) => policy.settlement(currency, amount).check(amount),
            Self::None | Self::Custom(_) => Ok(()),
        }
    }

    /// The account that charges, if it is always the same one.
    pub(crate) fn account(&self) -> Option<&str> {
        match self {
            Self::Policy(policy) => policy.base.account.as_deref(),
            Self::None | Self::Custom(_) => None,
        }
    }
}

/// A checked [`ConnectConfig`].
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    base: Settlement,
    bps: u16,
    fixed: BTreeMap<String, Amount>,
}

impl Policy {
    fn settlement(&self, currency: &str, amount: Amount) -> Settlement {
        let share = amount.get().saturating_mul(self.bps.into()) / 10_000;
        let fixed = self.fixed.get(currency).map_or(0, |fixed| fixed.get());
        let fee = share.saturating_add(fixed);
        Settlement {
            application_fee: (fee > 0).then_some(Amount::new(fee)),
            ..self.base.clone()
        }
    }
}

impl ConnectConfig {
    pub(crate) fn check(self, issues: &mut Vec<Issue>) -> Option<Policy> {
        let before = issues.len();
        let mut fixed = BTreeMap::new();
        for (code, text) in &self.application_fee {
            match Currency::parse(code).and_then(|c| Ok((c.code().to_owned(), c.read(text)?))) {
                Ok((code, amount)) => drop(fixed.insert(code, amount)),
                Err(problem) => {
                    let key = format!("connect.application_fee.{code}");
                    issues.push(Issue::new(key, problem));
                }
            }
        }
        if self.application_fee_bps > 10_000 {
            let problem = "is over 10000 basis points, the whole charge";
            issues.push(Issue::new("connect.application_fee_bps", problem));
        }
        let policy = Policy {
            base: Settlement {
                account: self.account,
                on_behalf_of: self.on_behalf_of,
                destination: self.destination,
                transfer_group: self.transfer_group,
                ..Settlement::default()
            },
            bps: self.application_fee_bps,
            fixed,
        };
        let keeps = policy.bps > 0 || !policy.fixed.is_empty();
        let probe = Settlement {
            application_fee: keeps.then_some(Amount::new(1)),
            ..policy.base.clone()
        };
        if let Err(problem) = probe.check(Amount::new(1)) {
            issues.push(Issue::new("connect", problem));
        }
        (issues.len() == before).then_some(policy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(toml: &str) -> Result<Policy, Vec<String>> {
        let config: ConnectConfig = serde_json::from_str(toml).unwrap();
        let mut issues = Vec::new();
        config
            .check(&mut issues)
            .ok_or_else(|| issues.iter().map(|issue| format!("{issue:?}")).collect())
    }

    /// Protects: the platform keeps its share rounded down, and never more than the price.
    #[test]
    fn the_fee_is_a_part_of_the_price() {
        let policy = policy(
            r#"{"destination": "acct_1", "application_fee_bps": 250, "application_fee": {"usd": "0.05"}}"#,
        )
        .unwrap();
        let fee = |amount: u128| {
            let settlement = policy.settlement("usd", Amount::new(amount));
            (settlement.application_fee.map(Amount::get), settlement)
        };
        assert_eq!(fee(199).0, Some(9));
        assert!(fee(199).1.check(Amount::new(199)).is_ok());
        assert_eq!(fee(4).0, Some(5));
        assert!(fee(4).1.check(Amount::new(4)).is_err(), "5 of 4");
        let other = policy.settlement("eur", Amount::new(10));
        assert_eq!(other.application_fee, None, "a fee of nothing is left out");
    }

    /// Protects: what Stripe refuses for every charge stops the server from starting.
    #[test]
    fn contradictions_are_found_before_the_first_charge() {
        for (bad, word) in [
            (
                r#"{"account": "acct_1", "destination": "acct_2"}"#,
                "account",
            ),
            (
                r#"{"account": "acct_1", "on_behalf_of": "acct_2"}"#,
                "account",
            ),
            (r#"{"application_fee_bps": 10}"#, "needs"),
            (r#"{"destination": "cus_1"}"#, "acct_"),
            (r#"{"destination": "acct_1&x=1"}"#, "acct_"),
            (
                r#"{"destination": "acct_1", "application_fee_bps": 10001}"#,
                "10000",
            ),
            (
                r#"{"destination": "acct_1", "application_fee": {"xyz": "1"}}"#,
                "xyz",
            ),
        ] {
            let issues = policy(bad).unwrap_err();
            assert!(issues.concat().contains(word), "{bad}: {issues:?}");
        }
    }
}
