//! What is written down about a payment of which money goes back: one record per payment, so that
//! one swap keeps the sum of its refunds within what was charged.

use farebox_core::{Fault, Method, Misnamed, RefundOrder, Refundable, wire::Amount};
use serde::{Deserialize, Serialize};

use crate::engine::Shared;

/// `back:<scope>:<reference>`, kept for ever: a refund must never be repeated.
pub(super) const BACK: &str = "back:";
/// `owed:<scope>:<reference>`: the reconciler's list.
pub(super) const OWED: &str = "owed:";

/// A payment's name, however it is spelled: the part of both keys that names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Name {
    /// Within what the reference is unique: its provider, or the method's name.
    pub(super) scope: String,
    pub(super) reference: String,
}

impl Name {
    pub(super) fn of(method: &dyn Method, reference: &str) -> Result<Self, Misnamed> {
        let name = method.settler().name_payment(reference)?;
        Ok(Self {
            scope: name.provider().unwrap_or(method.name()).to_owned(),
            reference: name.reference().to_owned(),
        })
    }

    pub(super) fn text(&self) -> String {
        format!("{}:{}", self.scope, self.reference)
    }
}

/// A payment and its refunds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Ledger {
    /// See [`Name`].
    pub(super) scope: String,
    pub(super) reference: String,
    /// The name of the method that gives back, by which its settler is found again. There is one,
    /// also where several could.
    pub(super) method: String,
    /// Base units.
    pub(super) charged: Amount,
    pub(super) currency: String,
    pub(super) decimals: u8,
    /// What others gave back, as of the last look.
    pub(super) elsewhere: Amount,
    /// The challenge of a payment that others gave back in full before it was served, now or once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) barred: Option<String>,
    pub(super) refunds: Vec<Giving>,
}

/// One refund.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Giving {
    /// What the operator calls it, or its amount.
    pub(super) name: String,
    /// A refund that was refused may be tried again, under another key.
    pub(super) attempt: u32,
    /// The challenge that was paid, where this refund leaves nothing of the payment: it must not be
    /// collected any more. A part leaves it collectable: the seller keeps some of the price.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) bars: Option<String>,
    pub(super) order: RefundOrder,
    pub(super) state: State,
}

/// Where a refund stands. Instants are Unix milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub(super) enum State {
    /// Money may have gone back; only the rail's lookup decides. Before `until` somebody is at it.
    Attempted { until: i64 },
    /// It went back.
    Done { reference: String },
    /// It did not.
    Refused {
        why: String,
        /// What the rail called it, where it was made and failed afterwards: that it was made may
        /// still be heard of late, and is no news.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        failed: Option<String>,
    },
}

impl Ledger {
    /// The record of a payment of which nothing went back from here.
    pub(super) fn new(method: &dyn Method, name: &Name, now: &Refundable) -> Self {
        Self {
            scope: name.scope.clone(),
            reference: name.reference.clone(),
            method: method.name().to_owned(),
            charged: now.charged,
            currency: now.currency.clone(),
            decimals: now.decimals,
            elsewhere: Amount::new(0),
            barred: None,
            refunds: Vec::new(),
        }
    }

    pub(super) fn name(&self) -> Name {
        Name {
            scope: self.scope.clone(),
            reference: self.reference.clone(),
        }
    }

    /// Takes over what the rail has beyond ours. Right where nothing of ours is undecided.
    pub(super) fn count_elsewhere(&mut self, now: &Refundable) {
        let others = now.refunded.get().saturating_sub(self.done());
        self.elsewhere = Amount::new(others);
    }

    /// The refund that is not decided, if there is one. There is never a second.
    pub(super) fn open(&self) -> Option<&Giving> {
        let open = |giving: &&Giving| matches!(giving.state, State::Attempted { .. });
        self.refunds.iter().find(open)
    }

    pub(super) fn named(&self, name: &str) -> Option<&Giving> {
        self.refunds.iter().find(|giving| giving.name == name)
    }

    /// What went back from here for sure.
    pub(super) fn done(&self) -> u128 {
        let done = |giving: &&Giving| matches!(giving.state, State::Done { .. });
        let amounts = self.refunds.iter().filter(done);
        amounts.map(|giving| giving.order.amount.get()).sum()
    }

    /// What of the charge is neither given back nor may have been.
    pub(super) fn left(&self) -> Amount {
        let open = self.open().map_or(0, |giving| giving.order.amount.get());
        let gone = self.done() + open + self.elsewhere.get();
        Amount::new(self.charged.get().saturating_sub(gone))
    }

    /// The same with `giving` in the place of the one of its name.
    pub(super) fn with(&self, giving: Giving) -> Self {
        let mut next = self.clone();
        next.refunds.retain(|known| known.name != giving.name);
        next.refunds.push(giving);
        next
    }
}

/// A ledger and the exact text it was read as, which is what a swap compares.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) text: String,
    pub(super) ledger: Ledger,
}

impl Shared {
    /// The refunds of a payment.
    pub(super) async fn ledger_of(&self, name: &Name) -> Result<Option<Stored>, Fault> {
        self.ledger_at(&name.text()).await
    }

    /// The same, by the name's text.
    pub(super) async fn ledger_at(&self, name: &str) -> Result<Option<Stored>, Fault> {
        match self.store.get(&[BACK, name].concat()).await? {
            None => Ok(None),
            Some(text) => Ok(Some(Stored {
                ledger: read(&text)?,
                text,
            })),
        }
    }

    /// Replaces a ledger, if it still is what it was. `None`: somebody else was faster.
    pub(super) async fn rewrite(
        &self,
        from: Option<&Stored>,
        ledger: Ledger,
    ) -> Result<Option<Stored>, Fault> {
        let unwritten = |e| Fault::new("serialising a refund").caused_by(e);
        let text = serde_json::to_string(&ledger).map_err(unwritten)?;
        let key = [BACK, &ledger.name().text()].concat();
        let expected = from.map(|stored| stored.text.as_str());
        let swapped = self.swap_own(&key, expected, &text, None).await?;
        Ok(swapped.then_some(Stored { text, ledger }))
    }
}

pub(super) fn read(text: &str) -> Result<Ledger, Fault> {
    serde_json::from_str(text)
        .map_err(|e| Fault::new("reading a refund of another version").caused_by(e))
}
