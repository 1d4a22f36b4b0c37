//! A disk, a clock, and rails that do as they are told.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use farebox_core::{
    Method, Offer, Store, Typed, compose,
    prelude::*,
    wire::{Challenge, Credential, Payload, Problem},
};
use farebox_engine::{
    Admission, Clock, Engine, EngineBuilder, Gate, Inbound, MemoryStore, Refused,
};
use farebox_testkit::{FaultyStore, Network, TestPayload, test_secrets};
use serde_json::{Map, Value, json};
use tokio::sync::{Notify, Semaphore};

/// A challenge lives 300 s and a reservation 60 s; an attempt is looked up after 100 s.
pub(crate) const T0: i64 = 1_800_000_000_000;

/// What outlives a process.
pub(crate) struct World {
    pub(crate) disk: Arc<MemoryStore>,
    clock: Arc<AtomicI64>,
}

impl World {
    pub(crate) fn new() -> Self {
        Self {
            disk: Arc::default(),
            clock: Arc::new(AtomicI64::new(T0)),
        }
    }

    pub(crate) fn pass(&self, seconds: i64) {
        self.clock.fetch_add(seconds * 1_000, SeqCst);
    }

    /// A process's own way to the disk.
    pub(crate) fn store(&self) -> Arc<FaultyStore<MemoryStore>> {
        Arc::new(FaultyStore::new(self.disk.clone(), Network::default()))
    }

    pub(crate) fn builder(&self, store: Arc<dyn Store>) -> EngineBuilder {
        let clock = self.clock.clone();
        Engine::builder("test.example", test_secrets(), store)
            .clock(Clock::from_fn(move || clock.load(SeqCst)))
    }

    pub(crate) fn engine(&self, store: Arc<dyn Store>) -> Engine {
        self.builder(store).build().unwrap()
    }

    /// A process that sells one joke for 100.
    pub(crate) fn charge(
        &self,
        store: Arc<dyn Store>,
        method: Arc<dyn Method>,
    ) -> (Engine, Arc<Gate>) {
        let engine = self.engine(store);
        let gate = charge_gate(&engine, method, "100");
        (engine, gate)
    }

    pub(crate) async fn count(&self, prefix: &str) -> usize {
        self.disk.scan(prefix).await.unwrap().len()
    }

    /// The one record on disk.
    pub(crate) async fn record(&self) -> Value {
        let records = self.disk.scan("pay:").await.unwrap();
        assert_eq!(records.len(), 1);
        serde_json::from_str(&records[0].1).unwrap()
    }
}

pub(crate) fn charge_gate(engine: &Engine, method: Arc<dyn Method>, price: &str) -> Arc<Gate> {
    let offer = Offer::new::<Charge>(method, ChargeTerms::amount(price)).unwrap();
    Arc::new(engine.gate("GET /joke", compose([offer]).unwrap()).unwrap())
}

pub(crate) async fn challenge(gate: &Gate) -> Challenge {
    let challenges = gate.challenges(&Inbound::default()).await.unwrap();
    challenges.into_iter().next().unwrap()
}

pub(crate) fn credential(challenge: &Challenge, payload: &Value) -> Credential {
    Credential {
        challenge: challenge.clone(),
        source: None,
        payload: Payload::from_value(payload).unwrap(),
    }
}

pub(crate) fn pay(challenge: &Challenge, token: &str) -> Credential {
    let token = token.to_owned();
    credential(challenge, &json!(TestPayload { token }))
}

/// What the payer sees.
#[derive(Debug, PartialEq)]
pub(crate) enum Got {
    /// 200: the response may leave.
    Served,
    /// 200 or 204 without a handler: a top-up or a close, now or before.
    Managed,
    /// 402 with this problem's last words, and a fresh challenge.
    Pay(String),
    /// 403: never pay again for this.
    Spent,
    /// 503: the same credential may come again.
    Later,
    /// 400.
    Wrong,
    /// 422.
    Conflict,
    /// 5xx.
    Fault(String),
}

pub(crate) fn refused(refused: Refused) -> Got {
    match refused {
        Refused::Payment(rejection) => {
            let uri = rejection.problem.type_uri().into_owned();
            let name = uri
                .split_once("/problems/")
                .map(|(_, name)| name.to_owned());
            Got::Pay(name.unwrap_or(uri))
        }
        Refused::Spent(_) => Got::Spent,
        Refused::Pending { .. } | Refused::Busy { .. } => Got::Later,
        Refused::Request(_) => Got::Wrong,
        Refused::Conflict(_) => Got::Conflict,
        Refused::Fault(fault) => Got::Fault(fault.to_string()),
    }
}

pub(crate) async fn present(gate: &Gate, credential: &Credential) -> Got {
    match gate.present(credential.clone(), &Inbound::default()).await {
        Ok(Admission::Managed(_)) => Got::Managed,
        Ok(admission) => match admission.into_serving().unwrap().delivered(None).await {
            Ok(_) => Got::Served,
            Err(fault) => Got::Fault(fault.to_string()),
        },
        Err(error) => refused(error),
    }
}

/// Presents until the payment is decided.
pub(crate) async fn settled(gate: &Gate, credential: &Credential) -> Got {
    tokio::time::timeout(Duration::from_secs(60), async {
        loop {
            match present(gate, credential).await {
                Got::Later => tokio::time::sleep(Duration::from_millis(1)).await,
                other => break other,
            }
        }
    })
    .await
    .unwrap()
}

/// The same on a task of its own, for presentations that are held up.
pub(crate) fn presenting(
    gate: &Arc<Gate>,
    credential: &Credential,
) -> tokio::task::JoinHandle<Got> {
    let (gate, credential) = (gate.clone(), credential.clone());
    tokio::spawn(async move { present(&gate, &credential).await })
}

/// What a scripted settler does when it is asked.
pub(crate) enum Act {
    Say(Outcome),
    /// Says so once the test lets it.
    Hold(Outcome),
    Panic,
    Hang,
}

/// Settles and looks up by script; `Unknown` when the script is at its end.
#[derive(Default)]
pub(crate) struct Script {
    settles: Mutex<VecDeque<Act>>,
    lookups: Mutex<VecDeque<Act>>,
    pub(crate) settled: AtomicUsize,
    pub(crate) looked_up: AtomicUsize,
    /// The orders looked up.
    pub(crate) asked: Mutex<Vec<String>>,
    reached: Notify,
    go: Notify,
}

impl Script {
    pub(crate) fn then_settle(&self, act: Act) {
        self.settles.lock().unwrap().push_back(act);
    }

    pub(crate) fn then_look_up(&self, act: Act) {
        self.lookups.lock().unwrap().push_back(act);
    }

    /// Waits until an answer is held.
    pub(crate) async fn reached(&self) {
        self.reached.notified().await;
    }

    pub(crate) fn release(&self) {
        self.go.notify_one();
    }

    async fn play(&self, acts: &Mutex<VecDeque<Act>>) -> Outcome {
        let act = acts.lock().unwrap().pop_front();
        match act {
            None => Outcome::Unknown,
            Some(Act::Say(outcome)) => outcome,
            Some(Act::Hold(outcome)) => {
                self.reached.notify_one();
                self.go.notified().await;
                outcome
            }
            Some(Act::Panic) => panic!("an order of sk_secret"),
            Some(Act::Hang) => std::future::pending().await,
        }
    }
}

impl Settle for Script {
    type Order = String;

    async fn settle(&self, _: &IdempotencyKey, _: &String) -> Outcome {
        self.settled.fetch_add(1, SeqCst);
        self.play(&self.settles).await
    }

    async fn lookup(&self, _: &IdempotencyKey, order: &String) -> Outcome {
        self.looked_up.fetch_add(1, SeqCst);
        self.asked.lock().unwrap().push(order.clone());
        self.play(&self.lookups).await
    }
}

pub(crate) fn request(terms: &ChargeTerms) -> Result<ChargeRequest, Fault> {
    let amount = Amount::parse(&terms.amount).map_err(|e| Fault::new("amount").caused_by(e))?;
    Ok(terms.request(amount, "usd"))
}

/// `test/charge` by script. Its `verify` obeys the token.
pub(crate) struct Scripted(pub(crate) Script);

pub(crate) fn scripted() -> Arc<Typed<Scripted, Charge>> {
    Arc::new(Typed::new(Scripted(Script::default())))
}

impl Rail<Charge> for Scripted {
    const METHOD: &'static str = "test";
    type Details = Map<String, Value>;
    type Payload = TestPayload;
    type Settler = Script;

    async fn quote(&self, terms: &ChargeTerms) -> Result<Quote<Charge, Self::Details>, NoQuote> {
        Ok(Quote::new(request(terms)?, Map::new()))
    }

    async fn verify(
        &self,
        _: &Presented<'_>,
        _: &Ask<Charge, Self::Details>,
        payload: TestPayload,
    ) -> Result<Plan<Once, String>, Refusal> {
        match payload.token.as_str() {
            "hang" => std::future::pending().await,
            "away" => {
                Err(Rejection::new(Problem::TemporarilyUnavailable, "the node is down").into())
            }
            "used" => Err(Rejection::new(Problem::AlreadyUsed, "used").into()),
            token => Ok(Plan::settle(ProofKey::of("test", token), token.to_owned())),
        }
    }

    fn settler(&self) -> &Script {
        &self.0
    }
}

/// A settler of channels that can be held, and counts what it moved by key, as a processor does.
pub(crate) struct Counter {
    pub(crate) moved: Arc<Mutex<Vec<(IdempotencyKey, String)>>>,
    pub(crate) fuse: farebox_testkit::Fuse,
    pub(crate) reached: Notify,
    pub(crate) gate: Semaphore,
}

impl Settle for Counter {
    type Order = String;

    async fn settle(&self, key: &IdempotencyKey, order: &String) -> Outcome {
        self.reached.notify_one();
        let _permit = self.gate.acquire().await.unwrap();
        if !self.fuse.burn() {
            return Outcome::Unknown;
        }
        let mut moved = self.moved.lock().unwrap();
        moved.push((key.clone(), order.clone()));
        drop(moved);
        if !self.fuse.burn() {
            return Outcome::Unknown;
        }
        Outcome::settled(order.as_str())
    }

    async fn lookup(&self, key: &IdempotencyKey, order: &String) -> Outcome {
        if self.fuse.is_dead() {
            return Outcome::Unknown;
        }
        if self.moved.lock().unwrap().iter().any(|(k, _)| k == key) {
            return Outcome::settled(order.as_str());
        }
        Outcome::Declined(Rejection::verification("it never arrived"))
    }
}

/// `test/session`: one prepaid channel, `x`, changed as the payload says. With `slow` the change
/// takes an order.
pub(crate) struct Till(pub(crate) Counter);

impl Till {
    /// A till whose settlements wait for permits.
    pub(crate) fn held() -> Self {
        Self::new(Arc::default(), farebox_testkit::Fuse::endless(), 0)
    }

    pub(crate) fn new(
        moved: Arc<Mutex<Vec<(IdempotencyKey, String)>>>,
        fuse: farebox_testkit::Fuse,
        permits: usize,
    ) -> Self {
        Self(Counter {
            moved,
            fuse,
            reached: Notify::new(),
            gate: Semaphore::new(permits),
        })
    }

    pub(crate) fn channel() -> ChannelId {
        ChannelId::of("test", "x")
    }
}

#[derive(Deserialize)]
pub(crate) struct Action {
    r#do: String,
    #[serde(default)]
    n: u64,
    #[serde(default)]
    proof: String,
    #[serde(default)]
    slow: bool,
}

impl Rail<Session> for Till {
    const METHOD: &'static str = "test";
    type Details = Map<String, Value>;
    type Payload = Action;
    type Settler = Counter;

    async fn quote(&self, terms: &SessionTerms) -> Result<Quote<Session, Self::Details>, NoQuote> {
        let request = terms.request(Amount::new(1), "usd");
        Ok(Quote::new(request, Map::new()))
    }

    async fn verify(
        &self,
        cx: &Presented<'_>,
        _: &Ask<Session, Self::Details>,
        action: Action,
    ) -> Result<Plan<Channel, String>, Refusal> {
        let (channel, proof) = (Self::channel(), ProofKey::of("test", &action.proof));
        let put = Change::prepaid(Amount::new(action.n.into()));
        let order = |what: String| action.slow.then_some(what);
        match action.r#do.as_str() {
            "open" => Ok(Plan::open(
                proof,
                channel,
                put,
                order(format!("open {}", action.n)),
            )),
            "topup" => Ok(Plan::top_up(
                proof,
                channel,
                put,
                order(format!("topup {}", action.n)),
            )),
            "bearer" => Ok(Plan::advance(channel, Voucher::bearer())),
            _ => {
                let state = cx.channel(&channel).await?;
                let state = state.ok_or_else(|| Rejection::verification("no such channel"))?;
                // What is captured is what the rail saw spent.
                let order = order(format!("close {}", state.spent));
                Ok(Plan::close(channel, Change::none(), order))
            }
        }
    }

    fn settler(&self) -> &Counter {
        &self.0
    }
}

pub(crate) fn session_gate(engine: &Engine, till: Arc<Typed<Till, Session>>) -> Arc<Gate> {
    let terms = SessionTerms {
        amount: "1".into(),
        unit: "token".into(),
        ..Default::default()
    };
    let offer = Offer::new::<Session>(till, terms).unwrap();
    Arc::new(
        engine
            .gate("POST /stream", compose([offer]).unwrap())
            .unwrap(),
    )
}
