//! What the rail asks of a chain.

use std::time::Duration;

use alloy::{
    primitives::{Address, B256, Bytes, Log, LogData, U64, U128, U256},
    sol_types::{SolCall, SolEvent},
};
use farebox_core::Fault;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tempo_contracts::precompiles::ITIP20;
use tokio::time::Instant;

use crate::{
    charge::legs::Made,
    nodes::{Nodes, READ},
    rpc::{Call, Rpc, RpcError},
};

/// For a call that waits until a block includes a transaction; blocks come every half second.
const INCLUSION: Duration = Duration::from_secs(12);

/// A chain and the endpoints that lead to it.
#[derive(Clone, Debug)]
pub(crate) struct Chain {
    nodes: Nodes,
}

/// The parts of a transaction's receipt that say whether money moved, as
/// `eth_getTransactionReceipt` has them.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Receipt {
    pub(crate) transaction_hash: B256,
    #[serde(default)]
    pub(crate) from: Option<Address>,
    status: U64,
    #[serde(default)]
    gas_used: Option<U64>,
    #[serde(default)]
    effective_gas_price: Option<U128>,
    logs: Vec<ReceiptLog>,
}

#[derive(Clone, Debug, Deserialize)]
struct ReceiptLog {
    address: Address,
    topics: Vec<B256>,
    data: Bytes,
}

/// A transfer, as it is asked for and as the token logs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Transfer {
    pub(crate) token: Address,
    pub(crate) from: Address,
    pub(crate) to: Address,
    /// Base units.
    pub(crate) amount: U256,
    /// The payment itself always has one; a split may have none.
    pub(crate) memo: Option<B256>,
}

impl Transfer {
    /// The call that makes the transfer.
    pub(crate) fn input(&self) -> Bytes {
        let Self {
            to, amount, memo, ..
        } = *self;
        match memo {
            Some(memo) => ITIP20::transferWithMemoCall { to, amount, memo }.abi_encode(),
            None => ITIP20::transferCall { to, amount }.abi_encode(),
        }
        .into()
    }

    /// Without its token.
    pub(crate) fn made(&self) -> Made {
        Made {
            from: self.from,
            to: self.to,
            amount: self.amount,
            memo: self.memo,
        }
    }
}

impl Receipt {
    pub(crate) fn succeeded(&self) -> bool {
        self.status == U64::from(1)
    }

    /// What the transaction cost its fee payer, attodollars, if the node says so.
    pub(crate) fn fee(&self) -> Option<u128> {
        let gas: u128 = self.gas_used?.to();
        Some(gas.saturating_mul(self.effective_gas_price?.to()))
    }

    /// Whether the tokens themselves say that exactly these were transferred, each counted once.
    pub(crate) fn shows(&self, transfers: &[Transfer]) -> bool {
        let mut seen: Vec<(Address, Vec<Made>)> = Vec::new();
        transfers.iter().all(|transfer| {
            let token = transfer.token;
            let at = seen.iter().position(|(of, _)| *of == token);
            let at = at.unwrap_or_else(|| {
                seen.push((token, self.transfers(token)));
                seen.len() - 1
            });
            let left = &mut seen[at].1;
            let found = left.iter().position(|made| *made == transfer.made());
            found.map(|at| left.swap_remove(at)).is_some()
        }) && !transfers.is_empty()
    }

    /// The events `E` that a contract logged.
    pub(crate) fn events<E: SolEvent>(&self, contract: Address) -> impl Iterator<Item = E> {
        let logs = self.logs.iter();
        let logs = logs.filter(move |log| log.address == contract);
        logs.filter_map(|log| E::decode_raw_log(log.topics.iter().copied(), &log.data).ok())
    }

    /// The transfers that a token logged. It logs one with a memo twice, with and without it, one
    /// after the other; such a pair is one transfer.
    pub(crate) fn transfers(&self, token: Address) -> Vec<Made> {
        let mut made: Vec<Made> = Vec::new();
        // Whether the last one may be one half of a pair.
        let mut half = false;
        for log in self.logs.iter().filter(|log| log.address == token) {
            let Some(this) = log.transfer() else {
                half = false;
                continue;
            };
            match made.last_mut().filter(|last| half && last.same(&this)) {
                Some(last) => {
                    last.memo = last.memo.or(this.memo);
                    half = false;
                }
                None => {
                    made.push(this);
                    half = true;
                }
            }
        }
        made
    }
}

impl ReceiptLog {
    fn transfer(&self) -> Option<Made> {
        let data = LogData::new_unchecked(self.topics.clone(), self.data.clone());
        let log = Log {
            address: self.address,
            data,
        };
        if let Ok(event) = ITIP20::TransferWithMemo::decode_log(&log) {
            let (from, to, amount, memo) = (event.from, event.to, event.amount, Some(event.memo));
            return Some(Made {
                from,
                to,
                amount,
                memo,
            });
        }
        let event = ITIP20::Transfer::decode_log(&log).ok()?;
        let (from, to, amount, memo) = (event.from, event.to, event.amount, None);
        Some(Made {
            from,
            to,
            amount,
            memo,
        })
    }
}

impl Made {
    /// The same movement, logged once with its memo and once without.
    fn same(&self, other: &Self) -> bool {
        (self.from, self.to, self.amount) == (other.from, other.to, other.amount)
            && self.memo.is_some() != other.memo.is_some()
    }
}

impl Chain {
    pub(crate) fn new(id: u64, endpoints: Vec<Rpc>) -> Self {
        Self {
            nodes: Nodes::new(id, endpoints),
        }
    }

    /// EIP-155 id, as configured.
    pub(crate) fn id(&self) -> u64 {
        self.nodes.chain_id()
    }

    /// Whether every call is answered by the same endpoint.
    pub(crate) fn has_one_endpoint(&self) -> bool {
        self.nodes.len() == 1
    }

    /// See [`Nodes::connect`].
    pub(crate) async fn connect(&self) -> Result<(), Fault> {
        self.nodes.connect().await
    }

    /// Executes a call without effect, as `eth_call` does with the request's every field.
    pub(crate) async fn simulate(&self, request: &Value) -> Result<(), RpcError> {
        self.nodes
            .read::<Value>("eth_call", json!([request, "latest"]))
            .await
            .map(drop)
    }

    /// Executes a call without effect, and what `owner` holds of `token`, asked of one node.
    pub(crate) async fn simulate_and_balance(
        &self,
        request: &Value,
        token: Address,
        owner: Address,
    ) -> Result<U256, RpcError> {
        let call = ("eth_call", json!([request, "latest"]));
        let balance = balance_of(token, owner);
        let (_, balance): (Value, Bytes) = self.nodes.read_both(call, balance).await?;
        read_balance(&balance)
    }

    /// What a contract's view function answers.
    pub(crate) async fn view(&self, to: Address, data: Bytes) -> Result<Bytes, RpcError> {
        let params = json!([{ "to": to, "data": data }, "latest"]);
        self.nodes.read("eth_call", params).await
    }

    /// Whether a contract ever logged an event with these topics.
    pub(crate) async fn has_logged(
        &self,
        address: Address,
        topics: [B256; 2],
        since: u64,
    ) -> Result<bool, RpcError> {
        let filter = json!({
            "address": address,
            "topics": topics,
            "fromBlock": U64::from(since),
            "toBlock": "latest",
        });
        let logs: Vec<Value> = self.nodes.read("eth_getLogs", json!([filter])).await?;
        Ok(!logs.is_empty())
    }

    /// The latest block's number and time, Unix seconds.
    pub(crate) async fn head(&self) -> Result<(u64, u64), RpcError> {
        #[derive(Deserialize)]
        struct Block {
            number: U64,
            timestamp: U64,
        }
        let params = json!(["latest", false]);
        let block: Block = self.nodes.read("eth_getBlockByNumber", params).await?;
        Ok((block.number.to(), block.timestamp.to()))
    }

    /// Asks all questions of one node, in one request where it takes that.
    pub(crate) async fn read_all(&self, calls: &[Call]) -> Result<Vec<Value>, RpcError> {
        self.nodes.read_all(calls).await
    }

    /// Gas that the request needs.
    pub(crate) async fn estimate(&self, request: &Value) -> Result<u64, RpcError> {
        let gas: U64 = self.nodes.read("eth_estimateGas", json!([request])).await?;
        Ok(gas.to())
    }

    /// Price of gas, attodollars.
    pub(crate) async fn gas_price(&self) -> Result<u128, RpcError> {
        let price: U128 = self.nodes.read("eth_gasPrice", json!([])).await?;
        Ok(price.to())
    }

    /// Base units of `token` that `owner` holds.
    pub(crate) async fn balance(&self, token: Address, owner: Address) -> Result<U256, RpcError> {
        let (method, params) = balance_of(token, owner);
        read_balance(&self.nodes.read(method, params).await?)
    }

    /// Broadcasts and waits for inclusion (EIP-7966).
    pub(crate) async fn send_sync(&self, raw: &Bytes) -> Result<Receipt, RpcError> {
        self.nodes
            .send("eth_sendRawTransactionSync", json!([raw]), INCLUSION)
            .await
    }

    /// Broadcasts without waiting.
    pub(crate) async fn send(&self, raw: &Bytes) -> Result<(), RpcError> {
        self.nodes
            .send::<B256>("eth_sendRawTransaction", json!([raw]), READ)
            .await
            .map(drop)
    }

    /// The receipt of a transaction, if a block has included it.
    pub(crate) async fn receipt(&self, hash: B256) -> Result<Option<Receipt>, RpcError> {
        self.nodes
            .read("eth_getTransactionReceipt", json!([hash]))
            .await
    }

    /// Asks for the receipt until it is there or `within` has passed. The last answer counts.
    pub(crate) async fn await_receipt(
        &self,
        hash: B256,
        within: Duration,
    ) -> Result<Option<Receipt>, RpcError> {
        let end = Instant::now() + within;
        loop {
            let answer = self.receipt(hash).await;
            if matches!(answer, Ok(Some(_))) || Instant::now() >= end {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }

    /// The latest block's time, Unix seconds, and the receipt of a transaction if there is one. In
    /// this order, and in one request where the endpoint takes that; even so, nothing promises that
    /// the same node gives both answers.
    pub(crate) async fn time_and_receipt(
        &self,
        hash: B256,
    ) -> Result<(u64, Option<Receipt>), RpcError> {
        #[derive(Deserialize)]
        struct Block {
            timestamp: U64,
        }
        let time = ("eth_getBlockByNumber", json!(["latest", false]));
        let receipt = ("eth_getTransactionReceipt", json!([hash]));
        let (block, receipt): (Block, _) = self.nodes.read_both(time, receipt).await?;
        Ok((block.timestamp.to(), receipt))
    }
}

fn balance_of(token: Address, owner: Address) -> Call {
    let data: Bytes = ITIP20::balanceOfCall { account: owner }.abi_encode().into();
    let params = json!([{ "to": token, "data": data }, "latest"]);
    ("eth_call", params)
}

fn read_balance(word: &Bytes) -> Result<U256, RpcError> {
    ITIP20::balanceOfCall::abi_decode_returns(word).map_err(|_| RpcError::Unreadable("balanceOf"))
}
