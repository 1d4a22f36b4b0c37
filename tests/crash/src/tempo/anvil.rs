//! anvil in Tempo mode.

use std::{
    process::{Child, Command, Stdio},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use farebox_sandbox_tempo::PATH_USD;
use farebox_test_services::Port;
use serde_json::{Value, json};

use super::program;
use crate::Problem;

/// How long it may take until it has a block.
const START: Duration = Duration::from_secs(60);

/// A chain with a block a second. It ends with its handle.
#[derive(Debug)]
pub struct Anvil {
    process: Child,
    url: String,
    client: reqwest::Client,
    _port: Port,
}

impl Anvil {
    /// Its EIP-155 id.
    pub const CHAIN_ID: u64 = 1337;

    /// Starts one and waits for its first block: before, no validity window is open.
    pub async fn start() -> Result<Self, Problem> {
        let port = Port::reserve();
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let process = Command::new(program()?)
            .args(["--network", "tempo", "--hardfork", "T4", "--quiet"])
            .args(["--chain-id", &Self::CHAIN_ID.to_string()])
            .args(["--block-time", "1", "--timestamp", &now.to_string()])
            .args(["--port", &port.number().to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()?;
        let anvil = Self {
            process,
            url: format!("http://127.0.0.1:{}", port.number()),
            client: reqwest::Client::new(),
            _port: port,
        };
        let deadline = Instant::now() + START;
        loop {
            match anvil.call("eth_blockNumber", json!([])).await {
                Ok(number) if number != "0x0" => return Ok(anvil),
                Err(error) if Instant::now() > deadline => return Err(error),
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// Its JSON-RPC endpoint.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Calls a JSON-RPC method.
    pub(super) async fn call(&self, method: &str, params: Value) -> Result<Value, Problem> {
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let answer = self.client.post(&self.url).json(&body).send().await?;
        let answer: Value = answer.json().await?;
        match answer.get("result") {
            Some(result) => Ok(result.clone()),
            None => Err(format!("{method}: {answer}").into()),
        }
    }

    /// Base units of pathUSD.
    pub(super) async fn balance(&self, owner: &str) -> Result<u128, Problem> {
        // balanceOf(address)
        let data = format!("0x70a08231{:0>64}", owner.trim_start_matches("0x"));
        let call = json!([{ "to": PATH_USD.to_string(), "data": data }, "latest"]);
        let word = self.call("eth_call", call).await?;
        let word = word.as_str().unwrap_or_default();
        Ok(u128::from_str_radix(word.trim_start_matches("0x"), 16)?)
    }

    /// A transaction's receipt.
    pub(super) async fn receipt(&self, hash: &str) -> Result<Value, Problem> {
        self.call("eth_getTransactionReceipt", json!([hash])).await
    }
}

impl Drop for Anvil {
    fn drop(&mut self) {
        // It may have ended by itself, and there is nobody left to tell.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
