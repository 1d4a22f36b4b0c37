//! `spec/requirements.toml` accounts for every requirement of the drafts.

use serde::Deserialize;

use crate::tree::{
    Row, assert_complete, assert_tests_exist, counts, print_counts, print_header, read,
};

/// How many rows each table has. A new requirement needs a row and a new count.
const ROWS: [(&str, usize); 9] = [
    ("CORE", 65),
    ("CHG", 12),
    ("TCHG", 27),
    ("TSES", 51),
    ("STC", 14),
    ("LNC", 23),
    ("LNS", 37),
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

impl Requirement {
    fn row(&self) -> Row<'_> {
        let texts = [Some(&self.text), Some(&self.section), self.note.as_ref()];
        Row {
            id: self.id.clone(),
            texts: texts.into_iter().flatten().map(String::as_str).collect(),
            tests: &self.tests,
            waiver: self.waiver.as_deref(),
        }
    }
}

fn requirements() -> Vec<Requirement> {
    read::<Document>("requirements.toml").requirement
}

/// The ids of all rows, for other files that refer to them.
pub(crate) fn ids() -> Vec<String> {
    requirements().into_iter().map(|row| row.id).collect()
}

/// Protects: each row says what it asks, and either what proves it or why nothing does.
#[test]
fn every_row_is_complete() {
    let requirements = requirements();
    let rows: Vec<_> = requirements.iter().map(Requirement::row).collect();
    assert_complete(&rows);
    for row in &requirements {
        let known = LEVELS.contains(&row.level.as_str());
        assert!(known, "{}: level {:?}", row.id, row.level);
    }
}

/// Protects: no requirement is left out.
#[test]
fn no_row_is_missing() {
    let rows = ROWS.iter();
    let expected: Vec<String> = rows
        .flat_map(|(prefix, count)| (1..=*count).map(move |n| format!("{prefix}-{n}")))
        .collect();
    assert_eq!(ids(), expected);
}

/// Protects: a test that was renamed or removed takes its proof with it.
#[test]
fn every_named_test_exists() {
    let requirements = requirements();
    let rows: Vec<_> = requirements.iter().map(Requirement::row).collect();
    assert_tests_exist(&rows);
}

/// Says how far it is: run with `--nocapture`.
#[test]
fn the_counts() {
    let requirements = requirements();
    let rows: Vec<_> = requirements.iter().map(Requirement::row).collect();
    print_header();
    let mut seen = 0;
    for (prefix, _) in ROWS {
        let own = |row: &&Row<'_>| row.id.split('-').next() == Some(prefix);
        let counts = counts(rows.iter().filter(own));
        seen += counts.iter().sum::<usize>();
        print_counts(prefix, counts);
    }
    print_counts("all", counts(rows.iter()));
    assert_eq!(seen, rows.len());
}
