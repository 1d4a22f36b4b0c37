//! Core Lightning's backend against the sandbox: what the suite on pairs of nodes cannot see.
#![allow(clippy::unwrap_used, reason = "helpers of tests, outside any #[test]")]

mod common;

use std::path::PathBuf;
use std::time::Duration;

use common::{file, method, pay, payer, present, quote};
use farebox_cln::connect::Credentials;
use farebox_core::{NoQuote, PayError, SecretSource};
use farebox_grpc::Pem;
use farebox_lightning::cln::Cln;
use farebox_lightning::node::{Payment, SendOrder};
use farebox_lightning::{
    ClnConfig, Config, Lightning, LightningWallet, Network, Node, PaymentHash, WalletConfig,
};
use farebox_sandbox_lightning::NodeHandle;
use farebox_wire::{Challenge, Timestamp};
use serde_json::{Value, json};
use tokio::time::timeout;

fn config(node: &NodeHandle) -> ClnConfig {
    let cln = node.cln();
    ClnConfig::new(
        cln.endpoint(),
        file(cln.ca_cert_path()),
        file(cln.client_cert_path()),
        file(cln.client_key_path()),
    )
}

fn rail(config: ClnConfig) -> Lightning {
    Lightning::new(Config::cln(config, Network::Regtest)).unwrap()
}

fn wallet(node: &NodeHandle) -> LightningWallet {
    LightningWallet::new(WalletConfig::cln(config(node), Network::Regtest)).unwrap()
}

/// A node as a process finds it that has just begun.
fn node(handle: &NodeHandle) -> Cln {
    dial(handle, Pem::file)
}

fn dial(handle: &NodeHandle, pem: fn(PathBuf) -> Pem) -> Cln {
    let cln = handle.cln();
    let credentials = Credentials {
        ca: pem(cln.ca_cert_path()),
        certificate: pem(cln.client_cert_path()),
        key: pem(cln.client_key_path()),
    };
    let connector = credentials.connector(&cln.endpoint(), Duration::from_secs(30));
    Cln::new(connector.unwrap(), Network::Regtest)
}

/// An order that is given up after so long, and the hash as it is written.
fn order(challenge: &Challenge, patience: Duration) -> (SendOrder, String) {
    let details = challenge.request.value()["methodDetails"].clone();
    let text = details["paymentHash"].as_str().unwrap().to_owned();
    let hash = PaymentHash::parse(&text).unwrap();
    let bolt11 = details["invoice"].as_str().unwrap();
    (SendOrder::new(bolt11, hash, 1_000, patience), text)
}

/// Certificates count on both sides: with another node's nothing is minted, and nothing is sent.
#[tokio::test]
async fn each_side_must_be_the_configured_one() {
    let ln = common::start().await;
    let challenge = quote(&method(rail(config(ln.seller()))), 21).await.unwrap();
    let (right, other) = (config(ln.seller()), config(ln.agent()));
    let mut impostor = right.clone();
    impostor.ca_cert = other.ca_cert.clone();
    let mut stranger = right.clone();
    stranger.client_cert = other.client_cert.clone();
    stranger.client_key = other.client_key.clone();
    for wrong in [impostor, stranger] {
        let refused = quote(&method(rail(wrong)), 21).await;
        assert!(matches!(refused, Err(NoQuote::Fault(_))), "{refused:?}");
    }
    assert_eq!(ln.seller().invoice_count(), 1);

    let mut wrong = config(ln.agent());
    wrong.client_cert = right.client_cert.clone();
    wrong.client_key = right.client_key.clone();
    let wallet = LightningWallet::new(WalletConfig::cln(wrong, Network::Regtest)).unwrap();
    // Before it pays, it asks what it has paid: that this is refused shows that nothing was sent.
    let refused = pay(&payer(wallet), &challenge).await;
    assert!(matches!(refused, Err(PayError::NotPaid(_))), "{refused:?}");
}

/// A node that renewed its certificates is reached again through the same files, and only through
/// them.
#[tokio::test]
async fn renewed_certificates_are_read_from_their_files() {
    let ln = common::start().await;
    let by_file = node(ln.seller());
    let by_value = dial(ln.seller(), |path| Pem::text(std::fs::read(path).unwrap()));
    by_file.info().await.unwrap();
    by_value.info().await.unwrap();

    let cln = ln.seller().cln();
    cln.restart_with_new_certificates().await.unwrap();
    // A first call may still find the old connection going away.
    let wait = Duration::from_secs(60);
    let reached = async { while by_file.info().await.is_err() {} };
    timeout(wait, reached).await.unwrap();
    let refused = async { while by_value.info().await.is_ok() {} };
    timeout(wait, refused).await.unwrap();
    for _ in 0..3 {
        assert!(by_value.info().await.is_err());
    }
}

/// The answer is lost after the money moved: the payment is found by its hash, and paid once.
#[tokio::test]
async fn a_lost_reply_is_resolved_and_never_paid_again() {
    let ln = common::start().await;
    let method = method(rail(config(ln.seller())));
    let challenge = quote(&method, 21).await.unwrap();
    ln.agent().drop_next_reply_after_settle();
    let first = pay(&payer(wallet(ln.agent())), &challenge).await.unwrap();
    let second = pay(&payer(wallet(ln.agent())), &challenge).await.unwrap();
    assert_eq!(first.get(), second.get());
    assert_eq!(ln.seller().settled().len(), 1);
    assert_eq!(ln.agent().balance_sat(), 1_000_000 - 22);
    let opened = present(&method, &challenge, &first, &Timestamp::now()).await;
    assert_eq!(opened.unwrap(), ln.seller().settled()[0].payment_hash);
}

/// A payment under way is neither paid nor unpaid, in this process and the next; a second order
/// for it is that payment's.
#[tokio::test]
async fn a_hanging_payment_is_unknown_until_it_ends() {
    let ln = common::start().await;
    let method = method(rail(config(ln.seller())));
    let first = node(ln.agent());
    // Long enough for the order to be with the node on a machine that does much else.
    let patience = Duration::from_secs(4);
    let (order, hash) = order(&quote(&method, 21).await.unwrap(), patience);
    ln.agent().hang_next_send();
    let hanging = first.pay(order.clone()).await;
    assert!(matches!(hanging, Payment::Unknown(_)), "{hanging:?}");
    let next = node(ln.agent());
    for found in [
        first
            .track(order.payment_hash, Duration::ZERO)
            .await
            .unwrap(),
        next.track(order.payment_hash, Duration::ZERO)
            .await
            .unwrap(),
        next.pay(order.clone()).await,
    ] {
        assert!(matches!(found, Payment::Unknown(_)), "{found:?}");
    }
    ln.agent().finish_hung(&hash, true);
    for found in [
        next.track(order.payment_hash, Duration::ZERO)
            .await
            .unwrap(),
        first.pay(order.clone()).await,
    ] {
        match found {
            Payment::Succeeded { preimage, fee_msat } => {
                assert_eq!((preimage.hash(), fee_msat), (order.payment_hash, 1_000));
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(ln.agent().balance_sat(), 1_000_000 - 22);
}

/// Between two tries every part has failed: that is not the end while the node may try again.
#[tokio::test]
async fn failed_parts_are_the_last_word_only_once_nobody_tries_any_more() {
    let ln = common::start().await;
    let method = method(rail(config(ln.seller())));
    let challenge = quote(&method, 21).await.unwrap();
    let (brief, hash) = order(&challenge, Duration::from_secs(4));
    ln.agent().hang_next_send();
    let (dies, sent) = (node(ln.agent()), brief.clone());
    let hanging = tokio::spawn(async move { dies.pay(sent).await });
    let next = node(ln.agent());
    let known = async || next.track(brief.payment_hash, Duration::ZERO).await;
    common::until("it is sent", async || known().await.is_some()).await;
    hanging.abort();
    ln.agent().finish_hung(&hash, false);
    let early = known().await;
    assert!(matches!(early, Some(Payment::Unknown(_))), "{early:?}");
    let minute = Duration::from_secs(60);
    let late = next.track(brief.payment_hash, minute).await;
    assert!(matches!(late, Some(Payment::Failed(_))), "{late:?}");
    // Then it can be paid after all.
    let paid = next.pay(order(&challenge, minute).0).await;
    assert!(matches!(paid, Payment::Succeeded { .. }), "{paid:?}");
}

/// A node that is away is an outage, and comes back.
#[tokio::test]
async fn a_node_that_is_away_is_a_fault() {
    let ln = common::start().await;
    let method = method(rail(config(ln.seller())));
    ln.seller().set_unavailable(true);
    let away = quote(&method, 21).await;
    assert!(
        matches!(&away, Err(NoQuote::Fault(fault)) if fault.retry_after().is_some()),
        "{away:?}"
    );
    ln.seller().set_unavailable(false);
    assert!(quote(&method, 21).await.is_ok());
}

/// Everything wrong is reported at once, each with its key and a remedy.
#[tokio::test]
async fn configuration_problems_are_listed_together() {
    let ln = common::start().await;
    let issues = |config: Value| -> Vec<(String, String)> {
        let problems = (farebox_lightning::CHARGE.build)(&config).err();
        let problems = problems.expect("refused");
        let issues = problems.issues().iter();
        issues
            .map(|issue| (issue.key.clone(), issue.problem.clone()))
            .collect()
    };
    let missing = issues(json!({ "backend": "cln" }));
    assert_eq!(missing[0].0, "cln");
    assert!(missing[0].1.contains("ca_cert = "), "{missing:?}");
    // LND's key of the same name is another one.
    let no_endpoint = json!({ "ca_cert": "a", "client_cert": "b", "client_key": "c" });
    let missing = issues(json!({ "backend": "cln", "cln": no_endpoint }));
    assert_eq!(missing[0].0, "cln.endpoint", "{missing:?}");
    assert!(missing[0].1.contains("; give "), "{missing:?}");
    let wrong = issues(json!({
        "backend": "cln",
        "cln": {
            "endpoint": "http://127.0.0.1:9736",
            "ca_cert": { "file": "/does/not/exist/ca.pem" },
            "client_cert": "client.pem",
            "client_key": "client-key.pem",
        },
    }));
    let keys: Vec<_> = wrong.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(
        keys,
        [
            "cln.endpoint",
            "cln.ca_cert",
            "cln.client_cert",
            "cln.client_key"
        ]
    );
    assert!(wrong[1].1.contains("the node writes it as ca.pem"));
    assert!(wrong[3].1.contains("{ file = \"client-key.pem\" }"));

    // A certificate with another's key.
    let mut mixed = config(ln.seller());
    mixed.client_key = SecretSource::File(ln.agent().cln().client_key_path());
    let refused = Lightning::new(Config::cln(mixed, Network::Regtest)).unwrap_err();
    assert_eq!(refused.issues()[0].key, "cln.client_key");
    assert!(refused.issues()[0].problem.contains("cln.client_cert"));
}
