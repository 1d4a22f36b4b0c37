//! Finding a channel: on record, by what the server tells, or by opening one.

use std::time::Duration;

use farebox_core::{
    Adopted, Cost, DepositRule, Draft, Funded, Held, OpenChannel, PayError, Paying, Spending,
    Standing,
    wire::{Amount, Credential, Payload},
};

use super::{
    call::Call,
    courier::{Answer, Courier},
    error::SessionError,
    presentation::{Kind, Presentation},
    record::{self, Phase, Record, Stored, minus},
    recorded::{UNSHOWN, lost},
};

/// How long a deposit that another process records is left to it, before it is looked into.
const PATIENCE: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(50);

/// How often a recorded deposit is shown before its outcome counts as unknown.
const ATTEMPTS: u32 = 3;

/// What a call found to spend from.
pub(super) enum Found {
    /// A channel is open.
    Open,
    /// One is opened by presenting this.
    Present(Box<Presentation>),
}

impl Call {
    async fn stored(&self) -> Result<Option<Stored>, SessionError> {
        record::load(self.sessions.store.as_ref(), &self.key).await
    }

    pub(super) async fn find<C: Courier>(&mut self, courier: &C) -> Result<Found, SessionError> {
        if let Some(found) = self.usable(self.stored().await?)? {
            return Ok(found);
        }
        // Only one call at a time opens or mends; when it is this one's turn, it may be done.
        let turn = self.lane.alone().await;
        let mut patience = PATIENCE;
        loop {
            let stored = self.stored().await?;
            if let Some(found) = self.usable(stored.clone())? {
                return Ok(found);
            }
            match stored {
                None => {
                    if self.adopted().await? {
                        continue;
                    }
                    let used = std::mem::take(&mut self.used)
                        && self.payer.spending() == Spending::Prepaid;
                    if used || self.has_lapsed()? {
                        self.another(courier).await?;
                    }
                    let draft = self.draft().await?;
                    if let Some(funded) = self.fund(draft).await? {
                        self.keep(funded.held).await?;
                        let credential = self.credential(funded.paid);
                        let presentation = Presentation::new(credential, Kind::Open, turn);
                        return Ok(Found::Present(Box::new(presentation)));
                    }
                }
                Some(stored)
                    if !self.lane.is_counted(&stored.record.channel)
                        && patience > Duration::ZERO =>
                {
                    // Another process may be at it this very moment.
                    tokio::time::sleep(POLL).await;
                    patience = patience.saturating_sub(POLL);
                    drop(stored);
                }
                Some(stored) => {
                    if let Some(challenge) = self.mended(&stored).await? {
                        self.show(stored.record, &challenge, courier).await?;
                    }
                }
            }
        }
    }

    fn usable(&self, stored: Option<Stored>) -> Result<Option<Found>, SessionError> {
        let Some(stored) = stored else {
            return Ok(None);
        };
        match stored.record.phase {
            Phase::Open | Phase::ToppingUp { .. } => {
                self.lane.count(&stored.record, &self.sessions.budget)?;
                if self.tab.channel().is_none() {
                    self.tab.put_on(&stored.record.channel);
                }
                Ok(Some(Found::Open))
            }
            _ => Ok(None),
        }
    }

    /// Looks what became of a channel that is neither open nor gone. The challenge it was opened
    /// for, if the deposit is to be presented again.
    async fn mended(&self, stored: &Stored) -> Result<Option<String>, SessionError> {
        let standing = self.payer.standing(&stored.record.held).await;
        let standing = standing.map_err(SessionError::Standing)?;
        let Phase::Opening { challenge, .. } = &stored.record.phase else {
            // It is closing; when that is done, another may be opened.
            let Standing::Closed { taken, .. } = standing else {
                return Err(SessionError::Closing);
            };
            self.retire(stored, taken).await?;
            return Ok(None);
        };
        match standing {
            Standing::Absent => {
                let store = self.sessions.store.as_ref();
                if record::remove(store, &self.key, stored).await? {
                    self.lane
                        .release(&stored.record.channel, challenge, stored.record.deposit);
                }
                Ok(None)
            }
            Standing::Closed { taken, .. } => {
                self.retire(stored, taken).await?;
                Ok(None)
            }
            Standing::Open { closing: true, .. } => Err(SessionError::Closing),
            Standing::Open { channel, taken, .. }
                if self.payer.spending() == Spending::Vouchers =>
            {
                let found = move |record: &mut Record| {
                    if matches!(record.phase, Phase::Opening { .. }) {
                        record.phase = Phase::Open;
                        record.deposit = channel.deposit.min(record.deposit);
                        record.held = channel.held.clone();
                        record.signed = record.signed.max(taken);
                    }
                    Ok(())
                };
                record::update(self.sessions.store.as_ref(), &self.key, found).await?;
                Ok(None)
            }
            // The server of a prepaid deposit must be shown it; one that may still be made is made
            // by presenting the very same.
            _ => Ok(Some(challenge.clone())),
        }
    }

    /// Shows a recorded deposit where it was asked for: with another request than the one that asked it
    /// could not be accepted. It buys nothing there but the balance that this call is paid from.
    async fn show<C: Courier>(
        &mut self,
        record: Record,
        challenge: &str,
        courier: &C,
    ) -> Result<(), SessionError> {
        if self.mark_taken_up(&record.phase).await?.is_none() {
            return Ok(());
        }
        let own = self.challenge.clone();
        let at = self
            .recall(challenge, record.resource.clone(), courier)
            .await?;
        let shown = match self.again(record).await {
            Ok(credential) => self.show_at(&at, &credential, courier).await,
            Err(error) => Err(error),
        };
        self.back_to(own);
        shown
    }

    async fn show_at<C: Courier>(
        &mut self,
        at: &str,
        credential: &Credential,
        courier: &C,
    ) -> Result<(), SessionError> {
        let mut why = String::new();
        for _ in 0..ATTEMPTS {
            match self.deliver(at, credential, courier).await {
                Answer::Accepted(receipt) => {
                    self.opened().await?;
                    return self.receipt(receipt.as_deref()).await;
                }
                Answer::Refused {
                    status, problem, ..
                } => {
                    return match self.was_made().await {
                        true => Ok(()),
                        false => Err(SessionError::NotAccepted { status, problem }),
                    };
                }
                Answer::NotServed { status } => {
                    let problem = None;
                    return Err(SessionError::NotAccepted { status, problem });
                }
                unclear => why = unclear.unclear(),
            }
        }
        Err(self.unknown(why).await)
    }

    /// A recorded deposit, to be presented again.
    async fn again(&mut self, record: Record) -> Result<Credential, SessionError> {
        let prepaid = self.payer.spending() == Spending::Prepaid;
        let budget = &self.sessions.budget;
        let approved = self.lane.again(&record, record.deposit, budget)?;
        let draft = Draft {
            channel: record.channel.clone(),
            amount: record.deposit,
            held: record.held.clone(),
        };
        let cx = Paying::new(&self.challenge, Some(self.origin.host()));
        let funded = self.payer.open(&cx, &draft, record.signed, approved).await;
        // An earlier attempt may have got further, so whatever is said now, it stays on record.
        let funded = funded.map_err(|error| SessionError::OutcomeUnknown {
            amount: record.deposit,
            why: error.to_string(),
        })?;
        // What the call that was cut short had made due is this one's.
        self.tab.set(record.due);
        self.tab.set_uncertain(prepaid && record.uncertain > 0);
        self.tab.put_on(&record.channel);
        self.keep(funded.held).await?;
        Ok(self.credential(funded.paid))
    }

    /// Goes on with a channel that the server tells of, where the wallet finds it true.
    async fn adopted(&self) -> Result<bool, SessionError> {
        if self.snapshot.is_none() && self.price.hint.is_none() {
            return Ok(false);
        }
        let cx = Paying::new(&self.challenge, Some(self.origin.host()));
        let Adopted {
            channel,
            authorized,
        } = match self.payer.adopt(&cx, self.snapshot.as_ref()).await {
            Ok(adopted) => adopted,
            Err(PayError::Unsupported(_)) => return Ok(false),
            Err(PayError::Refused(why)) => {
                tracing::warn!(%why, "the server tells of a channel that cannot be used");
                return Ok(false);
            }
            Err(PayError::NotPaid(fault) | PayError::Unknown(fault)) => {
                return Err(SessionError::Standing(fault));
            }
        };
        let mut record = self.record(channel, authorized, String::new());
        record.phase = Phase::Open;
        record::insert(self.sessions.store.as_ref(), &self.key, &record).await
    }

    fn record(&self, channel: OpenChannel, due: Amount, challenge: String) -> Record {
        let Cost {
            currency,
            recipient,
            ..
        } = self.price.unit.clone();
        Record::opening(
            (&self.origin, &self.resource),
            &self.challenge.method,
            (currency, recipient, self.price.reuse.clone()),
            channel,
            due,
            challenge,
        )
    }

    /// Whether the call waited for its turn until its challenge was over, for which nothing may be
    /// deposited.
    fn has_lapsed(&self) -> Result<bool, SessionError> {
        let lapsed = self.sessions.is_expired(&self.challenge);
        if lapsed && self.challenge.digest.is_some() {
            // Another would not be for the body that the call sends.
            let why = "the challenge has expired".to_owned();
            return Err(SessionError::NothingPayable(why));
        }
        Ok(lapsed)
    }

    /// Works out a deposit.
    async fn draft(&self) -> Result<Draft, SessionError> {
        let unit = &self.price.unit;
        let over = |limit| SessionError::CallLimit { limit };
        let least = unit.amount.max(self.price.min_delta);
        self.limit.allows_call(least).map_err(over)?;
        let max_deposit = self.limit.max_deposit();
        let deposit = match self.price.deposit {
            DepositRule::Any { suggested } => self.limit.opening(suggested, least),
            DepositRule::Exactly(amount) => amount,
        };
        if deposit < least || deposit > max_deposit {
            return Err(SessionError::MaxDeposit {
                needed: deposit.max(least),
                max_deposit,
                currency: unit.currency.clone(),
            });
        }
        let cost = Cost {
            amount: deposit,
            ..unit.clone()
        };
        self.sessions
            .budget
            .check(&cost)
            .map_err(SessionError::OverBudget)?;
        if !self.payer.funded(&cost).await {
            return Err(SessionError::NotFunded(cost));
        }
        let cx = Paying::new(&self.challenge, Some(self.origin.host()));
        let draft = self.payer.draft_open(&cx, deposit).await;
        let draft = draft.map_err(SessionError::NotPaid)?;
        if draft.amount != deposit {
            let why = "the wallet drafted another deposit".to_owned();
            return Err(SessionError::NotPaid(PayError::Refused(why)));
        }
        Ok(draft)
    }

    /// Records a deposit, then makes it. `None` if there is a channel now.
    async fn fund(&mut self, draft: Draft) -> Result<Option<Funded<Payload>>, SessionError> {
        let first = self.price.unit.amount.max(self.price.min_delta);
        let challenge = self.header()?;
        let channel = OpenChannel {
            id: draft.channel.clone(),
            deposit: draft.amount,
            held: draft.held.clone(),
        };
        let mut record = self.record(channel, first, challenge.clone());
        record.due = self.price.unit.amount;
        let prepaid = self.payer.spending() == Spending::Prepaid;
        record.uncertain = u32::from(prepaid);
        let cost = Cost {
            amount: draft.amount,
            ..self.price.unit.clone()
        };
        let approved = self.sessions.budget.approve(cost);
        let (approved, reservation) = approved.map_err(SessionError::OverBudget)?;
        let store = self.sessions.store.as_ref();
        match record::insert(store, &self.key, &record).await {
            Ok(true) => {
                self.tab.set_uncertain(prepaid);
                let deposit = (&*draft.channel, &*challenge);
                self.lane.hold(deposit, draft.amount, reservation);
            }
            // Nothing is signed yet, so nothing can have moved, whatever the store made of it.
            other => {
                reservation.release();
                return other.map(|_| None);
            }
        }
        let cx = Paying::new(&self.challenge, Some(self.origin.host()));
        match self.payer.open(&cx, &draft, first, approved).await {
            Ok(funded) => {
                self.tab.set(self.price.unit.amount);
                self.tab.put_on(&draft.channel);
                Ok(Some(funded))
            }
            Err(PayError::Unknown(fault)) => Err(SessionError::OutcomeUnknown {
                amount: draft.amount,
                why: fault.to_string(),
            }),
            Err(error) => {
                // Whoever took it up meanwhile may be making it.
                let stored = self.stored().await?;
                let stored = stored.filter(|stored| {
                    stored.record.channel == draft.channel && stored.record.phase == record.phase
                });
                let struck = match &stored {
                    Some(stored) => record::remove(store, &self.key, stored).await?,
                    None => false,
                };
                if !struck {
                    return Err(lost(draft.amount, error));
                }
                self.lane.release(&draft.channel, &challenge, draft.amount);
                Err(SessionError::NotPaid(error))
            }
        }
    }

    /// Records what a deposit has come to, before it is shown to anybody.
    async fn keep(&self, held: Held) -> Result<(), SessionError> {
        record::update(self.sessions.store.as_ref(), &self.key, |record| {
            record.held = held.clone();
            Ok(())
        })
        .await?;
        Ok(())
    }

    /// The server took the deposit.
    pub(super) async fn opened(&self) -> Result<(), SessionError> {
        record::update(self.sessions.store.as_ref(), &self.key, |record| {
            if matches!(record.phase, Phase::Opening { .. }) {
                record.phase = Phase::Open;
            }
            Ok(())
        })
        .await?;
        Ok(())
    }

    pub(super) async fn unknown(&self, why: String) -> SessionError {
        let stored = self.stored().await.ok().flatten();
        SessionError::OutcomeUnknown {
            amount: stored.map_or(Amount::new(0), |stored| stored.record.deposit),
            why,
        }
    }

    /// Whether the channel that was presented, and that the server does not know any more, is really
    /// over; then it is forgotten.
    pub(super) async fn is_gone(&self) -> Result<bool, SessionError> {
        let _turn = self.lane.alone().await;
        self.over(self.tab.channel().as_deref()).await
    }

    /// The same for who has the turn already.
    pub(super) async fn over(&self, presented: Option<&str>) -> Result<bool, SessionError> {
        let Some(stored) = self.stored().await? else {
            return Ok(true);
        };
        if presented.is_some_and(|channel| channel != stored.record.channel) {
            // Another call has found that out, and opened the next.
            return Ok(true);
        }
        let standing = self.payer.standing(&stored.record.held).await;
        let standing = standing.map_err(SessionError::Standing)?;
        let (record, spending) = (&stored.record, self.payer.spending());
        if let Some(amount) = record.phase.unshown(spending, &standing, record.deposit) {
            return Err(lost(amount, UNSHOWN));
        }
        let taken = match standing {
            Standing::Closed { taken, .. } => taken,
            // What was prepaid is with the server. Where nothing of it is left it is gone; where
            // something is, another deposit would reward a server that forgets the last one.
            _ if self.payer.spending() == Spending::Prepaid
                && minus(stored.record.deposit, stored.record.due) < self.price.unit.amount =>
            {
                Some(stored.record.deposit)
            }
            _ => return Ok(false),
        };
        self.retire(&stored, taken).await?;
        Ok(true)
    }

    pub(super) async fn retire(
        &self,
        stored: &Stored,
        taken: Option<Amount>,
    ) -> Result<(), SessionError> {
        let sessions = &self.sessions;
        sessions
            .retire(self.payer.as_ref(), &self.key, stored, taken)
            .await
            .map(drop)
    }
}
