//! `spec/edge-cases.toml` accounts for every edge case.

use serde::Deserialize;

use crate::tree::{
    Row, assert_complete, assert_tests_exist, counts, print_counts, print_header, read,
};

/// How many there are. A new one needs a row and a new count.
const EDGES: usize = 169;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    edge: Vec<Edge>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Edge {
    number: usize,
    text: String,
    #[serde(default)]
    tests: Vec<String>,
    not: Option<String>,
    note: Option<String>,
}

impl Edge {
    fn row(&self) -> Row<'_> {
        let texts = [Some(&self.text), self.note.as_ref()];
        Row {
            id: self.number.to_string(),
            texts: texts.into_iter().flatten().map(String::as_str).collect(),
            tests: &self.tests,
            waiver: self.not.as_deref(),
        }
    }
}

fn edges() -> Vec<Edge> {
    read::<Document>("edge-cases.toml").edge
}

/// Protects: every edge case is accounted for, in order, by tests that exist or by a reason.
#[test]
fn every_edge_case_is_accounted_for() {
    let edges = edges();
    let numbers: Vec<usize> = edges.iter().map(|edge| edge.number).collect();
    assert_eq!(numbers, (1..=EDGES).collect::<Vec<_>>());
    let rows: Vec<_> = edges.iter().map(Edge::row).collect();
    assert_complete(&rows);
    assert_tests_exist(&rows);
}

/// Says how far it is: run with `--nocapture`.
#[test]
fn the_edge_counts() {
    let edges = edges();
    let rows: Vec<_> = edges.iter().map(Edge::row).collect();
    let counts = counts(rows.iter());
    print_header();
    print_counts("edge cases", counts);
    assert_eq!(counts.iter().sum::<usize>(), EDGES);
}
