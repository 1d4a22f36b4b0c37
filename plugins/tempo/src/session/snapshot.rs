//! How a channel stands, as it is kept and as it is told.

use alloy::primitives::{Address, B256, Bytes};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use farebox_core::{ChannelId, ChannelState};
use farebox_wire::Amount;
use serde::{Deserialize, Serialize};

use super::{
    channel::{Descriptor, Domain, SignedVoucher},
    kept,
};

/// The rail's own part of a channel: what it was opened with, and its highest voucher, which is all
/// that it takes to cash it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept {
    pub(crate) descriptor: Descriptor,
    pub(crate) voucher: SignedVoucher,
}

/// What a server tells a payer of its channel, as `Payment-Session-Snapshot` and
/// `methodDetails.sessionSnapshot` have it. Nothing of it is to be believed unchecked.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    /// The highest cumulative amount that was signed over.
    pub accepted_cumulative: Amount,
    /// EIP-155 chain id.
    pub chain_id: u64,
    /// The channel.
    pub channel_id: B256,
    /// When the payer asked for a close by force, Unix seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub close_requested_at: Option<String>,
    /// What the payer has put in.
    pub deposit: Amount,
    /// What it was opened with.
    pub descriptor: Descriptor,
    /// The channel reserve.
    pub escrow: Address,
    /// The voucher for `accepted_cumulative`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub highest_voucher: Option<HighestVoucher>,
    /// The least that a next voucher must be for.
    pub required_cumulative: Amount,
    /// What is settled.
    pub settled: Amount,
    /// What was served.
    pub spent: Amount,
    /// Units served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub units: Option<u64>,
}

/// A voucher in a [`Snapshot`].
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HighestVoucher {
    /// The channel.
    pub channel_id: B256,
    /// All that it hands over.
    pub cumulative_amount: Amount,
    /// By the channel's signer.
    pub signature: Bytes,
}

impl std::fmt::Debug for HighestVoucher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HighestVoucher")
            .field("cumulative_amount", &self.cumulative_amount)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshot")
            .field("channel_id", &self.channel_id)
            .finish_non_exhaustive()
    }
}

impl Snapshot {
    /// How a channel stands; `None` if its record is of another version.
    pub(crate) fn of(domain: &Domain, channel: &ChannelId, state: &ChannelState) -> Option<Self> {
        let kept = kept(state)?;
        let channel_id: B256 = channel.id().parse().ok()?;
        Some(Self {
            accepted_cumulative: state.authorized,
            chain_id: domain.chain_id(),
            channel_id,
            close_requested_at: None,
            deposit: state.deposit,
            descriptor: kept.descriptor,
            escrow: domain.escrow(),
            highest_voucher: (kept.voucher.cumulative == state.authorized).then(|| {
                HighestVoucher {
                    channel_id,
                    cumulative_amount: kept.voucher.cumulative,
                    signature: kept.voucher.signature,
                }
            }),
            required_cumulative: state.authorized,
            settled: state.settled,
            spent: state.spent,
            units: Some(state.units),
        })
    }

    /// As a header's value.
    pub(crate) fn header(&self) -> String {
        // It holds texts and numbers, so it can be written.
        URL_SAFE_NO_PAD.encode(serde_json::to_string(self).unwrap_or_default())
    }
}
