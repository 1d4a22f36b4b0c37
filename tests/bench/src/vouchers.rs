//! Checking the vouchers of a session.
//!
//! Both recover a secp256k1 key from a typed-data signature. Cargo switches features on for a whole
//! build: here alloy has libsecp256k1 for `mpp` too, which it has not where nothing else asks for
//! it. The row with k256 is what `mpp` takes there: the same hashing, and recovery in Rust.

use std::{
    thread,
    time::{Duration, Instant},
};

use alloy::{
    primitives::{Address, B256, Bytes, Signature, address},
    signers::{SignerSync as _, local::PrivateKeySigner},
    sol,
    sol_types::{SolStruct as _, eip712_domain},
};
use farebox_tempo::session::{Domain, signature};
use mpp::protocol::methods::tempo::voucher::verify_voucher;

use crate::{Comparison, Work};

const CHAIN: u64 = 4217;
const ESCROW: Address = address!("0x4D50500000000000000000000000000000000000");
const CHANNEL: B256 = B256::repeat_byte(7);
const AMOUNT: u128 = 1_000_000;

/// How many times a round with threads is longer, so that starting them does not count.
const LONGER: usize = 64;

sol! {
    struct Voucher {
        bytes32 channelId;
        uint128 cumulativeAmount;
    }
}

fn key() -> PrivateKeySigner {
    PrivateKeySigner::from_bytes(&B256::repeat_byte(0x47)).expect("a key")
}

fn signed(digest: &B256) -> Bytes {
    let signature = key().sign_hash_sync(digest).expect("a signature");
    signature.as_bytes().to_vec().into()
}

/// The older voucher's digest, hashed as `mpp` does.
fn typed() -> B256 {
    let domain = eip712_domain! {
        name: "Tempo Stream Channel",
        version: "1",
        chain_id: CHAIN,
        verifying_contract: ESCROW,
    };
    let voucher = Voucher {
        channelId: CHANNEL,
        cumulativeAmount: AMOUNT,
    };
    voucher.eip712_signing_hash(&domain)
}

fn ours() -> impl Fn() + Clone + Send + Sync + 'static {
    let (domain, signer) = (Domain::new(CHAIN, ESCROW), key().address());
    let voucher = signed(&domain.voucher(CHANNEL, AMOUNT));
    move || {
        let digest = domain.voucher(CHANNEL, AMOUNT);
        signature::check(&digest, &voucher, signer).expect("a good voucher");
    }
}

fn repeat(check: impl Fn() + 'static) -> Work {
    Box::new(move |count: usize| {
        let start = Instant::now();
        (0..count).for_each(|_| check());
        start.elapsed()
    })
}

fn theirs() -> Work {
    let (voucher, signer) = (signed(&typed()), key().address());
    repeat(move || {
        assert!(verify_voucher(
            ESCROW, CHAIN, CHANNEL, AMOUNT, &voucher, signer
        ))
    })
}

fn theirs_with_k256() -> Work {
    let (voucher, signer) = (signed(&typed()), key().address());
    repeat(move || {
        let signature = Signature::try_from(voucher.as_ref()).expect("a signature");
        let key = signature.recover_from_prehash(&typed()).expect("a key");
        assert_eq!(Address::from_public_key(&key), signer);
    })
}

fn on_threads(threads: usize) -> Work {
    let check = ours();
    Box::new(move |count: usize| {
        let each = (count * LONGER).div_ceil(threads);
        let start = Instant::now();
        thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| (0..each).for_each(|_| check()));
            }
        });
        start.elapsed() / u32::try_from(LONGER).unwrap_or(u32::MAX)
    }) as Box<dyn FnMut(usize) -> Duration>
}

pub(crate) fn all() -> Vec<Comparison> {
    vec![
        Comparison {
            name: "voucher check",
            ours: repeat(ours()),
            theirs: theirs(),
            target: None,
        },
        Comparison {
            name: "voucher check, k256",
            ours: repeat(ours()),
            theirs: theirs_with_k256(),
            target: Some(4.5),
        },
        Comparison {
            name: "vouchers, 2 threads to 1",
            ours: on_threads(2),
            theirs: on_threads(1),
            target: Some(1.8),
        },
    ]
}
