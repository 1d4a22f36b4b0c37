//! Carrying out a refund.

use std::{sync::Arc, time::Duration};

use farebox_core::{
    Fault, NoRefund, RefundKey, RefundOrder, Refundable, Refunded,
    wire::{Amount, Timestamp},
};
use tokio::time::{Instant, sleep, timeout};

use super::{
    GaveBack, Payment, RefundEntry, RefundError, RefundRequest, RefundedEntry,
    ledger::{Giving, Ledger, OWED, State, Stored, name_of},
    show,
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
        let (method, reference) = (payment.method.name(), payment.reference.as_str());
        let patience = Instant::now() + shared.timing.settle;
        for _ in 0..ROUNDS {
            let known = shared.ledger_of(method, reference).await?;
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
            let now = payment.method.settler().refundable(reference).await;
            let now = now.map_err(|why| why_not(why, payment))?;
            let (ledger, giving) = self.planned(before, payment, request, &now)?;
            if !shared.may_bar(&giving).await? {
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
                return Ok(shared
                    .ledger_of(payment.method.name(), &payment.reference)
                    .await?);
            }
            if Instant::now() >= patience {
                return Ok(known);
            }
            sleep(PAUSE).await;
            known = shared
                .ledger_of(payment.method.name(), &payment.reference)
                .await?;
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
        let mut ledger = before.cloned().unwrap_or_else(|| Ledger {
            method: payment.method.name().to_owned(),
            reference: payment.reference.clone(),
            charged: now.charged,
            currency: now.currency.clone(),
            decimals: now.decimals,
            elsewhere: Amount::new(0),
            refunds: Vec::new(),
        });
        // Nothing of ours is undecided here, so what the rail has beyond ours is others'.
        let ours = ledger.done();
        ledger.elsewhere = Amount::new(now.refunded.get().saturating_sub(ours));
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
                reference: payment.reference.clone(),
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
        if !shared.bar(giving, &key).await? {
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
            State::Refused { why } => {
                shared.strike_refund(&ledger, listed).await?;
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
        let key = format!("{OWED}{}", name_of(&ledger.method, &ledger.reference));
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

    /// Records an outcome, for as long as the refund is ours where the store is away.
    async fn insist_on_refund(
        self: &Arc<Self>,
        written: Stored,
        giving: &Giving,
        outcome: Refunded,
    ) -> Result<Ledger, Fault> {
        let until = match giving.state {
            State::Attempted { until } => until,
            _ => 0,
        };
        loop {
            let fault = match self.conclude_refund(&written, giving, &outcome).await {
                Ok(ledger) => return Ok(ledger),
                Err(fault) => fault,
            };
            if self.clock.millis() >= until {
                return Err(fault);
            }
            tracing::warn!(%fault, "a refund's outcome is not recorded yet");
            sleep(PAUSE * 10).await;
        }
    }

    /// Records an outcome over whatever the record says by now. That money went back wins over
    /// everything.
    pub(super) async fn conclude_refund(
        &self,
        from: &Stored,
        giving: &Giving,
        outcome: &Refunded,
    ) -> Result<Ledger, Fault> {
        let mut current = from.clone();
        for _ in 0..ROUNDS {
            let recorded = current.ledger.named(&giving.name).cloned();
            let ours = recorded.filter(|known| known.attempt == giving.attempt);
            let next = match (ours.map(|known| known.state), outcome) {
                (Some(State::Attempted { until }), Refunded::Unknown) => {
                    // Nobody is at it any more, unless somebody took it over.
                    let ours =
                        matches!(giving.state, State::Attempted { until: of } if of == until);
                    if !ours {
                        return Ok(current.ledger);
                    }
                    State::Attempted {
                        until: self.clock.millis(),
                    }
                }
                (Some(State::Attempted { .. }), Refunded::Refused(why)) => {
                    State::Refused { why: why.clone() }
                }
                (
                    Some(State::Attempted { .. } | State::Refused { .. }),
                    Refunded::Done { reference },
                ) => State::Done {
                    reference: reference.clone(),
                },
                _ => return Ok(current.ledger),
            };
            if let State::Refused { .. } = next {
                // First, or a crash would leave it neither given back nor collectable.
                let key = key_of(&current.ledger, giving);
                self.unbar(giving, &key).await?;
            }
            let next = current.ledger.with(Giving {
                state: next,
                ..giving.clone()
            });
            let rewritten = self.rewrite(Some(&current), next).await;
            if let Some(stored) = effect!("refund.recorded", rewritten)? {
                return Ok(stored.ledger);
            }
            let ledger = &current.ledger;
            let found = self.ledger_of(&ledger.method, &ledger.reference).await?;
            current = found.ok_or_else(|| Fault::new("a refund's record is gone"))?;
        }
        Err(Fault::unavailable(
            "a refund's record changes faster than it can be written",
        ))
    }

    /// Takes a payment off the list, unless the list speaks of a later refund by now.
    pub(super) async fn strike_refund(&self, ledger: &Ledger, listed: &str) -> Result<(), Fault> {
        let key = format!("{OWED}{}", name_of(&ledger.method, &ledger.reference));
        let struck = self.store.compare_and_swap(&key, Some(listed), None, None);
        effect!("refund.struck", struck.await)?;
        Ok(())
    }
}

pub(super) fn key_of(ledger: &Ledger, giving: &Giving) -> RefundKey {
    RefundKey::new(
        &ledger.method,
        &ledger.reference,
        &giving.name,
        giving.attempt,
    )
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
            reference: payment.reference.clone(),
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
