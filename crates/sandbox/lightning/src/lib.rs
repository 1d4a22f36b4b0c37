//! An offline stand-in for two Lightning nodes with a channel between them.
//!
//! Each node speaks LND's gRPC over TLS on loopback, with a self-signed certificate and macaroons in
//! files, and on another port Core Lightning's, with certificates on both sides; it mints real
//! signed BOLT11 invoices for regtest. Money moves between the two wallets only. What is not real:
//! there is no chain, no channel and no route.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), farebox_sandbox_lightning::StartError> {
//! use farebox_sandbox_lightning::{Lightning, LightningConfig};
//!
//! let lightning = Lightning::start(LightningConfig::default()).await?;
//! assert!(lightning.seller().endpoint().starts_with("https://127.0.0.1:"));
//! assert_eq!(lightning.agent().balance_sat(), 1_000_000);
//! # Ok(())
//! # }
//! ```

mod cln;
mod ledger;
mod service;
mod tls;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use farebox_lnd::lnrpc::lightning_server::LightningServer;
use farebox_lnd::routerrpc::router_server::RouterServer;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Identity, Server, ServerTlsConfig};

pub use cln::ClnHandle;

use ledger::{Ledger, Who};
use service::{Node, Service};
use tls::{Certificate, Macaroon};

/// What the sandbox starts with.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LightningConfig {
    /// The seller's spendable balance, satoshis. Default 0.
    pub seller_balance_sat: u64,
    /// The agent's spendable balance, satoshis. Default 1 000 000.
    pub agent_balance_sat: u64,
    /// What every payment costs its payer on top, millisatoshis. Default 1 000.
    pub routing_fee_msat: u64,
}

impl Default for LightningConfig {
    fn default() -> Self {
        Self {
            seller_balance_sat: 0,
            agent_balance_sat: 1_000_000,
            routing_fee_msat: 1_000,
        }
    }
}

/// Why the sandbox did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A file could not be written or a port not be bound.
    #[error("sandbox: {0}")]
    Io(#[from] std::io::Error),
    /// The certificate could not be made.
    #[error("sandbox certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// The system has no randomness.
    #[error("sandbox randomness: {0}")]
    Random(#[from] getrandom::Error),
    /// The server refused its TLS settings.
    #[error("sandbox server: {0}")]
    Server(#[from] tonic::transport::Error),
}

/// Two running nodes, `seller` and `agent`. Dropping it stops both and removes their files.
#[derive(Debug)]
pub struct Lightning {
    seller: NodeHandle,
    agent: NodeHandle,
    _dir: tempfile::TempDir,
}

impl Lightning {
    /// Starts both nodes, each on a free port of 127.0.0.1. Needs a tokio runtime with I/O and time.
    ///
    /// # Errors
    ///
    /// When a file, a port, a certificate or randomness cannot be had.
    pub async fn start(config: LightningConfig) -> Result<Self, StartError> {
        // Where some other crate links a second provider, TLS cannot choose one by itself. That
        // there is a default already is just as well.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let dir = tempfile::Builder::new()
            .prefix("farebox-lightning-")
            .tempdir()?;
        let ledger = Arc::new(Ledger::new(
            config.seller_balance_sat,
            config.agent_balance_sat,
            config.routing_fee_msat,
        )?);
        Ok(Self {
            seller: NodeHandle::start(dir.path(), "seller", Who::Seller, Arc::clone(&ledger))
                .await?,
            agent: NodeHandle::start(dir.path(), "agent", Who::Agent, ledger).await?,
            _dir: dir,
        })
    }

    /// The node that is paid.
    #[must_use]
    pub fn seller(&self) -> &NodeHandle {
        &self.seller
    }

    /// The node that pays.
    #[must_use]
    pub fn agent(&self) -> &NodeHandle {
        &self.agent
    }
}

/// An invoice that has been paid.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SettledInvoice {
    /// Lower-case hex.
    pub payment_hash: String,
    /// Millisatoshis received.
    pub amount_msat: u64,
    /// The memo it was minted with.
    pub memo: String,
}

/// One node: where it listens, the files it left, what it holds, and the faults it can show.
pub struct NodeHandle {
    node: Arc<Node>,
    address: SocketAddr,
    dir: PathBuf,
    invoice_macaroon: Macaroon,
    admin_macaroon: Macaroon,
    cln: ClnHandle,
    running: Mutex<Running>,
}

struct Running {
    cert_pem: String,
    server: JoinHandle<()>,
}

impl fmt::Debug for NodeHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeHandle")
            .field("alias", &self.node.alias)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl Drop for NodeHandle {
    fn drop(&mut self) {
        self.running().server.abort();
    }
}

impl NodeHandle {
    async fn start(
        root: &Path,
        alias: &'static str,
        who: Who,
        ledger: Arc<Ledger>,
    ) -> Result<Self, StartError> {
        let dir = root.join(alias);
        std::fs::create_dir(&dir)?;
        let invoice_macaroon = Macaroon::write(&dir, "invoice.macaroon")?;
        let admin_macaroon = Macaroon::write(&dir, "admin.macaroon")?;
        let node = Arc::new(Node {
            who,
            alias,
            ledger,
            invoice_macaroon: invoice_macaroon.hex.clone(),
            admin_macaroon: admin_macaroon.hex.clone(),
            faults: service::Faults::default(),
        });
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let running = serve(&node, &dir, listener)?;
        let cln = ClnHandle::start(Arc::clone(&node), &dir).await?;
        Ok(Self {
            cln,
            node,
            address,
            dir,
            invoice_macaroon,
            admin_macaroon,
            running: Mutex::new(running),
        })
    }

    fn running(&self) -> std::sync::MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `https://127.0.0.1:PORT`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("https://{}", self.address)
    }

    /// The same node behind Core Lightning's interface. It shares the wallet and the faults.
    #[must_use]
    pub fn cln(&self) -> &ClnHandle {
        &self.cln
    }

    /// The compressed public key that signs the node's invoices, hex.
    #[must_use]
    pub fn public_key(&self) -> String {
        self.node.ledger.public_key(self.node.who).to_string()
    }

    /// The certificate file, PEM.
    #[must_use]
    pub fn tls_cert_path(&self) -> PathBuf {
        self.dir.join("tls.cert")
    }

    /// The certificate the node presents now.
    #[must_use]
    pub fn tls_cert_pem(&self) -> String {
        self.running().cert_pem.clone()
    }

    /// A macaroon that may add and look up invoices, and nothing else; hex.
    #[must_use]
    pub fn invoice_macaroon_hex(&self) -> &str {
        &self.invoice_macaroon.hex
    }

    /// The file with the invoice macaroon; binary.
    #[must_use]
    pub fn invoice_macaroon_path(&self) -> &Path {
        &self.invoice_macaroon.path
    }

    /// A macaroon that may do everything; hex.
    #[must_use]
    pub fn admin_macaroon_hex(&self) -> &str {
        &self.admin_macaroon.hex
    }

    /// The file with the admin macaroon; binary.
    #[must_use]
    pub fn admin_macaroon_path(&self) -> &Path {
        &self.admin_macaroon.path
    }

    /// What the node can spend, whole satoshis. Money in flight is not counted.
    #[must_use]
    pub fn balance_sat(&self) -> u64 {
        self.balance_msat() / 1_000
    }

    /// What the node can spend, millisatoshis.
    #[must_use]
    pub fn balance_msat(&self) -> u64 {
        self.node.ledger.balance_msat(self.node.who)
    }

    /// The node's paid invoices, in the order they were minted.
    #[must_use]
    pub fn settled(&self) -> Vec<SettledInvoice> {
        let settled = self.node.ledger.settled(self.node.who).into_iter();
        settled
            .map(|(hash, issued)| SettledInvoice {
                payment_hash: hex::encode(hash),
                amount_msat: issued.amount_msat,
                memo: issued.memo,
            })
            .collect()
    }

    /// How many invoices the node has minted.
    #[must_use]
    pub fn invoice_count(&self) -> usize {
        self.node.ledger.invoice_count(self.node.who)
    }

    /// While `true`, every call answers `UNAVAILABLE`.
    pub fn set_unavailable(&self, unavailable: bool) {
        let faults = &self.node.faults;
        faults.unavailable.store(unavailable, Ordering::Relaxed);
    }

    /// The next payment this node sends stays in flight until [`finish_hung`](Self::finish_hung).
    pub fn hang_next_send(&self) {
        let faults = &self.node.faults;
        faults.hang_next_send.store(true, Ordering::Relaxed);
    }

    /// Ends a payment that hangs: settled, or failed with the money returned. `payment_hash` is
    /// hex; one that is not in flight is left as it is.
    pub fn finish_hung(&self, payment_hash: &str, settle: bool) {
        let mut hash = [0; 32];
        if hex::decode_to_slice(payment_hash, &mut hash).is_ok() {
            self.node.ledger.finish(self.node.who, &hash, settle);
        }
    }

    /// The next payment this node sends is settled, and its answer is lost.
    pub fn drop_next_reply_after_settle(&self) {
        let faults = &self.node.faults;
        faults.drop_next_reply.store(true, Ordering::Relaxed);
    }

    /// Stops the node and starts it again on the same port with a new certificate, written over the
    /// old one. Wallet, invoices and payments stay.
    ///
    /// # Errors
    ///
    /// When the certificate, its file or the port cannot be had; the node is then down.
    pub async fn restart_with_new_certificate(&self) -> Result<(), StartError> {
        self.running().server.abort();
        // The port is free once the task that holds the listener is gone.
        while !self.running().server.is_finished() {
            tokio::task::yield_now().await;
        }
        let listener = TcpListener::bind(self.address).await?;
        *self.running() = serve(&self.node, &self.dir, listener)?;
        Ok(())
    }
}

/// Writes a fresh certificate and serves the node with it.
fn serve(node: &Arc<Node>, dir: &Path, listener: TcpListener) -> Result<Running, StartError> {
    let certificate = Certificate::generate(node.alias)?;
    std::fs::write(dir.join("tls.cert"), &certificate.cert_pem)?;
    let identity = Identity::from_pem(&certificate.cert_pem, &certificate.key_pem);
    let service = Service(Arc::clone(node));
    let router = Server::builder()
        .tls_config(ServerTlsConfig::new().identity(identity))?
        .add_service(LightningServer::new(service.clone()))
        .add_service(RouterServer::new(service));
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let server = tokio::spawn(async move {
        // Ends by being aborted, which also tells the open connections to close: without a shutdown
        // signal to lose they would outlive the node. A listener that breaks shows at the client.
        let _ = router
            .serve_with_incoming_shutdown(incoming, std::future::pending())
            .await;
    });
    Ok(Running {
        cert_pem: certificate.cert_pem,
        server,
    })
}
