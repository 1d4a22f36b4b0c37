//! The tests that there are, and whether the ones that are named are among them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use serde::de::DeserializeOwned;

pub(crate) fn root() -> PathBuf {
    // Tests run in their package's folder.
    PathBuf::from("../..")
}

/// A file of `spec/`.
pub(crate) fn read<T: DeserializeOwned>(name: &str) -> T {
    let text = fs::read_to_string(root().join("spec").join(name)).unwrap();
    toml::from_str(&text).unwrap()
}

/// One row of a ledger: what proves it, or why nothing does.
pub(crate) struct Row<'a> {
    pub(crate) id: String,
    pub(crate) texts: Vec<&'a str>,
    pub(crate) tests: &'a [String],
    pub(crate) waiver: Option<&'a str>,
}

/// Each row once, without empty texts, and with either tests or a reason.
pub(crate) fn assert_complete(rows: &[Row<'_>]) {
    let mut seen = BTreeSet::new();
    for row in rows {
        let id = &row.id;
        assert!(seen.insert(id), "{id} is there twice");
        for text in row.texts.iter().chain(&row.waiver) {
            assert!(!text.trim().is_empty(), "{id}: an empty text");
        }
        let tests: BTreeSet<_> = row.tests.iter().collect();
        assert_eq!(tests.len(), row.tests.len(), "{id}: a test twice");
        assert_ne!(
            row.tests.is_empty(),
            row.waiver.is_none(),
            "{id}: either tests or a reason"
        );
    }
}

/// A test that was renamed or removed takes its proof with it.
pub(crate) fn assert_tests_exist(rows: &[Row<'_>]) {
    let tests = tests();
    let mut missing = Vec::new();
    for row in rows {
        for name in row.tests {
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

/// How many rows are proved, waived, untested and waiting.
pub(crate) fn counts<'a>(rows: impl Iterator<Item = &'a Row<'a>>) -> [usize; 4] {
    let mut counts = [0; 4];
    for row in rows {
        counts[match row.waiver {
            None => 0,
            Some(why) if why.starts_with("untested:") => 2,
            Some(why) if why.starts_with("waits:") => 3,
            Some(_) => 1,
        }] += 1;
    }
    counts
}

pub(crate) fn print_counts(name: &str, [proved, waived, untested, waiting]: [usize; 4]) {
    println!("{name:12}{proved:>8}{waived:>8}{untested:>9}{waiting:>9}");
}

pub(crate) fn print_header() {
    println!(
        "{:12}{:>8}{:>8}{:>9}{:>9}",
        "", "proved", "waived", "untested", "waiting"
    );
}

/// The test functions of every package, by its name.
fn tests() -> BTreeMap<String, BTreeSet<String>> {
    let mut found = BTreeMap::new();
    for folder in ["crates", "plugins", "tests", "examples"] {
        packages(&root().join(folder), &mut found);
    }
    let rails = found.get_mut("farebox-conformance-tests").unwrap();
    rails.extend(rules("rail", "@tests $fixture;"));
    found
}

/// The rules that a macro of the testkit writes a test for each.
fn rules(file: &str, after: &str) -> Vec<String> {
    let path = root().join(format!("crates/testkit/src/{file}.rs"));
    let text = fs::read_to_string(path).unwrap();
    let list = text.split(after).nth(1).unwrap();
    let list = list.split(");").next().unwrap();
    let rules = list.split(|c: char| c == ',' || c.is_whitespace());
    let rules = rules.map(str::to_owned);
    rules.filter(|rule| !rule.is_empty()).collect()
}

fn packages(folder: &Path, found: &mut BTreeMap<String, BTreeSet<String>>) {
    if let Ok(manifest) = fs::read_to_string(folder.join("Cargo.toml")) {
        let manifest: toml::Table = toml::from_str(&manifest).unwrap();
        let name = manifest["package"]["name"].as_str().unwrap().to_owned();
        let names = found.entry(name).or_default();
        for text in sources(folder) {
            names.extend(test_functions(&text));
            if text.contains("store_conformance!(") {
                names.extend(rules("store", "[$store]"));
            }
        }
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

/// The Rust sources of a package, which end where another package begins.
pub(crate) fn sources(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(fs::read_to_string(&path).unwrap());
        }
    }
    for inner in folders(folder) {
        if !inner.join("Cargo.toml").exists() {
            found.extend(sources(&inner));
        }
    }
    found
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
