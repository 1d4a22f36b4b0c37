//! Both halves of the example as processes, on the offline chain.
#![allow(clippy::unwrap_used, reason = "tests may panic")]

use std::process::Command;

use farebox_sandbox_tempo::{Chain, ChainConfig, PATH_USD, dev_account};
use serde_json::json;

/// Protects: the paid tool costs exactly its price, and the free one nothing.
#[tokio::test(flavor = "multi_thread")]
async fn the_client_pays_the_server_over_stdio() {
    let chain = Chain::start(ChainConfig::default()).await.unwrap();
    let (recipient, _) = dev_account(2).unwrap();
    let (_, payer) = dev_account(1).unwrap();
    let config = json!({
        "realm": "jokes.example",
        "secrets": ["a secret of 32 bytes, only for tests"],
        "store": "memory:",
        "rails": { "tempo": {
            "rpc_url": chain.url(), "chain_id": chain.chain_id(),
            "currency": PATH_USD.to_string(), "recipient": recipient.to_string(),
        } },
    });
    let wallets = json!({ "wallets": { "tempo": {
        "private_key": payer.to_bytes().to_string(),
        "rpc_url": chain.url(), "chain_id": chain.chain_id(),
    } } });
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, value| {
        let path = dir.path().join(name);
        std::fs::write(&path, toml::to_string(&value).unwrap()).unwrap();
        path
    };
    let (config, wallets) = (file("farebox.toml", config), file("wallets.toml", wallets));
    let before = chain.balance(PATH_USD, recipient);
    for (tool, says, costs) in [("menu", "free", 0), ("joke", "tempo 0x", 10_000)] {
        let mcp = env!("CARGO_BIN_EXE_mcp");
        let mut command = Command::new(mcp);
        command
            .arg("call")
            .arg(&wallets)
            .args([tool, mcp, "serve"])
            .arg(&config);
        let output = tokio::task::spawn_blocking(move || command.output());
        let output = output.await.unwrap().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let trouble = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            output.status.success() && said.contains(says),
            "{said}{trouble}"
        );
        assert_eq!(chain.balance(PATH_USD, recipient) - before, costs);
    }
}
