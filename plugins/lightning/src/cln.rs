//! The Core Lightning backend: gRPC with a certificate on both sides. Needs v24.11 or later.
//!
//! Core Lightning's client certificate allows every call there is: there is none for invoices only.
//! Whoever has a shop's files can spend the shop's channels.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use farebox_cln::cln::listinvoices_invoices::ListinvoicesInvoicesStatus as InvoiceStatus;
use farebox_cln::cln::listpays_pays::ListpaysPaysStatus as PayStatus;
use farebox_cln::cln::node_client::NodeClient;
use farebox_cln::cln::{self, Amount, AmountOrAny, ChannelState, amount_or_any};
use farebox_grpc::Connector;
use farebox_wire::Timestamp;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tonic::Status;
use tonic::transport::Channel;
use zeroize::Zeroizing;

use crate::bolt11::{Network, PaymentHash, Preimage};
use crate::grpc::{answered_by_node, call, explain, never_sent, turned_away};
use crate::node::{
    InvoiceState, Minted, NewInvoice, Node, NodeError, NodeInfo, Payment, SendOrder,
};

/// How often a payment is looked up while it is waited for.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// What a payment's call gets beyond the payment's own timeout, to report how it ended.
const SEND_GRACE: Duration = Duration::from_secs(2);
/// How far the node's clock may be behind ours.
const CLOCK_GRACE: i64 = 5;
/// How long a payment may be tried that bears no label of ours: a node before v26.06 keeps none. A
/// wallet's longest timeout, and a minute.
const LONGEST_TRY: i64 = 660;
/// What comes before the Unix second until which a payment is tried.
const LABEL: &str = "farebox, tried until ";

/// A node reached over Core Lightning's gRPC interface. Connects at the first call, so a node that
/// is down when the process starts is no obstacle.
pub struct Cln {
    connector: Connector,
    // Opening a channel needs a runtime, which a constructor may not have.
    channel: OnceLock<Channel>,
    network: Network,
    /// Until when the node may be trying what this process has told it to pay.
    trying: Mutex<HashMap<PaymentHash, Instant>>,
}

impl fmt::Debug for Cln {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cln")
            .field("connector", &self.connector)
            .field("network", &self.network)
            .finish_non_exhaustive()
    }
}

/// Where the attempts at a payment stand, by the node's records.
enum Standing {
    /// There is none.
    NoRecord,
    /// Parts are under way.
    Pending,
    /// Every part has failed, and until this Unix second the node may send others.
    Failed { until: i64 },
    /// Paid.
    Paid(Payment),
}

impl Cln {
    /// A node behind `connector`, which is expected to be on `network`.
    #[must_use]
    pub fn new(connector: Connector, network: Network) -> Self {
        Self {
            connector,
            channel: OnceLock::new(),
            network,
            trying: Mutex::default(),
        }
    }

    fn node(&self) -> NodeClient<Channel> {
        let channel = self.channel.get_or_init(|| self.connector.channel());
        NodeClient::new(channel.clone())
    }

    async fn invoice(
        &self,
        hash: PaymentHash,
    ) -> Result<Option<cln::ListinvoicesInvoices>, NodeError> {
        let ask = cln::ListinvoicesRequest {
            payment_hash: Some(hash.as_bytes().to_vec()),
        };
        let found = call(self.node().list_invoices(ask)).await;
        let found = found.map_err(|status| explain(&words(status)))?;
        Ok(found.invoices.into_iter().next())
    }

    async fn standing(&self, hash: PaymentHash) -> Result<Standing, Status> {
        let ask = cln::ListpaysRequest {
            payment_hash: Some(hash.as_bytes().to_vec()),
        };
        let listed = call(self.node().list_pays(ask)).await.map_err(words)?;
        Ok(standing(listed.pays, hash))
    }

    fn trying(&self) -> MutexGuard<'_, HashMap<PaymentHash, Instant>> {
        self.trying.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the node may still be trying what this process has told it to pay: records of its
    /// attempts are then not the last word.
    fn is_trying(&self, hash: PaymentHash) -> bool {
        let mut trying = self.trying();
        trying.retain(|_, until| Instant::now() < *until);
        trying.contains_key(&hash)
    }

    /// Waits until a payment has ended, at most `wait`; `None` when the node never sent it.
    async fn follow(&self, hash: PaymentHash, wait: Duration) -> Option<Payment> {
        let deadline = Instant::now() + wait;
        loop {
            let trying = self.is_trying(hash);
            match self.standing(hash).await {
                Err(status) => return Some(Payment::Unknown(explain(&status))),
                Ok(Standing::Paid(payment)) => return Some(payment),
                Ok(Standing::NoRecord) if !trying => return None,
                Ok(Standing::Failed { until }) if !trying && until < now() => {
                    return Some(Payment::Failed("the payment failed".into()));
                }
                Ok(_) => {}
            }
            if Instant::now() >= deadline {
                return Some(Payment::Unknown(NodeError::InFlight));
            }
            sleep(LOOK_AGAIN.min(deadline - Instant::now())).await;
        }
    }

    /// After the node's own error to a payment: it tries no more, but parts may be under way.
    async fn after_refusal(&self, error: NodeError, hash: PaymentHash) -> Payment {
        match self.standing(hash).await {
            Ok(Standing::NoRecord | Standing::Failed { .. }) => Payment::Failed(error.to_string()),
            Ok(Standing::Pending) => Payment::Unknown(NodeError::InFlight),
            Ok(Standing::Paid(payment)) => payment,
            Err(_) => Payment::Unknown(error),
        }
    }
}

fn now() -> i64 {
    Timestamp::now().unix_millis() / 1_000
}

fn standing(pays: Vec<cln::ListpaysPays>, hash: PaymentHash) -> Standing {
    let mut standing = Standing::NoRecord;
    for pay in pays {
        standing = match (pay.status(), standing) {
            (PayStatus::Complete, _) => return Standing::Paid(paid(pay, hash)),
            (PayStatus::Pending, _) | (_, Standing::Pending) => Standing::Pending,
            (PayStatus::Failed, earlier) => {
                let label = pay.label.as_deref().and_then(|l| l.strip_prefix(LABEL));
                let until = match label.and_then(|until| until.parse::<i64>().ok()) {
                    Some(until) => until.saturating_add(CLOCK_GRACE),
                    None => i64::try_from(pay.created_at)
                        .unwrap_or(i64::MAX)
                        .saturating_add(LONGEST_TRY),
                };
                match earlier {
                    Standing::Failed { until: other } => Standing::Failed {
                        until: until.max(other),
                    },
                    _ => Standing::Failed { until },
                }
            }
        };
    }
    standing
}

fn paid(pay: cln::ListpaysPays, hash: PaymentHash) -> Payment {
    let fee = match (pay.amount_sent_msat, pay.amount_msat) {
        (Some(sent), Some(amount)) => sent.msat.saturating_sub(amount.msat),
        _ => 0,
    };
    proof(pay.preimage.unwrap_or_default(), fee, hash)
}

fn proof(preimage: Vec<u8>, fee_msat: u64, hash: PaymentHash) -> Payment {
    let bytes = Zeroizing::new(preimage);
    let preimage = <[u8; 32]>::try_from(bytes.as_slice()).map(Preimage::new);
    match preimage {
        Ok(preimage) if preimage.hash() == hash => Payment::Succeeded { preimage, fee_msat },
        _ => Payment::Unknown(NodeError::Nonsense("a preimage of another payment")),
    }
}

/// What lightningd itself said, out of the error that the gRPC plugin wraps it in; the plugin shows
/// it as `RpcError { code: Some(205), message: "…", data: … }`. The data may hold a preimage: it is
/// dropped. `None` when lightningd has said nothing.
fn said(status: &Status) -> Option<(i32, String)> {
    let (_, rest) = status.message().split_once("code: Some(")?;
    let (code, rest) = rest.split_once(')')?;
    let (_, rest) = rest.split_once("message: \"")?;
    let message = rest.rsplit_once("\", data: ").map_or("", |(text, _)| text);
    // The end of a text that has such a mark itself is cut off with the data.
    let message = message.split("\", data: ").next().unwrap_or_default();
    Some((code.parse().ok()?, message.replace("\\\"", "\"")))
}

/// The same status with lightningd's words only.
fn words(status: Status) -> Status {
    match said(&status) {
        Some((code, message)) => Status::new(status.code(), format!("{message} ({code})")),
        None if answered_by_node(&status) => {
            // From the plugin, which could not ask lightningd.
            Status::unavailable("lightningd did not answer")
        }
        None => status,
    }
}

const fn msat(msat: u64) -> Amount {
    Amount { msat }
}

#[async_trait]
impl Node for Cln {
    fn network(&self) -> Network {
        self.network
    }

    async fn start(&self) -> Result<(), NodeError> {
        Ok(())
    }

    async fn info(&self) -> Result<NodeInfo, NodeError> {
        let info = call(self.node().getinfo(cln::GetinfoRequest {})).await;
        let info = info.map_err(|status| explain(&words(status)))?;
        let network = match info.network.as_str() {
            "bitcoin" => Some(Network::Mainnet),
            other => Network::parse(other).filter(|network| *network != Network::Mainnet),
        };
        let mut found = NodeInfo::new(hex::encode(&info.id), network);
        found.synced =
            info.warning_bitcoind_sync.is_none() && info.warning_lightningd_sync.is_none();
        Ok(found)
    }

    async fn create_invoice(&self, invoice: NewInvoice) -> Result<Minted, NodeError> {
        let mut label = [0; 16];
        getrandom::fill(&mut label)
            .map_err(|_| NodeError::Unreachable("no randomness for an invoice's label".into()))?;
        let amount = match invoice.amount_msat {
            Some(amount) => amount_or_any::Value::Amount(msat(amount)),
            None => amount_or_any::Value::Any(true),
        };
        let ask = cln::InvoiceRequest {
            description: invoice.memo,
            label: format!("farebox-{}", hex::encode(label)),
            expiry: Some(invoice.expiry.as_secs()),
            amount_msat: Some(AmountOrAny {
                value: Some(amount),
            }),
        };
        let added = call(self.node().invoice(ask)).await;
        let added = added.map_err(|status| explain(&words(status)))?;
        let hash = added.payment_hash.try_into();
        let hash = hash.map_err(|_| NodeError::Nonsense("a payment hash that is not 32 bytes"))?;
        Ok(Minted::new(added.bolt11, PaymentHash::new(hash)))
    }

    async fn look_up(
        &self,
        payment: PaymentHash,
        wait: Duration,
    ) -> Result<Option<InvoiceState>, NodeError> {
        let deadline = Instant::now() + wait;
        let mut found = self.invoice(payment).await?;
        if let Some(invoice) = &found
            && invoice.status() == InvoiceStatus::Unpaid
            && !wait.is_zero()
        {
            let label = invoice.label.clone();
            let mut node = self.node();
            let paid = node.wait_invoice(cln::WaitinvoiceRequest { label });
            // However it ends, the list says where the invoice stands.
            let _ = timeout_at(deadline, paid).await;
            found = self.invoice(payment).await?;
        }
        Ok(found.map(|invoice| match invoice.status() {
            InvoiceStatus::Unpaid => InvoiceState::Open,
            InvoiceStatus::Paid => InvoiceState::Settled,
            InvoiceStatus::Expired => InvoiceState::Canceled,
        }))
    }

    async fn pay(&self, order: SendOrder) -> Payment {
        let hash = order.payment_hash;
        let trying = self.is_trying(hash);
        match self.standing(hash).await {
            Ok(Standing::Paid(payment)) => return payment,
            Ok(Standing::NoRecord) if !trying => {}
            Ok(Standing::Failed { until }) if !trying && until < now() => {}
            // It is being paid, or may be: one invoice is not paid by two attempts at a time.
            Ok(_) => {
                let followed = self.follow(hash, order.timeout).await;
                return followed.unwrap_or(Payment::Unknown(NodeError::InFlight));
            }
            // This order has not been sent.
            Err(status) if !trying => return Payment::Unsent(explain(&status)),
            Err(status) => return Payment::Unknown(explain(&status)),
        }
        let retry = order.timeout.as_secs().max(1);
        let until = now().saturating_add_unsigned(retry);
        let ask = cln::XpayRequest {
            invstring: order.bolt11,
            amount_msat: order.amount_msat.map(msat),
            maxfee: Some(msat(order.max_fee_msat)),
            retry_for: Some(u32::try_from(retry).unwrap_or(u32::MAX)),
            label: Some(format!("{LABEL}{until}")),
        };
        let patience = Duration::from_secs(retry).saturating_add(SEND_GRACE);
        self.trying().insert(hash, Instant::now() + patience);
        let mut node = self.node();
        match timeout(patience, node.xpay(ask)).await {
            Ok(Ok(paid)) => {
                self.trying().remove(&hash);
                let paid = paid.into_inner();
                let amount = paid.amount_msat.unwrap_or_default().msat;
                let sent = paid.amount_sent_msat.unwrap_or_default().msat;
                proof(paid.payment_preimage, sent.saturating_sub(amount), hash)
            }
            Ok(Err(status)) if never_sent(&status) || turned_away(&status) => {
                self.trying().remove(&hash);
                Payment::Unsent(explain(&words(status)))
            }
            Ok(Err(status)) => {
                let lightningds = answered_by_node(&status) && said(&status).is_some();
                let error = explain(&words(status));
                if !lightningds {
                    return Payment::Unknown(error);
                }
                self.trying().remove(&hash);
                self.after_refusal(error, hash).await
            }
            Err(_) => Payment::Unknown(NodeError::InFlight),
        }
    }

    async fn track(&self, payment: PaymentHash, wait: Duration) -> Option<Payment> {
        self.follow(payment, wait).await
    }

    async fn balance_msat(&self) -> Result<u64, NodeError> {
        let ask = cln::ListpeerchannelsRequest {};
        let listed = call(self.node().list_peer_channels(ask)).await;
        let listed = listed.map_err(|status| explain(&words(status)))?;
        let usable = listed.channels.iter().filter(|channel| {
            matches!(
                channel.state(),
                ChannelState::ChanneldNormal | ChannelState::ChanneldAwaitingSplice
            )
        });
        let spendable = usable.map(|channel| channel.spendable_msat.unwrap_or_default().msat);
        Ok(spendable.fold(0, u64::saturating_add))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> Status {
        Status::unknown(format!("Error calling method Xpay: RpcError {{ {text} }}"))
    }

    /// The data of an error may be an earlier payment with its preimage.
    #[test]
    fn only_lightningds_words_are_kept() {
        let paid = error(
            r#"code: Some(219), message: "already \"paid\"", data: Some(Object {"payment_preimage": String("c0ffee")}) "#,
        );
        assert_eq!(said(&paid), Some((219, "already \"paid\"".into())));
        assert_eq!(words(paid).message(), "already \"paid\" (219)");
        let forged =
            error(r#"code: Some(1), message: "a", data: Some(String("c0ffee", data: None)) "#);
        assert_eq!(said(&forged), Some((1, "a".into())));
    }

    /// The plugin's own failure, such as an answer that it cannot read, says nothing about money.
    #[test]
    fn what_the_grpc_plugin_says_is_no_word_of_lightningd() {
        let lost = error(r#"code: None, message: "no response from lightningd", data: None"#);
        assert_eq!(said(&lost), None);
        assert!(matches!(explain(&words(lost)), NodeError::Unreachable(_)));
    }

    fn attempt(status: PayStatus, created_at: u64, label: Option<&str>) -> cln::ListpaysPays {
        cln::ListpaysPays {
            status: status.into(),
            created_at,
            label: label.map(Into::into),
            ..Default::default()
        }
    }

    /// One that is under way outweighs any that failed, and the latest end of a try counts.
    #[test]
    fn attempts_are_read_together() {
        let hash = PaymentHash::new([1; 32]);
        let failed = |created, label| attempt(PayStatus::Failed, created, label);
        assert!(matches!(standing(vec![], hash), Standing::NoRecord));
        let pending = vec![
            failed(1, None),
            attempt(PayStatus::Pending, 2, None),
            failed(3, None),
        ];
        assert!(matches!(standing(pending, hash), Standing::Pending));
        let until = |pays| match standing(pays, hash) {
            Standing::Failed { until } => until,
            _ => panic!("all have failed"),
        };
        let label = format!("{LABEL}2000");
        assert_eq!(
            until(vec![failed(1_000, Some(&label))]),
            2_000 + CLOCK_GRACE
        );
        assert_eq!(
            until(vec![failed(1_000, Some("rent"))]),
            1_000 + LONGEST_TRY
        );
        let both = vec![failed(1_000, Some(&label)), failed(10, None)];
        assert_eq!(until(both), 2_000 + CLOCK_GRACE);
    }
}
