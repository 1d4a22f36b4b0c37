//! What the tests of both sides share.
#![allow(
    clippy::unwrap_used,
    dead_code,
    reason = "helpers; each test file uses some"
)]

use std::sync::Arc;
use std::time::Duration;

use farebox_core::{
    AnyPlan, Budget, Charge, ChargeTerms, Cost, Limit, Method, NoQuote, PayError, Payer, Paying,
    Presented, Refusal, SecretSource, Step, Typed, TypedPayer,
};
use farebox_grpc::Pem;
use farebox_lightning::lnd::Lnd;
use farebox_lightning::{Config, Lightning, LightningWallet, Network, WalletConfig};
use farebox_lnd::connect::{Authorized, Connector, Macaroon};
use farebox_sandbox_lightning as sandbox;
use farebox_sandbox_lightning::{LightningConfig, NodeHandle};
use farebox_wire::{Amount, Challenge, Encoded, Payload, Timestamp};
use serde_json::{Value, json};

pub(crate) async fn start() -> sandbox::Lightning {
    sandbox::Lightning::start(LightningConfig::default())
        .await
        .unwrap()
}

pub(crate) fn file(path: impl Into<std::path::PathBuf>) -> SecretSource {
    SecretSource::File(path.into())
}

/// The seller's configuration, with the macaroon that may do nothing but invoices.
pub(crate) fn seller_config(node: &NodeHandle) -> Config {
    let macaroon = file(node.invoice_macaroon_path());
    Config::lnd(
        node.endpoint(),
        file(node.tls_cert_path()),
        macaroon,
        Network::Regtest,
    )
}

pub(crate) fn rail(node: &NodeHandle) -> Lightning {
    Lightning::new(seller_config(node)).unwrap()
}

pub(crate) fn wallet_config(node: &NodeHandle) -> WalletConfig {
    let macaroon = file(node.admin_macaroon_path());
    WalletConfig::lnd(
        node.endpoint(),
        file(node.tls_cert_path()),
        macaroon,
        Network::Regtest,
    )
}

pub(crate) fn wallet(node: &NodeHandle) -> LightningWallet {
    LightningWallet::new(wallet_config(node)).unwrap()
}

/// A connection of the test's own to a node, allowed everything.
pub(crate) fn dial(node: &NodeHandle) -> Authorized {
    connector(node).channel()
}

pub(crate) fn connector(node: &NodeHandle) -> Connector {
    let pin = Pem::file(node.tls_cert_path());
    let macaroon = Macaroon::new(node.admin_macaroon_hex().as_bytes()).unwrap();
    Connector::new(&node.endpoint(), pin, macaroon, Duration::from_secs(30)).unwrap()
}

pub(crate) fn lnd(node: &NodeHandle) -> Lnd {
    Lnd::new(connector(node), Network::Regtest)
}

pub(crate) fn method(rail: Lightning) -> Arc<dyn Method> {
    Arc::new(Typed::<_, Charge>::new(rail))
}

pub(crate) fn payer(wallet: LightningWallet) -> Arc<dyn Payer> {
    Arc::new(TypedPayer::<_, Charge>::new(wallet))
}

/// A challenge around a request, lapsing in five minutes.
pub(crate) fn around(request: Encoded) -> Challenge {
    Challenge {
        id: "id".into(),
        realm: "test.example".into(),
        method: "lightning".into(),
        intent: "charge".into(),
        request,
        expires: Some(Timestamp::now().plus(Duration::from_secs(300))),
        digest: None,
        description: None,
        opaque: None,
        header: None,
    }
}

pub(crate) async fn quote(method: &Arc<dyn Method>, sat: u32) -> Result<Challenge, NoQuote> {
    let terms = ChargeTerms::amount(sat.to_string()).description("a joke");
    let quote = method.quote(&serde_json::to_value(terms).unwrap()).await?;
    Ok(around(quote.request))
}

/// The same challenge with its request changed, as a lying server would send it.
pub(crate) fn tampered(challenge: &Challenge, change: impl FnOnce(&mut Value)) -> Challenge {
    let mut request = challenge.request.value();
    change(&mut request);
    Challenge {
        request: Encoded::encode(&request).unwrap(),
        ..challenge.clone()
    }
}

/// Verifies a payload; the answer is the reference of a paid plan.
pub(crate) async fn present(
    method: &Arc<dyn Method>,
    challenge: &Challenge,
    payload: &Payload,
    now: &Timestamp,
) -> Result<String, Refusal> {
    let cx = Presented::new(challenge, now);
    match method.verify(&cx, payload).await? {
        AnyPlan::Once(plan) => match plan.step {
            Step::Paid { reference } => Ok(reference),
            Step::Settle(_) => panic!("a preimage needs no settling"),
        },
        AnyPlan::Channel(_) => panic!("a charge has no channel"),
    }
}

pub(crate) fn payload(preimage: &str) -> Payload {
    Payload::from_value(&json!({ "preimage": preimage })).unwrap()
}

/// The slug of a rejection's problem type; a fault fails the test.
pub(crate) fn problem(refusal: Result<String, Refusal>) -> String {
    match refusal {
        Err(Refusal::Rejected(rejection)) => rejection.problem.type_uri().into_owned(),
        other => panic!("expected a rejection, not {other:?}"),
    }
}

/// Pays under a budget that allows anything in sats.
pub(crate) async fn pay(
    payer: &Arc<dyn Payer>,
    challenge: &Challenge,
) -> Result<Payload, PayError> {
    let cx = Paying::new(challenge, None);
    let cost = payer.price(&cx)?;
    pay_approved(payer, challenge, cost).await
}

pub(crate) async fn pay_approved(
    payer: &Arc<dyn Payer>,
    challenge: &Challenge,
    cost: Cost,
) -> Result<Payload, PayError> {
    let budget = Budget::new([Limit::per_request("sat", Amount::new(10_000_000))]);
    let (approved, reservation) = budget.approve(cost).unwrap();
    reservation.commit();
    let paid = payer.pay(&Paying::new(challenge, None), approved).await?;
    Ok(paid.payload)
}

/// Waits until `done`, at most a minute.
pub(crate) async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    while !done().await {
        assert!(tokio::time::Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
