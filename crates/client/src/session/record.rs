//! What is remembered of a channel, and how it changes.

use farebox_core::{
    Fault, Held, OpenChannel, Store,
    wire::{Amount, BodyDigest},
};
use serde::{Deserialize, Serialize};

use super::error::SessionError;
use crate::origin::Origin;

/// Where the records of channels are, in a store that holds other things too.
pub(crate) const PREFIX: &str = "session:";

/// Under which a channel is found again: who serves, by which rail, and what an open channel must
/// agree with. Hashed, since store keys are short.
pub(crate) fn key(origin: &Origin, method: &str, reuse: &str) -> String {
    let whole = format!("{origin}\n{method}\n{reuse}");
    format!("{PREFIX}{}", BodyDigest::of(whole.as_bytes()).as_str())
}

/// Where a channel stands. Written before the effect it names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "is")]
pub(crate) enum Phase {
    /// The deposit is about to be made, for the challenge (in its header form).
    Opening {
        challenge: String,
        /// How often it was taken up by others than who recorded it.
        #[serde(default, skip_serializing_if = "is_zero")]
        again: u32,
    },
    /// It can be spent from.
    Open,
    /// So it can, and `amount` more is about to be deposited, for the challenge of the resource `at`.
    ToppingUp {
        challenge: String,
        amount: Amount,
        at: String,
        #[serde(default, skip_serializing_if = "is_zero")]
        again: u32,
    },
    /// It was asked to be closed. `from` is how it stood before, where that was not open.
    Closing {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<Box<Phase>>,
    },
}

impl Phase {
    /// How it stands but for being asked to be closed.
    pub(crate) fn before(&self) -> &Self {
        match self {
            Self::Closing { from } => from.as_deref().unwrap_or(&Self::Open),
            phase => phase,
        }
    }

    /// The challenge of the deposit that is under way.
    pub(crate) fn challenge(&self) -> Option<&str> {
        match self.before() {
            Self::Opening { challenge, .. } | Self::ToppingUp { challenge, .. } => Some(challenge),
            _ => None,
        }
    }

    /// Whether the same top-up is under way, whoever makes it.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let what = |phase: &Self| match phase {
            Self::ToppingUp {
                challenge, amount, ..
            } => Some((challenge.clone(), *amount)),
            _ => None,
        };
        what(self).is_some() && what(self) == what(other)
    }

    /// Taken up by somebody else: who recorded it cannot say any more that it was not made.
    pub(crate) fn taken_up(&self) -> Self {
        let mut phase = self.clone();
        if let Self::Opening { again, .. } | Self::ToppingUp { again, .. } = &mut phase {
            *again = again.saturating_add(1);
        }
        phase
    }

    /// It is asked to be closed.
    pub(crate) fn closing(&self) -> Self {
        let from = self.before();
        Self::Closing {
            from: (*from != Self::Open).then(|| Box::new(from.clone())),
        }
    }
}

/// One channel. It holds what spends the money, so it has no `Debug`.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Of this layout.
    version: u32,
    pub origin: String,
    /// Where it was opened and can be closed.
    pub resource: String,
    pub method: String,
    pub currency: String,
    #[serde(default)]
    pub recipient: Option<String>,
    pub reuse: String,
    /// The channel's id on the wire.
    pub channel: String,
    pub deposit: Amount,
    pub held: Held,
    /// The highest cumulative amount that may have been signed.
    pub signed: Amount,
    /// What was received and what calls under way may cost: the most that need be signed.
    pub due: Amount,
    /// Of what is prepaid: calls of which it is not on record what they were served, because they are
    /// under way, here or elsewhere, or were cut short.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub uncertain: u32,
    #[serde(flatten)]
    pub phase: Phase,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// What [`Record::raise`] comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Raise {
    /// This cumulative amount is to be signed.
    To(Amount),
    /// The channel would have to hold this much.
    Short(Amount),
}

const VERSION: u32 = 1;

impl Record {
    /// A channel that is about to be opened.
    pub(crate) fn opening(
        (origin, resource): (&Origin, &str),
        method: &str,
        (currency, recipient, reuse): (String, Option<String>, String),
        channel: OpenChannel,
        due: Amount,
        challenge: String,
    ) -> Self {
        Self {
            version: VERSION,
            origin: origin.to_string(),
            resource: resource.to_owned(),
            method: method.to_owned(),
            currency,
            recipient,
            reuse,
            channel: channel.id,
            deposit: channel.deposit,
            held: channel.held,
            signed: due,
            due,
            uncertain: 0,
            phase: Phase::Opening {
                challenge,
                again: 0,
            },
        }
    }

    pub(crate) fn channel(&self) -> OpenChannel {
        OpenChannel {
            id: self.channel.clone(),
            deposit: self.deposit,
            held: self.held.clone(),
        }
    }

    /// Makes `more` due, and says what is to be signed so that all that is due is covered: never
    /// less than before, and never more than `cap` or the deposit.
    pub(crate) fn raise(&mut self, more: Amount, min_delta: Amount, cap: Amount) -> Raise {
        let due = plus(self.due, more);
        let room = self.deposit.min(cap);
        if due <= self.signed {
            self.due = due;
            return Raise::To(self.signed);
        }
        let target = due.max(plus(self.signed, min_delta));
        if target > room {
            return Raise::Short(target);
        }
        self.due = due;
        self.signed = target;
        Raise::To(target)
    }

    /// Takes back what was made due and not received.
    pub(crate) fn lower(&mut self, by: Amount) {
        self.due = minus(self.due, by);
    }

    fn read(text: &str) -> Result<Self, SessionError> {
        let record: Self = serde_json::from_str(text)
            // The error would quote the record.
            .map_err(|_| SessionError::Store(Fault::new("a channel's record cannot be read")))?;
        if record.version != VERSION {
            let why = "a channel's record is of another version";
            return Err(SessionError::Store(Fault::new(why)));
        }
        Ok(record)
    }

    fn write(&self) -> Result<String, SessionError> {
        serde_json::to_string(self)
            .map_err(|_| SessionError::Store(Fault::new("a channel's record cannot be written")))
    }
}

/// A sum that does not fit is over every limit.
pub(crate) fn plus(a: Amount, b: Amount) -> Amount {
    Amount::new(a.get().saturating_add(b.get()))
}

pub(crate) fn minus(a: Amount, b: Amount) -> Amount {
    Amount::new(a.get().saturating_sub(b.get()))
}

pub(crate) fn times(a: Amount, n: u64) -> Amount {
    Amount::new(a.get().saturating_mul(n.into()))
}

/// A record and the text it was read from, which the next write must find unchanged.
#[derive(Clone)]
pub(crate) struct Stored {
    pub record: Record,
    text: String,
}

pub(crate) async fn load(store: &dyn Store, key: &str) -> Result<Option<Stored>, SessionError> {
    let text = store.get(key).await.map_err(SessionError::Store)?;
    text.map(|text| {
        let record = Record::read(&text)?;
        Ok(Stored { record, text })
    })
    .transpose()
}

pub(crate) async fn list(store: &dyn Store) -> Result<Vec<(String, Record)>, SessionError> {
    let found = store.scan(PREFIX).await.map_err(SessionError::Store)?;
    let read = |(key, text): (String, String)| Ok((key, Record::read(&text)?));
    found.into_iter().map(read).collect()
}

/// Writes a channel where there is none. `false` if there is one.
pub(crate) async fn insert(
    store: &dyn Store,
    key: &str,
    record: &Record,
) -> Result<bool, SessionError> {
    let text = record.write()?;
    store
        .compare_and_swap(key, None, Some(&text), None)
        .await
        .map_err(SessionError::Store)
}

/// Forgets a channel as it was read. `false` if it has changed.
pub(crate) async fn remove(
    store: &dyn Store,
    key: &str,
    stored: &Stored,
) -> Result<bool, SessionError> {
    store
        .compare_and_swap(key, Some(&stored.text), None, None)
        .await
        .map_err(SessionError::Store)
}

/// Changes a channel, however many others do so at once. `change` sees the newest record.
pub(crate) async fn update<T: Send>(
    store: &dyn Store,
    key: &str,
    mut change: impl FnMut(&mut Record) -> Result<T, SessionError> + Send,
) -> Result<(Record, T), SessionError> {
    loop {
        let stored = load(store, key).await?.ok_or(SessionError::NoChannel)?;
        let mut next = stored.record.clone();
        let result = change(&mut next)?;
        let text = next.write()?;
        if text == stored.text {
            return Ok((next, result));
        }
        let swapped = store.compare_and_swap(key, Some(&stored.text), Some(&text), None);
        if swapped.await.map_err(SessionError::Store)? {
            return Ok((next, result));
        }
    }
}
