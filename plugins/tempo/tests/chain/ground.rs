//! What a test runs on: the sandbox chain, or anvil behind a relay that counts calls and has the
//! sandbox's faults. `FAREBOX_TEMPO_GROUND=anvil` chooses the second for all tests that ask here.

use std::{
    collections::{HashMap, VecDeque},
    future::pending,
    process::Stdio,
    sync::{Arc, Mutex},
    time::Duration,
};

use farebox_sandbox_tempo::{Chain, ChainConfig, Fault};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    process::{Child, Command},
    task::JoinHandle,
};

use crate::net::now;

/// A chain of the test's own. Dropping it ends it.
pub(crate) struct Ground(Chosen);

enum Chosen {
    Sandbox(Chain),
    Anvil { relay: Relay, _process: Child },
}

use Chosen::{Anvil, Sandbox};

pub(crate) const CHOICE: &str = "FAREBOX_TEMPO_GROUND";

impl Ground {
    pub(crate) async fn start() -> Self {
        match std::env::var(CHOICE) {
            Ok(choice) if choice == "anvil" => Self::anvil().await,
            _ => Self(Sandbox(Chain::start(ChainConfig::default()).await.unwrap())),
        }
    }

    async fn anvil() -> Self {
        let binary = std::env::var("FAREBOX_ANVIL").expect("FAREBOX_ANVIL names anvil's binary");
        let port = farebox_test_services::free_port();
        let process = Command::new(binary)
            .args(["--network", "tempo", "--hardfork", "T4", "--silent"])
            .args(["--chain-id", "1337", "--block-time", "1"])
            // The least there is. A higher one falls by an eighth with every empty block, and what a
            // test has found gas to cost would soon be several times the price.
            .args(["--base-fee", "1"])
            .args(["--timestamp", &now().to_string()])
            .args(["--port", &port.to_string()])
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let node = format!("http://127.0.0.1:{port}");
        // Until it has a block, anvil simulates at time 1 and finds every window too far away.
        let ready = async {
            let number = json!({ "id": 1, "method": "eth_blockNumber", "params": [] });
            loop {
                match forward(&node, &number).await {
                    Some(answer) if answer["result"] != "0x0" => return,
                    _ => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(120), ready)
            .await
            .unwrap();
        Self(Anvil {
            relay: Relay::to(node).await,
            _process: process,
        })
    }

    pub(crate) fn url(&self) -> String {
        match &self.0 {
            Sandbox(chain) => chain.url(),
            Anvil { relay, .. } => relay.url.clone(),
        }
    }

    /// Calls of a method so far, refused ones included.
    pub(crate) fn calls(&self, method: &str) -> usize {
        match &self.0 {
            Sandbox(chain) => chain.calls(method),
            Anvil { relay, .. } => relay.faults().counts.get(method).copied().unwrap_or(0),
        }
    }

    /// Calls of all methods so far.
    pub(crate) fn total_calls(&self) -> usize {
        match &self.0 {
            Sandbox(chain) => chain.total_calls(),
            Anvil { relay, .. } => relay.faults().counts.values().sum(),
        }
    }

    /// Answers the next calls of a method with a fault; they have no effect.
    pub(crate) fn fail_next(&self, method: &str, times: usize, fault: Fault) {
        match &self.0 {
            Sandbox(chain) => chain.fail_next(method, times, fault),
            Anvil { relay, .. } => relay.plan(method, times, &(fault, false)),
        }
    }

    /// The same, but they take effect.
    pub(crate) fn lose_reply(&self, method: &str, times: usize, fault: Fault) {
        match &self.0 {
            Sandbox(chain) => chain.lose_reply(method, times, fault),
            Anvil { relay, .. } => relay.plan(method, times, &(fault, true)),
        }
    }

    pub(crate) fn clear_faults(&self) {
        match &self.0 {
            Sandbox(chain) => chain.clear_faults(),
            Anvil { relay, .. } => relay.faults().planned.clear(),
        }
    }

    /// No more blocks.
    pub(crate) async fn pause_mining(&self) {
        match &self.0 {
            Sandbox(chain) => chain.pause_mining(),
            Anvil { relay, .. } => relay.tell("evm_setIntervalMining", json!([0])).await,
        }
    }

    pub(crate) async fn resume_mining(&self) {
        match &self.0 {
            Sandbox(chain) => chain.resume_mining(),
            Anvil { relay, .. } => relay.tell("evm_setIntervalMining", json!([1])).await,
        }
    }

    pub(crate) async fn advance_clock(&self, by: Duration) {
        match &self.0 {
            Sandbox(chain) => chain.advance_clock(by),
            Anvil { relay, .. } => {
                relay.tell("evm_increaseTime", json!([by.as_secs()])).await;
                relay.tell("evm_mine", json!([])).await;
            }
        }
    }
}

/// A fault, and whether the call takes effect before it.
type Planned = (Fault, bool);

#[derive(Default)]
struct Faults {
    planned: HashMap<String, VecDeque<Planned>>,
    counts: HashMap<String, usize>,
}

/// Between a test and a node.
struct Relay {
    url: String,
    node: String,
    faults: Arc<Mutex<Faults>>,
    task: JoinHandle<()>,
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Relay {
    async fn to(node: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let faults = Arc::<Mutex<Faults>>::default();
        let (shared, to) = (faults.clone(), node.clone());
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, to.clone(), shared.clone()));
            }
        });
        Self {
            url,
            node,
            faults,
            task,
        }
    }

    fn faults(&self) -> std::sync::MutexGuard<'_, Faults> {
        self.faults.lock().unwrap()
    }

    fn plan(&self, method: &str, times: usize, planned: &Planned) {
        let mut faults = self.faults();
        let queue = faults.planned.entry(method.to_owned()).or_default();
        queue.extend(std::iter::repeat_n(planned.clone(), times));
    }

    /// A call that is not counted.
    async fn tell(&self, method: &str, params: Value) {
        let call = json!({ "id": 1, "method": method, "params": params });
        let answer = forward(&self.node, &call).await.unwrap();
        assert!(answer.get("error").is_none(), "{method}: {answer}");
    }
}

async fn forward(node: &str, call: &Value) -> Option<Value> {
    let mut call = call.clone();
    call["jsonrpc"] = json!("2.0");
    let post = reqwest::Client::new().post(node).json(&call);
    post.send().await.ok()?.json().await.ok()
}

/// One request; the connection ends after it, or instead of an answer.
async fn serve(mut stream: TcpStream, node: String, faults: Arc<Mutex<Faults>>) {
    let mut request = Vec::new();
    let body: Value = loop {
        let mut part = [0; 16_384];
        match stream.read(&mut part).await {
            Ok(read) if read > 0 => request.extend_from_slice(&part[..read]),
            _ => return,
        }
        let text = String::from_utf8_lossy(&request);
        let body = text.split_once("\r\n\r\n").map(|(_, body)| body);
        if let Some(Ok(body)) = body.map(serde_json::from_str) {
            break body;
        }
    };
    let answer = match body {
        Value::Array(calls) => {
            let mut answers = Vec::new();
            for call in &calls {
                answers.push(one(call, &node, &faults).await);
            }
            answers.into_iter().collect::<Result<Value, Cut>>()
        }
        call => one(&call, &node, &faults).await,
    };
    let (status, body) = match answer {
        Ok(answer) => (200, answer.to_string()),
        Err(Cut::Status(status)) => (status, String::new()),
        Err(Cut::Disconnect) => return,
    };
    let head = format!(
        "HTTP/1.1 {status} -\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n",
        body.len()
    );
    // The test may not wait for an answer.
    let _ = stream.write_all(head.as_bytes()).await;
    let _ = stream.write_all(body.as_bytes()).await;
}

enum Cut {
    Status(u16),
    Disconnect,
}

async fn one(call: &Value, node: &str, faults: &Mutex<Faults>) -> Result<Value, Cut> {
    let method = call["method"].as_str().unwrap().to_owned();
    let planned = {
        let mut faults = faults.lock().unwrap();
        *faults.counts.entry(method.clone()).or_default() += 1;
        let queue = faults.planned.get_mut(&method);
        queue.and_then(VecDeque::pop_front)
    };
    let answer = match planned {
        Some((_, false)) => None,
        _ => forward(node, call).await,
    };
    match planned.map(|(fault, _)| fault) {
        None => answer.ok_or(Cut::Disconnect),
        Some(Fault::Error { code, message }) => Ok(json!({
            "jsonrpc": "2.0", "id": call["id"], "error": { "code": code, "message": message },
        })),
        Some(Fault::Status(status)) => Err(Cut::Status(status)),
        Some(Fault::Hang) => pending().await,
        Some(Fault::Disconnect) => Err(Cut::Disconnect),
    }
}
