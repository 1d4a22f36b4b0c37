//! The latest debits of a channel, so that one whose write lost its reply knows itself.

use serde::{Deserialize, Serialize};

/// How many are remembered at least, and at most while they may still be looked for.
const REMEMBERED: usize = 16;
const AT_MOST: usize = 256;

/// Names of debits and when they were counted, Unix milliseconds; the oldest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Debits(Vec<(String, i64)>);

impl Debits {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn has(&self, op: &str) -> bool {
        self.0.iter().any(|(debit, _)| debit == op)
    }

    /// Remembers `op`, and forgets those from before `horizon`, which nobody looks for any more.
    pub(crate) fn remember(&mut self, op: &str, now: i64, horizon: i64) {
        let spare = (self.0.len() + 1).saturating_sub(REMEMBERED);
        let lapsed = self.0.iter().take(spare);
        let lapsed = lapsed.take_while(|(_, at)| *at < horizon).count();
        let over = (self.0.len() + 1).saturating_sub(AT_MOST);
        self.0.drain(..lapsed.max(over));
        self.0.push((op.to_owned(), now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protects: a busy channel keeps what may still be looked for, and never without bound.
    #[test]
    fn what_may_be_looked_for_is_kept() {
        let mut debits = Debits::default();
        for n in 0..40 {
            debits.remember(&n.to_string(), n, 10);
        }
        assert!(!debits.has("9"), "lapsed, and there are enough others");
        assert!(debits.has("10"));
        for n in 0..1_000 {
            debits.remember(&format!("late {n}"), 50, 0);
        }
        assert_eq!(debits.0.len(), AT_MOST);
        assert!(debits.has("late 999"));
    }
}
