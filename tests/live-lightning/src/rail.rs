//! `lightning/charge` over any two nodes: the rules of every rail, and its own.

use std::sync::Arc;

use async_trait::async_trait;
use axum::{Router, routing::get};
use farebox::engine::{Inbound, Refused};
use farebox::http::{PayExt as _, ReceiptExt as _};
use farebox::prelude::*;
use farebox::rails::lightning::node::SendOrder;
use farebox::rails::lightning::{Lightning, LightningWallet, PaymentHash};
use farebox::wire::{Challenge, Credential, Payload};
use farebox::{Gate, core as farebox_core};
use farebox_core::{Method, Payer, Paying, Typed, TypedPayer};
use farebox_testkit::rail::{Bench, RailFixture};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::{Pair, suite};

/// Everything below, on one pair.
pub async fn every_rule(pair: Arc<dyn Pair>) {
    the_rules_of_every_rail(&pair).await;
    an_agent_pays_over_http(&pair).await;
    one_preimage_is_served_once(&pair).await;
    a_leaked_preimage_opens_nothing(&pair).await;
    a_lost_reply_is_found_after_a_restart_and_served_once(&pair).await;
}

fn method(pair: &Arc<dyn Pair>) -> Arc<dyn Method> {
    Arc::new(Typed::<_, farebox::Charge>::new(Lightning::on(pair.shop())))
}

fn wallet(pair: &Arc<dyn Pair>) -> LightningWallet {
    LightningWallet::on(pair.payer())
}

fn budget() -> Budget {
    Budget::new([Limit::per_request("sat", Amount::new(100))])
}

/// Pays a challenge as an agent does; the payload proves it.
async fn pay(pair: &Arc<dyn Pair>, challenge: &Challenge) -> Payload {
    let payer: Arc<dyn Payer> = Arc::new(TypedPayer::<_, farebox::Charge>::new(wallet(pair)));
    let cx = Paying::new(challenge, None);
    let (approved, reservation) = budget().approve(payer.price(&cx).unwrap()).unwrap();
    reservation.commit();
    payer.pay(&cx, approved).await.expect("paid").payload
}

struct Fixture(Arc<dyn Pair>);

#[async_trait]
impl RailFixture for Fixture {
    async fn method(&self) -> Arc<dyn Method> {
        method(&self.0)
    }

    fn terms(&self) -> Value {
        json!({ "amount": "21", "description": "a joke" })
    }

    async fn pay(&self, challenge: &Challenge) -> (Value, Option<String>) {
        (pay(&self.0, challenge).await.decode().unwrap(), None)
    }

    async fn forged(&self, _: &Challenge) -> Vec<Value> {
        vec![json!({ "preimage": "00".repeat(32) })]
    }
}

async fn the_rules_of_every_rail(pair: &Arc<dyn Pair>) {
    let bench = Arc::new(Bench::new(Fixture(Arc::clone(pair))).await);
    bench.challenges_are_complete_and_distinct().await;
    bench.a_good_proof_pays_exactly_once().await;
    bench.forged_proofs_are_the_payers_fault().await;
    bench.nonsense_is_the_payers_fault().await;
    bench.a_proof_is_for_its_challenge().await;
    Arc::clone(&bench)
        .parallel_presentations_are_served_once()
        .await;
    bench.settlement_is_idempotent().await;
}

fn server(pair: &Arc<dyn Pair>) -> Server {
    Server::builder("127.0.0.1")
        .secret("a secret of 32 bytes, only for tests")
        .store("memory:")
        .method(method(pair))
        .build()
        .expect("a server")
}

pub(crate) fn hash_of(challenge: &Challenge) -> (String, PaymentHash) {
    let details = challenge.request.value()["methodDetails"].clone();
    let bolt11 = details["invoice"].as_str().unwrap().to_owned();
    let mut hash = [0; 32];
    hex::decode_to_slice(details["paymentHash"].as_str().unwrap(), &mut hash).unwrap();
    (bolt11, PaymentHash::new(hash))
}

/// A real payment for a real response: 402, an HTLC, a preimage, 200 and a receipt.
async fn an_agent_pays_over_http(pair: &Arc<dyn Pair>) {
    let server = server(pair);
    let paid = server
        .paid("GET /joke", [OfferSpec::new("lightning/charge", "21")])
        .expect("a paid route");
    let app = Router::new().route("/joke", get(|| async { "a joke" }).route_layer(paid));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/joke", listener.local_addr().unwrap());
    let serving = tokio::spawn(async move { axum::serve(listener, app).await });
    let client = reqwest::Client::new();
    let unpaid = client.get(&url).send().await.unwrap();
    assert_eq!(unpaid.status(), 402);
    let purse = Purse::new(budget()).wallet::<farebox::Charge, _>(wallet(pair));
    for _ in 0..2 {
        let response = client.get(&url).pay(&purse).await.expect("paid");
        assert_eq!(response.status(), 200);
        let receipt = response.receipt().expect("a receipt");
        assert_eq!(receipt.method, "lightning");
        let mut hash = [0; 32];
        hex::decode_to_slice(&receipt.reference, &mut hash).expect("a payment hash");
        let payer = pair.payer();
        let sent = payer.track(PaymentHash::new(hash), suite::PATIENCE).await;
        let sent = sent.expect("the payer's node has sent it");
        suite::proof(sent, PaymentHash::new(hash));
        assert_eq!(response.text().await.unwrap(), "a joke");
    }
    serving.abort();
}

fn gate(server: &Server, route: &str) -> Gate {
    let offer = OfferSpec::new("lightning/charge", "21");
    server.gate(route, [offer]).expect("a gate")
}

/// A challenge for 21 sats by a rail of one's own.
pub(crate) async fn challenge_of(rail: Lightning) -> Challenge {
    let method: Arc<dyn Method> = Arc::new(Typed::<_, farebox::Charge>::new(rail));
    let server = Server::builder("127.0.0.1")
        .secret("a secret of 32 bytes, only for tests")
        .store("memory:")
        .method(method)
        .build()
        .expect("a server");
    challenge(&gate(&server, "GET /joke")).await
}

async fn challenge(gate: &Gate) -> Challenge {
    let challenges = gate.challenges(&Inbound::default()).await;
    challenges.expect("a quote").remove(0)
}

fn credential(challenge: Challenge, payload: &Payload) -> Credential {
    Credential {
        challenge,
        source: None,
        payload: payload.clone(),
    }
}

/// How it was served: once, or refused as the payer's fault or as spent.
async fn served(gate: &Gate, credential: Credential) -> bool {
    match gate.present(credential, &Inbound::default()).await {
        Ok(admission) => {
            let serving = admission.into_serving().expect("not answered before");
            serving.delivered(None).await.is_ok()
        }
        Err(Refused::Payment(_) | Refused::Spent(_)) => false,
        Err(other) => panic!("neither served nor the payer's fault: {other:?}"),
    }
}

/// One payment, twice to one challenge and once to each of two: served once.
async fn one_preimage_is_served_once(pair: &Arc<dyn Pair>) {
    let server = server(pair);
    let (joke, story) = (gate(&server, "GET /joke"), gate(&server, "GET /story"));
    let first = challenge(&joke).await;
    let payload = pay(pair, &first).await;
    assert!(!served(&story, credential(first.clone(), &payload)).await);
    let others = [challenge(&joke).await, challenge(&story).await];
    assert!(!served(&joke, credential(others[0].clone(), &payload)).await);
    assert!(!served(&story, credential(others[1].clone(), &payload)).await);
    assert!(served(&joke, credential(first.clone(), &payload)).await);
    assert!(!served(&joke, credential(first, &payload)).await);
}

/// The seller's own node knows the preimage of what nobody has paid.
async fn a_leaked_preimage_opens_nothing(pair: &Arc<dyn Pair>) {
    let server = server(pair);
    let gate = gate(&server, "GET /joke");
    let challenge = challenge(&gate).await;
    let (_, hash) = hash_of(&challenge);
    let preimage = pair.leak(hash).await;
    assert_eq!(preimage.hash(), hash);
    let payload = json!({ "preimage": serde_json::to_value(&preimage).unwrap() });
    let payload = Payload::from_value(&payload).unwrap();
    assert!(!served(&gate, credential(challenge.clone(), &payload)).await);
    // The same preimage opens once it has been paid for.
    let paid = pay(pair, &challenge).await;
    assert_eq!(paid.get(), payload.get());
    assert!(served(&gate, credential(challenge, &paid)).await);
}

/// The payment goes out, its answer is lost with the process, and the next process collects.
async fn a_lost_reply_is_found_after_a_restart_and_served_once(pair: &Arc<dyn Pair>) {
    let server = server(pair);
    let gate = gate(&server, "GET /joke");
    let challenge = challenge(&gate).await;
    let (bolt11, hash) = hash_of(&challenge);
    let order = SendOrder::new(bolt11, hash, pair.fee_msat(), suite::PATIENCE);
    suite::abandon(&**pair, order).await;
    pair.restart_payer().await;
    let payload = pay(pair, &challenge).await;
    assert!(served(&gate, credential(challenge.clone(), &payload)).await);
    assert!(!served(&gate, credential(challenge, &payload)).await);
}
