//! What is written before each effect, and under which key.
//!
//! | key | value |
//! |---|---|
//! | `pay:<payment id>` | a [`Record`] |
//! | `proof:<proof key>` | the payment id that claimed it, and by which reservation |
//! | `todo:<payment id>` | a payment that may need the reconciler; the value names the attempt |
//! | `quote:<challenge id>` | what a rail keeps with its challenge |
//! | `chan:<channel>` | a channel's balance |
//! | `live:<channel>` | a channel that is open or owes: since when, and by which listing |
//! | `tally:<method>:<account>` | a counter of a method's rails ([`Tally`](farebox_core::Tally)) |
//!
//! A payment's id is its challenge's, where a challenge pays once; a channel's challenge carries
//! several actions, and their ids add the credential's fingerprint.

use std::{
    ops::Deref,
    sync::{Arc, OnceLock},
    time::Duration,
};

use farebox_core::{
    Change, ChannelAction, ChannelId, Fault, Rejection, StoredOrder,
    wire::{Amount, Credential, OfferId, Receipt},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{engine::Shared, reply::StoredReply};

pub(crate) fn pay_key(id: &str) -> String {
    format!("{PAY}{id}")
}

pub(crate) fn proof_key(key: &str) -> String {
    ["proof:", key].concat()
}

/// What a claimed proof holds. Neither part has spaces.
pub(crate) fn holder(id: &str, claim: &str) -> String {
    [id, " ", claim].concat()
}

pub(crate) fn todo_key(id: &str) -> String {
    [TODO, id].concat()
}

pub(crate) fn quote_key(id: &str) -> String {
    ["quote:", id].concat()
}

/// How often a payload was prepared for a challenge.
pub(crate) fn prepared_key(id: &str) -> String {
    ["prepared:", id].concat()
}

pub(crate) fn channel_key(channel: &ChannelId) -> String {
    format!("{CHANNEL}{}", channel.as_str())
}

pub(crate) fn live_key(channel: &ChannelId) -> String {
    [LIVE, channel.as_str()].concat()
}

pub(crate) const PAY: &str = "pay:";
pub(crate) const TODO: &str = "todo:";
pub(crate) const CHANNEL: &str = "chan:";
pub(crate) const LIVE: &str = "live:";

/// A payment: who may collect it, what it was, and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    terms: Arc<Terms>,
    pub(crate) state: State,
}

/// What of a record stays as it is while its payment moves on.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Terms {
    /// The method's name, by which its settler is found again.
    pub(crate) method: String,
    /// The wire pair.
    pub(crate) offer: OfferId,
    /// SHA-256 of the credential's payload: who may collect.
    pub(crate) fingerprint: String,
    /// The challenge that was paid, for the receipt.
    pub(crate) challenge: String,
    /// When the challenge lapses, Unix milliseconds.
    pub(crate) expires: i64,
    /// When the credential first came, Unix milliseconds.
    pub(crate) presented: i64,
    /// The proof keys it claims.
    pub(crate) proofs: Vec<String>,
    /// Names the reservation: one that was replaced must free nothing of its successor's.
    pub(crate) claim: String,
    /// Nobody has judged it yet, and it came when its offer had changed already.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) changed: bool,
    /// What the rail kept with the challenge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) private: Option<Value>,
    /// Base units, for the books.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) amount: Option<String>,
    /// For the books.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) currency: Option<String>,
    /// The seller's reference, for the receipt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) external_id: Option<String>,
    /// What it does to a channel, if anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) channel: Option<ChannelChange>,
    /// The engine's own motion, for which nobody waits: see `upkeep`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) errand: bool,
    /// All of the above as JSON, written once.
    #[serde(skip)]
    pub(crate) text: OnceLock<String>,
}

/// A change to a channel that takes effect when the payment is settled.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ChannelChange {
    pub(crate) id: ChannelId,
    pub(crate) action: ChannelAction,
    pub(crate) change: Change,
}

/// Where a payment stands. Instants are Unix milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub(crate) enum State {
    /// Claimed; nothing was attempted. Free again after `until`.
    Reserved { until: i64 },
    /// Money may have moved. Only the settler's lookup decides; before `until` somebody is at it.
    Attempted {
        until: i64,
        /// What the reconciler's list says of this attempt.
        todo: String,
        order: StoredOrder,
        receipt: Map<String, Value>,
        /// When the rail was last asked and could not say; 0 before that.
        #[serde(default)]
        looked: i64,
    },
    /// Money is in and nobody is being served.
    Paid { receipt: Arc<Receipt> },
    /// `holder` is being served, until the lease lapses.
    Serving {
        receipt: Arc<Receipt>,
        holder: String,
        until: i64,
    },
    /// `holder` was served.
    Delivered {
        receipt: Arc<Receipt>,
        holder: String,
        /// The response, where its request came with a key.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reply: Option<StoredReply>,
    },
    /// All of the money goes back, or went, before anybody was served: nobody will be, unless the
    /// refund of this key is refused.
    Returned {
        receipt: Arc<Receipt>,
        refund: String,
    },
    /// The money did not move.
    Declined { rejection: Rejection },
}

#[cfg(feature = "failpoints")]
impl State {
    /// What writing it is called: see `effect`.
    fn effect(&self) -> &'static str {
        match self {
            Self::Reserved { .. } => "pay.reserved",
            Self::Attempted { .. } => "pay.attempted",
            Self::Paid { .. } => "pay.paid",
            Self::Serving { .. } => "pay.serving",
            Self::Delivered { .. } => "pay.delivered",
            Self::Returned { .. } | Self::Declined { .. } => "pay.declined",
        }
    }
}

impl Deref for Record {
    type Target = Terms;

    fn deref(&self) -> &Terms {
        &self.terms
    }
}

impl Record {
    pub(crate) fn new(terms: Terms, state: State) -> Self {
        let terms = Arc::new(terms);
        Self { terms, state }
    }

    /// Whether the books say that nothing was asked for.
    pub(crate) fn is_free(&self) -> bool {
        let amount = self.amount.as_deref().map(Amount::parse);
        amount.is_some_and(|amount| amount.is_ok_and(|amount| amount.get() == 0))
    }

    /// Whether a presentation of it asks for service.
    pub(crate) fn is_service(&self) -> bool {
        let channel = self.channel.as_ref();
        channel.is_none_or(|change| change.action.is_service())
    }

    /// What a unit costs, where the request has it.
    pub(crate) fn price(&self) -> Option<Amount> {
        self.amount
            .as_deref()
            .and_then(|text| Amount::parse(text).ok())
    }

    pub(crate) fn with(&self, state: State) -> Self {
        let terms = self.terms.clone();
        Self { terms, state }
    }

    /// One JSON object: the terms' members, then the state's.
    pub(crate) fn encode(&self) -> Result<String, Fault> {
        let unwritten = |e| Fault::new("serialising a record").caused_by(e);
        let terms = match self.terms.text.get() {
            Some(text) => text,
            None => {
                let text = serde_json::to_string(&*self.terms).map_err(unwritten)?;
                self.terms.text.get_or_init(|| text)
            }
        };
        let state = serde_json::to_string(&self.state).map_err(unwritten)?;
        let (terms, state) = (terms.strip_suffix('}'), state.strip_prefix('{'));
        match (terms, state) {
            (Some(terms), Some(state)) => Ok([terms, ",", state].concat()),
            _ => Err(Fault::new("a record is a JSON object")),
        }
    }

    pub(crate) fn decode(text: &str) -> Result<Self, Fault> {
        // serde_json's message could quote an order, which may hold what pays.
        let foreign = |_| Fault::new("reading a record of another version");
        let terms = serde_json::from_str(text).map_err(foreign)?;
        let state = serde_json::from_str(text).map_err(foreign)?;
        Ok(Self::new(terms, state))
    }

    /// How long the store must keep it: money that moved or may have moved is not forgotten.
    pub(crate) fn keep(&self, shared: &Shared) -> Option<Duration> {
        let left = self.expires.saturating_sub(shared.clock.millis()).max(0);
        let lapse = Duration::from_millis(left.unsigned_abs()).saturating_add(shared.timing.grace);
        match self.state {
            State::Attempted { .. } => None,
            // A proof that nobody could judge, which may be anybody's: see `payment::undecided`.
            State::Reserved { .. } if self.proofs.is_empty() && self.channel.is_none() => {
                Some(lapse.saturating_add(shared.timing.collectable.min(SEEN)))
            }
            // A reservation too: its proof may be the payment itself.
            // A refund may be refused late, and then it is to be collected.
            State::Reserved { .. }
            | State::Paid { .. }
            | State::Serving { .. }
            | State::Returned { .. } => Some(lapse.saturating_add(shared.timing.collectable)),
            State::Delivered { .. } | State::Declined { .. } => Some(lapse),
        }
    }
}

/// How long after its challenge a proof that was seen in time may be judged.
const SEEN: Duration = Duration::from_secs(24 * 3600);

/// A record together with the exact text it was read as or written as, which is what a swap
/// compares.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) text: String,
    pub(crate) record: Record,
}

impl Shared {
    /// The record of a challenge.
    pub(crate) async fn record(&self, id: &str) -> Result<Option<Stored>, Fault> {
        match self.store.get(&pay_key(id)).await? {
            None => Ok(None),
            Some(text) => Ok(Some(Stored {
                record: Record::decode(&text)?,
                text,
            })),
        }
    }

    /// Whether a record still is what it was. Then whatever was seen before this look and names
    /// another of the payment's reservations was left by an earlier one; otherwise the earlier one
    /// may be us.
    pub(crate) async fn stands(&self, id: &str, stored: &Stored) -> Result<bool, Fault> {
        let current = self.record(id).await?;
        Ok(current.is_some_and(|current| current.text == stored.text))
    }

    /// Replaces a record, if it still is what it was. `None`: somebody else was faster.
    pub(crate) async fn advance(
        &self,
        id: &str,
        from: Option<&Stored>,
        to: Record,
    ) -> Result<Option<Stored>, Fault> {
        let text = to.encode()?;
        let expected = from.map(|stored| stored.text.as_str());
        let keep = to.keep(self);
        let key = pay_key(id);
        // A text names its reservation, its attempt or its holder, or means the same from anybody.
        let swap = self.swap_own(&key, expected, &text, keep);
        let swapped = effect!(to.state.effect(), swap.await)?;
        Ok(swapped.then_some(Stored { text, record: to }))
    }
}

/// Who may collect a payment: whoever presents the very same proof.
pub(crate) fn fingerprint(credential: &Credential) -> String {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    use sha2::{Digest as _, Sha256};
    let source = credential.source.as_deref().unwrap_or_default();
    let digest = Sha256::new()
        .chain_update((source.len() as u64).to_be_bytes())
        .chain_update(source)
        .chain_update(credential.payload.get())
        .finalize();
    URL_SAFE_NO_PAD.encode(digest)
}
