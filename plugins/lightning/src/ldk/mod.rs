//! A node inside the process, by LDK Node: a seller without a daemon takes payments, and an agent
//! makes them.
//!
//! The node has threads of its own, a folder of its own, which one process at a time may use, and
//! its own copy of what was paid. Its events are read here, so nobody else may read them.
//!
//! End it with [`Ldk::stop`], or [`stop_all`] where a configuration made it. LDK writes a channel's
//! state down before it writes down that it has: a process killed within moments of a payment may
//! find the two at odds, and LDK then closes the channel, whose money goes to the chain.
//!
//! LDK keeps preimages in its database, as every node does: the folder is as secret as the seed.

mod journal;
mod running;
mod settings;

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use ldk_node::lightning::routing::router::RouteParametersConfig;
use ldk_node::lightning_invoice::{Bolt11Invoice, Bolt11InvoiceDescription, Description};
use ldk_node::lightning_types::payment::PaymentHash as LdkHash;
use ldk_node::payment::{PaymentDirection, PaymentStatus};
use tokio::sync::OnceCell;
use tokio::time::{Instant, timeout_at};

pub use ldk_node;
pub use settings::Settings;

use crate::bolt11::{Network, PaymentHash};
use crate::node::{
    InvoiceState, Minted, NewInvoice, Node, NodeError, NodeInfo, Payment, SendOrder,
};
use running::Running;

/// A node in this process. It comes up at [`Node::start`] or at the first call, and ends with its
/// last handle; [`stop`](Self::stop) waits for that.
pub struct Ldk {
    settings: Settings,
    running: OnceCell<Running>,
}

impl fmt::Debug for Ldk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ldk")
            .field("settings", &self.settings)
            .field("started", &self.running.initialized())
            .finish()
    }
}

/// The nodes of this process by folder: one folder is one node, whoever asks for it.
static OPEN: Mutex<Option<HashMap<PathBuf, Weak<Ldk>>>> = Mutex::new(None);

impl Ldk {
    /// A node with these settings, not yet started.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            running: OnceCell::new(),
        }
    }

    /// The node of this process whose folder that is: the rails of one configuration share it.
    ///
    /// # Errors
    ///
    /// A text, if the folder is in use with other settings.
    pub fn shared(settings: Settings) -> Result<Arc<Self>, &'static str> {
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        let open = open.get_or_insert_default();
        open.retain(|_, node| node.strong_count() > 0);
        let folder = std::path::absolute(&settings.data_dir).unwrap_or_default();
        if let Some(node) = open.get(&folder).and_then(Weak::upgrade) {
            return if node.settings == settings {
                Ok(node)
            } else {
                Err("is in use by another node of this process with other settings")
            };
        }
        let node = Arc::new(Self::new(settings));
        open.insert(folder, Arc::downgrade(&node));
        Ok(node)
    }

    async fn running(&self) -> Result<&Running, NodeError> {
        let begin = || Running::begin(self.settings.clone());
        self.running.get_or_try_init(begin).await
    }

    /// Runs `work` with the LDK node, starting it if need be, where it may block: for what the rail
    /// does not do, such as funding it and opening channels.
    ///
    /// # Errors
    ///
    /// [`NodeError`] if the node cannot start or has been stopped.
    pub async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&ldk_node::Node) -> T + Send + 'static,
    ) -> Result<T, NodeError> {
        self.running().await?.with(work).await
    }

    /// Stops the node and waits until its folder is free again. Later calls fail.
    pub async fn stop(&self) {
        if let Some(running) = self.running.get() {
            running.stop().await;
        }
    }
}

/// Stops every node that a configuration of this process has started, and waits until their folders
/// are free: the last thing a server does.
pub async fn stop_all() {
    let nodes: Vec<_> = {
        let open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        let nodes = open.iter().flat_map(HashMap::values);
        nodes.filter_map(Weak::upgrade).collect()
    };
    for node in nodes {
        node.stop().await;
    }
}

/// What LDK says of a call that it did not carry out.
fn explain(error: ldk_node::NodeError) -> NodeError {
    use ldk_node::NodeError as E;
    match error {
        E::NotRunning => NodeError::Unreachable("the node has been stopped".into()),
        E::FeerateEstimationUpdateFailed
        | E::FeerateEstimationUpdateTimeout
        | E::TxSyncFailed
        | E::TxSyncTimeout
        | E::WalletOperationTimeout => {
            NodeError::Unreachable(format!("its chain source does not answer: {error}"))
        }
        other => NodeError::Refused(other.to_string()),
    }
}

/// Whether a send that failed so cannot have left anything behind.
fn never_sent(error: ldk_node::NodeError) -> bool {
    use ldk_node::NodeError as E;
    matches!(
        error,
        E::NotRunning | E::InvalidInvoice | E::InvalidAmount | E::PaymentSendingFailed
    )
}

#[async_trait]
impl Node for Ldk {
    fn network(&self) -> Network {
        self.settings.network
    }

    async fn start(&self) -> Result<(), NodeError> {
        self.running().await.map(drop)
    }

    async fn info(&self) -> Result<NodeInfo, NodeError> {
        let network = self.settings.network;
        let read = move |node: &ldk_node::Node| {
            let mut info = NodeInfo::new(node.node_id().to_string(), Some(network));
            info.synced = node
                .status()
                .latest_lightning_wallet_sync_timestamp
                .is_some();
            let addresses = node.listening_addresses().unwrap_or_default();
            info.addresses = addresses.iter().map(ToString::to_string).collect();
            info
        };
        self.with(read).await
    }

    async fn create_invoice(&self, invoice: NewInvoice) -> Result<Minted, NodeError> {
        let description = Description::new(invoice.memo)
            .map_err(|_| NodeError::Refused("the memo is too long".into()))?;
        let description = Bolt11InvoiceDescription::Direct(description);
        let expiry = u32::try_from(invoice.expiry.as_secs()).unwrap_or(u32::MAX);
        let mint = move |node: &ldk_node::Node| {
            let payments = node.bolt11_payment();
            match invoice.amount_msat {
                Some(msat) => payments.receive(msat, &description, expiry),
                None => payments.receive_variable_amount(&description, expiry),
            }
        };
        let minted = self.with(mint).await?.map_err(explain)?;
        let hash: &[u8; 32] = minted.payment_hash().as_ref();
        Ok(Minted::new(minted.to_string(), PaymentHash::new(*hash)))
    }

    async fn look_up(
        &self,
        payment: PaymentHash,
        wait: Duration,
    ) -> Result<Option<InvoiceState>, NodeError> {
        let running = self.running().await?;
        let deadline = Instant::now() + wait;
        let mut ended = running.ended();
        loop {
            let Some(details) = running.payment(payment).await? else {
                return Ok(None);
            };
            let state = match (details.direction, details.status) {
                (PaymentDirection::Outbound, _) => return Ok(None),
                (_, PaymentStatus::Succeeded) => InvoiceState::Settled,
                (_, PaymentStatus::Failed) => InvoiceState::Canceled,
                (_, PaymentStatus::Pending) => InvoiceState::Open,
            };
            if state != InvoiceState::Open || timeout_at(deadline, ended.recv()).await.is_err() {
                return Ok(Some(state));
            }
        }
    }

    async fn pay(&self, order: SendOrder) -> Payment {
        let Ok(invoice) = order.bolt11.parse::<Bolt11Invoice>() else {
            return Payment::Failed("the invoice is not valid BOLT11".into());
        };
        let running = match self.running().await {
            Ok(running) => running,
            // A node that did not come up has sent nothing now, but may have before.
            Err(error) => return Payment::Unknown(error),
        };
        let limits = RouteParametersConfig {
            max_total_routing_fee_msat: Some(order.max_fee_msat),
            ..Default::default()
        };
        let hash = order.payment_hash;
        let journal = running.journal();
        let send = move |node: &ldk_node::Node| {
            // LDK knows of a payment before its record is written: without this note, a crash in
            // between would make it look as if nothing had been sent.
            if journal.begin(hash).is_err() {
                return Err(None);
            }
            let payments = node.bolt11_payment();
            let sent = match order.amount_msat {
                Some(msat) => payments.send_using_amount(&invoice, msat, Some(limits)),
                None => payments.send(&invoice, Some(limits)),
            };
            let recorded = node.payment(&running::id(hash)).is_some();
            if recorded || sent.is_err_and(never_sent) {
                journal.forget(hash);
            }
            sent.map(drop).map_err(Some)
        };
        let mut ended = running.ended();
        let deadline = Instant::now() + order.timeout;
        match running.with(send).await {
            Ok(Ok(())) => {}
            // The answer is the earlier payment's.
            Ok(Err(Some(ldk_node::NodeError::DuplicatePayment))) => {
                let found = self.track(hash, order.timeout).await;
                return found.unwrap_or(Payment::Unknown(NodeError::InFlight));
            }
            Ok(Err(Some(error @ ldk_node::NodeError::NotRunning))) => {
                return Payment::Unsent(explain(error));
            }
            Ok(Err(Some(error))) if never_sent(error) => {
                return Payment::Failed(match error {
                    ldk_node::NodeError::PaymentSendingFailed => "no_route".into(),
                    other => other.to_string(),
                });
            }
            Ok(Err(Some(error))) => return Payment::Unknown(explain(error)),
            Ok(Err(None)) => {
                let why = "its folder cannot be written to".to_owned();
                return Payment::Unsent(NodeError::Unreachable(why));
            }
            Err(error) => return Payment::Unknown(error),
        }
        let mut why = None;
        loop {
            match running.outgoing(hash).await {
                Ok(Some(Payment::Unknown(NodeError::InFlight)) | None) => {}
                Ok(Some(Payment::Failed(text))) => return Payment::Failed(why.unwrap_or(text)),
                Ok(Some(found)) => return found,
                Err(error) => return Payment::Unknown(error),
            }
            match timeout_at(deadline, ended.recv()).await {
                Ok(Ok((of, reason))) if of == hash => why = reason,
                // Another's, or too many to count.
                Ok(_) => {}
                Err(_) => return Payment::Unknown(NodeError::InFlight),
            }
        }
    }

    async fn track(&self, payment: PaymentHash, wait: Duration) -> Option<Payment> {
        let running = match self.running().await {
            Ok(running) => running,
            Err(error) => return Some(Payment::Unknown(error)),
        };
        let deadline = Instant::now() + wait;
        let mut ended = running.ended();
        loop {
            match running.outgoing(payment).await {
                Ok(Some(Payment::Unknown(NodeError::InFlight))) => {}
                Ok(found) => return found,
                Err(error) => return Some(Payment::Unknown(error)),
            }
            if timeout_at(deadline, ended.recv()).await.is_err() {
                return Some(Payment::Unknown(NodeError::InFlight));
            }
        }
    }

    async fn balance_msat(&self) -> Result<u64, NodeError> {
        let sum = |node: &ldk_node::Node| {
            let channels = node.list_channels();
            let usable = channels.iter().filter(|channel| channel.is_usable);
            usable.map(|channel| channel.outbound_capacity_msat).sum()
        };
        self.with(sum).await
    }
}

fn ldk_hash(hash: PaymentHash) -> LdkHash {
    LdkHash(*hash.as_bytes())
}
