//! The LND backend: gRPC over TLS pinned to the node's certificate.
//!
//! A seller needs `invoices:read` and `invoices:write`, which is what LND's `invoice.macaroon`
//! allows; a payer needs `offchain:read` and `offchain:write`.

use std::fmt;
use std::pin::pin;
use std::sync::OnceLock;
use std::time::Duration;

use async_trait::async_trait;
use farebox_lnd::connect::{Authorized, Connector};
use farebox_lnd::lnrpc::invoice::InvoiceState as WireState;
use farebox_lnd::lnrpc::lightning_client::LightningClient;
use farebox_lnd::lnrpc::payment::PaymentStatus;
use farebox_lnd::lnrpc::{self, ChannelBalanceRequest};
use farebox_lnd::routerrpc::router_client::RouterClient;
use farebox_lnd::routerrpc::{SendPaymentRequest, TrackPaymentRequest};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tonic::{Code, Status, Streaming};
use zeroize::Zeroizing;

use crate::bolt11::{Network, PaymentHash, Preimage};
use crate::grpc::{answered_by_node, call, explain, never_sent, turned_away};
use crate::node::{
    InvoiceState, Minted, NewInvoice, Node, NodeError, NodeInfo, Payment, SendOrder,
};

/// How often an invoice is looked up while it is waited for.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// What a payment's stream gets beyond the payment's own timeout, to report how it ended.
const SEND_GRACE: Duration = Duration::from_secs(2);

/// A node reached over LND's gRPC interface. Connects at the first call, so a node that is down
/// when the process starts is no obstacle.
pub struct Lnd {
    connector: Connector,
    // Opening a channel needs a runtime, which a constructor may not have.
    channel: OnceLock<Authorized>,
    network: Network,
    private_channels: bool,
}

impl fmt::Debug for Lnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lnd")
            .field("connector", &self.connector)
            .field("network", &self.network)
            .finish_non_exhaustive()
    }
}

impl Lnd {
    /// A node behind `connector`, which is expected to be on `network`.
    #[must_use]
    pub fn new(connector: Connector, network: Network) -> Self {
        Self {
            connector,
            channel: OnceLock::new(),
            network,
            private_channels: false,
        }
    }

    /// Invoices name the node's private channels as route hints, so that it can be paid over them.
    #[must_use]
    pub const fn private_channels(mut self, hinted: bool) -> Self {
        self.private_channels = hinted;
        self
    }

    fn channel(&self) -> Authorized {
        self.channel
            .get_or_init(|| self.connector.channel())
            .clone()
    }

    fn lightning(&self) -> LightningClient<Authorized> {
        LightningClient::new(self.channel())
    }

    fn router(&self) -> RouterClient<Authorized> {
        RouterClient::new(self.channel())
    }

    async fn invoice_state(&self, hash: PaymentHash) -> Result<Option<InvoiceState>, NodeError> {
        let ask = lnrpc::PaymentHash {
            r_hash: hash.as_bytes().to_vec(),
        };
        match call(self.lightning().lookup_invoice(ask)).await {
            Ok(invoice) => Ok(Some(state(&invoice))),
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(explain(&status)),
        }
    }

    /// Returns once the node reports that the invoice has been settled; never, if it does not.
    async fn reported_settled(&self, hash: PaymentHash) {
        let ask = lnrpc::InvoiceSubscription::default();
        if let Ok(updates) = self.lightning().subscribe_invoices(ask).await {
            let mut updates = updates.into_inner();
            while let Ok(Some(invoice)) = updates.message().await {
                if invoice.r_hash == hash.as_bytes() && state(&invoice) == InvoiceState::Settled {
                    return;
                }
            }
        }
        std::future::pending().await
    }

    /// After an error to a send: did the payment start?
    async fn after_error(&self, status: Status, payment: PaymentHash) -> Payment {
        let error = explain(&status);
        if never_sent(&status) || turned_away(&status) || not_allowed(&status) {
            return Payment::Unsent(error);
        }
        if !answered_by_node(&status) {
            return Payment::Unknown(error);
        }
        // The node itself said no, so it has either recorded the payment by now or never will.
        match self.track(payment, Duration::ZERO).await {
            None => Payment::Failed(error.to_string()),
            Some(found) => found,
        }
    }
}

/// Whether the macaroon was refused, which LND does before anything else and without a code.
fn not_allowed(status: &Status) -> bool {
    let text = status.message();
    answered_by_node(status)
        && status.code() == Code::Unknown
        && (text == "permission denied" || text.starts_with("verification failed: "))
}

/// Reads a payment's stream until the payment has ended.
async fn ended(mut updates: Streaming<lnrpc::Payment>) -> Result<lnrpc::Payment, Status> {
    while let Some(payment) = updates.message().await? {
        if matches!(
            payment.status(),
            PaymentStatus::Succeeded | PaymentStatus::Failed
        ) {
            return Ok(payment);
        }
    }
    Err(Status::unavailable(
        "the stream ended before the payment did",
    ))
}

/// The node's last word on a payment.
fn outcome(payment: lnrpc::Payment, expected: PaymentHash) -> Payment {
    match payment.status() {
        PaymentStatus::Succeeded => {
            let text = Zeroizing::new(payment.payment_preimage);
            match Preimage::parse(&text) {
                Some(preimage) if preimage.hash() == expected => Payment::Succeeded {
                    preimage,
                    fee_msat: u64::try_from(payment.fee_msat).unwrap_or(0),
                },
                _ => Payment::Unknown(NodeError::Nonsense("a preimage of another payment")),
            }
        }
        PaymentStatus::Failed => {
            let reason = payment.failure_reason().as_str_name();
            Payment::Failed(reason.trim_start_matches("FAILURE_REASON_").to_lowercase())
        }
        _ => Payment::Unknown(NodeError::InFlight),
    }
}

fn state(invoice: &lnrpc::Invoice) -> InvoiceState {
    match invoice.state() {
        WireState::Open => InvoiceState::Open,
        WireState::Accepted => InvoiceState::Held,
        WireState::Settled => InvoiceState::Settled,
        WireState::Canceled => InvoiceState::Canceled,
    }
}

fn int64(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[async_trait]
impl Node for Lnd {
    fn network(&self) -> Network {
        self.network
    }

    async fn start(&self) -> Result<(), NodeError> {
        Ok(())
    }

    async fn info(&self) -> Result<NodeInfo, NodeError> {
        let info = call(self.lightning().get_info(lnrpc::GetInfoRequest {})).await;
        let info = info.map_err(|status| explain(&status))?;
        let network = info.chains.first().map(|chain| chain.network.as_str());
        let mut found = NodeInfo::new(info.identity_pubkey, network.and_then(Network::parse));
        found.synced = info.synced_to_chain;
        Ok(found)
    }

    async fn create_invoice(&self, invoice: NewInvoice) -> Result<Minted, NodeError> {
        let ask = lnrpc::Invoice {
            memo: invoice.memo,
            value_msat: invoice.amount_msat.map_or(0, int64),
            expiry: int64(invoice.expiry.as_secs()),
            private: self.private_channels,
            ..Default::default()
        };
        let added = call(self.lightning().add_invoice(ask)).await;
        let added = added.map_err(|status| explain(&status))?;
        let hash = added.r_hash.try_into();
        let hash = hash.map_err(|_| NodeError::Nonsense("a payment hash that is not 32 bytes"))?;
        Ok(Minted::new(added.payment_request, PaymentHash::new(hash)))
    }

    async fn look_up(
        &self,
        payment: PaymentHash,
        wait: Duration,
    ) -> Result<Option<InvoiceState>, NodeError> {
        let deadline = Instant::now() + wait;
        let mut reported = pin!(self.reported_settled(payment));
        let mut report_read = false;
        let mut found = self.invoice_state(payment).await?;
        while let Some(InvoiceState::Open | InvoiceState::Held) = found {
            let tick = deadline.min(Instant::now() + LOOK_AGAIN);
            if Instant::now() >= tick {
                break;
            }
            // The report is only what makes it quick: nothing says when a subscription has begun.
            if report_read {
                sleep_until(tick).await;
            } else {
                report_read = timeout_at(tick, reported.as_mut()).await.is_ok();
            }
            found = self.invoice_state(payment).await?;
        }
        Ok(found)
    }

    async fn pay(&self, order: SendOrder) -> Payment {
        let ask = SendPaymentRequest {
            payment_request: order.bolt11,
            // LND refuses 0.
            timeout_seconds: i32::try_from(order.timeout.as_secs().max(1)).unwrap_or(i32::MAX),
            amt_msat: order.amount_msat.map_or(0, int64),
            fee_limit_msat: int64(order.max_fee_msat),
            no_inflight_updates: true,
        };
        let mut router = self.router();
        let send = async { ended(router.send_payment_v2(ask).await?.into_inner()).await };
        match timeout(order.timeout.saturating_add(SEND_GRACE), send).await {
            Ok(Ok(payment)) => outcome(payment, order.payment_hash),
            Ok(Err(status)) => self.after_error(status, order.payment_hash).await,
            Err(_) => Payment::Unknown(NodeError::InFlight),
        }
    }

    async fn track(&self, payment: PaymentHash, wait: Duration) -> Option<Payment> {
        let ask = TrackPaymentRequest {
            payment_hash: payment.as_bytes().to_vec(),
            // Some nodes send the headers with the first update only: ask for one at once.
            no_inflight_updates: false,
        };
        let mut router = self.router();
        let updates = match call(router.track_payment_v2(ask)).await {
            Ok(updates) => updates,
            Err(status) if status.code() == Code::NotFound => return None,
            Err(status) => return Some(Payment::Unknown(explain(&status))),
        };
        // The first update says where the payment stands; only the rest is worth waiting for.
        Some(
            match timeout(wait.max(Duration::from_secs(1)), ended(updates)).await {
                Ok(Ok(ended)) => outcome(ended, payment),
                Ok(Err(status)) => Payment::Unknown(explain(&status)),
                Err(_) => Payment::Unknown(NodeError::InFlight),
            },
        )
    }

    async fn balance_msat(&self) -> Result<u64, NodeError> {
        let balance = call(self.lightning().channel_balance(ChannelBalanceRequest {})).await;
        let balance = balance.map_err(|status| explain(&status))?;
        Ok(balance.local_balance.unwrap_or_default().msat)
    }
}
