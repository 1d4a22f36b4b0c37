//! Carrying out a refund.

use std::time::Duration;

use farebox_core::{
    Fault, NoRefund, RefundOrder, Refundable, Refunded,
    wire::{Amount, Timestamp},
};
use tokio::time::{Instant, sleep, timeout};

use super::{
    GaveBack, Payment, RefundEntry, RefundError, RefundRequest, RefundedEntry,
    conclude::key_of,
    ledger::{Giving, Ledger, OWED, State, Stored},
    not_configured, show,
};
use crate::engine::{Engine, Shared};

/// How often somebody else may be faster before we leave it to them.
const ROUNDS: usize = 16;

/// How often a refund that somebody else has under way is looked at.
const PAUSE: Duration = Duration::from_millis(50);

impl Engine {
    /// Gives back what was charged, all that is left of it or a part.
    ///
    /// Safe to repeat and to call from several processes at once: a refund has one name and one key
    /// at its rail, and its payment is one record. Where nobody can say what became of it, the answer
    /// says so, and the reconciler asks on; so does the same request made again.
    ///
    /// # Errors
    /// Why nothing is given back. After [`RefundError::Fault`] money may have gone back where the
    /// [books](Engine::refunds) say `attempted`.
    pub async fn refund(&self, request: RefundRequest) -> Result<GaveBack, RefundError> {
        let payment = self.paid_on(&request).await?;
        // On a task of its own: whoever asks may go away, and the money goes on.
        let engine = self.clone();
        let under_way = self.shared.drain.settling();
        let task = tokio::spawn(async move {
            let _under_way = under_way;
            engine.give_back(&payment, &request).await
        });
        let ended = |_| Fault::new("a refund ended before its time");
        task.await.map_err(ended)?
    }

    async fn give_back(
        &self,
        payment: &Payment,
        request: &RefundRequest,
    ) -> Result<GaveBack, RefundError> {
        let shared = &self.shared;
        let patience = Instant::now() + shared.timing.settle;
        for _ in 0..ROUNDS {
            let known = shared.ledger_of(&payment.name).await?;
            let payment = &self.kept_by(known.as_ref(), payment)?;
            let known = self.settled_first(known, payment, patience).await?;
            let known = match known {
                // What the rail cannot tell again now stays as it was.
                Some(stored) => {
                    let reread = shared.reread_refunds(&*payment.method, stored);
                    Some(reread.await?.stored)
                }
                None => None,
            };
            let before = known.as_ref().map(|stored| &stored.ledger);
            if let Some(ledger) = before {
                if let Some(giving) = recorded(ledger, request)? {
                    return Ok(answer(ledger, giving, true));
                }
                if ledger.open().is_some() {
                    return Err(RefundError::Undecided);
                }
            }
            let now = payment.method.settler().refundable(&payment.spelled).await;
            let now = now.map_err(|why| why_not(why, payment))?;
            let planned = self.planned(before, payment, request, &now);
            if matches!(planned, Err(RefundError::NothingLeft)) {
                // Others may have given it back, and then it is not served for either.
                let look = shared.look_elsewhere(payment, now.challenge.as_deref());
                look.await?;
            }
            let (ledger, giving) = planned?;
            if !shared.may_bar(&payment.name, &giving).await? {
                return Err(RefundError::Undecided);
            }
            let Some((written, listed)) = shared.write_refund_ahead(known.as_ref(), ledger).await?
            else {
                continue;
            };
            return self.carry_out(payment, written, &giving, &listed).await;
        }
        Err(Fault::unavailable("a payment's refunds change faster than they can be read").into())
    }

    /// Refunds that are on record are made by the rail that made the first.
    fn kept_by(&self, known: Option<&Stored>, payment: &Payment) -> Result<Payment, Fault> {
        let method = match known {
            Some(stored) if stored.ledger.method != payment.method.name() => self
                .shared
                .method(&stored.ledger.method)
                .ok_or_else(not_configured)?,
            _ => payment.method.clone(),
        };
        Ok(Payment {
            method,
            ..payment.clone()
        })
    }

    /// A refund that is under way is waited for, and one that nobody is at is looked up.
    async fn settled_first(
        &self,
        mut known: Option<Stored>,
        payment: &Payment,
        patience: Instant,
    ) -> Result<Option<Stored>, RefundError> {
        let shared = &self.shared;
        loop {
            let open = known.as_ref().and_then(|stored| stored.ledger.open());
            let Some(Giving {
                state: State::Attempted { until },
                ..
            }) = open
            else {
                return Ok(known);
            };
            if *until <= shared.clock.millis() {
                if let Some(stored) = &known {
                    shared.look_up_refund(&*payment.method, stored).await?;
                }
                return Ok(shared.ledger_of(&payment.name).await?);
            }
            if Instant::now() >= patience {
                return Ok(known);
            }
            sleep(PAUSE).await;
            known = shared.ledger_of(&payment.name).await?;
        }
    }

    /// The payment's record with the refund in it, as it is to be written ahead.
    fn planned(
        &self,
        before: Option<&Ledger>,
        payment: &Payment,
        request: &RefundRequest,
        now: &Refundable,
    ) -> Result<(Ledger, Giving), RefundError> {
        let fresh = || Ledger::new(&*payment.method, &payment.name, now);
        let mut ledger = before.cloned().unwrap_or_else(fresh);
        ledger.count_elsewhere(now);
        let left = ledger.left();
        let amount = match part(&ledger, request)? {
            None if left.is_zero() => return Err(RefundError::NothingLeft),
            None => left,
            Some(part) if part > left => {
                let shown = |amount| show(amount, ledger.decimals, &ledger.currency);
                return Err(RefundError::TooMuch {
                    asked: shown(part),
                    left: shown(left),
                });
            }
            Some(part) => part,
        };
        let name = name(&ledger, request)?;
        let attempt = ledger.named(&name).map_or(0, |giving| giving.attempt + 1);
        let millis = self.shared.clock.millis();
        let bars = now.challenge.clone().filter(|_| amount == left);
        let giving = Giving {
            name,
            attempt,
            bars,
            order: RefundOrder {
                reference: payment.name.reference.clone(),
                amount,
                currency: ledger.currency.clone(),
                created: Timestamp::now().unix_millis().div_euclid(1000),
                terms: now.terms.clone(),
            },
            state: State::Attempted {
                until: millis + self.shared.refund_takes(),
            },
        };
        Ok((ledger.with(giving.clone()), giving))
    }

    async fn carry_out(
        &self,
        payment: &Payment,
        written: Stored,
        giving: &Giving,
        listed: &str,
    ) -> Result<GaveBack, RefundError> {
        let shared = &self.shared;
        let key = key_of(&written.ledger, giving);
        if !shared.bar(&payment.name, giving, &key).await? {
            // It is being served this moment. Nobody has asked the rail, and the lookup will.
            let ledger = shared.insist_on_refund(written, giving, Refunded::Unknown);
            return Ok(answer(&ledger.await?, giving, false));
        }
        let settler = payment.method.settler();
        let refund = timeout(
            shared.timing.settle_cap,
            settler.refund(&key, &giving.order),
        );
        let outcome = match effect!("refund", refund.await) {
            Ok(Refunded::Unknown) | Err(_) => {
                let lookup = settler.look_up_refund(&key, &giving.order);
                let lookup = timeout(shared.timing.settle, lookup);
                effect!("refund.lookup", lookup.await).unwrap_or(Refunded::Unknown)
            }
            Ok(known) => known,
        };
        let ledger = shared.insist_on_refund(written, giving, outcome).await?;
        let giving = ledger.named(&giving.name).cloned();
        let giving = giving.ok_or_else(|| Fault::new("a refund is gone from its record"))?;
        match &giving.state {
            State::Attempted { .. } => Ok(answer(&ledger, &giving, false)),
            State::Done { .. } => {
                shared.strike_refund(&ledger, listed).await?;
                Ok(answer(&ledger, &giving, false))
            }
            State::Refused { why, .. } => {
                shared.strike_refund(&ledger, listed).await?;
                // Perhaps because others were faster.
                let look = shared.look_elsewhere(payment, giving.bars.as_deref()).await;
                if let Err(fault) = look {
                    tracing::warn!(%fault, "a payment whose refund was refused is not looked at");
                }
                Err(RefundError::Refused(why.clone()))
            }
        }
    }
}

impl Shared {
    /// How long a refund is nobody else's: as long as trying and looking up can take.
    pub(super) fn refund_takes(&self) -> i64 {
        let timing = &self.timing;
        let span = timing.settle_cap + timing.settle + timing.slack;
        i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
    }

    /// Puts a refund on the reconciler's list and then on record. `None`: somebody else was faster.
    async fn write_refund_ahead(
        &self,
        from: Option<&Stored>,
        ledger: Ledger,
    ) -> Result<Option<(Stored, String)>, Fault> {
        let key = [OWED, &ledger.name().text()].concat();
        // Not struck before it lapses, also where the record is not written yet.
        let until = self.clock.millis() + self.refund_takes();
        let listed = format!("{until} {}", Self::nonce()?);
        let before = self.store.get(&key).await?;
        let swap = self.swap_own(&key, before.as_deref(), &listed, None);
        if !effect!("refund.listed", swap.await)? {
            return Ok(None);
        }
        let written = effect!("refund.attempted", self.rewrite(from, ledger).await)?;
        Ok(written.map(|stored| (stored, listed)))
    }
}

fn answer(ledger: &Ledger, giving: &Giving, repeated: bool) -> GaveBack {
    GaveBack {
        refund: RefundEntry::of(giving),
        repeated: repeated && matches!(giving.state, State::Done { .. }),
        payment: RefundedEntry::of(ledger),
    }
}

fn why_not(why: NoRefund, payment: &Payment) -> RefundError {
    let method = payment.method.name().to_owned();
    match why {
        NoRefund::Unsupported => RefundError::CannotRefund(method),
        NoRefund::Refused(why) => RefundError::Refused(why),
        NoRefund::Fault(fault) => RefundError::Fault(fault),
        _ => RefundError::NoSuchPayment {
            reference: payment.spelled.clone(),
            asked: vec![method],
        },
    }
}

/// The amount of a request that does not ask for all, in base units.
fn part(ledger: &Ledger, request: &RefundRequest) -> Result<Option<Amount>, RefundError> {
    let Some(text) = &request.amount else {
        return Ok(None);
    };
    let amount = Amount::from_decimal(text, ledger.decimals)
        .map_err(|error| RefundError::Invalid(format!("the amount `{text}`: {error}")))?;
    if amount.is_zero() {
        return Err(RefundError::Invalid("the amount is nothing".to_owned()));
    }
    Ok(Some(amount))
}

/// What a request is called on record.
fn name(ledger: &Ledger, request: &RefundRequest) -> Result<String, RefundError> {
    Ok(match (&request.name, part(ledger, request)?) {
        (Some(name), _) => format!("key:{name}"),
        (None, None) => "all".to_owned(),
        (None, Some(amount)) => format!("amount:{amount}"),
    })
}

/// The refund of the request's name, unless it may be tried again. A name stands for one amount.
fn recorded<'a>(
    ledger: &'a Ledger,
    request: &RefundRequest,
) -> Result<Option<&'a Giving>, RefundError> {
    let Some(giving) = ledger.named(&name(ledger, request)?) else {
        return Ok(None);
    };
    let amount = giving.order.amount;
    if part(ledger, request)?.is_some_and(|asked| asked != amount) {
        let amount = show(amount, ledger.decimals, &ledger.currency);
        let text = format!("that name is of a refund of {amount}");
        return Err(RefundError::Invalid(text));
    }
    Ok(Some(giving).filter(|giving| !matches!(giving.state, State::Refused { .. })))
}
