//! The TypeScript SDK: a server of ours on it, and its command line.

use std::{
    io::{BufRead as _, BufReader},
    process::{Command, Output, Stdio},
};

use serde_json::{Value, json};

use crate::{Chain, MAINNET, PAYER_KEY, Problem, Running, SELLER, output, peers};

/// A paid endpoint served by mppx.
#[derive(Debug)]
pub struct Mppx {
    _process: Running,
    /// The paid route: 0.02 pathUSD.
    pub url: String,
}

impl Mppx {
    /// Starts it on `chain`.
    pub fn serve(chain: &Chain) -> Result<Self, Problem> {
        Self::offering(chain, &json!({}))
    }

    /// The same with further parameters of `tempo.charge`, as for [`Mppx::at`].
    pub fn offering(chain: &Chain, parameters: &Value) -> Result<Self, Problem> {
        Self::at(&chain.url, parameters)
    }

    /// Starts it on the chain at `rpc_url`, with further parameters of `tempo.charge`: a `feePayer`
    /// is a private key or the URL of a service, an `amount` the price.
    pub fn at(rpc_url: &str, parameters: &Value) -> Result<Self, Problem> {
        let mut child = Command::new("node")
            .current_dir(peers())
            .args(["server.mjs", rpc_url, SELLER, &parameters.to_string()])
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

    /// Runs mppx's command line with the payer's key, bounded in time.
    pub fn run(chain: &Chain, args: &[&str]) -> Result<Output, Problem> {
        let mut command = Command::new("node");
        command
            .current_dir(peers())
            .arg("node_modules/mppx/dist/bin.js")
            .args(args)
            .env("MPPX_PRIVATE_KEY", PAYER_KEY)
            .env("MPPX_RPC_URL", &chain.url);
        if chain.id == MAINNET {
            command.env("MPPX_CONFIG", peers().join("mppx.config.mjs"));
        }
        output(command)
    }
}
