//! mppx on both sides of a session: a server that sells a stream of words, a client that reads it.

use std::{
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use crate::{Chain, PATH_USD, PAYER_KEY, Problem, Running, output, peers, text};

/// The channel reserve.
pub const RESERVE: &str = "0x4d50500000000000000000000000000000000000";
/// AlphaUSD: what fees are paid in, so that pathUSD moves by payments alone.
pub const ALPHA_USD: &str = "0x20c0000000000000000000000000000000000001";
/// The price of a word, base units.
pub const PRICE: u128 = 1_000;
/// The seller's well-known development key.
pub const SELLER_KEY: &str = "0x5de4111afa1a4b94908f83103eb1f1706367c2e68ca870fc3fb9a804cdab365a";

/// A stream of words at [`PRICE`] each, sold by mppx.
#[derive(Debug)]
pub struct Words {
    _process: Running,
    /// Its address without the last segment, the number of words.
    pub url: String,
}

impl Words {
    /// Serves it on `chain` with further parameters of `tempo.session`; a `feePayer` is a private
    /// key.
    pub fn serve(chain: &Chain, parameters: &Value) -> Result<Self, Problem> {
        let mut child = Command::new("node")
            .current_dir(peers())
            .args([
                "--no-warnings",
                "session-server.mjs",
                &chain.url,
                SELLER_KEY,
            ])
            .arg(parameters.to_string())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = child.stdout.take().ok_or("no standard output")?;
        let process = Running { child };
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let ready: Value = serde_json::from_str(&line)?;
        let url = ready["url"].as_str().ok_or("no url")?.to_owned();
        Ok(Self {
            _process: process,
            url,
        })
    }
}

/// Runs mppx's session client, as the payer with `key`, over each of `urls` in turn, then closes
/// the channel: what it says of itself.
pub fn read(
    chain: &Chain,
    key: &str,
    parameters: &Value,
    urls: &[String],
) -> Result<Value, Problem> {
    let mut command = Command::new("node");
    command
        .current_dir(peers())
        .args(["session-client.mjs", &chain.url, key])
        .arg(parameters.to_string())
        .args(urls);
    let run = output(command)?;
    if !run.status.success() {
        return Err(format!("the client failed: {}", text(&run.stderr)).into());
    }
    Ok(serde_json::from_slice(&run.stdout)?)
}

/// Takes a channel from the payer to the seller through its whole life with viem: what came of each
/// step.
pub fn channel(chain: &Chain) -> Result<Value, Problem> {
    let mut command = Command::new("node");
    command
        .current_dir(peers())
        .args(["channel.mjs", &chain.url, PAYER_KEY, SELLER_KEY]);
    let run = output(command)?;
    if !run.status.success() {
        return Err(format!("viem failed: {}", text(&run.stderr)).into());
    }
    Ok(serde_json::from_slice(&run.stdout)?)
}

impl Chain {
    /// All pathUSD that ever went `from` one address `to` another, base units.
    pub fn moved(&self, from: &str, to: &str) -> Result<u128, Problem> {
        Ok(self.transfers(from, to)?.iter().sum())
    }

    /// Each of its transfers, oldest first.
    pub fn transfers(&self, from: &str, to: &str) -> Result<Vec<u128>, Problem> {
        // Transfer(address,address,uint256)
        let event = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef";
        let word = |address: &str| {
            let digits = address.trim_start_matches("0x").to_lowercase();
            format!("0x{digits:0>64}")
        };
        let filter = json!([{
            "address": PATH_USD,
            "topics": [event, word(from), word(to)],
            "fromBlock": "0x0",
            "toBlock": "latest",
        }]);
        let logs = self.call("eth_getLogs", filter)?;
        let amount = |log: &Value| {
            let data = log["data"].as_str().unwrap_or_default();
            Ok(u128::from_str_radix(
                data.get(34..).unwrap_or_default(),
                16,
            )?)
        };
        logs.as_array().into_iter().flatten().map(amount).collect()
    }
}
