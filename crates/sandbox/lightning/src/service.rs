//! The gRPC face of one node.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use farebox_lnd::lnrpc::invoice::InvoiceState as WireState;
use farebox_lnd::lnrpc::lightning_server::Lightning;
use farebox_lnd::lnrpc::payment::PaymentStatus;
use farebox_lnd::lnrpc::{
    AddInvoiceResponse, Amount, Chain, ChannelBalanceRequest, ChannelBalanceResponse,
    GetInfoRequest, GetInfoResponse, Invoice, InvoiceSubscription, Payment, PaymentFailureReason,
    PaymentHash,
};
use farebox_lnd::routerrpc::router_server::Router;
use farebox_lnd::routerrpc::{SendPaymentRequest, TrackPaymentRequest};
use futures_util::{Stream, StreamExt as _, stream};
use tonic::{Request, Response, Status};

use crate::ledger::{Hash, InvoiceState, Issued, Ledger, Progress, Sent, Who};

/// Faults a test can switch on; the `next` ones work once.
#[derive(Default)]
pub(crate) struct Faults {
    pub(crate) unavailable: AtomicBool,
    pub(crate) hang_next_send: AtomicBool,
    pub(crate) drop_next_reply: AtomicBool,
}

/// What a macaroon allows.
#[derive(PartialEq, Eq)]
enum Right {
    Invoices,
    Everything,
}

pub(crate) struct Node {
    pub(crate) who: Who,
    pub(crate) alias: &'static str,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) invoice_macaroon: String,
    pub(crate) admin_macaroon: String,
    pub(crate) faults: Faults,
}

/// Shared between the two services of one node.
#[derive(Clone)]
pub(crate) struct Service(pub(crate) Arc<Node>);

type Payments = Pin<Box<dyn Stream<Item = Result<Payment, Status>> + Send>>;
type Invoices = Pin<Box<dyn Stream<Item = Result<Invoice, Status>> + Send>>;

impl Node {
    fn authorize<T>(&self, request: &Request<T>, needs: Right) -> Result<(), Status> {
        if self.faults.unavailable.load(Ordering::Relaxed) {
            return Err(Status::unavailable("the node is starting"));
        }
        let macaroon = request.metadata().get("macaroon");
        // None of these has a code of its own in LND.
        let Some(macaroon) = macaroon.and_then(|m| m.to_str().ok()) else {
            return Err(Status::unknown("expected 1 macaroon, got 0"));
        };
        if macaroon.eq_ignore_ascii_case(&self.admin_macaroon) {
            Ok(())
        } else if !macaroon.eq_ignore_ascii_case(&self.invoice_macaroon) {
            Err(Status::unknown(
                "verification failed: signature mismatch after caveat verification",
            ))
        } else if needs == Right::Invoices {
            Ok(())
        } else {
            Err(Status::unknown("permission denied"))
        }
    }

    /// The stream both payment calls answer with: where the payment is, then where it ends.
    fn follow(&self, hash: Hash, sent: Sent, final_only: bool) -> Payments {
        let wait = sent.progress.subscribe();
        let first = (!final_only).then(|| Ok(payment(&hash, &sent, &Progress::InFlight)));
        let last = stream::once(async move {
            let mut wait = wait;
            let ended = wait
                .wait_for(|progress| !matches!(progress, Progress::InFlight))
                .await
                .map(|progress| progress.clone());
            match ended {
                Ok(progress) => Ok(payment(&hash, &sent, &progress)),
                Err(_) => Err(Status::unavailable("the node is stopping")),
            }
        });
        stream::iter(first).chain(last).boxed()
    }
}

fn hash_of(bytes: &[u8]) -> Result<Hash, Status> {
    bytes
        .try_into()
        .map_err(|_| Status::invalid_argument("payment hash must be exactly 32 bytes"))
}

fn amount(msat: u64) -> Amount {
    Amount {
        sat: msat / 1_000,
        msat,
    }
}

fn int64(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn payment(hash: &Hash, sent: &Sent, progress: &Progress) -> Payment {
    let (status, preimage, reason) = match progress {
        Progress::InFlight => (PaymentStatus::InFlight, None, None),
        Progress::Succeeded(preimage) => (PaymentStatus::Succeeded, Some(preimage), None),
        Progress::Failed(reason) => (PaymentStatus::Failed, None, Some(*reason)),
    };
    let reason = reason.unwrap_or(PaymentFailureReason::FailureReasonNone);
    Payment {
        payment_hash: hex::encode(hash),
        payment_preimage: preimage.map(hex::encode).unwrap_or_default(),
        value_msat: int64(sent.amount_msat),
        payment_request: sent.bolt11.clone(),
        status: status.into(),
        fee_msat: int64(sent.fee_msat),
        failure_reason: reason.into(),
    }
}

fn invoice(hash: &Hash, issued: Issued) -> Invoice {
    let (state, settle_date) = match issued.state {
        InvoiceState::Open => (WireState::Open, 0),
        InvoiceState::Settled { at } => (WireState::Settled, at),
        InvoiceState::Canceled => (WireState::Canceled, 0),
    };
    let paid = if state == WireState::Settled {
        issued.amount_msat
    } else {
        0
    };
    Invoice {
        memo: issued.memo,
        // As LND does, for an unpaid invoice too.
        r_preimage: issued.preimage.to_vec(),
        r_hash: hash.to_vec(),
        value: int64(issued.amount_msat / 1_000),
        creation_date: int64(issued.created),
        settle_date: int64(settle_date),
        payment_request: issued.bolt11,
        expiry: int64(issued.expiry),
        private: false,
        amt_paid_msat: int64(paid),
        state: state.into(),
        value_msat: int64(issued.amount_msat),
    }
}

#[tonic::async_trait]
impl Lightning for Service {
    type SubscribeInvoicesStream = Invoices;

    /// Settlements from now on; LND reports additions too, and repeats old ones for an index.
    async fn subscribe_invoices(
        &self,
        request: Request<InvoiceSubscription>,
    ) -> Result<Response<Invoices>, Status> {
        self.0.authorize(&request, Right::Invoices)?;
        let settlements = self.0.ledger.settlements();
        let node = Arc::clone(&self.0);
        let updates = stream::unfold((node, settlements), |(node, mut settlements)| async move {
            loop {
                let (who, hash) = match settlements.recv().await {
                    Ok(settled) => settled,
                    Err(_) => return None,
                };
                if who != node.who {
                    continue;
                }
                let issued = node.ledger.invoice(who, &hash)?;
                return Some((Ok(invoice(&hash, issued)), (node, settlements)));
            }
        });
        Ok(Response::new(updates.boxed()))
    }

    async fn get_info(
        &self,
        request: Request<GetInfoRequest>,
    ) -> Result<Response<GetInfoResponse>, Status> {
        self.0.authorize(&request, Right::Everything)?;
        Ok(Response::new(GetInfoResponse {
            identity_pubkey: self.0.ledger.public_key(self.0.who).to_string(),
            alias: self.0.alias.into(),
            synced_to_chain: true,
            version: concat!("farebox-sandbox ", env!("CARGO_PKG_VERSION")).into(),
            chains: vec![Chain {
                network: "regtest".into(),
            }],
        }))
    }

    async fn channel_balance(
        &self,
        request: Request<ChannelBalanceRequest>,
    ) -> Result<Response<ChannelBalanceResponse>, Status> {
        self.0.authorize(&request, Right::Everything)?;
        let other = match self.0.who {
            Who::Seller => Who::Agent,
            Who::Agent => Who::Seller,
        };
        Ok(Response::new(ChannelBalanceResponse {
            local_balance: Some(amount(self.0.ledger.balance_msat(self.0.who))),
            remote_balance: Some(amount(self.0.ledger.balance_msat(other))),
        }))
    }

    async fn add_invoice(
        &self,
        request: Request<Invoice>,
    ) -> Result<Response<AddInvoiceResponse>, Status> {
        self.0.authorize(&request, Right::Invoices)?;
        let asked = request.into_inner();
        let unsigned = |field: &str, value: i64| {
            u64::try_from(value)
                .map_err(|_| Status::invalid_argument(format!("{field} cannot be negative")))
        };
        let sat = unsigned("value", asked.value)?;
        let msat = unsigned("value_msat", asked.value_msat)?;
        if sat > 0 && msat > 0 {
            return Err(Status::invalid_argument(
                "value and value_msat are mutually exclusive",
            ));
        }
        let amount_msat = msat.max(sat.saturating_mul(1_000));
        let expiry = unsigned("expiry", asked.expiry)?;
        let (hash, issued) =
            self.0
                .ledger
                .add_invoice(self.0.who, asked.memo, amount_msat, expiry)?;
        Ok(Response::new(AddInvoiceResponse {
            r_hash: hash.to_vec(),
            payment_request: issued.bolt11,
            add_index: issued.add_index,
        }))
    }

    async fn lookup_invoice(
        &self,
        request: Request<PaymentHash>,
    ) -> Result<Response<Invoice>, Status> {
        self.0.authorize(&request, Right::Invoices)?;
        let hash = hash_of(&request.into_inner().r_hash)?;
        match self.0.ledger.invoice(self.0.who, &hash) {
            Some(issued) => Ok(Response::new(invoice(&hash, issued))),
            None => Err(Status::not_found("unable to locate invoice")),
        }
    }
}

#[tonic::async_trait]
impl Router for Service {
    type SendPaymentV2Stream = Payments;
    type TrackPaymentV2Stream = Payments;

    async fn send_payment_v2(
        &self,
        request: Request<SendPaymentRequest>,
    ) -> Result<Response<Payments>, Status> {
        self.0.authorize(&request, Right::Everything)?;
        let ask = request.into_inner();
        if ask.timeout_seconds <= 0 {
            return Err(Status::unknown("timeout_seconds must be specified"));
        }
        let fee_limit = u64::try_from(ask.fee_limit_msat).unwrap_or(0);
        let amount = u64::try_from(ask.amt_msat)
            .map_err(|_| Status::unknown("amount cannot be negative"))?;
        let node = &self.0;
        let (hash, sent) = node
            .ledger
            .begin(node.who, &ask.payment_request, amount, fee_limit)?;
        if node.faults.hang_next_send.swap(false, Ordering::Relaxed) {
            return Ok(Response::new(node.follow(
                hash,
                sent,
                ask.no_inflight_updates,
            )));
        }
        node.ledger.finish(node.who, &hash, true);
        if node.faults.drop_next_reply.swap(false, Ordering::Relaxed) {
            let lost = Status::unavailable("connection reset");
            return Ok(Response::new(stream::iter([Err(lost)]).boxed()));
        }
        Ok(Response::new(node.follow(
            hash,
            sent,
            ask.no_inflight_updates,
        )))
    }

    async fn track_payment_v2(
        &self,
        request: Request<TrackPaymentRequest>,
    ) -> Result<Response<Payments>, Status> {
        self.0.authorize(&request, Right::Everything)?;
        let ask = request.into_inner();
        let hash = hash_of(&ask.payment_hash)?;
        match self.0.ledger.sent(self.0.who, &hash) {
            Some(sent) => Ok(Response::new(self.0.follow(
                hash,
                sent,
                ask.no_inflight_updates,
            ))),
            None => Err(Status::not_found("payment isn't initiated")),
        }
    }
}
