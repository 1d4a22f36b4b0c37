//! A session's channel on Redis, spent by three processes at once.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    env,
    io::Read as _,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use farebox_core::{
    Offer, Typed, compose,
    prelude::*,
    wire::{Credential, Payload},
};
use farebox_engine::{Engine, Gate, Inbound, Meter, MeterError};
use farebox_store_redis::{Redis, RedisStore};
use farebox_test_services::Redis as Server;
use farebox_testkit::test_secrets;
use serde_json::{Map, Value, json};

/// Believes whatever it is told.
struct Credulous(NoSettler);

#[derive(Deserialize)]
struct Said {
    deposit: Option<u64>,
    to: u64,
}

fn channel() -> ChannelId {
    ChannelId::of("test", "shared")
}

impl Rail<Session> for Credulous {
    const METHOD: &'static str = "test";
    type Details = Map<String, Value>;
    type Payload = Said;
    type Settler = NoSettler;

    async fn quote(&self, _: &SessionTerms) -> Result<Quote<Session, Self::Details>, NoQuote> {
        let request = serde_json::from_value(json!({"amount": "1", "currency": "usd"}));
        let request = request.map_err(|e| Fault::new("request").caused_by(e))?;
        Ok(Quote::new(request, Map::new()))
    }

    async fn verify(
        &self,
        _: &Presented<'_>,
        _: &Ask<Session, Self::Details>,
        said: Said,
    ) -> Result<Plan<Channel, Never>, Refusal> {
        let to = Amount::new(said.to.into());
        Ok(match said.deposit {
            Some(deposit) => {
                let change = Change::deposit(Amount::new(deposit.into())).authorized(to);
                Plan::open(ProofKey::of("test", "open"), channel(), change, None)
            }
            None => Plan::advance(channel(), Voucher::to(to)),
        })
    }

    fn settler(&self) -> &NoSettler {
        &self.0
    }
}

async fn process(url: &str) -> (Gate, Meter) {
    let store = RedisStore::open(&Redis::parse(url).unwrap()).await.unwrap();
    let engine = Engine::builder("test.example", test_secrets(), Arc::new(store))
        .build()
        .unwrap();
    let method = Arc::new(Typed::<_, Session>::new(Credulous(NoSettler)));
    let terms = SessionTerms {
        amount: "1".into(),
        unit: "token".into(),
        ..Default::default()
    };
    let offers = compose([Offer::new::<Session>(method, terms).unwrap()]).unwrap();
    let gate = engine.gate("GET /stream", offers).unwrap();
    (gate, engine.meter(channel()))
}

async fn present(gate: &Gate, payload: Value) {
    let challenges = gate.challenges(&Inbound::default()).await.unwrap();
    let credential = Credential {
        challenge: challenges.into_iter().next().unwrap(),
        source: None,
        payload: Payload::from_value(&payload).unwrap(),
    };
    let admission = gate.present(credential, &Inbound::default()).await.unwrap();
    let serving = admission.into_serving().unwrap();
    serving.delivered(None).await.unwrap();
}

/// Where a spending process finds the channel.
const URL: &str = "FAREBOX_TEST_CHANNEL";

/// How long a spender waits before it asks whether the test is over.
const MOMENT: Duration = Duration::from_millis(200);

/// Whether the test is over.
static OVER: AtomicBool = AtomicBool::new(false);

/// One of the processes, with streams and requests; says how much it served. Nothing by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server and the test below, which runs it"]
async fn spender() {
    let Ok(url) = env::var(URL) else { return };
    // The test says that it is over by closing the input.
    std::thread::spawn(|| {
        drop(std::io::stdin().read_to_end(&mut Vec::new()));
        OVER.store(true, Relaxed);
    });
    let (_, meter) = process(&url).await;
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..4 {
        let meter = meter.clone();
        tasks.spawn(async move {
            if task % 2 == 0 {
                return stream(&meter).await;
            }
            let mut served = 0_u64;
            // Read before it waits: what is authorised until then is spent too.
            while let over = OVER.load(Relaxed)
                && (meter.wait_for(Amount::new(1), MOMENT).await.unwrap() || !over)
            {
                match meter.reserve(1).await {
                    Ok(charge) => {
                        charge.commit().await.unwrap();
                        served += 1;
                    }
                    Err(MeterError::Exhausted { .. } | MeterError::Busy { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            served
        });
    }
    let mut served = 0;
    while let Some(task) = tasks.join_next().await {
        served += task.unwrap();
    }
    println!("served={served}");
}

async fn stream(meter: &Meter) -> u64 {
    let mut tap = meter.tap().unwrap();
    loop {
        match tap.charge(1).await {
            Ok(()) => tokio::task::yield_now().await,
            Err(MeterError::Exhausted { .. }) => {
                let over = OVER.load(Relaxed);
                match tap.hold(1, MOMENT).await {
                    Ok(false) if over => break,
                    Ok(_) | Err(MeterError::Busy { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            // A stream of another process is slow to give back.
            Err(MeterError::Busy { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    let served = tap.served().units;
    tap.finish().await.unwrap();
    served
}

/// Protects: however many processes spend one channel, exactly what was authorised is served, and a
/// voucher taken by one process resumes the streams of the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn three_processes_never_overspend_a_channel() {
    let server = Server::start();
    let (gate, meter) = process(&server.url()).await;
    present(&gate, json!({"deposit": 3_000, "to": 1_000})).await;
    let spend = || {
        Command::new(env::current_exe().unwrap())
            .args(["--exact", "spender", "--ignored", "--nocapture"])
            .env(URL, server.url())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let spenders: Vec<_> = (0..3).map(|_| spend()).collect();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(180);
    let spent = async |to: u128| {
        while meter.state().await.unwrap().spent.get() < to {
            assert!(tokio::time::Instant::now() < deadline, "not all is spent");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    spent(1_000).await;
    present(&gate, json!({"to": 1_500})).await;
    spent(1_500).await;
    let mut served = 0;
    // Waiting for the output closes the input.
    for spender in spenders {
        let output = tokio::task::spawn_blocking(|| spender.wait_with_output());
        let output = output.await.unwrap().unwrap();
        assert!(output.status.success());
        let said = String::from_utf8(output.stdout).unwrap();
        let count = said.lines().find_map(|line| line.split("served=").nth(1));
        served += count.unwrap().trim().parse::<u128>().unwrap();
    }
    let state = meter.state().await.unwrap();
    assert_eq!(
        (served, state.spent.get(), state.held.get()),
        (1_500, 1_500, 0)
    );
    assert_eq!(u128::from(state.units), 1_500);
}
