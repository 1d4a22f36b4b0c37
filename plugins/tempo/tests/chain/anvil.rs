//! The suite on a real chain implementation.

use std::{process::Stdio, time::Duration};

use serde_json::json;

use crate::{
    net::{Net, now},
    suite,
};

/// Without anvil it is reported as ignored, by name, and never passes unseen.
#[tokio::test]
#[ignore = "needs anvil: FAREBOX_ANVIL names the binary, ./tests/run installs it"]
async fn the_suite() {
    let binary = std::env::var("FAREBOX_ANVIL").expect("FAREBOX_ANVIL names anvil's binary");
    // Bound and dropped, so nobody else is likely to take it in between.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let _anvil = tokio::process::Command::new(binary)
        .args([
            "--network",
            "tempo",
            "--hardfork",
            "T4",
            "--chain-id",
            "1337",
            "--silent",
        ])
        .args(["--block-time", "1", "--timestamp", &now().to_string()])
        .args(["--port", &port.to_string()])
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let net = Net::at(&format!("http://127.0.0.1:{port}"));
    // Until it has a block, anvil simulates at time 1 and finds every window too far away.
    let ready = async {
        let up = || tokio::net::TcpStream::connect(("127.0.0.1", port));
        while up().await.is_err() || net.rpc("eth_blockNumber", json!([])).await == "0x0" {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), ready)
        .await
        .unwrap();

    suite::all(&net).await;
    let order = net.order("0.01").await;
    net.rpc("evm_increaseTime", json!([120])).await;
    net.rpc("evm_mine", json!([])).await;
    suite::an_order_that_was_never_included_is_declined_in_the_end(&net, &order).await;
}
