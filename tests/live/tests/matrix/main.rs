//! Who pays whom, and how: {Farebox, mppx, mpp} × {Farebox, mppx, mpp} × every way to pay a Tempo
//! charge, on a real chain. The table is printed at the end.

#![allow(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a skipped test is reported by name, and the table is for people"
)]

mod cell;
mod table;

use std::sync::{Arc, Mutex, PoisonError};

use farebox_live_tests::{MODES, PARTIES, missing_for_the_matrix};
use libtest_mimic::{Arguments, Failed, Trial};

use cell::{Cell, Market};
use table::{Found, Results};

fn main() {
    let missing = missing_for_the_matrix();
    let required = std::env::var_os("FAREBOX_REQUIRE_LIVE").is_some();
    let ignored = missing.is_some() && !required;
    let market = Arc::new(Mutex::new(Market::default()));
    let results = Arc::new(Mutex::new(Results::new()));
    // One server after the other, and its clients in turn.
    let cells = PARTIES.iter().flat_map(|&server| {
        MODES.iter().flat_map(move |&mode| {
            let clients = PARTIES.iter();
            clients.map(move |&client| Cell {
                client,
                server,
                mode,
            })
        })
    });
    let trials: Vec<Trial> = cells
        .map(|cell| {
            let (market, results) = (market.clone(), results.clone());
            let missing = missing.clone();
            let trial = move || {
                let mut market = market.lock().unwrap_or_else(PoisonError::into_inner);
                let found = match missing {
                    Some(why) => Err(why.into()),
                    None => cell.check(&mut market),
                };
                let (found, verdict) = match found {
                    Ok(found) => (found, Ok(())),
                    Err(why) => (Found::Broken, Err(Failed::from(why.to_string()))),
                };
                let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
                results.insert(cell, found);
                verdict
            };
            Trial::test(cell.name(), trial).with_ignored_flag(ignored)
        })
        .collect();
    if let (Some(why), false) = (&missing, required) {
        eprintln!("skipped: the matrix: {why}");
    }
    // The cells compare balances on one chain.
    let arguments = Arguments {
        test_threads: Some(1),
        ..Arguments::from_args()
    };
    let conclusion = libtest_mimic::run(&arguments, trials);
    let results = std::mem::take(&mut *results.lock().unwrap_or_else(PoisonError::into_inner));
    if !results.is_empty() {
        print!("{}", table::print(&results));
    }
    // The chain and the servers end here; the process ends without dropping anything.
    drop(std::mem::take(
        &mut *market.lock().unwrap_or_else(PoisonError::into_inner),
    ));
    conclusion.exit();
}
