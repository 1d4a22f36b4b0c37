//! A channel to play with: its descriptor, its calls, its vouchers.

use std::sync::atomic::{AtomicU64, Ordering};

use alloy::{
    primitives::{Address, B256, Bytes, TxKind, U256, aliases::U96},
    signers::{SignerSync, local::PrivateKeySigner},
    sol_types::{SolCall, SolError, SolEvent},
};
use farebox_sandbox_tempo::PATH_USD;
use serde_json::{Value, json};
use tempo_contracts::precompiles::{
    ITIP20ChannelReserve::{
        ChannelDescriptor, ChannelOpened, ChannelState, closeCall, getChannelStateCall,
        getVoucherDigestCall, openCall, requestCloseCall, settleCall, topUpCall, withdrawCall,
    },
    TIP20_CHANNEL_RESERVE_ADDRESS as RESERVE,
};
use tempo_primitives::transaction::Call;

use crate::peer::*;

/// Development accounts by their part. None pays its fees in pathUSD here.
pub(crate) const PAYER: usize = 3;
pub(crate) const PAYEE: usize = 4;
pub(crate) const STRANGER: usize = 5;
pub(crate) const OPERATOR: usize = 6;

pub(crate) fn amount(value: u64) -> U96 {
    U96::from(value)
}

/// A call of the reserve.
pub(crate) fn reserve(call: &impl SolCall) -> Call {
    Call {
        to: TxKind::Call(RESERVE),
        value: U256::ZERO,
        input: call.abi_encode().into(),
    }
}

/// The terms of a channel to the payee, with a salt of its own.
pub(crate) fn terms(deposit: u64) -> openCall {
    static SALT: AtomicU64 = AtomicU64::new(1);
    openCall {
        payee: account(PAYEE).0,
        operator: Address::ZERO,
        token: PATH_USD,
        deposit: amount(deposit),
        salt: B256::from(U256::from(SALT.fetch_add(1, Ordering::Relaxed))),
        authorizedSigner: Address::ZERO,
    }
}

/// An open channel.
pub(crate) struct Channel<'a> {
    peer: &'a Peer,
    pub(crate) id: B256,
    pub(crate) descriptor: ChannelDescriptor,
}

impl<'a> Channel<'a> {
    /// One of `deposit` base units from the payer to the payee.
    pub(crate) async fn open(peer: &'a Peer, deposit: u64) -> Self {
        Self::open_as(peer, &terms(deposit)).await
    }

    pub(crate) async fn open_as(peer: &'a Peer, terms: &openCall) -> Self {
        let tx = peer.transaction(vec![reserve(terms)]).await;
        let receipt = peer.settle(&sign(tx, &account(PAYER).1)).await;
        let opened: ChannelOpened = event(&receipt);
        assert_eq!(opened.deposit, terms.deposit);
        Self {
            peer,
            id: opened.channelId,
            descriptor: ChannelDescriptor {
                payer: opened.payer,
                payee: opened.payee,
                operator: opened.operator,
                token: opened.token,
                salt: opened.salt,
                authorizedSigner: opened.authorizedSigner,
                expiringNonceHash: opened.expiringNonceHash,
            },
        }
    }

    pub(crate) async fn state(&self) -> ChannelState {
        let call = getChannelStateCall { channelId: self.id };
        self.peer.view(RESERVE, call).await
    }

    pub(crate) async fn digest(&self, cumulative: u64) -> B256 {
        let call = getVoucherDigestCall {
            channelId: self.id,
            cumulativeAmount: amount(cumulative),
        };
        self.peer.view(RESERVE, call).await
    }

    /// A voucher by `signer`.
    pub(crate) async fn voucher(&self, cumulative: u64, signer: &PrivateKeySigner) -> Bytes {
        let digest = self.digest(cumulative).await;
        let signature = signer.sign_hash_sync(&digest).unwrap();
        signature.as_bytes().to_vec().into()
    }

    /// Cashes a voucher of the payer.
    pub(crate) async fn settle_call(&self, cumulative: u64) -> settleCall {
        settleCall {
            descriptor: self.descriptor.clone(),
            cumulativeAmount: amount(cumulative),
            signature: self.voucher(cumulative, &account(PAYER).1).await,
        }
    }

    /// Closes with a voucher of the payer, of which `capture` is taken.
    pub(crate) async fn close_call(&self, cumulative: u64, capture: u64) -> closeCall {
        closeCall {
            descriptor: self.descriptor.clone(),
            cumulativeAmount: amount(cumulative),
            captureAmount: amount(capture),
            signature: self.voucher(cumulative, &account(PAYER).1).await,
        }
    }

    pub(crate) fn top_up_call(&self, additional: u64) -> topUpCall {
        topUpCall {
            descriptor: self.descriptor.clone(),
            additionalDeposit: amount(additional),
        }
    }

    pub(crate) fn request_close_call(&self) -> requestCloseCall {
        requestCloseCall {
            descriptor: self.descriptor.clone(),
        }
    }

    pub(crate) fn withdraw_call(&self) -> withdrawCall {
        withdrawCall {
            descriptor: self.descriptor.clone(),
        }
    }

    /// Sends a call from an account; it must succeed.
    pub(crate) async fn send(&self, from: usize, call: &impl SolCall) -> Value {
        let tx = self.peer.transaction(vec![reserve(call)]).await;
        self.peer.settle(&sign(tx, &account(from).1)).await
    }

    /// Tries a call from an account, simulated and then for real: it must revert with `E`.
    pub(crate) async fn refused<E: SolError>(&self, from: usize, call: &impl SolCall) {
        refused::<E>(self.peer, from, vec![reserve(call)]).await;
    }

    /// Payer, payee and reserve, in pathUSD.
    pub(crate) async fn balances(&self) -> [U256; 3] {
        balances(self.peer).await
    }
}

pub(crate) async fn balances(peer: &Peer) -> [U256; 3] {
    let mut all = [U256::ZERO; 3];
    let owners = [account(PAYER).0, account(PAYEE).0, RESERVE];
    for (balance, owner) in all.iter_mut().zip(owners) {
        *balance = peer.balance(PATH_USD, owner).await;
    }
    all
}

/// Sends calls that must revert with `E`: the simulation says so, and the chain includes a failure
/// that moves nothing.
pub(crate) async fn refused<E: SolError>(peer: &Peer, from: usize, calls: Vec<Call>) {
    let (address, key) = account(from);
    let before = balances(peer).await;
    let request: Vec<_> = calls
        .iter()
        .map(|call| json!({ "to": call.to, "input": call.input }))
        .collect();
    let error = peer
        .call(
            "eth_call",
            json!([{ "from": address, "calls": request }, "latest"]),
        )
        .await
        .expect_err("the call succeeds in simulation");
    let selector = format!("0x{}", alloy::hex::encode(E::SELECTOR));
    assert!(
        error["data"].as_str().unwrap().starts_with(&selector),
        "not {}: {error}",
        E::SIGNATURE
    );
    let tx = peer.transaction(calls).await;
    let receipt = peer.submit(&sign(tx, &key)).await.unwrap();
    assert_eq!(receipt["status"], "0x0", "it succeeds for real: {receipt}");
    assert_eq!(balances(peer).await, before, "a refused call moved money");
}

/// The one event `E` the reserve logged.
pub(crate) fn event<E: SolEvent>(receipt: &Value) -> E {
    let mut found = events::<E>(receipt);
    assert_eq!(found.len(), 1, "{} in {receipt}", E::SIGNATURE);
    found.pop().unwrap()
}

pub(crate) fn events<E: SolEvent>(receipt: &Value) -> Vec<E> {
    let logs = receipt["logs"].as_array().unwrap();
    logs.iter()
        .filter(|log| log["address"] == json!(RESERVE))
        .filter_map(|log| {
            let topics: Vec<B256> = serde_json::from_value(log["topics"].clone()).unwrap();
            let data: Bytes = serde_json::from_value(log["data"].clone()).unwrap();
            (topics.first() == Some(&E::SIGNATURE_HASH))
                .then(|| E::decode_raw_log(topics, &data).unwrap())
        })
        .collect()
}
