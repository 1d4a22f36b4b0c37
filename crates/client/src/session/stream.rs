//! Paying while receiving.

use farebox_core::{
    Spending,
    wire::{Amount, Receipt},
};

use super::{
    call::Call,
    courier::{Answer, Courier, Demand, Statement},
    error::SessionError,
    record::{self, minus, plus, times},
};

/// How often a stream may ask without delivering anything in between.
const REPEATS: u32 = 3;

/// How often a voucher is presented before the server counts as gone.
const ATTEMPTS: u32 = 4;

impl Call {
    /// An event of the stream has arrived.
    pub fn event(&mut self) {
        self.received = self.received.saturating_add(1);
        self.demanded.1 = 0;
    }

    /// What has been received is worth, and a step ahead of it.
    fn cap(&self) -> Amount {
        let unit = self.price.unit.amount;
        let units = self.received.saturating_mul(self.sessions.per_event);
        let ahead = self.sessions.ahead.max(self.sessions.per_event);
        times(unit, units.saturating_add(ahead))
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
        let stored = record::load(self.sessions.store.as_ref(), &self.key).await?;
        let record = stored.ok_or(SessionError::NoChannel)?.record;
        self.is_ours(&record, &demand.channel)?;
        let unit = self.price.unit.amount;
        let required = demand.required.unwrap_or_else(|| plus(record.signed, unit));
        self.demanded = (required, self.demanded.1 + 1);
        if self.demanded.1 > REPEATS {
            return Err(SessionError::NoProgress);
        }
        // As much as the stream asks for and the steps that may be signed ahead of it, but no more
        // than what it has delivered is worth with those.
        let ahead = times(unit, self.sessions.ahead - 1);
        let wish = minus(plus(required, ahead), record.due);
        let more = wish.min(minus(self.cap(), self.claim));
        let due = plus(record.due, more);
        let floor = if due > record.signed {
            due.max(plus(record.signed, self.price.min_delta))
        } else {
            record.signed
        };
        if required > floor {
            return Err(SessionError::Overcharged {
                required,
                due: floor,
            });
        }
        self.authorize(more, required, courier).await
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
            self.top_up(required, courier).await?;
            return self.due(more).await;
        }
        let mut more = more;
        let mut last = None;
        for _ in 0..ATTEMPTS {
            self.fresh(courier).await?;
            let (credential, target, turn) = self.voucher(more, courier).await?;
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
                Answer::Lost(why) => last = Some(SessionError::Unreachable(why)),
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
        let stored = record::load(self.sessions.store.as_ref(), &self.key).await?;
        let due = match stored {
            // Where a receipt counts the stream alone, what the stream is worth is what is due.
            _ if said.per_stream => self.cap(),
            Some(stored) => plus(stored.record.due, self.price.unit.amount),
            None => return Ok(()),
        };
        if spent > due {
            return Err(SessionError::Overcharged {
                required: spent,
                due,
            });
        }
        Ok(())
    }

    /// The call is over, and what it had made due and did not receive is not. A call that was
    /// served has had one unit at least.
    ///
    /// # Errors
    /// If the store fails; then all of it stays due.
    pub async fn finish(mut self) -> Result<(), SessionError> {
        let units = self.received.saturating_mul(self.sessions.per_event);
        let units = units.max(u64::from(self.served));
        let worth = times(self.price.unit.amount, units);
        self.lower(minus(self.claim, worth)).await
    }
}
