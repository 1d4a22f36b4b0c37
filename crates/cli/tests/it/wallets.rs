//! Wallets as a file describes them.

use std::process::Output;

use serde_json::Value;

use crate::common::{Market, farebox, output, stderr, stdout};

/// Pays on Stripe with a wallet file of these changes, and the agent's key in the environment.
fn pay(market: &Market, key: &str, change: impl FnOnce(&mut Value)) -> Output {
    let text = std::fs::read_to_string(&market.wallet).unwrap();
    let mut file: Value = toml::from_str(&text).unwrap();
    let wallet = &mut file["wallets"]["stripe"];
    wallet["secret_key"] = serde_json::json!({ "env": "AGENT_STRIPE_KEY" });
    change(wallet);
    let path = market.dir.path().join("agent.toml");
    std::fs::write(&path, toml::to_string(&file).unwrap()).unwrap();
    let path = path.to_str().unwrap();
    let args = [
        "pay",
        "--wallet",
        path,
        "--rail",
        "stripe",
        "--json",
        &market.url,
    ];
    output(farebox(&args).env("AGENT_STRIPE_KEY", key))
}

/// Protects: an agent pays with tokens that its own account issues, by configuration alone; and hears
/// which key is wrong and what to write, without its secret.
#[test]
fn an_agents_own_tokens_are_a_setting() {
    let market = Market::open();
    let text = std::fs::read_to_string(&market.wallet).unwrap();
    let file: Value = toml::from_str(&text).unwrap();
    let key = file["wallets"]["stripe"]["secret_key"].as_str().unwrap();
    let issued = |wallet: &mut Value| {
        wallet["tokens"] = "issued".into();
        wallet["payment_method"] = "pm_card_visa".into();
    };
    let paid = pay(&market, key, issued);
    assert!(paid.status.success(), "{}", stderr(&paid));
    let line: Value = serde_json::from_str(&stdout(&paid)).unwrap();
    assert_eq!(line["receipt"]["method"], "stripe", "{line}");

    let drop_method = |wallet: &mut Value| {
        issued(wallet);
        wallet.as_object_mut().unwrap().remove("payment_method");
    };
    let no_such = |wallet: &mut Value| wallet["tokens"] = "live".into();
    let live = "sk_live_secret";
    for (failed, words) in [
        (pay(&market, key, drop_method), ["payment_method", "pm_…"]),
        (pay(&market, key, no_such), ["tokens", "\\\"issued\\\""]),
        (pay(&market, live, |_| {}), ["secret_key", "sk_test_"]),
    ] {
        let said = stdout(&failed) + &stderr(&failed);
        assert!(!failed.status.success(), "{said}");
        assert!(words.iter().all(|word| said.contains(word)), "{said}");
        assert!(!said.contains(live) && !said.contains(key), "{said}");
    }
}
