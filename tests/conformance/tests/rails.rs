//! Every rail keeps the rules of every rail.

use farebox_conformance_tests as fixtures;
use farebox_testkit::rail_conformance;

rail_conformance!(tempo, fixtures::tempo().await);
rail_conformance!(proof, fixtures::proof().await);
rail_conformance!(stripe, fixtures::stripe().await);
rail_conformance!(lightning, fixtures::lightning().await);

/// A rail that is added to the facade without a line above fails here.
#[test]
fn every_built_in_rail_is_tested() {
    let names: Vec<&str> = farebox::BUILTIN.iter().map(|plugin| plugin.name).collect();
    // A session's life is more than one payment; its rails are tested where they live.
    let mut sorted: Vec<&str> = names
        .into_iter()
        .filter(|name| !name.ends_with("/session"))
        .collect();
    sorted.sort_unstable();
    assert_eq!(
        sorted,
        [
            "lightning/charge",
            "proof/charge",
            "stripe/charge",
            "tempo/charge"
        ]
    );
}
