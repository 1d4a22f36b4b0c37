//! Selection, budget, payment.

use std::{
    cmp::Reverse,
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use farebox_core::{
    Approved, Budget, Cost, IntentSpec, PayError, Payer, Paying, Reservation, TypedPayer, Wallet,
    wire::{AcceptPayment, Challenge, Credential, OfferId, Timestamp},
};

use crate::{
    error::{ClientError, Reason, Skipped},
    origin::Origin,
    payment::Payment,
};

/// Wallets and the budget they share. Clones spend the same budget.
#[derive(Clone)]
pub struct Purse {
    payers: Vec<Arc<dyn Payer>>,
    budget: Budget,
    preference: Option<AcceptPayment>,
    /// What one request says that it accepts.
    accepting: Option<AcceptPayment>,
    clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    paid: Arc<Mutex<Paid>>,
}

/// Challenges paid so far, by origin and id, until the Unix millisecond they are of no more use.
type Paid = HashMap<(String, String), i64>;

/// How long a challenge without an expiry is remembered.
const REMEMBER: Duration = Duration::from_secs(24 * 3600);

/// What becomes of a challenge that is not paid.
enum Stop {
    /// The next one may be tried.
    Skip(Reason),
    /// Nothing else may be paid.
    Halt(ClientError),
}

impl From<Reason> for Stop {
    fn from(reason: Reason) -> Self {
        Self::Skip(reason)
    }
}

impl Purse {
    /// A purse without wallets.
    #[must_use]
    pub fn new(budget: Budget) -> Self {
        Self {
            payers: Vec::new(),
            budget,
            preference: None,
            accepting: None,
            clock: Arc::new(Timestamp::now),
            paid: Arc::default(),
        }
    }

    /// With a wallet.
    #[must_use]
    pub fn wallet<I: IntentSpec, W: Wallet<I>>(self, wallet: W) -> Self {
        self.payer(Arc::new(TypedPayer::<W, I>::new(wallet)))
    }

    /// With a wallet behind its object-safe face. Of two for one offer, the first that can pays.
    #[must_use]
    pub fn payer(mut self, payer: Arc<dyn Payer>) -> Self {
        self.payers.push(payer);
        self
    }

    /// Pays by these weights: heaviest first, and never what they exclude or leave out. Without
    /// them the server's order decides.
    #[must_use]
    pub fn prefer(mut self, preference: AcceptPayment) -> Self {
        self.preference = Some(preference);
        self
    }

    /// The same purse for one request that says for itself what it accepts: what it excludes or
    /// leaves out is not paid, and its weights come first.
    #[must_use]
    pub fn accepting(&self, accept: AcceptPayment) -> Self {
        Self {
            accepting: Some(accept),
            ..self.clone()
        }
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

    /// The offers that have a wallet and are wanted, each once.
    #[must_use]
    pub fn offers(&self) -> Vec<OfferId> {
        let mut offers = Vec::new();
        for payer in &self.payers {
            let offer = payer.offer();
            if self.quality(&offer) > 0 && !offers.contains(&offer) {
                offers.push(offer);
            }
        }
        offers
    }

    /// What to send as `Accept-Payment`: the [`offers`](Self::offers) with their weights. `None`
    /// if there is nothing to pay with, since an empty list cannot be said.
    #[must_use]
    pub fn accept(&self) -> Option<AcceptPayment> {
        let offers: Vec<(String, u16)> = self
            .offers()
            .iter()
            .map(|offer| (offer.to_string(), self.quality(offer)))
            .collect();
        let ranges = offers
            .iter()
            .map(|(range, quality)| (range.as_str(), *quality));
        AcceptPayment::from_ranges(ranges).ok()
    }

    /// Pays one of `challenges`, which `origin` sent: by own preference, then in the server's
    /// order, skipping those that cannot be paid.
    ///
    /// Dropping the future while a wallet pays leaves the amount counted and the challenge marked
    /// as paid.
    ///
    /// # Errors
    /// Says for each challenge why it was not paid; see [`ClientError`].
    pub async fn pay(
        &self,
        challenges: &[Challenge],
        origin: &Origin,
    ) -> Result<Payment, ClientError> {
        if !origin.is_secure() {
            return Err(ClientError::InsecureOrigin(origin.clone()));
        }
        let mut ranked: Vec<(OfferId, &Challenge)> = challenges
            .iter()
            .map(|challenge| (challenge.offer(), challenge))
            .collect();
        ranked.sort_by_key(|(offer, _)| Reverse(self.rank(offer)));
        let mut skipped = Vec::new();
        for (offer, challenge) in ranked {
            let mut skip = |reason| {
                skipped.push(Skipped {
                    offer: offer.clone(),
                    reason,
                })
            };
            if self.rank(&offer).is_none() {
                skip(Reason::NotWanted);
                continue;
            }
            let mut known = false;
            for payer in &self.payers {
                if payer.offer() != offer {
                    continue;
                }
                known = true;
                match self.pay_with(payer.as_ref(), challenge, origin).await {
                    Ok(payment) => return Ok(payment),
                    Err(Stop::Skip(reason)) => skip(reason),
                    Err(Stop::Halt(error)) => return Err(error),
                }
            }
            if !known {
                skip(Reason::NoWallet);
            }
        }
        Err(ClientError::NothingPayable(skipped))
    }

    fn quality(&self, offer: &OfferId) -> u16 {
        self.preference
            .as_ref()
            .map_or(1000, |preference| preference.quality(offer))
    }

    /// What ranks an offer: the request's weight, then the purse's. `None` if either does not want
    /// it.
    fn rank(&self, offer: &OfferId) -> Option<(u16, u16)> {
        let request = self.accepting.as_ref();
        let request = request.map_or(1000, |accept| accept.quality(offer));
        let own = self.quality(offer);
        (request > 0 && own > 0).then_some((request, own))
    }

    fn in_time(&self, challenge: &Challenge) -> Result<(), Reason> {
        match &challenge.expires {
            // `expires == now` is expired.
            Some(expires) if expires.unix_millis() <= (self.clock)().unix_millis() => {
                Err(Reason::Expired)
            }
            _ => Ok(()),
        }
    }

    async fn pay_with(
        &self,
        payer: &dyn Payer,
        challenge: &Challenge,
        origin: &Origin,
    ) -> Result<Payment, Stop> {
        self.in_time(challenge)?;
        let cx = Paying::new(challenge, Some(origin.host()));
        let cost = payer.price(&cx).map_err(|error| stop(challenge, error))?;
        if !payer.funded(&cost).await {
            return Err(Reason::NotFunded(cost).into());
        }
        let (approved, reservation) = self
            .budget
            .approve(cost.clone())
            .map_err(Reason::OverBudget)?;
        // Asking for funds may have taken a while.
        let claim = self
            .in_time(challenge)
            .and_then(|()| self.claim(challenge, origin));
        let claim = match claim {
            Ok(claim) => claim,
            Err(reason) => {
                reservation.release();
                return Err(reason.into());
            }
        };
        self.spend(payer, &cx, cost, (approved, reservation), claim)
            .await
    }

    /// The step that moves money.
    async fn spend(
        &self,
        payer: &dyn Payer,
        cx: &Paying<'_>,
        cost: Cost,
        (approved, reservation): (Approved, Reservation),
        claim: (String, String),
    ) -> Result<Payment, Stop> {
        match payer.pay(cx, approved).await {
            Ok(paid) => {
                let challenge = cx.challenge.clone();
                let credential = Credential {
                    challenge,
                    payload: paid.payload,
                    source: paid.source,
                };
                Ok(Payment::new(credential, cost, reservation))
            }
            // The reservation is dropped, not released: the money may be gone.
            Err(error @ PayError::Unknown(_)) => Err(stop(cx.challenge, error)),
            Err(error) => {
                reservation.release();
                self.paid().remove(&claim);
                Err(stop(cx.challenge, error))
            }
        }
    }

    fn paid(&self) -> MutexGuard<'_, Paid> {
        // Each critical section leaves whole entries, so a panic elsewhere does not spoil them.
        self.paid.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Marks the challenge as paid. Ids are unique per server only.
    fn claim(&self, challenge: &Challenge, origin: &Origin) -> Result<(String, String), Reason> {
        let now = (self.clock)();
        let until = challenge
            .expires
            .clone()
            .unwrap_or_else(|| now.plus(REMEMBER))
            .unix_millis();
        let claim = (origin.to_string(), challenge.id.clone());
        let mut paid = self.paid();
        paid.retain(|_, until| *until > now.unix_millis());
        if paid.contains_key(&claim) {
            return Err(Reason::AlreadyPaid);
        }
        paid.insert(claim.clone(), until);
        Ok(claim)
    }
}

fn stop(challenge: &Challenge, error: PayError) -> Stop {
    match error {
        PayError::Unsupported(why) | PayError::Refused(why) => Reason::Refused(why).into(),
        PayError::NotPaid(fault) => Reason::NotPaid(fault).into(),
        PayError::Unknown(fault) => Stop::Halt(ClientError::OutcomeUnknown {
            offer: challenge.offer(),
            fault,
        }),
    }
}

impl fmt::Debug for Purse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let offers: Vec<String> = self.payers.iter().map(|p| p.offer().to_string()).collect();
        f.debug_struct("Purse")
            .field("wallets", &offers)
            .field("budget", &self.budget)
            .finish_non_exhaustive()
    }
}
