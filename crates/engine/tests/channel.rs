//! The balance machine: what every channel inherits, whatever rail feeds it.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{sync::Arc, time::Duration};

use farebox_core::{
    Offer, Typed, compose,
    prelude::*,
    wire::{Credential, Payload},
};
use farebox_engine::{Engine, Gate, Inbound, MemoryStore, Meter, MeterError, Refused};
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
        let channel = ChannelId::of("test", "0xab");
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

struct Server {
    gate: Gate,
    meter: Meter,
}

impl Server {
    fn new() -> Self {
        let engine = Engine::builder("test.example", test_secrets(), Arc::new(MemoryStore::new()))
            .build()
            .unwrap();
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
            meter: engine.meter(ChannelId::of("test", "0xab")),
        }
    }

    async fn present(&self, payload: Value) -> Result<(), Refused> {
        let challenge = self
            .gate
            .challenges(&Inbound::default())
            .await
            .unwrap()
            .remove(0);
        let payload = Payload::from_value(&payload).unwrap();
        let credential = Credential {
            challenge,
            source: None,
            payload,
        };
        let admission = self.gate.present(credential, &Inbound::default()).await?;
        let Some(serving) = admission.into_serving() else {
            return Ok(());
        };
        assert!(
            serving.meter().is_some(),
            "a channel's payment comes with its meter"
        );
        serving.delivered(None).await?;
        Ok(())
    }

    async fn voucher(&self, cumulative: u64) -> Result<(), Refused> {
        self.present(json!({"action": "voucher", "cumulative": cumulative}))
            .await
    }
}

fn problem(refused: Result<(), Refused>) -> String {
    match refused {
        Err(Refused::Payment(rejection)) => rejection.problem.type_uri().into_owned(),
        other => panic!("expected a rejection, got {other:?}"),
    }
}

#[tokio::test]
async fn vouchers_only_go_up() {
    let server = Server::new();
    assert!(problem(server.voucher(1).await).ends_with("session/channel-not-found"));
    server
        .present(json!({"action": "open", "deposit": 100}))
        .await
        .unwrap();
    server.voucher(40).await.unwrap();
    server
        .voucher(40)
        .await
        .expect("an equal voucher changes nothing and is accepted");
    assert!(problem(server.voucher(39).await).ends_with("verification-failed"));
    assert!(problem(server.voucher(101).await).ends_with("session/amount-exceeds-deposit"));
    let state = server.meter.state().await.unwrap();
    assert_eq!(
        (
            state.authorized.get(),
            state.deposit.get(),
            state.spent.get()
        ),
        (40, 100, 0)
    );
    server.present(json!({"action": "close"})).await.unwrap();
    assert!(problem(server.voucher(50).await).ends_with("session/channel-finalized"));
    assert!(
        server.meter.debit(Amount::new(1)).await.is_err(),
        "closing is final"
    );
}

/// One payment, sent under two challenges, is credited once.
#[tokio::test]
async fn a_top_up_is_credited_once() {
    let server = Server::new();
    server
        .present(json!({"action": "open", "deposit": 0}))
        .await
        .unwrap();
    let top_up = json!({"action": "topUp", "proof": "p", "amount": 10});
    server.present(top_up.clone()).await.unwrap();
    assert!(matches!(
        server.present(top_up).await,
        Err(Refused::Spent(_))
    ));
    assert_eq!(
        server.meter.state().await.unwrap().authorized,
        Amount::new(10)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_hundred_debits_on_a_hundred_give_a_hundred() {
    let server = Server::new();
    server
        .present(json!({"action": "open", "deposit": 100}))
        .await
        .unwrap();
    server.voucher(100).await.unwrap();
    let debits: Vec<_> = (0..200)
        .map(|_| {
            let meter = server.meter.clone();
            tokio::spawn(async move { meter.debit(Amount::new(1)).await.is_ok() })
        })
        .collect();
    let mut spent = 0;
    for debit in debits {
        spent += usize::from(debit.await.unwrap());
    }
    assert_eq!(spent, 100);
    assert_eq!(server.meter.state().await.unwrap().spent, Amount::new(100));
}

/// A lease is one write for many ticks, and gives back what it did not burn.
#[tokio::test]
async fn a_lease_burns_locally_and_gives_back_the_rest() {
    let server = Server::new();
    server
        .present(json!({"action": "open", "deposit": 100}))
        .await
        .unwrap();
    server.voucher(100).await.unwrap();
    let mut lease = server.meter.lease(Amount::new(80)).await.unwrap();
    match server.meter.debit(Amount::new(21)).await {
        Err(MeterError::Exhausted {
            required,
            authorized,
            ..
        }) => {
            assert_eq!((required.get(), authorized.get()), (101, 100));
        }
        other => panic!("a leased block is not available to others: {other:?}"),
    }
    for _ in 0..30 {
        assert!(lease.burn(Amount::new(1)));
    }
    assert!(
        !lease.burn(Amount::new(51)),
        "a lease cannot burn more than it holds"
    );
    lease.finish().await.unwrap();
    assert_eq!(server.meter.state().await.unwrap().spent, Amount::new(30));
    assert!(server.meter.lease(Amount::new(70)).await.is_ok());
}

/// A waiting stream wakes when the voucher comes, and gives up when none does.
#[tokio::test]
async fn a_stream_waits_for_the_next_voucher() {
    let server = Server::new();
    server
        .present(json!({"action": "open", "deposit": 100}))
        .await
        .unwrap();
    let one = Amount::new(1);
    assert!(
        !server
            .meter
            .wait_for(one, Duration::from_millis(20))
            .await
            .unwrap()
    );
    let waiting = tokio::spawn({
        let meter = server.meter.clone();
        async move { meter.wait_for(one, Duration::from_secs(30)).await.unwrap() }
    });
    server.voucher(1).await.unwrap();
    assert!(waiting.await.unwrap());
}
