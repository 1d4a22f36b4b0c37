//! What a channel does: open, top up, settle, close, request to close, withdraw.

use std::time::Duration;

use alloy::primitives::{Address, B256, U256, keccak256};
use farebox_sandbox_tempo::{ALPHA_USD, ChainConfig, PATH_USD};
use serde_json::json;
use tempo_contracts::precompiles::{
    ITIP20ChannelReserve::{
        CLOSE_GRACE_PERIODCall, ChannelClosed, ChannelOpened, CloseNotReady, CloseRequestCancelled,
        CloseRequested, Settled, TopUp, computeChannelIdCall, getChannelCall,
        getChannelStatesBatchCall, storageCreditsCall,
    },
    TIP20_CHANNEL_RESERVE_ADDRESS as RESERVE,
};

use crate::{kit::*, peer::*};

#[tokio::test(flavor = "multi_thread")]
async fn a_deposit_is_locked_without_an_approval() {
    let peer = Peer::sandbox().await;
    let before = balances(&peer).await;
    let channel = Channel::open(&peer, 5_000).await;
    let after = channel.balances().await;
    assert_eq!(before[0] - after[0], U256::from(5_000));
    assert_eq!(after[2] - before[2], U256::from(5_000));
    let state = channel.state().await;
    assert_eq!(
        (state.settled, state.deposit, state.closeRequestedAt),
        (amount(0), amount(5_000), 0)
    );
    let descriptor = channel.descriptor.clone();
    let whole = peer.view(RESERVE, getChannelCall { descriptor }).await;
    assert_eq!((whole.descriptor, whole.state), (channel.descriptor, state));
}

/// The id hashes the transaction that opened the channel: what its sender signed, and the sender.
#[tokio::test(flavor = "multi_thread")]
async fn the_id_names_the_transaction_that_opened_it() {
    let peer = Peer::sandbox().await;
    let (payer, key) = account(PAYER);
    let tx = peer.transaction(vec![reserve(&terms(1))]).await;
    let signed = sign(tx.clone(), &key);
    let mut said = Vec::new();
    alloy::consensus::SignableTransaction::encode_for_signing(&tx, &mut said);
    said.extend(payer);
    let opened: ChannelOpened = event(&peer.settle(&signed).await);
    assert_eq!(opened.expiringNonceHash, keccak256(said));
    let call = computeChannelIdCall {
        payer,
        payee: opened.payee,
        operator: opened.operator,
        token: opened.token,
        salt: opened.salt,
        authorizedSigner: opened.authorizedSigner,
        expiringNonceHash: opened.expiringNonceHash,
    };
    assert_eq!(peer.view(RESERVE, call).await, opened.channelId);
}

/// Whoever pays the fee, in whatever token, the payer knew the channel's id when it signed.
#[tokio::test(flavor = "multi_thread")]
async fn a_sponsor_does_not_change_the_id() {
    let peer = Peer::sandbox().await;
    let (payer, key) = account(PAYER);
    let tx = peer.transaction(vec![reserve(&terms(1))]).await;
    let mut unsponsored = tx.clone();
    unsponsored.fee_token = None;
    unsponsored.fee_payer_signature =
        Some(tempo_primitives::transaction::FEE_PAYER_SIGNATURE_MARKER);
    let mut said = Vec::new();
    alloy::consensus::SignableTransaction::encode_for_signing(&unsponsored, &mut said);
    said.extend(payer);
    let fees = peer.balance(ALPHA_USD, payer).await;
    let receipt = peer
        .settle(&sign_sponsored(tx, &key, &account(STRANGER).1))
        .await;
    let opened: ChannelOpened = event(&receipt);
    assert_eq!(opened.expiringNonceHash, keccak256(said));
    assert_eq!(
        peer.balance(ALPHA_USD, payer).await,
        fees,
        "the payer pays no fee"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_terms_twice_are_two_channels() {
    let peer = Peer::sandbox().await;
    let terms = terms(7);
    let (one, other) = (
        Channel::open_as(&peer, &terms).await,
        Channel::open_as(&peer, &terms).await,
    );
    assert_ne!(one.id, other.id);
    let call = getChannelStatesBatchCall {
        channelIds: vec![one.id, B256::ZERO, other.id],
    };
    let deposits: Vec<_> = peer
        .view(RESERVE, call)
        .await
        .iter()
        .map(|state| state.deposit)
        .collect();
    assert_eq!(deposits, [amount(7), amount(0), amount(7)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn settling_pays_the_difference() {
    let peer = Peer::sandbox().await;
    let channel = Channel::open(&peer, 10_000).await;
    let before = channel.balances().await;
    channel.send(PAYEE, &channel.settle_call(1_000).await).await;
    let receipt = channel.send(PAYEE, &channel.settle_call(2_500).await).await;
    let settled: Settled = event(&receipt);
    assert_eq!(settled.channelId, channel.id);
    assert_eq!(
        (
            settled.cumulativeAmount,
            settled.deltaPaid,
            settled.newSettled
        ),
        (amount(2_500), amount(1_500), amount(2_500))
    );
    let after = channel.balances().await;
    assert_eq!(after[1] - before[1], U256::from(2_500));
    assert_eq!(before[2] - after[2], U256::from(2_500));
    assert_eq!(channel.state().await.settled, amount(2_500));
}

/// An operator brings the vouchers; the money is the payee's all the same.
#[tokio::test(flavor = "multi_thread")]
async fn an_operator_settles_and_closes_for_the_payee() {
    let peer = Peer::sandbox().await;
    let mut terms = terms(1_000);
    terms.operator = account(OPERATOR).0;
    let channel = Channel::open_as(&peer, &terms).await;
    let before = channel.balances().await;
    channel
        .send(OPERATOR, &channel.settle_call(300).await)
        .await;
    channel
        .send(OPERATOR, &channel.close_call(400, 400).await)
        .await;
    let after = channel.balances().await;
    assert_eq!(after[1] - before[1], U256::from(400));
    assert_eq!(after[0] - before[0], U256::from(600));
}

/// A key of its own signs the vouchers when the channel names one.
#[tokio::test(flavor = "multi_thread")]
async fn an_authorized_signer_signs_instead_of_the_payer() {
    let peer = Peer::sandbox().await;
    let (address, key) = account(STRANGER);
    let mut terms = terms(1_000);
    terms.authorizedSigner = address;
    let channel = Channel::open_as(&peer, &terms).await;
    let mut call = channel.settle_call(10).await;
    channel
        .refused::<tempo_contracts::precompiles::ITIP20ChannelReserve::InvalidSignature>(
            PAYEE, &call,
        )
        .await;
    call.signature = channel.voucher(10, &key).await;
    channel.send(PAYEE, &call).await;
}

/// Captured and refunded are the deposit, and the channel is no more.
#[tokio::test(flavor = "multi_thread")]
async fn closing_pays_out_the_whole_deposit() {
    let peer = Peer::sandbox().await;
    let before = balances(&peer).await;
    let channel = Channel::open(&peer, 10_000).await;
    channel.send(PAYEE, &channel.settle_call(2_000).await).await;
    // The voucher allows more than was consumed.
    let receipt = channel
        .send(PAYEE, &channel.close_call(5_000, 3_000).await)
        .await;
    let closed: ChannelClosed = event(&receipt);
    assert_eq!(
        (closed.settledToPayee, closed.refundedToPayer),
        (amount(3_000), amount(7_000))
    );
    let after = channel.balances().await;
    assert_eq!(before[0] - after[0], U256::from(3_000));
    assert_eq!(after[1] - before[1], U256::from(3_000));
    assert_eq!(after[2], before[2]);
    let state = channel.state().await;
    assert_eq!((state.deposit, state.settled), (amount(0), amount(0)));
}

/// What was settled was proven then: to give back the rest no voucher is needed.
#[tokio::test(flavor = "multi_thread")]
async fn closing_at_what_is_settled_needs_no_voucher() {
    let peer = Peer::sandbox().await;
    for settled in [0, 40] {
        let channel = Channel::open(&peer, 100).await;
        if settled > 0 {
            channel
                .send(PAYEE, &channel.settle_call(settled).await)
                .await;
        }
        let mut call = channel.close_call(settled, settled).await;
        call.signature = Default::default();
        let closed: ChannelClosed = event(&channel.send(PAYEE, &call).await);
        assert_eq!(closed.refundedToPayer, amount(100 - settled));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_top_up_adds_and_cancels_the_request_to_close() {
    let peer = Peer::sandbox().await;
    let channel = Channel::open(&peer, 100).await;
    let requested: CloseRequested =
        event(&channel.send(PAYER, &channel.request_close_call()).await);
    let since = channel.state().await.closeRequestedAt;
    assert_eq!(requested.closeGraceEnd, U256::from(since) + U256::from(900));
    // A second request does not move the first.
    let again = channel.send(PAYER, &channel.request_close_call()).await;
    assert!(events::<CloseRequested>(&again).is_empty());
    let receipt = channel.send(PAYER, &channel.top_up_call(50)).await;
    assert_eq!(
        event::<CloseRequestCancelled>(&receipt).channelId,
        channel.id
    );
    let top_up: TopUp = event(&receipt);
    assert_eq!(
        (top_up.additionalDeposit, top_up.newDeposit),
        (amount(50), amount(150))
    );
    assert_eq!(channel.state().await.closeRequestedAt, 0);
    // Nothing to add and nothing to cancel: nothing to tell.
    let receipt = channel.send(PAYER, &channel.top_up_call(0)).await;
    assert!(events::<TopUp>(&receipt).is_empty());
    channel.send(PAYER, &channel.request_close_call()).await;
    let receipt = channel.send(PAYER, &channel.top_up_call(0)).await;
    assert_eq!(event::<TopUp>(&receipt).newDeposit, amount(150));
    assert_eq!(channel.state().await.closeRequestedAt, 0);
}

/// The payer gets its money back without the payee, and not a second early.
#[tokio::test(flavor = "multi_thread")]
async fn the_payer_withdraws_after_the_grace() {
    let peer = Peer::sandbox().await;
    assert_eq!(peer.view(RESERVE, CLOSE_GRACE_PERIODCall {}).await, 900);
    let before = balances(&peer).await;
    let channel = Channel::open(&peer, 1_000).await;
    channel.send(PAYEE, &channel.settle_call(300).await).await;
    channel.send(PAYER, &channel.request_close_call()).await;
    channel
        .refused::<CloseNotReady>(PAYER, &channel.withdraw_call())
        .await;
    let ahead = peer.quantity("evm_increaseTime", json!([899])).await;
    assert_eq!(ahead, 899);
    // The transaction's own window follows the chain's clock.
    let mut tx = peer
        .transaction(vec![reserve(&channel.withdraw_call())])
        .await;
    tx.valid_before = std::num::NonZeroU64::new(now() + 900 + 25);
    peer.quantity("evm_increaseTime", json!(["0x1"])).await;
    let closed: ChannelClosed = event(&peer.settle(&sign(tx, &account(PAYER).1)).await);
    assert_eq!(
        (closed.settledToPayee, closed.refundedToPayer),
        (amount(300), amount(700))
    );
    let after = channel.balances().await;
    assert_eq!(before[0] - after[0], U256::from(300));
    assert_eq!(after[2], before[2]);
}

/// A chain can be told to have less patience, for tests that sign by the machine's clock.
#[tokio::test(flavor = "multi_thread")]
async fn the_grace_can_be_short() {
    let config = ChainConfig {
        close_grace: Duration::ZERO,
        ..ChainConfig::default()
    };
    let peer = Peer::sandbox_with(config).await;
    let channel = Channel::open(&peer, 1_000).await;
    channel
        .refused::<CloseNotReady>(PAYER, &channel.withdraw_call())
        .await;
    channel.send(PAYER, &channel.request_close_call()).await;
    let receipt = channel.send(PAYER, &channel.withdraw_call()).await;
    assert_eq!(
        event::<ChannelClosed>(&receipt).refundedToPayer,
        amount(1_000)
    );
}

/// The slot of a closed channel is the payer's to use again, and the next open is the cheaper.
#[tokio::test(flavor = "multi_thread")]
async fn a_closed_channel_leaves_a_slot_for_the_next() {
    let peer = Peer::sandbox().await;
    let payer = account(PAYER).0;
    let open = || async {
        let tx = peer.transaction(vec![reserve(&terms(100))]).await;
        let receipt = peer.settle(&sign(tx, &account(PAYER).1)).await;
        number(&receipt["gasUsed"])
    };
    let first = open().await;
    let channel = Channel::open(&peer, 100).await;
    channel.send(PAYEE, &channel.close_call(0, 0).await).await;
    assert_eq!(peer.view(RESERVE, storageCreditsCall { payer }).await, 1);
    assert!(open().await + 200_000 < first);
    assert_eq!(peer.view(RESERVE, storageCreditsCall { payer }).await, 0);
}

/// Clients ask for the gas before they sign, when the transaction has no hash yet.
#[tokio::test(flavor = "multi_thread")]
async fn the_estimate_for_opening_is_enough() {
    let peer = Peer::sandbox().await;
    let (payer, key) = account(PAYER);
    let terms = terms(1);
    let call = reserve(&terms);
    let request = json!([{
        "from": payer, "type": "0x76", "calls": [{ "to": call.to, "input": call.input }],
        "nonceKey": U256::MAX, "validBefore": format!("0x{:x}", now() + 25),
    }]);
    let gas = peer.quantity("eth_estimateGas", request).await;
    let mut tx = peer.transaction(vec![call]).await;
    tx.gas_limit = gas;
    let opened: ChannelOpened = event(&peer.settle(&sign(tx, &key)).await);
    assert_eq!((opened.payer, opened.token), (payer, PATH_USD));
    assert_eq!(opened.operator, Address::ZERO);
}
