//! The sandbox's nodes, through the backend for LND: what it shares with the real one.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use farebox::rails::lightning::lnd::Lnd;
use farebox::rails::lightning::{Network, Node, PaymentHash, Preimage};
use farebox_grpc::Pem;
use farebox_lnd::connect::{Connector, Macaroon};
use farebox_lnd::lnrpc;
use farebox_lnd::lnrpc::lightning_client::LightningClient;
use farebox_sandbox_lightning::{Lightning, LightningConfig, NodeHandle};

use crate::Pair;

/// The sandbox.
#[derive(Debug)]
pub struct Sandbox(Lightning);

impl Sandbox {
    /// Starts it.
    pub async fn start() -> Self {
        Self(Lightning::start(LightningConfig::default()).await.unwrap())
    }
}

impl Sandbox {
    /// Ends the seller's node and starts it again with another certificate.
    pub async fn restart_seller_with_new_certificate(&self) {
        let restarted = self.0.seller().restart_with_new_certificate().await;
        restarted.unwrap();
    }

    /// The seller's node with the payer's macaroon.
    pub fn stranger(&self) -> Arc<dyn Node> {
        let macaroon = self.0.agent().admin_macaroon_hex();
        lnd(connector(self.0.seller(), macaroon))
    }
}

fn connector(node: &NodeHandle, macaroon: &str) -> Connector {
    let pin = Pem::file(node.tls_cert_path());
    let macaroon = Macaroon::new(macaroon.as_bytes()).unwrap();
    Connector::new(&node.endpoint(), pin, macaroon, Duration::from_secs(30)).unwrap()
}

pub(crate) fn admin(node: &NodeHandle) -> Connector {
    connector(node, node.admin_macaroon_hex())
}

fn lnd(connector: Connector) -> Arc<dyn Node> {
    Arc::new(Lnd::new(connector, Network::Regtest))
}

/// Reads a preimage where LND and its stand-in keep it.
pub(crate) async fn leak(connector: &Connector, invoice: PaymentHash) -> Preimage {
    let r_hash = invoice.as_bytes().to_vec();
    let mut client = LightningClient::new(connector.channel());
    let found = client.lookup_invoice(lnrpc::PaymentHash { r_hash }).await;
    let preimage = found.unwrap().into_inner().r_preimage;
    Preimage::new(preimage.try_into().unwrap())
}

pub(crate) async fn open_invoice(connector: &Connector) -> String {
    let mut client = LightningClient::new(connector.channel());
    let added = client.add_invoice(lnrpc::Invoice::default()).await;
    added.unwrap().into_inner().payment_request
}

#[async_trait]
impl Pair for Sandbox {
    fn seller(&self) -> Arc<dyn Node> {
        lnd(admin(self.0.seller()))
    }

    fn shop(&self) -> Arc<dyn Node> {
        let seller = self.0.seller();
        lnd(connector(seller, seller.invoice_macaroon_hex()))
    }

    fn payer(&self) -> Arc<dyn Node> {
        lnd(admin(self.0.agent()))
    }

    /// Every handle is a new connection, and the stand-in has no process of its own.
    async fn restart_payer(&self) {}

    async fn leak(&self, invoice: PaymentHash) -> Preimage {
        leak(&admin(self.0.seller()), invoice).await
    }

    async fn open_invoice(&self) -> String {
        open_invoice(&admin(self.0.seller())).await
    }

    fn fee_msat(&self) -> u64 {
        1_000
    }
}
