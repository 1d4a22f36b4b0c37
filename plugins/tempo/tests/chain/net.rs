//! A chain under test, the two sides of a payment on it, and transactions made by hand.

use std::{num::NonZeroU64, sync::Arc, time::Duration};

use alloy::{
    primitives::{Address, B256, Bytes, TxKind, U256, address, hex},
    signers::Signer,
    sol_types::SolCall,
};
use farebox_core::{
    AnyPlan, Budget, Limit, Method, OncePlan, Outcome, Payer, Paying, Plugin, Presented, Refusal,
    Step, StoredOrder, Tally, prelude::*,
};
use farebox_engine::MemoryStore;
use farebox_proof::LocalKey;
use farebox_wire::{Encoded, Payload};
use serde_json::{Value, json};
use tempo_contracts::precompiles::ITIP20;
use tempo_primitives::{
    TempoTransaction,
    transaction::{Call, TEMPO_EXPIRING_NONCE_KEY, TempoSignature},
};

pub(crate) const TOKEN: Address = address!("0x20c0000000000000000000000000000000000000");
pub(crate) const RECIPIENT: Address = address!("0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC");
pub(crate) const REALM: &str = "api.example.com";
/// Development account 1, on every local chain.
pub(crate) const RICH: &str = "59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d";
/// Holds nothing anywhere.
pub(crate) const POOR: &str = "1111111111111111111111111111111111111111111111111111111111111111";

const PLUGIN: &Plugin = &farebox_tempo::CHARGE;

/// An endpoint and the two sides of a payment.
pub(crate) struct Net {
    pub(crate) url: String,
    pub(crate) rail: Arc<dyn Method>,
}

/// A payment on its way.
pub(crate) struct Credential {
    pub(crate) challenge: Challenge,
    pub(crate) payload: Payload,
    pub(crate) source: Option<String>,
}

pub(crate) fn key(secret: &str) -> LocalKey {
    LocalKey::parse("private_key", &Secret::new(secret)).unwrap()
}

pub(crate) fn config(url: &str) -> Value {
    json!({ "rpc_url": url, "chain_id": 1337, "currency": TOKEN, "recipient": RECIPIENT })
}

pub(crate) fn wallet(url: &str, secret: &str) -> Arc<dyn Payer> {
    let config = json!({ "rpc_url": url, "chain_id": 1337, "private_key": secret });
    PLUGIN.wallet.unwrap()(&config).unwrap()
}

/// The same rail, with a store of its own to count in, as an engine gives it one.
pub(crate) fn counted(rail: Arc<dyn Method>) -> Arc<dyn Method> {
    rail.entrust(Tally::new(Arc::<MemoryStore>::default(), "tempo"));
    rail
}

impl Net {
    pub(crate) fn at(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            rail: (PLUGIN.build)(&config(url)).unwrap(),
        }
    }

    /// A challenge of the rail's, as the engine would issue it.
    pub(crate) async fn challenge(&self, amount: &str) -> Challenge {
        self.challenge_for(&json!({ "amount": amount })).await
    }

    pub(crate) async fn challenge_for(&self, terms: &Value) -> Challenge {
        static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let now = Timestamp::now();
        Challenge {
            id: format!("{}-{number}", now.unix_millis()),
            realm: REALM.into(),
            method: "tempo".into(),
            intent: "charge".into(),
            request: self.rail.quote(terms).await.unwrap().request,
            expires: Some(now.plus(Duration::from_secs(300))),
            digest: None,
            description: None,
            opaque: None,
            header: None,
        }
    }

    pub(crate) async fn pay(
        &self,
        challenge: Challenge,
        secret: &str,
    ) -> Result<Credential, PayError> {
        self.pay_with(challenge, wallet(&self.url, secret)).await
    }

    pub(crate) async fn pay_with(
        &self,
        challenge: Challenge,
        payer: Arc<dyn Payer>,
    ) -> Result<Credential, PayError> {
        let cx = Paying::new(&challenge, Some(REALM));
        let price = payer.price(&cx)?;
        let limit = Limit::per_request(price.currency.clone(), price.amount);
        let (approved, reservation) = Budget::new([limit]).approve(price).unwrap();
        let paid = payer.pay(&cx, approved).await?;
        reservation.commit();
        Ok(Credential {
            payload: paid.payload,
            source: paid.source,
            challenge,
        })
    }

    /// What the rail makes of a credential.
    pub(crate) async fn plan(&self, credential: &Credential) -> Result<OncePlan, Refusal> {
        self.plan_at(credential, &Timestamp::now()).await
    }

    /// The same of one that came at this moment.
    pub(crate) async fn plan_at(
        &self,
        credential: &Credential,
        moment: &Timestamp,
    ) -> Result<OncePlan, Refusal> {
        let cx = Presented::new(&credential.challenge, moment).by(credential.source.as_deref());
        let AnyPlan::Once(plan) = self.rail.verify(&cx, &credential.payload).await? else {
            panic!("a charge is single use")
        };
        Ok(plan)
    }

    pub(crate) async fn verify(&self, credential: &Credential) -> Result<StoredOrder, Refusal> {
        let plan = self.plan(credential).await?;
        assert_eq!(plan.proofs.len(), 2, "the payload's key and the hash's");
        match plan.step {
            Step::Settle(order) => Ok(order),
            Step::Paid { .. } => panic!("a priced charge has to be settled"),
        }
    }

    /// From a price to an order that only has to be carried out.
    pub(crate) async fn order(&self, amount: &str) -> StoredOrder {
        let credential = self.pay(self.challenge(amount).await, RICH).await.unwrap();
        self.verify(&credential).await.unwrap()
    }

    pub(crate) async fn settle(&self, order: &StoredOrder) -> Outcome {
        self.rail
            .settler()
            .settle(&IdempotencyKey::for_challenge("x"), order)
            .await
    }

    pub(crate) async fn lookup(&self, order: &StoredOrder) -> Outcome {
        self.rail
            .settler()
            .lookup(&IdempotencyKey::for_challenge("x"), order)
            .await
    }

    pub(crate) async fn rpc(&self, method: &str, params: Value) -> Value {
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let client = reqwest::Client::new();
        let answer = client.post(&self.url).json(&body).send().await.unwrap();
        let mut answer: Value = answer.json().await.unwrap();
        assert!(answer.get("error").is_none(), "{method}: {answer}");
        answer["result"].take()
    }

    /// Attodollars for a unit of gas.
    pub(crate) async fn gas_price(&self) -> u128 {
        let price = self.rpc("eth_gasPrice", json!([])).await;
        let price = price.as_str().unwrap().trim_start_matches("0x");
        u128::from_str_radix(price, 16).unwrap()
    }

    pub(crate) async fn balance(&self, owner: Address) -> U256 {
        let data: Bytes = ITIP20::balanceOfCall { account: owner }.abi_encode().into();
        let word = self
            .rpc("eth_call", json!([{ "to": TOKEN, "data": data }, "latest"]))
            .await;
        word.as_str().unwrap().parse().unwrap()
    }
}

pub(crate) fn reference(outcome: Outcome) -> String {
    match outcome {
        Outcome::Settled { reference, .. } => reference,
        other => panic!("not settled: {other:?}"),
    }
}

pub(crate) fn detail(refusal: Refusal) -> String {
    match refusal {
        Refusal::Rejected(rejection) => rejection.detail,
        Refusal::Fault(fault) => panic!("a fault: {fault}"),
    }
}

pub(crate) fn hash(order: &StoredOrder) -> B256 {
    let order: Value = serde_json::from_str(order.as_str()).unwrap();
    order["hash"].as_str().unwrap().parse().unwrap()
}

/// Unix seconds.
pub(crate) fn now() -> u64 {
    u64::try_from(Timestamp::now().unix_millis() / 1000).unwrap()
}

/// The transaction that pays for `challenge`, to be spoilt.
pub(crate) fn paying(challenge: &Challenge, amount: u64) -> TempoTransaction {
    let memo = farebox_tempo::memo::attribution(challenge);
    TempoTransaction {
        chain_id: 1337,
        fee_token: Some(TOKEN),
        max_fee_per_gas: 50_000_000_000,
        gas_limit: 700_000,
        calls: vec![call(RECIPIENT, amount, memo)],
        nonce_key: TEMPO_EXPIRING_NONCE_KEY,
        valid_before: NonZeroU64::new(now() + 20),
        ..TempoTransaction::default()
    }
}

pub(crate) fn call(to: Address, amount: u64, memo: B256) -> Call {
    let input = ITIP20::transferWithMemoCall {
        to,
        amount: U256::from(amount),
        memo,
    }
    .abi_encode();
    Call {
        to: TxKind::Call(TOKEN),
        value: U256::ZERO,
        input: input.into(),
    }
}

pub(crate) async fn sign(tx: TempoTransaction, secret: &str) -> Vec<u8> {
    let signature = key(secret).sign_hash(&tx.signature_hash()).await.unwrap();
    let mut raw = Vec::new();
    tx.into_signed(TempoSignature::from(signature))
        .eip2718_encode(&mut raw);
    raw
}

pub(crate) fn transaction(raw: &[u8]) -> Payload {
    let payload = json!({ "type": "transaction", "signature": hex::encode_prefixed(raw) });
    Payload::from_value(&payload).unwrap()
}

/// Broadcasts by hand, and the hash.
pub(crate) async fn broadcast(net: &Net, raw: Vec<u8>) -> B256 {
    let raw = Bytes::from(raw);
    let receipt = net.rpc("eth_sendRawTransactionSync", json!([raw])).await;
    receipt["transactionHash"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap()
}

pub(crate) fn request(value: &Value) -> Encoded {
    Encoded::encode(value).unwrap()
}
