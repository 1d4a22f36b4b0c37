//! A rail that can refund, and the account behind it.

use std::sync::{
    Arc, Mutex, MutexGuard,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use farebox_core::{Method, Typed, prelude::*};
use farebox_core::{Misnamed, PaymentName};
use farebox_testkit::TestPayload;
use serde_json::{Map, Value};
use tokio::sync::Notify;

use crate::common::request;

/// A refund as the account has it.
#[derive(Clone, Debug)]
pub(super) struct Given {
    pub(super) id: String,
    key: Option<RefundKey>,
    payment: String,
    pub(super) amount: u128,
    pub(super) failed: bool,
}

/// Charges of 100, `pay_<token>`, and what went back of them. Several rails may use it, and people
/// who use none.
#[derive(Default)]
pub(super) struct Account {
    /// What was paid, and what its note says it was paid for.
    charges: Mutex<Vec<(String, String)>>,
    given: Mutex<Vec<Given>>,
    /// The next refund is carried out, and answered when the test lets it.
    pub(super) hold: Mutex<bool>,
    /// The next refund finds that somebody was faster.
    pub(super) overtaken: Mutex<bool>,
    pub(super) reached: Notify,
    pub(super) go: Notify,
    /// How often it was asked what there is to give back.
    pub(super) asked: AtomicUsize,
}

impl Account {
    fn given(&self) -> MutexGuard<'_, Vec<Given>> {
        self.given.lock().unwrap()
    }

    /// A charge whose note says it is for `challenge`, made by somebody.
    pub(super) fn charge(&self, payment: &str, challenge: &str) {
        let mut charges = self.charges.lock().unwrap();
        charges.push((payment.to_owned(), challenge.to_owned()));
    }

    fn is_of(&self, payment: &str) -> Option<String> {
        let charges = self.charges.lock().unwrap();
        let found = charges.iter().find(|(id, _)| id == payment);
        found.map(|(_, challenge)| challenge.clone())
    }

    /// What went back of a payment and stayed there.
    pub(super) fn returned(&self, payment: &str) -> u128 {
        let given = self.given();
        let of = given.iter().filter(|g| g.payment == payment && !g.failed);
        of.map(|given| given.amount).sum()
    }

    /// Gives back what a dashboard would.
    pub(super) fn give(&self, payment: &str, amount: u128, key: Option<&RefundKey>) -> Given {
        let mut given = self.given();
        let id = format!("back_{}", given.len() + 1);
        given.push(Given {
            id,
            key: key.cloned(),
            payment: payment.to_owned(),
            amount,
            failed: false,
        });
        given.last().unwrap().clone()
    }

    /// The bank sends every refund of a payment back.
    pub(super) fn fail(&self, payment: &str) {
        for given in self.given().iter_mut().filter(|g| g.payment == payment) {
            given.failed = true;
        }
    }
}

pub(super) struct Cash(Arc<Account>);

impl Cash {
    /// A rail of this name over an account.
    pub(super) fn over(account: &Arc<Account>, name: &str) -> Arc<dyn Method> {
        Arc::new(Typed::<_, Charge>::named(Self(account.clone()), name))
    }
}

impl Rail<Charge> for Cash {
    const METHOD: &'static str = "test";
    type Details = Map<String, Value>;
    type Payload = TestPayload;
    type Settler = Self;

    async fn quote(&self, terms: &ChargeTerms) -> Result<Quote<Charge, Self::Details>, NoQuote> {
        Ok(Quote::new(request(terms)?, Map::new()))
    }

    async fn verify(
        &self,
        cx: &Presented<'_>,
        _: &Ask<Charge, Self::Details>,
        payload: TestPayload,
    ) -> Result<Plan<Once, (String, String)>, Refusal> {
        let order = (payload.token.clone(), cx.challenge.id.clone());
        Ok(Plan::settle(ProofKey::of("test", &payload.token), order))
    }

    fn settler(&self) -> &Self {
        self
    }

    fn listens(&self) -> bool {
        true
    }

    /// A call is a payment, and what was paid where there is a second word.
    fn heed(&self, delivery: &Delivery<'_>) -> Result<Vec<Hint>, Unheeded> {
        let text = std::str::from_utf8(delivery.body).unwrap();
        let mut words = text.split(' ').map(str::to_owned);
        Ok(vec![Hint::Refund {
            reference: words.next().unwrap(),
            challenge: words.next(),
        }])
    }
}

impl Settle for Cash {
    type Order = (String, String);

    async fn settle(&self, _: &IdempotencyKey, (token, challenge): &Self::Order) -> Outcome {
        let payment = format!("pay_{token}");
        self.0.charge(&payment, challenge);
        Outcome::settled(payment)
    }

    async fn lookup(&self, _: &IdempotencyKey, (token, _): &Self::Order) -> Outcome {
        Outcome::settled(format!("pay_{token}"))
    }

    /// `branch/pay_1` is `pay_1`.
    fn name_payment(&self, reference: &str) -> Result<PaymentName, Misnamed> {
        let id = reference.rsplit('/').next().unwrap_or(reference);
        if !id.starts_with("pay_") {
            return Err(Misnamed("is no payment, pay_…".to_owned()));
        }
        Ok(PaymentName::at("bank", id))
    }

    async fn refundable(&self, reference: &str) -> Result<Refundable, NoRefund> {
        self.0.asked.fetch_add(1, SeqCst);
        let id = reference.rsplit('/').next().unwrap();
        let challenge = self.0.is_of(id).ok_or(NoRefund::NoSuchPayment)?;
        Ok(Refundable {
            charged: Amount::new(100),
            refunded: Amount::new(self.0.returned(id)),
            currency: "usd".to_owned(),
            decimals: 0,
            challenge: Some(challenge),
            terms: Value::Null,
        })
    }

    async fn refund(&self, key: &RefundKey, order: &RefundOrder) -> Refunded {
        if std::mem::take(&mut *self.0.overtaken.lock().unwrap()) {
            self.0.give(&order.reference, 100, None);
            return Refunded::Refused("it has gone back already".to_owned());
        }
        let given = self.0.give(&order.reference, order.amount.get(), Some(key));
        if std::mem::take(&mut *self.0.hold.lock().unwrap()) {
            self.0.reached.notify_one();
            self.0.go.notified().await;
        }
        Refunded::Done {
            reference: given.id,
        }
    }

    async fn look_up_refund(&self, key: &RefundKey, _: &RefundOrder) -> Refunded {
        let given = self.0.given();
        let found = given.iter().find(|g| g.key.as_ref() == Some(key));
        found.map_or(Refunded::Unknown, told)
    }

    async fn reread_refund(&self, _: &RefundOrder, refund: &str) -> Refunded {
        let given = self.0.given();
        let found = given.iter().find(|g| g.id == refund);
        found.map_or(Refunded::Unknown, told)
    }
}

fn told(given: &Given) -> Refunded {
    let reference = given.id.clone();
    match given.failed {
        false => Refunded::Done { reference },
        true => Refunded::Failed {
            reference,
            why: "the bank sent it back".to_owned(),
        },
    }
}
