//! Reading a table key by key, so that one wrong key does not hide the next.

use farebox_core::{Issue, config::kind_of};
use serde_json::{Map, Value};

/// A table of the configuration whose keys are taken one by one; what is left is unknown.
pub(super) struct Section {
    keys: Map<String, Value>,
    at: String,
    known: &'static [&'static str],
}

impl Section {
    /// The table at `at`. What is no table becomes an empty one and an issue.
    pub(super) fn open(
        value: Value,
        at: impl Into<String>,
        known: &'static [&'static str],
        issues: &mut Vec<Issue>,
    ) -> Self {
        let at = at.into();
        let keys = match value {
            Value::Object(keys) => keys,
            other => {
                issues.push(Issue::new(&at, wrong(&other, "give a table of keys")));
                Map::new()
            }
        };
        Self { keys, at, known }
    }

    /// Where `key` is, seen from the whole file.
    pub(super) fn path(&self, key: &str) -> String {
        Issue::new(key, "").under(&self.at).key
    }

    /// The value of `key`, whatever it is.
    pub(super) fn take(&mut self, key: &str) -> Option<Value> {
        self.keys.remove(key)
    }

    /// The text of `key`, if there is one. `shape` says what to give instead of anything else.
    pub(super) fn text(
        &mut self,
        key: &str,
        shape: &str,
        issues: &mut Vec<Issue>,
    ) -> Option<String> {
        match self.take(key)? {
            Value::String(text) => Some(text),
            other => {
                issues.push(Issue::new(self.path(key), wrong(&other, shape)));
                None
            }
        }
    }

    /// The list of `key`, if there is one.
    pub(super) fn list(
        &mut self,
        key: &str,
        shape: &str,
        issues: &mut Vec<Issue>,
    ) -> Option<Vec<Value>> {
        match self.take(key)? {
            Value::Array(list) => Some(list),
            other => {
                issues.push(Issue::new(self.path(key), wrong(&other, shape)));
                None
            }
        }
    }

    /// Reports what nobody took.
    pub(super) fn finish(self, issues: &mut Vec<Issue>) {
        for key in self.keys.keys() {
            issues.push(Issue::unknown_key(key, self.known).under(&self.at));
        }
    }

    /// The keys that nobody took.
    pub(super) fn rest(self) -> Map<String, Value> {
        self.keys
    }
}

/// What a value is, and what it should be. Never the value: it may be a secret in a wrong place.
pub(super) fn wrong(value: &Value, shape: &str) -> String {
    format!("is {}; {shape}", kind_of(value))
}
