//! A seller on a real Tempo chain, and what the chain says of its payments.

mod anvil;
mod wire;

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use farebox::{
    client::{Budget, Limit, Purse},
    config::Wallets,
    wire::Amount,
};
use farebox_sandbox_tempo::PATH_USD;
use serde_json::{Value, json};

use crate::{
    Books, Node, NodeConfig, Payer, Problem,
    world::{account, table, upstream},
};

pub use anvil::Anvil;
pub use wire::{Moment, Wire};

/// The chain's contract that takes network fees.
const FEE_MANAGER: &str = "0xfeec000000000000000000000000000000000000";
/// `Transfer(address,address,uint256)`
const TRANSFER: &str = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef";
/// The development account that pays network fees.
const SPONSOR: usize = 3;

/// How a payment is handed over. The path of its route: `/pull`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The payer signs, the server broadcasts.
    Pull,
    /// The payer broadcasts.
    Push,
    /// The payer signs, the server pays the fee and broadcasts.
    Sponsored,
}

/// All of them.
pub const MODES: [Mode; 3] = [Mode::Pull, Mode::Push, Mode::Sponsored];

impl Mode {
    /// Its name, and that of its route.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "push",
            Self::Sponsored => "sponsored",
        }
    }

    /// Base units, different in each mode.
    fn price(self) -> u128 {
        match self {
            Self::Pull => 10_000,
            Self::Push => 11_000,
            Self::Sponsored => 12_000,
        }
    }

    /// The development account that pays.
    fn payer(self) -> usize {
        match self {
            Self::Pull => 1,
            Self::Push => 5,
            Self::Sponsored => 6,
        }
    }

    fn offer(self) -> Value {
        let amount = Amount::new(self.price()).to_decimal(6);
        let mut offer = json!({ "rail": "tempo/charge", "amount": amount });
        if self != Self::Sponsored {
            offer["modes"] = json!([self.name()]);
            offer["fee_payer"] = json!(false);
        }
        offer
    }
}

/// A seller on a chain that others may use too, and what its payers need.
#[derive(Debug)]
pub struct TempoWorld {
    chain: Arc<Anvil>,
    /// Between the server and its node.
    pub wire: Wire,
    seller: String,
    upstream: String,
    served: Arc<AtomicUsize>,
}

impl TempoWorld {
    /// A seller of its own on `chain`, who has nothing yet.
    pub async fn on(chain: Arc<Anvil>) -> Result<Self, Problem> {
        let served = Arc::new(AtomicUsize::new(0));
        Ok(Self {
            wire: Wire::to(chain.url()).await?,
            seller: format!("0x5e11e4{:034x}", fastrand::u128(..)),
            upstream: upstream(served.clone()).await?,
            served,
            chain,
        })
    }

    /// A server that sells one route per mode.
    pub fn node(&self, config: &NodeConfig) -> Result<Node, Problem> {
        Node::of(config, |port| {
            let routes: Vec<Value> = MODES
                .iter()
                .map(|mode| {
                    let path = format!("/{}", mode.name());
                    json!({ "path": path, "upstream": self.upstream, "offers": [mode.offer()] })
                })
                .collect();
            Ok(json!({
                "listen": format!("127.0.0.1:{port}"),
                "realm": "127.0.0.1",
                "secrets": ["a secret for tests only, of more than 32 bytes"],
                "store": config.store,
                "timing": config.timing,
                "rails": { "tempo": {
                    "rpc_url": self.wire.url(),
                    "chain_id": Anvil::CHAIN_ID,
                    "currency": PATH_USD.to_string(),
                    "recipient": self.seller,
                    "fee_payer": { "private_key": account(SPONSOR)?.1 },
                }},
                "routes": routes,
            }))
        })
    }

    /// Somebody who buys in `mode` at `address`.
    pub fn payer(&self, mode: Mode, address: &str) -> Result<Payer, Problem> {
        let tables = json!({ "tempo": {
            "private_key": account(mode.payer())?.1,
            "rpc_url": self.chain.url(),
            "chain_id": Anvil::CHAIN_ID,
        }});
        let wallets = Wallets::from_tables(table(tables), &farebox::registry()?)?;
        let currency = PATH_USD.to_string().to_lowercase();
        let budget = Budget::new([Limit::per_request(currency, Amount::new(mode.price()))]);
        let purse = wallets
            .iter()
            .fold(Purse::new(budget), |purse, (_, payer)| {
                purse.payer(payer.clone())
            });
        Payer::with(purse, mode.name(), address)
    }

    /// How often the upstream served.
    #[must_use]
    pub fn served(&self) -> usize {
        self.served.load(SeqCst)
    }

    /// The chain's own account of it: the seller has the price of everything that was served, in
    /// as many transactions as there are receipts, which are those of the receipts, and each had
    /// its fee paid by whom it was agreed.
    pub async fn balance(&self, books: &Books) -> Result<(), Problem> {
        let mut receipts = BTreeSet::new();
        let mut due = 0;
        for mode in MODES {
            let payer = match mode {
                Mode::Sponsored => SPONSOR,
                Mode::Pull | Mode::Push => mode.payer(),
            };
            for bought in books.bought(mode.name()) {
                due += mode.price();
                let hash = bought.receipt.reference.clone();
                self.fee_was_paid_by(&hash, &account(payer)?.0).await?;
                receipts.insert(hash);
            }
        }
        let moved = self.transactions().await?;
        let on_chain: BTreeSet<String> = moved.iter().cloned().collect();
        if moved.len() != books.total() || on_chain != receipts {
            let served = books.total();
            return Err(format!("paid by {moved:?}; {served} served, with {receipts:?}").into());
        }
        let has = self.chain.balance(&self.seller).await?;
        if has != due {
            return Err(format!("the seller has {has} base units and should have {due}").into());
        }
        books.distinct()
    }

    /// How many payments the chain has carried out.
    pub async fn moved(&self) -> Result<usize, Problem> {
        Ok(self.transactions().await?.len())
    }

    /// The transaction of each transfer to the seller.
    async fn transactions(&self) -> Result<Vec<String>, Problem> {
        let filter = json!([{
            "address": PATH_USD.to_string(),
            "topics": [TRANSFER, null, word(&self.seller)],
            "fromBlock": "0x0",
        }]);
        let logs = self.chain.call("eth_getLogs", filter).await?;
        let logs = logs.as_array().ok_or("no logs")?.iter();
        Ok(logs
            .filter_map(|log| log["transactionHash"].as_str().map(str::to_owned))
            .collect())
    }

    async fn fee_was_paid_by(&self, hash: &str, payer: &str) -> Result<(), Problem> {
        let receipt = self.chain.receipt(hash).await?;
        let logs = receipt["logs"].as_array().ok_or("no logs")?;
        let (from, to) = (word(payer), word(FEE_MANAGER));
        let paid = |log: &&Value| log["topics"][2] == to.as_str();
        let fee = logs.iter().find(paid).ok_or("no fee")?;
        match fee["topics"][1] == from.as_str() {
            true => Ok(()),
            false => Err(format!("somebody else paid the fee: {receipt}").into()),
        }
    }
}

/// An address as a log has it.
fn word(address: &str) -> String {
    format!("0x{:0>64}", address.trim_start_matches("0x").to_lowercase())
}

/// anvil's program, as `./tests/run` names it.
fn program() -> Result<PathBuf, Problem> {
    let path = std::env::var_os("FAREBOX_ANVIL").ok_or("FAREBOX_ANVIL does not name anvil")?;
    Ok(path.into())
}
