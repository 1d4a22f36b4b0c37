//! A server that sells by the unit from a session, and everything around it.

mod books;
mod payer;

use std::{convert::Infallible, net::Ipv4Addr, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::Query,
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
    routing::get,
};
use farebox::config::Wallets;
use farebox_sandbox_lightning::{Lightning, LightningConfig};
use farebox_sandbox_tempo::{ALPHA_USD, Chain, ChainConfig, PATH_USD};
use futures_util::stream;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::{
    Node, NodeConfig, Problem,
    world::{account, table},
};

pub use books::{ChannelBooks, Drained, balance};

pub use payer::{SessionPayer, Tally};

/// Who pays, is paid, and settles, among the development accounts.
const PAYER: usize = 1;
const SELLER: usize = 2;
const OPERATOR: usize = 3;

/// Where a Tempo chain keeps what is in channels.
const RESERVE: &str = "0x4d50500000000000000000000000000000000000";

/// Units of the first deposit, and of each top-up.
pub const DEPOSIT: u64 = 6;

/// Units that a channel may hold at most.
pub const MAX_DEPOSIT: u64 = 300;

/// A rail that sessions are paid on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionRail {
    /// Vouchers over a deposit on the chain.
    Tempo,
    /// A deposit that is the seller's from the start, and a refund.
    Lightning,
}

impl SessionRail {
    /// Base units of one unit of service.
    #[must_use]
    pub fn price(self) -> u128 {
        match self {
            Self::Tempo => 1_000,
            Self::Lightning => 1,
        }
    }

    /// As payers name what they pay in.
    #[must_use]
    pub fn currency(self) -> String {
        match self {
            Self::Tempo => PATH_USD.to_string().to_lowercase(),
            Self::Lightning => "sat".to_owned(),
        }
    }

    fn offer(self) -> Value {
        match self {
            Self::Tempo => json!({
                "rail": "tempo/session", "amount": "0.001", "unit": "token",
                "suggested_deposit": format!("0.{DEPOSIT:03}"),
            }),
            Self::Lightning => json!({
                "rail": "lightning/session", "amount": "1", "unit": "token",
                "suggested_deposit": DEPOSIT.to_string(),
            }),
        }
    }
}

/// What moves the money, and knows how much.
#[derive(Debug)]
enum Ground {
    Tempo {
        chain: Box<Chain>,
        before: [u128; 2],
    },
    Lightning(Box<Lightning>),
}

/// A rail, an upstream and a wallet.
#[derive(Debug)]
pub struct SessionWorld {
    rail: SessionRail,
    ground: Ground,
    upstream: String,
}

/// When a server acts by itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Upkeep {
    /// It settles after so many units. Only where there is something to settle.
    pub units: Option<u64>,
    /// It closes what nobody uses for so many seconds.
    pub idle: Option<u64>,
}

impl SessionWorld {
    /// Starts everything on free ports of this machine.
    pub async fn start(rail: SessionRail) -> Result<Self, Problem> {
        let ground = match rail {
            SessionRail::Tempo => {
                let setting = ChainConfig {
                    block_time: Duration::from_millis(50),
                    ..ChainConfig::default()
                };
                let chain = Chain::start(setting).await?;
                let before = balances(&chain)?;
                Ground::Tempo {
                    chain: Box::new(chain),
                    before,
                }
            }
            SessionRail::Lightning => {
                let mut setting = LightningConfig::default();
                // So that what left one node has arrived at the other.
                setting.routing_fee_msat = 0;
                Ground::Lightning(Box::new(Lightning::start(setting).await?))
            }
        };
        Ok(Self {
            rail,
            ground,
            upstream: upstream().await?,
        })
    }

    /// The rail.
    #[must_use]
    pub fn rail(&self) -> SessionRail {
        self.rail
    }

    /// A server that sells `/word` for one unit and `/tokens?count=…` for one each.
    pub fn node(&self, config: &NodeConfig, upkeep: Upkeep) -> Result<Node, Problem> {
        let rail = self.table(upkeep)?;
        Node::of(config, |port| {
            let route = |path: &str| json!({ "path": path, "upstream": self.upstream, "offers": [self.rail.offer()] });
            Ok(json!({
                "listen": format!("127.0.0.1:{port}"),
                "realm": "127.0.0.1",
                "secrets": ["a secret for tests only, of more than 32 bytes"],
                "store": config.store,
                "timing": config.timing,
                "rails": rail,
                "routes": [route("/word"), route("/tokens")],
            }))
        })
    }

    fn table(&self, upkeep: Upkeep) -> Result<Value, Problem> {
        Ok(match &self.ground {
            Ground::Tempo { chain, .. } => {
                let mut session = json!({
                    "operator_key": account(OPERATOR)?.1,
                    "fee_token": ALPHA_USD.to_string(),
                });
                if let Some(units) = upkeep.units {
                    session["settlement_schedule"] = json!({ "units": units });
                }
                if let Some(idle) = upkeep.idle {
                    session["idle_close_seconds"] = json!(idle);
                }
                json!({ "tempo": {
                    "rpc_url": chain.url(),
                    "chain_id": chain.chain_id(),
                    "currency": PATH_USD.to_string(),
                    "recipient": account(SELLER)?.0,
                    "session": session,
                }})
            }
            Ground::Lightning(lightning) => {
                let seller = lightning.seller();
                let mut session = json!({});
                if let Some(idle) = upkeep.idle {
                    session["idle_timeout"] = json!(idle);
                }
                json!({ "lightning": {
                    "backend": "lnd",
                    "endpoint": seller.endpoint(),
                    "tls_cert": { "file": seller.tls_cert_path() },
                    // Refunds are paid from it.
                    "macaroon": { "file": seller.admin_macaroon_path() },
                    "network": "regtest",
                    "session": session,
                }})
            }
        })
    }

    fn wallets(&self) -> Result<Wallets, Problem> {
        let tables = match &self.ground {
            Ground::Tempo { chain, .. } => json!({ "tempo": {
                "private_key": account(PAYER)?.1,
                "rpc_url": chain.url(),
                "chain_id": chain.chain_id(),
                // Fees out of another pocket, so that balances say what was paid.
                "fee_token": ALPHA_USD.to_string(),
            }}),
            Ground::Lightning(lightning) => {
                let agent = lightning.agent();
                json!({ "lightning": {
                    "backend": "lnd",
                    "endpoint": agent.endpoint(),
                    "tls_cert": { "file": agent.tls_cert_path() },
                    "macaroon": { "file": agent.admin_macaroon_path() },
                    "network": "regtest",
                }})
            }
        };
        Ok(Wallets::from_tables(table(tables), &farebox::registry()?)?)
    }

    /// What has moved by the rail's own account so far.
    pub fn moved(&self) -> Result<Drained, Problem> {
        Ok(match &self.ground {
            Ground::Tempo { chain, before } => {
                let [payer, seller] = balances(chain)?;
                Drained {
                    left: before[0] - payer,
                    arrived: seller - before[1],
                    held: chain.balance(PATH_USD, RESERVE.parse()?),
                }
            }
            Ground::Lightning(lightning) => {
                let sats = |invoices: Vec<farebox_sandbox_lightning::SettledInvoice>| {
                    let msat: u64 = invoices.iter().map(|paid| paid.amount_msat).sum();
                    u128::from(msat / 1_000)
                };
                let deposits = sats(lightning.seller().settled());
                let refunds = sats(lightning.agent().settled());
                let kept = deposits
                    .checked_sub(refunds)
                    .ok_or("more was given back than came in")?;
                Drained {
                    left: kept,
                    arrived: u128::from(lightning.seller().balance_sat()),
                    held: 0,
                }
            }
        })
    }
}

/// What the payer and the seller have, in what is paid.
fn balances(chain: &Chain) -> Result<[u128; 2], Problem> {
    let of = |index| Ok::<_, Problem>(chain.balance(PATH_USD, account(index)?.0.parse()?));
    Ok([of(PAYER)?, of(SELLER)?])
}

/// `/word` is one; `/tokens?count=3` streams three, and takes its time, in which it can be killed.
async fn upstream() -> Result<String, Problem> {
    async fn tokens(Query(query): Query<Vec<(String, u64)>>) -> Response {
        let count = query.first().map_or(0, |(_, count)| *count);
        let tokens = stream::unfold(0, move |sent| async move {
            if sent == count {
                return None;
            }
            tokio::time::sleep(Duration::from_millis(fastrand::u64(1..5))).await;
            let token = format!("data: token {sent}\n\n");
            Some((Ok::<_, Infallible>(token), sent + 1))
        });
        let events = [(CONTENT_TYPE, "text/event-stream")];
        (events, Body::from_stream(tokens)).into_response()
    }
    let app = Router::new()
        .route("/word", get(async || "word"))
        .route("/tokens", get(tokens));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(format!("http://{address}"))
}
