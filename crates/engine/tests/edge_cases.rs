//! Edge cases of channels; numbers are those of `spec/edge-cases.toml`.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{sync::Arc, time::Duration};

use farebox_core::{
    Offer, Store, Typed, compose,
    prelude::*,
    wire::{Credential, Payload, Receipt},
};
use farebox_engine::{Admission, Engine, Gate, Inbound, MemoryStore, Refused};
use farebox_testkit::{Counter, Proxy, test_secrets};
use serde_json::{Map, Value, json};

/// Opens and closes what it is told to, and takes vouchers in between.
struct Channels(NoSettler);

#[derive(Deserialize)]
#[serde(tag = "do", rename_all = "lowercase")]
enum Action {
    Open { deposit: u64 },
    Voucher { to: u64 },
    Close,
}

fn channel() -> ChannelId {
    ChannelId::of("test", "0xab")
}

impl Rail<Session> for Channels {
    const METHOD: &'static str = "test";
    type Details = Map<String, Value>;
    type Payload = Action;
    type Settler = NoSettler;

    async fn quote(&self, terms: &SessionTerms) -> Result<Quote<Session, Self::Details>, NoQuote> {
        let request = terms.request(
            Amount::parse(&terms.amount).map_err(|e| Fault::new("terms").caused_by(e))?,
            "usd",
        );
        Ok(Quote::new(request, Map::new()))
    }

    async fn verify(
        &self,
        cx: &Presented<'_>,
        _: &Ask<Session, Self::Details>,
        action: Action,
    ) -> Result<Plan<Channel, Never>, Refusal> {
        Ok(match action {
            Action::Open { deposit } => {
                let change = Change::deposit(Amount::new(deposit.into()));
                Plan::open(ProofKey::of("test", "open"), channel(), change, None)
            }
            Action::Voucher { to } => Plan::advance(channel(), Voucher::to(Amount::new(to.into()))),
            Action::Close => {
                cx.channel(&channel()).await?;
                Plan::close(channel(), Change::none(), None)
            }
        })
    }

    fn settler(&self) -> &NoSettler {
        &self.0
    }
}

fn server(store: Arc<dyn Store>) -> (Engine, Gate) {
    let engine = Engine::builder("test.example", test_secrets(), store);
    let engine = engine.build().unwrap();
    let terms = SessionTerms {
        amount: "1".into(),
        unit: "token".into(),
        ..SessionTerms::default()
    };
    let method = Arc::new(Typed::<_, Session>::new(Channels(NoSettler)));
    let offer = Offer::new::<Session>(method, terms).unwrap();
    let gate = engine.gate("GET /", compose([offer]).unwrap()).unwrap();
    (engine, gate)
}

async fn present(gate: &Gate, action: Value) -> Result<Receipt, Refused> {
    let challenges = gate.challenges(&Inbound::default()).await?;
    let credential = Credential {
        challenge: challenges.into_iter().next().unwrap(),
        payload: Payload::from_value(&action).unwrap(),
        source: None,
    };
    let admission = gate.present(credential, &Inbound::default()).await?;
    match admission {
        Admission::Serve(serving) => Ok(serving.delivered(None).await?.receipt),
        Admission::Managed(managed) => Ok(managed.receipt),
        other => panic!("not answered before: {other:?}"),
    }
}

/// 114: what was put in and never used is not lost for want of a voucher.
#[tokio::test]
async fn an_unused_channel_closes_for_nothing() {
    let (engine, gate) = server(Arc::new(MemoryStore::new()));
    let open = present(&gate, json!({ "do": "open", "deposit": 100 })).await;
    open.unwrap();
    present(&gate, json!({ "do": "close" })).await.unwrap();
    let state = engine.meter(channel()).state().await.unwrap();
    let amounts = (state.spent.get(), state.authorized.get(), state.closed);
    assert_eq!(amounts, (0, 0, true));
    let late = present(&gate, json!({ "do": "voucher", "to": 1 })).await;
    assert!(matches!(late, Err(Refused::Payment(_))), "{late:?}");
}

/// 119: whatever was done to it.
#[tokio::test]
async fn a_sessions_receipt_names_its_channel() {
    let (_, gate) = server(Arc::new(MemoryStore::new()));
    for action in [
        json!({ "do": "open", "deposit": 100 }),
        json!({ "do": "voucher", "to": 10 }),
        json!({ "do": "close" }),
    ] {
        let receipt = present(&gate, action.clone()).await.unwrap();
        assert_eq!(receipt.reference, "0xab", "{action}");
        assert_eq!(receipt.method, "test");
        assert!(receipt.extra["challengeId"].is_string(), "{action}");
    }
}

/// 125: a stream that waits an hour looks about twice a second and not as fast as it can.
#[tokio::test(start_paused = true)]
async fn a_wait_for_a_voucher_sleeps() {
    let store = Arc::new(Proxy::new(
        Arc::<MemoryStore>::default(),
        Counter::default(),
    ));
    let (engine, gate) = server(store.clone());
    let open = present(&gate, json!({ "do": "open", "deposit": 100 })).await;
    open.unwrap();
    let before = store.reads();
    let hour = Duration::from_secs(3600);
    let waited = engine.meter(channel()).wait_for(Amount::new(1), hour).await;
    assert!(!waited.unwrap());
    let looks = store.reads() - before;
    assert!((1..=7_300).contains(&looks), "{looks} looks");
}
