//! `[wallets.<rail>]`: what a client pays with.

use std::{collections::BTreeMap, sync::Arc};

use farebox_core::{Invalid, Issue, Payer, Plugin, Registry, SessionPayer, config::did_you_mean};
use serde_json::{Map, Value, json};

use super::section::Section;

/// Payers by plugin name, in the order of their names.
#[derive(Clone, Default)]
pub struct Wallets {
    payers: BTreeMap<&'static str, Arc<dyn Payer>>,
    sessions: BTreeMap<&'static str, Arc<dyn SessionPayer>>,
}

impl Wallets {
    /// The wallets of a file: its `[wallets.<rail>]` tables.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn from_toml(text: &str, registry: &Registry) -> Result<Self, Invalid> {
        Self::from_tables(tables(text)?, registry)
    }

    /// The wallets of `[wallets.<rail>]` tables, by rail.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn from_tables(tables: Map<String, Value>, registry: &Registry) -> Result<Self, Invalid> {
        let mut issues = Vec::new();
        let mut wallets = Self::default();
        for (rail, config) in tables {
            let at = format!("wallets.{rail}");
            let plugins: Vec<&Plugin> = registry
                .plugins()
                .filter(|p| p.rail() == rail && has_wallet(p))
                .collect();
            if plugins.is_empty() {
                let mut known: Vec<_> = registry
                    .plugins()
                    .filter(|p| has_wallet(p))
                    .map(Plugin::rail)
                    .collect();
                known.dedup();
                let hint = did_you_mean(&rail, &known);
                let problem = format!(
                    "no wallet `{rail}` in this binary{hint}. Either its Cargo feature is off, or \
                     its crate is only named in Cargo.toml: mention it in code (`use the_crate as \
                     _;`)"
                );
                issues.push(Issue::new(at, problem));
                continue;
            }
            for plugin in plugins {
                if let Err(invalid) = wallets.build(plugin, &config) {
                    for issue in invalid.under(&at).into_issues() {
                        if !issues.contains(&issue) {
                            issues.push(issue);
                        }
                    }
                }
            }
        }
        Invalid::unless_empty(issues)?;
        Ok(wallets)
    }

    fn build(&mut self, plugin: &Plugin, config: &Value) -> Result<(), Invalid> {
        if let Some(build) = plugin.wallet {
            self.payers.insert(plugin.name, build(config)?);
        }
        if let Some(build) = plugin.session_wallet {
            self.sessions.insert(plugin.name, build(config)?);
        }
        Ok(())
    }

    /// The payers, by plugin name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &Arc<dyn Payer>)> {
        self.payers.iter().map(|(name, payer)| (*name, payer))
    }

    /// The payers of sessions, by plugin name.
    pub fn sessions(&self) -> impl Iterator<Item = (&'static str, &Arc<dyn SessionPayer>)> {
        self.sessions.iter().map(|(name, payer)| (*name, payer))
    }

    /// A purse of all payers, which spend `budget`.
    #[cfg(any(feature = "client", feature = "rmcp"))]
    pub fn purse(&self, budget: farebox_core::Budget) -> farebox_client::Purse {
        let payers = self.payers.values().cloned();
        payers.fold(farebox_client::Purse::new(budget), |purse, payer| {
            purse.payer(payer)
        })
    }

    /// The payers of sessions, which deposit out of `budget` and keep their channels in `store`.
    /// Nothing is deposited before the result has a
    /// [`limit`](farebox_client::session::Sessions::limit).
    #[cfg(any(feature = "client", feature = "rmcp"))]
    pub fn sessions_with(
        &self,
        budget: farebox_core::Budget,
        store: Arc<dyn farebox_core::Store>,
    ) -> farebox_client::session::Sessions {
        let payers = self.sessions.values().cloned();
        let sessions = farebox_client::session::Sessions::new(budget, store);
        payers.fold(sessions, |sessions, payer| sessions.payer(payer))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.payers.is_empty() && self.sessions.is_empty()
    }

    /// Only those of `rail`: `tempo`, or `tempo/charge`.
    pub fn only(mut self, rail: &str) -> Self {
        let named = |name: &str| name == rail || name.split('/').next() == Some(rail);
        self.payers.retain(|name, _| named(name));
        self.sessions.retain(|name, _| named(name));
        self
    }
}

impl std::fmt::Debug for Wallets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names = self.payers.keys().chain(self.sessions.keys());
        f.debug_list().entries(names).finish()
    }
}

fn has_wallet(plugin: &Plugin) -> bool {
    plugin.wallet.is_some() || plugin.session_wallet.is_some()
}

/// The `[wallets.<rail>]` tables of a file, unread.
///
/// # Errors
/// If the file is not TOML, or holds something else.
pub fn tables(text: &str) -> Result<Map<String, Value>, Invalid> {
    let mut issues = Vec::new();
    let mut top = Section::open(super::parse(text)?, "", &["wallets"], &mut issues);
    let wallets = top.take("wallets").unwrap_or_else(|| json!({}));
    top.finish(&mut issues);
    let wallets = Section::open(wallets, "wallets", &[], &mut issues).rest();
    Invalid::unless_empty(issues)?;
    Ok(wallets)
}

/// Wallet tables out of environment variables: `FAREBOX_<RAIL>_<KEY>` is the key of that rail's
/// table, and `FAREBOX_<RAIL>_<KEY>_FILE` the same as `{ file = "path" }`. Only rails of the
/// registry count; whole numbers, `true` and `false` are read as such.
pub fn from_env(
    variables: impl IntoIterator<Item = (String, String)>,
    registry: &Registry,
) -> Map<String, Value> {
    let mut tables = Map::new();
    let rails: Vec<&str> = registry.plugins().map(Plugin::rail).collect();
    for (name, text) in variables {
        let Some(rest) = name.strip_prefix("FAREBOX_").map(str::to_ascii_lowercase) else {
            continue;
        };
        let found = rails
            .iter()
            .find_map(|rail| Some((*rail, rest.strip_prefix(rail)?.strip_prefix('_')?)));
        let Some((rail, key)) = found.filter(|(_, key)| !key.is_empty()) else {
            continue;
        };
        let (key, value) = match key.strip_suffix("_file") {
            Some(key) => (key, json!({ "file": text })),
            None => (key, scalar(text)),
        };
        let table = tables.entry(rail).or_insert_with(|| json!({}));
        if let Value::Object(table) = table {
            table.insert(key.to_owned(), value);
        }
    }
    tables
}

fn scalar(text: String) -> Value {
    match text.as_str() {
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        // As it would be written in a file: 007 is no number.
        _ => match text.parse::<i64>() {
            Ok(number) if number.to_string() == text => number.into(),
            _ => text.into(),
        },
    }
}
