//! Session wallets, limits and the channels they have open.

use std::{
    collections::HashMap,
    fmt, slice,
    sync::{Arc, Mutex, PoisonError},
};

use farebox_core::{
    Budget, Paying, SessionPayer, SessionPrice, SessionWallet, Store, TypedSessionPayer,
    wire::{AcceptPayment, Amount, Challenge, OfferId, Timestamp},
};

use super::{
    call::Call,
    error::SessionError,
    lane::Lane,
    limit::DepositLimit,
    record::{self, Phase, Record, key, plus},
};
use crate::origin::Origin;

/// Session wallets with a budget, limits and a channel store. Clones share them.
#[derive(Clone)]
pub struct Sessions {
    pub(crate) payers: Vec<Arc<dyn SessionPayer>>,
    pub(crate) budget: Budget,
    pub(crate) store: Arc<dyn Store>,
    limits: Vec<DepositLimit>,
    pub(crate) ahead: u64,
    pub(crate) per_event: u64,
    clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    lanes: Arc<Mutex<HashMap<String, Arc<Lane>>>>,
}

/// A challenge that can be paid from a session.
pub(crate) struct Payable {
    pub challenge: Challenge,
    pub payer: Arc<dyn SessionPayer>,
    pub price: SessionPrice,
    pub limit: DepositLimit,
}

impl Sessions {
    /// Sessions without wallets, whose channels are kept in `store`. Any store will do; one that
    /// forgets loses sight of the deposits.
    #[must_use]
    pub fn new(budget: Budget, store: Arc<dyn Store>) -> Self {
        Self {
            payers: Vec::new(),
            budget,
            store,
            limits: Vec::new(),
            ahead: 1,
            per_event: 1,
            clock: Arc::new(Timestamp::now),
            lanes: Arc::default(),
        }
    }

    /// With a wallet.
    #[must_use]
    pub fn wallet<W: SessionWallet>(self, wallet: W) -> Self {
        self.payer(Arc::new(TypedSessionPayer::new(wallet)))
    }

    /// With a wallet behind its object-safe face.
    #[must_use]
    pub fn payer(mut self, payer: Arc<dyn SessionPayer>) -> Self {
        self.payers.push(payer);
        self
    }

    /// Deposits in the limit's currency, which without one are not made.
    #[must_use]
    pub fn limit(mut self, limit: DepositLimit) -> Self {
        self.limits.push(limit);
        self
    }

    /// Signs up to `units` ahead of what a stream has delivered; 1 unless set, and 1 at least. More
    /// saves round trips, and is lost if the server stops.
    #[must_use]
    pub fn ahead(mut self, units: u64) -> Self {
        self.ahead = units.max(1);
        self
    }

    /// What one event of a stream may cost at most, in units; 1 unless set, and 1 at least. For
    /// servers that charge events by their size.
    #[must_use]
    pub fn units_per_event(mut self, units: u64) -> Self {
        self.per_event = units.max(1);
        self
    }

    /// Where the time comes from, for tests.
    #[must_use]
    pub fn clock(mut self, clock: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// The budget.
    #[must_use]
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// What to send as `Accept-Payment`. `None` if there is no wallet.
    #[must_use]
    pub fn accept(&self) -> Option<AcceptPayment> {
        let mut offers: Vec<String> = Vec::new();
        for payer in &self.payers {
            let offer = payer.offer().to_string();
            if !offers.contains(&offer) {
                offers.push(offer);
            }
        }
        let ranges = offers.iter().map(|offer| (offer.as_str(), 1000));
        AcceptPayment::from_ranges(ranges).ok()
    }

    /// Starts a call that is paid from a session, for the first of `challenges` that can be.
    /// `resource` is where the channel can be closed later, and where its deposits are shown if
    /// their answers get lost; it is recorded, so it should hold no secrets.
    ///
    /// Nothing is signed yet.
    ///
    /// # Errors
    /// If `origin` must not be paid, or no challenge can be.
    pub fn begin(
        &self,
        challenges: &[Challenge],
        origin: &Origin,
        resource: &str,
    ) -> Result<Call, SessionError> {
        if !origin.is_secure() {
            return Err(SessionError::InsecureOrigin(origin.clone()));
        }
        let payable = self.payable(challenges, origin)?;
        Ok(Call::new(self, payable, origin, resource))
    }

    /// The first challenge that can be paid from the channel with this key; the first that can be
    /// paid at all, where there is none.
    pub(crate) fn payable_as(
        &self,
        channel: &str,
        challenges: &[Challenge],
        origin: &Origin,
    ) -> Result<Payable, SessionError> {
        let same = challenges.iter().find_map(|challenge| {
            let payable = self.payable(slice::from_ref(challenge), origin).ok()?;
            let method = &payable.payer.offer().method;
            (key(origin, method, &payable.price.reuse) == channel).then_some(payable)
        });
        same.map_or_else(|| self.payable(challenges, origin), Ok)
    }

    /// The first challenge that can be paid.
    pub(crate) fn payable(
        &self,
        challenges: &[Challenge],
        origin: &Origin,
    ) -> Result<Payable, SessionError> {
        let mut why = SessionError::NothingPayable("none is for a wallet".to_owned());
        for challenge in challenges {
            let offer: OfferId = challenge.offer();
            for payer in self.payers.iter().filter(|payer| payer.offer() == offer) {
                if self.is_expired(challenge) {
                    why = SessionError::NothingPayable("the challenge has expired".to_owned());
                    continue;
                }
                match payer.price(&Paying::new(challenge, Some(origin.host()))) {
                    Err(error) => why = SessionError::NothingPayable(error.to_string()),
                    Ok(price) => match self.limit_for(&price.unit.currency) {
                        Err(error) => why = error,
                        Ok(_) if self.is_leap(&price) => {
                            let (step, unit) = (price.min_delta, price.unit.amount);
                            why = SessionError::NothingPayable(format!(
                                "a voucher would have to be for {step} at least, and a unit costs \
                                 {unit}; `ahead` allows so much"
                            ));
                        }
                        Ok(limit) => {
                            return Ok(Payable {
                                challenge: challenge.clone(),
                                payer: payer.clone(),
                                price,
                                limit,
                            });
                        }
                    },
                }
            }
        }
        Err(why)
    }

    /// Whether the least step of a voucher is more than may be signed ahead of what was received.
    fn is_leap(&self, price: &SessionPrice) -> bool {
        let units = u128::from(self.ahead.max(self.per_event));
        price.min_delta.get() > price.unit.amount.get().saturating_mul(units)
    }

    fn limit_for(&self, currency: &str) -> Result<DepositLimit, SessionError> {
        let limits = self.limits.iter().filter(|limit| limit.is_for(currency));
        // Of several, the strictest.
        let limit = limits.min_by_key(|limit| limit.max_deposit());
        limit.cloned().ok_or_else(|| SessionError::NoLimit {
            currency: currency.to_owned(),
        })
    }

    /// `expires == now` is expired.
    pub(crate) fn is_expired(&self, challenge: &Challenge) -> bool {
        let expires = challenge.expires.as_ref();
        expires.is_some_and(|expires| expires.unix_millis() <= (self.clock)().unix_millis())
    }

    pub(crate) fn lane(&self, key: &str) -> Arc<Lane> {
        // Each critical section leaves whole entries, so a panic elsewhere does not spoil them.
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        lanes.entry(key.to_owned()).or_default().clone()
    }

    /// The channels on record, those of other processes that share the store included.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn channels(&self) -> Result<Vec<ChannelInfo>, SessionError> {
        let records = record::list(self.store.as_ref()).await?;
        Ok(records.into_iter().map(ChannelInfo::of).collect())
    }

    /// Gives up the channel that is on record under `key`: for one that can be neither used nor
    /// closed, because its server is gone or does not take a deposit that was made. The rail is told
    /// nothing and nothing comes back by it; the budget counts all that was deposited.
    ///
    /// # Errors
    /// If there is no such channel, or the store fails.
    pub async fn forget(&self, key: &str) -> Result<ChannelInfo, SessionError> {
        let lane = self.lane(key);
        let _turn = lane.alone().await;
        loop {
            let stored = record::load(self.store.as_ref(), key).await?;
            let stored = stored.ok_or(SessionError::NoChannel)?;
            if record::remove(self.store.as_ref(), key, &stored).await? {
                let channel = ChannelInfo::of((key.to_owned(), stored.record));
                lane.settle(&channel.channel, channel.at_stake());
                return Ok(channel);
            }
        }
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let offers: Vec<String> = self.payers.iter().map(|p| p.offer().to_string()).collect();
        f.debug_struct("Sessions")
            .field("wallets", &offers)
            .field("budget", &self.budget)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// A channel on record. Amounts are in base units.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChannelInfo {
    /// What [`Sessions::close`] knows it by.
    pub key: String,
    /// Its id on the wire.
    pub channel: String,
    /// The rail.
    pub method: String,
    /// Who serves it.
    pub origin: String,
    /// Where it can be closed.
    pub resource: String,
    /// In which currency.
    pub currency: String,
    /// What was put in.
    pub deposit: Amount,
    /// What a top-up under way adds to it.
    pub topping_up: Amount,
    /// What was signed over at most.
    pub signed: Amount,
    /// What was received, or is under way.
    pub due: Amount,
    /// `opening`, `open`, `topping-up` or `closing`. The first and the third mean that money may be
    /// on its way, or that a process ended then.
    pub phase: &'static str,
}

impl ChannelInfo {
    /// All that was put in, or may have been.
    #[must_use]
    pub fn at_stake(&self) -> Amount {
        plus(self.deposit, self.topping_up)
    }

    fn of((key, record): (String, Record)) -> Self {
        let topping_up = match record.phase.before() {
            Phase::ToppingUp { amount, .. } => *amount,
            _ => Amount::ZERO,
        };
        Self {
            key,
            topping_up,
            phase: match record.phase {
                Phase::Opening { .. } => "opening",
                Phase::Open => "open",
                Phase::ToppingUp { .. } => "topping-up",
                Phase::Closing { .. } => "closing",
            },
            channel: record.channel,
            method: record.method,
            origin: record.origin,
            resource: record.resource,
            currency: record.currency,
            deposit: record.deposit,
            signed: record.signed,
            due: record.due,
        }
    }
}
