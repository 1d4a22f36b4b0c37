//! An offline stand-in for the Stripe API, for tests and demonstrations.
//!
//! It serves the part that machine payments use over plain HTTP on loopback, and it keeps state:
//! Shared Payment Tokens with their limits, PaymentIntents that are confirmed as they are created,
//! their refunds, and answers kept for idempotency keys with Stripe's rules (the first answer is repeated, errors
//! of a working endpoint included; other parameters are refused; a concurrent request gets 409).
//! Things can be made to go wrong with [`Stripe::fault`]. For browsers it serves a stand-in for
//! Stripe.js ([`Stripe::stripe_js`]), which takes Stripe's test cards.
//!
//! What is not real: there is one account with one key, and it is both the agent's and the
//! seller's; every connected account that is named exists; nobody checks `seller_details`; texts of
//! errors differ from Stripe's.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> std::io::Result<()> {
//! use farebox_sandbox_stripe::{Stripe, StripeConfig};
//!
//! let stripe = Stripe::start(StripeConfig::default()).await?;
//! assert!(stripe.url().starts_with("http://127.0.0.1:"));
//! assert!(stripe.secret_key().starts_with("sk_test_"));
//! assert_eq!(stripe.total("usd"), 0);
//! # Ok(())
//! # }
//! ```

mod connect;
mod elements;
mod error;
mod fault;
mod find;
mod form;
mod ledger;
mod model;
mod refund;
mod server;
mod webhook;

use std::{
    collections::{BTreeMap, VecDeque},
    fmt, io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{net::TcpListener, task::JoinHandle};

pub use fault::Fault;
pub use webhook::Sent;

use ledger::{Call, Ledger};
use model::Status;
use webhook::Endpoint;

/// What the sandbox starts with.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct StripeConfig {
    /// How long every request takes. Default none. With some, concurrent requests under one
    /// idempotency key meet.
    pub latency: Duration,
    /// How long a PaymentIntent cannot be found by search; Stripe's index lags behind as well.
    /// Default none.
    pub search_lag: Duration,
}

impl StripeConfig {
    /// With this much time for every request.
    pub fn latency(mut self, latency: Duration) -> Self {
        self.latency = latency;
        self
    }

    /// With a search index that lags this much behind.
    pub fn search_lag(mut self, lag: Duration) -> Self {
        self.search_lag = lag;
        self
    }
}

/// A PaymentIntent that succeeded.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Charged {
    /// Its id, `pi_…`.
    pub id: String,
    /// In the currency's smallest unit.
    pub amount: u64,
    /// Three lower-case letters.
    pub currency: String,
    /// Its metadata.
    pub metadata: BTreeMap<String, String>,
}

/// A refund.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Returned {
    /// Its id, `re_…`.
    pub id: String,
    /// What it is of.
    pub payment_intent: String,
    /// In the currency's smallest unit.
    pub amount: u64,
}

/// A request that came in, without what must stay secret: no `authorization` header, and
/// `[redacted]` for tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recorded {
    /// `GET` or `POST`.
    pub method: String,
    /// The path.
    pub path: String,
    /// Headers by lower-case name.
    pub headers: BTreeMap<String, String>,
    /// The body's fields, or the query's for `GET`, by full name: `metadata[challenge_id]`.
    pub form: BTreeMap<String, String>,
}

/// A running sandbox. Dropping it closes every connection.
pub struct Stripe {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<std::convert::Infallible>,
}

impl Stripe {
    /// Starts one on a free port of 127.0.0.1, with a fresh key and an empty account.
    ///
    /// # Errors
    /// If no port can be bound.
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    pub async fn start(config: StripeConfig) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            secret_key: object_id("sk_test"),
            publishable_key: object_id("pk_test"),
            latency: config.latency,
            skew: AtomicU64::new(0),
            ledger: Mutex::new(Ledger::new(config.search_lag.as_secs())),
            faults: Mutex::default(),
            refund_faults: Mutex::default(),
            endpoint: Mutex::default(),
            sent: Mutex::default(),
            requests: Mutex::default(),
        });
        let router = server::router(Arc::clone(&shared));
        let task = tokio::spawn(server::serve(listener, router));
        Ok(Self {
            address,
            shared,
            task,
        })
    }

    /// The API's base, `http://127.0.0.1:…`, without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The account's key, `sk_test_…`.
    pub fn secret_key(&self) -> &str {
        &self.shared.secret_key
    }

    /// The account's key for browsers, `pk_test_…`.
    pub fn publishable_key(&self) -> &str {
        &self.shared.publishable_key
    }

    /// Where a page has the stand-in for Stripe.js from. It takes Stripe's test cards.
    pub fn stripe_js(&self) -> String {
        format!("{}{}", self.url(), elements::SCRIPT_PATH)
    }

    /// The PaymentIntents that succeeded, oldest first.
    pub fn charged(&self) -> Vec<Charged> {
        let ledger = self.shared.ledger();
        let succeeded = ledger
            .intents()
            .iter()
            .filter(|i| i.status == Status::Succeeded);
        succeeded
            .map(|intent| Charged {
                id: intent.id.clone(),
                amount: intent.amount,
                currency: intent.currency.clone(),
                metadata: intent.metadata.clone(),
            })
            .collect()
    }

    /// The sum of what succeeded in `currency`, in its smallest unit.
    pub fn total(&self, currency: &str) -> u64 {
        self.charged()
            .iter()
            .filter(|c| c.currency == currency)
            .map(|c| c.amount)
            .sum()
    }

    /// The requests so far, oldest first.
    pub fn requests(&self) -> Vec<Recorded> {
        self.shared.requests().clone()
    }

    /// Lets the next attempt to create a PaymentIntent go wrong. Several faults strike one by one,
    /// in this order.
    pub fn fault(&self, fault: Fault) {
        self.faults(fault, 1);
    }

    /// Lets the next `times` attempts go wrong in the same way.
    pub fn faults(&self, fault: Fault, times: usize) {
        let mut faults = self
            .shared
            .faults
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        faults.extend(std::iter::repeat_n(fault, times));
    }

    /// Lets the next attempt to refund go wrong: [`Fault::Processing`] leaves it `pending`, and
    /// [`Fault::Decline`] makes it fail.
    pub fn fault_refund(&self, fault: Fault) {
        let faults = self.shared.refund_faults.lock();
        let mut faults = faults.unwrap_or_else(PoisonError::into_inner);
        faults.push_back(fault);
    }

    /// Ends the `processing` or `requires_action` of a PaymentIntent. Says whether there was one
    /// in that state.
    pub fn resolve(&self, payment_intent: &str, succeeded: bool) -> bool {
        let now = self.shared.now();
        let resolved = self.shared.ledger().resolve(payment_intent, succeeded, now);
        self.shared.send_events();
        resolved
    }

    /// Sends events to this address from now on, what has happened so far included, signed with
    /// `secret` (`whsec_…`), each until it is answered with 2xx. `None` keeps them for later.
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    pub fn notify(&self, endpoint: Option<(&str, &str)>) {
        let endpoint = endpoint.map(|(url, secret)| Endpoint {
            url: url.to_owned(),
            secret: secret.to_owned(),
        });
        *self.shared.endpoint() = endpoint;
        self.shared.send_events();
    }

    /// The events that were sent, oldest first.
    pub fn sent(&self) -> Vec<Sent> {
        self.shared.sent().clone()
    }

    /// What `Stripe-Signature` says of a body that is sent now, for calls made by hand.
    pub fn signature(&self, secret: &str, body: &str) -> String {
        webhook::signature(secret, self.shared.now(), body)
    }

    /// The refunds that did not fail, oldest first.
    pub fn refunded(&self) -> Vec<Returned> {
        let ledger = self.shared.ledger();
        let counted = ledger.refunds.iter().filter(|refund| refund.counts());
        counted
            .map(|refund| Returned {
                id: refund.id.clone(),
                payment_intent: refund.payment_intent.clone(),
                amount: refund.amount,
            })
            .collect()
    }

    /// Gives back all that is left of a PaymentIntent, or `amount` of it, as somebody does in the
    /// dashboard. The refund's id; `None` if there is nothing of the sort to give back.
    pub fn refund_by_hand(&self, payment_intent: &str, amount: Option<u64>) -> Option<String> {
        let now = self.shared.now();
        let made = self
            .shared
            .ledger()
            .refund_by_hand(payment_intent, amount, now);
        self.shared.send_events();
        made
    }

    /// Ends a refund that is `pending`, or fails one that had succeeded. Says whether there was one.
    pub fn resolve_refund(&self, refund: &str, succeeded: bool) -> bool {
        let now = self.shared.now();
        let resolved = self.shared.ledger().resolve_refund(refund, succeeded, now);
        self.shared.send_events();
        resolved
    }

    /// Attaches a test PaymentMethod to a customer, as an account does that keeps cards.
    pub fn attach(&self, payment_method: &str, customer: &str) {
        let mut ledger = self.shared.ledger();
        let (method, customer) = (payment_method.to_owned(), customer.to_owned());
        ledger.customers.insert(method, customer);
    }

    /// Lets the account's clock run ahead, so that tokens expire and idempotency keys are
    /// forgotten (after 24 hours).
    pub fn advance_clock(&self, by: Duration) {
        self.shared.skew.fetch_add(by.as_secs(), Ordering::Relaxed);
    }
}

impl Drop for Stripe {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl fmt::Debug for Stripe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stripe")
            .field("url", &self.url())
            .finish_non_exhaustive()
    }
}

/// What connections share.
struct Shared {
    secret_key: String,
    publishable_key: String,
    latency: Duration,
    /// Seconds the account's clock is ahead.
    skew: AtomicU64,
    ledger: Mutex<Ledger>,
    faults: Mutex<VecDeque<Fault>>,
    refund_faults: Mutex<VecDeque<Fault>>,
    endpoint: Mutex<Option<Endpoint>>,
    sent: Mutex<Vec<Sent>>,
    requests: Mutex<Vec<Recorded>>,
}

impl Shared {
    fn now(&self) -> u64 {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        now.as_secs() + self.skew.load(Ordering::Relaxed)
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn requests(&self) -> MutexGuard<'_, Vec<Recorded>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn endpoint(&self) -> MutexGuard<'_, Option<Endpoint>> {
        self.endpoint.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sent(&self) -> MutexGuard<'_, Vec<Sent>> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next fault of this call, if it is of the wanted sort.
    fn next_fault(&self, call: &Call, wanted: impl FnOnce(&Fault) -> bool) -> Option<Fault> {
        let faults = match call {
            Call::CreateIntent => &self.faults,
            Call::CreateRefund => &self.refund_faults,
            _ => return None,
        };
        let mut faults = faults.lock().unwrap_or_else(PoisonError::into_inner);
        if faults.front().is_some_and(wanted) {
            faults.pop_front()
        } else {
            None
        }
    }
}

/// A fresh id, `prefix_` and 24 hexadecimal digits.
fn object_id(prefix: &str) -> String {
    let mut random = [0u8; 12];
    getrandom::fill(&mut random).expect("the operating system has a source of randomness");
    format!("{prefix}_{}", hex::encode(random))
}
