//! A chain to talk to, this crate's or anvil's, and the few words of JSON-RPC the tests speak.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::{
    num::NonZeroU64,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use alloy::{
    eips::eip2718::Encodable2718,
    primitives::{Address, B256, Bytes, TxKind, U256},
    signers::{SignerSync, local::PrivateKeySigner},
    sol_types::SolCall,
};
use farebox_sandbox_tempo::{ALPHA_USD, Chain, ChainConfig, PATH_USD, dev_account};
use serde_json::{Value, json};
use tempo_contracts::precompiles::ITIP20;
use tempo_primitives::{
    TempoSignature, TempoTransaction,
    transaction::{Call, FEE_PAYER_SIGNATURE_MARKER, PrimitiveSignature},
};

/// Something that answers JSON-RPC as a Tempo node does.
pub(crate) struct Peer {
    pub(crate) url: String,
    client: reqwest::Client,
    _anvil: Option<tokio::process::Child>,
    pub(crate) chain: Option<Chain>,
}

impl Peer {
    pub(crate) async fn sandbox() -> Self {
        Self::sandbox_with(ChainConfig::default()).await
    }

    pub(crate) async fn sandbox_with(config: ChainConfig) -> Self {
        let chain = Chain::start(config).await.unwrap();
        Self {
            url: chain.url(),
            client: reqwest::Client::new(),
            _anvil: None,
            chain: Some(chain),
        }
    }

    /// Starts the anvil binary at `path` in Tempo mode and waits until it has a block: before, it
    /// simulates at time 1 and finds every window too far away.
    pub(crate) async fn anvil(path: &str) -> Self {
        let probe = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = probe.local_addr().unwrap().port().to_string();
        drop(probe);
        let now = now().to_string();
        let child = tokio::process::Command::new(path)
            .args([
                "--network",
                "tempo",
                "--hardfork",
                "T4",
                "--chain-id",
                "1337",
            ])
            .args([
                "--timestamp",
                &now,
                "--block-time",
                "1",
                "--port",
                &port,
                "--silent",
            ])
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let url = format!("http://127.0.0.1:{port}");
        let peer = Self {
            url,
            client: reqwest::Client::new(),
            _anvil: Some(child),
            chain: None,
        };
        let number = json!({"jsonrpc":"2.0","id":1,"method":"eth_blockNumber"});
        // Where every core is busy with other tests, its start alone can take half a minute.
        let deadline = Instant::now() + Duration::from_secs(120);
        while !matches!(peer.send(&number).await, Ok(answer) if answer["result"] != "0x0") {
            assert!(
                Instant::now() < deadline,
                "anvil did not answer on {}",
                peer.url
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        peer
    }

    pub(crate) fn chain(&self) -> &Chain {
        self.chain.as_ref().unwrap()
    }

    pub(crate) async fn send(&self, body: &Value) -> reqwest::Result<Value> {
        let request = self
            .client
            .post(&self.url)
            .timeout(Duration::from_secs(40))
            .json(body);
        request.send().await?.json().await
    }

    /// Calls a method: its result, or its error object.
    pub(crate) async fn call(&self, method: &str, params: Value) -> Result<Value, Value> {
        let body = json!({"jsonrpc":"2.0","id":7,"method":method,"params":params});
        let mut reply = self.send(&body).await.unwrap();
        assert_eq!(reply["id"], 7, "{reply}");
        match reply.get("error") {
            Some(error) => Err(error.clone()),
            None => Ok(reply["result"].take()),
        }
    }

    pub(crate) async fn ok(&self, method: &str, params: Value) -> Value {
        self.call(method, params)
            .await
            .unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    pub(crate) async fn quantity(&self, method: &str, params: Value) -> u64 {
        number(&self.ok(method, params).await)
    }

    /// Calls a view of the contract at `to`.
    pub(crate) async fn view<C: SolCall>(&self, to: Address, call: C) -> C::Return {
        let request = json!([{ "to": to, "data": Bytes::from(call.abi_encode()) }, "latest"]);
        let data = self.ok("eth_call", request).await;
        let data: Bytes = serde_json::from_value(data).unwrap();
        C::abi_decode_returns(&data).unwrap()
    }

    pub(crate) async fn balance(&self, token: Address, account: Address) -> U256 {
        self.view(token, ITIP20::balanceOfCall { account }).await
    }

    /// An expiring transaction of `calls`, valid for 25 s, with fees in AlphaUSD.
    pub(crate) async fn transaction(&self, calls: Vec<Call>) -> TempoTransaction {
        // Two otherwise equal transactions would be the same transaction.
        static UNIQUE: AtomicU64 = AtomicU64::new(1);
        let price = u128::from(self.quantity("eth_gasPrice", json!([])).await);
        TempoTransaction {
            chain_id: 1337,
            fee_token: Some(ALPHA_USD),
            max_priority_fee_per_gas: 1_000_000_000,
            max_fee_per_gas: price * 2,
            gas_limit: 1_000_000,
            calls,
            nonce_key: U256::MAX,
            valid_before: NonZeroU64::new(now() + 25),
            valid_after: NonZeroU64::new(UNIQUE.fetch_add(1, Ordering::Relaxed)),
            ..TempoTransaction::default()
        }
    }

    /// Broadcasts and returns the receipt, or the error object.
    pub(crate) async fn submit(&self, raw: &Bytes) -> Result<Value, Value> {
        self.call("eth_sendRawTransactionSync", json!([raw])).await
    }

    /// Broadcasts a transaction that must be included and succeed.
    pub(crate) async fn settle(&self, raw: &Bytes) -> Value {
        let receipt = self
            .submit(raw)
            .await
            .unwrap_or_else(|error| panic!("refused: {error}"));
        assert_eq!(receipt["status"], "0x1", "{receipt}");
        receipt
    }
}

pub(crate) fn account(index: usize) -> (Address, PrivateKeySigner) {
    dev_account(index).unwrap()
}

pub(crate) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

pub(crate) fn number(value: &Value) -> u64 {
    let text = value
        .as_str()
        .unwrap_or_else(|| panic!("not a quantity: {value}"));
    u64::from_str_radix(text.strip_prefix("0x").unwrap(), 16).unwrap()
}

/// A call of pathUSD.
pub(crate) fn path_usd(call: impl SolCall) -> Call {
    Call {
        to: TxKind::Call(PATH_USD),
        value: U256::ZERO,
        input: call.abi_encode().into(),
    }
}

pub(crate) fn transfer(to: Address, amount: u64) -> Call {
    path_usd(ITIP20::transferCall {
        to,
        amount: U256::from(amount),
    })
}

pub(crate) fn transfer_with_memo(to: Address, amount: u64, memo: B256) -> Call {
    path_usd(ITIP20::transferWithMemoCall {
        to,
        amount: U256::from(amount),
        memo,
    })
}

/// More than anyone has.
pub(crate) fn transfer_too_much(to: Address) -> Call {
    path_usd(ITIP20::transferCall {
        to,
        amount: U256::from(1) << 100,
    })
}

pub(crate) fn sign(tx: TempoTransaction, signer: &PrivateKeySigner) -> Bytes {
    let signature = signer.sign_hash_sync(&tx.signature_hash()).unwrap();
    let signature = TempoSignature::Primitive(PrimitiveSignature::Secp256k1(signature));
    tx.into_signed(signature).encoded_2718().into()
}

/// Signed by the sender without a word on fees, then by a sponsor who names the token.
pub(crate) fn sign_sponsored(
    mut tx: TempoTransaction,
    sender: &PrivateKeySigner,
    sponsor: &PrivateKeySigner,
) -> Bytes {
    tx.fee_token = None;
    tx.fee_payer_signature = Some(FEE_PAYER_SIGNATURE_MARKER);
    let signature = sender.sign_hash_sync(&tx.signature_hash()).unwrap();
    tx.fee_token = Some(ALPHA_USD);
    let hash = tx.fee_payer_signature_hash(sender.address());
    tx.fee_payer_signature = Some(sponsor.sign_hash_sync(&hash).unwrap());
    let signature = TempoSignature::Primitive(PrimitiveSignature::Secp256k1(signature));
    tx.into_signed(signature).encoded_2718().into()
}
