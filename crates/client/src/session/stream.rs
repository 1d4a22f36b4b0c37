//! Paying while receiving.

use std::{sync::Arc, time::Duration};

use farebox_core::{
    Spending,
    wire::{Amount, Receipt},
};

use super::{
    call::Call,
    courier::{Answer, Courier, Demand, Statement},
    error::SessionError,
    record::{self, Phase, minus, plus, times},
    tab::Tab,
};

/// How often a stream may ask without delivering anything in between. Others may spend what was
/// signed for it before it does, so once is not enough.
const REPEATS: u32 = 64;

/// How often a demand is looked at again while other streams' events are on their way, and how
/// long in between, times the looks so far.
const OVERTAKEN: u32 = 8;
const BEHIND: Duration = Duration::from_millis(10);

/// How often a voucher is presented before the server counts as gone.
const ATTEMPTS: u32 = 4;

/// Counts what a call receives.
#[derive(Clone, Debug)]
pub struct Counter {
    tab: Arc<Tab>,
}

impl Counter {
    /// An event of the stream has arrived.
    pub fn event(&self) {
        self.tab.event();
    }
}

impl Call {
    /// An event of the stream has arrived.
    pub fn event(&mut self) {
        self.tab.event();
    }

    /// Counts events too, also while the call answers a demand.
    #[must_use]
    pub fn counter(&self) -> Counter {
        Counter {
            tab: self.tab.clone(),
        }
    }

    /// What has been received is worth, and a step ahead of it.
    fn cap(&self) -> Amount {
        let unit = self.price.unit.amount;
        let units = self.tab.received().saturating_mul(self.sessions.per_event);
        let ahead = self.sessions.ahead.max(self.sessions.per_event);
        times(unit, units.saturating_add(ahead))
    }

    /// What of `more` is not due yet: others may have made due meanwhile what a stream received.
    pub(super) fn still(&self, more: Amount) -> Amount {
        match self.served {
            true => more.min(minus(self.cap(), self.tab.claim())),
            false => more,
        }
    }

    /// The stream has run dry: authorises what it asks for, if what was received is worth it, and
    /// tops up where the channel does not hold enough.
    ///
    /// # Errors
    /// If the server asks for more, for another channel, or again and again. Nothing is signed
    /// then.
    pub async fn demand<C: Courier>(
        &mut self,
        demand: &Demand,
        courier: &C,
    ) -> Result<(), SessionError> {
        let received = self.tab.received();
        if self.demanded.0 != received {
            self.demanded = (received, 0);
        }
        self.demanded.1 += 1;
        if self.demanded.1 > REPEATS {
            return Err(SessionError::NoProgress);
        }
        let mut waited = 0;
        loop {
            // Whoever ends while it is looked at has made due what it received, so once more then.
            let shared = self.lane.tabs.is_shared(&self.tab);
            match self.worth(demand).await {
                Ok((more, required)) => return self.authorize(more, required, courier).await,
                Err(SessionError::Overcharged { required, .. })
                    if self.had(minus(required, self.price.unit.amount)).await? => {}
                // The server may have had what is on record as under way.
                Err(SessionError::Overcharged { .. })
                    if self.payer.spending() == Spending::Prepaid
                        && self.take_up(courier).await? => {}
                // What other streams were served on the same channel may still be on its way.
                Err(SessionError::Overcharged { .. }) if shared && waited < OVERTAKEN => {
                    waited += 1;
                    tokio::time::sleep(BEHIND * waited).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// What is to be made due to answer a demand, and the cumulative amount it asks for.
    async fn worth(&self, demand: &Demand) -> Result<(Amount, Amount), SessionError> {
        let _steady = self.lane.tabs.steady().await;
        let stored = record::load(self.sessions.store.as_ref(), &self.key).await?;
        let record = stored.ok_or(SessionError::NoChannel)?.record;
        self.is_ours(&record, &demand.channel)?;
        let unit = self.price.unit.amount;
        let required = demand.required.unwrap_or_else(|| plus(record.signed, unit));
        // As much as the stream asks for and the steps that may be signed ahead of it, but no more
        // than what it has delivered is worth with those.
        let ahead = times(unit, self.sessions.ahead - 1);
        let so_far = plus(record.due, self.lane.tabs.owed(&self.tab));
        // And the next step in any case: what others have made due, others will spend.
        let step = plus(times(unit, self.tab.received()), unit);
        let wish = minus(plus(required, ahead), so_far).max(minus(step, self.tab.claim()));
        let more = wish.min(minus(self.cap(), self.tab.claim()));
        let due = plus(so_far, more);
        let most = if due > record.signed {
            due.max(plus(record.signed, self.price.min_delta))
        } else {
            record.signed
        };
        if required > most {
            return Err(SessionError::Overcharged {
                required,
                due: most,
            });
        }
        Ok((more, required))
    }

    /// Whether all of a prepaid deposit may be taken for spent, as its server says: then the call is
    /// to be paid from another.
    pub(super) async fn is_used_up(&mut self) -> Result<bool, SessionError> {
        let stored = record::load(self.sessions.store.as_ref(), &self.key).await?;
        let deposit = stored.ok_or(SessionError::NoChannel)?.record.deposit;
        let claim = self.tab.claim();
        self.tab.set(Amount::new(0));
        let believed = self.had(deposit).await;
        if !matches!(believed, Ok(true)) {
            self.tab.set(claim);
        }
        believed
    }

    /// Whether `spent` of a prepaid deposit may be taken for spent, as its server says. It may where
    /// another process has calls under way, or a call was cut short: nobody knows what they were sent.
    /// That is believed once, and never beyond the deposit, which the server has anyway.
    async fn had(&self, spent: Amount) -> Result<bool, SessionError> {
        if self.payer.spending() == Spending::Vouchers {
            return Ok(false);
        }
        let (claimed, received) = self.lane.tabs.all(&self.tab);
        let own = self.lane.tabs.uncertain(&self.tab);
        let store = self.sessions.store.as_ref();
        let believed = record::update(store, &self.key, |record| {
            // What calls of this process have had is a part of it, and what they may have yet is not.
            let due = plus(minus(spent, received), claimed);
            if record.uncertain <= own || spent > record.deposit || due <= record.due {
                return Ok(false);
            }
            record.due = due;
            // A top-up under way is not a part of the deposit yet, and may be spent as well.
            if record.phase == Phase::Open {
                record.uncertain = own;
            }
            Ok(true)
        });
        Ok(believed.await?.1)
    }

    /// Whether more was received than has been made due, because the stream spent what was signed
    /// for other calls on the channel. They wait for it, so it should be [settled](Self::settle).
    #[must_use]
    pub fn owes(&self) -> bool {
        !self.owed().is_zero()
    }

    fn owed(&self) -> Amount {
        let received = times(self.price.unit.amount, self.tab.received());
        minus(received, self.tab.claim())
    }

    /// Authorises what was received, without being asked.
    ///
    /// # Errors
    /// As [`demand`](Self::demand).
    pub async fn settle<C: Courier>(&mut self, courier: &C) -> Result<(), SessionError> {
        let steady = self.lane.tabs.steady().await;
        let more = self.owed();
        drop(steady);
        match more.is_zero() {
            true => Ok(()),
            false => self.authorize(more, more, courier).await,
        }
    }

    /// Makes `more` due of what is prepaid, which is the server's already: calls that were cut short may
    /// have made due what they did not get, so the whole deposit may be due before it is spent.
    async fn due(&self, more: Amount) -> Result<(), SessionError> {
        let over = |limit| SessionError::CallLimit { limit };
        let cost = plus(self.tab.claim(), more);
        self.limit.allows_call(cost).map_err(over)?;
        record::update(self.sessions.store.as_ref(), &self.key, |record| {
            if !self.is_on(record) {
                return Err(SessionError::NoChannel);
            }
            let due = plus(record.due, more).min(record.deposit);
            record.due = record.due.max(due);
            record.signed = record.signed.max(due);
            Ok(())
        })
        .await?;
        self.tab.add(more);
        Ok(())
    }

    /// Presents a voucher beside the call, until the server has one for `required`.
    async fn authorize<C: Courier>(
        &mut self,
        more: Amount,
        required: Amount,
        courier: &C,
    ) -> Result<(), SessionError> {
        if self.payer.spending() == Spending::Prepaid {
            // There is nothing to sign: what is there may be spent, and there has to be more.
            self.top_up(required, true, courier).await?;
            return self.due(more).await;
        }
        let mut more = more;
        let mut last = None;
        for _ in 0..ATTEMPTS {
            self.fresh(courier).await?;
            let (credential, target, turn) = self.voucher(more, last.is_some(), courier).await?;
            more = Amount::new(0);
            let answer = courier.deliver(&credential).await;
            drop(turn);
            match answer {
                Answer::Accepted(receipt) => {
                    self.receipt(receipt.as_deref()).await?;
                    return Ok(());
                }
                Answer::Refused {
                    status,
                    problem,
                    challenges,
                } => {
                    let stored = record::load(self.sessions.store.as_ref(), &self.key).await?;
                    let signed = stored.map(|stored| stored.record.signed);
                    let overtaken = signed.is_some_and(|signed| signed > target);
                    let renewed = self.renew(&challenges).is_ok();
                    if !overtaken && !renewed {
                        return Err(SessionError::NotAccepted { status, problem });
                    }
                    last = Some(SessionError::NotAccepted { status, problem });
                }
                Answer::NotServed { status } => {
                    return Err(SessionError::NotAccepted {
                        status,
                        problem: None,
                    });
                }
                // An equal voucher changes nothing, so it may be shown as often as need be.
                unclear => last = Some(SessionError::Unreachable(unclear.unclear())),
            }
        }
        let nothing =
            || SessionError::Unreachable(format!("no voucher for {required} got through"));
        Err(last.unwrap_or_else(nothing))
    }

    /// The stream's own receipt, at its end.
    ///
    /// # Errors
    /// If it is for another channel or says that more was spent than was received or signed.
    /// Nothing can be taken back then, but nothing more should be bought there.
    pub async fn concluded(&mut self, receipt: &Receipt) -> Result<(), SessionError> {
        self.receipt(Some(receipt)).await?;
        let said = Statement::of(receipt);
        let Some(spent) = said.spent else {
            return Ok(());
        };
        let mut waited = 0;
        loop {
            let shared = self.lane.tabs.is_shared(&self.tab);
            let due = match self.received_by_all().await? {
                // Where a receipt counts the stream alone, what the stream is worth is what is due.
                _ if said.per_stream => self.cap(),
                Some(due) => plus(due, self.price.unit.amount),
                None => return Ok(()),
            };
            if spent <= due {
                return Ok(());
            }
            if said.per_stream || !shared || waited == OVERTAKEN {
                return Err(SessionError::Overcharged {
                    required: spent,
                    due,
                });
            }
            // What other streams were served may still be on its way.
            waited += 1;
            tokio::time::sleep(BEHIND * waited).await;
        }
    }

    /// What is due on the channel, and what was received beyond that.
    async fn received_by_all(&self) -> Result<Option<Amount>, SessionError> {
        let _steady = self.lane.tabs.steady().await;
        let stored = record::load(self.sessions.store.as_ref(), &self.key).await?;
        let owed = plus(self.owed(), self.lane.tabs.owed(&self.tab));
        Ok(stored.map(|stored| plus(stored.record.due, owed)))
    }

    /// The stream ended without the server's receipt. Of what is prepaid more may be spent than came.
    pub fn cut_short(&mut self) {
        self.tab.set_uncertain(false);
    }

    /// The call is over, and what it had made due and did not receive is not. A call that was
    /// served has had one unit at least.
    ///
    /// # Errors
    /// If the store fails; then all of it stays due.
    pub async fn finish(mut self) -> Result<(), SessionError> {
        let units = self.tab.received().saturating_mul(self.sessions.per_event);
        let units = units.max(u64::from(self.served));
        let worth = times(self.price.unit.amount, units);
        self.end(minus(self.tab.claim(), worth)).await
    }

    /// Nothing more comes of the call, and `over` of what it made due was not received.
    pub(super) async fn end(&mut self, over: Amount) -> Result<(), SessionError> {
        if !self.tab.is_uncertain() {
            return self.lower(over).await;
        }
        let store = self.sessions.store.as_ref();
        let ended = record::update(store, &self.key, |record| {
            if self.is_on(record) {
                record.lower(over);
                record.uncertain = record.uncertain.saturating_sub(1);
            }
            Ok(())
        });
        match ended.await {
            // It was closed meanwhile.
            Ok(_) | Err(SessionError::NoChannel) => {
                self.tab.take_off(over);
                self.tab.set_uncertain(false);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}
