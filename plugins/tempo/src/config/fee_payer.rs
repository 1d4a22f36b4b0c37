//! Who pays the payers' network fees, and what that may cost.

use std::{sync::Arc, time::Duration};

use farebox_core::{Invalid, Issue, SecretSource};
use farebox_proof::terms;
use farebox_wire::Amount;
use serde::Deserialize;

use super::{SecretText, collect, private_key, unreported};
use crate::{
    Sponsor, SponsorBudget, SponsorLimits,
    charge::build::ON_THE_WAY,
    charge::sponsor::{FLOOR, is_usual, usual_token},
};

/// Digits of an attodollar after a dollar's point.
const ATTO: u8 = 18;

/// An account that pays network fees, and what one transaction may cost it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeePayerConfig {
    /// The account's secp256k1 private key, hexadecimal. This or `url` is required.
    pub private_key: Option<SecretSource>,
    /// A service that has the key, asked by `eth_fillTransaction`. May hold an API key.
    pub url: Option<SecretText>,
    /// The service's account, if no other may pay.
    pub account: Option<String>,
    /// The stablecoin that it pays fees in; the chain's usual one if left out.
    pub fee_token: Option<String>,
    /// The most gas, 2 000 000 if left out; each call beyond the first may take 300 000 more.
    pub max_gas: Option<u64>,
    /// The most that a fee may come to, in dollars: `"0.05"`, which is the default.
    pub max_fee: Option<String>,
    /// The longest time for which a transaction may stay valid; 900 seconds if left out.
    pub window_seconds: Option<u64>,
    /// The most that fees may come to in a day (UTC), in dollars. Not limited if left out.
    pub daily_budget: Option<String>,
    /// The most that the fees of one payer may come to in a day, in dollars. Not limited if left
    /// out.
    pub daily_budget_per_payer: Option<String>,
    /// The most that the fees of one payer's transactions may come to that are under way at once, in
    /// dollars; ten times `max_fee` if left out.
    pub open_per_payer: Option<String>,
}

impl FeePayerConfig {
    /// The sponsor that is configured.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub(super) fn read(&self, chain_id: u64) -> Result<Sponsor, Invalid> {
        let mut issues = Vec::new();
        let sponsor = match &self.url {
            None => self.local(chain_id, &mut issues),
            Some(url) => self.remote(url, &mut issues),
        };
        let limits = self.limits(chain_id, &mut issues);
        let total = dollars("daily_budget", self.daily_budget.as_deref(), &mut issues);
        let per_payer = self.daily_budget_per_payer.as_deref();
        let per_payer = dollars("daily_budget_per_payer", per_payer, &mut issues);
        let open = self.open_per_payer.as_deref();
        let open = dollars("open_per_payer", open, &mut issues);
        Invalid::unless_empty(issues)?;
        let budget = SponsorBudget::new(per_payer, total).open_per_payer(open);
        let sponsor = sponsor.ok_or_else(unreported)?;
        Ok(sponsor.limits(limits).budget(budget))
    }

    fn local(&self, chain_id: u64, issues: &mut Vec<Issue>) -> Option<Sponsor> {
        let key = collect(private_key(self.private_key.as_ref()), issues);
        if self.account.is_some() {
            let problem = "is the account of a `url`; a private key has its own, leave it out";
            issues.push(Issue::new("account", problem));
        }
        let token = match self.fee_token.as_deref() {
            None => Some(usual_token(chain_id)),
            Some(text) => collect(terms::token("fee_token", text), issues),
        };
        if token.is_some_and(|token| !is_usual(token, chain_id)) {
            let usual = usual_token(chain_id);
            let problem = format!("is none that fees are paid in on this chain, such as {usual}");
            issues.push(Issue::new("fee_token", problem));
        }
        Some(Sponsor::new(Arc::new(key?), token?))
    }

    fn remote(&self, url: &SecretText, issues: &mut Vec<Issue>) -> Option<Sponsor> {
        for (key, is_there) in [
            ("private_key", self.private_key.is_some()),
            ("fee_token", self.fee_token.is_some()),
        ] {
            if is_there {
                let problem = "is the service's own where there is a `url`; leave one of them out";
                issues.push(Issue::new(key, problem));
            }
        }
        let account = self.account.as_deref();
        let account = account.map(|text| collect(terms::account("account", text), issues));
        let url = collect(url.0.read("url"), issues)?;
        let keep = |invalid: Invalid| issues.extend(invalid.into_issues());
        let sponsor = Sponsor::remote(url.expose(), account.flatten());
        sponsor.map_err(keep).ok()
    }

    fn limits(&self, chain_id: u64, issues: &mut Vec<Issue>) -> SponsorLimits {
        let mut limits = SponsorLimits::of_chain(chain_id);
        limits.gas = self.max_gas.unwrap_or(limits.gas);
        let fee = dollars("max_fee", self.max_fee.as_deref(), issues);
        limits.fee = fee.unwrap_or(limits.fee);
        match self.window_seconds {
            Some(seconds) if seconds < FLOOR + ON_THE_WAY => {
                let least = FLOOR + ON_THE_WAY;
                let problem =
                    format!("is {seconds}; a transaction is sponsored for {least} at least");
                issues.push(Issue::new("window_seconds", problem));
            }
            Some(seconds) => limits.window = Duration::from_secs(seconds),
            None => {}
        }
        limits
    }
}

/// Attodollars.
fn dollars(key: &str, text: Option<&str>, issues: &mut Vec<Issue>) -> Option<u128> {
    match Amount::from_decimal(text?, ATTO) {
        Ok(amount) => Some(amount.get()),
        Err(error) => {
            issues.push(Issue::new(key, error.to_string()));
            None
        }
    }
}
