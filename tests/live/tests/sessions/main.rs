//! Sessions on the sandbox's chain, with mppx on one side or on both.

#![allow(clippy::print_stderr, reason = "a skipped test is reported by name")]

mod between_peers;
mod farebox_pays;
mod mppx_pays;

use farebox_live_tests::{Problem, missing_mppx};
use libtest_mimic::{Arguments, Failed, Trial};

type Test = fn() -> Result<(), Problem>;

fn main() {
    let missing = missing_mppx();
    let required = std::env::var_os("FAREBOX_REQUIRE_LIVE").is_some();
    let tests: Vec<(&str, Test)> = [
        &between_peers::TESTS[..],
        &farebox_pays::TESTS,
        &mppx_pays::TESTS,
    ]
    .concat();
    if let (Some(why), false) = (&missing, required) {
        let names: Vec<_> = tests.iter().map(|(name, _)| *name).collect();
        eprintln!("skipped: {}: {why}", names.join(", "));
    }
    let trials = tests.into_iter().map(|(name, test)| {
        let missing = missing.clone();
        let ignored = missing.is_some() && !required;
        Trial::test(name, move || match missing {
            Some(why) => Err(Failed::from(why)),
            None => test().map_err(|problem| Failed::from(problem.to_string())),
        })
        .with_ignored_flag(ignored)
    });
    // Node is heavy, and its clients wait with timeouts of their own.
    let arguments = Arguments {
        test_threads: Some(1),
        ..Arguments::from_args()
    };
    libtest_mimic::run(&arguments, trials.collect()).exit();
}

fn ensure(condition: bool, message: impl FnOnce() -> String) -> Result<(), Problem> {
    if condition {
        Ok(())
    } else {
        Err(message().into())
    }
}
