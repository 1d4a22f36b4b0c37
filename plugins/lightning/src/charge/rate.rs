//! Prices in a currency: what a bitcoin costs comes from a source that the seller supplies, and a
//! price in sats is fixed with each challenge.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use farebox_core::Fault;
use farebox_wire::{Amount, Timestamp};

/// Decimals that prices and amounts are reckoned with: a bitcoin has eight.
const DECIMALS: u8 = 8;
const SATS_PER_BITCOIN: u128 = 100_000_000;

/// What a bitcoin costs.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rate {
    /// In the currency, in units of 10⁻⁸.
    price: u128,
    /// Until when prices may be computed from it, and invoices at such a price be paid.
    pub valid_until: Timestamp,
}

impl Rate {
    /// `per_bitcoin` is a decimal with at most eight decimals: `"64250.50"`. `None` for anything
    /// else, and for 0.
    #[must_use]
    pub fn new(per_bitcoin: &str, valid_until: Timestamp) -> Option<Self> {
        let price = Amount::from_decimal(per_bitcoin, DECIMALS).ok()?.get();
        (price > 0).then_some(Self { price, valid_until })
    }

    /// What an amount comes to, in sats, rounded up; `None` if it is not an amount, or 0, or more
    /// than can be reckoned.
    #[must_use]
    pub fn sats(&self, amount: &str) -> Option<Amount> {
        let amount = read(amount)?;
        let sats = amount.checked_mul(SATS_PER_BITCOIN)?.div_ceil(self.price);
        Some(Amount::new(sats))
    }
}

/// An amount of a currency in units of 10⁻⁸; `None` if it is none, or 0.
pub(crate) fn read(amount: &str) -> Option<u128> {
    let amount = Amount::from_decimal(amount, DECIMALS).ok()?.get();
    (amount > 0).then_some(amount)
}

/// Knows what a bitcoin costs. Asked when a rate is about to lapse, not for each challenge.
#[async_trait]
pub trait RateSource: Send + Sync + 'static {
    /// Whether it knows a currency, in lower case: `usd`. Asked when a server starts.
    fn knows(&self, currency: &str) -> bool;

    /// What a bitcoin costs in a currency, and how long that holds. A rate that does not hold for
    /// some minutes is too short for a payer.
    async fn rate(&self, currency: &str) -> Result<Rate, Fault>;
}

/// A function is a source that knows every currency, and says so when it is asked.
#[async_trait]
impl<F> RateSource for F
where
    F: Fn(&str) -> Result<Rate, Fault> + Send + Sync + 'static,
{
    fn knows(&self, _: &str) -> bool {
        true
    }

    async fn rate(&self, currency: &str) -> Result<Rate, Fault> {
        self(currency)
    }
}

/// A rate with when it came.
#[derive(Clone)]
struct Kept {
    rate: Rate,
    since: i64,
}

/// A source whose rates are used for the first half of their validity, so that every price holds
/// for at least the other half.
pub(crate) struct Rates {
    source: Arc<dyn RateSource>,
    kept: Mutex<HashMap<String, Kept>>,
}

impl fmt::Debug for Rates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Rates")
    }
}

impl Rates {
    pub(crate) fn new(source: Arc<dyn RateSource>) -> Self {
        Self {
            source,
            kept: Mutex::default(),
        }
    }

    pub(crate) fn knows(&self, currency: &str) -> bool {
        self.source.knows(currency)
    }

    pub(crate) async fn rate(&self, currency: &str, now: &Timestamp) -> Result<Rate, Fault> {
        let at = now.unix_millis();
        let kept = || self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let known = kept().get(currency).cloned();
        if let Some(Kept { rate, since }) = known
            && at >= since
            && at - since <= (rate.valid_until.unix_millis() - since) / 2
        {
            return Ok(rate);
        }
        let rate = self.source.rate(currency).await?;
        if rate.valid_until <= *now {
            return Err(Fault::unavailable("finding a rate that still holds"));
        }
        let fresh = Kept {
            rate: rate.clone(),
            since: at,
        };
        kept().insert(currency.to_owned(), fresh);
        Ok(rate)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
    use std::time::Duration;

    use super::*;

    /// The seller is never paid less than the price, and nothing is reckoned in floats.
    #[test]
    fn sats_are_rounded_up() {
        let rate = |price| Rate::new(price, Timestamp::now());
        let sats = |price, amount| rate(price).unwrap().sats(amount).map(Amount::get);
        assert_eq!(sats("50000", "0.50"), Some(1_000));
        assert_eq!(sats("64250.50", "0.01"), Some(16));
        assert_eq!(sats("100000000", "0.00000001"), Some(1));
        assert_eq!(sats("0.00000001", "1"), Some(10_000_000_000_000_000));
        for bad in ["", "0", "-1", "1e5", "NaN", "0.000000001"] {
            assert!(rate(bad).is_none(), "{bad}");
            assert_eq!(sats("1", bad), None, "{bad}");
        }
    }

    /// A rate is asked for once for the first half of its validity, and never used beyond it.
    #[tokio::test]
    async fn a_rate_is_kept_for_half_its_validity() {
        static ASKED: AtomicU32 = AtomicU32::new(0);
        static START: i64 = 1_000_000;
        let at = |seconds: i64| Timestamp::from_unix_millis(START + seconds * 1_000);
        let rates = Rates::new(Arc::new(move |_: &str| {
            let n = ASKED.fetch_add(1, SeqCst);
            let until = at(60 + 31 * i64::from(n));
            Rate::new("50000", until).ok_or_else(|| Fault::new("a rate"))
        }));
        for (now, asked) in [(0, 1), (30, 1), (31, 2), (46, 2)] {
            let rate = rates.rate("usd", &at(now)).await.unwrap();
            assert_eq!(ASKED.load(SeqCst), asked, "at {now} s");
            let left = rate.valid_until.unix_millis() - at(now).unix_millis();
            assert!(left >= Duration::from_secs(30).as_millis() as i64);
        }
        assert!(rates.rate("usd", &at(500)).await.is_err(), "a lapsed rate");
    }
}
