//! What an operator reads to match payments with what the rails say. Nothing in it pays or collects.

use std::time::Duration;

use farebox_core::{
    Fault, Refund,
    wire::{Amount, OfferId, Timestamp},
};
use serde::{Serialize, Serializer};

use crate::{
    account::Account,
    engine::Engine,
    record::{CHANNEL, PAY, Record, State},
};

/// Where a payment stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Standing {
    /// Claimed, and nothing was attempted; or seen in time and not judged yet, as its rail or its
    /// client was away.
    Reserved,
    /// Money may have moved; the rail's lookup decides.
    Attempted,
    /// Money is in and nothing was served for it yet.
    Paid,
    /// Money is in and somebody is being served this moment, or a process died serving.
    Serving,
    /// Money is in and was served for.
    Delivered,
    /// All of the money goes back, or went, and nothing was served for it.
    Returned,
    /// The money did not move.
    Declined,
}

impl Standing {
    /// As it is serialised: `attempted`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reserved => "reserved",
            Self::Attempted => "attempted",
            Self::Paid => "paid",
            Self::Serving => "serving",
            Self::Delivered => "delivered",
            Self::Returned => "returned",
            Self::Declined => "declined",
        }
    }
}

impl std::fmt::Display for Standing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// One payment. Serialised in camel case with every member present; absent ones are `null`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Entry {
    /// Names the payment. Where a challenge carries several (a session's), the challenge's id and
    /// a short suffix.
    pub id: String,
    /// The name its rail goes by on this server: `tempo/charge`, or what the configuration says.
    pub method: String,
    /// The wire pair, `tempo/charge`.
    pub offer: OfferId,
    /// Where it stands.
    pub state: Standing,
    /// Base units, as the challenge asked for.
    pub amount: Option<String>,
    /// As the challenge named it.
    pub currency: Option<String>,
    /// What the rail calls the movement of money, once it has moved.
    pub reference: Option<String>,
    /// What of it went back, in base units; see [`Engine::refunds`].
    pub refunded: Option<Amount>,
    /// The seller's own reference.
    pub external_id: Option<String>,
    /// The challenge that was paid.
    pub challenge_id: String,
    /// When the credential first came.
    pub presented: Timestamp,
    /// When the challenge lapses.
    pub expires: Timestamp,
    /// How long ago the credential first came; whole seconds, as `ageSeconds`.
    #[serde(rename = "ageSeconds", serialize_with = "seconds")]
    pub age: Duration,
}

/// One channel's balance, in the rail's base units.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct ChannelEntry {
    /// The rail that the channel is on.
    pub rail: String,
    /// The rail's name for the channel.
    pub id: String,
    /// What the payer has put in.
    pub deposit: Amount,
    /// What the payer has signed over so far.
    pub authorized: Amount,
    /// What has been served, without what streams hold.
    pub spent: Amount,
    /// What streams hold this moment.
    pub held: Amount,
    /// Units of service served.
    pub units: u64,
    /// What is the seller's for good.
    pub settled: Amount,
    /// What has gone back to the payer.
    pub refunded: Amount,
    /// Of a closed channel, what is neither: still to be given back, or a refund that failed.
    pub owed: Amount,
    /// What became of the refund, where one was due.
    pub refund: Refund,
    /// The payer closes it by force.
    pub close_requested: bool,
    /// A close is under way.
    pub closing: bool,
    /// Closed for good.
    pub closed: bool,
}

fn seconds<S: Serializer>(span: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(span.as_secs())
}

impl Engine {
    /// Every payment the store still has, in the order they were presented.
    ///
    /// One scan: while it runs, the records are in memory. A payment that moves meanwhile is shown
    /// as it was or as it is. A record that another version wrote is left out, and logged.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn books(&self) -> Result<Vec<Entry>, Fault> {
        let now = self.shared.clock.millis();
        let records = self.shared.store.scan(PAY).await?;
        let mut entries = Vec::with_capacity(records.len());
        let mut unreadable = 0_usize;
        // By value, so that each record's text is gone before the next is read.
        for (key, text) in records {
            match Record::decode(&text) {
                Ok(record) => entries.push(Entry::of(&key[PAY.len()..], record, now)),
                Err(_) => unreadable += 1,
            }
        }
        if unreadable > 0 {
            tracing::warn!(
                unreadable,
                "records of another version are not in the books"
            );
        }
        for given in self.refunds().await? {
            let of = |entry: &&mut Entry| {
                entry.method == given.method && entry.reference.as_deref() == Some(&given.reference)
            };
            if let Some(entry) = entries.iter_mut().find(of) {
                entry.refunded = Some(given.refunded);
            }
        }
        entries.sort_by(|a, b| (&a.presented, &a.id).cmp(&(&b.presented, &b.id)));
        Ok(entries)
    }

    /// Every channel's balance, by rail and id.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn channels(&self) -> Result<Vec<ChannelEntry>, Fault> {
        let now = self.shared.clock.millis();
        let accounts = self.shared.store.scan(CHANNEL).await?;
        let mut entries = Vec::with_capacity(accounts.len());
        for (key, text) in accounts {
            let account = Account::decode(&text)?;
            entries.push(ChannelEntry::of(&key[CHANNEL.len()..], account, now));
        }
        entries.sort_by(|a, b| (&a.rail, &a.id).cmp(&(&b.rail, &b.id)));
        Ok(entries)
    }
}

/// How much of a fingerprint tells a challenge's payments apart.
const SUFFIX: usize = 8;

impl Entry {
    fn of(id: &str, record: Record, now: i64) -> Self {
        let (state, receipt) = match &record.state {
            State::Reserved { .. } => (Standing::Reserved, None),
            State::Attempted { .. } => (Standing::Attempted, None),
            State::Paid { receipt } => (Standing::Paid, Some(receipt)),
            State::Serving { receipt, .. } => (Standing::Serving, Some(receipt)),
            State::Delivered { receipt, .. } => (Standing::Delivered, Some(receipt)),
            State::Returned { receipt, .. } => (Standing::Returned, Some(receipt)),
            State::Declined { .. } => (Standing::Declined, None),
        };
        let age = now.saturating_sub(record.presented).max(0);
        Self {
            id: match id.split_once('.') {
                Some((challenge, print)) => {
                    format!("{challenge}.{}", print.get(..SUFFIX).unwrap_or(print))
                }
                None => id.to_owned(),
            },
            method: record.method.clone(),
            offer: record.offer.clone(),
            state,
            amount: record.amount.clone(),
            currency: record.currency.clone(),
            reference: receipt.map(|receipt| receipt.reference.clone()),
            refunded: None,
            external_id: record.external_id.clone(),
            challenge_id: record.challenge.clone(),
            presented: Timestamp::from_unix_millis(record.presented),
            expires: Timestamp::from_unix_millis(record.expires),
            age: Duration::from_millis(age.unsigned_abs()),
        }
    }
}

impl ChannelEntry {
    fn of(name: &str, account: Account, now: i64) -> Self {
        // `ChannelId`'s stored form: the rail's length, the rail, the id.
        let named = name.split_once(':').and_then(|(length, rest)| {
            let (rail, id) = rest.split_at_checked(length.parse().ok()?)?;
            Some((rail, id.strip_prefix(':')?))
        });
        let (rail, id) = named.unwrap_or(("", name));
        Self {
            rail: rail.to_owned(),
            id: id.to_owned(),
            held: Amount::new(account.leased(now)),
            units: account.state.units,
            settled: account.state.settled,
            refunded: account.state.refunded,
            owed: match account.state.closed {
                true => account.state.unaccounted(),
                false => Amount::new(0),
            },
            refund: account.state.refund,
            close_requested: account.state.close_requested,
            closing: account.is_closing(now),
            deposit: account.state.deposit,
            authorized: account.state.authorized,
            spent: account.state.spent,
            closed: account.state.closed,
        }
    }
}
