//! What the rail asks for.

use std::collections::BTreeMap;

use farebox_core::{Charge, ChargeTerms, Invalid, Issue, NoQuote, Quote};
use farebox_wire::Amount;
use serde::{Deserialize, Serialize};

use crate::{connect::Connect, currency::Currency};

/// The rail's own request members, `methodDetails`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Details {
    /// The Business Network profile that the token must be granted to.
    pub network_id: String,
    /// Which payment methods the token may stand for.
    pub payment_method_types: Vec<String>,
    /// What the seller wants to find on the PaymentIntent. For the seller's books only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<BTreeMap<String, String>>,
}

/// Metadata that the rail itself sets on every PaymentIntent.
pub(crate) const OWN_METADATA: [&str; 4] = [
    "machine_payment",
    "mpp_challenge_id",
    "mpp_intent",
    "challenge_id",
];

/// Stripe takes 50 pairs (docs.stripe.com/metadata).
const MAX_METADATA: usize = 50 - OWN_METADATA.len();
const MAX_METADATA_KEY: usize = 40;
const MAX_METADATA_VALUE: usize = 500;
/// What PaymentIntents take as text for people.
const MAX_DESCRIPTION: usize = 1000;

/// Checked terms.
#[derive(Debug)]
pub(crate) struct Price {
    pub(crate) amount: Amount,
    pub(crate) currency: Currency,
    metadata: Option<BTreeMap<String, String>>,
}

/// Checks everything but the minimum.
fn read(terms: &ChargeTerms) -> Result<Price, Invalid> {
    let mut issues = Vec::new();
    if let Err(invalid) = terms.only_options(&["metadata"]) {
        issues.extend(invalid.into_issues());
    }
    let currency = match terms.currency.as_deref().map(Currency::parse) {
        Some(Ok(currency)) => Some(currency),
        Some(Err(problem)) => {
            issues.push(Issue::new("currency", problem));
            None
        }
        None => {
            let problem = "is missing; give an ISO 4217 code, like \"usd\"";
            issues.push(Issue::new("currency", problem));
            None
        }
    };
    let amount = currency.as_ref().and_then(|currency| {
        currency
            .read(&terms.amount)
            .map_err(|p| issues.push(Issue::new("amount", p)))
            .ok()
    });
    if terms.recipient.is_some() {
        let problem = "cannot be chosen: the account of `secret_key` is paid; drop the key";
        issues.push(Issue::new("recipient", problem));
    }
    if terms
        .description
        .as_ref()
        .is_some_and(|d| d.chars().count() > MAX_DESCRIPTION)
    {
        let problem = format!("is too long; at most {MAX_DESCRIPTION} characters");
        issues.push(Issue::new("description", problem));
    }
    let metadata = match metadata(terms) {
        Ok(metadata) => metadata,
        Err(issue) => {
            issues.push(issue);
            None
        }
    };
    Invalid::unless_empty(issues)?;
    match (amount, currency) {
        (Some(amount), Some(currency)) => Ok(Price {
            amount,
            currency,
            metadata,
        }),
        // Whatever is missing has been noted above.
        _ => Err(Invalid::new("amount", "cannot be read")),
    }
}

fn metadata(terms: &ChargeTerms) -> Result<Option<BTreeMap<String, String>>, Issue> {
    let issue = |problem: String| Err(Issue::new("metadata", problem));
    let Some(value) = terms.options.get("metadata") else {
        return Ok(None);
    };
    let Ok(map) = BTreeMap::<String, String>::deserialize(value) else {
        return issue("is no table of texts; write { order = \"7\" }".to_owned());
    };
    if map.len() > MAX_METADATA {
        return issue(format!("has {} pairs; at most {MAX_METADATA}", map.len()));
    }
    for (key, value) in &map {
        if OWN_METADATA.contains(&key.as_str()) {
            return issue(format!(
                "sets `{key}`, which the rail sets itself; use another name"
            ));
        }
        let fits = (1..=MAX_METADATA_KEY).contains(&key.chars().count());
        if !fits || key.contains(['[', ']']) {
            return issue(format!(
                "has the name `{key}`; names are 1 to {MAX_METADATA_KEY} characters without brackets"
            ));
        }
        if value.chars().count() > MAX_METADATA_VALUE {
            return issue(format!(
                "`{key}` is too long; at most {MAX_METADATA_VALUE} characters"
            ));
        }
    }
    Ok((!map.is_empty()).then_some(map))
}

/// What every quote of a rail has in common.
#[derive(Debug)]
pub(crate) struct Quoting {
    pub(crate) network_id: String,
    pub(crate) payment_method_types: Vec<String>,
    /// Smallest charges that differ from Stripe's table.
    pub(crate) minimums: BTreeMap<String, Amount>,
}

impl Quoting {
    /// Checks terms at startup. A price below the minimum is no mistake of the configuration's own:
    /// the offer is left out of every 402, as its rail is where it cannot quote, and the log says so.
    pub(crate) fn check(&self, terms: &ChargeTerms, connect: &Connect) -> Result<(), Invalid> {
        let price = read(terms)?;
        if let Err(problem) = self.reaches_minimum(&price) {
            tracing::warn!("an offer is not made: {problem}");
            return Ok(());
        }
        let settled = connect.check(price.currency.code(), price.amount);
        settled.map_err(|problem| Invalid::new("amount", problem))
    }

    pub(crate) fn quote(
        &self,
        terms: &ChargeTerms,
        connect: &Connect,
    ) -> Result<Quote<Charge, Details>, NoQuote> {
        // Terms that depend on the request were not there to be checked at startup.
        let price = read(terms).map_err(|invalid| NoQuote::Declined(invalid.to_string()))?;
        self.reaches_minimum(&price)
            .and_then(|()| connect.check(price.currency.code(), price.amount))
            .map_err(NoQuote::Declined)?;
        let request = terms.request(price.amount, price.currency.code());
        let details = Details {
            network_id: self.network_id.clone(),
            payment_method_types: self.payment_method_types.clone(),
            metadata: price.metadata,
        };
        Ok(Quote::new(request, details))
    }

    fn reaches_minimum(&self, price: &Price) -> Result<(), String> {
        let Price {
            amount, currency, ..
        } = price;
        let own = self.minimums.get(currency.code()).copied();
        let minimum = own.unwrap_or_else(|| currency.minimum());
        if *amount >= minimum {
            return Ok(());
        }
        let (amount, minimum) = (currency.show(*amount), currency.show(minimum));
        Err(format!(
            "{amount} is below Stripe's smallest charge, {minimum}"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn quoting() -> Quoting {
        Quoting {
            network_id: "internal".to_owned(),
            payment_method_types: vec!["card".to_owned()],
            minimums: BTreeMap::from([("gbp".to_owned(), Amount::new(40))]),
        }
    }

    fn usd(amount: &str) -> ChargeTerms {
        ChargeTerms::amount(amount).currency("usd")
    }

    /// Protects: Stripe is not offered where it would refuse the charge.
    #[test]
    fn below_the_minimum_it_declines_itself() {
        for (terms, offered) in [
            (usd("0.50"), true),
            (usd("0.49"), false),
            (ChargeTerms::amount("50").currency("jpy"), true),
            (ChargeTerms::amount("49").currency("jpy"), false),
            (ChargeTerms::amount("0.39").currency("gbp"), false),
            (ChargeTerms::amount("0.40").currency("gbp"), true),
            (ChargeTerms::amount("1").currency("vnd"), true),
        ] {
            // The server starts all the same, and says so in its log.
            assert!(quoting().check(&terms, &Connect::None).is_ok(), "{terms:?}");
            match quoting().quote(&terms, &Connect::None) {
                Ok(_) => assert!(offered, "{terms:?}"),
                Err(NoQuote::Declined(_)) => assert!(!offered, "{terms:?}"),
                Err(NoQuote::Fault(fault)) => panic!("{fault}"),
            }
        }
    }

    #[test]
    fn terms_are_checked_all_at_once() {
        let terms = ChargeTerms {
            amount: "1".to_owned(),
            recipient: Some("acct_1".to_owned()),
            description: Some("x".repeat(1001)),
            ..ChargeTerms::default()
        };
        let terms = terms
            .option("metadata", json!({ "machine_payment": "no" }))
            .option("metdata", 1);
        let invalid = quoting().check(&terms, &Connect::None).unwrap_err();
        let keys: Vec<&str> = invalid
            .issues()
            .iter()
            .map(|issue| issue.key.as_str())
            .collect();
        assert_eq!(
            keys,
            [
                "metdata",
                "currency",
                "recipient",
                "description",
                "metadata"
            ]
        );
    }

    #[test]
    fn metadata_keeps_stripes_limits() {
        let check =
            |metadata| quoting().check(&usd("1").option("metadata", metadata), &Connect::None);
        assert!(check(json!({ "order": "7" })).is_ok());
        assert!(check(json!({ "order": "x".repeat(500) })).is_ok());
        for bad in [
            json!("order=7"),
            json!({ "order": 7 }),
            json!({ "order": "x".repeat(501) }),
            json!({ "challenge_id": "1" }),
            json!({ "": "1" }),
            json!({ "a[b]": "1" }),
            json!({ "k".repeat(41): "1" }),
            serde_json::Value::Object((0..47).map(|n| (n.to_string(), json!("1"))).collect()),
        ] {
            assert!(check(bad.clone()).is_err(), "{bad}");
        }
    }
}
