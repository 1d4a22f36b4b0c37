//! Calls that are paid from a session: each costs a unit.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
};

use farebox_core::{ChannelId, Method, Offer, Session, SessionTerms, Typed, compose};
use farebox_engine::{Engine, MemoryStore};
use farebox_jsonrpc::{ErrorObject, Message, PaymentError, Request, Response, server::Tariff};
use farebox_testkit::{TEST_REALM, test_secrets};
use serde_json::{Value, json};

use crate::{
    support::{joke, receipt_of, with},
    tills::Purses,
};

struct Shop {
    engine: Engine,
    tariff: Tariff,
    calls: AtomicUsize,
    fails: AtomicBool,
}

impl Shop {
    /// A joke costs 2.
    fn open() -> Self {
        let store = Arc::new(MemoryStore::new());
        let engine = Engine::builder(TEST_REALM, test_secrets(), store).build();
        let engine = engine.unwrap();
        let method: Arc<dyn Method> = Arc::new(Typed::<_, Session>::new(Purses));
        let terms = SessionTerms {
            amount: "2".into(),
            unit: "call".into(),
            ..SessionTerms::default()
        };
        let offer = Offer::new::<Session>(method, terms).unwrap();
        let gate = engine.gate("tools/call joke", compose([offer]).unwrap());
        Self {
            tariff: Tariff::new([gate.unwrap()]).unwrap(),
            engine,
            calls: AtomicUsize::new(0),
            fails: AtomicBool::new(false),
        }
    }

    async fn send(&self, call: &Value) -> Response {
        let text = serde_json::to_vec(call).unwrap();
        let handler = async |_: Request, _| {
            self.calls.fetch_add(1, SeqCst);
            match self.fails.load(SeqCst) {
                true => Err(ErrorObject::new(-32000, "out of jokes")),
                false => Ok(json!({ "content": [] })),
            }
        };
        let answer = self.tariff.serve(&text, None, handler).await.unwrap();
        match Message::parse(answer.as_bytes()) {
            Ok(Message::Response(response)) => response,
            other => panic!("no response: {other:?}"),
        }
    }

    /// A call that presents `act` under a challenge of its own.
    async fn call(&self, mut act: Value) -> Response {
        act["channel"] = "one".into();
        let asked = self.send(&joke(1)).await.outcome.unwrap_err();
        let challenge = PaymentError::of(&asked).unwrap().challenges[0]
            .json()
            .clone();
        let credential = json!({ "challenge": challenge, "payload": act });
        self.send(&with(joke(1), credential)).await
    }

    async fn spent(&self) -> u128 {
        let meter = self.engine.meter(ChannelId::of("purse", "one"));
        let state = meter.state().await.unwrap();
        assert!(state.held.is_zero(), "nothing is left held");
        state.spent.get()
    }
}

/// Protects: a call is not served for nothing because a session pays for it, and one that fails
/// costs nothing.
#[tokio::test]
async fn a_call_costs_a_unit_of_its_session() {
    let shop = Shop::open();
    let opened = shop
        .call(json!({ "action": "open", "deposit": 4, "proof": "a" }))
        .await;
    assert!(receipt_of(&opened).is_some());
    assert_eq!(shop.spent().await, 2);
    shop.fails.store(true, SeqCst);
    assert!(
        shop.call(json!({ "action": "bearer" }))
            .await
            .outcome
            .is_err()
    );
    shop.fails.store(false, SeqCst);
    let served = shop.call(json!({ "action": "bearer" })).await;
    assert!(served.outcome.is_ok());
    assert_eq!((shop.spent().await, shop.calls.load(SeqCst)), (4, 3));
    let refused = shop.call(json!({ "action": "bearer" })).await;
    let refused = PaymentError::of(&refused.outcome.unwrap_err()).unwrap();
    assert_eq!(refused.challenges.len(), 1, "paying helps");
    let problem = refused.problem.unwrap();
    assert!(
        problem
            .problem_type
            .ends_with("session/insufficient-balance")
    );
    assert_eq!(problem.extra["requiredTopUp"], "2");
    assert_eq!(
        shop.calls.load(SeqCst),
        3,
        "what is not covered is not asked for"
    );
}

/// Protects: a top-up and a close are carried out and answered, and no tool runs for them.
#[tokio::test]
async fn top_ups_and_closes_run_no_tool() {
    let shop = Shop::open();
    shop.call(json!({ "action": "open", "deposit": 2, "proof": "a" }))
        .await;
    let topped_up = shop
        .call(json!({ "action": "topUp", "deposit": 2, "proof": "b" }))
        .await;
    assert!(receipt_of(&topped_up).is_some());
    let said = topped_up.outcome.unwrap();
    assert_eq!(said["status"], "ok", "the rail's own answer: {said}");
    assert!(
        shop.call(json!({ "action": "bearer" }))
            .await
            .outcome
            .is_ok()
    );
    let closed = shop.call(json!({ "action": "close" })).await;
    assert!(receipt_of(&closed).is_some());
    assert_eq!((shop.spent().await, shop.calls.load(SeqCst)), (4, 2));
}
