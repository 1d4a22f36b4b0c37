//! `farebox refund` and `hooks`: what an operator is told, and with which exit code.

use std::process::Output;

use serde_json::{Value, json};

use crate::common::{Market, run, stderr, stdout};

/// A market whose seller keeps its books, what a sale on Stripe is called there, and its
/// configuration.
fn sold(folder: &tempfile::TempDir) -> (Market, String, String) {
    let store = format!("sqlite://{}", folder.path().join("books.db").display());
    let market = Market::of(|config| config["store"] = store.into());
    let paid = market.pay(&["--rail", "stripe", "--json"]);
    let paid: Value = serde_json::from_str(&stdout(&paid)).unwrap();
    let reference = paid["receipt"]["reference"].as_str().unwrap().to_owned();
    let config = market.dir.path().join("farebox.toml");
    let config = config.to_str().unwrap().to_owned();
    (market, reference, config)
}

fn refund(config: &str, reference: &str, more: &[&str]) -> Output {
    run(&[&["refund", reference, "--config", config], more].concat())
}

/// Protects: a slip is exit code 2, and what is said names what was wrong and what would do.
#[test]
fn a_slip_is_named_and_nothing_moves() {
    let folder = tempfile::tempdir().unwrap();
    let (_market, paid, config) = sold(&folder);
    for (reference, more, words) in [
        (
            "pi_nobody",
            &[][..],
            ["pi_nobody", "on its receipt and in the books"],
        ),
        (&paid, &["--amount", "0.000001"], ["the amount", "0.000001"]),
        (&paid, &["--amount", "all"], ["the amount", "all"]),
        (
            &paid,
            &["--amount", "1000"],
            ["1000", "left of the payment"],
        ),
        (&paid, &["--rail", "stripe"], ["no rail", "`stripe`"]),
    ] {
        let output = refund(&config, reference, more);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{more:?}: {said}");
        assert!(words.iter().all(|word| said.contains(word)), "{said}");
        assert_eq!(stdout(&output), "");
    }
    let given = refund(&config, &paid, &["--json"]);
    let line: Value = serde_json::from_str(&stdout(&given)).unwrap();
    assert_eq!(
        (given.status.code(), &line["repeated"]),
        (Some(0), &json!(false))
    );
    assert_eq!(
        refund(&config, &paid, &[]).status.code(),
        Some(0),
        "repeated"
    );
    let books = run(&["books", "--config", &config, "--state", "returned"]);
    assert!(books.status.success(), "{}", stderr(&books));
}

/// Protects: a path for calls that is none, or that no rail takes calls at, does not start.
#[test]
fn hooks_are_checked() {
    let market = Market::open();
    let path = market.dir.path().join("farebox.toml");
    let config: Value = toml::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    for (hooks, words) in [
        ("hooks", ["`hooks` is no path", "\"/hooks\""]),
        ("/", ["`/` is no path", "\"/hooks\""]),
        ("/a b", ["`/a b` is no path", "\"/hooks\""]),
        ("/joke", ["is where the route", "another path"]),
        ("/hooks", ["no rail takes calls", "webhook_secrets"]),
    ] {
        let mut config = config.clone();
        config["hooks"] = hooks.into();
        std::fs::write(&path, toml::to_string(&config).unwrap()).unwrap();
        let output = run(&["check", path.to_str().unwrap()]);
        let said = stdout(&output) + &stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{hooks}: {said}");
        assert!(words.iter().all(|word| said.contains(word)), "{said}");
    }
}
