//! What a channel is called and what its vouchers say: ids, EIP-712 digests, signatures.

use std::sync::LazyLock;

use alloy::{
    primitives::{Address, B256, Bytes, U256, aliases::U96, keccak256},
    sol_types::SolValue,
};
use tempo_contracts::precompiles::{
    ITIP20ChannelReserve::ChannelDescriptor, TIP20_CHANNEL_RESERVE_ADDRESS as RESERVE,
};
use tempo_primitives::transaction::PrimitiveSignature;

static TYPEHASH: LazyLock<B256> =
    LazyLock::new(|| keccak256("Voucher(bytes32 channelId,uint96 cumulativeAmount)"));

static DOMAIN_TYPEHASH: LazyLock<B256> = LazyLock::new(|| {
    keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)")
});

/// Recovering a secp256k1 key, and checking a P-256 signature, with a WebAuthn wrapper or without.
const RECOVER: u64 = 3_000;
const P256: u64 = 8_000;

/// The EIP-712 type hash of a voucher.
pub(crate) fn typehash() -> B256 {
    *TYPEHASH
}

/// Everything that keeps a channel of one chain from being one of another.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Domain {
    chain_id: U256,
}

impl Domain {
    pub(crate) fn of(chain_id: u64) -> Self {
        Self {
            chain_id: U256::from(chain_id),
        }
    }

    /// The EIP-712 domain separator.
    pub(crate) fn separator(self) -> B256 {
        let fields = (
            *DOMAIN_TYPEHASH,
            keccak256("TIP20 Channel Reserve"),
            keccak256("1"),
            self.chain_id,
            RESERVE,
        );
        keccak256(fields.abi_encode())
    }

    pub(crate) fn channel_id(self, channel: &ChannelDescriptor) -> B256 {
        let fields = (
            channel.payer,
            channel.payee,
            channel.operator,
            channel.token,
            channel.salt,
            channel.authorizedSigner,
            channel.expiringNonceHash,
            RESERVE,
            self.chain_id,
        );
        keccak256(fields.abi_encode())
    }

    /// What the payer signs to let the payee have `cumulative` of the channel.
    pub(crate) fn voucher_digest(self, channel: B256, cumulative: U96) -> B256 {
        let said = keccak256((*TYPEHASH, channel, cumulative).abi_encode());
        keccak256([&[0x19, 0x01], self.separator().as_slice(), said.as_slice()].concat())
    }
}

/// A primitive signature (TIP-1020): secp256k1, P-256 or WebAuthn. Keychain envelopes are none.
#[derive(Debug)]
pub(crate) struct Signed(PrimitiveSignature);

impl Signed {
    pub(crate) fn parse(signature: &Bytes) -> Option<Self> {
        PrimitiveSignature::from_bytes(signature).ok().map(Self)
    }

    pub(crate) fn gas(&self) -> u64 {
        match self.0 {
            PrimitiveSignature::Secp256k1(_) => RECOVER,
            PrimitiveSignature::P256(_) | PrimitiveSignature::WebAuthn(_) => P256,
        }
    }

    /// Who signed; nobody if `s` is in the upper half, since that is another's signature mirrored.
    pub(crate) fn signer(&self, digest: &B256) -> Option<Address> {
        self.0.recover_signer(digest).ok()
    }
}
