//! Two LDK nodes in this process, on a chain of our own: with a channel between them, or with a
//! third node that forwards and takes a fee.

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use farebox::SecretSource;
use farebox::rails::lightning::ldk::ldk_node;
use farebox::rails::lightning::ldk::{Ldk, Settings};
use farebox::rails::lightning::{BitcoindConfig, LdkConfig, Network, Node, PaymentHash, Preimage};
use farebox_test_services::free_port;
use ldk_node::lightning::ln::channelmanager::PaymentId;
use ldk_node::lightning_invoice::{Bolt11InvoiceDescription, Description};
use ldk_node::payment::PaymentKind;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::Pair;
use crate::esplora::Esplora;
use crate::faces::{Face, RPC_USER};

const CHANNEL_SAT: u64 = 1_000_000;
const DEADLINE: Duration = Duration::from_secs(240);

/// The nodes, their chain and their folders.
pub struct LdkPair {
    seller: Arc<Ldk>,
    payer: RwLock<Option<Arc<Ldk>>>,
    payer_config: LdkConfig,
    hop: Option<ldk_node::Node>,
    _face: Option<Face>,
    _esplora: Esplora,
    _folder: TempDir,
}

/// The configuration of a node with its folder and its seed under `folder`.
pub fn config(folder: &Path, name: &str, esplora: &Esplora) -> LdkConfig {
    let seed = SecretSource::File(folder.join(format!("{name}.seed")));
    LdkConfig::esplora(folder.join(name), seed, esplora.url())
}

/// How the nodes read the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Esplora's HTTP interface.
    Esplora,
    /// An Electrum server.
    Electrum,
    /// Bitcoin Core's RPC.
    Bitcoind,
}

impl Source {
    /// A node's configuration; `port` is where a source that is not Esplora answers.
    pub fn config(self, folder: &Path, name: &str, esplora: &Esplora, port: u16) -> LdkConfig {
        let at_esplora = config(folder, name, esplora);
        let (folder, seed) = (at_esplora.data_dir.clone(), at_esplora.seed.clone());
        match self {
            Self::Esplora => at_esplora,
            Self::Electrum => LdkConfig::electrum(folder, seed, format!("tcp://127.0.0.1:{port}")),
            Self::Bitcoind => {
                let password = serde_json::from_value(RPC_USER.into()).unwrap();
                let bitcoind = BitcoindConfig::new("127.0.0.1", port, RPC_USER, password);
                LdkConfig::bitcoind(folder, seed, bitcoind)
            }
        }
    }
}

fn node(config: &LdkConfig) -> Arc<Ldk> {
    let settings = Settings::check(config, Network::Regtest).expect("settings");
    Arc::new(Ldk::new(settings))
}

/// Waits until `done` says so.
pub async fn until(what: &str, node: &Ldk, done: fn(&ldk_node::Node) -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !node.with(done).await.expect("the node runs") {
        assert!(Instant::now() < deadline, "{what}");
        sleep(Duration::from_millis(50)).await;
    }
}

/// Gives a node money on the chain.
pub async fn fund(esplora: &Esplora, node: &Ldk) {
    let address = node.with(|n| n.onchain_payment().new_address()).await;
    esplora.fund(&address.unwrap().unwrap(), 10_000_000);
    // A sync may join one that began before the money came, and may take longer than it is given.
    until("the money shows", node, |n| {
        n.sync_wallets().is_ok() && n.list_balances().spendable_onchain_balance_sats > 0
    })
    .await;
}

/// Opens a channel that its receiver trusts at once.
pub async fn open_channel(from: &Ldk, to: &Ldk) {
    let info = to.info().await.unwrap();
    open_channel_to(from, &info.id, &info.addresses[0]).await;
    for node in [from, to] {
        until("the channel is ready", node, |n| {
            n.list_channels().iter().any(|channel| channel.is_usable)
        })
        .await;
    }
}

/// Asks a node for a channel, by its id and where it listens.
pub async fn open_channel_to(from: &Ldk, id: &str, address: &str) {
    let (id, address) = (id.parse().unwrap(), address.parse().unwrap());
    let open = move |n: &ldk_node::Node| n.open_channel(id, address, CHANNEL_SAT, None, None);
    from.with(open).await.unwrap().expect("a channel");
}

impl std::fmt::Debug for LdkPair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LdkPair")
            .field("seller", &self.seller)
            .finish_non_exhaustive()
    }
}

/// What LDK takes for forwarding, unless told otherwise: a sat, whatever the amount.
const HOP_FEE_MSAT: u64 = 1_000;

/// A node that forwards over channels which nobody announces: LDK does that in this role only.
fn hop(folder: &Path, esplora: &Esplora, payer: &str, address: &str) -> ldk_node::Node {
    let config = ldk_node::config::Config {
        storage_dir_path: folder.join("hop").display().to_string(),
        network: ldk_node::bitcoin::Network::Regtest,
        listening_addresses: Some(vec![address.parse().unwrap()]),
        trusted_peers_0conf: vec![payer.parse().unwrap()],
        ..Default::default()
    };
    let mut builder = ldk_node::Builder::from_config(config);
    builder.set_node_alias("hop".into()).unwrap();
    builder.set_entropy_seed_bytes([7; 64]);
    builder.set_chain_source_esplora(esplora.url().to_owned(), None);
    builder.set_runtime(tokio::runtime::Handle::current());
    let role = ldk_node::config::AsyncPaymentsRole::Server;
    builder.set_async_payments_role(Some(role)).unwrap();
    let node = builder.build().expect("the hop is built");
    node.start().expect("the hop starts");
    node
}

impl LdkPair {
    /// Starts both, and opens a channel from the payer to the seller.
    pub async fn start() -> Self {
        Self::start_on(Source::Esplora).await
    }

    /// The same, reading the chain in another way.
    pub async fn start_on(source: Source) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let esplora = Esplora::start().await;
        let face = match source {
            Source::Esplora => None,
            Source::Electrum => Some(Face::electrum(&esplora).await),
            Source::Bitcoind => Some(Face::bitcoind(&esplora).await),
        };
        let port = face.as_ref().map_or(0, Face::port);
        let config = |folder: &Path, name| source.config(folder, name, &esplora, port);
        let payer_config = config(folder.path(), "payer");
        let payer = node(&payer_config);
        let mut seller_config = config(folder.path(), "seller");
        seller_config.listen = vec![format!("127.0.0.1:{}", free_port())];
        seller_config.trusted_peers = vec![payer.info().await.expect("the payer starts").id];
        let seller = node(&seller_config);
        seller.start().await.expect("the seller starts");
        fund(&esplora, &payer).await;
        open_channel(&payer, &seller).await;
        Self {
            seller,
            payer: RwLock::new(Some(payer)),
            payer_config,
            hop: None,
            _face: face,
            _esplora: esplora,
            _folder: folder,
        }
    }

    /// The same with a third node between them, which takes a sat for each payment.
    pub async fn through_a_hop() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let esplora = Esplora::start().await;
        let payer_config = config(folder.path(), "payer", &esplora);
        let payer = node(&payer_config);
        let payer_id = payer.info().await.expect("the payer starts").id;
        let address = format!("127.0.0.1:{}", free_port());
        let hop = hop(folder.path(), &esplora, &payer_id, &address);
        let hop_id = hop.node_id().to_string();
        let mut seller_config = config(folder.path(), "seller", &esplora);
        seller_config.listen = vec![format!("127.0.0.1:{}", free_port())];
        seller_config.trusted_peers = vec![hop_id.clone()];
        let seller = node(&seller_config);
        let info = seller.info().await.expect("the seller starts");
        fund(&esplora, &payer).await;
        open_channel_to(&payer, &hop_id, &address).await;
        let at = hop.onchain_payment().new_address().unwrap();
        esplora.fund(&at, 10_000_000);
        let (id, at) = (info.id.parse().unwrap(), info.addresses[0].parse().unwrap());
        let deadline = Instant::now() + DEADLINE;
        loop {
            let synced = tokio::task::block_in_place(|| hop.sync_wallets());
            if hop.list_balances().spendable_onchain_balance_sats > 0 {
                break;
            }
            assert!(Instant::now() < deadline, "the hop's money: {synced:?}");
        }
        hop.open_channel(id, at, CHANNEL_SAT, None, None)
            .expect("a channel");
        for node in [&payer, &seller] {
            until("the channel is ready", node, |n| {
                n.list_channels().iter().any(|channel| channel.is_usable)
            })
            .await;
        }
        Self {
            seller,
            payer: RwLock::new(Some(payer)),
            payer_config,
            hop: Some(hop),
            _face: None,
            _esplora: esplora,
            _folder: folder,
        }
    }

    /// Stops both, while there is still a folder for what they write last.
    pub async fn stop(&self) {
        self.current().stop().await;
        self.seller.stop().await;
        if let Some(hop) = &self.hop {
            // Its error says that it has ended before.
            let _ = tokio::task::block_in_place(|| hop.stop());
        }
    }

    fn current(&self) -> Arc<Ldk> {
        let payer = self.payer.read().unwrap_or_else(PoisonError::into_inner);
        payer.clone().expect("the payer runs")
    }
}

#[async_trait]
impl Pair for LdkPair {
    fn seller(&self) -> Arc<dyn Node> {
        self.seller.clone()
    }

    fn shop(&self) -> Arc<dyn Node> {
        self.seller()
    }

    fn payer(&self) -> Arc<dyn Node> {
        self.current()
    }

    async fn restart_payer(&self) {
        self.current().stop().await;
        let again = node(&self.payer_config);
        again.start().await.expect("it starts again");
        until("the channel is back", &again, |n| {
            n.list_channels().iter().any(|channel| channel.is_usable)
        })
        .await;
        let mut payer = self.payer.write().unwrap_or_else(PoisonError::into_inner);
        *payer = Some(again);
    }

    async fn leak(&self, invoice: PaymentHash) -> Preimage {
        let id = PaymentId(*invoice.as_bytes());
        let found = self.seller.with(move |n| n.payment(&id)).await.unwrap();
        match found.expect("its own invoice").kind {
            PaymentKind::Bolt11 {
                preimage: Some(preimage),
                ..
            } => Preimage::new(preimage.0),
            other => panic!("no preimage in {other:?}"),
        }
    }

    async fn open_invoice(&self) -> String {
        let mint = |n: &ldk_node::Node| {
            let memo = Bolt11InvoiceDescription::Direct(Description::new("open".into()).unwrap());
            n.bolt11_payment().receive_variable_amount(&memo, 600)
        };
        self.seller.with(mint).await.unwrap().unwrap().to_string()
    }

    fn fee_msat(&self) -> u64 {
        if self.hop.is_some() { HOP_FEE_MSAT } else { 0 }
    }
}
