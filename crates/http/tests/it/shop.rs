//! A small server that is paid by sessions, by hand: honest, or reading from a script.

use std::{
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::any,
};
use farebox_client::session::{Answer, Sessions, Store, VolatileStore};
use farebox_core::wire::{BALANCE_HELD, Credential, Problem, ProblemDetails, Receipt};
use farebox_http::SessionClient;
use serde_json::json;
use tokio::{
    sync::{Semaphore, mpsc},
    time::timeout,
};

use crate::support::PATIENCE;

#[path = "../../../client/tests/support/mod.rs"]
mod rail;

pub use rail::{Books, Coins, Seller, Server, coins, sessions};

/// What `/stream` does once its first unit is paid.
#[derive(Clone)]
pub enum Script {
    /// So many events, each paid for, and a receipt.
    Honest(u32),
    /// These bytes, and then it stays open. `{channel}` is the channel.
    Fixed(String),
    /// Asks for a voucher, and answers it only when nobody takes the events that it sends on, and it
    /// is let.
    Stalls,
}

pub struct Shop {
    pub server: Arc<Server>,
    pub script: Mutex<Script>,
    /// Requests without a credential.
    pub asked: AtomicU32,
    /// Messages without a body.
    pub managed: AtomicU32,
    /// No POST for this resource.
    pub get_only: bool,
    /// Requests to which streams hold the balance.
    pub busy: AtomicU32,
    /// What a stream that stalls opens, together with who lets it.
    pub gate: Semaphore,
}

pub struct Running {
    pub shop: Arc<Shop>,
    pub wallet: Coins,
    pub client: SessionClient,
    pub base: String,
}

impl Running {
    pub fn sessions(&self) -> &Sessions {
        self.client.sessions()
    }

    pub fn get(&self, path: &str) -> reqwest::Request {
        let url = format!("{}{path}", self.base);
        self.client.http().get(url).build().unwrap()
    }

    /// The only channel's id and the server's books of it.
    pub fn books(&self) -> (String, Books) {
        let (id, _) = self.shop.server.chain.only();
        let books = self.shop.server.books(&id);
        (id, books)
    }
}

pub async fn open(script: Script, max_deposit: u128) -> Running {
    open_with(script, max_deposit, false).await
}

pub async fn open_with(script: Script, max_deposit: u128, get_only: bool) -> Running {
    let shop = Arc::new(Shop {
        server: Server::new(1, 10),
        script: Mutex::new(script),
        asked: AtomicU32::new(0),
        managed: AtomicU32::new(0),
        get_only,
        busy: AtomicU32::new(0),
        gate: Semaphore::new(0),
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let app = Router::new()
        .route("/joke", any(joke))
        .route("/stream", any(stream))
        .with_state(shop.clone());
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    let wallet = Coins::new(&shop.server.chain);
    let store: Arc<dyn Store> = Arc::new(VolatileStore::new());
    let client = SessionClient::new(
        reqwest::Client::new(),
        sessions(&wallet, &store, max_deposit),
    );
    Running {
        shop,
        wallet,
        client,
        base,
    }
}

fn credential(headers: &HeaderMap) -> Option<Credential> {
    let text = headers.get(header::AUTHORIZATION)?;
    Credential::parse(text.as_bytes()).unwrap()
}

/// The answer to whatever is not served.
pub fn refusal(answer: Answer) -> Response {
    match answer {
        Answer::Accepted(receipt) => {
            let receipt = receipt.unwrap().to_header().unwrap();
            (StatusCode::NO_CONTENT, [("payment-receipt", receipt)]).into_response()
        }
        Answer::Refused {
            status,
            problem,
            challenges,
        } => {
            let mut response = (
                StatusCode::from_u16(status).unwrap(),
                serde_json::to_string(&problem).unwrap(),
            )
                .into_response();
            let headers = response.headers_mut();
            let json = "application/problem+json".parse().unwrap();
            headers.insert(header::CONTENT_TYPE, json);
            for challenge in challenges {
                let value = challenge.to_header().unwrap().parse().unwrap();
                headers.append(header::WWW_AUTHENTICATE, value);
            }
            response
        }
        Answer::Lost(_) => StatusCode::BAD_GATEWAY.into_response(),
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

fn busy() -> Response {
    let problem = Problem::session(BALANCE_HELD);
    let headers = [
        (header::CONTENT_TYPE, "application/problem+json"),
        (header::RETRY_AFTER, "1"),
    ];
    let body = serde_json::to_string(&ProblemDetails::new(&problem, "held")).unwrap();
    (StatusCode::SERVICE_UNAVAILABLE, headers, body).into_response()
}

/// Takes the money; `Ok` is the channel to serve on, by its receipt.
fn paid(shop: &Shop, request: &Request) -> Result<Receipt, Box<Response>> {
    let managing = request.method() != "GET";
    if shop.get_only && request.method() == "POST" {
        return Err(Box::new(StatusCode::METHOD_NOT_ALLOWED.into_response()));
    }
    let Some(credential) = credential(request.headers()) else {
        shop.asked.fetch_add(1, Ordering::SeqCst);
        return Err(Box::new(refusal(shop.server.refuse("payment-required"))));
    };
    let is_busy = || {
        let less = |left: u32| left.checked_sub(1);
        shop.busy
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, less)
    };
    if !managing && is_busy().is_ok() {
        return Err(Box::new(busy()));
    }
    if managing {
        shop.managed.fetch_add(1, Ordering::SeqCst);
    }
    let answer = shop.server.take(&credential, u128::from(!managing));
    match answer {
        Answer::Accepted(receipt) if !managing => Ok(*receipt.unwrap()),
        answer => Err(Box::new(refusal(answer))),
    }
}

async fn joke(State(shop): State<Arc<Shop>>, request: Request) -> Response {
    match paid(&shop, &request) {
        Ok(receipt) => ([("payment-receipt", receipt.to_header().unwrap())], "ha").into_response(),
        Err(response) => *response,
    }
}

async fn stream(State(shop): State<Arc<Shop>>, request: Request) -> Response {
    let script = shop.script.lock().unwrap().clone();
    let channel = match paid(&shop, &request) {
        Ok(receipt) => receipt.reference,
        Err(response) => {
            if let (Script::Stalls, true) = (script, response.status().is_success()) {
                let _open = shop.gate.acquire_many(2).await.unwrap();
            }
            return *response;
        }
    };
    let (send, receive) = mpsc::channel::<Bytes>(1);
    tokio::spawn(async move {
        match script {
            Script::Honest(events) => honest(&shop, &channel, events, &send).await,
            Script::Fixed(text) => {
                let text = text.replace("{channel}", &channel);
                // In pieces, so that events are cut anywhere.
                for piece in text.as_bytes().chunks(4096) {
                    if send.send(Bytes::copy_from_slice(piece)).await.is_err() {
                        return;
                    }
                }
                send.closed().await;
            }
            Script::Stalls => stalls(&shop, &channel, &send).await,
        }
    });
    let body = futures_util::stream::unfold(receive, async |mut receive| {
        let next = receive.recv().await?;
        Some((Ok::<_, Infallible>(next), receive))
    });
    let kind = [(header::CONTENT_TYPE, "text/event-stream; charset=utf-8")];
    (kind, Body::from_stream(body)).into_response()
}

/// The first event is paid by the request, as by deployed servers.
async fn honest(shop: &Shop, channel: &str, events: u32, send: &mpsc::Sender<Bytes>) {
    for n in 1..=events {
        if n > 1 && !ticked(shop, channel, send).await {
            return;
        }
        if !say(send, format!("data: token {n}\n\n")).await {
            return;
        }
    }
    let books = shop.server.books(channel);
    let receipt = serde_json::to_string(&shop.server.receipt(channel, books)).unwrap();
    say(send, format!("event: payment-receipt\ndata: {receipt}\n\n")).await;
}

async fn stalls(shop: &Shop, channel: &str, send: &mpsc::Sender<Bytes>) {
    let wants = json!({ "channelId": channel, "requiredCumulative": "2" });
    let text = format!("data: token 1\n\nevent: payment-need-voucher\ndata: {wants}\n\n");
    say(send, text).await;
    while shop.server.books(channel).accepted < 2 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let long = format!("data: {}\n\n", "x".repeat(64 * 1024));
    while let Ok(true) = timeout(Duration::from_millis(500), say(send, long.clone())).await {}
    shop.gate.add_permits(1);
    send.closed().await;
}

async fn say(send: &mpsc::Sender<Bytes>, text: String) -> bool {
    send.send(text.into()).await.is_ok()
}

async fn ticked(shop: &Shop, channel: &str, send: &mpsc::Sender<Bytes>) -> bool {
    let tick = || {
        let mut channels = shop.server.channels.lock().unwrap();
        let books = channels.get_mut(channel).unwrap();
        let enough = books.accepted > books.spent;
        books.spent += u128::from(enough);
        (enough, *books)
    };
    let (enough, books) = tick();
    if enough {
        return true;
    }
    let wants = json!({
        "channelId": channel,
        "requiredCumulative": (books.spent + 1).to_string(),
        "acceptedCumulative": books.accepted.to_string(),
        "deposit": books.deposit.to_string(),
    });
    if !say(
        send,
        format!("event: payment-need-voucher\ndata: {wants}\n\n"),
    )
    .await
    {
        return false;
    }
    let paid = async {
        while !tick().0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, paid).await.is_ok()
}
