//! Starting independent implementations, and finding out whether they can be had.
//!
//! The peers come from npm by `peers/package-lock.json`. A test whose peer is not installed is
//! reported as ignored, by name; with `FAREBOX_REQUIRE_LIVE=1` (as in CI) it fails instead.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use farebox_sandbox_tempo::ChainConfig;
use farebox_test_services::free_port;
use serde_json::{Value, json};

pub mod mcp;
mod mppx;
mod party;
mod recorder;
pub mod sessions;

pub use mppx::Mppx;
pub use party::{MODES, Mode, Moved, PARTIES, Party, Shop};
pub use recorder::{Exchange, Recorder};

/// What went wrong, for people.
pub type Problem = Box<dyn std::error::Error>;

/// pathUSD, 6 decimals.
pub const PATH_USD: &str = "0x20c0000000000000000000000000000000000000";
/// The seller: the third of the usual development accounts.
pub const SELLER: &str = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC";
/// The payer: the second of the usual development accounts.
pub const PAYER: &str = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8";
/// The payer's well-known development key.
pub const PAYER_KEY: &str = "0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d";
/// Who gets a part of a split payment: the fifth of the usual development accounts.
pub const AUTHOR: &str = "0x15d34AAf54267DB7D7c367839AAf71A00a2C6A65";
/// Who gets another part: the sixth.
pub const PLATFORM: &str = "0x9965507D1a55bcC2695C58ba16FB37d819B0A4dc";
/// Who pays network fees where the payer does not: the fourth.
pub const FEE_PAYER: &str = "0x90F79bf6EB2c4f870365E785982E1f101E93b906";
/// Its well-known development key.
pub const FEE_PAYER_KEY: &str =
    "0x7c852118294e51e653712a81e05800f419141751be58f605c371e15141b007a6";
/// The chain id that all peers know as a local network.
pub const LOCALNET: u64 = 1337;
/// Tempo's mainnet. Its id on a chain of our own makes mppx pay with the key it is given, where it
/// would ask a public faucet for one on any other chain.
pub const MAINNET: u64 = 4217;

fn peers() -> PathBuf {
    // Tests run in their package's folder.
    std::path::absolute("peers").unwrap_or_else(|_| "peers".into())
}

fn anvil_binary() -> PathBuf {
    match std::env::var_os("FAREBOX_ANVIL") {
        Some(path) => path.into(),
        None => peers().join("node_modules/@foundry-rs/anvil-linux-amd64/bin/anvil"),
    }
}

/// What is missing for the live tests, if anything.
pub fn missing() -> Option<String> {
    if !anvil_binary().exists() {
        return Some("anvil is not installed (./tests/run installs it)".to_owned());
    }
    missing_mppx()
}

/// What is missing for the tests that need mppx but no chain of others, if anything.
pub fn missing_mppx() -> Option<String> {
    let modules = peers().join("node_modules");
    if !modules.join("mppx").exists() || !modules.join("@modelcontextprotocol/sdk").exists() {
        return Some("mppx is not installed (./tests/run installs it)".to_owned());
    }
    None
}

/// What is missing for the matrix, if anything.
pub fn missing_for_the_matrix() -> Option<String> {
    let peer = || "tests/mpp is not built (./tests/run builds it)".to_owned();
    missing().or_else(|| (!party::mpp_binary().exists()).then(peer))
}

/// A child process that ends with its handle.
#[derive(Debug)]
pub struct Running {
    child: Child,
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself, and there is nobody left to tell.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a chain runs as.
#[derive(Debug)]
#[allow(dead_code, reason = "held to be dropped")]
enum Node {
    Anvil(Running),
    Sandbox(farebox_sandbox_tempo::Chain),
}

/// One thread of its own, so that a chain in this process answers while a test waits for a child.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
}

/// A Tempo chain on the loopback interface: a real one with a block a second, or the sandbox's.
#[derive(Debug)]
pub struct Chain {
    // Ended before the runtime that the sandbox's runs on.
    _node: Node,
    /// Its JSON-RPC endpoint.
    pub url: String,
    /// Its EIP-155 id.
    pub id: u64,
    http: reqwest::Client,
    runtime: tokio::runtime::Runtime,
}

impl Chain {
    /// Starts the sandbox's chain, where payment channels are.
    pub fn sandbox(config: ChainConfig) -> Result<Self, Problem> {
        let runtime = runtime()?;
        let chain = runtime.block_on(farebox_sandbox_tempo::Chain::start(config))?;
        Ok(Self {
            url: chain.url(),
            id: chain.chain_id(),
            _node: Node::Sandbox(chain),
            http: reqwest::Client::new(),
            runtime,
        })
    }

    /// Starts a real one and waits until it answers.
    pub fn start(id: u64) -> Result<Self, Problem> {
        let port = free_port();
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let child = Command::new(anvil_binary())
            .args([
                "--network",
                "tempo",
                "--hardfork",
                "T4",
                "--block-time",
                "1",
                "--quiet",
            ])
            .args(["--chain-id", &id.to_string()])
            .args(["--timestamp", &now.to_string()])
            .args(["--port", &port.to_string()])
            .stdout(Stdio::null())
            .spawn()?;
        let runtime = runtime()?;
        let chain = Self {
            _node: Node::Anvil(Running { child }),
            url: format!("http://127.0.0.1:{port}"),
            id,
            http: reqwest::Client::new(),
            runtime,
        };
        // Calls at the genesis block run at its time of 1, where no validity window is open.
        wait_for("the chain's first block", || {
            chain
                .call("eth_blockNumber", json!([]))
                .ok()
                .filter(|number| number != "0x0")
        })?;
        Ok(chain)
    }

    /// Calls a JSON-RPC method.
    pub fn call(&self, method: &str, params: Value) -> Result<Value, Problem> {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let answer: Value = self.runtime.block_on(async {
            self.http
                .post(&self.url)
                .json(&body)
                .send()
                .await?
                .json()
                .await
        })?;
        match answer.get("result") {
            Some(result) => Ok(result.clone()),
            None => Err(format!("{method}: {answer}").into()),
        }
    }

    /// Gets `url` with a credential.
    pub fn get(&self, url: &str, credential: &str) -> Result<Exchange, Problem> {
        let request = self.http.get(url).header("authorization", credential);
        let answer = self.runtime.block_on(request.send())?;
        Ok(Exchange {
            authorization: Some(credential.to_owned()),
            body: Vec::new(),
            status: answer.status().as_u16(),
            headers: answer.headers().clone(),
        })
    }

    /// An account's pathUSD, base units.
    pub fn balance(&self, account: &str) -> Result<u128, Problem> {
        let account = account.trim_start_matches("0x").to_lowercase();
        // balanceOf(address)
        let data = format!("0x70a08231{account:0>64}");
        let call = json!([{"to": PATH_USD, "data": data}, "latest"]);
        let result = self.call("eth_call", call)?;
        let hex = result
            .as_str()
            .unwrap_or_default()
            .trim_start_matches("0x")
            .to_owned();
        Ok(u128::from_str_radix(hex.get(32..).unwrap_or_default(), 16)?)
    }
}

/// How long a process may take to come up or to do its work, on a machine that does much else: only
/// what hangs takes so long.
pub const PATIENCE: Duration = Duration::from_secs(240);

/// Polls until `ready` answers, for as long as [`PATIENCE`] lasts.
pub fn wait_for<T>(what: &str, ready: impl Fn() -> Option<T>) -> Result<T, Problem> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = ready() {
            return Ok(value);
        }
        if Instant::now() > deadline {
            return Err(format!("{what} did not come up within {PATIENCE:?}").into());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The `farebox` command, built from this tree.
pub fn farebox() -> Result<Command, Problem> {
    Ok(Command::new(built("farebox-cli", "farebox")?))
}

/// A binary of a package of this tree, built.
fn built(package: &str, name: &str) -> Result<PathBuf, Problem> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .current_dir("../..")
        .args(["build", "--quiet", "-p", package])
        .args(["--message-format", "json"])
        .stderr(Stdio::inherit())
        .output()?;
    let binary = String::from_utf8(output.stdout)?
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter_map(|message| message["executable"].as_str().map(PathBuf::from))
        .find(|path| path.file_stem().is_some_and(|stem| stem == name));
    Ok(binary.ok_or_else(|| format!("cargo built no {name}"))?)
}

/// `farebox serve` with a paid `/joke` on `chain`.
#[derive(Debug)]
pub struct Server {
    _process: Running,
    _sandbox: Option<Running>,
    _config: tempfile::TempDir,
    /// The paid route.
    pub url: String,
}

impl Server {
    /// Serves `GET /joke` at `price` pathUSD.
    pub fn start(chain: &Chain, price: &str) -> Result<Self, Problem> {
        let offer = json!({ "rail": "tempo/charge", "amount": price });
        Self::with(chain, &chain.url, offer, json!({}))
    }

    /// Serves `GET /joke` for `offer` on `chain`, reached at `rpc_url`; `rail` has further keys of
    /// the rail's table.
    pub fn with(
        chain: &Chain,
        rpc_url: &str,
        offer: Value,
        mut rail: Value,
    ) -> Result<Self, Problem> {
        let port = free_port();
        rail["rpc_url"] = rpc_url.into();
        rail["chain_id"] = chain.id.into();
        rail["currency"] = PATH_USD.into();
        rail["recipient"] = SELLER.into();
        let config = json!({
            "listen": format!("127.0.0.1:{port}"),
            "realm": "127.0.0.1",
            "secrets": ["a secret of 32 bytes, only for tests"],
            "store": "memory:",
            "rails": { "tempo": rail },
            "routes": [{
                "path": "/joke",
                "respond": "a joke worth its price",
                "offers": [offer],
            }],
        });
        Self::run(&toml::to_string(&config)?, port, None)
    }

    /// Serves `GET /joke` on every rail that takes money: Tempo on `chain`, the others on the
    /// sandbox.
    pub fn on_every_rail(chain: &Chain) -> Result<Self, Problem> {
        let mut child = farebox()?
            .args(["sandbox", "--json"])
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = child.stdout.take().ok_or("no standard output")?;
        let sandbox = Running { child };
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let mut config = serde_json::from_str::<Value>(&line)?["config"].take();
        let port = free_port();
        config["listen"] = format!("127.0.0.1:{port}").into();
        config["rails"]["tempo"]["rpc_url"] = chain.url.as_str().into();
        config["rails"]["tempo"]["chain_id"] = chain.id.into();
        // Free offers are left out: a proof's receipt refers to its challenge, as drafted, and mppx
        // expects a transaction there.
        if let Some(offers) = config["routes"][0]["offers"].as_array_mut() {
            offers.retain(|offer| offer["rail"] != "proof/charge");
        }
        Self::run(&toml::to_string(&config)?, port, Some(sandbox))
    }

    fn run(config: &str, port: u16, sandbox: Option<Running>) -> Result<Self, Problem> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("farebox.toml");
        std::fs::write(&path, config)?;
        let child = farebox()?
            .arg("serve")
            .arg("--config")
            .arg(&path)
            .env("FAREBOX_LOG", "farebox=error")
            .stdout(Stdio::null())
            .spawn()?;
        let process = Running { child };
        wait_for("farebox serve", || {
            std::net::TcpStream::connect(("127.0.0.1", port)).ok()
        })?;
        let url = format!("http://127.0.0.1:{port}/joke");
        Ok(Self {
            _process: process,
            _sandbox: sandbox,
            _config: directory,
            url,
        })
    }
}

/// Runs a command to its end, killing it after [`PATIENCE`].
pub fn output(mut command: Command) -> Result<Output, Problem> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut out = child.stdout.take().ok_or("no standard output")?;
    let mut err = child.stderr.take().ok_or("no standard error")?;
    let mut process = Running { child };
    let reader = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        err.read_to_end(&mut bytes).map(|_| bytes)
    });
    let writer = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        out.read_to_end(&mut bytes).map(|_| bytes)
    });
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = process.child.try_wait()? {
            break status;
        }
        if Instant::now() > deadline {
            return Err(format!("{command:?} took longer than {PATIENCE:?}").into());
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let join = |thread: std::thread::JoinHandle<std::io::Result<Vec<u8>>>| {
        thread.join().map_err(|_| "reading its output failed")
    };
    Ok(Output {
        status,
        stdout: join(writer)??,
        stderr: join(reader)??,
    })
}

/// Output as text.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
