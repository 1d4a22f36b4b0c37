//! How much may be put into a channel.

use farebox_core::wire::Amount;

/// What channels in one currency may hold and cost, in base units.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DepositLimit {
    currency: String,
    max_deposit: Amount,
    deposit: Option<Amount>,
    top_up: Option<Amount>,
    per_call: Option<Amount>,
}

impl DepositLimit {
    /// Channels in `currency` (`"sat"`, a token's address) hold at most `max_deposit`, top-ups
    /// included, and nothing beyond it is ever signed.
    pub fn new(currency: impl Into<String>, max_deposit: Amount) -> Self {
        Self {
            currency: currency.into(),
            max_deposit,
            deposit: None,
            top_up: None,
            per_call: None,
        }
    }

    /// Opens with this much rather than with what the server suggests.
    #[must_use]
    pub fn deposit(mut self, amount: Amount) -> Self {
        self.deposit = Some(amount);
        self
    }

    /// Tops up by this much at least, or to the maximum; otherwise by as much as the channel was
    /// opened with.
    #[must_use]
    pub fn top_up(mut self, amount: Amount) -> Self {
        self.top_up = Some(amount);
        self
    }

    /// One call, however long its stream, costs at most this.
    #[must_use]
    pub fn per_call(mut self, amount: Amount) -> Self {
        self.per_call = Some(amount);
        self
    }

    pub(crate) fn is_for(&self, currency: &str) -> bool {
        self.currency.eq_ignore_ascii_case(currency)
    }

    pub(crate) fn max_deposit(&self) -> Amount {
        self.max_deposit
    }

    pub(crate) fn opening(&self, suggested: Option<Amount>, least: Amount) -> Amount {
        let wish = self.deposit.or(suggested).unwrap_or(least);
        wish.max(least).min(self.max_deposit)
    }

    /// How much to add to `deposit` so that it holds `needed` at least.
    pub(crate) fn adding(&self, deposit: Amount, opened: Amount, needed: Amount) -> Amount {
        let room = self.max_deposit.get().saturating_sub(deposit.get());
        let least = needed.get().saturating_sub(deposit.get());
        let wish = self.top_up.unwrap_or(opened).get();
        Amount::new(wish.max(least).min(room))
    }

    pub(crate) fn most_per_call(&self) -> Option<Amount> {
        self.per_call
    }

    pub(crate) fn allows_call(&self, cost: Amount) -> Result<(), Amount> {
        match self.per_call {
            Some(limit) if cost > limit => Err(limit),
            _ => Ok(()),
        }
    }
}
