//! A rail that opens, tops up and closes one channel as it is told to, and a server of it.

use std::sync::Arc;

use farebox_core::{
    Offer, Store, Typed, compose,
    prelude::*,
    wire::{Credential, Payload, Receipt},
};
use farebox_engine::{Admission, Engine, Gate, Inbound, MemoryStore, Meter, Refused};
use farebox_testkit::test_secrets;
use serde_json::{Map, Value, json};

/// A rail that believes whatever it is told.
struct Credulous(NoSettler);

#[derive(Deserialize)]
#[serde(tag = "action", rename_all = "camelCase")]
enum Action {
    Open { deposit: u64 },
    TopUp { proof: String, amount: u64 },
    Voucher { cumulative: u64 },
    Close,
}

impl Rail<Session> for Credulous {
    const METHOD: &'static str = "test";
    type Details = Map<String, Value>;
    type Payload = Action;
    type Settler = NoSettler;

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
    ) -> Result<Plan<Channel, Never>, Refusal> {
        let channel = channel();
        Ok(match action {
            Action::Open { deposit } => {
                let change = Change::deposit(Amount::new(deposit.into()));
                Plan::open(ProofKey::of("test", "open"), channel, change, None)
            }
            Action::TopUp { proof, amount } => {
                let change = Change::prepaid(Amount::new(amount.into()));
                Plan::top_up(ProofKey::of("test", proof), channel, change, None)
            }
            Action::Voucher { cumulative } => {
                Plan::advance(channel, Voucher::to(Amount::new(cumulative.into())))
            }
            Action::Close => {
                cx.channel(&channel).await?;
                Plan::close(channel, Change::none(), None)
            }
        })
    }

    fn settler(&self) -> &NoSettler {
        &self.0
    }
}

fn channel() -> ChannelId {
    ChannelId::of("test", "0xab")
}

pub(crate) struct Server {
    gate: Gate,
    pub(crate) meter: Meter,
}

impl Server {
    pub(crate) fn new() -> Self {
        Self::on(Arc::new(MemoryStore::new()))
    }

    pub(crate) fn on(store: Arc<dyn Store>) -> Self {
        let engine = Engine::builder("test.example", test_secrets(), store);
        let engine = engine.build().unwrap();
        let terms = SessionTerms {
            amount: "1".into(),
            unit: "token".into(),
            ..Default::default()
        };
        let method = Arc::new(Typed::<_, Session>::new(Credulous(NoSettler)));
        let offer = Offer::new::<Session>(method, terms).unwrap();
        let gate = engine
            .gate("POST /stream", compose([offer]).unwrap())
            .unwrap();
        Self {
            gate,
            meter: engine.meter(channel()),
        }
    }

    /// Does what the payload says and, where it is served, delivers for nothing.
    pub(crate) async fn present(&self, payload: Value) -> Result<Receipt, Refused> {
        let challenges = self.gate.challenges(&Inbound::default()).await?;
        let credential = Credential {
            challenge: challenges.into_iter().next().unwrap(),
            source: None,
            payload: Payload::from_value(&payload).unwrap(),
        };
        match self.gate.present(credential, &Inbound::default()).await? {
            Admission::Serve(serving) => {
                let meter = serving.meter();
                assert!(meter.is_some(), "a channel's payment comes with its meter");
                Ok(serving.delivered(None).await?.receipt)
            }
            Admission::Managed(managed) => Ok(managed.receipt),
            other => panic!("not answered before: {other:?}"),
        }
    }

    pub(crate) async fn open(&self, deposit: u64) -> Receipt {
        let open = json!({"action": "open", "deposit": deposit});
        self.present(open).await.unwrap()
    }

    pub(crate) async fn voucher(&self, cumulative: u64) -> Result<Receipt, Refused> {
        self.present(json!({"action": "voucher", "cumulative": cumulative}))
            .await
    }

    pub(crate) async fn close(&self) -> Receipt {
        self.present(json!({"action": "close"})).await.unwrap()
    }
}
