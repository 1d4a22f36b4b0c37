//! Money that counts how often it moved, and a rail that moves it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use farebox_core::prelude::*;

use crate::fuse::Fuse;

/// Counts movements by idempotency key, as a real processor does.
#[derive(Debug, Default)]
pub struct Bank {
    moved: Mutex<BTreeMap<String, usize>>,
}

impl Bank {
    /// How many payments moved.
    pub fn moved(&self) -> usize {
        self.moved
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }

    /// How many transfers were asked for; more than [`moved`](Self::moved) where one payment was
    /// settled twice.
    pub fn transfers(&self) -> usize {
        let moved = self.moved.lock().unwrap_or_else(PoisonError::into_inner);
        moved.values().sum()
    }

    fn transfer(&self, key: &IdempotencyKey) {
        let mut moved = self.moved.lock().unwrap_or_else(PoisonError::into_inner);
        *moved.entry(key.as_str().to_owned()).or_default() += 1;
    }

    fn has(&self, key: &IdempotencyKey) -> bool {
        self.moved
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains_key(key.as_str())
    }
}

/// Moves money at a bank; dies with its fuse, before the call leaves or before the answer is back.
#[derive(Debug)]
pub struct Teller {
    bank: Arc<Bank>,
    fuse: Fuse,
    started: tokio::sync::Notify,
    gate: tokio::sync::Semaphore,
}

impl Teller {
    /// Waits until a settlement has begun.
    pub async fn started(&self) {
        self.started.notified().await;
    }

    /// Lets held settlements go on.
    pub fn release(&self) {
        self.gate.add_permits(1_000);
    }
}

impl Settle for Teller {
    type Order = String;

    async fn settle(&self, key: &IdempotencyKey, _: &String) -> Outcome {
        self.started.notify_one();
        let Ok(_permit) = self.gate.acquire().await else {
            return Outcome::Unknown;
        };
        if !self.fuse.burn() {
            return Outcome::Unknown;
        }
        self.bank.transfer(key);
        if !self.fuse.burn() {
            return Outcome::Unknown;
        }
        Outcome::settled(key.as_str())
    }

    async fn lookup(&self, key: &IdempotencyKey, _: &String) -> Outcome {
        if self.fuse.is_dead() {
            Outcome::Unknown
        } else if self.bank.has(key) {
            Outcome::settled(key.as_str())
        } else {
            Outcome::Declined(Rejection::verification("the transfer never arrived"))
        }
    }
}

/// `test/charge`: any token that does not say `forged` is a good proof.
#[derive(Debug)]
pub struct TestRail {
    teller: Teller,
    prepaid: bool,
}

impl TestRail {
    /// A rail whose proof authorises a transfer at `bank`.
    pub fn settling(bank: Arc<Bank>, fuse: Fuse) -> Self {
        Self::new(bank, fuse, false, 1_000_000)
    }

    /// A rail whose proof is the payment.
    pub fn prepaid(bank: Arc<Bank>, fuse: Fuse) -> Self {
        Self::new(bank, fuse, true, 1_000_000)
    }

    /// A settling rail that holds each settlement until [`Teller::release`].
    pub fn held(bank: Arc<Bank>) -> Self {
        Self::new(bank, Fuse::endless(), false, 0)
    }

    fn new(bank: Arc<Bank>, fuse: Fuse, prepaid: bool, permits: usize) -> Self {
        let (started, gate) = (
            tokio::sync::Notify::new(),
            tokio::sync::Semaphore::new(permits),
        );
        Self {
            teller: Teller {
                bank,
                fuse,
                started,
                gate,
            },
            prepaid,
        }
    }

    /// Its teller.
    pub fn teller(&self) -> &Teller {
        &self.teller
    }
}

/// What a payer presents.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TestPayload {
    /// Anything but `forged`.
    pub token: String,
}

impl Rail<Charge> for TestRail {
    const METHOD: &'static str = "test";
    type Details = serde_json::Map<String, serde_json::Value>;
    type Payload = TestPayload;
    type Settler = Teller;

    async fn quote(&self, terms: &ChargeTerms) -> Result<Quote<Charge, Self::Details>, NoQuote> {
        let amount = Amount::parse(&terms.amount)
            .map_err(|e| Fault::new("reading an amount").caused_by(e))?;
        let request = terms.request(
            amount,
            terms.currency.clone().unwrap_or_else(|| "usd".to_owned()),
        );
        Ok(Quote::new(request, Self::Details::new()))
    }

    async fn verify(
        &self,
        _: &Presented<'_>,
        _: &Ask<Charge, Self::Details>,
        payload: TestPayload,
    ) -> Result<Plan<Once, String>, Refusal> {
        if payload.token == "forged" {
            return Err(Rejection::verification("the token is forged").into());
        }
        let proof = ProofKey::of("test", &payload.token);
        Ok(if self.prepaid {
            Plan::paid(proof, payload.token)
        } else {
            Plan::settle(proof, payload.token)
        })
    }

    fn settler(&self) -> &Teller {
        &self.teller
    }
}
