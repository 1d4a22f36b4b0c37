//! A rail's verdict, as data.
//!
//! A [`Plan`] has no constructor without a claim, so a rail cannot forget replay protection, and
//! no way to act, so `verify` cannot move money.

use std::{fmt, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use crate::{
    channel::{Change, ChannelId, Voucher},
    intent::{Channel, Lifecycle, Once},
    settle::StoredOrder,
};

/// What makes a payment proof unique on its rail: a payment hash, a transaction hash, a token id.
///
/// Hashed before it is stored, so no bearer secret reaches the store.
#[derive(Clone, PartialEq, Eq)]
pub struct ProofKey {
    key: String,
    keep: Option<Duration>,
}

impl ProofKey {
    /// The key of `proof` on `rail`. The rail's name separates rails whose proofs look alike.
    ///
    /// Give the proof's bytes, not one of its spellings: `0xAB` and `0xab` would be two keys.
    pub fn of(rail: &str, proof: impl AsRef<[u8]>) -> Self {
        let digest = Sha256::new()
            .chain_update((rail.len() as u64).to_be_bytes())
            .chain_update(rail)
            .chain_update(proof)
            .finalize();
        Self {
            key: URL_SAFE_NO_PAD.encode(digest),
            keep: None,
        }
    }

    /// How long the store must remember the key after the challenge has lapsed. Without it the
    /// key is kept for ever; say less only where the rail itself refuses the proof afterwards.
    pub fn keep_for(mut self, keep: Duration) -> Self {
        self.keep = Some(keep);
        self
    }

    /// The stored form: 43 base64url characters.
    pub fn as_str(&self) -> &str {
        &self.key
    }

    /// How long it is kept, if not for ever.
    pub fn keep(&self) -> Option<Duration> {
        self.keep
    }
}

impl fmt::Debug for ProofKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProofKey({})", self.key)
    }
}

/// What the engine does after it has claimed a plan's proofs.
#[derive(Clone, Debug)]
pub enum Step<O> {
    /// The money has already moved; `reference` names the movement on the receipt.
    Paid {
        /// What the receipt's `reference` says: a payment hash, a transaction hash, a challenge id.
        reference: String,
    },
    /// The engine must have the settler carry out this order.
    Settle(O),
}

/// What to do with a good proof. `L` is the intent's lifecycle, `O` the settler's order.
#[must_use = "a plan does nothing until the engine carries it out"]
pub struct Plan<L: Lifecycle, O> {
    inner: Inner<L, O>,
    receipt: Map<String, Value>,
}

struct Inner<L: Lifecycle, O> {
    proofs: Vec<ProofKey>,
    step: Option<Step<O>>,
    claim: L::Claim,
}

impl<L: Lifecycle, O> Plan<L, O> {
    /// A further key under which the same proof could be presented (the hash a payer signed and
    /// the hash the chain knows). A voucher claims nothing, so it takes none.
    pub fn also(mut self, proof: ProofKey) -> Self {
        self.inner.proofs.push(proof);
        self
    }

    /// A member of the receipt beyond the protocol's own. `challengeId` is always there.
    pub fn receipt(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.receipt.insert(key.to_owned(), value.into());
        self
    }
}

impl<O> Plan<Once, O> {
    /// The proof is the payment: nothing is left to settle.
    pub fn paid(proof: ProofKey, reference: impl Into<String>) -> Self {
        Self::once(
            proof,
            Step::Paid {
                reference: reference.into(),
            },
        )
    }

    /// The proof is an authorisation: carry out `order`. It is stored before the first attempt.
    pub fn settle(proof: ProofKey, order: O) -> Self {
        Self::once(proof, Step::Settle(order))
    }

    fn once(proof: ProofKey, step: Step<O>) -> Self {
        Self {
            inner: Inner {
                proofs: vec![proof],
                step: Some(step),
                claim: (),
            },
            receipt: Map::new(),
        }
    }
}

impl<L: Lifecycle, O> fmt::Debug for Plan<L, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plan")
            .field("proofs", &self.inner.proofs)
            .finish_non_exhaustive()
    }
}

/// What is done to a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ChannelAction {
    /// Start it.
    Open,
    /// Add to its deposit.
    TopUp,
    /// Raise what is authorised (a voucher), or only show the right to spend (a bearer proof).
    Advance,
    /// End it; final.
    Close,
    /// Settle what is authorised. Never a presentation: see [`Upkeep`](crate::Upkeep).
    Settle,
    /// Give back what a closed channel owes. Never a presentation.
    Refund,
}

impl ChannelAction {
    /// Whether a presentation of it asks for service. The others only manage the channel and are
    /// answered with [`Rail::answer`](crate::Rail::answer).
    pub fn is_service(self) -> bool {
        matches!(self, Self::Open | Self::Advance)
    }
}

impl<O> Plan<Channel, O> {
    /// Open a channel. The proof is what funds it; `order` is what must happen first (a
    /// transaction to broadcast), if anything.
    pub fn open(proof: ProofKey, channel: ChannelId, change: Change, order: Option<O>) -> Self {
        Self::channel(ChannelAction::Open, vec![proof], channel, change, order)
    }

    /// Add to an open channel's deposit.
    pub fn top_up(proof: ProofKey, channel: ChannelId, change: Change, order: Option<O>) -> Self {
        Self::channel(ChannelAction::TopUp, vec![proof], channel, change, order)
    }

    /// Accept a voucher. It needs no proof key: the balance only grows, so it is its own claim.
    pub fn advance(channel: ChannelId, voucher: Voucher) -> Self {
        let change = voucher.into_change();
        Self::channel(ChannelAction::Advance, Vec::new(), channel, change, None)
    }

    /// Close the channel, carrying out `order` (capture, refund), if anything.
    pub fn close(channel: ChannelId, change: Change, order: Option<O>) -> Self {
        Self::channel(ChannelAction::Close, Vec::new(), channel, change, order)
    }

    fn channel(
        action: ChannelAction,
        proofs: Vec<ProofKey>,
        channel: ChannelId,
        change: Change,
        order: Option<O>,
    ) -> Self {
        Self {
            inner: Inner {
                proofs,
                step: order.map(Step::Settle),
                claim: (action, channel, change),
            },
            receipt: Map::new(),
        }
    }
}

/// An erased plan for a single-use payment, as the engine sees it.
#[must_use]
#[derive(Clone, Debug)]
pub struct OncePlan {
    /// Every key to claim; never empty.
    pub proofs: Vec<ProofKey>,
    /// What to do then.
    pub step: Step<StoredOrder>,
    /// Further receipt members.
    pub receipt: Map<String, Value>,
}

/// An erased plan for a channel, as the engine sees it.
#[must_use]
#[derive(Clone, Debug)]
pub struct ChannelPlan {
    /// What is done to the channel.
    pub action: ChannelAction,
    /// Which channel.
    pub channel: ChannelId,
    /// How its balances change.
    pub change: Change,
    /// Keys to claim first; empty for vouchers and closes.
    pub proofs: Vec<ProofKey>,
    /// What must be settled first, if anything.
    pub order: Option<StoredOrder>,
    /// Further receipt members.
    pub receipt: Map<String, Value>,
}

/// An erased plan.
#[must_use]
#[derive(Clone, Debug)]
pub enum AnyPlan {
    /// Single use.
    Once(OncePlan),
    /// A running balance.
    Channel(ChannelPlan),
}

/// How a lifecycle turns a typed plan into an erased one; implemented for the sealed lifecycles.
pub(crate) fn erase<L: Lifecycle, O: serde::Serialize>(
    plan: Plan<L, O>,
) -> Result<AnyPlan, serde_json::Error> {
    let Inner {
        proofs,
        step,
        claim,
    } = plan.inner;
    let step = match step {
        Some(Step::Settle(order)) => Some(Step::Settle(StoredOrder::of(&order)?)),
        Some(Step::Paid { reference }) => Some(Step::Paid { reference }),
        None => None,
    };
    Ok(L::erase(proofs, step, claim, plan.receipt))
}
