//! `farebox validate` finds what is wrong, and nothing else.

use std::{collections::BTreeMap, process::Output};

use serde_json::Value;

use crate::{
    common::{KEY, Market, PROOF, farebox, output, run, serve, stderr, stdout},
    shop::Shop,
};

/// Outcomes by check, and the sums.
fn report(output: &Output) -> (BTreeMap<String, Value>, Value) {
    let lines: Vec<Value> = stdout(output)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let (last, lines) = lines
        .split_last()
        .unwrap_or_else(|| panic!("{}", stderr(output)));
    let checks = lines.iter().map(|line| {
        assert!(
            !line["requirements"].as_array().unwrap().is_empty(),
            "{line}"
        );
        (line["check"].as_str().unwrap().to_owned(), line.clone())
    });
    (checks.collect(), last.clone())
}

/// Protects: our own server keeps to the protocol on every rail, seen from outside.
#[test]
fn serve_is_valid_on_every_rail() {
    let market = Market::open();
    for rail in ["tempo", "stripe", "lightning", "proof/charge"] {
        let wallet = market.wallet.as_str();
        let args = [
            "validate",
            &market.url,
            "--pay",
            "--wallet",
            wallet,
            "--rail",
            rail,
            "--json",
        ];
        let output = run(&args);
        let (checks, last) = report(&output);
        assert!(output.status.success(), "{rail}: {checks:#?}");
        let sums = &last["summary"];
        assert_eq!(
            (&sums["failed"], &sums["warned"]),
            (&0.into(), &0.into()),
            "{checks:#?}"
        );
        for check in [
            "paid-opens",
            "receipt",
            "replay",
            "forged-amount",
            "discovery-agrees",
        ] {
            assert_eq!(
                checks[check]["outcome"], "pass",
                "{rail}: {}",
                checks[check]
            );
        }
        let method = rail.split('/').next().unwrap().replace("proof", "tempo");
        assert_eq!(
            checks[&format!("receipt-{method}")]["outcome"],
            "pass",
            "{rail}"
        );
        assert!(last["paid"]["amount"].is_string(), "{last}");
    }
    // Without --pay nothing is spent, and for people there are lines.
    let unpaid = run(&["validate", &market.url]);
    assert!(unpaid.status.success(), "{}", stdout(&unpaid));
    let said = stdout(&unpaid);
    assert!(
        said.contains("\npass  CORE-59 ") && said.contains("nothing was paid"),
        "{said}"
    );
    assert!(said.ends_with(" skipped\n"), "{said}");
}

/// Protects: a payment is for its route and its body, and a repeated request is answered as before.
#[test]
fn serve_is_valid_for_bodies_and_routes() {
    let folder = tempfile::tempdir().unwrap();
    let routes = ["/ask/{*rest}", "/other"].map(|path| {
        format!(
            r#"
[[routes]]
path = "{path}"
method = "POST"
respond = "an answer"
offers = [{{ rail = "proof/charge", amount = "0" }}]
"#
        )
    });
    let head = r#"
listen = "127.0.0.1:0"
realm = "127.0.0.1"
secrets = ["a secret of 32 bytes, only for tests"]
store = "memory:"
cors = "*"
"#;
    let config = format!("{head}{PROOF}{}", routes.concat());
    let (_serve, base) = serve(folder.path(), &config);
    let (output, checks, last) = validate(&format!("{base}/ask/me"), &format!("{base}/other"));
    assert!(output.status.success(), "{checks:#?}");
    assert_eq!(last["summary"]["warned"], 0, "{checks:#?}");
    for check in [
        "browser-readable",
        "challenge-digest",
        "challenge-digest-matches",
        "forged-digest",
        "other-body",
        "other-route",
        "preflight",
        "replay",
        "replay-with-key",
    ] {
        assert_eq!(checks[check]["outcome"], "pass", "{}", checks[check]);
    }
}

/// A validation with a body, another route and a wallet, so that every check can run.
fn validate(url: &str, other: &str) -> (Output, BTreeMap<String, Value>, Value) {
    let mut command = farebox(&["validate", url, "--other", other, "-d", "the question"]);
    command
        .args(["--pay", "--rail", "proof/charge", "--json"])
        .env("FAREBOX_PROOF_PRIVATE_KEY", KEY);
    let output = output(&mut command);
    let (checks, last) = report(&output);
    (output, checks, last)
}

fn validate_shop(defect: &'static str) -> (Output, BTreeMap<String, Value>, Value) {
    let shop = Shop::open(defect);
    validate(
        &format!("{}/joke", shop.base),
        &format!("{}/other", shop.base),
    )
}

/// Protects: a sound server of another's making is not accused, and every kind of check has run.
#[test]
fn a_sound_server_passes() {
    let (output, checks, last) = validate_shop("");
    assert!(output.status.success(), "{checks:#?}");
    let sums = &last["summary"];
    assert_eq!(
        (&sums["failed"], &sums["warned"]),
        (&0.into(), &0.into()),
        "{checks:#?}"
    );
    let skipped: Vec<_> = checks
        .iter()
        .filter(|(_, line)| line["outcome"] == "skip")
        .map(|(name, _)| name.as_str())
        .collect();
    let expected = [
        "browser-readable",
        "lightning-own-invoice",
        "lightning-terms",
        "receipt-lightning",
        "receipt-stripe",
    ];
    assert_eq!(skipped, expected);
}

/// Each defect, the check that must find it, and how much it weighs.
const PLANTED: [(&str, &str, &str); 38] = [
    ("everything is free", "unpaid-status", "fail"),
    ("everything is free", "never-served-unpaid", "fail"),
    ("asks for nothing", "challenge-present", "fail"),
    ("asks for nothing", "every-402-challenges", "fail"),
    ("says it twice", "challenge-syntax", "fail"),
    ("may be stored", "unpaid-no-store", "fail"),
    ("receipts nothing", "unpaid-no-receipt", "fail"),
    ("no problem at all", "problem-body", "warn"),
    ("another status inside", "problem-status", "warn"),
    ("sets a cookie", "cookies", "fail"),
    ("head is served", "head", "warn"),
    ("numbers by rail", "challenge-ids-differ", "fail"),
    ("is nowhere", "challenge-realm", "fail"),
    ("shouts", "challenge-method", "fail"),
    ("pads", "challenge-request", "fail"),
    ("writes loosely", "challenge-canonical", "fail"),
    ("lapsed", "challenge-expires", "fail"),
    ("opaque is deep", "challenge-opaque", "fail"),
    ("digests nothing", "challenge-digest-matches", "fail"),
    ("asks in decimals", "amount", "fail"),
    ("offers what is unwanted", "accept-excludes", "warn"),
    ("advertises less", "discovery-agrees", "fail"),
    ("believes", "forged-amount", "fail"),
    ("crashes", "malformed-json", "fail"),
    ("refuses for good", "malformed-base64", "fail"),
    ("reads little", "large-credential", "fail"),
    ("takes the first of two", "two-credentials", "warn"),
    ("shows its source", "no-internals", "fail"),
    ("echoes", "no-echo", "fail"),
    ("says failed", "receipt", "fail"),
    ("names another rail", "receipt", "fail"),
    ("refers to nothing", "receipt-tempo", "fail"),
    ("paid is public", "paid-private", "fail"),
    ("binds nothing", "underpaid", "fail"),
    ("sells twice", "replay", "fail"),
    ("forgets keys", "replay-with-key", "warn"),
    ("sells everywhere", "other-route", "fail"),
    ("sells any body", "other-body", "fail"),
];

/// Protects: no check has become one that always passes.
#[test]
fn planted_defects_are_found_by_name() {
    for (defect, check, outcome) in PLANTED {
        let (output, checks, _) = validate_shop(defect);
        assert_eq!(
            checks[check]["outcome"], outcome,
            "{defect}: {}",
            checks[check]
        );
        let failed = checks.values().any(|line| line["outcome"] == "fail");
        assert_eq!(output.status.code(), Some(i32::from(failed)), "{defect}");
        // A defect outside the challenges themselves leaves those in peace.
        if outcome == "warn" {
            assert!(!failed, "{defect}: {checks:#?}");
        }
    }
}

/// Protects: what cannot be asked is exit code 1, and a credential never leaves its origin.
#[test]
fn what_cannot_be_validated_is_said() {
    let nobody = run(&["validate", "http://127.0.0.1:1/"]);
    assert_eq!(nobody.status.code(), Some(1));
    assert!(stderr(&nobody).contains("no answer"), "{}", stderr(&nobody));
    let elsewhere = run(&[
        "validate",
        "http://127.0.0.1:1/",
        "--other",
        "http://127.0.0.2:1/",
    ]);
    assert_eq!(elsewhere.status.code(), Some(2));
    // Asked to pay and unable to: a failure, for a payment that was skipped proves nothing.
    let shop = Shop::open("");
    let url = format!("{}/joke", shop.base);
    let unable = run(&["validate", &url, "--pay", "--rail", "lightning", "--json"]);
    assert_eq!(unable.status.code(), Some(1));
    assert_eq!(report(&unable).0["paid-opens"]["outcome"], "fail");
}
