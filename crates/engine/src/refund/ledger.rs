//! What is written down about a payment of which money goes back: one record per payment, so that
//! one swap keeps the sum of its refunds within what was charged.

use farebox_core::{Fault, RefundOrder, wire::Amount};
use serde::{Deserialize, Serialize};

use crate::engine::Shared;

/// `back:<method>:<reference>`, kept for ever: a refund must never be repeated.
pub(super) const BACK: &str = "back:";
/// `owed:<method>:<reference>`: the reconciler's list.
pub(super) const OWED: &str = "owed:";

/// The part of both keys that names the payment. A method's name has no line breaks to hide in.
pub(super) fn name_of(method: &str, reference: &str) -> String {
    format!("{method}:{reference}")
}

/// A payment and its refunds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Ledger {
    /// The method's name, by which its settler is found again.
    pub(super) method: String,
    pub(super) reference: String,
    /// Base units.
    pub(super) charged: Amount,
    pub(super) currency: String,
    pub(super) decimals: u8,
    /// What others gave back, as of the last refund from here.
    pub(super) elsewhere: Amount,
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
    Refused { why: String },
}

impl Ledger {
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
    pub(super) async fn ledger_of(
        &self,
        method: &str,
        reference: &str,
    ) -> Result<Option<Stored>, Fault> {
        let key = format!("{BACK}{}", name_of(method, reference));
        match self.store.get(&key).await? {
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
        let key = format!("{BACK}{}", name_of(&ledger.method, &ledger.reference));
        let expected = from.map(|stored| stored.text.as_str());
        let swapped = self.swap_own(&key, expected, &text, None).await?;
        Ok(swapped.then_some(Stored { text, ledger }))
    }
}

pub(super) fn read(text: &str) -> Result<Ledger, Fault> {
    serde_json::from_str(text)
        .map_err(|e| Fault::new("reading a refund of another version").caused_by(e))
}
