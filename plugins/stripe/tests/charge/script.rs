//! Stripe as a script: answers that the sandbox, which does nothing wrong by itself, never gives.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpListener,
};

/// A request's method and path.
type Line = (String, String);

/// A server on loopback that answers what the script says.
pub(crate) struct Script {
    pub(crate) url: String,
    asked: Arc<Mutex<Vec<Line>>>,
}

impl Script {
    /// `answer` is given the method and the path, query included.
    pub(crate) async fn start(
        answer: impl Fn(&str, &str) -> (u16, Value) + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked: Arc<Mutex<Vec<Line>>> = Arc::default();
        let log = Arc::clone(&asked);
        let answer = Arc::new(answer);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (answer, log) = (Arc::clone(&answer), Arc::clone(&log));
                tokio::spawn(async move {
                    let mut stream = BufReader::new(stream);
                    let (method, path) = read(&mut stream).await;
                    log.lock().unwrap().push((method.clone(), path.clone()));
                    let (status, body) = answer(&method, &path);
                    let body = body.to_string();
                    let head = format!(
                        "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n\
                         content-length: {}\r\nconnection: close\r\n\r\n",
                        body.len()
                    );
                    let sent = stream.write_all((head + &body).as_bytes()).await;
                    drop(sent);
                });
            }
        });
        Self { url, asked }
    }

    /// How many requests of `method` had a path that ends like this.
    pub(crate) fn asked(&self, method: &str, end: &str) -> usize {
        let asked = self.asked.lock().unwrap();
        let is = |(m, p): &&Line| m == method && p.ends_with(end);
        asked.iter().filter(is).count()
    }
}

async fn read(stream: &mut BufReader<tokio::net::TcpStream>) -> Line {
    let mut line = String::new();
    stream.read_line(&mut line).await.unwrap();
    let mut words = line.split(' ').map(str::to_owned);
    let (method, path) = (words.next().unwrap(), words.next().unwrap());
    let mut length = 0;
    loop {
        let mut header = String::new();
        stream.read_line(&mut header).await.unwrap();
        if header.trim().is_empty() {
            break;
        }
        let header = header.to_ascii_lowercase();
        if let Some(value) = header.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    stream.read_exact(&mut vec![0; length]).await.unwrap();
    (method, path)
}

/// The PaymentIntent `id` of the half-dollar challenge `c-1_A`.
pub(crate) fn intent(id: &str, status: &str) -> Value {
    json!({
        "id": id, "amount": 50, "currency": "usd", "status": status,
        "metadata": { "mpp_challenge_id": "c-1_A" },
    })
}

pub(crate) fn found(intents: &[Value]) -> (u16, Value) {
    (200, json!({ "data": intents, "has_more": false }))
}

pub(crate) fn error(status: u16, error: Value) -> (u16, Value) {
    (status, json!({ "error": error }))
}

/// Another call with the key is under way.
pub(crate) fn in_use() -> (u16, Value) {
    error(
        409,
        json!({ "type": "idempotency_error", "code": "idempotency_key_in_use" }),
    )
}
