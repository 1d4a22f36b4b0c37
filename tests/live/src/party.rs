//! Who pays and who is paid: Farebox, mppx and the crate `mpp`, each as a client and as a server of
//! the same offers.

use std::{
    fmt,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::{Value, json};

use crate::{
    AUTHOR, Chain, FEE_PAYER_KEY, Mppx, PAYER_KEY, PLATFORM, Problem, Running, SELLER, Server,
    farebox, output, peers,
};

/// An implementation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Party {
    /// This tree's command.
    Farebox,
    /// The TypeScript SDK.
    Mppx,
    /// The Rust SDK.
    Mpp,
}

/// All of them.
pub const PARTIES: [Party; 3] = [Party::Farebox, Party::Mppx, Party::Mpp];

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Farebox => "farebox",
            Self::Mppx => "mppx",
            Self::Mpp => "mpp",
        })
    }
}

/// How a charge is paid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// The payer signs, the server broadcasts.
    Pull,
    /// The payer broadcasts.
    Push,
    /// Nothing is paid; the payer proves who it is.
    Proof,
    /// The payer signs, the server pays the network fee.
    Sponsored,
    /// Three recipients in one payment.
    Splits,
}

/// All of them.
pub const MODES: [Mode; 5] = [
    Mode::Pull,
    Mode::Push,
    Mode::Proof,
    Mode::Sponsored,
    Mode::Splits,
];

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Pull => "pull",
            Self::Push => "push",
            Self::Proof => "proof",
            Self::Sponsored => "sponsored",
            Self::Splits => "splits",
        })
    }
}

/// The price, pathUSD and base units.
const PRICE: (&str, u128) = ("0.01", 10_000);
/// What goes to others where a payment is split, with and without a memo.
const PARTS: [(&str, u128); 2] = [("0.002", 2_000), ("0.001", 1_000)];

/// Base units that a payment moves, by who gets them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    /// To the recipient.
    pub seller: u128,
    /// To the first split's recipient.
    pub author: u128,
    /// To the second split's recipient.
    pub platform: u128,
}

impl Mode {
    /// What a payment in this mode moves.
    #[must_use]
    pub fn moves(self) -> Moved {
        let (author, platform) = match self {
            Self::Splits => (PARTS[0].1, PARTS[1].1),
            _ => (0, 0),
        };
        let price = match self {
            Self::Proof => 0,
            _ => PRICE.1,
        };
        Moved {
            seller: price - author - platform,
            author,
            platform,
        }
    }

    fn decimal_price(self) -> &'static str {
        match self {
            Self::Proof => "0",
            _ => PRICE.0,
        }
    }

    /// The offer's splits with `[whole, fraction]` amounts as a peer takes them.
    fn splits(amounts: [String; 2]) -> Value {
        let [author, platform] = amounts;
        let memo = format!("0x{}", "5a".repeat(32));
        json!([
            { "amount": author, "recipient": AUTHOR, "memo": memo },
            { "amount": platform, "recipient": PLATFORM },
        ])
    }

    /// Parameters as mppx and the peer of `mpp` take them, apart from the price.
    fn parameters(self, amounts: [String; 2]) -> Value {
        match self {
            Self::Pull => json!({ "supportedModes": ["pull"] }),
            Self::Push => json!({ "supportedModes": ["push"] }),
            Self::Proof => json!({}),
            Self::Sponsored => json!({ "feePayer": FEE_PAYER_KEY }),
            Self::Splits => json!({ "splits": Self::splits(amounts) }),
        }
    }
}

/// A running server with one offer.
#[derive(Debug)]
pub struct Shop {
    _server: Box<dyn fmt::Debug + Send>,
    /// `http://127.0.0.1:…`, without a path; the offer is at `/joke`.
    pub origin: String,
}

impl Party {
    /// Serves an offer in `mode` on `chain`, which it reaches at `rpc_url`.
    pub fn serve(self, mode: Mode, chain: &Chain, rpc_url: &str) -> Result<Shop, Problem> {
        let decimal = PARTS.map(|(decimal, _)| decimal.to_owned());
        let units = PARTS.map(|(_, units)| units.to_string());
        let (server, url): (Box<dyn fmt::Debug + Send>, _) = match self {
            Self::Farebox => {
                let server = farebox_server(mode, chain, rpc_url)?;
                let url = server.url.clone();
                (Box::new(server), url)
            }
            Self::Mppx => {
                let mut parameters = mode.parameters(decimal);
                parameters["amount"] = mode.decimal_price().into();
                let server = Mppx::at(rpc_url, &parameters)?;
                let url = server.url.clone();
                (Box::new(server), url)
            }
            Self::Mpp => {
                let mut offer = mode.parameters(units);
                let price = if mode == Mode::Proof { 0 } else { PRICE.1 };
                offer["amount"] = price.to_string().into();
                let (server, url) = mpp_server(chain, rpc_url, &offer)?;
                (Box::new(server), url)
            }
        };
        Ok(Shop {
            _server: server,
            origin: url.trim_end_matches("/joke").to_owned(),
        })
    }

    /// Gets `url` and pays for it, bounded in time.
    pub fn pay(self, url: &str, chain: &Chain) -> Result<Output, Problem> {
        let mut command = match self {
            Self::Farebox => {
                let mut command = farebox()?;
                command
                    .args(["pay", url, "--rail", "tempo", "--max", "0.05"])
                    .env("FAREBOX_TEMPO_PRIVATE_KEY", PAYER_KEY)
                    .env("FAREBOX_TEMPO_RPC_URL", &chain.url)
                    .env("FAREBOX_TEMPO_CHAIN_ID", chain.id.to_string());
                command
            }
            Self::Mppx => {
                let mut command = Command::new("node");
                command.current_dir(peers());
                command.args(["client.mjs", url, &chain.url, PAYER_KEY]);
                command
            }
            Self::Mpp => {
                let mut command = Command::new(mpp_binary());
                command.args(["pay", url, &chain.url, PAYER_KEY]);
                command
            }
        };
        command.env("NO_COLOR", "1");
        output(command)
    }
}

fn farebox_server(mode: Mode, chain: &Chain, rpc_url: &str) -> Result<Server, Problem> {
    let mut offer = json!({ "rail": "tempo/charge", "amount": mode.decimal_price() });
    let mut rail = json!({});
    match mode {
        Mode::Pull => offer["modes"] = json!(["pull"]),
        Mode::Push => offer["modes"] = json!(["push"]),
        Mode::Proof => {}
        Mode::Sponsored => rail["fee_payer"] = json!({ "private_key": FEE_PAYER_KEY }),
        Mode::Splits => {
            offer["splits"] = Mode::splits(PARTS.map(|(decimal, _)| decimal.to_owned()));
        }
    }
    Server::with(chain, rpc_url, offer, rail)
}

/// The program of `tests/mpp`, which `./tests/run` builds into the target directory of the tests.
pub(crate) fn mpp_binary() -> PathBuf {
    if let Some(path) = std::env::var_os("FAREBOX_MPP_PEER") {
        return path.into();
    }
    let test = std::env::current_exe().unwrap_or_default();
    let folder = test.ancestors().nth(2).unwrap_or(Path::new("."));
    folder.join("farebox-mpp-peer")
}

fn mpp_server(chain: &Chain, rpc_url: &str, offer: &Value) -> Result<(Running, String), Problem> {
    let mut child = Command::new(mpp_binary())
        .args(["serve", rpc_url, &chain.id.to_string(), SELLER])
        .arg(offer.to_string())
        .stdout(Stdio::piped())
        .spawn()?;
    let stdout = child.stdout.take().ok_or("no standard output")?;
    let process = Running { child };
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    let ready: Value = serde_json::from_str(&line)?;
    let url = ready["url"].as_str().ok_or("no url")?.to_owned();
    Ok((process, url))
}
