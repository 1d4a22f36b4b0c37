//! What an agent with limits refuses to pay, over any two nodes: each refusal says why, and nothing
//! is sent.

use std::sync::Arc;
use std::time::Duration;

use farebox::core as farebox_core;
use farebox::prelude::*;
use farebox::rails::lightning::node::Payment;
use farebox::rails::lightning::{Lightning, LightningWallet};
use farebox::wire::{Challenge, Encoded, Payload};
use farebox_core::{PayError, Payer, Paying, TypedPayer};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::{Pair, rail, suite};

/// What is asked for, sats.
const PRICE: u64 = 21;

/// Everything below, on one pair.
pub async fn every_rule(pair: Arc<dyn Pair>) {
    an_agent_refuses_what_its_limits_forbid(&pair).await;
    an_expired_invoice_is_refused_by_the_wallet(&pair).await;
}

fn payer(wallet: LightningWallet) -> Arc<dyn Payer> {
    Arc::new(TypedPayer::<_, farebox::Charge>::new(wallet))
}

async fn attempt(wallet: LightningWallet, challenge: &Challenge) -> Result<Payload, PayError> {
    let (payer, cx) = (payer(wallet), Paying::new(challenge, None));
    let budget = Budget::new([Limit::per_request("sat", Amount::new(1_000))]);
    let (approved, reservation) = budget
        .approve(payer.price(&cx)?)
        .expect("within the budget");
    reservation.commit();
    payer.pay(&cx, approved).await.map(|paid| paid.payload)
}

/// Why nothing was paid; anything else fails the test.
fn reason(result: Result<Payload, PayError>) -> String {
    match result {
        Err(PayError::Refused(why) | PayError::Unsupported(why)) => why,
        Err(PayError::NotPaid(fault)) => fault.to_string(),
        other => panic!("expected a refusal, not {other:?}"),
    }
}

/// The same challenge as a lying server would send it.
fn tampered(challenge: &Challenge, change: impl FnOnce(&mut Value)) -> Challenge {
    let mut request = challenge.request.value();
    change(&mut request);
    Challenge {
        request: Encoded::encode(&request).unwrap(),
        ..challenge.clone()
    }
}

async fn an_agent_refuses_what_its_limits_forbid(pair: &Arc<dyn Pair>) {
    let challenge = rail::challenge_of(Lightning::on(pair.shop())).await;
    let (_, hash) = rail::hash_of(&challenge);
    let fee = pair.fee_msat();
    let total = (PRICE * 1_000 + fee).div_ceil(1_000);
    let wallet = || LightningWallet::on(pair.payer()).max_fee_msat(fee);
    let refused = async |challenge: &Challenge| reason(attempt(wallet(), challenge).await);

    let capped = attempt(wallet().max_total_sat(total - 1), &challenge).await;
    let why = reason(capped);
    let expected = format!(
        "{total} sat with its routing fee; the wallet's limit is {} sat",
        total - 1
    );
    assert!(why.contains(&expected), "one sat over: {why}");

    let why = refused(&tampered(&challenge, |r| {
        r["methodDetails"]["network"] = "mainnet".into();
    }))
    .await;
    assert!(
        why.contains("for mainnet") && why.contains("on regtest"),
        "{why}"
    );

    let why = refused(&tampered(&challenge, |r| {
        r["methodDetails"]["paymentHash"] = "0".repeat(64).into();
    }))
    .await;
    assert!(why.contains(&format!("payment hash is {hash}")), "{why}");

    let open = pair.open_invoice().await;
    let why = refused(&tampered(&challenge, |r| {
        r["methodDetails"]["invoice"] = open.into();
    }))
    .await;
    assert!(why.contains("no amount"), "{why}");

    let why = refused(&tampered(&challenge, |r| r["amount"] = "20".into())).await;
    assert!(
        why.contains("21000 msat and the request for 20 sat"),
        "{why}"
    );

    assert!(
        pair.payer().track(hash, Duration::ZERO).await.is_none(),
        "nothing was sent"
    );

    // The routing fee is the node's to find out: it tries, and says that there is no such route.
    if let Some(below) = fee.checked_sub(1) {
        let tight = attempt(wallet().max_fee_msat(below), &challenge).await;
        assert!(matches!(tight, Err(PayError::NotPaid(_))), "{tight:?}");
        let why = reason(tight);
        assert!(why.contains(&format!("allowed {below} msat")), "{why}");
        let tried = pair.payer().track(hash, Duration::ZERO).await;
        assert!(
            matches!(tried, None | Some(Payment::Failed(_))),
            "{tried:?}"
        );
    }

    // With limits that just suffice it is paid.
    let paid = attempt(wallet().max_total_sat(total), &challenge).await;
    assert!(paid.is_ok(), "{paid:?}");
    let sent = pair.payer().track(hash, suite::PATIENCE).await;
    suite::proof(sent.expect("it was sent"), hash);
}

async fn an_expired_invoice_is_refused_by_the_wallet(pair: &Arc<dyn Pair>) {
    // Longer than a busy machine takes to quote it.
    let brief = Lightning::on(pair.shop()).invoice_expiry(Duration::from_secs(8));
    let challenge = rail::challenge_of(brief).await;
    let payer = payer(LightningWallet::on(pair.payer()));
    let deadline = Instant::now() + suite::PATIENCE;
    while payer.price(&Paying::new(&challenge, None)).is_ok() {
        assert!(Instant::now() < deadline, "it expires");
        sleep(Duration::from_millis(50)).await;
    }
    let late = attempt(LightningWallet::on(pair.payer()), &challenge).await;
    let why = reason(late);
    assert!(why.contains("expired"), "{why}");
}
