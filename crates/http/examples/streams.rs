//! How many metered event streams a process holds, and what each of them takes.
//!
//! `cargo run --release -p farebox-http --example streams -- 10000` starts a server as a process of
//! its own, opens so many streams on it, each on a channel of its own and with an event a second,
//! and prints what the server took for them. Raise the limit of open files first (`ulimit -n`).
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    missing_docs,
    reason = "a measurement ends where it goes wrong"
)]

#[path = "../tests/it/tills.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    reason = "rails of the tests, which use all of them"
)]
mod tills;

use std::{
    convert::Infallible,
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use axum::{Router, response::IntoResponse, routing::get};
use farebox_core::{
    Offer, Session, SessionTerms, Typed, compose,
    wire::{Challenge, Credential, Payload, SecretRing},
};
use farebox_engine::{Engine, MemoryStore};
use farebox_http::{Metered, PaymentLayer};
use futures_util::stream;
use reqwest::Client;
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{interval, sleep},
};

async fn ticks(session: Metered) -> impl IntoResponse {
    let every = interval(Duration::from_secs(1));
    session.events(stream::unfold(every, |mut every| async move {
        every.tick().await;
        Some((Ok::<_, Infallible>("tick"), every))
    }))
}

async fn serve() {
    let secrets = SecretRing::new(["0123456789abcdef0123456789abcdef".to_owned().into()]).unwrap();
    let store = Arc::new(MemoryStore::new());
    let engine = Engine::builder("localhost", secrets, store)
        .build()
        .unwrap();
    let terms = SessionTerms {
        amount: "1".into(),
        unit: "tick".into(),
        ..Default::default()
    };
    let rail = Arc::new(Typed::<_, Session>::new(tills::Purses));
    let offers = compose([Offer::new::<Session>(rail, terms).unwrap()]).unwrap();
    let paid = PaymentLayer::new(engine.gate("GET /ticks", offers).unwrap());
    let app = Router::new().route("/ticks", get(ticks).layer(paid));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("http://{}/ticks", listener.local_addr().unwrap());
    axum::serve(listener, app).await.unwrap();
}

/// Resident memory and processor time of a process, from Linux's own books.
fn taken(child: &Child) -> (u64, f64) {
    let read = |name| std::fs::read_to_string(format!("/proc/{}/{name}", child.id())).unwrap();
    let status = read("status");
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    let resident = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    let stat = read("stat");
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    let ticks: f64 = fields[11..13]
        .iter()
        .map(|n| n.parse::<f64>().unwrap())
        .sum();
    (resident, ticks / 100.0)
}

/// How many streams are being opened at once: more than a listener's backlog would be reset.
const AT_ONCE: usize = 256;

/// What came of all streams.
#[derive(Default)]
struct Tally {
    begun: AtomicU64,
    ended: AtomicU64,
    events: AtomicU64,
}

async fn listen(client: Client, url: String, n: usize, begins: Arc<Semaphore>, tally: Arc<Tally>) {
    let mut beginning = Some(begins.acquire().await.unwrap());
    let asked = client.get(&url).send().await.unwrap();
    let challenge = asked.headers()["www-authenticate"].to_str().unwrap();
    let payload =
        serde_json::json!({"action": "open", "channel": n.to_string(), "deposit": 100_000});
    let credential = Credential {
        challenge: Challenge::parse_one(challenge).unwrap(),
        payload: Payload::from_value(&payload).unwrap(),
        source: None,
    };
    let paying = client
        .get(&url)
        .header("authorization", credential.to_header().unwrap());
    let mut response = paying.send().await.unwrap().error_for_status().unwrap();
    while let Ok(Some(chunk)) = response.chunk().await {
        let text = String::from_utf8_lossy(&chunk);
        let ticks = text.matches("data: tick").count() as u64;
        if ticks > 0 && beginning.take().is_some() {
            tally.begun.fetch_add(1, SeqCst);
        }
        tally.events.fetch_add(ticks, SeqCst);
    }
    tally.ended.fetch_add(1, SeqCst);
}

async fn measure(streams: usize) {
    let mut server = Command::new(std::env::current_exe().unwrap())
        .arg("serve")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut url = String::new();
    BufReader::new(server.stdout.take().unwrap())
        .read_line(&mut url)
        .unwrap();
    let (before, _) = taken(&server);
    let (client, tally) = (Client::new(), Arc::new(Tally::default()));
    let begins = Arc::new(Semaphore::new(AT_ONCE));
    let begun = Instant::now();
    let mut listeners = JoinSet::new();
    for n in 0..streams {
        let url = url.trim().to_owned();
        let (begins, tally) = (begins.clone(), tally.clone());
        listeners.spawn(listen(client.clone(), url, n, begins, tally));
    }
    let events = &tally.events;
    while tally.begun.load(SeqCst) < streams as u64 {
        if let Some(Err(lost)) = listeners.try_join_next() {
            panic!("a stream was not begun: {lost}");
        }
        assert!(
            begun.elapsed() < Duration::from_secs(120),
            "they did not all begin"
        );
        sleep(Duration::from_millis(50)).await;
    }
    println!(
        "{streams} streams after {:.1} s",
        begun.elapsed().as_secs_f64()
    );
    sleep(Duration::from_secs(5)).await;
    let (from, (_, busy)) = (events.load(SeqCst), taken(&server));
    let watched = Instant::now();
    sleep(Duration::from_secs(10)).await;
    let seconds = watched.elapsed().as_secs_f64();
    let (after, now_busy) = taken(&server);
    let rate = (events.load(SeqCst) - from) as f64 / seconds;
    println!(
        "{rate:.0} events/s, {:.0} % of one core",
        (now_busy - busy) / seconds * 100.0
    );
    let each = (after - before) as f64 / streams as f64;
    println!(
        "{} MiB resident, {each:.1} KiB for each stream",
        after / 1024
    );
    assert_eq!(tally.ended.load(SeqCst), 0, "streams that ended");
    server.kill().unwrap();
    server.wait().unwrap();
}

#[tokio::main]
async fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("serve") => serve().await,
        streams => measure(streams.map_or(1_000, |n| n.parse().unwrap())).await,
    }
}
