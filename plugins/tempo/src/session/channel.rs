//! What a channel is called, and what its vouchers say.

use alloy::{
    primitives::{Address, B256, Bytes, aliases::U96, keccak256},
    sol_types::SolValue,
};
use serde::{Deserialize, Serialize};
use tempo_contracts::precompiles::ITIP20ChannelReserve::ChannelDescriptor;

/// The largest amount that a channel can hold.
pub const MAX_AMOUNT: u128 = (1 << 96) - 1;

const DOMAIN_TYPE: &str =
    "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)";
const VOUCHER_TYPE: &str = "Voucher(bytes32 channelId,uint96 cumulativeAmount)";

/// What a channel was opened with. It never changes, and hashes to the channel's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// Who funded it and gets back what is left.
    pub payer: Address,
    /// Who is paid.
    pub payee: Address,
    /// Who may settle and close beside the payee; zero for nobody.
    pub operator: Address,
    /// The TIP-20 token.
    pub token: Address,
    /// Chosen by the payer.
    pub salt: B256,
    /// Who signs vouchers; zero for the payer.
    pub authorized_signer: Address,
    /// Names the transaction that opened it.
    pub expiring_nonce_hash: B256,
}

impl Descriptor {
    /// Who signs vouchers.
    pub fn signer(&self) -> Address {
        if self.authorized_signer.is_zero() {
            self.payer
        } else {
            self.authorized_signer
        }
    }

    /// As the reserve's calls take it.
    pub(crate) fn abi(&self) -> ChannelDescriptor {
        ChannelDescriptor {
            payer: self.payer,
            payee: self.payee,
            operator: self.operator,
            token: self.token,
            salt: self.salt,
            authorizedSigner: self.authorized_signer,
            expiringNonceHash: self.expiring_nonce_hash,
        }
    }

    /// Whether `abi` is this descriptor.
    pub(crate) fn is(&self, abi: &ChannelDescriptor) -> bool {
        self.abi() == *abi
    }
}

/// One reserve on one chain: what keeps a channel there from being one elsewhere. Holds the EIP-712
/// domain separator, which is hashed once.
#[derive(Clone, Copy, Debug)]
pub struct Domain {
    chain_id: u64,
    escrow: Address,
    separator: B256,
    voucher_type: B256,
}

impl Domain {
    /// The reserve `escrow` on a chain.
    pub fn new(chain_id: u64, escrow: Address) -> Self {
        let fields = (
            keccak256(DOMAIN_TYPE),
            keccak256("TIP20 Channel Reserve"),
            keccak256("1"),
            chain_id,
            escrow,
        );
        Self {
            chain_id,
            escrow,
            separator: keccak256(fields.abi_encode()),
            voucher_type: keccak256(VOUCHER_TYPE),
        }
    }

    /// EIP-155 id.
    pub fn chain_id(&self) -> u64 {
        self.chain_id
    }

    /// The reserve's address.
    pub fn escrow(&self) -> Address {
        self.escrow
    }

    /// The id of a channel.
    pub fn channel_id(&self, channel: &Descriptor) -> B256 {
        let mut words = [0u8; 9 * 32];
        let addresses = [
            (0, channel.payer),
            (1, channel.payee),
            (2, channel.operator),
            (3, channel.token),
            (5, channel.authorized_signer),
            (7, self.escrow),
        ];
        for (at, address) in addresses {
            words[at * 32 + 12..(at + 1) * 32].copy_from_slice(address.as_slice());
        }
        words[4 * 32..5 * 32].copy_from_slice(channel.salt.as_slice());
        words[6 * 32..7 * 32].copy_from_slice(channel.expiring_nonce_hash.as_slice());
        words[8 * 32 + 24..].copy_from_slice(&self.chain_id.to_be_bytes());
        keccak256(words)
    }

    /// What is signed to hand over `cumulative` base units of a channel, all told.
    pub fn voucher(&self, channel: B256, cumulative: u128) -> B256 {
        let mut said = [0u8; 3 * 32];
        said[..32].copy_from_slice(self.voucher_type.as_slice());
        said[32..64].copy_from_slice(channel.as_slice());
        said[80..].copy_from_slice(&cumulative.to_be_bytes());
        let mut whole = [0u8; 66];
        whole[..2].copy_from_slice(&[0x19, 0x01]);
        whole[2..34].copy_from_slice(self.separator.as_slice());
        whole[34..].copy_from_slice(keccak256(said).as_slice());
        keccak256(whole)
    }
}

/// A voucher as a reserve takes it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SignedVoucher {
    pub(crate) cumulative: farebox_wire::Amount,
    pub(crate) signature: Bytes,
}

/// An amount as the reserve's calls take it; nothing that is checked is larger.
pub(crate) fn u96(amount: u128) -> U96 {
    U96::saturating_from(amount)
}

#[cfg(test)]
mod tests {
    use alloy::primitives::{address, b256};
    use tempo_contracts::precompiles::TIP20_CHANNEL_RESERVE_ADDRESS as RESERVE;

    use super::*;

    /// Protects: ids and digests are those of the chain and of every other wallet. The figures are
    /// mppx 0.11.0's: `Channel.computeId` and viem's `hashTypedData` of the voucher.
    #[test]
    fn ids_and_digests_are_everybodys() {
        let descriptor = Descriptor {
            payer: address!("0x70997970C51812dc3A010C7d01b50e0d17dc79C8"),
            payee: address!("0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC"),
            operator: address!("0x90F79bf6EB2c4f870365E785982E1f101E93b906"),
            token: address!("0x20c0000000000000000000000000000000000000"),
            salt: B256::repeat_byte(0x11),
            authorized_signer: address!("0x15d34AAf54267DB7D7c367839AAf71A00a2C6A65"),
            expiring_nonce_hash: B256::repeat_byte(0x22),
        };
        let domain = Domain::new(4217, RESERVE);
        let id = domain.channel_id(&descriptor);
        assert_eq!(
            id,
            b256!("0xbfdf7502781c7e298398205e15e24388c1b2e017295f1d669de1422c76129793")
        );
        assert_eq!(
            domain.voucher(id, 1_000_000),
            b256!("0x1dbad7bea948b6f24a0be29ff76493e16fc479eaba70f74c68fb2e2323c1d483")
        );
        assert_eq!(
            domain.voucher(id, MAX_AMOUNT),
            b256!("0xe59dc800ad0fed3e4861a66b227f9f709ad1a0ebf27282ba43b0f3d6f038fb83")
        );
        // Every member counts.
        for other in [
            Domain::new(4218, RESERVE),
            Domain::new(4217, Address::repeat_byte(1)),
        ] {
            assert_ne!(other.channel_id(&descriptor), id);
            assert_ne!(other.voucher(id, 1), domain.voucher(id, 1));
        }
    }
}
