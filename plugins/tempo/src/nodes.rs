//! Several endpoints of one chain, asked one after the other.
//!
//! What is read may be read elsewhere. What is sent goes on to the next endpoint only if it is
//! certain that the one before has got nothing: whoever might have broadcast a transaction is not
//! doubled, and the settler looks for its receipt first.

use std::{
    fmt,
    ops::ControlFlow::{self, Break, Continue},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use alloy::primitives::U64;
use farebox_core::Fault;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::{
    explain::payers_fault,
    rpc::{Call, Rpc, RpcError},
};

/// For calls that answer from a node's state.
pub(crate) const READ: Duration = Duration::from_secs(5);

/// The endpoints. Clones share what is known of them.
#[derive(Clone)]
pub(crate) struct Nodes {
    chain_id: u64,
    nodes: Arc<[Node]>,
    /// The one that answered last, to be asked first: one that hangs costs its deadline once.
    first: Arc<AtomicUsize>,
}

struct Node {
    rpc: Rpc,
    /// Set once its chain id has been compared, so that is asked once.
    known: OnceLock<()>,
}

impl fmt::Debug for Nodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nodes")
            .field("chain_id", &self.chain_id)
            .field("endpoints", &self.nodes.len())
            .finish_non_exhaustive()
    }
}

impl Nodes {
    pub(crate) fn new(chain_id: u64, endpoints: Vec<Rpc>) -> Self {
        let node = |rpc| Node {
            rpc,
            known: OnceLock::new(),
        };
        Self {
            chain_id,
            nodes: endpoints.into_iter().map(node).collect(),
            first: Arc::default(),
        }
    }

    pub(crate) fn chain_id(&self) -> u64 {
        self.chain_id
    }

    /// How many endpoints there are.
    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Compares every endpoint's chain with the configured one. An endpoint that is away may come
    /// back; one that is on another chain will not turn into the right one.
    pub(crate) async fn connect(&self) -> Result<(), Fault> {
        for (number, node) in self.nodes.iter().enumerate() {
            match self.known(node).await {
                Ok(()) => {}
                Err(error @ RpcError::OtherChain { .. }) => {
                    return Err(Fault::new("the Tempo RPC is on another chain").caused_by(error));
                }
                Err(error) => {
                    let chain_id = self.chain_id;
                    tracing::warn!(chain_id, number, %error, "a Tempo RPC does not answer yet");
                }
            }
        }
        Ok(())
    }

    /// An endpoint that was away at the start may be anybody's when it is back, and a receipt from
    /// another chain would be money that nobody has.
    async fn known(&self, node: &Node) -> Result<(), RpcError> {
        if node.known.get().is_some() {
            return Ok(());
        }
        let id: U64 = node.rpc.call("eth_chainId", json!([]), READ).await?;
        if id.to::<u64>() != self.chain_id {
            return Err(RpcError::OtherChain {
                is: id.to(),
                configured: self.chain_id,
            });
        }
        // Two calls at once find the same.
        let _ = node.known.set(());
        Ok(())
    }

    /// The endpoints in the order in which they are asked.
    fn in_turn(&self) -> impl Iterator<Item = (usize, &Node)> {
        let first = self.first.load(Ordering::Relaxed);
        let all = self.nodes.iter().enumerate();
        all.clone().skip(first).chain(all.take(first))
    }

    /// Asks until an endpoint answers the question, whatever the answer is.
    pub(crate) async fn read<T: DeserializeOwned>(
        &self,
        method: &'static str,
        params: Value,
    ) -> Result<T, RpcError> {
        let mut last = nobody();
        for (number, node) in self.in_turn() {
            let answer = match self.ready(node).await {
                Ok(rpc) => rpc.call(method, params.clone(), READ).await,
                Err(error) => Err(error),
            };
            match self.judge(number, answer, may_be_better_elsewhere) {
                Break(answer) => return answer,
                Continue(error) => last = error,
            }
        }
        Err(last)
    }

    /// Asks both questions of one endpoint, in one request where it takes that.
    pub(crate) async fn read_both<A: DeserializeOwned, B: DeserializeOwned>(
        &self,
        first: Call,
        second: Call,
    ) -> Result<(A, B), RpcError> {
        let methods = (first.0, second.0);
        let mut both = self.read_all(&[first, second]).await?.into_iter();
        let first = typed(methods.0, both.next().unwrap_or_default())?;
        Ok((first, typed(methods.1, both.next().unwrap_or_default())?))
    }

    /// Asks all questions of one endpoint, in one request where it takes that. As many answers as
    /// questions.
    pub(crate) async fn read_all(&self, calls: &[Call]) -> Result<Vec<Value>, RpcError> {
        let mut last = nobody();
        for (number, node) in self.in_turn() {
            let answer = match self.ready(node).await {
                Ok(rpc) => all(rpc, calls).await,
                Err(error) => Err(error),
            };
            match self.judge(number, answer, may_be_better_elsewhere) {
                Break(answer) => return answer,
                Continue(error) => last = error,
            }
        }
        Err(last)
    }

    /// Hands something over to one endpoint.
    pub(crate) async fn send<T: DeserializeOwned>(
        &self,
        method: &'static str,
        params: Value,
        deadline: Duration,
    ) -> Result<T, RpcError> {
        let mut last = nobody();
        for (number, node) in self.in_turn() {
            let answer = match self.ready(node).await {
                Ok(rpc) => rpc.call(method, params.clone(), deadline).await,
                Err(error) => Err(error),
            };
            match self.judge(number, answer, RpcError::was_not_sent) {
                Break(answer) => return answer,
                Continue(error) => last = error,
            }
        }
        Err(last)
    }

    /// An endpoint that is known to be on this chain.
    async fn ready<'a>(&self, node: &'a Node) -> Result<&'a Rpc, RpcError> {
        match self.known(node).await {
            Ok(()) => Ok(&node.rpc),
            Err(error @ RpcError::OtherChain { .. }) => Err(error),
            // Whatever went wrong, nothing of the call itself has been sent.
            Err(error) => Err(RpcError::Unreached(error.to_string())),
        }
    }

    /// Whether an endpoint's answer stands or the next one is asked.
    fn judge<T>(
        &self,
        number: usize,
        answer: Result<T, RpcError>,
        go_on: fn(&RpcError) -> bool,
    ) -> ControlFlow<Result<T, RpcError>, RpcError> {
        match answer {
            Err(error) if go_on(&error) => {
                tracing::debug!(number, %error, "a Tempo RPC does not answer");
                Continue(error)
            }
            answer => {
                self.first.store(number, Ordering::Relaxed);
                Break(answer)
            }
        }
    }
}

/// Not reached: a configuration without an endpoint is refused.
fn nobody() -> RpcError {
    RpcError::Unreached("no endpoint is configured".to_owned())
}

async fn all(rpc: &Rpc, calls: &[Call]) -> Result<Vec<Value>, RpcError> {
    if let Some(answers) = rpc.batch(calls, READ).await? {
        return answers.into_iter().collect();
    }
    let mut answers = Vec::with_capacity(calls.len());
    for (method, params) in calls {
        answers.push(rpc.call(method, params.clone(), READ).await?);
    }
    Ok(answers)
}

fn typed<T: DeserializeOwned>(method: &'static str, value: Value) -> Result<T, RpcError> {
    serde_json::from_value(value).map_err(|_| RpcError::Unreadable(method))
}

/// Whether another endpoint may know what this one does not say. What the chain says of a payment
/// is the same everywhere.
fn may_be_better_elsewhere(error: &RpcError) -> bool {
    match error {
        RpcError::Refused(refused) => payers_fault(refused).is_none(),
        _ => true,
    }
}
