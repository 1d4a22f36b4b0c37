//! `spec/differences.toml` says for every difference between drafts and deployed SDKs what is done.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::{requirements, tree::read};

/// How many differences each table has. A new one needs a row and a new count.
const ROWS: [(&str, usize); 11] = [
    ("A", 13),
    ("B", 17),
    ("C", 12),
    ("D", 10),
    ("E", 6),
    ("F", 16),
    ("G", 4),
    ("H", 4),
    ("I", 10),
    ("J", 14),
    ("K", 15),
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    difference: Vec<Difference>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Difference {
    id: String,
    text: String,
    here: Side,
    note: String,
    #[serde(default)]
    see: Vec<String>,
}

/// Whose side is taken.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "lowercase")]
enum Side {
    Drafts,
    Deployed,
    Both,
    Own,
    Waits,
}

/// Protects: each difference is decided, in order, and points at requirements that there are.
#[test]
fn every_difference_is_decided() {
    let rows = read::<Document>("differences.toml").difference;
    let ids: Vec<&str> = rows.iter().map(|row| row.id.as_str()).collect();
    let tables = ROWS.iter();
    let expected: Vec<String> = tables
        .flat_map(|(table, count)| (1..=*count).map(move |n| format!("{table}{n}")))
        .collect();
    assert_eq!(ids, expected);
    let requirements: BTreeSet<String> = requirements::ids().into_iter().collect();
    for row in &rows {
        let id = &row.id;
        assert!(
            !row.text.trim().is_empty() && !row.note.trim().is_empty(),
            "{id}"
        );
        for other in &row.see {
            assert!(requirements.contains(other), "{id}: there is no {other}");
        }
    }
}

/// Says whose side is taken how often: run with `--nocapture`.
#[test]
fn the_sides() {
    let mut sides = BTreeMap::<Side, usize>::new();
    for row in read::<Document>("differences.toml").difference {
        *sides.entry(row.here).or_default() += 1;
    }
    println!("differences {sides:?}");
    let all: usize = ROWS.iter().map(|(_, count)| count).sum();
    assert_eq!(sides.values().sum::<usize>(), all);
}
