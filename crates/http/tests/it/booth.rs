//! A booth that sells by the unit, and what its payers read.

use std::{
    collections::VecDeque,
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU16, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use farebox_core::{
    ChannelState, Method, Offer, Typed, compose,
    prelude::*,
    wire::{Credential, Payload, Receipt},
};
use farebox_engine::{Engine, MemoryStore};
use farebox_http::{Event as Piece, Metered, Pace, PaymentLayer, server::Unpaid};
use farebox_testkit::{Counter, Proxy};
use futures_util::{TryStreamExt as _, stream};
use reqwest::{Client, RequestBuilder};
use serde_json::{Value, json};
use tokio::{sync::mpsc, time::timeout};

use crate::{
    support::{Answer, PATIENCE, engine, serve},
    tills::{Chits, Purses},
};

/// What a handler streams, as the test says.
pub type Feed = mpsc::UnboundedSender<Result<Piece, String>>;

#[derive(Default)]
pub struct Behind {
    /// Streams that were begun take one of these each.
    feeds: Mutex<VecDeque<mpsc::UnboundedReceiver<Result<Piece, String>>>>,
    pub status: AtomicU16,
    pub calls: AtomicUsize,
    /// How often a stream's handler was asked for a piece.
    pub asked: AtomicUsize,
}

impl Behind {
    pub fn feed(&self) -> Feed {
        let (feed, pieces) = mpsc::unbounded_channel();
        self.feeds.lock().unwrap().push_back(pieces);
        feed
    }

    pub fn pieces(
        self: Arc<Self>,
    ) -> impl futures_util::Stream<Item = Result<Piece, String>> + Send {
        let pieces = self
            .feeds
            .lock()
            .unwrap()
            .pop_front()
            .expect("a feed for each stream");
        stream::unfold((pieces, self), |(mut pieces, behind)| async move {
            behind.asked.fetch_add(1, SeqCst);
            pieces.recv().await.map(|piece| (piece, (pieces, behind)))
        })
    }
}

async fn plain(State(behind): State<Arc<Behind>>, body: String) -> (StatusCode, String) {
    behind.calls.fetch_add(1, SeqCst);
    let status = StatusCode::from_u16(behind.status.load(SeqCst));
    (status.unwrap_or(StatusCode::OK), format!("plain {body}"))
}

async fn pages(Path(n): Path<u64>, session: Metered) -> Result<String, Unpaid> {
    session.debit(n).await?;
    Ok(format!("{n} pages"))
}

async fn streamed(State(behind): State<Arc<Behind>>, session: Metered) -> Response {
    behind.calls.fetch_add(1, SeqCst);
    session.events(behind.pieces()).into_response()
}

async fn endless(session: Metered) -> Response {
    let pieces = stream::repeat_with(|| Ok::<_, Infallible>("x"));
    session.events(pieces).into_response()
}

/// What `endless` begins with, for as many pieces as asked for.
async fn counted(Path(n): Path<u64>, session: Metered) -> Response {
    let pieces = stream::iter((0..n).map(|_| Ok::<_, Infallible>("x")));
    session.events(pieces).into_response()
}

/// Another server's stream, as a proxy would pass it on.
async fn relayed(session: Metered, State(behind): State<Arc<Behind>>) -> Response {
    let chunks = behind.pieces().map_ok(|piece| piece.data().to_owned());
    let kind = ("content-type", "text/event-stream");
    let upstream = ([kind], Body::from_stream(chunks)).into_response();
    match session.event_stream(upstream) {
        Ok(response) => response.map(Body::new),
        Err(unpaid) => unpaid.into_response(),
    }
}

pub struct Booth {
    pub engine: Engine,
    pub store: Arc<Proxy<MemoryStore, Counter>>,
    pub behind: Arc<Behind>,
    pub address: SocketAddr,
    pub client: Client,
    rail: &'static str,
}

/// How long a stream holds and a socket waits, in milliseconds: much longer than a test waits for
/// what must come, so that nothing comes because of it.
const HOLD: u64 = 600_000;

/// The pace of so many milliseconds each.
pub fn pace(patience: u64, heartbeat: u64) -> Pace {
    let mut pace = Pace::default();
    pace.patience = Duration::from_millis(patience);
    pace.heartbeat = Duration::from_millis(heartbeat);
    pace
}

impl Booth {
    /// With vouchers.
    pub async fn chits() -> Self {
        Self::open(
            Arc::new(Typed::<_, Session>::new(Chits)),
            "chit",
            pace(HOLD, 15_000),
        )
        .await
    }

    /// With deposits.
    pub async fn purses() -> Self {
        Self::open(
            Arc::new(Typed::<_, Session>::new(Purses)),
            "purse",
            pace(HOLD, 15_000),
        )
        .await
    }

    /// With vouchers, and a sign of life so often, in milliseconds.
    pub async fn beating(heartbeat: u64) -> Self {
        Self::paced("chit", HOLD, heartbeat).await
    }

    /// With this patience, in milliseconds.
    pub async fn paced(rail: &'static str, patience: u64, heartbeat: u64) -> Self {
        let method: Arc<dyn Method> = match rail {
            "chit" => Arc::new(Typed::<_, Session>::new(Chits)),
            _ => Arc::new(Typed::<_, Session>::new(Purses)),
        };
        Self::open(method, rail, pace(patience, heartbeat)).await
    }

    async fn open(method: Arc<dyn Method>, rail: &'static str, pace: Pace) -> Self {
        let store = Arc::new(Proxy::new(Arc::default(), Counter::default()));
        let engine = engine(
            "booth.example",
            store.clone(),
            farebox_engine::Clock::system(),
        );
        let behind = Arc::new(Behind::default());
        let paid = |route: &str| {
            let terms = SessionTerms {
                amount: "2".into(),
                unit: "piece".into(),
                ..Default::default()
            };
            let offer = Offer::new::<Session>(method.clone(), terms).unwrap();
            let gate = engine.gate(route, compose([offer]).unwrap()).unwrap();
            PaymentLayer::new(gate).pace(pace)
        };
        let socket = behind.clone();
        let sockets = paid("GET /stream").websocket(move |_| socket.clone().pieces());
        let router = Router::new()
            .route("/plain", get(plain).layer(paid("GET /plain")))
            .route("/ask", post(plain).layer(paid("POST /ask")))
            .route("/pages/{n}", get(pages).layer(paid("GET /pages")))
            .route("/stream", get(streamed).layer(sockets))
            .route("/relayed", get(relayed).layer(paid("GET /relayed")))
            .route("/endless", get(endless).layer(paid("GET /endless")))
            .route("/counted/{n}", get(counted).layer(paid("GET /counted")))
            .with_state(behind.clone());
        Self {
            address: serve(router).await,
            engine,
            store,
            behind,
            client: Client::new(),
            rail,
        }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub async fn challenge(&self, path: &str) -> Challenge {
        let asked = Answer::of(self.client.get(self.url(path))).await;
        asked.challenges().remove(0)
    }

    /// A credential for `path`.
    pub async fn credential(&self, path: &str, act: Value) -> String {
        credential(&self.challenge(path).await, act)
    }

    /// `GET path`, paid by `act`.
    pub async fn get(&self, path: &str, act: Value) -> Answer {
        let credential = self.credential(path, act).await;
        Answer::of(
            self.client
                .get(self.url(path))
                .header("authorization", credential),
        )
        .await
    }

    /// `act` alone: `POST path` without a body.
    pub async fn manage(&self, path: &str, act: Value) -> Answer {
        let credential = self.credential(path, act).await;
        let request = self.client.post(self.url(path));
        Answer::of(request.header("authorization", credential)).await
    }

    /// The event stream that `act` pays for.
    pub async fn stream(&self, path: &str, act: Value) -> Reader {
        let credential = self.credential(path, act).await;
        Reader::of(
            self.client
                .get(self.url(path))
                .header("authorization", credential),
        )
        .await
    }

    pub async fn state(&self, channel: &str) -> ChannelState {
        let meter = self.engine.meter(ChannelId::of(self.rail, channel));
        meter.state().await.unwrap()
    }

    /// What was spent and not only held.
    pub async fn spent(&self, channel: &str) -> u128 {
        let state = self.state(channel).await;
        state.spent.get() - state.held.get()
    }

    /// Waits, with a deadline, until nothing of `channel` is held.
    pub async fn given_back(&self, channel: &str) {
        let all_back = async {
            while !self.state(channel).await.held.is_zero() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, all_back).await.unwrap();
    }
}

pub fn credential(challenge: &Challenge, act: Value) -> String {
    let credential = Credential {
        challenge: challenge.clone(),
        payload: Payload::from_value(&act).unwrap(),
        source: None,
    };
    credential.to_header().unwrap()
}

/// A channel's opening, with a voucher over `cumulative` of it.
pub fn open(channel: &str, deposit: u64, cumulative: u64) -> Value {
    json!({
        "action": "open", "channel": channel, "deposit": deposit, "cumulative": cumulative,
        "signature": "signed",
    })
}

pub fn voucher(channel: &str, cumulative: u64) -> Value {
    json!({
        "action": "voucher", "channel": channel, "cumulative": cumulative, "signature": "signed",
    })
}

pub fn top_up(channel: &str, deposit: u64) -> Value {
    json!({
        "action": "topUp", "channel": channel, "deposit": deposit, "proof": deposit.to_string(),
        "signature": "signed",
    })
}

/// An event stream as a client reads it.
pub struct Reader {
    pub response: reqwest::Response,
    buffer: String,
    pub comments: usize,
}

impl Reader {
    pub async fn of(request: RequestBuilder) -> Self {
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        Self {
            response,
            buffer: String::new(),
            comments: 0,
        }
    }

    /// Reads on to the next sign of life, which comes before any event.
    pub async fn comment(&mut self) {
        let before = self.comments;
        while self.comments == before {
            let end = self.buffer.find("\n\n");
            match end.filter(|_| self.buffer.starts_with(':')) {
                Some(end) => {
                    self.buffer.drain(..end + 2);
                    self.comments += 1;
                }
                None => {
                    assert_eq!(end, None, "{}", self.buffer);
                    assert!(self.more().await, "the stream goes on");
                }
            }
        }
    }

    /// The next event's name and data; `None` at the end.
    pub async fn next(&mut self) -> Option<(String, String)> {
        loop {
            while let Some(end) = self.buffer.find("\n\n") {
                let event: String = self.buffer.drain(..end + 2).collect();
                let field = |name: &str| {
                    let lines = event.lines().filter_map(|line| line.strip_prefix(name));
                    lines.collect::<Vec<_>>().join("\n")
                };
                match event.starts_with(':') {
                    true => self.comments += 1,
                    false => return Some((field("event: "), field("data: "))),
                }
            }
            if !self.more().await {
                return None;
            }
        }
    }

    /// Whether there is more of it.
    async fn more(&mut self) -> bool {
        let chunk = timeout(PATIENCE, self.response.chunk());
        let chunk = chunk.await.expect("something comes in time").unwrap();
        if let Some(chunk) = &chunk {
            self.buffer.push_str(std::str::from_utf8(chunk).unwrap());
        }
        chunk.is_some()
    }

    /// The next event, which is a piece of the handler's.
    pub async fn piece(&mut self) -> String {
        let (name, data) = self.next().await.expect("the stream goes on");
        assert_eq!(name, "", "{data}");
        data
    }

    /// The next event, under this name.
    pub async fn named(&mut self, expected: &str) -> Value {
        let (name, data) = self.next().await.expect("the stream goes on");
        assert_eq!(name, expected, "{data}");
        serde_json::from_str(&data).unwrap()
    }

    /// The last event, which is the receipt.
    pub async fn receipt(&mut self) -> Receipt {
        let receipt = self.named("payment-receipt").await;
        assert_eq!(self.next().await, None, "the receipt is the last word");
        serde_json::from_value(receipt).unwrap()
    }

    /// The last event but for the mark that some rails end with.
    pub async fn receipt_and_mark(&mut self) -> Receipt {
        let receipt = self.named("payment-receipt").await;
        assert_eq!(self.piece().await, "[DONE]");
        assert_eq!(self.next().await, None);
        serde_json::from_value(receipt).unwrap()
    }
}
