//! `spec/requirements.toml` accounts for every requirement, and names no test that is not there.
//!
//! A test is named `<package>::<test function>`, for example `farebox-http::a_second_402_is_never_paid`.
//! The rules that every rail must keep are `farebox-conformance-tests::<rule>`.
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(clippy::print_stdout, reason = "the counts are the point")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use serde::Deserialize;

/// How many rows each table has. A new requirement needs a row and a new count.
const ROWS: [(&str, usize); 7] = [
    ("CORE", 65),
    ("CHG", 12),
    ("TCHG", 27),
    ("STC", 14),
    ("LNC", 23),
    ("MCP", 30),
    ("DISC", 16),
];

const LEVELS: [&str; 6] = [
    "MUST",
    "MUST NOT",
    "SHOULD",
    "SHOULD NOT",
    "MAY",
    // Described, or a duty of the other side, without a keyword.
    "DESC",
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    requirement: Vec<Requirement>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Requirement {
    id: String,
    level: String,
    text: String,
    section: String,
    #[serde(default)]
    tests: Vec<String>,
    waiver: Option<String>,
    note: Option<String>,
}

fn root() -> PathBuf {
    // Tests run in their package's folder.
    PathBuf::from("../..")
}

fn requirements() -> Vec<Requirement> {
    let text = fs::read_to_string(root().join("spec/requirements.toml")).unwrap();
    let document: Document = toml::from_str(&text).unwrap();
    document.requirement
}

/// Protects: each row says what it asks, and either what proves it or why nothing does.
#[test]
fn every_row_is_complete() {
    let mut seen = BTreeSet::new();
    for row in requirements() {
        let id = &row.id;
        assert!(seen.insert(id.clone()), "{id} is there twice");
        assert!(
            LEVELS.contains(&row.level.as_str()),
            "{id}: level {:?}",
            row.level
        );
        for text in [Some(&row.text), Some(&row.section), row.waiver.as_ref()]
            .into_iter()
            .flatten()
            .chain(&row.note)
        {
            assert!(!text.trim().is_empty(), "{id}: an empty text");
        }
        assert_ne!(
            row.tests.is_empty(),
            row.waiver.is_none(),
            "{id}: either tests or a waiver"
        );
    }
}

/// Protects: no requirement is left out.
#[test]
fn no_row_is_missing() {
    let given: Vec<String> = requirements().into_iter().map(|row| row.id).collect();
    let rows = ROWS.iter();
    let expected: Vec<String> = rows
        .flat_map(|(prefix, count)| (1..=*count).map(move |n| format!("{prefix}-{n}")))
        .collect();
    assert_eq!(given, expected);
}

/// The test functions of every package, by its name.
fn tests() -> BTreeMap<String, BTreeSet<String>> {
    let mut found = BTreeMap::new();
    for folder in ["crates", "plugins", "tests", "examples"] {
        packages(&root().join(folder), &mut found);
    }
    // The rules are one macro's list; each rail runs them all.
    let rules = fs::read_to_string(root().join("crates/testkit/src/rail.rs")).unwrap();
    let list = rules.split("@tests $fixture;").nth(1).unwrap();
    let list = list.split(");").next().unwrap();
    let rules = list.split(',').map(|rule| rule.trim().to_owned());
    found
        .get_mut("farebox-conformance-tests")
        .unwrap()
        .extend(rules.filter(|rule| !rule.is_empty()));
    found
}

fn packages(folder: &Path, found: &mut BTreeMap<String, BTreeSet<String>>) {
    if let Ok(manifest) = fs::read_to_string(folder.join("Cargo.toml")) {
        let manifest: toml::Table = toml::from_str(&manifest).unwrap();
        let name = manifest["package"]["name"].as_str().unwrap().to_owned();
        sources(folder, true, found.entry(name).or_default());
    }
    for inner in folders(folder) {
        packages(&inner, found);
    }
}

fn folders(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let skip = |path: &PathBuf| path.ends_with("target") || path.ends_with("node_modules");
    entries
        .filter(|path| path.is_dir() && !skip(path))
        .collect()
}

/// A package's sources end where another package begins.
fn sources(folder: &Path, top: bool, names: &mut BTreeSet<String>) {
    if !top && folder.join("Cargo.toml").exists() {
        return;
    }
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            names.extend(test_functions(&fs::read_to_string(&path).unwrap()));
        }
    }
    for inner in folders(folder) {
        sources(&inner, false, names);
    }
}

/// The functions that a test attribute stands over, those inside `proptest!` included, and the
/// trials of a harness of its own, which are named as functions in one list.
fn test_functions(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut marked = text.contains("libtest_mimic::run");
    let always = marked;
    for line in text.lines().map(str::trim) {
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            marked = true;
            continue;
        }
        let line = line.strip_prefix("async ").unwrap_or(line);
        if let Some(rest) = line.strip_prefix("fn ") {
            if marked {
                let end = rest.find(['(', '<']).unwrap_or(rest.len());
                names.push(rest[..end].to_owned());
            }
            marked = always;
        }
    }
    names
}

/// Protects: a test that was renamed or removed takes its proof with it.
#[test]
fn every_named_test_exists() {
    let tests = tests();
    let mut missing = Vec::new();
    for row in requirements() {
        for name in &row.tests {
            let there = name.split_once("::").is_some_and(|(package, test)| {
                tests.get(package).is_some_and(|names| names.contains(test))
            });
            if !there {
                missing.push(format!("{}: {name}", row.id));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

/// Says how far it is: run with `--nocapture`.
#[test]
fn the_counts() {
    let mut all = [0; 4];
    println!(
        "{:6}{:>8}{:>8}{:>9}{:>9}",
        "", "proved", "waived", "untested", "waiting"
    );
    for (prefix, _) in ROWS {
        let mut counts = [0; 4];
        let rows = requirements().into_iter();
        for row in rows.filter(|row| row.id.split('-').next() == Some(prefix)) {
            let column = match row.waiver.as_deref() {
                None => 0,
                Some(why) if why.starts_with("untested:") => 2,
                Some(why) if why.starts_with("waits:") => 3,
                Some(_) => 1,
            };
            counts[column] += 1;
            all[column] += 1;
        }
        let [proved, waived, untested, waiting] = counts;
        println!("{prefix:6}{proved:>8}{waived:>8}{untested:>9}{waiting:>9}");
    }
    let [proved, waived, untested, waiting] = all;
    println!("{:6}{proved:>8}{waived:>8}{untested:>9}{waiting:>9}", "all");
    assert_eq!(all.iter().sum::<usize>(), requirements().len());
}
