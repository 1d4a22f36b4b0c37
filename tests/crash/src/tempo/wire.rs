//! The way from a server to its node, on which a broadcast can be held at a chosen moment.

use std::{
    net::Ipv4Addr,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{Router, body::Bytes, extract::State, routing::post};
use http::{StatusCode, header::CONTENT_TYPE};
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};

use crate::Problem;

/// The method that broadcasts.
const SEND: &[u8] = b"\"eth_sendRawTransactionSync\"";

/// How far a broadcast gets before nothing more is heard of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// It has left the server and does not arrive.
    Lost,
    /// The node has it; no block does yet.
    Taken,
    /// It is in a block, and the server does not hear of that.
    Included,
    /// The same, and the server hears of an error.
    Denied,
}

type Armed = Arc<Mutex<Option<(Moment, oneshot::Sender<()>)>>>;

/// Between a server and its node.
#[derive(Debug)]
pub struct Wire {
    url: String,
    armed: Armed,
    task: JoinHandle<()>,
}

#[derive(Clone)]
struct Way {
    client: reqwest::Client,
    node: String,
    armed: Armed,
}

impl Wire {
    /// To the node at `url`.
    pub async fn to(url: &str) -> Result<Self, Problem> {
        let armed = Armed::default();
        let way = Way {
            client: reqwest::Client::new(),
            node: url.to_owned(),
            armed: armed.clone(),
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let url = format!("http://{}", listener.local_addr()?);
        let app = Router::new().route("/", post(pass)).with_state(way);
        let task = tokio::spawn(async move {
            // It serves until it is aborted.
            let _ = axum::serve(listener, app).await;
        });
        Ok(Self { url, armed, task })
    }

    /// Where the server finds its node.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Holds the next broadcast at `moment`, and says when it is there.
    #[must_use]
    pub fn hold(&self, moment: Moment) -> oneshot::Receiver<()> {
        let (reached, wait) = oneshot::channel();
        *self.armed.lock().unwrap_or_else(PoisonError::into_inner) = Some((moment, reached));
        wait
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type Answer = (StatusCode, [(http::HeaderName, &'static str); 1], Bytes);

fn answer(status: StatusCode, body: Bytes) -> Answer {
    (status, [(CONTENT_TYPE, "application/json")], body)
}

impl Way {
    async fn forward(&self, body: Bytes) -> Answer {
        let request = self.client.post(&self.node).body(body);
        let request = request.header(CONTENT_TYPE, "application/json");
        let received = async { request.send().await?.bytes().await };
        match received.await {
            Ok(body) => answer(StatusCode::OK, body),
            Err(_) => answer(StatusCode::BAD_GATEWAY, Bytes::new()),
        }
    }
}

async fn pass(State(way): State<Way>, body: Bytes) -> Answer {
    let held = match body.windows(SEND.len()).any(|part| part == SEND) {
        true => way
            .armed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take(),
        false => None,
    };
    let Some((moment, reached)) = held else {
        return way.forward(body).await;
    };
    match moment {
        Moment::Lost => {}
        Moment::Taken => drop(tokio::spawn(async move { way.forward(body).await })),
        Moment::Included | Moment::Denied => drop(way.forward(body).await),
    }
    // Nobody may be waiting to hear of it.
    let _ = reached.send(());
    match moment {
        Moment::Denied => answer(StatusCode::BAD_GATEWAY, Bytes::new()),
        // Until the server is gone.
        Moment::Lost | Moment::Taken | Moment::Included => std::future::pending().await,
    }
}
