//! Access keys: keys that an account lets sign for it, within limits.

use std::sync::Arc;

use alloy::{
    primitives::{Address, B256, Bytes, TxKind, U256, hex},
    rlp::Encodable,
    signers::Signer as _,
    sol_types::SolCall,
};
use farebox_core::{Payer, Refusal, SecretSource, TypedPayer, prelude::*};
use farebox_sandbox_tempo::{Chain, ChainConfig, Fault};
use farebox_tempo::{
    KeySigner, PrimitiveSignature, SignatureType, SignedKeyAuthorization, TempoWallet, WalletConfig,
};
use farebox_wire::Payload;
use p256::ecdsa::{SigningKey, signature::hazmat::PrehashSigner};
use serde_json::json;
use tempo_contracts::precompiles::{ACCOUNT_KEYCHAIN_ADDRESS, IAccountKeychain, ITIP20};
use tempo_primitives::transaction::{
    Call, CallScope, KeyAuthorization, SelectorRule, TokenLimit, derive_p256_address,
    tt_signature::P256SignatureWithPreHash,
};

use crate::{
    net::{
        Credential, Net, RECIPIENT, RICH, TOKEN, broadcast, detail, key, now, paying, reference,
        sign,
    },
    suite::give,
};

/// A secret nobody else uses.
fn secret(number: u8) -> String {
    hex::encode([number; 32])
}

fn address(secret: &str) -> Address {
    key(secret).address()
}

/// What `holder` signs so that `access` is its key.
async fn grant(
    holder: &str,
    access: Address,
    change: impl Fn(KeyAuthorization) -> KeyAuthorization,
) -> SignedKeyAuthorization {
    let grant = KeyAuthorization::unrestricted(1337, SignatureType::Secp256k1, access);
    let grant = change(grant);
    let signature = key(holder)
        .sign_hash(&grant.signature_hash())
        .await
        .unwrap();
    grant.into_signed(PrimitiveSignature::Secp256k1(signature))
}

fn limited(amount: u64) -> impl Fn(KeyAuthorization) -> KeyAuthorization {
    move |grant| {
        grant.with_expiry(now() + 600).with_limits(vec![TokenLimit {
            token: TOKEN,
            limit: U256::from(amount),
            period: 0,
        }])
    }
}

fn wallet(
    net: &Net,
    access: &str,
    account: Address,
    grant: Option<SignedKeyAuthorization>,
) -> Arc<dyn Payer> {
    let encoded = |grant: SignedKeyAuthorization| {
        let mut rlp = Vec::new();
        grant.encode(&mut rlp);
        hex::encode_prefixed(rlp)
    };
    let config = WalletConfig {
        private_key: Some(SecretSource::Text(Secret::new(access))),
        account: Some(account.to_string()),
        key_authorization: grant.map(encoded),
        rpc_url: Some(net.url.as_str().into()),
        chain_id: Some(1337),
        ..WalletConfig::default()
    };
    Arc::new(TypedPayer::<_, Charge>::new(
        TempoWallet::new(config).unwrap(),
    ))
}

async fn refused(net: &Net, credential: &Credential) -> String {
    detail(net.plan(credential).await.unwrap_err())
}

/// Pays and settles.
async fn paid(net: &Net, terms: &serde_json::Value, payer: &Arc<dyn Payer>) {
    let challenge = net.challenge_for(terms).await;
    let credential = net.pay_with(challenge, payer.clone()).await.unwrap();
    reference(net.settle(&net.verify(&credential).await.unwrap()).await);
}

pub(crate) async fn all(net: &Net) {
    a_key_pays_within_what_it_was_given(net).await;
    a_stranger_signs_for_nobody(net).await;
    a_key_that_is_no_more_signs_nothing(net).await;
    a_key_pays_whom_it_may(net).await;
    another_curve_signs_too(net).await;
    an_account_may_be_of_another_curve(net).await;
}

/// Protects: the account pays, the key's authorisation rides once, and a limit is seen before
/// anything is sent.
async fn a_key_pays_within_what_it_was_given(net: &Net) {
    let (holder, access) = (secret(0x51), secret(0x52));
    let account = address(&holder);
    give(net, &holder, 5_000_000).await;
    let grant = grant(&holder, address(&access), limited(300_000)).await;
    let payer = wallet(net, &access, account, Some(grant.clone()));
    let (before, terms) = (net.balance(RECIPIENT).await, json!({ "amount": "0.01" }));
    paid(net, &terms, &payer).await;
    paid(net, &terms, &payer).await;
    assert_eq!(net.balance(RECIPIENT).await, before + U256::from(20_000));
    assert!(
        net.balance(account).await < U256::from(4_980_000),
        "and the fee"
    );
    // In push mode too, and by a wallet that does not know that the chain knows.
    let push = json!({ "amount": "0.01", "modes": ["push"] });
    let again = wallet(net, &access, account, Some(grant));
    let credential = net.pay_with(net.challenge_for(&push).await, again.clone());
    drop(net.plan(&credential.await.unwrap()).await.unwrap());
    // What the key may not spend is not sent.
    let challenge = net.challenge("0.4").await;
    let mut tx = paying(&challenge, 400_000);
    tx.gas_limit = 1_000_000;
    let raw = sign_with(tx, &access, account).await;
    let text = refused(net, &credential_of(&challenge, &raw)).await;
    assert!(text.contains("raise its limit"), "{text}");
    // It proves the account.
    let credential = net.pay_with(net.challenge("0").await, again).await.unwrap();
    assert!(
        credential
            .source
            .as_deref()
            .unwrap()
            .contains(&account.to_string())
    );
    drop(net.plan(&credential).await.unwrap());
}

fn credential_of(challenge: &Challenge, raw: &[u8]) -> Credential {
    Credential {
        challenge: challenge.clone(),
        payload: crate::net::transaction(raw),
        source: None,
    }
}

/// As an access key of `account` signs, whether it is one or not.
async fn sign_with(
    tx: tempo_primitives::TempoTransaction,
    access: &str,
    account: Address,
) -> Vec<u8> {
    use tempo_primitives::transaction::{KeychainSignature, TempoSignature};
    let hash = KeychainSignature::signing_hash(tx.signature_hash(), account);
    let inner = key(access).sign_hash(&hash).await.unwrap();
    let inner = PrimitiveSignature::Secp256k1(inner);
    let mut raw = Vec::new();
    tx.into_signed(TempoSignature::Keychain(KeychainSignature::new(
        account, inner,
    )))
    .eip2718_encode(&mut raw);
    raw
}

/// Protects: nobody occupies a settlement, spends, or proves in the name of an account that did not
/// let him.
async fn a_stranger_signs_for_nobody(net: &Net) {
    let (stranger, rich) = (secret(0x53), address(RICH));
    let challenge = net.challenge("0.01").await;
    let raw = sign_with(paying(&challenge, 10_000), &stranger, rich).await;
    let text = refused(net, &credential_of(&challenge, &raw)).await;
    assert!(text.contains("none of the account's access keys"), "{text}");
    // Nor by an authorisation that is not the account's.
    let own = grant(&stranger, address(&stranger), |grant| grant).await;
    let mut tx = paying(&challenge, 10_000);
    tx.key_authorization = Some(own);
    let raw = sign_with(tx, &stranger, rich).await;
    let text = refused(net, &credential_of(&challenge, &raw)).await;
    assert!(
        text.contains("not signed by the account's own key"),
        "{text}"
    );
    // Or that is for another key, chain, or not enough.
    let account = secret(0x54);
    type Change = fn(KeyAuthorization) -> KeyAuthorization;
    let cases: [(Change, &str); 5] = [
        (
            |grant| KeyAuthorization {
                key_id: RECIPIENT,
                ..grant
            },
            "another key",
        ),
        (
            |grant| KeyAuthorization {
                chain_id: 1,
                ..grant
            },
            "another chain",
        ),
        (|grant| grant.with_expiry(now() + 1), "expired"),
        (KeyAuthorization::with_no_spending, "may spend 0 more"),
        (KeyAuthorization::with_no_calls, "scopes do not cover"),
    ];
    for (change, says) in cases {
        let mut tx = paying(&challenge, 10_000);
        tx.key_authorization = Some(grant(&account, address(&stranger), change).await);
        let raw = sign_with(tx, &stranger, address(&account)).await;
        let text = refused(net, &credential_of(&challenge, &raw)).await;
        assert!(text.contains(says), "{says}: {text}");
    }
    let mut tx = paying(&challenge, 10_000);
    tx.key_authorization = Some(grant(RICH, address(&stranger), |grant| grant).await);
    let text = refused(net, &credential_of(&challenge, &sign(tx, RICH).await)).await;
    assert!(text.contains("not signed with"), "{text}");

    let challenge = net.challenge("0").await;
    let proof = net
        .pay_with(challenge, wallet(net, &stranger, rich, None))
        .await
        .unwrap();
    let text = refused(net, &proof).await;
    assert!(text.contains("nor one of its access keys"), "{text}");
    let other = Credential {
        source: Some(format!("did:pkh:eip155:1337:{RECIPIENT}")),
        ..proof
    };
    let text = refused(net, &other).await;
    assert!(text.contains("another account"), "{text}");
    let nonsense = json!({ "type": "proof", "signature": "0x01" });
    let odd = Credential {
        payload: Payload::from_value(&nonsense).unwrap(),
        ..other
    };
    let text = refused(net, &odd).await;
    assert!(text.contains("no form"), "{text}");
}

/// Calls the keychain as `holder`.
async fn keychain(net: &Net, holder: &str, call: impl SolCall) {
    let mut tx = paying(&net.challenge("0").await, 0);
    tx.gas_limit = 5_000_000;
    tx.calls = vec![Call {
        to: TxKind::Call(ACCOUNT_KEYCHAIN_ADDRESS),
        value: U256::ZERO,
        input: Bytes::from(call.abi_encode()),
    }];
    let raw = Bytes::from(sign(tx, holder).await);
    let receipt = net.rpc("eth_sendRawTransactionSync", json!([raw])).await;
    assert_eq!(receipt["status"], "0x1", "{receipt}");
}

/// Protects: a key that was taken back or has run out pays and proves nothing.
async fn a_key_that_is_no_more_signs_nothing(net: &Net) {
    use IAccountKeychain::{KeyRestrictions, SignatureType::Secp256k1, revokeKeyCall};
    let (holder, access) = (secret(0x55), secret(0x56));
    let account = address(&holder);
    give(net, &holder, 5_000_000).await;
    let restrictions = KeyRestrictions {
        expiry: now() + 600,
        enforceLimits: false,
        limits: Vec::new(),
        allowAnyCalls: true,
        allowedCalls: Vec::new(),
    };
    let authorize = IAccountKeychain::authorizeKey_1Call {
        keyId: address(&access),
        signatureType: Secp256k1,
        config: restrictions,
    };
    keychain(net, &holder, authorize).await;
    let payer = wallet(net, &access, account, None);
    paid(net, &json!({ "amount": "0.01" }), &payer).await;
    let proof = net
        .pay_with(net.challenge("0").await, payer.clone())
        .await
        .unwrap();
    drop(net.plan(&proof).await.unwrap());
    // The chain knows it already.
    let challenge = net.challenge("0.01").await;
    let mut tx = paying(&challenge, 10_000);
    tx.key_authorization = Some(grant(&holder, address(&access), |grant| grant).await);
    let raw = sign_with(tx, &access, account).await;
    let text = refused(net, &credential_of(&challenge, &raw)).await;
    assert!(text.contains("leave the authorisation out"), "{text}");
    let revoke = revokeKeyCall {
        keyId: address(&access),
    };
    keychain(net, &holder, revoke).await;
    let challenge = net.challenge("0.01").await;
    let raw = sign_with(paying(&challenge, 10_000), &access, account).await;
    let text = refused(net, &credential_of(&challenge, &raw)).await;
    assert!(text.contains("revoked"), "{text}");
    let text = refused(net, &proof).await;
    assert!(text.contains("revoked"), "{text}");
}

/// Protects: a key's scopes, on its first payment and on later ones.
async fn a_key_pays_whom_it_may(net: &Net) {
    let (holder, access) = (secret(0x57), secret(0x58));
    let account = address(&holder);
    give(net, &holder, 5_000_000).await;
    let scoped = |grant: KeyAuthorization| {
        grant.with_allowed_calls(vec![CallScope {
            target: TOKEN,
            selector_rules: vec![SelectorRule {
                selector: ITIP20::transferWithMemoCall::SELECTOR,
                recipients: vec![RECIPIENT],
            }],
        }])
    };
    let riding = grant(&holder, address(&access), scoped).await;
    let payer = wallet(net, &access, account, Some(riding));
    paid(net, &json!({ "amount": "0.01" }), &payer).await;
    paid(net, &json!({ "amount": "0.01" }), &payer).await;
    let other = json!({ "amount": "0.01", "recipient": address(RICH).to_string() });
    let challenge = net.challenge_for(&other).await;
    let mut tx = paying(&challenge, 10_000);
    let memo = farebox_tempo::memo::attribution(&challenge);
    tx.calls = vec![crate::net::call(address(RICH), 10_000, memo)];
    let raw = sign_with(tx, &access, account).await;
    let text = refused(net, &credential_of(&challenge, &raw)).await;
    assert!(text.contains("scopes do not cover"), "{text}");
}

/// A key of the curve that phones and browsers have.
#[derive(Debug)]
struct Passkey(SigningKey);

impl Passkey {
    fn new(seed: u8) -> Self {
        Self(SigningKey::from_slice(&[seed; 32]).unwrap())
    }

    fn point(&self) -> (B256, B256) {
        let point = self.0.verifying_key().to_encoded_point(false);
        let bytes = point.as_bytes();
        (
            B256::from_slice(&bytes[1..33]),
            B256::from_slice(&bytes[33..65]),
        )
    }
}

#[async_trait::async_trait]
impl KeySigner for Passkey {
    fn address(&self) -> Address {
        let (x, y) = self.point();
        derive_p256_address(&x, &y)
    }

    fn kind(&self) -> SignatureType {
        SignatureType::P256
    }

    async fn sign(&self, hash: &B256) -> Result<PrimitiveSignature, farebox_core::Fault> {
        let signature: p256::ecdsa::Signature = self.0.sign_prehash(hash.as_slice()).unwrap();
        let signature = signature.normalize_s().unwrap_or(signature);
        let (r, s) = signature.split_bytes();
        let (pub_key_x, pub_key_y) = self.point();
        Ok(PrimitiveSignature::P256(P256SignatureWithPreHash {
            r: B256::from_slice(&r),
            s: B256::from_slice(&s),
            pub_key_x,
            pub_key_y,
            pre_hash: false,
        }))
    }
}

fn keyless(net: &Net) -> WalletConfig {
    WalletConfig {
        rpc_url: Some(net.url.as_str().into()),
        chain_id: Some(1337),
        ..WalletConfig::default()
    }
}

/// Protects: access keys of P-256 pay like any other.
async fn another_curve_signs_too(net: &Net) {
    let (holder, access) = (secret(0x59), Passkey::new(0x62));
    give(net, &holder, 5_000_000).await;
    let p256 = |grant| KeyAuthorization {
        key_type: SignatureType::P256,
        ..grant
    };
    let riding = grant(&holder, access.address(), p256).await;
    let wallet = TempoWallet::signing_with(keyless(net), access).unwrap();
    let wallet = wallet.for_account(address(&holder), Some(riding));
    let payer: Arc<dyn Payer> = Arc::new(TypedPayer::<_, Charge>::new(wallet));
    paid(net, &json!({ "amount": "0.01" }), &payer).await;
    paid(net, &json!({ "amount": "0.01" }), &payer).await;
}

/// Protects: accounts whose own key is of P-256 pay and prove like any other.
async fn an_account_may_be_of_another_curve(net: &Net) {
    let account = Passkey::new(0x61).address();
    let challenge = net.challenge("0").await;
    let mut tx = paying(&challenge, 0);
    tx.calls = vec![crate::net::call(account, 5_000_000, B256::ZERO)];
    broadcast(net, sign(tx, RICH).await).await;
    let own = TempoWallet::signing_with(keyless(net), Passkey::new(0x61)).unwrap();
    let own: Arc<dyn Payer> = Arc::new(TypedPayer::<_, Charge>::new(own));
    let before = net.balance(RECIPIENT).await;
    paid(net, &json!({ "amount": "0.01" }), &own).await;
    assert_eq!(net.balance(RECIPIENT).await, before + U256::from(10_000));
    let proof = net.pay_with(net.challenge("0").await, own).await.unwrap();
    drop(net.plan(&proof).await.unwrap());
}

/// Protects: one more request for a payment by an access key, none for any other.
#[tokio::test]
async fn a_key_costs_one_request_more() {
    let chain = Chain::start(ChainConfig::default()).await.unwrap();
    let net = Net::at(&chain.url());
    let (holder, access) = (secret(0x5d), secret(0x5e));
    chain.mint(TOKEN, address(&holder), 5_000_000);
    let riding = grant(&holder, address(&access), |grant| grant).await;
    let payer = wallet(&net, &access, address(&holder), Some(riding));
    let credential = net
        .pay_with(net.challenge("0.01").await, payer)
        .await
        .unwrap();
    drop(net.plan(&credential).await.unwrap());
    let before = chain.total_calls();
    let order = net.verify(&credential).await.unwrap();
    reference(net.settle(&order).await);
    assert_eq!(
        chain.total_calls() - before,
        5,
        "three reads in one request"
    );
    chain.fail_next("eth_call", 3, Fault::Status(503));
    assert!(matches!(
        net.plan(&credential).await,
        Err(Refusal::Fault(_))
    ));
}

/// The server pays the fee of a key's payment, and of what makes it a key.
pub(crate) async fn sponsored(net: &Net) {
    let (holder, access) = (secret(0x5a), secret(0x5b));
    let account = address(&holder);
    give(net, &holder, 20_000).await;
    let riding = grant(&holder, address(&access), limited(20_000)).await;
    let payer = wallet(net, &access, account, Some(riding));
    paid(net, &json!({ "amount": "0.01" }), &payer).await;
    paid(net, &json!({ "amount": "0.01" }), &payer).await;
    assert_eq!(net.balance(account).await, U256::ZERO);
    let stranger = wallet(net, &secret(0x5c), address(RICH), None);
    let credential = net.pay_with(net.challenge("0.01").await, stranger).await;
    match net.verify(&credential.unwrap()).await {
        Err(Refusal::Rejected(why)) => {
            assert!(why.detail.contains("access keys"), "{why:?}");
        }
        other => panic!("{other:?}"),
    }
}
