//! Configuration: problems that are reported all at once, and secrets that do not leak.

use std::fmt;

use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

mod read;

pub(crate) use read::build;
pub use read::{kind_of, read};

/// One thing wrong with a configuration: where, what, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issue {
    /// The key, relative to what was being read: `recipient`, `routes[0].offers[1].amount`.
    pub key: String,
    /// What is wrong with it, and the remedy. Names the value's shape, never a secret.
    pub problem: String,
}

impl Issue {
    /// An issue with `key`.
    pub fn new(key: impl Into<String>, problem: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            problem: problem.into(),
        }
    }

    /// A key nobody knows, with the nearest one that somebody does.
    pub fn unknown_key(key: &str, known: &[&str]) -> Self {
        Self::new(key, format!("unknown key{}", did_you_mean(key, known)))
    }

    /// The same issue seen from further out.
    pub fn under(mut self, prefix: &str) -> Self {
        self.key = match (self.key.as_str(), prefix) {
            ("", _) => prefix.to_owned(),
            (_, "") => self.key,
            (key, _) if key.starts_with('[') => format!("{prefix}{key}"),
            (key, _) => format!("{prefix}.{key}"),
        };
        self
    }
}

/// `; did you mean …? known keys: …`
pub fn did_you_mean(word: &str, known: &[&str]) -> String {
    let nearest = known
        .iter()
        .map(|k| (strsim::damerau_levenshtein(word, k), *k))
        .min()
        .filter(|(distance, k)| *distance <= 1 + k.len() / 3);
    let list = known
        .iter()
        .map(|k| format!("`{k}`"))
        .collect::<Vec<_>>()
        .join(", ");
    match nearest {
        Some((_, k)) => format!("; did you mean `{k}`? known: {list}"),
        None if list.is_empty() => "; none is known here".to_owned(),
        None => format!("; known: {list}"),
    }
}

/// Everything wrong with a configuration. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid(Vec<Issue>);

impl Invalid {
    /// A single issue.
    pub fn new(key: impl Into<String>, problem: impl Into<String>) -> Self {
        Self(vec![Issue::new(key, problem)])
    }

    /// All issues, or success when there are none.
    pub fn unless_empty(issues: Vec<Issue>) -> Result<(), Self> {
        if issues.is_empty() {
            Ok(())
        } else {
            Err(Self(issues))
        }
    }

    /// The issues.
    pub fn issues(&self) -> &[Issue] {
        &self.0
    }

    /// The issues, owned.
    pub fn into_issues(self) -> Vec<Issue> {
        self.0
    }

    /// The same issues seen from further out.
    pub fn under(self, prefix: &str) -> Self {
        Self(
            self.0
                .into_iter()
                .map(|issue| issue.under(prefix))
                .collect(),
        )
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, issue) in self.0.iter().enumerate() {
            if n > 0 {
                writeln!(f)?;
            }
            match issue.key.as_str() {
                "" => write!(f, "{}", issue.problem)?,
                key => write!(f, "{key}: {}", issue.problem)?,
            }
        }
        Ok(())
    }
}

impl std::error::Error for Invalid {}

/// Text that must not be shown: redacted `Debug`, no `Display`, wiped on drop.
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// Takes ownership of secret text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(SecretString::from(text.into()))
    }

    /// The text. Keep the borrow short and out of logs.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// As the `secrecy` type that the wire crate takes.
    pub fn into_inner(self) -> SecretString {
        self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret([redacted])")
    }
}

/// Where a secret comes from: `"text"`, `{ env = "NAME" }` or `{ file = "path" }`.
///
/// Reading it is a step of its own, so that a missing variable or file is reported with all the
/// other problems.
#[derive(Clone)]
pub enum SecretSource {
    /// Written in place.
    Text(Secret),
    /// An environment variable.
    Env(String),
    /// A file.
    File(std::path::PathBuf),
}

impl SecretSource {
    /// The secret as text, surrounding white space removed.
    pub fn read(&self, key: &str) -> Result<Secret, Issue> {
        match self {
            Self::Text(secret) => Ok(secret.clone()),
            Self::Env(name) => match std::env::var(name) {
                Ok(text) => Ok(Secret::new(text.trim())),
                Err(_) => Err(Issue::new(
                    key,
                    format!("the environment variable {name} is not set; set it or name another"),
                )),
            },
            Self::File(_) => {
                let bytes = self.read_bytes(key)?;
                match String::from_utf8(bytes) {
                    Ok(text) => Ok(Secret::new(text.trim())),
                    Err(_) => Err(Issue::new(
                        key,
                        "the file does not hold text; check the path",
                    )),
                }
            }
        }
    }

    /// The secret as bytes: a file's content as it is, or the text's bytes.
    pub fn read_bytes(&self, key: &str) -> Result<Vec<u8>, Issue> {
        match self {
            Self::File(path) => std::fs::read(path).map_err(|e| {
                let path = path.display();
                Issue::new(
                    key,
                    format!("cannot read the file {path}: {e}; check the path"),
                )
            }),
            _ => self
                .read(key)
                .map(|secret| secret.expose().as_bytes().to_vec()),
        }
    }
}

impl fmt::Debug for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(_) => f.write_str("SecretSource([redacted])"),
            Self::Env(name) => write!(f, "SecretSource(env {name})"),
            Self::File(path) => write!(f, "SecretSource(file {})", path.display()),
        }
    }
}

impl<'de> Deserialize<'de> for SecretSource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let shape = || {
            serde::de::Error::custom(
                "is no secret; give a string, { env = \"NAME\" } or { file = \"path\" }",
            )
        };
        match Value::deserialize(deserializer)? {
            Value::String(text) => Ok(Self::Text(Secret::new(text))),
            Value::Object(map) if map.len() == 1 => match map.iter().next() {
                Some((key, Value::String(text))) if key == "env" => Ok(Self::Env(text.clone())),
                Some((key, Value::String(text))) if key == "file" => Ok(Self::File(text.into())),
                _ => Err(shape()),
            },
            _ => Err(shape()),
        }
    }
}
