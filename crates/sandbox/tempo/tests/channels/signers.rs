//! Vouchers of keys on P-256: bare, and as a passkey signs.

use alloy::primitives::{Address, B256, Bytes, U256, uint};
use aws_lc_rs::{
    digest::{SHA256, digest},
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use tempo_contracts::precompiles::ITIP20ChannelReserve::{InvalidSignature, Settled};
use tempo_primitives::transaction::{
    PrimitiveSignature, derive_p256_address,
    tt_signature::{P256SignatureWithPreHash, WebAuthnSignature, normalize_p256_s},
};

use crate::{kit::*, peer::*};

/// The order of the curve.
const ORDER: U256 = uint!(0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551_U256);

struct Key {
    pair: EcdsaKeyPair,
    x: B256,
    y: B256,
}

impl Key {
    fn new() -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let point = pair.public_key().as_ref();
        let (x, y) = (
            B256::from_slice(&point[1..33]),
            B256::from_slice(&point[33..]),
        );
        Self { pair, x, y }
    }

    fn address(&self) -> Address {
        derive_p256_address(&self.x, &self.y)
    }

    /// Over the SHA-256 of `message`, with `s` in the lower half.
    fn sign(&self, message: &[u8]) -> (B256, B256) {
        let signature = self.pair.sign(&SystemRandom::new(), message).unwrap();
        let (r, s) = signature.as_ref().split_at(32);
        (B256::from_slice(r), normalize_p256_s(s).unwrap())
    }

    fn bare(&self, voucher: B256) -> P256SignatureWithPreHash {
        let (r, s) = self.sign(voucher.as_slice());
        P256SignatureWithPreHash {
            r,
            s,
            pub_key_x: self.x,
            pub_key_y: self.y,
            pre_hash: true,
        }
    }

    /// As a browser hands it out, for a ceremony of type `what`.
    fn passkey(&self, voucher: B256, what: &str) -> Bytes {
        // The relying party's hash, "a user was present", and no count.
        let authenticator = [digest(&SHA256, b"localhost").as_ref(), &[1, 0, 0, 0, 0]].concat();
        let challenge = BASE64_URL_SAFE_NO_PAD.encode(voucher);
        let client = format!(r#"{{"type":"{what}","challenge":"{challenge}"}}"#);
        let client_hash = digest(&SHA256, client.as_bytes());
        let (r, s) = self.sign(&[&authenticator, client_hash.as_ref()].concat());
        let signature = WebAuthnSignature {
            r,
            s,
            pub_key_x: self.x,
            pub_key_y: self.y,
            webauthn_data: [authenticator, client.into_bytes()].concat().into(),
        };
        PrimitiveSignature::WebAuthn(signature).to_bytes()
    }
}

async fn channel<'a>(peer: &'a Peer, key: &Key) -> Channel<'a> {
    let mut terms = terms(100);
    terms.authorizedSigner = key.address();
    Channel::open_as(peer, &terms).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_p256_voucher_is_cashed() {
    let peer = Peer::sandbox().await;
    let (key, other) = (Key::new(), Key::new());
    let channel = channel(&peer, &key).await;
    let digest = channel.digest(10).await;
    let good = key.bare(digest);
    let high = P256SignatureWithPreHash {
        s: B256::from(ORDER - U256::from_be_bytes(good.s.0)),
        ..good
    };
    let borrowed = P256SignatureWithPreHash {
        pub_key_x: key.x,
        pub_key_y: key.y,
        ..other.bare(digest)
    };
    let mut call = channel.settle_call(10).await;
    for bad in [high, borrowed, other.bare(digest), key.bare(B256::ZERO)] {
        call.signature = PrimitiveSignature::P256(bad).to_bytes();
        channel.refused::<InvalidSignature>(PAYEE, &call).await;
    }
    call.signature = PrimitiveSignature::P256(good).to_bytes();
    let settled: Settled = event(&channel.send(PAYEE, &call).await);
    assert_eq!(settled.deltaPaid, amount(10));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_passkeys_voucher_is_cashed() {
    let peer = Peer::sandbox().await;
    let (key, other) = (Key::new(), Key::new());
    let channel = channel(&peer, &key).await;
    let digest = channel.digest(10).await;
    let mut call = channel.settle_call(10).await;
    for bad in [
        key.passkey(channel.digest(11).await, "webauthn.get"),
        key.passkey(digest, "webauthn.create"),
        other.passkey(digest, "webauthn.get"),
    ] {
        call.signature = bad;
        channel.refused::<InvalidSignature>(PAYEE, &call).await;
    }
    call.signature = key.passkey(digest, "webauthn.get");
    let settled: Settled = event(&channel.send(PAYEE, &call).await);
    assert_eq!(settled.deltaPaid, amount(10));
}
