//! A shop on the test rail, and a wallet for it.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use farebox_client::{Budget, Limit, Purse};
use farebox_core::{
    ChargeTerms, Method, Offer, Store, Typed, compose,
    prelude::*,
    wire::{Amount, Credential, Payload, Timestamp},
};
use farebox_engine::{Clock, Engine, Gate, MemoryStore};
use farebox_jsonrpc::{ErrorObject, Message, PaymentError, Request, Response, server::Tariff};
use farebox_testkit::{Bank, Fuse, TEST_REALM, TestPayload, TestRail, test_secrets};
use serde_json::{Map, Value, json};

pub struct Shop {
    pub bank: Arc<Bank>,
    pub tariff: Tariff,
    pub now: Arc<AtomicI64>,
    pub calls: AtomicUsize,
    /// What the handler was given, and what it answers.
    pub seen: Mutex<Vec<Request>>,
    pub answer: Mutex<Result<Value, ErrorObject>>,
}

pub const PRICED: [&str; 5] = [
    "tools/call joke",
    "tools/call poem",
    "resources/read file:///prices",
    "prompts/get greet",
    "eth_getBlockByNumber",
];

impl Shop {
    pub fn open() -> Self {
        Self::with(Arc::new(MemoryStore::new()), TestRail::settling)
    }

    pub fn with(store: Arc<dyn Store>, rail: impl FnOnce(Arc<Bank>, Fuse) -> TestRail) -> Self {
        let (bank, now) = (
            Arc::new(Bank::default()),
            Arc::new(AtomicI64::new(Timestamp::now().unix_millis())),
        );
        let clock = now.clone();
        let engine = Engine::builder(TEST_REALM, test_secrets(), store)
            .clock(Clock::from_fn(move || clock.load(SeqCst)))
            .settle_deadline(Duration::from_secs(60))
            .build()
            .unwrap();
        let rail = rail(bank.clone(), Fuse::endless());
        let method: Arc<dyn Method> = Arc::new(Typed::<_, Charge>::new(rail));
        let gates = PRICED.map(|route| gate(&engine, &method, route));
        Self {
            bank,
            tariff: Tariff::new(gates).unwrap(),
            now,
            calls: AtomicUsize::new(0),
            seen: Mutex::default(),
            answer: Mutex::new(Ok(json!({"content": [{"type": "text", "text": "a joke"}]}))),
        }
    }

    pub fn answers(&self, outcome: Result<Value, ErrorObject>) {
        *self.answer.lock().unwrap() = outcome;
    }

    /// One message in, one or none out, over text as a peer would send it.
    pub async fn send(&self, message: &Value) -> Option<Response> {
        let text = serde_json::to_vec(message).unwrap();
        let answer = self
            .tariff
            .serve(&text, None, async |request, _| {
                self.calls.fetch_add(1, SeqCst);
                self.seen.lock().unwrap().push(request);
                self.answer.lock().unwrap().clone()
            })
            .await?;
        match Message::parse(answer.as_bytes()) {
            Ok(Message::Response(response)) => Some(response),
            other => panic!("no response: {other:?}"),
        }
    }

    pub async fn call(&self, message: &Value) -> Response {
        self.send(message).await.expect("an answer")
    }

    /// A challenge for a call.
    pub async fn ask(&self, message: &Value) -> Map<String, Value> {
        let error = self.call(message).await.outcome.unwrap_err();
        let asked = PaymentError::of(&error).unwrap();
        asked.challenges[0].json().clone()
    }

    pub fn calls(&self) -> usize {
        self.calls.load(SeqCst)
    }
}

pub fn gate(engine: &Engine, method: &Arc<dyn Method>, route: &str) -> Gate {
    let offer = |amount, currency: &str| {
        let terms = ChargeTerms {
            currency: Some(currency.to_owned()),
            ..ChargeTerms::amount(amount)
        };
        Offer::new::<Charge>(method.clone(), terms).unwrap()
    };
    let offers = compose([offer("5", "usd"), offer("7", "eur")]).unwrap();
    engine.gate(route, offers).unwrap()
}

pub fn joke(id: u64) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": "tools/call",
        "params": {"name": "joke", "arguments": {"about": "buses"}}})
}

pub fn paid(challenge: &Map<String, Value>, token: &str) -> Value {
    json!({"challenge": challenge, "payload": {"token": token}})
}

/// The call with a credential where MCP has it.
pub fn with(mut call: Value, credential: Value) -> Value {
    call["params"]["_meta"] = json!({"org.paymentauth/credential": credential});
    call
}

pub fn payment_error(response: &Response) -> PaymentError {
    PaymentError::of(response.outcome.as_ref().unwrap_err()).expect("a payment error")
}

pub fn code(response: &Response) -> i64 {
    response.outcome.as_ref().unwrap_err().code
}

pub fn receipt_of(response: &Response) -> Option<&Value> {
    let result = response.outcome.as_ref().ok()?;
    result.get("_meta")?.get("org.paymentauth/receipt")
}

/// Pays on the test rail, and remembers for whom.
#[derive(Default)]
pub struct Coins {
    pub paid: Arc<Mutex<Vec<Challenge>>>,
    /// The currency it holds; any if `None`.
    pub only: Option<&'static str>,
}

impl Wallet<Charge> for Coins {
    const METHOD: &'static str = "test";
    type Details = Map<String, Value>;
    type Payload = TestPayload;

    fn price(&self, _: &Paying<'_>, ask: &Ask<Charge, Self::Details>) -> Result<Cost, PayError> {
        Ok(Cost {
            amount: ask.request.amount,
            currency: ask.request.currency.clone(),
            recipient: None,
        })
    }

    async fn funded(&self, cost: &Cost) -> bool {
        self.only.is_none_or(|only| cost.currency == only)
    }

    async fn pay(
        &self,
        cx: &Paying<'_>,
        _: Ask<Charge, Self::Details>,
        _: Approved,
    ) -> Result<Paid<TestPayload>, PayError> {
        let mut paid = self.paid.lock().unwrap();
        paid.push(cx.challenge.clone());
        let token = format!("good-{}", paid.len());
        Ok(Paid::new(TestPayload { token }).by("did:example:payer"))
    }
}

pub fn purse(coins: Coins) -> Purse {
    let limit = |currency| Limit::per_request(currency, Amount::new(10)).total(Amount::new(1000));
    Purse::new(Budget::new([limit("usd"), limit("eur")])).wallet::<Charge, _>(coins)
}

pub fn credential(challenge: &Challenge, token: &str) -> Credential {
    Credential {
        challenge: challenge.clone(),
        payload: Payload::from_value(&json!({ "token": token })).unwrap(),
        source: None,
    }
}
