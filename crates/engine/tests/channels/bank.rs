//! `test/session` over a bank that behaves like a chain: what moved has moved, once per key, and a
//! channel that is closed there takes nothing more. Prepaid channels (`chain: false`) pay with their
//! proof and are refunded by an order.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering::SeqCst},
    },
    time::Duration,
};

use farebox_core::{
    Offer, Store, Typed, compose,
    prelude::*,
    wire::{Credential, Payload},
};
use farebox_engine::{
    Admission, Clock, Engine, Gate, Inbound, Managed, MemoryStore, Meter, Refused, Serving,
};
use farebox_testkit::{Fuse, test_secrets};
use serde_json::{Map, Value, json};

/// What the bank knows, whoever died.
#[derive(Default)]
pub(crate) struct Ledger {
    pub(crate) deposit: u128,
    pub(crate) settled: u128,
    pub(crate) returned: u128,
    pub(crate) closed: bool,
    pub(crate) close_requested: bool,
    done: HashMap<IdempotencyKey, String>,
    dead: HashSet<IdempotencyKey>,
    pub(crate) orders: Vec<String>,
    /// Refunds fail.
    pub(crate) broke: bool,
}

#[derive(Clone)]
pub(crate) struct Bank {
    pub(crate) ledger: Arc<Mutex<Ledger>>,
    fuse: Fuse,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    what: String,
    n: u128,
}

impl Order {
    fn new(what: &str, n: Amount) -> Self {
        let (what, n) = (what.to_owned(), n.get());
        Self { what, n }
    }
}

impl Ledger {
    fn carry_out(&mut self, order: &Order) -> Result<(), Rejection> {
        let on_chain = order.what != "refund";
        if self.closed && on_chain {
            return Err(Rejection::verification("closed on chain"));
        }
        match order.what.as_str() {
            "open" | "topup" => {
                self.deposit += order.n;
                self.close_requested &= order.what == "open";
            }
            "settle" => self.settled = self.settled.max(order.n),
            "close" => {
                self.closed = true;
                self.settled = self.settled.max(order.n);
                self.returned = self.deposit - self.settled;
            }
            _ if self.broke => return Err(Rejection::verification("no route")),
            _ => self.returned += order.n,
        }
        self.orders.push(format!("{} {}", order.what, order.n));
        Ok(())
    }
}

impl Settle for Bank {
    type Order = Order;

    async fn settle(&self, key: &IdempotencyKey, order: &Order) -> Outcome {
        if !self.fuse.burn() {
            return Outcome::Unknown;
        }
        let moved = {
            let mut ledger = self.ledger.lock().unwrap();
            if ledger.dead.contains(key) {
                return Outcome::Declined(Rejection::verification("too late"));
            }
            let moved = ledger.carry_out(order);
            if moved.is_ok() {
                ledger.done.insert(key.clone(), order.what.clone());
            }
            moved
        };
        // The answer may be lost.
        if !self.fuse.burn() {
            return Outcome::Unknown;
        }
        match moved {
            Ok(()) => Outcome::settled(order.what.as_str()),
            Err(rejection) => Outcome::Declined(rejection),
        }
    }

    async fn lookup(&self, key: &IdempotencyKey, order: &Order) -> Outcome {
        if self.fuse.is_dead() {
            return Outcome::Unknown;
        }
        let mut ledger = self.ledger.lock().unwrap();
        if ledger.done.contains_key(key) {
            return Outcome::settled(order.what.as_str());
        }
        ledger.dead.insert(key.clone());
        Outcome::Declined(Rejection::verification("it never arrived"))
    }
}

pub(crate) struct Till {
    pub(crate) bank: Bank,
    pub(crate) schedule: Schedule,
}

#[derive(Deserialize)]
#[serde(tag = "do", rename_all = "lowercase")]
pub(crate) enum Action {
    Open { n: u64, chain: bool },
    TopUp { n: u64, proof: String },
    Voucher { to: u64 },
    Bearer,
    Close,
}

pub(crate) fn channel() -> ChannelId {
    ChannelId::of("test", "x")
}

fn amount(n: u64) -> Amount {
    Amount::new(n.into())
}

/// On a chain a close captures what was spent, or settled before, and returns the rest.
fn capture(state: &ChannelState) -> (Change, Order) {
    let captured = state.spent.max(state.settled);
    let rest = state.deposit.checked_sub(captured).unwrap_or_default();
    let change = Change::none().settled(captured).refunded(rest);
    (change, Order::new("close", captured))
}

fn on_chain(state: &ChannelState) -> bool {
    state.rail["chain"] == json!(true)
}

impl Rail<Session> for Till {
    const METHOD: &'static str = "test";
    type Details = Map<String, Value>;
    type Payload = Action;
    type Settler = Bank;

    async fn quote(&self, terms: &SessionTerms) -> Result<Quote<Session, Self::Details>, NoQuote> {
        let request = terms.request(
            Amount::parse(&terms.amount).map_err(|e| Fault::new("amount").caused_by(e))?,
            "usd",
        );
        Ok(Quote::new(request, Map::new()))
    }

    async fn verify(
        &self,
        cx: &Presented<'_>,
        _: &Ask<Session, Self::Details>,
        action: Action,
    ) -> Result<Plan<Channel, Order>, Refusal> {
        let id = channel();
        let state = cx.channel(&id).await?;
        let chained = state.as_ref().is_some_and(on_chain);
        if chained {
            let requested = self.bank.ledger.lock().unwrap().close_requested;
            cx.saw(&id, Observed::default().close_requested(requested));
        }
        Ok(match action {
            Action::Open { n, chain } => {
                let rail = json!({ "chain": chain });
                let (change, order) = match chain {
                    true => (
                        Change::deposit(amount(n)),
                        Some(Order::new("open", amount(n))),
                    ),
                    false => (Change::prepaid(amount(n)), None),
                };
                Plan::open(
                    ProofKey::of("test", "open"),
                    id,
                    change.with_rail(rail),
                    order,
                )
            }
            Action::TopUp { n, proof } => {
                let (change, order) = match chained {
                    true => (
                        Change::deposit(amount(n)),
                        Some(Order::new("topup", amount(n))),
                    ),
                    false => (Change::prepaid(amount(n)), None),
                };
                Plan::top_up(ProofKey::of("test", proof), id, change, order)
            }
            Action::Voucher { to } => Plan::advance(id, Voucher::to(amount(to))),
            Action::Bearer => Plan::advance(id, Voucher::bearer()),
            Action::Close => {
                let state = state.ok_or_else(|| Rejection::verification("no such channel"))?;
                let (change, order) = capture(&state);
                match chained {
                    true => Plan::close(id, change, Some(order)),
                    false => Plan::close(id, Change::none(), None),
                }
            }
        })
    }

    fn settler(&self) -> &Bank {
        &self.bank
    }

    fn statement(&self, _: &ChannelId, state: &ChannelState, served: &Served) -> Statement {
        Statement::default()
            .member("spent", state.spent.to_string())
            .member("units", served.units)
            .attach("Payment-Session", "x")
    }

    fn answer(&self, action: ChannelAction, _: &Receipt, state: &ChannelState) -> Answer {
        match (action, state.refund) {
            (ChannelAction::Close, Refund::Pending) => Answer::Later,
            (ChannelAction::Close, refund) => Answer::Json(json!({
                "refunded": state.refunded, "refund": refund,
            })),
            _ => Answer::Empty,
        }
    }

    fn schedule(&self) -> Schedule {
        self.schedule
    }

    async fn upkeep(
        &self,
        _: &ChannelId,
        state: &ChannelState,
        due: Due,
    ) -> Result<Upkeep<Order>, Fault> {
        let ledger = self.bank.ledger.lock().unwrap();
        let observed = Observed::default().close_requested(ledger.close_requested);
        Ok(match (due, on_chain(state)) {
            (Due::Settle, true) => {
                Upkeep::settle(state.authorized, Order::new("settle", state.authorized))
            }
            (Due::Idle, true) => {
                let (change, order) = capture(state);
                Upkeep::close(change, Some(order))
            }
            (Due::Idle, false) => Upkeep::close(Change::none(), None),
            // The chain returned all there was when it closed.
            (Due::Owed, true) => Upkeep::refund(state.unaccounted(), None),
            (Due::Owed, false) => {
                let owed = state.unaccounted();
                Upkeep::refund(owed, Some(Order::new("refund", owed)))
            }
            _ => Upkeep::nothing().observed(observed),
        })
    }
}

/// A disk, a clock and a bank that outlive processes.
pub(crate) struct World {
    pub(crate) disk: Arc<MemoryStore>,
    pub(crate) clock: Arc<AtomicI64>,
    pub(crate) ledger: Arc<Mutex<Ledger>>,
    pub(crate) schedule: Schedule,
    /// How long settlements, and closes, are waited for.
    pub(crate) patience: Duration,
}

pub(crate) struct Process {
    pub(crate) engine: Engine,
    pub(crate) gate: Arc<Gate>,
}

impl World {
    pub(crate) fn new(schedule: Schedule) -> Self {
        Self {
            disk: Arc::default(),
            clock: Arc::new(AtomicI64::new(1_800_000_000_000)),
            ledger: Arc::default(),
            schedule,
            patience: Duration::from_secs(10),
        }
    }

    pub(crate) fn pass(&self, span: Duration) {
        let millis = i64::try_from(span.as_millis()).unwrap();
        self.clock.fetch_add(millis, SeqCst);
    }

    pub(crate) fn boot(&self) -> Process {
        self.boot_on(self.disk.clone(), Fuse::endless())
    }

    pub(crate) fn boot_on(&self, store: Arc<dyn Store>, fuse: Fuse) -> Process {
        let clock = self.clock.clone();
        let engine = Engine::builder("test.example", test_secrets(), store)
            .clock(Clock::from_fn(move || clock.load(SeqCst)))
            .settle_deadline(self.patience)
            .build()
            .unwrap();
        let bank = Bank {
            ledger: self.ledger.clone(),
            fuse,
        };
        let till = Till {
            bank,
            schedule: self.schedule,
        };
        let terms = SessionTerms {
            amount: "1".into(),
            unit: "token".into(),
            ..Default::default()
        };
        let method = Arc::new(Typed::<_, Session>::new(till));
        let offer = Offer::new::<Session>(method, terms).unwrap();
        let gate = engine
            .gate("POST /stream", compose([offer]).unwrap())
            .unwrap();
        let gate = Arc::new(gate);
        Process { engine, gate }
    }

    /// What the bank says and what the books say are the same.
    pub(crate) async fn balances(&self, process: &Process, at: &str) {
        let state = process.meter().state().await.unwrap();
        let ledger = self.ledger.lock().unwrap();
        let (deposit, settled, refunded) = (
            state.deposit.get(),
            state.settled.get(),
            state.refunded.get(),
        );
        assert!(state.spent <= state.authorized, "{at}: {state:?}");
        assert!(state.settled <= state.authorized, "{at}: {state:?}");
        assert!(state.authorized <= state.deposit, "{at}: {state:?}");
        if on_chain(&state) {
            assert_eq!(deposit, ledger.deposit, "{at}: {state:?}");
            assert_eq!(settled, ledger.settled, "{at}: {state:?}");
        }
        assert_eq!(refunded, ledger.returned, "{at}: {state:?}");
        if state.closed && state.refund != Refund::Failed {
            assert_eq!(deposit, settled + refunded, "{at}: {state:?}");
        }
    }
}

pub(crate) enum Got {
    Serve(Box<Serving>),
    Managed(Managed),
    Replay,
}

impl Process {
    pub(crate) fn meter(&self) -> Meter {
        self.engine.meter(channel())
    }

    pub(crate) async fn credential(&self, action: Value) -> Credential {
        let challenges = self.gate.challenges(&Inbound::default()).await.unwrap();
        Credential {
            challenge: challenges.into_iter().next().unwrap(),
            source: None,
            payload: Payload::from_value(&action).unwrap(),
        }
    }

    pub(crate) async fn present(&self, credential: &Credential) -> Result<Got, Refused> {
        let admission = self
            .gate
            .present(credential.clone(), &Inbound::default())
            .await?;
        Ok(match admission {
            Admission::Serve(serving) => Got::Serve(Box::new(serving)),
            Admission::Managed(managed) => Got::Managed(managed),
            _ => Got::Replay,
        })
    }

    /// Presents and, where it is served, delivers for nothing.
    pub(crate) async fn go(&self, action: Value) -> Result<(), Refused> {
        let credential = self.credential(action).await;
        self.deliver(&credential).await
    }

    pub(crate) async fn deliver(&self, credential: &Credential) -> Result<(), Refused> {
        if let Got::Serve(serving) = self.present(credential).await? {
            serving.delivered(None).await?;
        }
        Ok(())
    }

    pub(crate) async fn serve(&self, action: Value) -> Serving {
        let credential = self.credential(action).await;
        match self.present(&credential).await.unwrap() {
            Got::Serve(serving) => *serving,
            _ => panic!("not served"),
        }
    }

    pub(crate) async fn manage(&self, action: Value) -> Managed {
        let credential = self.credential(action).await;
        match self.present(&credential).await.unwrap() {
            Got::Managed(managed) => managed,
            _ => panic!("served"),
        }
    }
}
