//! The same wallet behind Core Lightning's gRPC interface: certificates on both sides, and the words
//! in which that node answers.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use farebox_cln::cln::listinvoices_invoices::ListinvoicesInvoicesStatus;
use farebox_cln::cln::listpays_pays::ListpaysPaysStatus;
use farebox_cln::cln::node_server::{Node as NodeService, NodeServer};
use farebox_cln::cln::waitinvoice_response::WaitinvoiceStatus;
use farebox_cln::cln::{self, Amount, ChannelState, amount_or_any};
use farebox_lnd::lnrpc::PaymentFailureReason;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tonic::{Code, Request, Response, Status};

use crate::ledger::{Hash, InvoiceState, Issued, Progress, Sent, now};
use crate::service::Node;
use crate::tls::Authority;
use crate::{StartError, tls};

/// lightningd's codes.
const INVALID_PARAMS: i32 = -32_602;
const DESTINATION_FAILED: i32 = 203;
const NO_ROUTE: i32 = 205;
const EXPIRED: i32 = 207;
const PAY_FAILED: i32 = 209;
const ALREADY_PAID: i32 = 219;
const LABEL_TAKEN: i32 = 900;
const INVOICE_EXPIRED: i32 = 903;
const NO_SUCH_INVOICE: i32 = 905;

/// A node's face for Core Lightning's clients: where it listens, and the files it left.
pub struct ClnHandle {
    address: SocketAddr,
    dir: PathBuf,
    service: Service,
    server: Mutex<JoinHandle<()>>,
}

impl fmt::Debug for ClnHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClnHandle")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl Drop for ClnHandle {
    fn drop(&mut self) {
        self.server().abort();
    }
}

impl ClnHandle {
    pub(crate) async fn start(node: Arc<Node>, dir: &Path) -> Result<Self, StartError> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let service = Service {
            node,
            book: Arc::default(),
        };
        let server = serve(service.clone(), dir, listener)?;
        Ok(Self {
            address,
            dir: dir.to_owned(),
            service,
            server: Mutex::new(server),
        })
    }

    fn server(&self) -> MutexGuard<'_, JoinHandle<()>> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stops this face of the node and starts it again on the same port with another authority and
    /// new certificates on both sides, written over the old ones.
    ///
    /// # Errors
    ///
    /// When the certificates, their files or the port cannot be had; it is then down.
    pub async fn restart_with_new_certificates(&self) -> Result<(), StartError> {
        self.server().abort();
        // The port is free once the task that holds the listener is gone.
        while !self.server().is_finished() {
            tokio::task::yield_now().await;
        }
        let listener = TcpListener::bind(self.address).await?;
        *self.server() = serve(self.service.clone(), &self.dir, listener)?;
        Ok(())
    }

    /// `https://127.0.0.1:PORT`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("https://{}", self.address)
    }

    /// `ca.pem`: what signs both certificates.
    #[must_use]
    pub fn ca_cert_path(&self) -> PathBuf {
        self.dir.join("ca.pem")
    }

    /// `client.pem`.
    #[must_use]
    pub fn client_cert_path(&self) -> PathBuf {
        self.dir.join("client.pem")
    }

    /// `client-key.pem`.
    #[must_use]
    pub fn client_key_path(&self) -> PathBuf {
        self.dir.join("client-key.pem")
    }
}

/// Writes fresh certificates and serves the node with them.
fn serve(
    service: Service,
    dir: &Path,
    listener: TcpListener,
) -> Result<JoinHandle<()>, StartError> {
    let authority = Authority::generate()?;
    let (server, client) = (
        authority.sign("cln grpc Server")?,
        authority.sign("cln grpc Client")?,
    );
    tls::write(dir, "ca.pem", &authority.cert_pem)?;
    tls::write(dir, "client.pem", &client.cert_pem)?;
    tls::write(dir, "client-key.pem", &client.key_pem)?;
    let config = ServerTlsConfig::new()
        .identity(Identity::from_pem(&server.cert_pem, &server.key_pem))
        .client_ca_root(Certificate::from_pem(&authority.cert_pem));
    let router = Server::builder()
        .tls_config(config)?
        .add_service(NodeServer::new(service));
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    Ok(tokio::spawn(async move {
        // See `serve` of the other face for the shutdown that never comes.
        let _ = router
            .serve_with_incoming_shutdown(incoming, std::future::pending())
            .await;
    }))
}

/// What lightningd keeps and the ledger does not: labels.
#[derive(Default)]
struct Book {
    invoices: HashMap<String, Hash>,
    /// The label of a payment and when it began, Unix seconds.
    payments: HashMap<Hash, (Option<String>, u64)>,
}

#[derive(Clone)]
struct Service {
    node: Arc<Node>,
    book: Arc<Mutex<Book>>,
}

/// An error of lightningd's, wrapped as the gRPC plugin does it.
fn rpc_error(method: &str, code: i32, message: &str) -> Status {
    Status::unknown(format!(
        "Error calling method {method}: RpcError {{ code: Some({code}), message: {message:?}, data: None }}"
    ))
}

const fn amount(msat: u64) -> Amount {
    Amount { msat }
}

fn wire_status(state: InvoiceState) -> ListinvoicesInvoicesStatus {
    match state {
        InvoiceState::Open => ListinvoicesInvoicesStatus::Unpaid,
        InvoiceState::Settled { .. } => ListinvoicesInvoicesStatus::Paid,
        InvoiceState::Canceled => ListinvoicesInvoicesStatus::Expired,
    }
}

impl Service {
    fn up(&self) -> Result<(), Status> {
        if self.node.faults.unavailable.load(Ordering::Relaxed) {
            return Err(Status::unavailable("the node is starting"));
        }
        Ok(())
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An invoice that was minted through the other interface has its hash for a label.
    fn label(&self, hash: &Hash) -> String {
        let book = self.book();
        let known = book.invoices.iter().find(|(_, named)| *named == hash);
        known.map_or_else(|| hex::encode(hash), |(label, _)| label.clone())
    }

    fn labelled(&self, label: &str) -> Option<(Hash, Issued)> {
        let known = self.book().invoices.get(label).copied();
        let hash = known.or_else(|| {
            let mut hash = [0; 32];
            hex::decode_to_slice(label, &mut hash).ok()?;
            Some(hash)
        })?;
        let issued = self.node.ledger.invoice(self.node.who, &hash)?;
        Some((hash, issued))
    }

    /// `None` for what a real node keeps no record of, because it never sent a part.
    fn listed(&self, hash: &Hash, sent: &Sent) -> Option<cln::ListpaysPays> {
        let (status, preimage) = match &*sent.progress.borrow() {
            Progress::InFlight => (ListpaysPaysStatus::Pending, None),
            Progress::Succeeded(preimage) => {
                (ListpaysPaysStatus::Complete, Some(preimage.to_vec()))
            }
            Progress::Failed(PaymentFailureReason::FailureReasonIncorrectPaymentDetails) => {
                (ListpaysPaysStatus::Failed, None)
            }
            Progress::Failed(_) => return None,
        };
        let payments = &self.book().payments;
        let (label, created_at) = payments.get(hash).cloned().unwrap_or_default();
        let total = sent.amount_msat.saturating_add(sent.fee_msat);
        Some(cln::ListpaysPays {
            payment_hash: hash.to_vec(),
            status: status.into(),
            created_at,
            label,
            amount_msat: Some(amount(sent.amount_msat)),
            amount_sent_msat: Some(amount(total)),
            preimage,
        })
    }

    /// The answer to a payment that has been started.
    async fn outcome(&self, sent: Sent) -> Result<Response<cln::XpayResponse>, Status> {
        let mut progress = sent.progress.subscribe();
        let ended = progress
            .wait_for(|progress| !matches!(progress, Progress::InFlight))
            .await
            .map(|progress| progress.clone());
        match ended {
            Ok(Progress::Succeeded(preimage)) => Ok(Response::new(cln::XpayResponse {
                payment_preimage: preimage.to_vec(),
                amount_msat: Some(amount(sent.amount_msat)),
                amount_sent_msat: Some(amount(sent.amount_msat.saturating_add(sent.fee_msat))),
            })),
            Ok(Progress::Failed(reason)) => Err(match reason {
                PaymentFailureReason::FailureReasonIncorrectPaymentDetails => rpc_error(
                    "Xpay",
                    DESTINATION_FAILED,
                    "Destination said it doesn't know invoice: incorrect_payment_details",
                ),
                _ => rpc_error(
                    "Xpay",
                    NO_ROUTE,
                    "Failed: could not find a route without excessive cost",
                ),
            }),
            _ => Err(Status::unavailable("the node is stopping")),
        }
    }
}

#[tonic::async_trait]
impl NodeService for Service {
    async fn getinfo(
        &self,
        _: Request<cln::GetinfoRequest>,
    ) -> Result<Response<cln::GetinfoResponse>, Status> {
        self.up()?;
        let id = self.node.ledger.public_key(self.node.who).serialize();
        Ok(Response::new(cln::GetinfoResponse {
            id: id.to_vec(),
            alias: self.node.alias.into(),
            version: concat!("farebox-sandbox ", env!("CARGO_PKG_VERSION")).into(),
            network: "regtest".into(),
            ..Default::default()
        }))
    }

    async fn invoice(
        &self,
        request: Request<cln::InvoiceRequest>,
    ) -> Result<Response<cln::InvoiceResponse>, Status> {
        self.up()?;
        let asked = request.into_inner();
        let msat = match asked.amount_msat.and_then(|amount| amount.value) {
            Some(amount_or_any::Value::Amount(amount)) if amount.msat > 0 => amount.msat,
            Some(amount_or_any::Value::Any(true)) => 0,
            _ => return Err(rpc_error("Invoice", INVALID_PARAMS, "amount_msat: wrong")),
        };
        if self.book().invoices.contains_key(&asked.label) {
            return Err(rpc_error("Invoice", LABEL_TAKEN, "Duplicate label"));
        }
        // Its default is a week.
        let expiry = asked.expiry.unwrap_or(604_800);
        let ledger = &self.node.ledger;
        let added = ledger.add_invoice(self.node.who, asked.description, msat, expiry);
        let (hash, issued) =
            added.map_err(|e| rpc_error("Invoice", INVALID_PARAMS, e.message()))?;
        self.book().invoices.insert(asked.label, hash);
        Ok(Response::new(cln::InvoiceResponse {
            bolt11: issued.bolt11,
            payment_hash: hash.to_vec(),
            expires_at: issued.created + issued.expiry,
        }))
    }

    async fn list_invoices(
        &self,
        request: Request<cln::ListinvoicesRequest>,
    ) -> Result<Response<cln::ListinvoicesResponse>, Status> {
        self.up()?;
        let hash = hash_of("ListInvoices", request.into_inner().payment_hash)?;
        let found = self.node.ledger.invoice(self.node.who, &hash);
        let invoices = found.map(|issued| {
            let status = wire_status(issued.state);
            let paid = status == ListinvoicesInvoicesStatus::Paid;
            cln::ListinvoicesInvoices {
                label: self.label(&hash),
                payment_hash: hash.to_vec(),
                status: status.into(),
                expires_at: issued.created + issued.expiry,
                amount_msat: Some(amount(issued.amount_msat)).filter(|a| a.msat > 0),
                bolt11: Some(issued.bolt11),
                amount_received_msat: paid.then(|| amount(issued.amount_msat)),
            }
        });
        Ok(Response::new(cln::ListinvoicesResponse {
            invoices: invoices.into_iter().collect(),
        }))
    }

    async fn wait_invoice(
        &self,
        request: Request<cln::WaitinvoiceRequest>,
    ) -> Result<Response<cln::WaitinvoiceResponse>, Status> {
        self.up()?;
        let label = request.into_inner().label;
        let mut settlements = self.node.ledger.settlements();
        loop {
            let Some((hash, issued)) = self.labelled(&label) else {
                let why = "Label not found";
                return Err(rpc_error("WaitInvoice", NO_SUCH_INVOICE, why));
            };
            match issued.state {
                InvoiceState::Open => {}
                InvoiceState::Canceled => {
                    let why = "invoice expired during wait";
                    return Err(rpc_error("WaitInvoice", INVOICE_EXPIRED, why));
                }
                InvoiceState::Settled { .. } => {
                    return Ok(Response::new(cln::WaitinvoiceResponse {
                        label,
                        payment_hash: hash.to_vec(),
                        status: WaitinvoiceStatus::Paid.into(),
                    }));
                }
            }
            let left = (issued.created + issued.expiry).saturating_sub(now());
            // A settlement, anybody's, or the invoice's end: the next look tells.
            let _ = timeout(Duration::from_secs(left.max(1)), settlements.recv()).await;
        }
    }

    async fn xpay(
        &self,
        request: Request<cln::XpayRequest>,
    ) -> Result<Response<cln::XpayResponse>, Status> {
        self.up()?;
        let ask = request.into_inner();
        let chosen = ask.amount_msat.map_or(0, |amount| amount.msat);
        let limit = ask.maxfee.map_or(5_000, |fee| fee.msat);
        let node = &self.node;
        let begun = node.ledger.begin(node.who, &ask.invstring, chosen, limit);
        let (hash, sent) = begun.map_err(|status| {
            let code = match (status.code(), status.message()) {
                (Code::AlreadyExists, "invoice is already paid") => ALREADY_PAID,
                (Code::AlreadyExists, _) => PAY_FAILED,
                (_, "invoice expired") => EXPIRED,
                (_, "self-payments not allowed") => NO_ROUTE,
                _ => INVALID_PARAMS,
            };
            rpc_error("Xpay", code, status.message())
        })?;
        self.book().payments.insert(hash, (ask.label, now()));
        if node.faults.hang_next_send.swap(false, Ordering::Relaxed) {
            return self.outcome(sent).await;
        }
        node.ledger.finish(node.who, &hash, true);
        if node.faults.drop_next_reply.swap(false, Ordering::Relaxed) {
            return Err(Status::unavailable("connection reset"));
        }
        self.outcome(sent).await
    }

    async fn list_pays(
        &self,
        request: Request<cln::ListpaysRequest>,
    ) -> Result<Response<cln::ListpaysResponse>, Status> {
        self.up()?;
        let hash = hash_of("ListPays", request.into_inner().payment_hash)?;
        let sent = self.node.ledger.sent(self.node.who, &hash);
        let listed = sent.and_then(|sent| self.listed(&hash, &sent));
        Ok(Response::new(cln::ListpaysResponse {
            pays: listed.into_iter().collect(),
        }))
    }

    async fn list_peer_channels(
        &self,
        _: Request<cln::ListpeerchannelsRequest>,
    ) -> Result<Response<cln::ListpeerchannelsResponse>, Status> {
        self.up()?;
        let spendable = self.node.ledger.balance_msat(self.node.who);
        let channel = cln::ListpeerchannelsChannels {
            peer_id: Vec::new(),
            state: ChannelState::ChanneldNormal.into(),
            spendable_msat: Some(amount(spendable)),
        };
        Ok(Response::new(cln::ListpeerchannelsResponse {
            channels: vec![channel],
        }))
    }
}

/// Farebox always names one; a list of everything is not offered here.
fn hash_of(method: &str, bytes: Option<Vec<u8>>) -> Result<Hash, Status> {
    let hash = bytes.unwrap_or_default().try_into();
    hash.map_err(|_| {
        rpc_error(
            method,
            INVALID_PARAMS,
            "payment_hash: should be a 32 byte hash",
        )
    })
}
