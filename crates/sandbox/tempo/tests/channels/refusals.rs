//! What a channel refuses, by the error the chain has for it.

use alloy::{
    primitives::{Address, B256, Signature, U256, aliases::U96},
    signers::SignerSync,
};
use farebox_sandbox_tempo::PATH_USD;
use tempo_contracts::precompiles::{
    ITIP20, ITIP20ChannelReserve as Reserve, TIP20_CHANNEL_RESERVE_ADDRESS as RESERVE,
    UnknownFunctionSelector,
};
use tempo_primitives::{
    TempoAddressExt, TempoSignature,
    transaction::{Call, KeychainSignature, PrimitiveSignature},
};

use crate::{kit::*, peer::*};

#[tokio::test(flavor = "multi_thread")]
async fn terms_that_make_no_sense() {
    let peer = Peer::sandbox().await;
    for payee in [Address::ZERO, PATH_USD] {
        let mut terms = terms(1);
        terms.payee = payee;
        refused::<Reserve::InvalidPayee>(&peer, PAYER, vec![reserve(&terms)]).await;
    }
    refused::<Reserve::ZeroDeposit>(&peer, PAYER, vec![reserve(&terms(0))]).await;
    let mut no_token = terms(1);
    no_token.token = account(STRANGER).0;
    refused::<ITIP20::InvalidToken>(&peer, PAYER, vec![reserve(&no_token)]).await;
    let mut unknown_token = terms(1);
    unknown_token.token = Address::with_last_byte(9) | PATH_USD;
    refused::<ITIP20::Uninitialized>(&peer, PAYER, vec![reserve(&unknown_token)]).await;
    let mut too_much = terms(1);
    too_much.deposit = U96::MAX;
    refused::<ITIP20::InsufficientBalance>(&peer, PAYER, vec![reserve(&too_much)]).await;
}

/// A virtual address cannot call: somebody who can must be able to settle for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_virtual_payee_without_an_operator() {
    let peer = Peer::sandbox().await;
    let mut terms = terms(1);
    terms.payee = Address::new_virtual([1; 4].into(), [2; 6].into());
    for operator in [Address::ZERO, terms.payee] {
        terms.operator = operator;
        refused::<Reserve::InvalidPayee>(&peer, PAYER, vec![reserve(&terms)]).await;
    }
    terms.operator = account(OPERATOR).0;
    let channel = Channel::open_as(&peer, &terms).await;
    channel
        .send(OPERATOR, &channel.close_call(1, 1).await)
        .await;
}

/// One transaction, one channel to a salt, even if it closes it in between.
#[tokio::test(flavor = "multi_thread")]
async fn the_same_salt_twice_in_one_transaction() {
    let peer = Peer::sandbox().await;
    let terms = terms(1);
    let calls = vec![reserve(&terms), reserve(&terms)];
    refused::<Reserve::ChannelAlreadyExists>(&peer, PAYER, calls).await;
    let mut other = terms.clone();
    other.salt = U256::MAX.into();
    let tx = peer
        .transaction(vec![reserve(&terms), reserve(&other)])
        .await;
    let receipt = peer.settle(&sign(tx, &account(PAYER).1)).await;
    assert_eq!(events::<Reserve::ChannelOpened>(&receipt).len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_that_is_not() {
    let peer = Peer::sandbox().await;
    let mut channel = Channel::open(&peer, 100).await;
    channel.descriptor.salt = U256::MAX.into();
    channel
        .refused::<Reserve::ChannelNotFound>(PAYER, &channel.top_up_call(1))
        .await;
    channel
        .refused::<Reserve::ChannelNotFound>(PAYEE, &channel.settle_call(1).await)
        .await;
    channel
        .refused::<Reserve::ChannelNotFound>(PAYEE, &channel.close_call(1, 1).await)
        .await;
    channel
        .refused::<Reserve::ChannelNotFound>(PAYER, &channel.request_close_call())
        .await;
    channel
        .refused::<Reserve::ChannelNotFound>(PAYER, &channel.withdraw_call())
        .await;
}

/// After the end nothing of it can be used again.
#[tokio::test(flavor = "multi_thread")]
async fn a_channel_that_was() {
    let peer = Peer::sandbox().await;
    let channel = Channel::open(&peer, 100).await;
    let (voucher, close) = (
        channel.settle_call(10).await,
        channel.close_call(10, 10).await,
    );
    channel.send(PAYEE, &close).await;
    channel
        .refused::<Reserve::ChannelNotFound>(PAYEE, &voucher)
        .await;
    channel
        .refused::<Reserve::ChannelNotFound>(PAYEE, &close)
        .await;
    channel
        .refused::<Reserve::ChannelNotFound>(PAYER, &channel.top_up_call(1))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn those_it_is_not_theirs() {
    let peer = Peer::sandbox().await;
    let channel = Channel::open(&peer, 100).await;
    for other in [PAYER, STRANGER] {
        channel
            .refused::<Reserve::NotPayeeOrOperator>(other, &channel.settle_call(1).await)
            .await;
        channel
            .refused::<Reserve::NotPayeeOrOperator>(other, &channel.close_call(1, 1).await)
            .await;
    }
    for other in [PAYEE, STRANGER] {
        channel
            .refused::<Reserve::NotPayer>(other, &channel.top_up_call(1))
            .await;
        channel
            .refused::<Reserve::NotPayer>(other, &channel.request_close_call())
            .await;
        channel
            .refused::<Reserve::NotPayer>(other, &channel.withdraw_call())
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn amounts_out_of_bounds() {
    let peer = Peer::sandbox().await;
    let channel = Channel::open(&peer, 100).await;
    channel
        .refused::<Reserve::AmountExceedsDeposit>(PAYEE, &channel.settle_call(101).await)
        .await;
    channel
        .refused::<Reserve::AmountNotIncreasing>(PAYEE, &channel.settle_call(0).await)
        .await;
    channel.send(PAYEE, &channel.settle_call(50).await).await;
    for no_more in [49, 50] {
        channel
            .refused::<Reserve::AmountNotIncreasing>(PAYEE, &channel.settle_call(no_more).await)
            .await;
    }
    // Below what is settled; above what is signed.
    for (cumulative, capture) in [(60, 49), (60, 61)] {
        let call = channel.close_call(cumulative, capture).await;
        channel
            .refused::<Reserve::CaptureAmountInvalid>(PAYEE, &call)
            .await;
    }
    channel
        .refused::<Reserve::AmountExceedsDeposit>(PAYEE, &channel.close_call(101, 101).await)
        .await;
    let mut overflow = channel.top_up_call(0);
    overflow.additionalDeposit = U96::MAX;
    channel
        .refused::<Reserve::DepositOverflow>(PAYER, &overflow)
        .await;
}

/// A voucher of more than the deposit still closes for less, as long as it is the payer's.
#[tokio::test(flavor = "multi_thread")]
async fn a_voucher_above_the_deposit_captures_within_it() {
    let peer = Peer::sandbox().await;
    let channel = Channel::open(&peer, 100).await;
    let receipt = channel
        .send(PAYEE, &channel.close_call(1_000, 100).await)
        .await;
    let closed: Reserve::ChannelClosed = event(&receipt);
    assert_eq!(closed.settledToPayee, amount(100));
}

/// Signatures of somebody else, of something else, or bent.
#[tokio::test(flavor = "multi_thread")]
async fn signatures_that_are_not_the_payers() {
    let peer = Peer::sandbox().await;
    let channel = Channel::open(&peer, 100).await;
    let other = Channel::open(&peer, 100).await;
    let key = account(PAYER).1;
    let digest = channel.digest(10).await;
    let good = key.sign_hash_sync(&digest).unwrap();
    let order = uint("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141");
    let mirrored = Signature::new(good.r(), order - good.s(), !good.v());
    let keychain = KeychainSignature::new(account(PAYER).0, PrimitiveSignature::Secp256k1(good));
    let mut longer = good.as_bytes().to_vec();
    longer.push(0);
    let elsewhere = |chain_id, contract| {
        let signature = key.sign_hash_sync(&eip712(chain_id, contract, channel.id, 10));
        signature.unwrap().as_bytes().to_vec().into()
    };
    assert_eq!(digest, eip712(1337, RESERVE, channel.id, 10));
    let bad = [
        ("for another chain", elsewhere(4217, RESERVE)),
        ("for another contract", elsewhere(1337, PATH_USD)),
        (
            "a stranger's",
            channel.voucher(10, &account(STRANGER).1).await,
        ),
        ("of another amount", channel.voucher(11, &key).await),
        ("of another channel", other.voucher(10, &key).await),
        ("with a high s", mirrored.as_bytes().to_vec().into()),
        (
            "in a keychain envelope",
            TempoSignature::Keychain(keychain).to_bytes(),
        ),
        ("with a byte more", longer.into()),
        ("with a byte less", good.as_bytes()[..64].to_vec().into()),
        ("empty", Default::default()),
    ];
    for (which, signature) in bad {
        println!("{which}");
        let mut call = channel.settle_call(10).await;
        call.signature = signature.clone();
        channel
            .refused::<Reserve::InvalidSignature>(PAYEE, &call)
            .await;
        let mut call = channel.close_call(10, 10).await;
        call.signature = signature;
        channel
            .refused::<Reserve::InvalidSignature>(PAYEE, &call)
            .await;
    }
}

/// The digest by the standard's own rules.
fn eip712(chain_id: u64, contract: Address, channel: B256, cumulative: u64) -> B256 {
    alloy::sol_types::sol! {
        #![sol(alloy_sol_types = alloy::sol_types)]
        struct Voucher {
            bytes32 channelId;
            uint96 cumulativeAmount;
        }
    }
    let domain = alloy::sol_types::eip712_domain! {
        name: "TIP20 Channel Reserve",
        version: "1",
        chain_id: chain_id,
        verifying_contract: contract,
    };
    let voucher = Voucher {
        channelId: channel,
        cumulativeAmount: amount(cumulative),
    };
    alloy::sol_types::SolStruct::eip712_signing_hash(&voucher, &domain)
}

fn uint(hex: &str) -> U256 {
    U256::from_str_radix(hex, 16).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_it_does_not_have() {
    let peer = Peer::sandbox().await;
    let call = Call {
        input: alloy::primitives::bytes!("deadbeef"),
        ..reserve(&terms(1))
    };
    refused::<UnknownFunctionSelector>(&peer, PAYER, vec![call]).await;
}
