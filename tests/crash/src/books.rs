//! Whether the books balance.

use std::{collections::BTreeMap, time::Duration};

use serde_json::Value;

use crate::{Bought, Node, Problem};

/// Payments that the rails carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    /// Transfers to the seller.
    pub tempo: usize,
    /// PaymentIntents that succeeded.
    pub stripe: usize,
    /// Invoices that were settled.
    pub lightning: usize,
}

/// What payers got, by rail, and how long it took at worst.
#[derive(Clone, Debug, Default)]
pub struct Books {
    bought: BTreeMap<String, Vec<Bought>>,
}

impl Books {
    /// Enters what a payer got.
    pub fn enter(&mut self, rail: &str, bought: Bought) {
        self.bought.entry(rail.to_owned()).or_default().push(bought);
    }

    /// Enters what other payers got.
    pub fn extend(&mut self, others: Self) {
        for (rail, mut bought) in others.bought {
            self.bought.entry(rail).or_default().append(&mut bought);
        }
    }

    /// How many were served on `rail`.
    #[must_use]
    pub fn served(&self, rail: &str) -> usize {
        self.bought.get(rail).map_or(0, Vec::len)
    }

    /// How many were served.
    #[must_use]
    pub fn total(&self) -> usize {
        self.bought.values().map(Vec::len).sum()
    }

    /// How many were served at a later try than the first.
    #[must_use]
    pub fn recovered(&self) -> usize {
        self.all().filter(|bought| bought.tries > 1).count()
    }

    /// The longest wait of a payer.
    #[must_use]
    pub fn slowest(&self) -> Duration {
        self.all()
            .map(|bought| bought.waited)
            .max()
            .unwrap_or_default()
    }

    fn all(&self) -> impl Iterator<Item = &Bought> {
        self.bought.values().flatten()
    }

    /// As much money moved as there were payers, no two of them were served the same, and no two
    /// have the same receipt.
    pub fn balance(&self, moved: Moved) -> Result<(), Problem> {
        let served = Moved {
            tempo: self.served("tempo/charge"),
            stripe: self.served("stripe/charge"),
            lightning: self.served("lightning/charge"),
        };
        if moved != served {
            return Err(format!("money moved: {moved:?}; served: {served:?}").into());
        }
        self.distinct()
    }

    /// What was bought on `rail`.
    pub fn bought(&self, rail: &str) -> &[Bought] {
        self.bought.get(rail).map_or(&[], Vec::as_slice)
    }

    /// No two payers were served the same, and no two have the same receipt.
    pub fn distinct(&self) -> Result<(), Problem> {
        for what in [
            |bought: &Bought| bought.body.clone(),
            |bought: &Bought| bought.receipt.reference.clone(),
        ] {
            let mut all: Vec<String> = self.all().map(what).collect();
            let count = all.len();
            all.sort_unstable();
            all.dedup();
            if all.len() != count {
                return Err(format!("{} of {count} are somebody else's", count - all.len()).into());
            }
        }
        Ok(())
    }
}

/// A reservation that is older, in seconds, has lapsed: longer than it lasts here.
const LAPSED: u64 = 15;

impl Node {
    /// The server's own books: payments by state, and whether any is under way. A reservation that
    /// nobody came back for is not: it claims nothing, and is forgotten in time. Its proof may have
    /// been one that the rail was too slow to judge, and refused when it came again.
    pub fn states(&self) -> Result<(BTreeMap<String, usize>, bool), Problem> {
        let (mut states, mut under_way) = (BTreeMap::new(), false);
        for entry in self.book_lines()? {
            if let Some(state) = entry["state"].as_str() {
                *states.entry(state.to_owned()).or_default() += 1;
                under_way |= match state {
                    "attempted" | "paid" | "serving" => true,
                    "reserved" => entry["ageSeconds"].as_u64().is_none_or(|age| age < LAPSED),
                    _ => false,
                };
            }
        }
        Ok((states, under_way))
    }

    pub(crate) fn book_lines(&self) -> Result<Vec<Value>, Problem> {
        let output = self.command(&["books", "--json"])?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
        }
        let text = String::from_utf8(output.stdout)?;
        Ok(text
            .lines()
            .map(serde_json::from_str)
            .collect::<Result<_, _>>()?)
    }
}
