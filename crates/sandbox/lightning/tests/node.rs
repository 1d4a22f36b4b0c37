//! The stand-in keeps LND's promises: what a client of the real node relies on.
#![allow(clippy::unwrap_used, reason = "helpers of tests, outside any #[test]")]

use std::sync::Arc;
use std::time::Duration;

use farebox_grpc::Pem;
use farebox_lnd::connect::{Authorized, Connector, Macaroon};
use farebox_lnd::lnrpc::invoice::InvoiceState;
use farebox_lnd::lnrpc::lightning_client::LightningClient;
use farebox_lnd::lnrpc::payment::PaymentStatus;
use farebox_lnd::lnrpc::{
    AddInvoiceResponse, GetInfoRequest, Invoice, Payment, PaymentFailureReason, PaymentHash,
};
use farebox_lnd::routerrpc::router_client::RouterClient;
use farebox_lnd::routerrpc::{SendPaymentRequest, TrackPaymentRequest};
use farebox_sandbox_lightning::{Lightning, LightningConfig, NodeHandle};
use lightning_invoice::{Bolt11Invoice, Currency};
use tokio::sync::Notify;
use tonic::{Code, Status, Streaming};

fn open(node: &NodeHandle, macaroon: &str) -> Authorized {
    let pin = Pem::file(node.tls_cert_path());
    let macaroon = Macaroon::new(macaroon.as_bytes()).unwrap();
    dial(node, pin, macaroon)
}

fn dial(node: &NodeHandle, pin: Pem, macaroon: Macaroon) -> Authorized {
    let wait = Duration::from_secs(5);
    let connector = Connector::new(&node.endpoint(), pin, macaroon, wait).unwrap();
    connector.channel()
}

async fn start() -> Lightning {
    Lightning::start(LightningConfig::default()).await.unwrap()
}

async fn mint(node: &NodeHandle, sat: i64) -> AddInvoiceResponse {
    let ask = Invoice {
        memo: "a joke".into(),
        value: sat,
        expiry: 600,
        ..Default::default()
    };
    let mut client = LightningClient::new(open(node, node.invoice_macaroon_hex()));
    client.add_invoice(ask).await.unwrap().into_inner()
}

async fn look_up(node: &NodeHandle, r_hash: Vec<u8>) -> Result<Invoice, Status> {
    let mut client = LightningClient::new(open(node, node.invoice_macaroon_hex()));
    let found = client.lookup_invoice(PaymentHash { r_hash }).await?;
    Ok(found.into_inner())
}

async fn send(node: &NodeHandle, bolt11: &str, fee_msat: i64) -> Result<Vec<Payment>, Status> {
    let ask = SendPaymentRequest {
        payment_request: bolt11.into(),
        timeout_seconds: 5,
        fee_limit_msat: fee_msat,
        ..Default::default()
    };
    let mut client = RouterClient::new(open(node, node.admin_macaroon_hex()));
    collect(client.send_payment_v2(ask).await?.into_inner()).await
}

async fn collect(mut updates: Streaming<Payment>) -> Result<Vec<Payment>, Status> {
    let mut seen = Vec::new();
    while let Some(payment) = updates.message().await? {
        seen.push(payment);
    }
    Ok(seen)
}

/// The whole of a payment: a signed invoice, in flight, settled, money moved by price and fee.
#[tokio::test]
async fn an_invoice_is_paid_once() {
    let ln = start().await;
    let minted = mint(ln.seller(), 21).await;
    let invoice: Bolt11Invoice = minted.payment_request.parse().unwrap();
    assert_eq!(invoice.currency(), Currency::Regtest);
    assert_eq!(invoice.amount_milli_satoshis(), Some(21_000));
    assert_eq!(
        invoice.get_payee_pub_key().to_string(),
        ln.seller().public_key()
    );
    assert_eq!(invoice.payment_hash().as_ref() as &[u8], minted.r_hash);

    let updates = send(ln.agent(), &minted.payment_request, 1_000)
        .await
        .unwrap();
    let states: Vec<_> = updates.iter().map(Payment::status).collect();
    assert_eq!(states, [PaymentStatus::InFlight, PaymentStatus::Succeeded]);
    assert!(updates[0].payment_preimage.is_empty());
    let found = look_up(ln.seller(), minted.r_hash).await.unwrap();
    assert_eq!(found.state(), InvoiceState::Settled);
    assert_eq!(hex::encode(found.r_preimage), updates[1].payment_preimage);
    assert_eq!(ln.seller().balance_msat(), 21_000);
    assert_eq!(ln.agent().balance_msat(), 1_000_000_000 - 22_000);
    assert_eq!(
        ln.seller().settled()[0].payment_hash,
        updates[1].payment_hash
    );

    let again = send(ln.agent(), &minted.payment_request, 1_000).await;
    assert_eq!(again.unwrap_err().code(), Code::AlreadyExists);
    assert_eq!(ln.seller().balance_msat(), 21_000);
}

#[tokio::test]
async fn macaroons_say_what_may_be_called() {
    let ln = start().await;
    let node = ln.seller();
    let ask = async |macaroon: &str| {
        let mut client = LightningClient::new(open(node, macaroon));
        client.get_info(GetInfoRequest {}).await
    };
    let info = ask(node.admin_macaroon_hex()).await.unwrap().into_inner();
    assert_eq!(info.chains[0].network, "regtest");
    assert_eq!(info.identity_pubkey, node.public_key());
    // The real node has no code for either, only words.
    let invoice = ask(node.invoice_macaroon_hex()).await.unwrap_err();
    assert_eq!(
        (invoice.code(), invoice.message()),
        (Code::Unknown, "permission denied")
    );
    let strange = ask(ln.agent().admin_macaroon_hex()).await.unwrap_err();
    assert_eq!(strange.code(), Code::Unknown);
    assert!(strange.message().starts_with("verification failed: "));
}

/// What a payer sees when the node will not pay: a reason, and its money back.
#[tokio::test]
async fn payments_fail_with_a_reason() {
    let ln = start().await;
    let reason = async |bolt11: &str, fee: i64| {
        let updates = send(ln.agent(), bolt11, fee).await.unwrap();
        let last = updates.last().unwrap();
        assert_eq!(last.status(), PaymentStatus::Failed);
        last.failure_reason()
    };
    let small = mint(ln.seller(), 21).await.payment_request;
    assert_eq!(
        reason(&small, 999).await,
        PaymentFailureReason::FailureReasonNoRoute
    );
    let large = mint(ln.seller(), 1_000_000).await.payment_request;
    assert_eq!(
        reason(&large, 1_000).await,
        PaymentFailureReason::FailureReasonInsufficientBalance
    );
    let elsewhere = start().await;
    let unknown = mint(elsewhere.seller(), 21).await.payment_request;
    assert_eq!(
        reason(&unknown, 1_000).await,
        PaymentFailureReason::FailureReasonNoRoute
    );
    assert_eq!(ln.agent().balance_sat(), 1_000_000);

    let own = mint(ln.agent(), 21).await.payment_request;
    let to_self = send(ln.agent(), &own, 1_000).await.unwrap_err();
    assert_eq!(to_self.code(), Code::Unknown);
    let open_amount = mint(ln.seller(), 0).await.payment_request;
    let amountless = send(ln.agent(), &open_amount, 1_000).await.unwrap_err();
    assert_eq!(amountless.code(), Code::Unknown);
    let nothing = look_up(ln.seller(), vec![0; 32]).await.unwrap_err();
    assert_eq!(nothing.code(), Code::NotFound);
}

/// A payment that hangs keeps the money aside and can be followed to either end.
#[tokio::test]
async fn a_hanging_payment_can_be_tracked() {
    let ln = start().await;
    for settle in [true, false] {
        let before = ln.agent().balance_msat();
        let minted = mint(ln.seller(), 21).await;
        ln.agent().hang_next_send();
        let hanging = send(ln.agent(), &minted.payment_request, 1_000);
        let waited = tokio::time::timeout(Duration::from_millis(200), hanging).await;
        assert!(waited.is_err(), "the stream stays open");
        assert_eq!(ln.agent().balance_msat(), before - 22_000);

        let mut client = RouterClient::new(open(ln.agent(), ln.agent().admin_macaroon_hex()));
        let track = TrackPaymentRequest {
            payment_hash: minted.r_hash.clone(),
            no_inflight_updates: true,
        };
        let updates = client.track_payment_v2(track).await.unwrap().into_inner();
        ln.agent().finish_hung(&hex::encode(&minted.r_hash), settle);
        let last = collect(updates).await.unwrap().pop().unwrap();
        assert_eq!(last.status() == PaymentStatus::Succeeded, settle);
        let paid = if settle { 22_000 } else { 0 };
        assert_eq!(ln.agent().balance_msat(), before - paid);
    }
    assert_eq!(ln.seller().settled().len(), 1);
}

/// The money has moved and the answer is gone; the payment is still there to be asked for.
#[tokio::test]
async fn a_lost_reply_is_not_a_lost_payment() {
    let ln = start().await;
    let minted = mint(ln.seller(), 21).await;
    ln.agent().drop_next_reply_after_settle();
    let lost = send(ln.agent(), &minted.payment_request, 1_000).await;
    assert_eq!(lost.unwrap_err().code(), Code::Unavailable);
    assert_eq!(ln.seller().balance_sat(), 21);
    let mut client = RouterClient::new(open(ln.agent(), ln.agent().admin_macaroon_hex()));
    let track = TrackPaymentRequest {
        payment_hash: minted.r_hash,
        no_inflight_updates: true,
    };
    let updates = client.track_payment_v2(track).await.unwrap().into_inner();
    let last = collect(updates).await.unwrap().pop().unwrap();
    assert_eq!(last.status(), PaymentStatus::Succeeded);
}

#[tokio::test]
async fn another_nodes_certificate_is_refused() {
    let ln = start().await;
    let pin = Pem::file(ln.agent().tls_cert_path());
    let macaroon = Macaroon::new(ln.seller().admin_macaroon_hex().as_bytes()).unwrap();
    let channel = dial(ln.seller(), pin, macaroon);
    let refused = LightningClient::new(channel)
        .get_info(GetInfoRequest {})
        .await;
    assert!(refused.is_err());
}

/// A node that renewed its certificate is reached again through the same file, and only through it.
#[tokio::test]
async fn a_renewed_certificate_is_read_from_its_file() {
    let ln = start().await;
    let node = ln.seller();
    let mut by_file = LightningClient::new(open(node, node.admin_macaroon_hex()));
    let pin = Pem::text(node.tls_cert_pem());
    let macaroon = Macaroon::new(node.admin_macaroon_hex().as_bytes()).unwrap();
    let mut by_value = LightningClient::new(dial(node, pin, macaroon));
    by_file.get_info(GetInfoRequest {}).await.unwrap();
    by_value.get_info(GetInfoRequest {}).await.unwrap();

    node.restart_with_new_certificate().await.unwrap();
    // A first call may still find the old connection going away.
    let wait = Duration::from_secs(5);
    let reached = async { while by_file.get_info(GetInfoRequest {}).await.is_err() {} };
    tokio::time::timeout(wait, reached).await.unwrap();
    let refused = async { while by_value.get_info(GetInfoRequest {}).await.is_ok() {} };
    tokio::time::timeout(wait, refused).await.unwrap();
    for _ in 0..3 {
        assert!(by_value.get_info(GetInfoRequest {}).await.is_err());
    }
}

/// A file that is missing for a moment, as while it is written, does not cost the node.
#[tokio::test]
async fn a_file_that_cannot_be_read_again_leaves_what_it_said() {
    let ln = start().await;
    let unopened = open(ln.seller(), ln.seller().admin_macaroon_hex());
    std::fs::remove_file(ln.seller().tls_cert_path()).unwrap();
    let mut client = LightningClient::new(unopened);
    client.get_info(GetInfoRequest {}).await.unwrap();
}

#[tokio::test]
async fn a_node_can_be_out_of_service() {
    let ln = start().await;
    ln.seller().set_unavailable(true);
    let down = look_up(ln.seller(), vec![0; 32]).await.unwrap_err();
    assert_eq!(down.code(), Code::Unavailable);
    ln.seller().set_unavailable(false);
    let up = look_up(ln.seller(), vec![0; 32]).await.unwrap_err();
    assert_eq!(up.code(), Code::NotFound);
}

/// A connection that goes silent, as when a firewall forgets it, must not be used for ever: the
/// call that notices fails within its deadline, and the next one gets through.
#[tokio::test]
async fn a_silent_connection_is_given_up() {
    let ln = start().await;
    let node = ln.seller();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let through = format!("https://{}", listener.local_addr().unwrap());
    let upstream = node.endpoint().trim_start_matches("https://").to_owned();
    let silence = Arc::new(Notify::new());
    let silenced = Arc::clone(&silence);
    tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut server = tokio::net::TcpStream::connect(&upstream).await.unwrap();
            let silenced = Arc::clone(&silenced);
            tokio::spawn(async move {
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                    // Both sockets stay open, and nothing passes any more.
                    () = silenced.notified() => std::future::pending().await,
                }
            });
        }
    });
    let pin = Pem::file(node.tls_cert_path());
    let macaroon = Macaroon::new(node.admin_macaroon_hex().as_bytes()).unwrap();
    let wait = Duration::from_secs(5);
    let connector = Connector::new(&through, pin, macaroon, wait).unwrap();
    let mut client = LightningClient::new(connector.channel());
    client.get_info(GetInfoRequest {}).await.unwrap();
    silence.notify_waiters();
    let call = client.get_info(GetInfoRequest {});
    let noticed = tokio::time::timeout(Duration::from_secs(20), call).await;
    assert!(noticed.unwrap().is_err());
    client.get_info(GetInfoRequest {}).await.unwrap();
}
