//! Building a rail from its configuration, finding more than the first layer of problems.

use std::{collections::BTreeSet, sync::Arc};

use farebox_core::{Issue, Method, Plugin};
use serde_json::Value;

/// A rail, or what can be done without it.
pub(crate) enum Built {
    /// The configuration holds.
    Whole(Arc<dyn Method>),
    /// It does not. With what is wrong replaced from the rail's example there may be a rail all
    /// the same, so that its offers are checked now and not only in the next round. Nothing is
    /// ever served by it.
    Broken(Option<Arc<dyn Method>>),
}

/// Builds `plugin`. What is wrong goes to `issues`, relative to the rail's table.
///
/// A rail stops at unknown keys before it looks at values, so one look does not find everything:
/// each round looks again without what was wrong in the last one.
pub(crate) fn build(plugin: &Plugin, config: &Value, issues: &mut Vec<Issue>) -> Built {
    let (mut config, mut seen) = (config.clone(), BTreeSet::new());
    loop {
        let invalid = match (plugin.build)(&config) {
            Ok(method) if seen.is_empty() => return Built::Whole(method),
            Ok(method) => return Built::Broken(Some(method)),
            Err(invalid) => invalid,
        };
        let mut found = BTreeSet::new();
        for issue in invalid.into_issues() {
            let key = issue
                .key
                .split(['.', '['])
                .next()
                .unwrap_or_default()
                .to_owned();
            if !seen.contains(&key) {
                found.insert(key);
                issues.push(issue);
            }
        }
        let Some(table) = config.as_object_mut().filter(|_| !found.is_empty()) else {
            return Built::Broken(None);
        };
        for key in &found {
            match example(plugin, key) {
                Some(value) => table.insert(key.clone(), value),
                None => table.remove(key),
            };
        }
        seen.append(&mut found);
    }
}

/// The value of `key` in the rail's example.
fn example(plugin: &Plugin, key: &str) -> Option<Value> {
    #[cfg(feature = "config")]
    {
        let example: Value = toml::from_str(plugin.example).ok()?;
        example.get(key).cloned()
    }
    #[cfg(not(feature = "config"))]
    {
        let _ = (plugin, key);
        None
    }
}

/// A rail that was not configured at all, as its example has it.
#[cfg(feature = "config")]
pub(crate) fn unconfigured(plugin: &Plugin) -> Option<Arc<dyn Method>> {
    let example: Value = toml::from_str(plugin.example).ok()?;
    (plugin.build)(&example).ok()
}
