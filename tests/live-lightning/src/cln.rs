//! The sandbox's nodes through the backend for Core Lightning. No package registry carries that
//! daemon, so what its published interface and sources say is kept by the stand-in alone.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use farebox::rails::lightning::cln::Cln;
use farebox::rails::lightning::node::NewInvoice;
use farebox::rails::lightning::{Network, Node, PaymentHash, Preimage};
use farebox_cln::connect::Credentials;
use farebox_grpc::Pem;
use farebox_sandbox_lightning::{Lightning, LightningConfig, NodeHandle};

use crate::{Pair, sandbox};

/// The sandbox, behind Core Lightning's interface.
#[derive(Debug)]
pub struct ClnPair(Lightning);

impl ClnPair {
    /// Starts it.
    pub async fn start() -> Self {
        Self(Lightning::start(LightningConfig::default()).await.unwrap())
    }
}

/// A new connection, by a process that has just begun.
fn node(handle: &NodeHandle) -> Arc<dyn Node> {
    let cln = handle.cln();
    let credentials = Credentials {
        ca: Pem::file(cln.ca_cert_path()),
        certificate: Pem::file(cln.client_cert_path()),
        key: Pem::file(cln.client_key_path()),
    };
    let connector = credentials.connector(&cln.endpoint(), Duration::from_secs(30));
    Arc::new(Cln::new(connector.unwrap(), Network::Regtest))
}

#[async_trait]
impl Pair for ClnPair {
    fn seller(&self) -> Arc<dyn Node> {
        node(self.0.seller())
    }

    /// There is no certificate with fewer rights.
    fn shop(&self) -> Arc<dyn Node> {
        self.seller()
    }

    fn payer(&self) -> Arc<dyn Node> {
        node(self.0.agent())
    }

    async fn restart_payer(&self) {}

    /// Core Lightning shows a preimage only once it is paid: this one is read from its database.
    async fn leak(&self, invoice: PaymentHash) -> Preimage {
        sandbox::leak(&sandbox::admin(self.0.seller()), invoice).await
    }

    async fn open_invoice(&self) -> String {
        let invoice = NewInvoice::open("open", Duration::from_secs(600));
        let minted = self.seller().create_invoice(invoice).await;
        minted.unwrap().bolt11
    }

    fn fee_msat(&self) -> u64 {
        1_000
    }
}
