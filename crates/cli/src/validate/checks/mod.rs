//! What is checked, in order.

mod challenges;
mod discovery;
mod forged;
mod negotiation;
mod paid;
mod terms;
mod throughout;
mod unpaid;

use super::Check;

/// Without money.
pub(crate) const UNPAID: &[&[Check]] = &[
    unpaid::CHECKS,
    challenges::CHECKS,
    terms::CHECKS,
    negotiation::CHECKS,
    discovery::CHECKS,
    forged::CHECKS,
];

/// What a payment shows, and what all answers have in common.
pub(crate) const AFTER_PAYING: &[&[Check]] = &[paid::CHECKS, throughout::CHECKS];

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may panic")]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::validate::Level;

    /// Protects: a line of the report leads to a requirement that exists, and nothing fails a
    /// server for what the drafts only recommend.
    #[test]
    fn every_check_stands_for_requirements() {
        let text = std::fs::read_to_string("../../spec/requirements.toml").unwrap();
        let spec: toml::Table = toml::from_str(&text).unwrap();
        let levels: BTreeMap<&str, &str> = spec["requirement"]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| (row["id"].as_str().unwrap(), row["level"].as_str().unwrap()))
            .collect();
        let mut names = BTreeSet::new();
        for check in [UNPAID, AFTER_PAYING].concat().into_iter().flatten() {
            assert!(names.insert(check.name), "two checks {}", check.name);
            assert!(!check.ids.is_empty(), "{} stands for nothing", check.name);
            for id in check.ids {
                assert!(levels.contains_key(id), "{}: no {id}", check.name);
            }
            let must = check.ids.iter().any(|id| levels[id].starts_with("MUST"));
            assert!(must || check.level == Level::Should, "{}", check.name);
        }
    }
}
