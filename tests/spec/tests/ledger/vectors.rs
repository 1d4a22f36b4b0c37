//! `spec/vectors` is there to be tested against.

use std::fs;

use serde_json::{Map, Value};

use crate::tree::{root, sources};

/// Protects: a vector file, or a list in one, that no test reads proves nothing.
#[test]
fn every_vector_file_is_read_by_a_test() {
    let mut tests = Vec::new();
    for entry in fs::read_dir(root().join("crates")).unwrap() {
        let folder = entry.unwrap().path().join("tests");
        if folder.is_dir() {
            tests.extend(sources(&folder));
        }
    }
    let mut seen = 0;
    for entry in fs::read_dir(root().join("spec/vectors")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let literal = format!("\"{name}\"");
        let readers = tests.iter().filter(|text| text.contains(&literal));
        let readers: Vec<_> = readers.collect();
        assert!(!readers.is_empty(), "no test reads spec/vectors/{name}");
        let text = fs::read_to_string(root().join("spec/vectors").join(&name)).unwrap();
        let lists: Map<String, Value> = serde_json::from_str(&text).unwrap();
        for list in lists.keys().filter(|list| *list != "about") {
            let field = format!(" {list}: Vec<");
            let read = readers.iter().any(|text| text.contains(&field));
            assert!(read, "no test reads `{list}` of spec/vectors/{name}");
        }
        seen += 1;
    }
    assert!(seen > 0, "no vectors");
}
