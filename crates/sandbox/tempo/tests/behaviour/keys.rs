//! Access keys: what signs for an account besides its own key.

use std::num::NonZeroU64;

use alloy::{
    eips::eip2718::Encodable2718,
    primitives::{Address, Bytes, TxKind, U256},
    signers::{SignerSync, local::PrivateKeySigner},
    sol_types::SolCall,
};
use farebox_sandbox_tempo::{ALPHA_USD, PATH_USD};
use serde_json::{Value, json};
use tempo_contracts::precompiles::{
    ACCOUNT_KEYCHAIN_ADDRESS as KEYCHAIN, IAccountKeychain as Keychain, ITIP20, authorizeKeyCall,
};
use tempo_primitives::{
    TempoSignature, TempoTransaction,
    transaction::{
        Call, KeyAuthorization, KeychainSignature, PrimitiveSignature, SignatureType,
        SignedKeyAuthorization, TokenLimit,
    },
};

use crate::peer::*;

/// Whose keys these are.
const OWNER: usize = 3;
/// Enough for the fees of a few transactions.
const FEES: u64 = 1_000_000;

fn keychain(call: impl SolCall) -> Call {
    Call {
        to: TxKind::Call(KEYCHAIN),
        value: U256::ZERO,
        input: call.abi_encode().into(),
    }
}

/// Up to `amount` of pathUSD, in each `period` if that is not zero, and the fees.
fn limits(amount: u64, period: u64) -> Keychain::KeyRestrictions {
    let limit = |token, amount, period| Keychain::TokenLimit {
        token,
        amount: U256::from(amount),
        period,
    };
    Keychain::KeyRestrictions {
        expiry: now() + 1_000,
        enforceLimits: true,
        limits: vec![limit(PATH_USD, amount, period), limit(ALPHA_USD, FEES, 0)],
        allowAnyCalls: true,
        allowedCalls: Vec::new(),
    }
}

/// Room for the slots that a new key takes.
async fn roomy(peer: &Peer, calls: Vec<Call>) -> TempoTransaction {
    let mut tx = peer.transaction(calls).await;
    tx.gas_limit = 5_000_000;
    tx
}

/// A new key of the owner's.
async fn authorized(peer: &Peer, config: Keychain::KeyRestrictions) -> PrivateKeySigner {
    let key = PrivateKeySigner::random();
    let call = authorizeKeyCall {
        keyId: key.address(),
        signatureType: Keychain::SignatureType::Secp256k1,
        config,
    };
    let tx = roomy(peer, vec![keychain(call)]).await;
    peer.settle(&sign(tx, &account(OWNER).1)).await;
    key
}

/// Signed by a key for the owner.
fn sign_as(tx: TempoTransaction, key: &PrivateKeySigner) -> Bytes {
    let owner = account(OWNER).0;
    let hash = KeychainSignature::signing_hash(tx.signature_hash(), owner);
    let signature = PrimitiveSignature::Secp256k1(key.sign_hash_sync(&hash).unwrap());
    let signature = TempoSignature::Keychain(KeychainSignature::new(owner, signature));
    tx.into_signed(signature).encoded_2718().into()
}

async fn send_as(peer: &Peer, key: &PrivateKeySigner, calls: Vec<Call>) -> Value {
    let raw = sign_as(peer.transaction(calls).await, key);
    peer.submit(&raw).await.unwrap()
}

async fn left(peer: &Peer, key: Address, token: Address) -> u64 {
    let call = Keychain::getRemainingLimitWithPeriodCall {
        account: account(OWNER).0,
        keyId: key,
        token,
    };
    peer.view(KEYCHAIN, call).await.remaining.to()
}

pub(crate) async fn a_key_spends_within_its_limits(peer: &Peer) {
    let (owner, to) = (account(OWNER).0, account(4).0);
    let key = authorized(peer, limits(100, 0)).await;
    let before = peer.balance(PATH_USD, owner).await;
    let fees = peer.balance(ALPHA_USD, owner).await;
    let receipt = send_as(peer, &key, vec![transfer(to, 60)]).await;
    assert_eq!(receipt["status"], "0x1", "{receipt}");
    assert_eq!(
        receipt["from"],
        json!(owner),
        "the account's, not the key's"
    );
    assert_eq!(before - peer.balance(PATH_USD, owner).await, U256::from(60));
    assert_eq!(left(peer, key.address(), PATH_USD).await, 40);
    let paid = fees - peer.balance(ALPHA_USD, owner).await;
    assert_eq!(
        left(peer, key.address(), ALPHA_USD).await,
        FEES - paid.to::<u64>(),
        "a fee is spent too, and no more than it came to"
    );
    let receipt = send_as(peer, &key, vec![transfer(to, 41)]).await;
    assert_eq!(receipt["status"], "0x0", "{receipt}");
    assert_eq!(left(peer, key.address(), PATH_USD).await, 40);
    let approve = |amount: u64| {
        path_usd(ITIP20::approveCall {
            spender: to,
            amount: U256::from(amount),
        })
    };
    let receipt = send_as(peer, &key, vec![approve(41)]).await;
    assert_eq!(receipt["status"], "0x0", "an allowance is spent: {receipt}");
}

pub(crate) async fn a_limit_comes_back_with_its_period(peer: &Peer) {
    let to = account(4).0;
    let key = authorized(peer, limits(100, 2)).await;
    let receipt = send_as(peer, &key, vec![transfer(to, 100)]).await;
    assert_eq!(receipt["status"], "0x1", "{receipt}");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while left(peer, key.address(), PATH_USD).await < 100 {
        assert!(std::time::Instant::now() < deadline, "no new period");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let receipt = send_as(peer, &key, vec![transfer(to, 70)]).await;
    assert_eq!(receipt["status"], "0x1", "{receipt}");
}

/// The key and its first payment in one transaction; the key stays even if the payment fails.
pub(crate) async fn a_key_comes_along_with_its_first_payment(peer: &Peer) {
    let (owner, root) = account(OWNER);
    for (call, status) in [
        (transfer(account(4).0, 7), "0x1"),
        (transfer_too_much(account(4).0), "0x0"),
    ] {
        let key = PrivateKeySigner::random();
        let mut tx = roomy(peer, vec![call]).await;
        tx.key_authorization = Some(grant(&key, &root, 1337));
        let receipt = peer.submit(&sign_as(tx, &key)).await.unwrap();
        assert_eq!(receipt["status"], status, "{receipt}");
        let call = Keychain::getKeyCall {
            account: owner,
            keyId: key.address(),
        };
        let known = peer.view(KEYCHAIN, call).await;
        assert_eq!((known.keyId, known.enforceLimits), (key.address(), true));
    }
}

/// Signed by `root` for `key`, with room for fees.
fn grant(key: &PrivateKeySigner, root: &PrivateKeySigner, chain: u64) -> SignedKeyAuthorization {
    let limit = |token, amount| TokenLimit {
        token,
        limit: U256::from(amount),
        period: 0,
    };
    let said = KeyAuthorization::unrestricted(chain, SignatureType::Secp256k1, key.address())
        .with_expiry(now() + 500)
        .with_limits(vec![limit(PATH_USD, 1_000), limit(ALPHA_USD, FEES)]);
    let signature = root.sign_hash_sync(&said.signature_hash()).unwrap();
    said.into_signed(PrimitiveSignature::Secp256k1(signature))
}

pub(crate) async fn a_key_calls_what_it_may(peer: &Peer) {
    let (friend, other) = (account(4).0, account(5).0);
    let rule = Keychain::SelectorRule {
        selector: ITIP20::transferCall::SELECTOR.into(),
        recipients: vec![friend],
    };
    let scope = Keychain::CallScope {
        target: PATH_USD,
        selectorRules: vec![rule],
    };
    let config = Keychain::KeyRestrictions {
        allowAnyCalls: false,
        allowedCalls: vec![scope.clone()],
        ..limits(1_000, 0)
    };
    let key = authorized(peer, config).await;
    let call = Keychain::getAllowedCallsCall {
        account: account(OWNER).0,
        keyId: key.address(),
    };
    let known = peer.view(KEYCHAIN, call).await;
    assert_eq!((known.isScoped, known.scopes), (true, vec![scope]));
    for (call, status) in [
        (transfer(friend, 1), "0x1"),
        (transfer(other, 1), "0x0"),
        (transfer_with_memo(friend, 1, crate::MEMO), "0x0"),
        (
            Call {
                to: TxKind::Call(ALPHA_USD),
                ..transfer(friend, 1)
            },
            "0x0",
        ),
    ] {
        let receipt = send_as(peer, &key, vec![call]).await;
        assert_eq!(receipt["status"], status, "{receipt}");
    }
}

pub(crate) async fn keys_do_not_manage_keys(peer: &Peer) {
    let (owner, root) = account(OWNER);
    let key = authorized(peer, limits(100, 0)).await;
    let revoke = || {
        keychain(Keychain::revokeKeyCall {
            keyId: key.address(),
        })
    };
    let more = keychain(Keychain::updateSpendingLimitCall {
        keyId: key.address(),
        token: PATH_USD,
        newLimit: U256::from(1_000),
    });
    for call in [revoke(), more.clone()] {
        let receipt = send_as(peer, &key, vec![call]).await;
        assert_eq!(receipt["status"], "0x0", "{receipt}");
    }
    peer.settle(&sign(peer.transaction(vec![more]).await, &root))
        .await;
    assert_eq!(left(peer, key.address(), PATH_USD).await, 1_000);
    peer.settle(&sign(peer.transaction(vec![revoke()]).await, &root))
        .await;
    let call = Keychain::getKeyCall {
        account: owner,
        keyId: key.address(),
    };
    let known = peer.view(KEYCHAIN, call).await;
    assert_eq!((known.keyId, known.isRevoked), (Address::ZERO, true));
    assert_eq!(left(peer, key.address(), PATH_USD).await, 0);
    // Not even by its owner is it added again.
    let again = authorizeKeyCall {
        keyId: key.address(),
        signatureType: Keychain::SignatureType::Secp256k1,
        config: limits(1, 0),
    };
    let tx = roomy(peer, vec![keychain(again)]).await;
    let receipt = peer.submit(&sign(tx, &root)).await.unwrap();
    assert_eq!(receipt["status"], "0x0", "{receipt}");
}

/// What no block will ever take. A node may say so at once, or let it wait in its pool for nothing.
pub(crate) async fn a_key_signs_in_no_other_form(peer: &Peer) {
    if peer.chain.is_none() {
        println!("skipped on anvil: it takes them into its pool and leaves them there");
        return;
    }
    let (owner, root) = account(OWNER);
    let key = authorized(peer, limits(100, 0)).await;
    let stranger = PrivateKeySigner::random();
    let tx = || peer.transaction(vec![transfer(account(4).0, 1)]);
    let mut refused = vec![("unknown", sign_as(tx().await, &stranger))];
    let old = {
        let tx = tx().await;
        let signature = key.sign_hash_sync(&tx.signature_hash()).unwrap();
        let signature = PrimitiveSignature::Secp256k1(signature);
        let signature = KeychainSignature::new_v1(owner, signature);
        tx.into_signed(TempoSignature::Keychain(signature))
            .encoded_2718()
    };
    refused.push(("in the old form", old.into()));
    let mut dear = tx().await;
    dear.max_fee_per_gas = u128::from(FEES) * 10_000_000;
    refused.push(("with a fee above its limit", sign_as(dear, &key)));
    let mut expired = tx().await;
    let mut late = grant(&stranger, &root, 1337).authorization;
    late.expiry = NonZeroU64::new(now() - 1);
    let signature = root.sign_hash_sync(&late.signature_hash()).unwrap();
    expired.key_authorization = Some(late.into_signed(PrimitiveSignature::Secp256k1(signature)));
    expired.gas_limit = 5_000_000;
    refused.push(("expired", sign_as(expired, &stranger)));
    for (which, signer, chain) in [
        ("granted by a stranger", &account(5).1, 1337),
        ("granted elsewhere", &root, 4217),
    ] {
        let mut tx = roomy(peer, vec![transfer(account(4).0, 1)]).await;
        tx.key_authorization = Some(grant(&stranger, signer, chain));
        refused.push((which, sign_as(tx, &stranger)));
    }
    let revoke = keychain(Keychain::revokeKeyCall {
        keyId: key.address(),
    });
    let pending = sign_as(tx().await, &key);
    peer.settle(&sign(peer.transaction(vec![revoke]).await, &root))
        .await;
    refused.push(("revoked", pending));
    for (which, raw) in refused {
        let error = peer.submit(&raw).await.expect_err(which);
        assert_eq!(error["code"], -32003, "{which}: {error}");
    }
}
