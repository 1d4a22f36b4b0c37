//! The JSON-RPC methods. State is only ever the latest: a block parameter of `eth_call` and its
//! like is accepted and ignored.

use std::time::Duration;

use alloy::primitives::{Address, B256, Bytes, U64, U256, uint};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::{
    contracts::has_code,
    error::RpcError,
    node::Node,
    request::CallRequest,
    sponsor,
    state::{State, Whereabouts},
    view::{self, LogFilter},
};

/// What a Tempo node says of any account's native balance: there is no native token.
const NATIVE_PLACEHOLDER: U256 =
    uint!(0x9612084f0316e0ebd5182f398e5195a51b5ca47667d4c9b26c9b26c9b26c9b2_U256);

/// One gwei, as nodes suggest when blocks are not full.
const SUGGESTED_TIP: u64 = 1_000_000_000;

/// How long `eth_sendRawTransactionSync` waits for inclusion unless told.
const SYNC_TIMEOUT: Duration = Duration::from_secs(30);

/// Which of the chain's two faces is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Node,
    /// A node that also sponsors what it is asked to fill in.
    Sponsor,
}

impl Endpoint {
    /// The path of the sponsor.
    pub(crate) const SPONSOR: &'static str = "/sponsor";

    pub(crate) fn at(path: &str) -> Self {
        if path == Self::SPONSOR {
            Self::Sponsor
        } else {
            Self::Node
        }
    }
}

/// Answers one method call.
///
/// # Errors
/// The error object of the reply.
pub(crate) async fn call(
    node: &Node,
    endpoint: Endpoint,
    method: &str,
    params: &Params,
) -> Result<Value, RpcError> {
    match method {
        "eth_fillTransaction" if endpoint == Endpoint::Sponsor => {
            sponsor::fill(&mut node.state(), params.required(0)?)
        }
        "eth_sendRawTransactionSync" => send_sync(node, params).await,
        "evm_increaseTime" => {
            let seconds = params.quantity(0)?;
            node.update(|state| state.advance(Duration::from_secs(seconds)));
            Ok(json!(U64::from(node.state().ahead().as_secs())))
        }
        "eth_sendRawTransaction" => {
            let raw: Bytes = params.required(0)?;
            Ok(json!(node.submit(&raw, false)?))
        }
        _ => read(&mut node.state(), method, params),
    }
}

fn read(state: &mut State, method: &str, params: &Params) -> Result<Value, RpcError> {
    Ok(match method {
        "eth_chainId" => json!(U64::from(state.head().chain_id)),
        "net_version" => json!(state.head().chain_id.to_string()),
        "web3_clientVersion" => json!(concat!(
            "farebox-sandbox-tempo/v",
            env!("CARGO_PKG_VERSION")
        )),
        "eth_syncing" => json!(false),
        "eth_accounts" => json!([]),
        "eth_blockNumber" => json!(U64::from(state.height())),
        "eth_gasPrice" => json!(U64::from(
            state.head().base_fee.saturating_add(SUGGESTED_TIP)
        )),
        "eth_maxPriorityFeePerGas" => json!(U64::from(SUGGESTED_TIP)),
        "eth_feeHistory" => fee_history(state, params)?,
        "eth_getBlockByNumber" => {
            let number = params.block(0, state)?;
            let full = params.optional(1)?.unwrap_or(false);
            number
                .and_then(|n| state.block(n))
                .map_or(Value::Null, |block| view::block(block, full))
        }
        "eth_getBlockByHash" => {
            let full = params.optional(1)?.unwrap_or(false);
            let block = state.block_by_hash(&params.required(0)?);
            block.map_or(Value::Null, |block| view::block(block, full))
        }
        "eth_getBalance" => {
            let _: Address = params.required(0)?;
            json!(NATIVE_PLACEHOLDER)
        }
        "eth_getCode" => json!(if has_code(params.required(0)?) {
            "0xef"
        } else {
            "0x"
        }),
        "eth_getStorageAt" => json!(B256::ZERO),
        "eth_getTransactionCount" => {
            let account = params.required(0)?;
            let pending = params
                .optional::<String>(1)?
                .is_some_and(|tag| tag == "pending");
            json!(U64::from(match pending {
                true => state.pending_nonce(account),
                false => state.ledger.nonce(account, U256::ZERO),
            }))
        }
        "eth_getTransactionByHash" => {
            let hash = params.required(0)?;
            match (state.included(&hash), state.pooled(&hash)) {
                (Some((block, one)), _) => view::transaction(&one.tx, Some((block, one))),
                (None, Some(tx)) => view::transaction(tx, None),
                (None, None) => Value::Null,
            }
        }
        "eth_getTransactionReceipt" => receipt(state, &params.required(0)?),
        "eth_getLogs" => {
            let filter = log_filter(state, params.required(0)?)?;
            view::logs(state, &filter)
        }
        "eth_call" => {
            let executed = simulate(state, params)?;
            json!(executed.result?)
        }
        "eth_estimateGas" => {
            let executed = simulate(state, params)?;
            let _: Bytes = executed.result?;
            json!(U64::from(executed.gas_used))
        }
        unknown => return Err(RpcError::method(unknown)),
    })
}

fn simulate(state: &mut State, params: &Params) -> Result<crate::exec::Executed, RpcError> {
    let request: CallRequest = params.required(0)?;
    if request.is_create() {
        return Err(RpcError::rejected("contract creation is not supported"));
    }
    if params.get(2).is_some() {
        return Err(RpcError::params("state overrides are not supported"));
    }
    let message = request.message(&state.ledger, state.head())?;
    Ok(state.simulate(&message))
}

fn receipt(state: &State, hash: &B256) -> Value {
    state
        .included(hash)
        .map_or(Value::Null, |(block, one)| view::receipt(block, one))
}

/// Broadcasts and waits for the receipt. The second parameter is a timeout in milliseconds.
async fn send_sync(node: &Node, params: &Params) -> Result<Value, RpcError> {
    let raw: Bytes = params.required(0)?;
    let limit = match params.get(1) {
        None => SYNC_TIMEOUT,
        Some(_) => Duration::from_millis(params.quantity(1)?),
    };
    let mut beats = node.beats();
    let hash = node.submit(&raw, true)?;
    let included = async {
        loop {
            match node.state().whereabouts(&hash) {
                Whereabouts::Included => return true,
                Whereabouts::Gone => return false,
                Whereabouts::Pooled => {}
            }
            if beats.changed().await.is_err() {
                return false;
            }
        }
    };
    match tokio::time::timeout(limit.min(SYNC_TIMEOUT), included).await {
        Ok(true) => Ok(receipt(&node.state(), &hash)),
        Ok(false) => Err(RpcError::rejected("transaction dropped")),
        Err(_) => Err(RpcError::new(-32603, "Transaction confirmation timeout")),
    }
}

fn fee_history(state: &State, params: &Params) -> Result<Value, RpcError> {
    let count = params.quantity(0)?;
    let newest = params
        .block(1, state)?
        .unwrap_or_else(|| state.height())
        .min(state.height());
    let columns = params
        .optional::<Vec<f64>>(2)?
        .map(|percentiles| percentiles.len());
    Ok(view::fee_history(state, count, newest, columns))
}

/// One value, several, or none.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMany<T> {
    One(T),
    Many(Vec<T>),
}

impl<T> OneOrMany<T> {
    fn into_vec(self) -> Vec<T> {
        match self {
            Self::One(one) => vec![one],
            Self::Many(many) => many,
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct FilterRequest {
    address: Option<OneOrMany<Address>>,
    topics: Vec<Option<OneOrMany<B256>>>,
    from_block: Value,
    to_block: Value,
    block_hash: Option<B256>,
}

fn log_filter(state: &State, request: FilterRequest) -> Result<LogFilter, RpcError> {
    let blocks = match request.block_hash {
        Some(hash) => {
            let block = state.block_by_hash(&hash);
            let number = block
                .ok_or_else(|| RpcError::new(-32000, "unknown block"))?
                .number();
            number..=number
        }
        None => {
            let edge = |value: &Value| match value {
                Value::Null => Ok(state.height()),
                value => block_number(value, state).map(|n| n.unwrap_or_else(|| state.height())),
            };
            edge(&request.from_block)?..=edge(&request.to_block)?
        }
    };
    let list = |any: Option<OneOrMany<B256>>| any.map(OneOrMany::into_vec).unwrap_or_default();
    Ok(LogFilter {
        blocks,
        addresses: request.address.map(OneOrMany::into_vec).unwrap_or_default(),
        topics: request.topics.into_iter().map(list).collect(),
    })
}

/// A block tag or number; `None` for a number not reached yet.
fn block_number(value: &Value, state: &State) -> Result<Option<u64>, RpcError> {
    let newest = state.height();
    match value.as_str() {
        Some("latest" | "pending" | "safe" | "finalized") => Ok(Some(newest)),
        Some("earliest") => Ok(Some(0)),
        _ => {
            let number: U64 = parse(value)?;
            let number = number.to::<u64>();
            Ok((number <= newest).then_some(number))
        }
    }
}

/// Positional parameters.
#[derive(Debug)]
pub(crate) struct Params(Vec<Value>);

impl Params {
    /// # Errors
    /// -32602 for parameters by name.
    pub(crate) fn new(value: Option<Value>) -> Result<Self, RpcError> {
        match value {
            None | Some(Value::Null) => Ok(Self(Vec::new())),
            Some(Value::Array(values)) => Ok(Self(values)),
            Some(_) => Err(RpcError::params("params must be an array")),
        }
    }

    fn get(&self, at: usize) -> Option<&Value> {
        self.0.get(at).filter(|value| !value.is_null())
    }

    fn required<T: DeserializeOwned>(&self, at: usize) -> Result<T, RpcError> {
        match self.get(at) {
            Some(value) => parse(value),
            None => Err(RpcError::params(format!("missing parameter {at}"))),
        }
    }

    fn optional<T: DeserializeOwned>(&self, at: usize) -> Result<Option<T>, RpcError> {
        self.get(at).map(parse).transpose()
    }

    /// A number, in JSON or in hex.
    fn quantity(&self, at: usize) -> Result<u64, RpcError> {
        match self.get(at) {
            Some(Value::Number(number)) => Ok(number.as_u64().unwrap_or_default()),
            _ => Ok(self.required::<U64>(at)?.to()),
        }
    }

    /// A block parameter; absent means the newest.
    fn block(&self, at: usize, state: &State) -> Result<Option<u64>, RpcError> {
        self.get(at)
            .map_or(Ok(Some(state.height())), |value| block_number(value, state))
    }
}

fn parse<T: DeserializeOwned>(value: &Value) -> Result<T, RpcError> {
    T::deserialize(value).map_err(|error| RpcError::params(error.to_string()))
}
