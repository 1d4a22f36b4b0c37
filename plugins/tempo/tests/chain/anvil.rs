//! The same tests on a real chain implementation.

use std::process::{Command, Stdio};

use crate::ground::CHOICE;

/// What stays on the sandbox chain, and why; everything else here runs on both.
const SANDBOX_ONLY: [&str; 9] = [
    // Answers that no honest node gives, written out by the tests.
    "doubt::",
    // Two chains with the same transactions; the nodes of one network that anvil has not.
    "failover::",
    // Services that answer wrongly. One that answers rightly is in the suite.
    "remote::",
    // Refused before a chain is asked: nothing listens there.
    "tamper::",
    // anvil simulates the last call of several, which pays with what the ones before it buy.
    "swap::a_server_takes_a_purchase_before_the_payment",
    // A base fee that anvil has fixed in Tempo mode.
    "sandbox::a_wallet_does_not_pay_any_fee",
    // A kind of node that anvil is not: it answers what it knows with an error.
    "sandbox::the_suite_on_a_node_that_refuses_what_it_knows",
    // The test's clock stands still, and anvil's blocks do not wait for it.
    "sandbox::a_signer_that_does_not_answer_is_given_up",
    // Offers are written without a chain.
    "sponsored::an_offer_says",
];

/// Without anvil it is reported as ignored, by name, and never passes unseen.
#[test]
#[ignore = "needs anvil: FAREBOX_ANVIL names the binary, ./tests/run installs it"]
fn the_suite() {
    let skipped = SANDBOX_ONLY.iter().flat_map(|name| ["--skip", name]);
    let run = Command::new(std::env::current_exe().unwrap())
        .args(["--test-threads", "4"])
        .args(skipped)
        .env(CHOICE, "anvil")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stdout);
    let errors = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{said}{errors}");
    // A run of nothing would prove nothing.
    assert!(said.contains("sandbox::the_suite ... ok"), "{said}{errors}");
}
