//! The loop: call, pay once, present until there is an answer.

use std::{error::Error, fmt, time::Duration};

use farebox_client::{Origin, Payment, Purse};
use farebox_core::wire::{BodyDigest, Receipt};
use serde_json::{Map, Value};

use super::{
    error::{Failed, Failure, NotAccepted, OutcomeUnknown, PayError},
    exchange::{Call, Reply},
};
use crate::{
    Ask, CREDENTIAL, ErrorObject, IDEMPOTENCY_KEY, INTERNAL_ERROR, INVALID_PARAMS,
    PAYMENT_REQUIRED, PaymentError, challenge::credential_json, receipt,
};

/// A purse, whom it deals with, and how hard to try. Clones spend from the same purse.
#[derive(Clone, Debug)]
pub struct Caller {
    purse: Purse,
    origin: Origin,
    attempts: u32,
    max_wait: Duration,
}

/// A payment made, with its challenge as it came. It is as good as money.
#[must_use = "the credential is what was paid for"]
pub struct Pass {
    payment: Payment,
    challenge: Map<String, Value>,
}

impl Pass {
    /// The payment.
    pub fn payment(&self) -> &Payment {
        &self.payment
    }
}

impl fmt::Debug for Pass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pass").field(&self.payment).finish()
    }
}

/// A result.
#[derive(Debug)]
#[non_exhaustive]
pub struct Answer<T> {
    /// What the server answered.
    pub result: T,
    /// The receipt, where the call was paid for.
    pub receipt: Option<Receipt>,
    /// What was paid and not served: the result says `isError` or asks for more input, and there is
    /// no receipt. The same call may present it again.
    pub unserved: Option<Pass>,
}

impl Caller {
    /// Calls to the server at `origin`, which is paid only over TLS or on this machine.
    #[must_use]
    pub fn new(purse: Purse, origin: Origin) -> Self {
        Self {
            purse,
            origin,
            attempts: 4,
            max_wait: Duration::from_secs(10),
        }
    }

    /// Calls to a server on this machine: a child process, or one in this process.
    #[must_use]
    pub fn local(purse: Purse) -> Self {
        Self::new(purse, Origin::new("stdio", "localhost", 0))
    }

    /// How often a credential is presented in all before the outcome counts as unknown; 4 times
    /// unless set, and once at least.
    #[must_use]
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts.max(1);
        self
    }

    /// The longest wait between two attempts; 10 s unless set. A server that asks for more is not
    /// asked again.
    #[must_use]
    pub fn max_wait(mut self, wait: Duration) -> Self {
        self.max_wait = wait;
        self
    }

    /// What can be paid with here. In MCP it goes into `capabilities.experimental.payment` of the
    /// `initialize` request.
    #[must_use]
    pub fn capability(&self) -> Map<String, Value> {
        crate::capability(self.purse.offers())
    }

    /// Makes a call; if the answer asks for payment, pays and makes it again with the credential.
    ///
    /// Dropping the future after its wallet has paid loses the credential, so set deadlines on the
    /// transport rather than around the call.
    ///
    /// # Errors
    /// See [`PayError`]; only `NotAccepted`, `Failed` and `OutcomeUnknown` come after a payment,
    /// and `Client` where a wallet lost track of one.
    pub async fn call<C: Call>(
        &self,
        call: &mut C,
    ) -> Result<Answer<C::Result>, PayError<C::Error>> {
        let reply = call.send(&Map::new()).await.map_err(PayError::Call)?;
        let asked = match demand(&reply) {
            Some(asked) if asked.code == PAYMENT_REQUIRED => asked,
            _ => {
                let result = reply.outcome.map_err(PayError::Error)?;
                return Ok(Answer {
                    result,
                    receipt: receipt(&reply.meta),
                    unserved: None,
                });
            }
        };
        for why in &asked.unreadable {
            tracing::debug!(why, "a challenge cannot be read");
        }
        if asked.challenges.is_empty() {
            let none = || "there is none".to_owned();
            let why = asked.unreadable.into_iter().next().unwrap_or_else(none);
            return Err(PayError::Unreadable(why));
        }
        let pass = self.pay(&asked.challenges).await?;
        self.present(call, pass).await
    }

    async fn pay<E: Error + 'static>(&self, asks: &[Ask]) -> Result<Pass, PayError<E>> {
        let challenges: Vec<_> = asks.iter().map(|ask| ask.challenge().clone()).collect();
        let payment = self.purse.pay(&challenges, &self.origin).await?;
        let paid = &payment.credential().challenge;
        // A purse pays one of those it is given.
        let ask = asks.iter().find(|ask| ask.challenge() == paid);
        let challenge = ask.map(|ask| ask.json().clone()).unwrap_or_default();
        Ok(Pass { payment, challenge })
    }

    /// Presents a payment made before, after [`PayError::OutcomeUnknown`] or where a paid call
    /// failed. The call must be the one that was paid for: same method, same parameters.
    ///
    /// # Errors
    /// As [`call`](Self::call); nothing more is paid.
    pub async fn present<C: Call>(
        &self,
        call: &mut C,
        pass: Pass,
    ) -> Result<Answer<C::Result>, PayError<C::Error>> {
        let credential = match credential_json(&pass.challenge, pass.payment.credential()) {
            Ok(credential) => credential,
            Err(error) => {
                let error = ErrorObject::new(INVALID_PARAMS, error.to_string());
                return Err(failed(pass, error));
            }
        };
        // One key for one payment, so that a result whose delivery was lost can be had again.
        let key = BodyDigest::of(credential.to_string().as_bytes());
        let meta = Map::from_iter([
            (CREDENTIAL.to_owned(), credential),
            (IDEMPOTENCY_KEY.to_owned(), key.as_str().into()),
        ]);
        let mut attempt = 0;
        loop {
            attempt += 1;
            let (failure, retry_after) = match call.send(&meta).await {
                Ok(reply) => match open(reply) {
                    Ok(open) => open,
                    Err(reply) => return answered(reply, pass),
                },
                Err(error) => (Failure::Call(error), None),
            };
            tracing::debug!(attempt, %failure, "a paid call has no answer yet");
            let wait = retry_after.unwrap_or_else(|| backoff(attempt).min(self.max_wait));
            if attempt >= self.attempts || wait > self.max_wait || call.is_gone() {
                return Err(PayError::OutcomeUnknown(Box::new(OutcomeUnknown {
                    pass,
                    failure,
                    retry_after,
                })));
            }
            tokio::time::sleep(wait).await;
        }
    }
}

/// What a reply asks for or refuses, as an error or as a tool's result.
fn demand<T>(reply: &Reply<T>) -> Option<PaymentError> {
    match &reply.outcome {
        Err(error) => PaymentError::of(error),
        Ok(_) => PaymentError::of_result(&reply.meta),
    }
}

type Open<E> = (Failure<E>, Option<Duration>);

/// A reply that leaves the outcome open, or the reply back if it settles it.
fn open<T, E: Error + 'static>(reply: Reply<T>) -> Result<Open<E>, Reply<T>> {
    match reply.outcome {
        Err(error) if error.code == INTERNAL_ERROR => {
            let seconds = error.data.as_ref().and_then(|data| data.get("retryAfter"));
            let seconds = seconds.and_then(Value::as_u64);
            Ok((Failure::Internal(error), seconds.map(Duration::from_secs)))
        }
        outcome => Err(Reply { outcome, ..reply }),
    }
}

fn failed<E: Error + 'static>(pass: Pass, error: ErrorObject) -> PayError<E> {
    PayError::Failed(Box::new(Failed { pass, error }))
}

fn answered<T, E: Error + 'static>(reply: Reply<T>, pass: Pass) -> Result<Answer<T>, PayError<E>> {
    if let Some(error) = demand(&reply) {
        return Err(PayError::NotAccepted(Box::new(NotAccepted { pass, error })));
    }
    let receipt = receipt(&reply.meta);
    let result = match reply.outcome {
        Ok(result) => result,
        Err(error) => return Err(failed(pass, error)),
    };
    let mut unserved = None;
    if !reply.delivers && receipt.is_none() {
        unserved = Some(pass);
    } else {
        pass.payment.accepted(receipt.as_ref());
    }
    Ok(Answer {
        result,
        receipt,
        unserved,
    })
}

/// 0.25 s, 0.5 s, 1 s, …
fn backoff(attempt: u32) -> Duration {
    Duration::from_millis(250).saturating_mul(1 << (attempt - 1).min(16))
}
