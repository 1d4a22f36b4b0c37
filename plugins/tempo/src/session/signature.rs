//! Who signed a voucher: a primitive signature (TIP-1020), in the one spelling that a reserve takes.

use alloy::primitives::{Address, B256, Bytes, keccak256};
use farebox_core::Rejection;
use farebox_wire::Problem;
use tempo_primitives::transaction::PrimitiveSignature;

/// secp256k1: `r`, `s`, and 27 or 28.
const LENGTH: usize = 65;

/// secp256k1 with the parity in the top bit of `s` (EIP-2098).
const COMPACT: usize = 64;

/// The longest signature that is looked at, a WebAuthn envelope.
const LONGEST: usize = 2049;

/// Half of secp256k1's order: the mirror image of a signature has an `s` above it.
const HALF_ORDER: [u8; 32] = [
    0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0x5d, 0x57, 0x6e, 0x73, 0x57, 0xa4, 0x50, 0x1d, 0xdf, 0xe9, 0x2f, 0x46, 0x68, 0x1b, 0x20, 0xa0,
];

/// Checks that `expected` signed `digest`, and gives the signature as the reserve takes it.
///
/// # Errors
/// `session/invalid-signature` if it is none, `session/signer-mismatch` if it is somebody else's.
/// Neither says anything about a channel.
pub fn check(digest: &B256, signature: &Bytes, expected: Address) -> Result<Bytes, Rejection> {
    let canonical = canonical(signature).ok_or_else(invalid)?;
    let signer = signer(digest, &canonical).ok_or_else(invalid)?;
    if signer != expected {
        return Err(Rejection::new(
            Problem::rail("session", "signer-mismatch"),
            "the voucher is not signed by the channel's authorized signer",
        ));
    }
    Ok(canonical)
}

fn invalid() -> Rejection {
    Rejection::new(
        Problem::rail("session", "invalid-signature"),
        "the voucher's signature is no low-s secp256k1, p256 or WebAuthn signature of the voucher",
    )
}

/// 64 bytes as the 65 that they stand for; everything else as it is.
fn canonical(signature: &Bytes) -> Option<Bytes> {
    if signature.len() != COMPACT {
        return (signature.len() <= LONGEST).then(|| signature.clone());
    }
    let mut whole = [0u8; LENGTH];
    whole[..COMPACT].copy_from_slice(signature);
    whole[COMPACT] = 27 + (whole[32] >> 7);
    whole[32] &= 0x7f;
    Some(Bytes::copy_from_slice(&whole))
}

/// Who signed `digest`; `None` if nobody can have.
fn signer(digest: &B256, signature: &[u8]) -> Option<Address> {
    if signature.len() == LENGTH {
        let (compact, v) = signature.split_at(COMPACT);
        let parity = match v {
            [27] => 0,
            [28] => 1,
            _ => return None,
        };
        if compact[32..] > HALF_ORDER[..] {
            return None;
        }
        return secp256k1_address(digest, compact, parity);
    }
    let envelope = PrimitiveSignature::from_bytes(signature).ok()?;
    // One signature, one spelling: a flag of 2 means the same as one of 1.
    if *envelope.to_bytes() != *signature {
        return None;
    }
    envelope.recover_signer(digest).ok()
}

fn address(uncompressed: &[u8]) -> Address {
    // The first byte says that it is uncompressed.
    Address::from_slice(&keccak256(&uncompressed[1..])[12..])
}

#[cfg(feature = "libsecp256k1")]
fn secp256k1_address(digest: &B256, compact: &[u8], parity: i32) -> Option<Address> {
    use secp256k1::{
        Message, SECP256K1,
        ecdsa::{RecoverableSignature, RecoveryId},
    };
    let parity = RecoveryId::try_from(parity).ok()?;
    let signature = RecoverableSignature::from_compact(compact, parity).ok()?;
    let key = SECP256K1.recover_ecdsa(&Message::from_digest(digest.0), &signature);
    Some(address(&key.ok()?.serialize_uncompressed()))
}

#[cfg(not(feature = "libsecp256k1"))]
fn secp256k1_address(digest: &B256, compact: &[u8], parity: i32) -> Option<Address> {
    use alloy::signers::k256::ecdsa::{RecoveryId, Signature, VerifyingKey};
    let signature = Signature::from_slice(compact).ok()?;
    let parity = RecoveryId::from_byte(u8::try_from(parity).ok()?)?;
    let key = VerifyingKey::recover_from_prehash(digest.as_slice(), &signature, parity).ok()?;
    Some(address(key.to_encoded_point(false).as_bytes()))
}

#[cfg(test)]
mod tests {
    use alloy::primitives::{U256, address, b256, bytes, uint};
    use farebox_wire::Problem;

    use super::*;

    // Made by mppx 0.11.0's libraries for 1 000 000 base units of the channel in `channel`'s test:
    // viem's `signTypedData` with the key 0x4747…, ox's `SignatureEnvelope` with the key 0x5151….
    const DIGEST: B256 =
        b256!("0x1dbad7bea948b6f24a0be29ff76493e16fc479eaba70f74c68fb2e2323c1d483");
    const SIGNER: Address = address!("0xb595B18c88b1f651cA387489067f855b5C8E6720");
    const P256_SIGNER: Address = address!("0x3d508bb6d0b7c83830f3a3966e060c7942ef3282");

    fn secp256k1() -> Bytes {
        bytes!(
            "0xd0348bf6b76c1da7b826d736d7f0684b65647d06a7783f405200895347fb871b246d8dc40591beab709d638d0e52220d9d19931184d85313883f18f3022671101b"
        )
    }

    fn p256() -> Bytes {
        bytes!(
            "0x010f984480a22b350fd80d2b471c2dd95ee053e07dc8875780cfb07beb552e5da611880485d56e7ca6fb19490a6481a4930bb0a59d083fb66dbff211a5a460136d9a65173d48a0a0c706eeec2a75ae1f56793be988b2d407e9a7d3aba7574a9ea5101daceaadf42b661543a353e4f505ec41281df8535fecc5912ea39ed6b5056800"
        )
    }

    fn webauthn() -> Bytes {
        bytes!(
            "0x02a379a6f6eeafb9a55e378c118034e2751e682fab9f2d30ab13d2125586ce194705000000007b2274797065223a22776562617574686e2e676574222c226368616c6c656e6765223a224862725876716c4974764a4b432d4b663932535434575f45656571366350644d615073754979504231494d222c226f726967696e223a2268747470733a2f2f6578616d706c652e636f6d222c2263726f73734f726967696e223a66616c73657d6e38680b0c6ed585eef86894ccd0ad9c8e0f17afe5c99638b5da9ddc53942f696571bd590195b31640dfb8a6f0b23d3f56af1d420f8eb3d3c92c89325fc066919a65173d48a0a0c706eeec2a75ae1f56793be988b2d407e9a7d3aba7574a9ea5101daceaadf42b661543a353e4f505ec41281df8535fecc5912ea39ed6b50568"
        )
    }

    fn slug(result: Result<Bytes, Rejection>) -> String {
        match result.unwrap_err().problem {
            Problem::Rail { rail, name } => format!("{rail}/{name}"),
            other => panic!("{other:?}"),
        }
    }

    /// Protects: signatures of every kind that others make are taken, and kept as the chain takes
    /// them.
    #[test]
    fn what_others_sign_is_taken() {
        for (signature, signer) in [
            (secp256k1(), SIGNER),
            (p256(), P256_SIGNER),
            (webauthn(), P256_SIGNER),
        ] {
            assert_eq!(check(&DIGEST, &signature, signer), Ok(signature.clone()));
            let other = check(&DIGEST, &signature, Address::repeat_byte(1));
            assert_eq!(slug(other), "session/signer-mismatch");
            let elsewhere = check(&B256::repeat_byte(3), &signature, signer);
            assert!(elsewhere.is_err(), "it signs another voucher");
        }
        let mut compact = secp256k1()[..64].to_vec();
        compact[32] |= (secp256k1()[64] - 27) << 7;
        let taken = check(&DIGEST, &compact.into(), SIGNER);
        assert_eq!(taken, Ok(secp256k1()), "EIP-2098 is written out");
    }

    /// Protects: one voucher has one signature: no mirror images, no other parities, nothing
    /// after the end, no key that only claims an account.
    #[test]
    fn other_spellings_are_refused() {
        let order = uint!(0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141_U256);
        let good = secp256k1();
        let s = U256::from_be_slice(&good[32..64]);
        let mut mirrored = good.to_vec();
        mirrored[32..64].copy_from_slice(&(order - s).to_be_bytes::<32>());
        mirrored[64] = 55 - mirrored[64];
        let with_v = |v: u8| [&good[..64], &[v]].concat();
        let longer = |signature: &[u8]| [signature, &[0]].concat();
        let keychain = [&[4], SIGNER.as_slice(), &good].concat();
        let mut flag = p256().to_vec();
        *flag.last_mut().unwrap() = 2;
        let p256_order =
            uint!(0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551_U256);
        let mut p256_mirrored = p256().to_vec();
        let s = U256::from_be_slice(&p256_mirrored[33..65]);
        p256_mirrored[33..65].copy_from_slice(&(p256_order - s).to_be_bytes::<32>());
        for bad in [
            mirrored,
            with_v(0),
            with_v(1),
            with_v(29),
            longer(&good),
            good[..63].to_vec(),
            Vec::new(),
            vec![0; 65],
            vec![0; 64],
            keychain,
            longer(&p256()),
            flag,
            p256_mirrored,
            vec![2; 4096],
        ] {
            let bad = Bytes::from(bad);
            let refused = [SIGNER, P256_SIGNER].map(|signer| check(&DIGEST, &bad, signer));
            for refused in refused {
                assert_eq!(slug(refused), "session/invalid-signature", "{bad}");
            }
        }
    }
}
